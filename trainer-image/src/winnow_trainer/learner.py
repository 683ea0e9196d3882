"""One optimizer step, exactly: gradients averaged over the rows of the step, however they are cut for memory.

Letters: S rows of a step, C labels, d width of the body.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from threading import Event
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from winnow_classifier.labels import LabelSchema
from winnow_classifier.model import Classifier
from winnow_classifier.packing import TOKENS_MULTIPLE, PackedBatch, plan_batches
from winnow_trainer import fsdp, head_start
from winnow_trainer.average import WeightAverage
from winnow_trainer.bert_layers import OwnGradients, can_differentiate
from winnow_trainer.embedding import TrimmedTable
from winnow_trainer.examples import Examples
from winnow_trainer.inference import over_rows
from winnow_trainer.job import ADAPTERS, Method, Parameters
from winnow_trainer.losses import objective
from winnow_trainer.methods import set_training
from winnow_trainer.optimizers import make_optimizer
from winnow_trainer.ranks import ALONE, Ranks
from winnow_trainer.sharing import shares
from winnow_trainer.steps import Rows

HEAD_ROWS = 4_096  # whose features the head reads at a time where nothing is learned


@dataclass(frozen=True, slots=True)
class StepResult:
    losses: Tensor  # (S,) nats, on the device
    gradient_norm: Tensor  # before clipping


class Learner:
    """The model, its optimizer, and the rows it learns from."""

    def __init__(
        self,
        model: Classifier,
        examples: Examples,
        schema: LabelSchema,
        method: Method,
        parameters: Parameters,
        accelerator: Accelerator,
        stop: Event,
        rows: Rows | None = None,
        ranks: Ranks = ALONE,
        told: Callable[[str], None] = lambda _: None,
    ) -> None:
        """`rows`: those of `examples` that train, repeated where they repeat; None for all. `told` is called with what goes on
        between steps, in words."""
        self.ranks = ranks
        self.told = told
        self.model = model
        self.cut = fsdp.is_cut(model)
        self.examples = examples
        self.schema = schema
        self.method = method
        self.parameters = parameters
        self.accelerator = accelerator
        self.stop = stop
        self.targets = torch.tensor(examples.targets, dtype=torch.float32, device=model.device)
        self.objective = objective(
            parameters, schema, examples.targets if rows is None else examples.targets[rows], model.device
        )
        packs = model.architecture.packs  # else texts become features only with the head's own help
        # A body that does not change gives each row the same features in all epochs.
        self.features = self.features_to_learn(model.features, examples) if method == "HeadOnly" and packs else None
        # Only with plain AdamW does leaving a row out change no other one: with Adafactor rows share moments, in 8 bits they share
        # scales. And only of a plain table: Gemma 3's, for one, scales what it looks up.
        plain = packs and not self.cut and type(model.body.get_input_embeddings()) is torch.nn.Embedding
        trims = plain and method == "Full" and parameters.weight_decay == 0 and parameters.optim in (None, "adamw")
        occurring = torch.from_numpy(examples.tokens).long().unique()  # type: ignore[no-untyped-call]
        self.judged_features: list[tuple[Examples, Tensor]] = []
        self.table = TrimmedTable(model.body, occurring) if trims else None
        self.layers = OwnGradients(model) if method == "Full" and not self.cut and can_differentiate(model) else None
        by_onednn = model.device.type == "cpu" and accelerator.mixed_precision == "bf16"
        fills = packs and by_onednn and parameters.max_seq_length >= TOKENS_MULTIPLE  # else it may lack positions
        self.multiple = TOKENS_MULTIPLE if fills else 1
        self.average: WeightAverage | None = None
        self.learn()
        self.trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.learning: list[torch.nn.Parameter] | None = None
        if parameters.ema_decay:
            self.average = WeightAverage(self.trainable, parameters.ema_decay)
        self.optimizer = make_optimizer(self.trainable, parameters)
        self.read()

    def learn(self) -> None:
        """Ready for steps."""
        if self.table is not None:
            self.table.install()
        if self.layers is not None:
            self.layers.install()
        if self.average is not None:
            self.average.hide()
        set_training(self.model, self.method)

    def read(self) -> None:
        """Ready for any text, evaluation and saving: the whole model, without dropout, with averaged weights if asked for."""
        if self.average is not None:
            self.average.show()
        if self.table is not None:
            self.table.restore()
        if self.layers is not None:
            self.layers.restore()
        self.model.eval()

    def start_head(self, rows: Rows) -> None:
        """What parameters.headInit asks for, from the rows that train; before the first step."""
        if self.parameters.head_init != "Ridge":
            return
        chosen = head_start.sample(rows, self.parameters.seed)
        if self.features is not None:
            features = self.features[torch.from_numpy(chosen)]
        else:
            with fsdp.callable_features(self.model) as function:
                features = self.features_to_learn(function, self.examples.take(chosen))
        with fsdp.together(self.model), fsdp.whole_head(self.model):
            head_start.start_head(self.model, features, self.targets[torch.from_numpy(chosen)], self.objective)

    def agree(self) -> None:
        """Give all processes the weights of the first. Where the model is cut over them nothing is to do: each holds its part of
        weights that were the same in all."""
        if not self.cut:
            self.ranks.copy(list(self.trainable.values()))

    def step(self, rows: Rows, learning_rate: float) -> StepResult:
        """One step on `rows`, whose order does not matter but for dropout; each process computes a share of them."""
        result = torch.zeros(len(rows), device=self.model.device)
        batches = self.micro_batches(rows)
        with fsdp.together(self.model):
            for places in batches:
                each = self.losses(rows[places])
                # Divided by the rows of the whole step, not of this part of it: the parts differ in size.
                self.accelerator.backward(each.sum() / len(rows))
                result[torch.tensor(places)] = each.detach()
            for _ in range(self.passes(rows) - len(batches)):
                self.accelerator.backward(self.losses(rows[:1]).sum() * 0)
        if self.ranks.size > 1:
            self.ranks.add_up([result] if self.cut else [*self.gradients(), result])
        with fsdp.together(self.model):
            norm = fsdp.number(
                torch.nn.utils.clip_grad_norm_(self.trainable.values(), self.parameters.max_grad_norm, foreach=True)
            )
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.average is not None:
            self.average.update()
        return StepResult(result, norm)

    def losses(self, rows: Rows) -> Tensor:
        with self.accelerator.autocast():
            logits = self.logits(rows)
        return self.objective(logits, self.targets[torch.from_numpy(rows)])

    def gradients(self) -> list[Tensor]:
        """The gradients of all parameters that have one in any process; zeros where this one's share had no rows."""
        if self.learning is None:
            found = self.ranks.any(*(parameter.grad is not None for parameter in self.trainable.values()))
            self.learning = [p for p, learns in zip(self.trainable.values(), found, strict=True) if learns]
        for parameter in self.learning:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        return [parameter.grad for parameter in self.learning if parameter.grad is not None]

    def micro_batches(self, rows: Rows) -> list[list[int]]:
        """Places in `rows` that this process computes, cut for memory."""
        lengths = self.examples.lengths[rows].tolist()
        own = self.ranks.share(lengths)
        if self.features is not None:
            return [own] if own else []
        return self.cut_for_memory(own, lengths)

    def cut_for_memory(self, places: list[int], lengths: list[int]) -> list[list[int]]:
        batches = plan_batches([lengths[place] for place in places], self.parameters.max_train_tokens)
        return [[places[i] for i in batch] for batch in batches]

    def passes(self, rows: Rows) -> int:
        """How often each process runs a model that is cut over processes in this step: all equally often, since each computes with
        parts of the others. So as often as the process with the most micro-batches; 0 for a model that is not cut."""
        if not self.cut:
            return 0
        lengths = self.examples.lengths[rows].tolist()
        return max(len(self.cut_for_memory(share, lengths)) for share in shares(lengths, self.ranks.size))

    def logits(self, rows: Rows) -> Tensor:
        if self.features is not None:
            return self.model.head(self.features[torch.from_numpy(rows)].to(self.model.device))
        packed = self.examples.pack(rows.tolist(), self.model.position_start, self.multiple)
        return self.model(packed.to(self.model.device))[: len(rows)]  # type: ignore[no-any-return]

    def predict(self, examples: Examples, which: str = "rows") -> Tensor:
        """(N, C) float32 logits on the CPU, in the order of the rows. After each epoch it is asked for the same test and validation
        rows, so their features are kept where the body does not change."""
        if self.features is None:
            return self.run(self.model, examples, f"the {which} are answered")
        known = next((features for seen, features in self.judged_features if seen is examples), None)
        if known is None:
            known = self.run(self.model.features, examples, f"features of the {which} are computed")
            self.judged_features.append((examples, known))
        with torch.no_grad():  # in parts: a device has no room for the features of all rows
            parts = known.split(HEAD_ROWS)  # type: ignore[no-untyped-call]
            return torch.cat([self.model.head(part.to(self.model.device)).cpu() for part in parts])

    def features_to_learn(self, function: Callable[[PackedBatch], Tensor], examples: Examples) -> Tensor:
        return self.run(function, examples, "features of the training rows are computed", learns=True)

    def run(
        self, function: Callable[[PackedBatch], Tensor], examples: Examples, what: str, learns: bool = False
    ) -> Tensor:
        def tell(done: int) -> None:
            self.told(f"{what}: {min(done * self.ranks.size, len(examples)):,} of {len(examples):,}")

        return over_rows(
            self.model,
            function,
            examples,
            self.parameters.max_eval_tokens,
            # Rows are evaluated in the precision of the server: on a CPU that is float32, or a faster form that gave the same
            # answers (ADR 77). Features that a head learns from are computed in the precision of training.
            self.accelerator.autocast if learns or self.model.device.type == "cuda" else nullcontext,
            self.stop,
            self.ranks,
            all_pass=self.cut,
            told=tell,
        )

    def weights(self) -> dict[str, Tensor] | None:
        """The weights that a checkpoint holds, put together from all processes for the first one; all have to call this. None where
        the model is not cut over processes: the first one has them already."""
        if not self.cut:
            return None
        network = self.model.network
        adapter = {name for name, weight in network.named_parameters() if weight.requires_grad}
        kept = {
            name: weight
            for name, weight in network.state_dict().items()
            if self.method not in ADAPTERS or name in adapter
        }
        with fsdp.together(self.model):
            return fsdp.whole(kept, self.ranks.leads)  # type: ignore[no-any-return]

    def state(self) -> dict[str, Any]:
        """Tensors and plain values: all that the next step depends on, except the rows. Where the model is cut over processes, the
        first one gets the whole."""
        cuda = [torch.cuda.get_rng_state()] if torch.cuda.is_available() else []
        weights: dict[str, Tensor] = {name: parameter.detach() for name, parameter in self.trainable.items()}
        learned: dict[str, Any] = {"trainable": weights, "optimizer": self.optimizer.state_dict()}
        if self.average is not None:
            learned["trainable"], learned["average"] = self.average.apart(weights)
        with fsdp.together(self.model):
            learned = fsdp.whole(learned, self.ranks.leads) if self.cut else learned
        return {
            **learned,
            "random": {"cpu": torch.get_rng_state(), "cuda": cuda} if self.ranks.size == 1 else self.random(),
        }

    def random(self) -> dict[str, list[Tensor]]:
        """The random state of each process."""
        cuda = self.ranks.gather(torch.cuda.get_rng_state()) if torch.cuda.is_available() else []
        return {"cpus": self.ranks.gather(torch.get_rng_state()), "cudas": cuda}

    def load_random(self, random: Mapping[str, Any]) -> None:
        if "cpus" not in random:
            torch.set_rng_state(random["cpu"])
            # Points of older versions hold those of the machine's other GPUs too.
            if random["cuda"] and torch.cuda.is_available():
                torch.cuda.set_rng_state(random["cuda"][0])
            return
        torch.set_rng_state(random["cpus"][self.ranks.rank])
        if random["cudas"]:
            torch.cuda.set_rng_state(random["cudas"][self.ranks.rank])

    def load_state(self, state: Mapping[str, Any]) -> None:
        if self.average is not None:
            self.average.hide()
            self.average.load_state(state["average"])
        for name, parameter in self.trainable.items():
            fsdp.put(parameter, state["trainable"][name])
        fsdp.load_optimizer(self.optimizer, state["optimizer"])
        self.load_random(state["random"])
        self.read()
