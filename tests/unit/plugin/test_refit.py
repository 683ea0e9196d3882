"""`kubectl winnow refit`: what it refuses, the pod it makes, and what it says of a fit by the real trainer."""

from __future__ import annotations

import hashlib
import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from plugin.test_artifacts import JOB, batch_job

from winnow_classifier.checkpoint import BaseModelEntry, DatasetEntry, FileEntry, JobEntry, Manifest, manifest_bytes
from winnow_classifier.errors import ConfigError, OutOfMemoryError_
from winnow_classifier.labels import TaskDetail
from winnow_classifier.refit_options import RefitOptions
from winnow_plugin import refit, refit_view, storage_pod
from winnow_plugin.cluster import Place
from winnow_plugin.errors import ClusterError, Unreachable
from winnow_plugin.screen import show
from winnow_plugin.storage_access import StoragePod, failure
from winnow_trainer import deciding

DIGEST = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("options", "says"),
    [
        pytest.param([], "it is not said what thresholds are for", id="nothing"),
        pytest.param(["--uncalibrated"], "it is not said what thresholds are for", id="thresholds are not spoken of"),
        pytest.param(["--objective", "f1"], "objective: Input should be 'F1', 'PrecisionAtLeast'", id="no objective"),
        pytest.param(["--objective", "RecallAtLeast"], "value belongs to objective PrecisionAtLeast", id="no value"),
        pytest.param(["--objective", "F1", "--value", "0.9"], "value belongs to objective", id="a value too much"),
        pytest.param(["--objective", "Cost"], "costs belongs to objective Cost, which needs it", id="no costs"),
        pytest.param(["--objective", "Cost", "--false-positive-cost", "1"], "costs.falseNegative", id="one cost"),
        pytest.param(["--abstain-band", "0.6"], "abstain.band: Input should be less than", id="a wide band"),
        pytest.param(["--same", "--abstain-band", "0.1"], "--same takes what the last fit was for", id="same and more"),
        pytest.param(["--no-thresholds", "--objective", "F1"], "--no-thresholds fits calibration", id="none and some"),
        pytest.param(["--same", "--no-thresholds"], "so it goes with none of the others", id="same and none"),
    ],
)
def test_wrong_options_are_refused_before_a_cluster_is_asked(plugin, options, says):
    code, out, err = plugin("refit", "v1", *options, "--kubeconfig", "/nowhere")
    assert (code, out) == (10, "")
    assert says in err
    assert "/nowhere" not in err


def test_good_options_ask_the_cluster(plugin):
    code, _, err = plugin("refit", "v1", "--objective", "F1", "--kubeconfig", "/nowhere")
    assert code == 10
    assert "there is no kubeconfig at /nowhere" in err


@pytest.mark.parametrize("golden", ["training", "training-in-bucket"])
def test_the_pod_may_write_and_is_otherwise_that_of_artifacts(golden):
    made, reads = (storage_pod.pod(JOB, batch_job(golden), purpose) for purpose in ("refit", "artifacts"))
    assert made["metadata"]["generateName"] == "v1-refit-"
    assert made["metadata"]["labels"]["winnow.dev/refit-of"] == "v1"
    storage = next(volume for volume in made["spec"]["volumes"] if volume["name"] == "storage")
    assert "readOnly" not in storage.get("persistentVolumeClaim", {})
    (container,), (reading,) = made["spec"]["containers"], reads["spec"]["containers"]
    assert not container["volumeMounts"][0].get("readOnly")
    for same in ("image", "env", "securityContext", "command"):
        assert container[same] == reading[same]
    asked = RefitOptions(objective="Cost", false_positive_cost=10.0, false_negative_cost=0.5, uncalibrated=True)
    command = storage_pod.command(JOB, batch_job(golden), "refit", "epoch-2", asked.arguments())
    assert command[:4] == ["python", "-m", "winnow_trainer", "refit"]
    assert command[-11:] == [
        *("--run", "v1-0a1b2c3d", "--checkpoint", "epoch-2", "--objective", "Cost"),
        *("--false-positive-cost", "10.0", "--false-negative-cost", "0.5", "--uncalibrated"),
    ]
    assert storage_pod.in_bucket(batch_job(golden)) == (golden == "training-in-bucket")


@pytest.mark.parametrize(
    ("said", "error", "words", "hint"),
    [
        pytest.param(
            '{"level": "info"}\nerror: F1 is not defined where one holds\nhint: use PrecisionAtLeast\n'
            "command terminated with exit code 10\n",
            ConfigError,
            "F1 is not defined where one holds",
            "use PrecisionAtLeast",
            id="the program's own words",
        ),
        pytest.param(
            "error: the bucket is full\ncommand terminated with exit code 20\n",
            Unreachable,
            "the bucket is full",
            None,
            id="worth a retry",
        ),
        pytest.param(
            "command terminated with exit code 137\n", OutOfMemoryError_, "it had too little memory", ..., id="killed"
        ),
        pytest.param(
            "Traceback\ncommand terminated with exit code 1\n",
            ClusterError,
            "ended with 1: Traceback",
            None,
            id="a bug",
        ),
        pytest.param('pods "x" is forbidden: no exec', ClusterError, "may not run programs in pods", ..., id="rights"),
        pytest.param("error: lost the connection", Unreachable, "lost the connection", "try again", id="broken off"),
    ],
)
def test_what_went_wrong_in_the_pod_comes_in_the_words_of_the_program(said, error, words, hint):
    found = failure(said, "v1-refit-x", "ml")
    assert type(found) is error
    assert words in str(found)
    assert hint is ... or found.hint == hint


def test_a_checkpoint_that_is_about_to_be_removed_is_left_alone():
    with pytest.raises(
        ClusterError, match=r"about to be removed .* since 2026-11-30T00:00:00Z spec.retention of"
    ) as no:
        refit._refuse_one_that_goes(JOB, {"name": "epoch-1", "unneededSince": "2026-11-30T00:00:00Z"})
    assert "let a Deployment name it" in no.value.hint
    refit._refuse_one_that_goes(JOB, {"name": "epoch-2"})


def deployment(name: str, digest: str | None, **thresholds: float) -> dict[str, Any]:
    live = {"live": {"trainingJob": "v1", "checkpoint": "epoch-2", "digest": digest}} if digest else {}
    return {"metadata": {"name": name}, "spec": {"thresholds": thresholds}, "status": live}


def test_it_says_who_serves_it_and_where_a_deployments_own_thresholds_hold():
    checkpoint = {"name": "epoch-2", "digest": DIGEST}
    decision = {"labels": ["ham", "spam"], "thresholds": {"spam": 0.83123}}
    others = [deployment("next", None), deployment("other", "sha256:0", spam=0.1)]
    assert refit_view.served_by(others, checkpoint, decision, in_bucket=False) == [
        "no Deployment serves it now; one that does later begins with this"
    ]
    live = [deployment("web", DIGEST, spam=0.7, ham=0.2, unknown=0.5), deployment("mail", DIGEST), *others]
    told, warning = refit_view.served_by(live, checkpoint, decision, in_bucket=True)
    assert told == "served by mail, web: taken within half a minute, without a restart"
    assert warning == (
        "warning: spec.thresholds of Deployment web go before the fitted ones: ham 0.2 (none fitted), spam 0.7 (0.8312 fitted)"
    )
    assert "within seconds" in refit_view.served_by(live, checkpoint, decision, in_bucket=False)[0]


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    """A checkpoint with its answers to validation and test rows, three labels of which several may hold."""
    folder = tmp_path / "storage" / "runs" / "v1-0a1b2c3d" / "checkpoints" / "epoch-2"
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    true = random.normal(size=(400, 3))
    targets = (random.random(true.shape) < 1 / (1 + np.exp(-true))).astype(np.int8)
    logits = torch.tensor(true * 3, dtype=torch.float32)
    rows = deciding.Judged(logits[:200], targets[:200]), deciding.Judged(logits[200:], targets[200:])
    files = {}
    for name, content in deciding.kept(*rows).items():
        (folder / name).write_bytes(content)
        files[name] = FileEntry(sha256=hashlib.sha256(content).hexdigest(), size_bytes=len(content))
    manifest = Manifest(
        name="epoch-2",
        epoch=2,
        task_detail=TaskDetail.MULTILABEL,
        labels=("a", "b", "c"),
        problem_type="multi_label_classification",
        method="Full",
        architecture="BertForSequenceClassification",
        pooling="cls",
        prompt_template="{text}",
        max_seq_length=8,
        base_model=BaseModelEntry(reference="base", digest="sha256:0"),
        training_dataset=DatasetEntry(digest="sha256:0", rows=1),
        validation_dataset=DatasetEntry(digest="sha256:0", rows=200),
        training_job=JobEntry(name="v1"),
        created_at=datetime(2026, 1, 2, tzinfo=UTC),
        files=files,
    )
    (folder / "checkpoint.json").write_bytes(manifest_bytes(manifest))
    return folder


def kubectl_exec(tmp_path: Path) -> StoragePod:
    """Without a pod: the command runs here, on this storage, and its end is told as kubectl does."""
    program = tmp_path / "kubectl"
    program.write_text(
        f'#!/bin/sh\nwhile [ "$1" != -- ]; do shift; done\nshift 4\n'
        f'{sys.executable} -m winnow_trainer "$@" --storage {tmp_path / "storage"} && exit\n'
        "code=$?; echo command terminated with exit code $code >&2; exit $code\n"
    )
    program.chmod(0o755)
    job = batch_job("training")
    job["spec"]["template"]["spec"]["containers"][0]["command"] = []
    return StoragePod(program, Place(), JOB, job, {"metadata": {"name": "v1-refit-x", "namespace": "ml"}})


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
