"""How objects are told: pure functions on statuses as the operator writes them."""

from datetime import UTC, datetime, timedelta

import pytest

from winnow_plugin.datasets import dataset_in_full
from winnow_plugin.screen import show
from winnow_plugin.status import Tone, fitting, line, lines
from winnow_plugin.words import age, bar, percent, plain, short_digest

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("since", "told"),
    [
        (timedelta(seconds=0), "0s"),
        (timedelta(seconds=119), "119s"),
        (timedelta(minutes=2), "2m"),
        (timedelta(minutes=3, seconds=20), "3m20s"),
        (timedelta(minutes=45, seconds=59), "45m"),
        (timedelta(hours=3), "3h"),
        (timedelta(hours=5, minutes=10), "5h10m"),
        (timedelta(hours=30), "30h"),
        (timedelta(days=3, hours=4), "3d4h"),
        (timedelta(days=400), "400d"),
        (timedelta(seconds=-5), "0s"),
    ],
)
def test_ages_read_as_kubectls(since, told):
    assert age((NOW - since).isoformat().replace("+00:00", "Z"), NOW) == told


def test_an_object_without_a_time_has_no_age():
    assert age(None, NOW) == "-"


@pytest.mark.parametrize(
    ("share", "drawn"),
    [(0.0, "    "), (0.5, "██  "), (1.0, "████"), (0.53125, "██▏ "), (7.0, "████"), (-1.0, "    ")],
)
def test_a_bar_is_exact_to_an_eighth_and_never_longer_than_its_place(share, drawn):
    assert bar(share, 4) == drawn


def test_small_shares_keep_a_digit():
    assert [percent(share) for share in (0, 0.004, 0.135, 1)] == ["0%", "0.4%", "14%", "100%"]


def test_other_peoples_texts_cannot_command_a_terminal():
    assert plain("\x1b[2Jspam\n\u202eham") == "�[2Jspam �ham"


def test_a_digest_is_told_by_its_beginning():
    assert short_digest(f"sha256:{'ab' * 32}") == "abababababab"
    assert short_digest(None) == "-"


def made(kind, name="it", spec=None, created="2026-11-24T11:00:00Z", conditions=(), **status):
    found = [
        {"type": type_, "status": value, "reason": reason, "message": words}
        for type_, value, reason, words in conditions
    ]
    return {
        "kind": kind,
        "metadata": {"name": name, "namespace": "demo", "creationTimestamp": created},
        "spec": spec or {},
        **({"status": {"conditions": found, **status}} if conditions or status else {}),
    }


OBJECTS = [
    pytest.param(
        made("Dataset"),
        ("Pending", Tone.WORKING, None, "", "the operator has not seen it yet"),
        id="not yet seen",
    ),
    pytest.param(
        made(
            "Dataset",
            conditions=[("Ready", "True", "Verified", "fine")],
            rows=4460,
            taskDetail="Binary",
            labelCount=2,
            warnings=[{"code": "FewExamples", "message": "few"}],
            skippedRows=1,
        ),
        ("Verified", Tone.GOOD, None, "", "4,460 rows · Binary · 2 labels · 1 skipped row · 1 warning"),
        id="a dataset",
    ),
    pytest.param(
        made(
            "Dataset",
            conditions=[
                ("Ready", "False", "InvalidRows", "1 of 2 rows cannot be read"),
                ("Stalled", "True", "InvalidRows", "1 of 2 rows cannot be read"),
            ],
        ),
        ("InvalidRows", Tone.BAD, None, "", "1 of 2 rows cannot be read"),
        id="a dataset with wrong rows",
    ),
    pytest.param(
        made(
            "TrainingJob",
            conditions=[("Accepted", "True", "Accepted", "fits"), ("Running", "True", "Training", "trains")],
            summary="Running: epoch 2/3",
            progress={"percent": 41.5, "epoch": 2, "totalEpochs": 3, "eta": "3m20s", "loss": 0.2134567},
            bestMetric="f1 0.9500",
            bestCheckpoint="epoch-1",
        ),
        ("Running: epoch 2/3", Tone.WORKING, 0.415, "41.5%", "3m20s left · best f1 0.9500 (epoch-1) · loss 0.2135"),
        id="a training that runs",
    ),
    pytest.param(
        made(
            "TrainingJob",
            conditions=[("Suspended", "True", "Suspended", "spec.suspend is true")],
            summary="Suspended",
            progress={"percent": 41.5, "epoch": 2, "totalEpochs": 3},
        ),
        ("Suspended", Tone.WORKING, 0.415, "41.5%", "epoch 2/3"),
        id="a training that rests",
    ),
    pytest.param(
        made(
            "TrainingJob",
            conditions=[("Accepted", "False", "DatasetNotFound", "Dataset rows does not exist in this namespace")],
            summary="Waiting: DatasetNotFound",
        ),
        ("Waiting: DatasetNotFound", Tone.WORKING, None, "", "Dataset rows does not exist in this namespace"),
        id="a training that waits",
    ),
    pytest.param(
        made(
            "TrainingJob",
            conditions=[("Complete", "True", "TrainingComplete", "done")],
            summary="Complete",
            progress={"percent": 100, "epoch": 3, "totalEpochs": 3, "loss": 0.1},
            bestMetric="f1 0.9721",
            bestCheckpoint="epoch-3",
            datasets={"warnings": [{"code": "LongTexts", "message": "3 of 40 training rows …"}]},
        ),
        ("Complete", Tone.GOOD, 1.0, "100%", "best f1 0.9721 (epoch-3) · 1 warning"),
        id="a training that is done",
    ),
    pytest.param(
        made(
            "TrainingJob",
            conditions=[("Failed", "True", "OutOfMemory", "killed"), ("Stalled", "True", "OutOfMemory", "killed")],
            summary="Failed: OutOfMemory",
            failure={"reason": "OutOfMemory", "message": "lower maxSeqLength"},
        ),
        ("Failed: OutOfMemory", Tone.BAD, None, "", "lower maxSeqLength"),
        id="a training that failed",
    ),
    pytest.param(
        made(
            "Deployment",
            spec={"replicas": 2},
            conditions=[("Ready", "False", "RollingOut", "v2/epoch-1 is being loaded")],
            readyReplicas=1,
            live={"trainingJob": "v1", "checkpoint": "epoch-3"},
            url="http://web.demo.svc",
        ),
        (
            "RollingOut",
            Tone.WORKING,
            0.5,
            "1/2 ready",
            "v1/epoch-3 is live · http://web.demo.svc · v2/epoch-1 is being loaded",
        ),
        id="a deployment that rolls out",
    ),
    pytest.param(
        made(
            "Deployment",
            spec={"replicas": 1},
            readyReplicas=1,
            live={"trainingJob": "v1", "checkpoint": "epoch-2"},
            candidate={"trainingJob": "v2", "checkpoint": "epoch-1"},
            conditions=[("Ready", "True", "Live", ""), ("Promoted", "False", "GateFailed", "f1 0.8 is below 0.9")],
        ),
        ("Live", Tone.GOOD, 1.0, "1/1 ready", "v1/epoch-2 is live · v2/epoch-1: GateFailed, f1 0.8 is below 0.9"),
        id="a deployment that follows and whose leader is refused",
    ),
    pytest.param(
        made(
            "Deployment",
            spec={"replicas": 1},
            readyReplicas=1,
            live={"trainingJob": "v1", "checkpoint": "epoch-2"},
            conditions=[("Ready", "True", "Live", ""), ("Promoted", "Unknown", "Watching", "")],
        ),
        ("Live", Tone.GOOD, 1.0, "1/1 ready", "v1/epoch-2 is live · is being watched"),
        id="a deployment in its first minutes",
    ),
    pytest.param(
        made("Deployment", spec={"replicas": 0}, conditions=[("Ready", "True", "ScaledToZero", "none asked for")]),
        ("ScaledToZero", Tone.GOOD, None, "0 ready", "nothing is live yet"),
        id="a deployment of none",
    ),
    pytest.param(
        made(
            "ModelService",
            conditions=[("Ready", "True", "StorageReady", "bound")],
            datasets=2,
            trainingJobs=1,
            deployments=1,
            leaderboard=[{"trainingJob": "v1", "checkpoint": "epoch-3", "metric": "f1", "value": 0.972134}],
        ),
        (
            "StorageReady",
            Tone.GOOD,
            None,
            "",
            "2 datasets · 1 training job · 1 deployment · best f1 0.9721 (v1)",
        ),
        id="a model service",
    ),
]


@pytest.mark.parametrize(("obj", "told"), OBJECTS)
def test_an_object_in_a_line(obj, told):
    found = line(obj)
    assert (found.state, found.tone, found.done, found.progress, found.details) == told


def test_lines_stand_as_work_flows():
    objects = [made(kind, name) for kind in ("Deployment", "TrainingJob", "Dataset", "ModelService") for name in "ba"]
    kinds = ["ModelService", "Dataset", "TrainingJob", "Deployment"]
    assert [(each.kind, each.name) for each in lines(objects)] == [(kind, name) for kind in kinds for name in "ab"]


def test_what_needs_a_look_stays_on_a_small_screen_and_then_what_is_new():
    done = [("Ready", "True", "Verified", "fine")]
    objects = [
        made("Dataset", "old", created="2026-11-20T00:00:00Z", conditions=done),
        made("Dataset", "new", created="2026-11-24T00:00:00Z", conditions=done),
        made("TrainingJob", "runs", created="2026-11-19T00:00:00Z", summary="Running"),
    ]
    shown, left_out = fitting(lines(objects), 2)
    assert ([each.name for each in shown], left_out) == (["new", "runs"], 1)
    assert fitting(lines(objects), 3)[1] == 0
    assert fitting(lines(objects), -1) == ([], 3)


@pytest.mark.parametrize(
    ("ready", "wrong", "told"),
    [
        ("True", 1, "Problems: 1 row was skipped"),
        ("True", 1_200, "Problems: 1,200 rows were skipped"),
        ("False", 1, "Problems: 1 row is wrong"),
        ("False", 2, "Problems: 2 rows are wrong"),
    ],
)
def test_wrong_rows_of_a_dataset_are_counted_in_a_sentence(capsys, ready, wrong, told):
    problems = [{"line": 17, "message": "completion must be 0 or 1, found 2"}]
    dataset = made("Dataset", conditions=[("Ready", ready, "Any", "")], problems=problems, problemCount=wrong)
    show(dataset_in_full(dataset, NOW))
    assert told in capsys.readouterr().out.splitlines()
