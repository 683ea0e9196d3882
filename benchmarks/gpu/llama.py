"""LoRA of Llama-3.1-8B's shape with random weights: packed as Winnow trains, beside transformers' Trainer."""

from __future__ import annotations

import copy
import gc
import importlib.util
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from accelerate.state import AcceleratorState
from torch import nn
from transformers import (
    AutoModelForSequenceClassification,
    DataCollatorWithPadding,
    LlamaConfig,
    PreTrainedTokenizerFast,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from winnow_classifier.attention import PACKED_ATTENTION, register
from winnow_classifier.model import Classifier, Lora, add_lora
from winnow_classifier.packing import pack, plan_batches

GOAL = 0.55
# Dense bfloat16 FLOP a second, from the makers' data sheets.
PEAK = {"H100 PCIe": 756e12, "H100": 989e12, "H200": 989e12, "A100": 312e12, "L40S": 362e12, "L4": 121e12}
LABELS = 5
LORA = Lora(rank=16, alpha=32, dropout=0.05, target_modules=["all-linear"])
LEARNING_RATE = 2e-4


@dataclass(frozen=True)
class Plan:
    config: LlamaConfig
    step_tokens: int  # computed at a time: a micro-batch, and here a step
    row_tokens: tuple[int, ...]  # the longest text of each round
    steps: int
    warm_up: int


def plan(tiny: bool) -> Plan:
    if tiny:
        sizes: dict[str, Any] = {
            "hidden_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
        }
        config = LlamaConfig(**sizes, intermediate_size=128, vocab_size=500, pad_token_id=0)
        return Plan(config, 128, (32, 64), 3, 1)
    sizes = {"hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8}
    config = LlamaConfig(**sizes, intermediate_size=14_336, vocab_size=128_256, pad_token_id=128_004)
    config.max_position_embeddings = 8_192
    config.rope_parameters = {"rope_type": "default", "rope_theta": 500_000.0}
    return Plan(config, 8_192, (512, 2_048), 12, 4)


def texts(plan: Plan, longest: int) -> list[list[int]]:
    """Log-normal lengths, half of `longest` in the middle, cut there: enough of them for all steps."""
    generator = torch.Generator().manual_seed(longest)
    found: list[list[int]] = []
    tokens = 0
    while tokens < plan.step_tokens * (plan.steps + plan.warm_up):
        spread = float(torch.randn((), generator=generator)) * 0.6
        length = max(2, min(longest, int(longest / 2 * torch.tensor(spread).exp())))
        found.append(torch.randint(1, 400, (length,), generator=generator).tolist())
        tokens += length
    return found


def network(plan: Plan, device: torch.device, attention: str) -> Any:
    """Random weights in bfloat16 as a frozen body has them on a GPU, made there at once."""
    plan.config.num_labels = LABELS
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    torch.manual_seed(0)
    with torch.device(device):
        made = AutoModelForSequenceClassification.from_config(
            copy.deepcopy(plan.config), dtype=dtype, attn_implementation=attention
        )
    made.config.use_cache = False
    return made


def with_lora(made: Any, device: torch.device) -> Classifier:
    model = add_lora(Classifier(made), LORA)
    for weight in model.parameters():
        if weight.requires_grad:
            weight.data = weight.data.float()
    return model.to(device)


@dataclass(frozen=True)
class Measured:
    tokens_per_second: float
    peak_bytes: int
    loss: float


def winnow(plan: Plan, device: torch.device, rows: list[list[int]]) -> Measured:
    register()
    model = with_lora(network(plan, device, PACKED_ATTENTION), device).train()
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=LEARNING_RATE, fused=True)
    watch = Watch(device, plan.warm_up)
    loss = torch.zeros(())
    for batch in plan_batches([len(row) for row in rows], plan.step_tokens)[: plan.steps + plan.warm_up]:
        chosen = [rows[index] for index in batch]
        with torch.autocast(device.type, dtype=torch.bfloat16):
            logits = model(pack(chosen).to(device))
        target = torch.tensor([row[0] % LABELS for row in chosen], device=device)
        loss = nn.functional.cross_entropy(logits, target)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(trained, 0.3, foreach=True)
        optimizer.step()
        optimizer.zero_grad()
        watch.step(sum(map(len, chosen)))
    return watch.measured(float(loss.detach()))


class Watch:
    """Real tokens a second after the warm-up, the device's queue emptied at both ends."""

    def __init__(self, device: torch.device, warm_up: int) -> None:
        self.device, self.warm_up = device, warm_up
        self.steps = self.tokens = 0
        self.began = time.perf_counter()
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()

    def step(self, tokens: int) -> None:
        self.steps += 1
        if self.steps > self.warm_up:
            self.tokens += tokens
        elif self.steps == self.warm_up:
            self.synchronise()
            self.began = time.perf_counter()

    def synchronise(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def measured(self, loss: float) -> Measured:
        self.synchronise()
        seconds = time.perf_counter() - self.began
        peak = torch.cuda.max_memory_allocated() if self.device.type == "cuda" else 0
        return Measured(self.tokens / seconds, peak, loss)


class Counting(TrainerCallback):
    def __init__(self, watch: Watch, tokens: Callable[[], int]) -> None:
        self.watch, self.tokens = watch, tokens

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.watch.step(self.tokens())


class Rows(torch.utils.data.Dataset[dict[str, Any]]):
    def __init__(self, rows: list[list[int]]) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        row = self.rows[index]
        return {"input_ids": row, "labels": row[0] % LABELS}


def trainer(plan: Plan, device: torch.device, rows: list[list[int]]) -> Measured:
    """The same LoRA; texts grouped by length, padded to the longest of a batch of as many tokens."""
    AcceleratorState._reset_state(reset_partial_state=True)
    best = "flash_attention_2" if device.type == "cuda" and importlib.util.find_spec("flash_attn") else "sdpa"
    model = with_lora(network(plan, device, best), device)
    mean = sum(map(len, rows)) / len(rows)
    seen = [0]
    # Its vocabulary is never asked; the collator wants a tokenizer for its padding.
    collate = DataCollatorWithPadding(padding_tokenizer(plan.config.pad_token_id or 0))

    def counted(features: list[dict[str, Any]]) -> Any:
        seen[0] = sum(len(feature["input_ids"]) for feature in features)
        return collate(features)

    watch = Watch(device, plan.warm_up)
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder,
            per_device_train_batch_size=max(1, int(plan.step_tokens / mean)),
            max_steps=plan.steps + plan.warm_up,
            learning_rate=LEARNING_RATE,
            max_grad_norm=0.3,
            bf16=device.type == "cuda",
            use_cpu=device.type == "cpu",
            train_sampling_strategy="group_by_length",
            dataloader_num_workers=0,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            logging_strategy="no",
        )
        run = Trainer(
            model=model.network,
            args=arguments,
            train_dataset=Rows(rows),
            data_collator=counted,
            callbacks=[Counting(watch, lambda: seen[0])],
        )
        result = run.train()
    return watch.measured(float(result.training_loss))


def padding_tokenizer(pad: int) -> PreTrainedTokenizerFast:
    from tokenizers import Tokenizer, models

    made = Tokenizer(models.WordLevel({"[PAD]": pad, "[UNK]": pad + 1}, unk_token="[UNK]"))
    return PreTrainedTokenizerFast(tokenizer_object=made, pad_token="[PAD]", unk_token="[UNK]")


def body_weights(plan: Plan) -> int:
    """Numbers in the linear layers that each token goes through: 6.98e9 of Llama-3.1-8B."""
    with torch.device("meta"):
        made = AutoModelForSequenceClassification.from_config(plan.config)
    return sum(layer.weight.numel() for layer in made.model.modules() if isinstance(layer, nn.Linear))


def peak_flops(device: torch.device) -> float | None:
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    return next((peak for part, peak in PEAK.items() if part in name), None)


def run(device: torch.device, tiny: bool) -> dict[str, Any]:
    made, rounds = plan(tiny), []
    flops = 4 * body_weights(made)  # forward, and backward to the states alone: the weights get no gradient
    peak = peak_flops(device)
    for longest in made.row_tokens:
        rows = texts(made, longest)
        found: dict[str, Any] = {"rowTokens": longest, "texts": len(rows)}
        for name, program in (("winnow", winnow), ("trainer", trainer)):
            measured = program(made, device, rows)
            used = measured.tokens_per_second * flops / peak if peak else None
            found[name] = {
                "tokensPerSecond": measured.tokens_per_second,
                "peakBytes": measured.peak_bytes,
                "utilisation": used,
                "loss": measured.loss,
            }
            told = f", {used:.1%} of the GPU" if used else ""
            print(
                f"  to {longest} tokens, {name}: {measured.tokens_per_second:,.0f} tokens/s, {measured.peak_bytes / 2**30:.1f} GiB{told}"
            )
            gc.collect()
            if device.type == "cuda":
                torch.cuda.empty_cache()
        rounds.append(found)
    missed = [
        f"texts to {found['rowTokens']} tokens: {used:.1%} of the GPU, of {GOAL:.0%}"
        for found in rounds
        if (used := found["winnow"]["utilisation"]) is not None and used < GOAL and not tiny
    ]
    return {"passed": not missed, "missed": missed, "flopsPerToken": flops, "peakFlops": peak, "rounds": rounds}
