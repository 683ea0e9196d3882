"""Whole trainings over a body of four bits, and with moments of eight, by bitsandbytes' own code for CPUs.

Jobs ask for a GPU, where that is fast; what is trained, kept, resumed and served is the same.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny_models
import torch
from test_resumed_bits import expect_same_weights
from test_trained_bodies import expect_served_as_measured
from tiny_training import Trainer, stop_after, weights

from winnow_classifier import checkpoint
from winnow_classifier.errors import ConfigError


@pytest.fixture
def no_gpu_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("winnow_trainer.prepare.check_machine", lambda *_: None)
    # With bfloat16 instructions it would evaluate by other kernels, which round the scales of the weights, in place.
    monkeypatch.setattr("bitsandbytes.nn.modules.has_avx512bf16", lambda: False)


def wide(storage: Path, model_type: str = "bert") -> Trainer:
    """A trainer of a body whose rows are whole blocks: bitsandbytes' code for CPUs mistakes the scales of others."""
    tiny_models.base_model(storage / "base", model_type, hidden_size=64, intermediate_size=128)
    return Trainer(storage, model_type)


@pytest.mark.parametrize("model_type", ["bert", "llama", "deberta-v2", "gpt2"])
@pytest.mark.usefixtures("no_gpu_needed")
def test_qlora_is_served_as_it_was_measured(tmp_path: Path, model_type: str, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = wide(tmp_path, model_type)
    told = trainer.run(trainer.job("QLoRA"))
    assert told["state"] == "Complete"
    first, last = (trainer.checkpoint(epoch) for epoch in (1, 2))
    assert checkpoint.inspect(last).manifest.method == "QLoRA"
    assert any(not torch.equal(weight, weights(first)[name]) for name, weight in weights(last).items())
    expect_served_as_measured(last)
    monkeypatch.setattr("winnow_classifier.checkpoint.round_body", lambda *_: None)
    with pytest.raises(AssertionError, match="not close"):  # over the weights as they were published
        expect_served_as_measured(last)


# sys.modules has it as what cannot be imported: a server's image has no bitsandbytes.
FRESH = f"""
import sys
sys.path[:0] = {sys.path!r}
sys.modules["bitsandbytes"] = None
from pathlib import Path
from test_trained_bodies import expect_served_as_measured
for folder in sys.argv[1:]:
    expect_served_as_measured(Path(folder))
"""


@pytest.mark.usefixtures("no_gpu_needed")
def test_a_fresh_process_without_bitsandbytes_serves_qlora_as_it_was_measured(tmp_path: Path) -> None:
    folders = []
    for model_type in ("bert", "llama"):
        trainer = wide(tmp_path / model_type, model_type)
        trainer.run(trainer.job("QLoRA"))
        folders.append(str(trainer.checkpoint(2)))
    subprocess.run([sys.executable, "-c", FRESH, *folders], check=True)


@pytest.mark.parametrize(
    ("method", "given"),
    [
        ("QLoRA", {}),
        ("QLoRA", {"gradientCheckpointing": True}),
        ("Full", {"optim": "adamw_8bit"}),
        ("Full", {"optim": "paged_adamw_8bit"}),
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore:Paged optimizers are not supported on CPU")  # there they stay where they are
@pytest.mark.usefixtures("no_gpu_needed")
def test_they_end_with_the_same_bits_when_stopped_in_between(
    tmp_path: Path, method: str, given: dict[str, Any]
) -> None:
    straight, broken = wide(tmp_path / "straight"), wide(tmp_path / "broken")
    straight.run(straight.job(method, **given))
    assert broken.run(broken.job(method, **given), stop_after(broken.progress, 4))["state"] == "Stopped"
    assert broken.run(broken.job(method, **given))["state"] == "Complete"
    for epoch in (1, 2):
        expect_same_weights(broken.checkpoint(epoch), straight.checkpoint(epoch))


@pytest.mark.usefixtures("no_gpu_needed")
def test_a_training_goes_on_over_what_qlora_left(tmp_path: Path) -> None:
    trainer = wide(tmp_path)
    trainer.run(trainer.job("QLoRA"))
    for method in ("QLoRA", "Full"):
        job = trainer.job(method, name=f"then-{method.lower()}", numTrainEpochs=1)
        spec = job.spec.model_copy(update={"base_model": str(trainer.checkpoint(2))})
        assert trainer.run(job.model_copy(update={"spec": spec}))["state"] == "Complete"
        expect_served_as_measured(trainer.checkpoint(1, f"then-{method.lower()}"))


def test_without_a_gpu_it_is_refused_in_words(tmp_path: Path) -> None:
    trainer = Trainer(tmp_path)
    with pytest.raises(ConfigError, match="method is QLoRA, whose four bits a GPU computes with, and torch sees none"):
        trainer.run(trainer.job("QLoRA"))
