"""Whether a training fits, and what is said where it does not: with given capacities."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import tiny_learner
import tiny_models
import torch
from accelerate import Accelerator
from hypothesis import given
from hypothesis import strategies as st

from winnow_classifier.labels import LabelSchema, TaskDetail
from winnow_classifier.model import Classifier, classifier_config, load_network
from winnow_trainer import memory
from winnow_trainer.job import Parameters
from winnow_trainer.memory import GIB, Shape, cgroup_limit, demand, judge, shape_of

# Llama-3.1-8B's body in bfloat16, and LoRA of rank 16 on all linear layers.
LLAMA = Shape(width=4096, layers=32, inner_width=14336, weight_bytes=15 * GIB, trained=42_000_000)
FULL = replace(LLAMA, weight_bytes=30 * GIB, trained=8_000_000_000)


def parameters(**given):
    return Parameters(**{"max_seq_length": 512, "per_device_train_batch_size": 4, **given})


def judged(shape, method, capacity_gib, chooses=True, **given):
    wanted = parameters(**given)
    needs = demand(shape, method, wanted, 2)
    return judge(needs, int(capacity_gib * GIB), method, wanted, chooses=chooses, where="the GPU")


def test_an_8b_lora_fits_into_80_gib_as_it_is():
    verdict = judged(LLAMA, "LoRA", 79)
    assert (verdict.gradient_checkpointing, verdict.warning) == (False, None)


def test_layers_are_computed_again_where_the_job_fits_only_so():
    assert judged(LLAMA, "LoRA", 24).gradient_checkpointing
    assert judged(LLAMA, "LoRA", 24).warning is None


def test_what_the_user_chose_stays_and_what_would_help_is_said():
    verdict = judged(LLAMA, "LoRA", 24, gradient_checkpointing=False)
    assert not verdict.gradient_checkpointing
    assert verdict.warning.code == "MemoryShort"
    assert "the GPU has 24.0 GiB" in verdict.warning.message
    assert "gradientCheckpointing: true makes it fit" in verdict.warning.message
    assert "perDeviceTrainBatchSize: 2 with gradientAccumulationSteps: 8" in verdict.warning.message


def test_a_full_8b_does_not_fit_and_lora_is_named():
    verdict = judged(FULL, "Full", 79)
    assert verdict.gradient_checkpointing
    assert "method: LoRA makes it fit" in verdict.warning.message


def test_a_lora_whose_weights_alone_are_too_much_hears_of_qlora():
    assert "method: QLoRA makes it fit" in judged(LLAMA, "LoRA", 10).warning.message


def test_what_is_far_too_large_is_told_so():
    assert "a device with more memory" in judged(LLAMA, "QLoRA", 1, per_device_train_batch_size=1).warning.message


def test_nothing_is_said_where_the_capacity_is_not_known():
    wanted = parameters()
    verdict = judge(demand(LLAMA, "LoRA", wanted, 2), None, "LoRA", wanted, chooses=True, where="?")
    assert (verdict.warning, verdict.gradient_checkpointing) == (None, False)


@given(
    capacity=st.floats(0.5, 400),
    batch=st.integers(1, 512),
    length=st.integers(8, 8192),
    method=st.sampled_from(["Full", "LoRA", "QLoRA", "HeadOnly"]),
    optim=st.sampled_from([None, "adamw", "adafactor", "adamw_8bit", "paged_adamw_8bit"]),
    asked=st.sampled_from([None, True, False]),
)
def test_a_warning_is_given_exactly_where_the_choice_does_not_fit(capacity, batch, length, method, optim, asked):
    wanted = parameters(
        per_device_train_batch_size=batch, max_seq_length=length, optim=optim, gradient_checkpointing=asked
    )
    needs = demand(LLAMA, method, wanted, 2)
    verdict = judge(needs, int(capacity * GIB), method, wanted, chooses=True, where="the GPU")
    assert (verdict.warning is not None) == (verdict.needed > int(int(capacity * GIB) * memory.SPARE))
    assert asked is None or verdict.gradient_checkpointing == asked


def test_weights_gradients_and_moments_are_counted_as_they_are(tmp_path):
    learner = tiny_learner.learner(tmp_path, weight_decay=0.1)  # with decay the whole table trains
    trained = sum(weight.numel() for weight in learner.trainable.values())
    needs = demand(shape_of(learner.model, trained), "Full", parameters(), 4)
    learner.step(tiny_learner.ALL, 0.01)
    moments = sum(
        value.numel() * value.element_size()
        for state in learner.optimizer.state.values()
        for name, value in state.items()
        if name != "step"
    )
    assert needs.weights == sum(weight.numel() * 4 for weight in learner.model.parameters())
    assert (needs.gradients, needs.moments) == (trained * 4, moments)


@pytest.mark.parametrize(
    ("content", "limit"),
    [("8589934592\n", 8 * GIB), ("max\n", None), (None, None), (f"{2**63 - 4096}\n", None)],
    ids=["a limit", "no limit", "no cgroup", "no limit, version 1"],
)
def test_the_limit_of_a_container(tmp_path, content, limit):
    if content is not None:
        (tmp_path / "memory.max").write_text(content)
    assert cgroup_limit(tmp_path) == limit


def test_a_container_that_is_too_small_is_warned_of_before_the_first_step(tmp_path, monkeypatch, caplog):
    learner = tiny_learner.learner(tmp_path)
    monkeypatch.setattr(memory, "cgroup_limit", lambda: memory.resident_bytes())
    warning = memory.place(learner.model, "Full", parameters(), Accelerator(cpu=True))
    assert warning.code == "MemoryShort" and "this container has" in warning.message
    assert warning.message in caplog.messages
    assert learner.model.device == torch.device("cpu")


def test_a_model_type_whose_layers_keep_all_states_is_not_asked_to_compute_them_again(tmp_path, monkeypatch):
    base = tiny_models.base_model(tmp_path, "mpnet")
    schema = LabelSchema(TaskDetail.BINARY, ("ham", "spam"))
    model = Classifier(load_network(base, classifier_config(base, schema, 0)))
    monkeypatch.setattr(Classifier, "to", lambda model, device: model)
    monkeypatch.setattr(
        memory, "capacity_of", lambda *_: (1_000_000, "the GPU")
    )  # where unset means: if it does not fit
    a_gpu = SimpleNamespace(device=torch.device("cuda"), mixed_precision="no")
    warning = memory.place(model, "Full", parameters(), a_gpu)
    assert warning.code == "MemoryShort"
    assert "gradientCheckpointing" not in warning.message
