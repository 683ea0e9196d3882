"""One optimizer step: the same gradient however it is cut, exact shortcuts, rows that can be learned."""

import pytest
import torch
from tiny_learner import ALL, learner
from torch.testing import assert_close

from winnow_trainer.embedding import TrimmedTable
from winnow_trainer.learner import Learner


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
    logits = torch.cat([model(whole.examples.pack([row], 0)) for row in ALL])
    torch.nn.functional.cross_entropy(logits, whole.targets.argmax(dim=1)).mean().backward()
    for name, parameter in whole.trainable.items():
        assert_close(expected[name], parameter.grad, rtol=1e-4, atol=1e-7)


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


@pytest.mark.parametrize("model_type", ["bert", "llama", "gemma", "gemma3_text", "phi3"])
@pytest.mark.parametrize(("method", "rate"), [("Full", 0.02), ("LoRA", 0.01)])
def test_a_few_rows_can_be_learned_by_heart(tmp_path, method, rate, model_type):
    each = learner(tmp_path, method, model_type, **({"lora_dropout": 0.0} if method == "LoRA" else {}))
    each.targets = torch.eye(3)[torch.from_numpy(ALL % 2)]  # as the words say: spam or not
    each.learn()
    for _ in range(60):
        result = each.step(ALL, rate)
    assert float(result.losses.mean()) < 0.01


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
            torch.testing.assert_close(parts.predict(rows), parts.run(parts.model, rows), rtol=1e-5, atol=1e-6)
    assert not torch.allclose(parts.predict(test), parts.predict(validation))
