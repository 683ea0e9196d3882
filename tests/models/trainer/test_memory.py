"""Whether a training fits, and what is said where it does not: with given capacities."""

import re
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
from winnow_trainer.learner import Learner
from winnow_trainer.memory import GIB, Shape, cgroup_limit, demand, judge, shape_of

# Llama-3.1-8B's body in bfloat16, and LoRA of rank 16 on all linear layers.
READ = 32 * (6 * 4096 + 14336)
LLAMA = Shape(4096, layers=32, inner_width=14336, weight_bytes=15 * GIB, trained=42_000_000, numbers_read=READ)
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
    assert "perDeviceTrainBatchSize: 1 with gradientAccumulationSteps: 16" in verdict.warning.message


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


SMALLER = re.compile(r"perDeviceTrainBatchSize: (\d+) with gradientAccumulationSteps: (\d+)")


def test_the_largest_smaller_batch_is_advised_that_makes_it_fit_and_keeps_the_rows_of_a_step():
    given = {"gradient_checkpointing": False, "max_seq_length": 256}
    wanted = {"per_device_train_batch_size": 16, "gradient_accumulation_steps": 1}
    message = judged(LLAMA, "LoRA", 45, **given, **wanted).warning.message  # 14 rows would do, and are no part of 16
    assert "perDeviceTrainBatchSize: 8 with gradientAccumulationSteps: 2 makes it fit" in message
    assert judged(LLAMA, "LoRA", 45, **given, **wanted | {"per_device_train_batch_size": 14}).warning is None


@given(
    capacity=st.floats(15, 100),
    batch=st.integers(2, 4096),
    accumulation=st.integers(1, 4096),
    method=st.sampled_from(["Full", "LoRA"]),
)
def test_a_smaller_batch_is_advised_so_that_a_step_keeps_its_rows(capacity, batch, accumulation, method):
    given = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": accumulation}
    warning = judged(LLAMA, method, capacity, gradient_checkpointing=False, **given).warning
    for size, steps in SMALLER.findall(warning.message if warning else ""):
        assert int(size) < batch and int(size) * int(steps) == batch * accumulation
        Parameters.model_validate({"gradientAccumulationSteps": int(steps)})  # and a job may have it


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
    needs = demand(shape_of(learner.model), "Full", parameters(ema_decay=0.9), 4)
    learner.step(tiny_learner.ALL, 0.01)
    moments = sum(
        value.numel() * value.element_size()
        for state in learner.optimizer.state.values()
        for name, value in state.items()
        if name != "step"
    )
    assert needs.weights == sum(weight.numel() * 4 for weight in learner.model.parameters())
    assert (needs.gradients, needs.moments, needs.average) == (trained * 4, moments, trained * 4)
    assert demand(shape_of(learner.model), "Full", parameters(), 4).average == 0


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
    (warning,) = memory.place(learner.model, "Full", parameters(), Accelerator(cpu=True))
    assert warning.code == "MemoryShort" and "this container has" in warning.message
    assert warning.message in caplog.messages
    assert learner.model.device == torch.device("cpu")


def on_a_gpu(monkeypatch, model, method, gpu_bytes, rows=0, **given):
    """What is said, of a GPU with so much free memory: where unset means, checkpoint if it does not fit."""
    monkeypatch.setattr(Classifier, "to", lambda model, device: model)
    monkeypatch.setattr(memory, "capacity_of", lambda *_: (gpu_bytes, "the GPU"))
    a_gpu = SimpleNamespace(device=torch.device("cuda"), mixed_precision="no")
    return memory.place(model, method, parameters(**given), a_gpu, rows=rows)


def test_weights_that_are_on_the_gpu_already_do_not_count_twice(tmp_path, monkeypatch):
    """As QLoRA's, which transformers loads there: of 100 bytes more than is needed, they have taken theirs."""
    model = classifier(tmp_path, "bert")
    needs = demand(shape_of(model), "QLoRA", parameters(), 4)
    room = int(needs.total / memory.SPARE) + 100
    monkeypatch.setattr(Classifier, "to", lambda model, device: model)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (room - needs.weights, room))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: needs.weights)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "a GPU")
    a_gpu = SimpleNamespace(device=torch.device("cuda"), mixed_precision="no")
    assert memory.place(model, "QLoRA", parameters(), a_gpu) == []
    assert not model.body.is_activation_checkpointing


def classifier(folder, model_type):
    base = tiny_models.base_model(folder, model_type)
    schema = LabelSchema(TaskDetail.BINARY, ("ham", "spam"))
    return Classifier(load_network(base, classifier_config(base, schema, 0)))


def test_a_model_type_whose_layers_keep_all_states_is_not_asked_to_compute_them_again(tmp_path, monkeypatch):
    (warning,) = on_a_gpu(monkeypatch, classifier(tmp_path, "mpnet"), "Full", 1_000_000)
    assert warning.code == "MemoryShort"
    assert "gradientCheckpointing" not in warning.message


@pytest.mark.parametrize("again", [True, False], ids=["it does not fit otherwise", "it fits"])
def test_layers_compute_their_states_again_on_a_gpu_where(tmp_path, monkeypatch, again):
    model = classifier(tmp_path, "bert")
    needs = demand(shape_of(model), "Full", parameters(), 4)
    room = (needs.total + needs.checkpointed.total) / 2 if again else needs.total + 100
    assert on_a_gpu(monkeypatch, model, "Full", int(room / memory.SPARE)) == []
    assert model.body.is_activation_checkpointing is again


def container_of(monkeypatch, gib):
    """One that has so much left."""
    monkeypatch.setattr(memory, "cgroup_limit", lambda: memory.resident_bytes() + int(gib * GIB))


def test_what_headonly_keeps_of_each_row_is_counted_and_more_memory_advised_that_makes_it_fit(tmp_path, monkeypatch):
    model = classifier(tmp_path, "bert")
    container_of(monkeypatch, 8)
    rows = 100_000_000  # of 32 numbers each
    (warning,) = memory.place(model, "HeadOnly", parameters(), Accelerator(cpu=True), rows=rows)
    assert "features of the rows 11.9), and this container has 8.0 GiB" in warning.message
    assert "BatchSize" not in warning.message
    (more,) = re.findall(r"([\d.]+) GiB more for it \(resources.limits.memory\) makes it fit", warning.message)
    container_of(monkeypatch, 8 + float(more))
    assert memory.place(model, "HeadOnly", parameters(), Accelerator(cpu=True), rows=rows) == []


def test_beside_a_gpu_they_lie_in_the_containers_memory(tmp_path, monkeypatch):
    model = classifier(tmp_path, "bert")
    container_of(monkeypatch, 8)
    (warning,) = on_a_gpu(monkeypatch, model, "HeadOnly", GIB, rows=100_000_000)
    assert "needs about 11.9 GiB (features of the rows 11.9), and this container has 8.0 GiB" in warning.message


def test_a_body_that_reads_each_row_once_needs_memory_for_batches_of_evaluation(tmp_path, monkeypatch):
    model = classifier(tmp_path, "bert")
    steps = {"per_device_train_batch_size": 4096, "gradient_accumulation_steps": 4}
    assert on_a_gpu(monkeypatch, model, "HeadOnly", GIB // 4, rows=100, **steps) == []
    (warning,) = on_a_gpu(monkeypatch, model, "HeadOnly", GIB // 4, rows=100, per_device_eval_batch_size=4096)
    (size,) = re.findall(r"perDeviceEvalBatchSize: (\d+) makes it fit", warning.message)
    assert on_a_gpu(monkeypatch, model, "HeadOnly", GIB // 4, rows=100, per_device_eval_batch_size=int(size)) == []


def test_a_run_counts_the_features_that_it_keeps(trainer, monkeypatch):
    needs, learners = [], []
    judge, init = memory.judge, Learner.__init__
    monkeypatch.setattr(memory, "judge", lambda *given, **options: needs.append(given[0]) or judge(*given, **options))
    monkeypatch.setattr(Learner, "__init__", lambda each, *given: learners.append(each) or init(each, *given))
    job = trainer.job("HeadOnly", numTrainEpochs=1)
    validated = job.spec.model_copy(update={"validation_dataset": job.spec.test_dataset})
    trainer.run(job.model_copy(update={"spec": validated}))
    (learner,) = learners
    kept = [learner.features, *(features for _, features in learner.judged_features)]
    assert len(kept) == 3
    assert needs[0].features == sum(features.nbytes for features in kept)
