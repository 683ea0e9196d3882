"""`kubectl winnow refit` and the real trainer: what it says of a fit, and of one that is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from trained_job import kubectl_exec, store_checkpoint

from winnow_classifier.checkpoint import DatasetEntry
from winnow_classifier.errors import ConfigError
from winnow_classifier.labels import LabelSchema, TaskDetail
from winnow_classifier.refit_options import RefitOptions
from winnow_plugin import refit_view
from winnow_plugin.screen import show
from winnow_plugin.storage_access import StoragePod
from winnow_trainer import deciding


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    """A checkpoint with its answers to validation and test rows, three labels of which several may hold."""
    random = np.random.default_rng(0)
    true = random.normal(size=(400, 3))
    targets = (random.random(true.shape) < 1 / (1 + np.exp(-true))).astype(np.int8)
    logits = torch.tensor(true * 3, dtype=torch.float32)
    rows = deciding.Judged(logits[:200], targets[:200]), deciding.Judged(logits[200:], targets[200:])
    schema = LabelSchema(TaskDetail.MULTILABEL, ("a", "b", "c"))
    validation = DatasetEntry(digest="sha256:0", rows=200)
    return store_checkpoint(tmp_path / "storage", deciding.kept(*rows), schema, validation)


def fitted(pod: StoragePod, options: RefitOptions) -> bytes:
    with pod.running("refit", "epoch-2", [*options.arguments(), "--json"]) as stream:
        return stream.read()


def test_a_fit_is_told_with_what_it_changed(tmp_path: Path, stored: Path, capfd: pytest.CaptureFixture[str]) -> None:
    pod = kubectl_exec(tmp_path)
    assert pod.beside("epoch-2") is None
    first = json.loads(fitted(pod, RefitOptions(no_thresholds=True)))
    assert "thresholds" not in first or first["thresholds"] == {}
    show(*refit_view.told("v1", "epoch-2", first, {}))
    out = capfd.readouterr().out
    assert "epoch-2 of v1, fitted on 200 validation rows\ncalibration: Platt, by label (none before)" in out
    assert "LABEL" not in out

    before = json.loads(pod.beside("epoch-2") or b"")
    wide = RefitOptions(objective="PrecisionAtLeast", value=0.8, abstain_band=0.5)
    second = json.loads(fitted(pod, wide))
    said = capfd.readouterr()
    assert said.err.startswith("warning: thresholds.abstain.band: 0.5 reaches from the threshold")
    show(*refit_view.told("v1", "epoch-2", second, before))
    lines = [line.split() for line in capfd.readouterr().out.splitlines()]
    assert ["thresholds", "for:", "PrecisionAtLeast", "0.8", "(nothing", "before)"] in lines
    assert ["abstains:", "nearer", "than", "0.5", "to", "a", "threshold", "(never", "before)"] in lines
    assert ["a", "-", f"{second['thresholds']['a']:.4f}"] in lines
    measured = second["measured"]
    f1 = [before["measured"]["before"], before["measured"]["after"], measured["after"]]
    assert ["f1_macro", *(f"{each['f1_macro']:.4f}" for each in f1)] in lines
    assert ["ON", "200", "TEST", "ROWS", "RAW", "BEFORE", "NOW"] in lines
    assert measured["after"]["f1_macro"] != before["measured"]["after"]["f1_macro"]
    assert json.loads((stored / "decision.json").read_text())["thresholds"] == second["thresholds"]


def test_the_trainers_refusal_comes_with_its_hint(tmp_path: Path, stored: Path) -> None:
    with pytest.raises(ConfigError, match=r"abstain.minProbability needs one label that holds") as refused:
        fitted(kubectl_exec(tmp_path), RefitOptions(abstain_min_probability=0.5))
    assert refused.value.hint == "use abstain.band"
    assert refused.value.exit_code == 10
    assert not (stored / "decision.json").exists()
    manifest = json.loads((stored / "checkpoint.json").read_text())
    del manifest["validationDataset"]
    (stored / "checkpoint.json").write_text(json.dumps(manifest))
    with pytest.raises(ConfigError, match="has no answers to validation rows to fit on"):
        fitted(kubectl_exec(tmp_path), RefitOptions(objective="F1"))
