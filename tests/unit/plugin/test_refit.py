"""`kubectl winnow refit`: what it refuses, the pod it makes, and what it says of who serves the checkpoint."""

from __future__ import annotations

from typing import Any

import pytest
from trained_job import JOB, batch_job

from winnow_classifier.errors import ConfigError, OutOfMemoryError_
from winnow_classifier.refit_options import RefitOptions
from winnow_plugin import refit, refit_view, storage_pod
from winnow_plugin.errors import ClusterError, Unreachable
from winnow_plugin.storage_access import failure

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


@pytest.mark.parametrize("purpose", ["refit", "artifacts"])
def test_the_pod_may_run_where_the_training_could(purpose):
    batch = batch_job("training-placed")
    trained, made = batch["spec"]["template"]["spec"], storage_pod.pod(JOB, batch, purpose)["spec"]
    for same in ("tolerations", "serviceAccountName"):
        assert made[same] == trained[same]


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
