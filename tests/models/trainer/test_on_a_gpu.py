"""What the trainer and the server do on a GPU, as far as a CPU can tell: see pretended_gpu.py."""

from __future__ import annotations

import warnings
from threading import Event

import pytest
import tiny_models
import torch
import torch.distributed as dist
from pretended_gpu import GPU, MixedDevicesError, flash_calls, pretend_a_gpu
from tiny_training import Trainer, weights

from winnow_classifier.attention import can_use_varlen
from winnow_classifier.errors import ConfigError, GpuNotSeen, NoPeersError
from winnow_classifier.gpu import require_gpu
from winnow_classifier.mirror import VOLUME
from winnow_server import model as served
from winnow_trainer import launch, memory
from winnow_trainer.learner import Learner
from winnow_trainer.ranks import Ranks, joined


@pytest.fixture
def on_a_gpu(tmp_path, monkeypatch):
    """Runs of a type of model."""

    def make(model_type, **sizes):
        tiny_models.base_model(tmp_path / "base", model_type, **sizes)
        pretend_a_gpu(monkeypatch)
        return Trainer(tmp_path, model_type)

    return make


def test_a_gpu_that_has_to_be_there_is_there(on_a_gpu):
    on_a_gpu("bert")
    require_gpu()


def test_what_torch_says_of_a_gpu_that_it_does_not_see_is_told(monkeypatch):
    def old_driver():
        warnings.warn("CUDA initialization: The NVIDIA driver on your system is too old", stacklevel=1)
        return False

    monkeypatch.setattr(torch.cuda, "is_available", old_driver)
    with pytest.raises(
        GpuNotSeen, match="torch sees none: CUDA initialization: The NVIDIA driver on your system is too"
    ):
        require_gpu()


def test_a_pretended_gpu_mixes_with_nothing(on_a_gpu):
    on_a_gpu("bert")
    there, here = torch.ones(2, device="cuda"), torch.ones(2)
    assert there.device == GPU
    with pytest.raises(MixedDevicesError):
        there + here
    with pytest.raises(TypeError, match=r"Use Tensor\.cpu"):
        there.numpy()
    assert (there.cpu() + here).tolist() == [2, 2]


@pytest.mark.parametrize(
    ("model_type", "method", "parameters", "by_flash"),
    [
        ("bert", "LoRA", {"pooling": "Mean", "gradientCheckpointing": True}, True),
        ("modernbert", "HeadOnly", {"headInit": "Ridge"}, True),
        ("llama", "Full", {}, True),  # rotary positions turn what autocast made bfloat16 into float32 again
        ("llama", "LoRA", {"gradientCheckpointing": True}, True),
        ("gemma3_text", "Full", {"pooling": "Mean", "optim": "adafactor"}, True),
        ("gemma2", "LoRA", {}, False),  # whose scores are bent
        ("deberta-v2", "LoRA", {}, False),
    ],
)
def test_a_training_on_a_gpu_puts_everything_there(on_a_gpu, model_type, method, parameters, by_flash):
    trainer = on_a_gpu(model_type)
    told = trainer.run(trainer.job(method, rows=8, numTrainEpochs=1, **parameters))
    assert len(told["epochs"]) == 1
    assert all(weight.isfinite().all() for weight in weights(trainer.checkpoint(1)).values())
    assert bool(flash_calls) is by_flash


def test_a_run_goes_on_where_there_are_fewer_gpus(on_a_gpu, monkeypatch):
    """It uses one, and the point of an older version has the random state of each that there was."""
    trainer = on_a_gpu("llama")
    one = torch.cuda.get_rng_state()
    state, loaded = Learner.state, []

    def older(learner):
        found = state(learner)
        assert found["random"]["cuda"] == [one]
        return {**found, "random": {**found["random"], "cuda": [one, one]}}

    monkeypatch.setattr(Learner, "state", older)
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda *given: loaded.append([each.tolist() for each in given]))
    job = trainer.job("LoRA", rows=8, numTrainEpochs=2)
    stop, step = Event(), Learner.step
    monkeypatch.setattr(Learner, "step", lambda *given: stop.set() or step(*given))
    assert trainer.run(job, stop)["state"] == "Stopped"
    assert trainer.run(job)["state"] == "Complete"
    assert loaded == [[one.tolist()]]


def test_heads_of_a_width_that_flash_kernels_refuse_go_another_way(on_a_gpu):
    trainer = on_a_gpu("llama", hidden_size=16)  # 4 heads of 4
    trainer.run(trainer.job("LoRA", rows=8, numTrainEpochs=1))
    assert not flash_calls
    for width, can in ((8, True), (12, False), (256, True), (264, False)):
        assert can_use_varlen(torch.zeros(1, 1, width, dtype=torch.bfloat16, device="cuda"), 0.0) is can


@pytest.mark.parametrize(("model_type", "half"), [("bert", True), ("llama", True), ("deberta-v2", False)])
def test_a_checkpoint_is_served_from_a_gpu(on_a_gpu, monkeypatch, model_type, half):
    """In bfloat16, as nothing else fits; padded types in float32 (ADR 81)."""
    trainer = on_a_gpu(model_type)
    trainer.run(trainer.job("Full", rows=8, numTrainEpochs=1))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda *_: (10, 10))
    folder = trainer.checkpoint(1)
    model = served.load(folder, served.announce(folder, None, None), str(trainer.base), trainer.storage, VOLUME)
    assert model.precision == ("bfloat16" if half else "float32")
    texts = [one.input_ids for one in model.encoder.encode(tiny_models.texts(5, seed=3)[0])]
    together, _ = model.logits(texts)
    alone = torch.cat([model.logits([text])[0] for text in texts])
    torch.testing.assert_close(together, alone, rtol=0, atol=2e-2 if half else 1e-5)


@pytest.mark.parametrize(
    ("model_type", "method", "parameters"),
    [
        ("llama", "LoRA", {"loraRank": 1}),
        ("llama", "LoRA", {"loraRank": 1, "loraDropout": 0.0}),
        ("llama", "LoRA", {"loraRank": 1, "loraTargetModules": ["q_proj", "v_proj"]}),
        ("llama", "Full", {}),
        ("bert", "LoRA", {"loraRank": 1}),
        ("bert", "Full", {}),
    ],
)
def test_the_memory_that_is_estimated_for_activations_is_what_a_step_keeps(
    on_a_gpu, monkeypatch, model_type, method, parameters
):
    """Of a body with the proportions of an 8B model's."""
    trainer = on_a_gpu(model_type, hidden_size=128, intermediate_size=448)
    needs, kept = [], []
    judge, losses = memory.judge, Learner.losses

    def measured(learner, rows):
        tokens = int(learner.examples.lengths[rows].sum())
        weights = {each.held.data_ptr() for each in (*learner.model.parameters(), *learner.model.buffers())}
        saved = {}

        def keep(tensor):
            held = getattr(tensor, "held", tensor)
            cast_weight = held.dim() == 2 and held.dtype == torch.bfloat16 and len(held) != tokens  # by autocast
            if held.data_ptr() not in weights and not cast_weight:
                saved[held.data_ptr()] = held
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            found = losses(learner, rows)
        kept.append(sum(held.untyped_storage().nbytes() for held in saved.values()) / tokens)
        return found

    def dropout(states, p, training=True, inplace=False):  # as CUDA does, whose mask is of a byte each
        return torch.native_dropout(states, p, True)[0] if training else states

    monkeypatch.setattr(torch.nn.functional, "dropout", dropout)
    monkeypatch.setattr(memory, "judge", lambda *given, **options: needs.append(given) or judge(*given, **options))
    monkeypatch.setattr(Learner, "losses", measured)
    trainer.run(trainer.job(method, rows=8, numTrainEpochs=1, **parameters))
    (of_a_batch, _, _, wanted), *_ = needs
    assert kept[0] == pytest.approx(of_a_batch.activations / wanted.max_train_tokens, rel=0.25)


TWO = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2"}


def sums_between_gpus_end_in(monkeypatch, error):
    """Those between CPUs do not."""

    def all_reduce(tensor, *_, group=None):
        if tensor.is_cuda:
            raise error

    pretend_a_gpu(monkeypatch)
    monkeypatch.setattr(dist, "init_process_group", lambda *_, **__: None)
    monkeypatch.setattr(dist, "new_group", lambda **_: None)
    monkeypatch.setattr(dist, "all_reduce", all_reduce)


def test_more_processes_than_gpus_are_refused_in_words(on_a_gpu):
    on_a_gpu("bert")
    launch.check_devices(1)
    with pytest.raises(ConfigError, match=r"processesPerNode is 2, and this machine has 1 GPU$"):
        launch.check_devices(2)


def test_gpus_that_do_not_reach_each_other_are_told_at_the_start_and_not_taken_for_a_process_that_ended(monkeypatch):
    """Of which restarts are not counted, so that they would have no end."""
    sums_between_gpus_end_in(monkeypatch, dist.DistBackendError("NCCL error: unhandled system error"))
    with pytest.raises(NoPeersError, match="NCCL error: unhandled system error"), joined(2, TWO):
        pass


def test_a_gpu_that_breaks_in_a_sum_is_not_taken_for_a_process_that_ended(monkeypatch):
    sums_between_gpus_end_in(monkeypatch, torch.AcceleratorError("CUDA error: uncorrectable ECC error encountered"))
    with pytest.raises(torch.AcceleratorError, match="ECC"):
        Ranks(0, 2).add_up([torch.ones(3, device="cuda")])
