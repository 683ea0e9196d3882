"""One optimizer step: the same gradient however it is cut, exact shortcuts, rows that can be learned."""

from contextlib import nullcontext
from threading import Event

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from tiny_learner import ALL, SCHEMA, learner
from torch.nn import functional
from torch.testing import assert_close

from winnow_classifier.labels import LabelSchema, TaskDetail
from winnow_trainer.embedding import TrimmedTable
from winnow_trainer.inference import over_rows
from winnow_trainer.learner import Learner
from winnow_trainer.ranks import Ranks


def gradients(learner: Learner, monkeypatch) -> dict[str, torch.Tensor]:
    kept: dict[str, torch.Tensor] = {}
    monkeypatch.setattr(
        learner.optimizer,
        "step",
        lambda: kept.update({n: p.grad.clone() for n, p in learner.trainable.items() if p.grad is not None}),
    )
    learner.learn()
    learner.step(ALL, 0.1)
    return kept


@pytest.mark.parametrize("method", ["Full", "LoRA", "HeadOnly"])
def test_the_gradient_is_the_mean_over_the_rows_of_the_step_however_it_is_cut(tmp_path, monkeypatch, method):
    options = {"lora_dropout": 0.0} if method == "LoRA" else {}
    whole = learner(tmp_path, method, per_device_train_batch_size=12, **options)
    parts = learner(tmp_path, method, per_device_train_batch_size=1, **options)
    assert len(whole.micro_batches(ALL)) == 1
    assert method == "HeadOnly" or len(parts.micro_batches(ALL)) > 3
    expected, found = gradients(whole, monkeypatch), gradients(parts, monkeypatch)
    assert expected.keys() == found.keys()
    for name in expected:
        assert_close(found[name], expected[name], rtol=1e-4, atol=1e-7)
    # The independent source: autograd of the mean loss, rows one by one.
    model = whole.model
    model.zero_grad()
    if whole.layers is not None:
        whole.layers.restore()
    logits = torch.cat([model(whole.examples.pack([row], 0)) for row in ALL])
    torch.nn.functional.cross_entropy(logits, whole.targets.argmax(dim=1)).mean().backward()
    for name, parameter in whole.trainable.items():
        assert_close(expected[name], parameter.grad, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("method", ["Full", "LoRA"])
def test_gradients_reach_the_optimizer_no_longer_than_their_greatest_norm(tmp_path, monkeypatch, method):
    options = {"lora_dropout": 0.0} if method == "LoRA" else {}
    whole = gradients(learner(tmp_path, method, **options), monkeypatch)
    cut = gradients(learner(tmp_path, method, max_grad_norm=0.005, **options), monkeypatch)
    norm = torch.stack([gradient.norm() for gradient in whole.values()]).norm()
    assert norm > 0.01
    for name, gradient in whole.items():  # scaled as one, so that the direction stays
        assert_close(cut[name], gradient * 0.005 / norm, rtol=1e-3, atol=1e-8)


def test_a_step_goes_as_far_as_its_rate_says(tmp_path):
    each = learner(tmp_path, "HeadOnly")
    before = {name: parameter.detach().clone() for name, parameter in each.trainable.items()}
    each.learn()
    each.step(ALL, 0.01)
    for name, parameter in each.trainable.items():  # AdamW's first step: the rate, against the gradient's sign
        assert_close((parameter - before[name]).abs().max(), torch.tensor(0.01), rtol=1e-2, atol=0)


FEW_OF_B = np.eye(3, dtype=np.int8)[[0, 0, 1, 0, 2, 0, 0, 2, 0, 1, 0, 2]]
SEVERAL = np.array([[1, 0, 0], [1, 1, 0], [0, 0, 0], [1, 0, 1]] * 3, dtype=np.int8)
CUSTOM = {"class_weights": {"mode": "Custom", "weights": {"b": 3, "c": 0.5}}}
WEIGHTS = torch.tensor([1.0, 3.0, 0.5])
BALANCED = {"class_weights": {"mode": "Balanced"}}


def of_class(logits, rows=ALL, **options):
    """torch's loss of each row, weighted as a mean over all of them is."""
    held = torch.from_numpy(FEW_OF_B[rows].argmax(axis=1))
    each = functional.cross_entropy(logits, held, reduction="none", **options)
    return each if "weight" not in options else each * len(held) / options["weight"][held].sum()


def balanced(logits, rows=ALL):
    weight = compute_class_weight("balanced", classes=np.arange(3), y=FEW_OF_B[rows].argmax(axis=1))
    return of_class(logits, rows, weight=torch.from_numpy(weight).float())


def focal(logits):
    chance = logits.softmax(dim=1)[torch.from_numpy(FEW_OF_B) > 0]
    return -((1 - chance) ** 1.5) * chance.log()


def of_labels(logits, smoothed=0.0, **options):
    targets = torch.from_numpy(SEVERAL).float() * (1 - smoothed) + smoothed / 2
    return functional.binary_cross_entropy_with_logits(logits, targets, reduction="none", **options).mean(dim=1)


@pytest.mark.parametrize(
    ("task", "given", "expected"),
    [
        pytest.param("Multiclass", {}, of_class, id="classes"),
        pytest.param("Multiclass", CUSTOM, lambda x: of_class(x, weight=WEIGHTS), id="weights of classes"),
        pytest.param("Multiclass", BALANCED, balanced, id="balanced classes"),
        pytest.param(
            "Multiclass", {"label_smoothing": 0.2}, lambda x: of_class(x, label_smoothing=0.2), id="smoothed classes"
        ),
        pytest.param("Multiclass", {"loss": {"type": "Focal", "gamma": 1.5}}, focal, id="focal"),
        pytest.param("Multilabel", {}, of_labels, id="labels"),
        pytest.param("Multilabel", CUSTOM, lambda x: of_labels(x, pos_weight=WEIGHTS), id="weights of positives"),
        pytest.param(  # negatives / positives of each
            "Multilabel",
            BALANCED,
            lambda x: of_labels(x, pos_weight=torch.tensor([1 / 3, 3.0, 3.0])),
            id="balanced positives",
        ),
        pytest.param("Multilabel", {"label_smoothing": 0.2}, lambda x: of_labels(x, 0.2), id="smoothed labels"),
    ],
)
def test_the_losses_of_a_step_are_torchs_with_the_weights_that_were_asked_for(tmp_path, task, given, expected):
    schema = LabelSchema(TaskDetail(task), SCHEMA.labels)
    each = learner(tmp_path, schema=schema, targets=FEW_OF_B if task == "Multiclass" else SEVERAL, **given)
    each.learn()
    with torch.no_grad():
        logits = each.logits(ALL)
    assert_close(each.step(ALL, 0.0).losses, expected(logits), rtol=1e-5, atol=1e-6)


def test_balanced_weights_count_the_rows_that_train_as_often_as_they_repeat(tmp_path):
    rows = np.array([*ALL, 2, 9, 2, 9, 2, 9, 2, 9])  # half of them with label b
    each = learner(tmp_path, targets=FEW_OF_B, rows=rows, **BALANCED)
    each.learn()
    with torch.no_grad():
        logits = each.logits(rows)
    assert_close(each.step(rows, 0.0).losses, balanced(logits, rows), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("given", [{}, CUSTOM, BALANCED], ids=["none", "custom", "balanced"])
def test_where_no_text_tells_the_labels_apart_a_head_learns_their_weighted_shares(tmp_path, given):
    each = learner(tmp_path, "HeadOnly", targets=FEW_OF_B, **given)
    each.features = torch.zeros_like(each.features)  # biases alone are left to learn
    each.learn()
    for rate in (0.1, 0.01):
        for _ in range(60):
            each.step(ALL, rate)
    each.read()
    counts = torch.from_numpy(FEW_OF_B.sum(axis=0)).float()
    shares = counts * (WEIGHTS if given is CUSTOM else 1 / counts if given is BALANCED else 1)
    with torch.no_grad():
        found = each.logits(ALL).softmax(dim=1)
    assert_close(found, (shares / shares.sum()).expand(12, 3), rtol=0, atol=5e-3)


@pytest.mark.parametrize("model_type", ["bert", "llama"])
def test_tokens_that_fill_a_micro_batch_up_change_no_gradient(tmp_path, monkeypatch, model_type):
    """In float32, where rounding hides nothing; on CPUs with bfloat16 micro-batches are filled up."""
    plain, filled = (learner(tmp_path, "Full", model_type) for _ in range(2))
    filled.multiple = 64
    batch = filled.examples.pack(ALL.tolist(), 0, filled.multiple)
    assert sum(batch.lengths) % 64 == 0
    assert len(batch.lengths) == len(ALL) + 1
    expected, found = gradients(plain, monkeypatch), gradients(filled, monkeypatch)
    for name in expected:
        assert_close(found[name], expected[name], rtol=1e-4, atol=1e-7)


def test_rows_that_do_not_occur_may_be_left_out_of_adamw(tmp_path, monkeypatch):
    """Without weight decay the trimmed table ends where AdamW on the whole table ends."""
    trimmed = learner(tmp_path)
    monkeypatch.setattr("winnow_trainer.learner.TrimmedTable", Untrimmed)
    whole = learner(tmp_path)
    for each in (trimmed, whole):
        each.learn()
        for step in range(5):
            each.step(ALL[step : step + 6], 0.01)
        each.read()
    ours, theirs = trimmed.model.body.get_input_embeddings(), whole.model.body.get_input_embeddings()
    assert len(trimmed.table.occurring) < ours.num_embeddings
    assert_close(ours.weight, theirs.weight, rtol=1e-5, atol=1e-7)
    for name, parameter in whole.model.named_parameters():
        assert_close(trimmed.model.get_parameter(name), parameter, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("model_type", ["gemma", "gemma3_text", "phi3"])
def test_the_states_that_learn_are_those_that_are_read(tmp_path, model_type):
    """A table may scale what it looks up: a stand-in that does not would train another model."""
    each = learner(tmp_path, "Full", model_type)
    read = each.logits(ALL)
    each.learn()
    each.model.eval()
    assert_close(each.logits(ALL), read)


class Untrimmed(TrimmedTable):
    def __init__(self, body, occurring):
        table = body.get_input_embeddings()
        super().__init__(body, torch.arange(table.num_embeddings))


def test_weight_decay_reaches_rows_that_do_not_occur_so_nothing_is_left_out(tmp_path):
    assert learner(tmp_path, weight_decay=0.01).table is None


def test_weight_decay_spares_biases_and_norms(tmp_path):
    decayed, spared = learner(tmp_path, weight_decay=0.1).optimizer.param_groups
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.1, 0.0)
    assert {parameter.ndim for parameter in decayed["params"]} == {2}
    assert {parameter.ndim for parameter in spared["params"]} == {1}


@pytest.mark.parametrize("model_type", ["bert", "llama"])
def test_a_head_learns_the_same_from_kept_features_as_from_the_body_each_time(tmp_path, model_type):
    kept = learner(tmp_path, "HeadOnly", model_type, dropout=True)
    fresh = learner(tmp_path, "HeadOnly", model_type, dropout=True)
    fresh.features = None
    for each in (kept, fresh):
        torch.manual_seed(11)  # dropout in the head
        each.learn()
        for _ in range(4):
            each.step(ALL, 0.01)
        each.read()
    for name in kept.trainable:
        assert_close(kept.trainable[name], fresh.trainable[name], rtol=1e-4, atol=1e-6)


# A body with random weights, pooled at its first token, hardly tells texts apart: there is nothing for a head alone.
BY_HEART = [
    (method, rate, model_type)
    for method, rate in (("Full", 0.01), ("LoRA", 0.01), ("HeadOnly", 0.05))
    for model_type in ("bert", "llama", "gemma", "gemma3_text", "phi3")
    if (method, model_type) != ("HeadOnly", "bert")
]


@pytest.mark.parametrize(("method", "rate", "model_type"), BY_HEART)
def test_thirty_two_rows_can_be_learned_by_heart(tmp_path, method, rate, model_type):
    rows = np.arange(32)
    spam = np.eye(3, dtype=np.int8)[rows % 2]  # as the words say
    options = {"lora_dropout": 0.0} if method == "LoRA" else {}
    each = learner(tmp_path, method, model_type, targets=spam, per_device_train_batch_size=32, **options)
    each.learn()
    for _ in range(60):
        result = each.step(rows, rate)
    assert float(result.losses.mean()) < 0.01


@pytest.mark.parametrize(("given", "drop"), [({"lora_dropout": 0.3}, 0.3), ({}, 0.05)], ids=["asked for", "unset"])
def test_an_adapter_drops_as_much_of_its_inputs_as_was_asked_for(tmp_path, given, drop):
    each = learner(tmp_path, "LoRA", **given)
    each.learn()
    found = [module for name, module in each.model.named_modules() if name.endswith("lora_dropout.default")]
    assert len(found) == 12
    assert {(module.p, module.training) for module in found} == {(drop, True)}


def test_dropout_is_on_in_what_learns_and_off_in_a_body_that_is_only_read(tmp_path):
    head_only = learner(tmp_path, "HeadOnly", dropout=True)
    head_only.learn()
    modes = {name: module.training for name, module in head_only.model.base.named_modules()}
    assert modes["bert.pooler"] and modes["classifier"] and modes["dropout"]
    assert not modes["bert.encoder.layer.0.output.dropout"]
    head_only.read()
    assert not any(module.training for module in head_only.model.modules())


@pytest.mark.parametrize("method", ["Full", "HeadOnly"])
def test_test_and_validation_rows_are_each_judged_by_their_own_texts(tmp_path, method):
    parts = learner(tmp_path, method)
    test, validation = parts.examples.take(ALL[:5]), parts.examples.take(ALL[5:10])
    for _ in range(2):  # what is kept of a body that does not change is kept of each
        for rows in (test, validation):
            torch.testing.assert_close(parts.predict(rows), parts.run(parts.model, rows, "rows"), rtol=1e-5, atol=1e-6)
    assert not torch.allclose(parts.predict(test), parts.predict(validation))


class Played(Ranks):
    """One of two processes, while the other one is not there: what it has for the sum stays its own."""

    def largest(self, number):
        return max(number, 3)

    def add_up(self, tensors):
        pass


@pytest.mark.parametrize("rows", [1, 3, 5])
def test_each_row_is_answered_by_one_process_also_where_the_other_makes_as_many_passes(tmp_path, rows):
    """As with a model that is cut over them: who has no batch left runs one again, whose answers count once."""
    one = learner(tmp_path)
    examples = one.examples.take(ALL[:rows])

    def answered(ranks):
        return over_rows(
            one.model, one.model, examples, 1, nullcontext, Event(), ranks, all_pass=True, told=passes.append
        )

    passes: list[int] = []
    parts = [answered(Played(rank, size=2)) for rank in (0, 1)]
    assert len(passes) == rows + 1
    assert_close(parts[0] + parts[1], one.predict(examples))
