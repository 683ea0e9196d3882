"""`python -m winnow_trainer compare`: the numbers of a checkpoint, and how much better than another one it is at least."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
import torch
from scipy.stats import norm
from sklearn.metrics import accuracy_score, recall_score
from tiny_checkpoint import manifest

from winnow_classifier import metrics
from winnow_classifier.checkpoint import FileEntry, JobEntry, manifest_bytes
from winnow_classifier.decision import Calibration, Decision, replace_file
from winnow_classifier.labels import LabelSchema, TaskDetail
from winnow_trainer import compare as module
from winnow_trainer.cli import main
from winnow_trainer.deciding import Judged, kept

BINARY = LabelSchema(TaskDetail.BINARY, ("ham", "spam"))
TOPICS = LabelSchema(TaskDetail.MULTILABEL, ("billing", "login"))


def answers(rows: int, wrong: int, *, seed: int = 0, first: int = 0) -> list[dict[str, Any]]:
    """Rows `first`… of which the first `wrong` of a shuffle are answered wrongly; every fourth is spam."""
    mistaken = set(np.random.default_rng(seed).permutation(rows)[:wrong].tolist())
    found = []
    for number in range(rows):
        spam = number % 4 == 0
        probability = 0.9 if spam != (number in mistaken) else 0.1
        found.append(
            {
                "input": f"text {first + number}",
                "expected": {"ham": int(not spam), "spam": int(spam)},
                "probabilities": {"ham": 1 - probability, "spam": probability},
            }
        )
    return found


def checkpoint(
    storage: Path,
    name: str,
    rows: list[dict[str, Any]] | None,
    schema: LabelSchema = BINARY,
    logits: dict[str, bytes] | None = None,
    **report: Any,
) -> tuple[str, str]:
    """A published checkpoint without a model: (path below the storage, digest)."""
    folder = storage / "runs" / name
    folder.mkdir(parents=True)
    for file, content in (logits or {}).items():
        (folder / file).write_bytes(content)
    if rows is not None:
        targets = [[row["expected"][label] for label in schema.labels] for row in rows]
        probabilities = [[row["probabilities"][label] for label in schema.labels] for row in rows]
        scores = metrics.evaluate(probabilities, targets, schema)
        report = {
            "rows": len(rows),
            "metrics": {key: value for key, value in scores.items() if key in ("accuracy", "roc_auc")},
            "labels": metrics.per_label(probabilities, targets, schema),
            "confusion": metrics.confusion(probabilities, targets, schema),
            "undefined": {"roc_auc": "one class"},
            **report,
        }
        (folder / "predictions.jsonl").write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    (folder / "metrics.json").write_bytes(orjson.dumps(report))
    files = {
        path.name: FileEntry(sha256=hashlib.sha256(path.read_bytes()).hexdigest(), size_bytes=path.stat().st_size)
        for path in sorted(folder.iterdir())
    }
    written = manifest(schema, name=name, primary_metric="accuracy", training_job=JobEntry(name=name), files=files)
    content = manifest_bytes(written)
    (folder / "checkpoint.json").write_bytes(content)
    return f"runs/{name}", "sha256:" + hashlib.sha256(content).hexdigest()


@pytest.fixture
def compare(tmp_path, capsys):
    """Runs in this process: (exit code, stdout, termination message)."""

    def run(candidate: tuple[str, str], live: tuple[str, str] | None = None, *options: str):
        command = [
            "compare",
            "--storage",
            str(tmp_path),
            "--candidate",
            candidate[0],
            "--candidate-digest",
            candidate[1],
        ]
        command += ["--live", live[0], "--live-digest", live[1]] if live else []
        code = main([*command, *options, "--termination-log", str(tmp_path / "told")])
        told = (tmp_path / "told").read_bytes()
        assert len(told) <= 4_096
        return code, capsys.readouterr().out, json.loads(told)

    return run


def test_values_are_those_of_the_evaluation_and_others_are_computed_from_the_answers(tmp_path, compare):
    rows = answers(200, 10)
    code, out, told = compare(
        checkpoint(tmp_path, "v1", rows), None, "--value", "accuracy", "--value", "recall[spam]", "--value", "f1_macro"
    )
    expected = [row["expected"]["spam"] for row in rows]
    predicted = [int(row["probabilities"]["spam"] > 0.5) for row in rows]
    assert code == 0
    assert (told["state"], told["rows"], told["measuredOn"]) == ("Done", 200, "Test")
    assert told["values"][0]["value"] == pytest.approx(accuracy_score(expected, predicted), abs=1e-12)
    assert told["values"][1]["value"] == pytest.approx(recall_score(expected, predicted), abs=1e-12)
    assert 0.9 < told["values"][2]["value"] < 1
    assert "recall of spam" in out
    assert "comparison" not in told


WORDS = [
    pytest.param("recall[spma]", "there is no such label; there are ham, spam", id="a label that is not there"),
    pytest.param("accuracy[spam]", "a label has precision, recall, f1", id="a metric that labels do not have"),
    pytest.param("kappa", "no such metric; it has accuracy, roc_auc", id="a metric that is not there"),
    pytest.param("roc_auc", "one class", id="a metric that the rows do not define"),
    pytest.param("precision[spam]", "never predicted", id="of a label that is never predicted"),
]


@pytest.mark.parametrize(("value", "says"), WORDS)
def test_what_has_no_value_says_why(tmp_path, compare, value, says):
    rows = [row for row in answers(40, 0) if row["expected"]["ham"]]
    code, _, told = compare(checkpoint(tmp_path, "v1", rows), None, "--value", value)
    assert code == 0
    assert says in told["values"][0]["message"]


def test_without_test_rows_validation_rows_are_measured_and_nothing_is_compared(tmp_path, compare):
    part = {"rows": 30, "metrics": {"accuracy": 0.75}, "labels": []}
    told = compare(
        checkpoint(tmp_path, "v2", None, validation=part),
        checkpoint(tmp_path, "v1", answers(30, 1)),
        "--value",
        "accuracy",
    )[2]
    assert (told["rows"], told["measuredOn"], told["values"]) == (30, "Validation", [{"value": 0.75}])
    assert "no test rows" in told["comparison"]["message"]


def test_the_lead_and_its_bound_are_those_of_the_paired_difference(tmp_path, compare):
    """Beside the normal approximation of the mean of paired differences, which holds at this many rows."""
    ours, theirs = answers(2_000, 40, seed=1), answers(2_000, 100, seed=2)
    pair = compare(checkpoint(tmp_path, "v2", ours), checkpoint(tmp_path, "v1", theirs))[2]["comparison"]
    right = [
        np.array([(row["probabilities"]["spam"] > 0.5) == bool(row["expected"]["spam"]) for row in rows], dtype=float)
        for rows in (ours, theirs)
    ]
    difference = right[0] - right[1]
    deviation = difference.std() / np.sqrt(len(difference))
    assert (pair["metric"], pair["rows"], pair["candidateRows"]) == ("accuracy", 2_000, 2_000)
    assert pair["candidate"] == pytest.approx(0.98)
    assert pair["live"] == pytest.approx(0.95)
    assert pair["lead"] == pytest.approx(0.03)
    assert pair["leadAtLeast"] == pytest.approx(0.03 + norm.ppf(0.05) * deviation, abs=deviation / 4)


def test_a_metric_that_is_better_when_lower_leads_the_other_way(tmp_path, compare, monkeypatch):
    monkeypatch.setattr(module, "RESAMPLES", 50)
    better, worse = checkpoint(tmp_path, "v2", answers(300, 5)), checkpoint(tmp_path, "v1", answers(300, 40, seed=3))
    assert compare(better, worse, "--metric", "log_loss")[2]["comparison"]["leadAtLeast"] > 0
    assert compare(worse, better, "--metric", "log_loss")[2]["comparison"]["lead"] < 0


def test_the_same_answers_are_not_worse_however_few_they_are(tmp_path, compare):
    told = compare(checkpoint(tmp_path, "v2", answers(5, 1)), checkpoint(tmp_path, "v1", answers(5, 1)))[2]
    assert (told["comparison"]["lead"], told["comparison"]["leadAtLeast"]) == (0, 0)


def test_draws_without_a_row_of_the_label_are_left_out(tmp_path, compare):
    """One spam in nine rows: every third draw has none, and no recall."""
    better, worse = ([row for row in answers(11, 0) if row["input"] not in ("text 4", "text 8")] for _ in range(2))
    worse[0] = {**worse[0], "probabilities": {"ham": 0.9, "spam": 0.1}}
    told = compare(checkpoint(tmp_path, "v2", better), checkpoint(tmp_path, "v1", worse), "--metric", "recall")[2]
    pair = told["comparison"]
    assert (pair["candidate"], pair["live"], pair["lead"], pair["leadAtLeast"]) == (1, 0, 1, 1)


def test_rows_that_both_have_answered_are_compared_if_they_are_half(tmp_path, compare):
    live = checkpoint(tmp_path, "v1", answers(100, 5))
    grown = compare(checkpoint(tmp_path, "v2", [*answers(100, 2), *answers(60, 1, first=1_000)]), live)[2]["comparison"]
    assert (grown["rows"], grown["candidateRows"]) == (100, 160)
    assert grown["live"] == pytest.approx(0.95)
    other = compare(checkpoint(tmp_path, "v3", [*answers(40, 2), *answers(60, 1, first=1_000)]), live)[2]["comparison"]
    assert "of the checkpoint's 100 test rows the live one has answered 40" in other["message"]
    half = compare(checkpoint(tmp_path, "v4", [*answers(50, 2), *answers(50, 1, first=1_000)]), live)[2]["comparison"]
    assert half["rows"] == 50


def test_a_row_that_stands_twice_is_compared_with_each_of_its_answers_once(tmp_path, compare):
    """The same text and labels: what differs is how they were answered."""
    right, wrong = answers(1, 0)[0], answers(1, 1)[0]
    live = checkpoint(tmp_path, "v1", [right, wrong, *answers(8, 0, first=100)])
    twice = compare(checkpoint(tmp_path, "v2", [right, right, *answers(8, 0, first=100)]), live)[2]["comparison"]
    assert (twice["rows"], twice["candidate"], twice["live"]) == (10, 1, pytest.approx(0.9))
    thrice = compare(checkpoint(tmp_path, "v3", [right] * 3 + answers(8, 0, first=100)), live)[2]["comparison"]
    assert (thrice["rows"], thrice["candidateRows"]) == (10, 11)


def test_other_labels_are_not_compared(tmp_path, compare):
    rows = [
        {"input": f"{n}", "expected": {"billing": 1, "login": n % 2}, "probabilities": {"billing": 0.9, "login": 0.6}}
        for n in range(20)
    ]
    live = checkpoint(tmp_path, "v1", answers(20, 1))
    topics = checkpoint(tmp_path, "v2", rows, TOPICS)
    assert "it is Multilabel, the live one is Binary" in compare(topics, live)[2]["comparison"]["message"]
    renamed = LabelSchema(TaskDetail.BINARY, ("ok", "spam"))
    again = [
        {**row, **{key: {"ok": row[key]["ham"], "spam": row[key]["spam"]} for key in ("expected", "probabilities")}}
        for row in answers(20, 1)
    ]
    message = compare(checkpoint(tmp_path, "v3", again, renamed), live)[2]["comparison"]["message"]
    assert "new: ok; gone: ham" in message


def test_what_was_changed_or_is_gone_is_refused(tmp_path, compare):
    path, digest = checkpoint(tmp_path, "v1", answers(20, 1))
    code, _, told = compare((path, "sha256:" + "0" * 64))
    assert (code, told["state"]) == (10, "Failed")
    assert "was changed" in told["message"]
    (tmp_path / path / "predictions.jsonl").write_text("{}")
    code, _, told = compare((path, digest))
    assert (code, "predictions.jsonl was changed" in told["message"]) == (10, True)
    code, _, told = compare(("runs/v9", digest))
    assert (code, "There is no checkpoint" in told["message"]) == (10, True)
    assert compare((path, digest), None, "--value", "1st")[0] == 10


def test_sixteen_long_labels_fit_in_a_termination_message(tmp_path, compare):
    wanted = [part for n in range(16) for part in ("--value", f"recall[{'ß' * 120}{n}]")]
    code, _, told = compare(
        checkpoint(tmp_path, "v1", answers(20, 1)), checkpoint(tmp_path, "v0", answers(20, 1)), *wanted
    )
    assert (code, len(told["values"])) == (0, 16)


def judged(rows: list[dict[str, Any]], schema: LabelSchema = BINARY) -> Judged:
    """Logits that make the rows' probabilities."""
    probabilities = torch.tensor([[row["probabilities"][label] for label in schema.labels] for row in rows])
    targets = np.array([[row["expected"][label] for label in schema.labels] for row in rows], dtype=np.int8)
    return Judged(probabilities.log(), targets)


def refit(storage: Path, path: str, **fields: Any) -> None:
    replace_file(storage / path, Decision(labels=BINARY.labels, task_detail=BINARY.task_detail, **fields))


def unsure(rows: int) -> list[dict[str, Any]]:
    """Every fourth row is spam and has 0.4, the others 0.2: nothing is found at 0.5, everything at 0.3."""
    return [
        {**row, "probabilities": {"ham": 1 - spam, "spam": spam}}
        for row in answers(rows, 0)
        for spam in (0.4 if row["expected"]["spam"] else 0.2,)
    ]


def test_each_checkpoint_is_judged_by_its_own_decision_as_it_stands_now(tmp_path, compare):
    rows = unsure(200)
    live = checkpoint(tmp_path, "v1", rows, logits=kept(None, judged(rows)))
    candidate = checkpoint(tmp_path, "v2", rows, logits=kept(None, judged(rows)))
    refit(tmp_path, candidate[0], thresholds={"spam": 0.3})
    values = ("--value", "accuracy", "--value", "recall[spam]")
    told = compare(candidate, live, *values)[2]
    assert [one["value"] for one in told["values"]] == [1.0, 1.0]
    pair = told["comparison"]
    assert (pair["candidate"], pair["live"], pair["lead"]) == (1.0, 0.75, 0.25)
    assert pair["leadAtLeast"] > 0.1
    refit(tmp_path, live[0], thresholds={"spam": 0.3})
    assert compare(candidate, live, *values)[2]["comparison"]["leadAtLeast"] == 0

    # A calibration that came later is applied to the logits, not to what predictions.jsonl says.
    before = compare(candidate, live, "--metric", "log_loss")[2]["comparison"]
    refit(tmp_path, live[0], calibration=Calibration(method="Temperature", temperature=3.0))
    after = compare(candidate, live, "--metric", "log_loss")[2]["comparison"]
    assert after["candidate"] == before["candidate"] < after["live"]
    odds = np.array([0.8, 0.2]) ** (1 / 3), np.array([0.6, 0.4]) ** (1 / 3)
    expected = -0.75 * np.log(odds[0][0] / odds[0].sum()) - 0.25 * np.log(odds[1][1] / odds[1].sum())
    assert after["live"] == pytest.approx(expected, abs=1e-6)


def test_validation_rows_are_judged_by_the_decision_too(tmp_path, compare):
    rows = unsure(40)
    part = {"rows": 40, "metrics": {"accuracy": 0.75}, "labels": []}
    stored = checkpoint(tmp_path, "v1", None, logits=kept(judged(rows), None), validation=part)
    refit(tmp_path, stored[0], thresholds={"spam": 0.3})
    told = compare(stored, None, "--value", "accuracy", "--value", "recall[spam]")[2]
    assert (told["measuredOn"], told["values"]) == ("Validation", [{"value": 1.0}, {"value": 1.0}])


def test_a_decision_that_was_edited_is_refused(tmp_path, compare):
    stored = checkpoint(tmp_path, "v1", answers(20, 1))
    refit(tmp_path, stored[0], thresholds={"spam": 0.3})
    file = tmp_path / stored[0] / "decision.json"
    file.write_text(file.read_text().replace("0.3", "0.4"))
    code, _, told = compare(stored)
    assert (code, "was changed" in told["message"]) == (10, True)


def scored(storage: Path, name: str, values: list[float], *, source: str = "a", **function: Any) -> tuple[str, str]:
    """A checkpoint whose training had a metric function `cost`."""
    rows = [
        {**row, "scores": {"accuracy": 1, "cost": value}}
        for row, value in zip(answers(len(values), 3), values, strict=True)
    ]
    reported = {"name": "cost", "sha256": source, "seconds": 0.1, **function}
    schema = BINARY
    told = {"metrics": {"cost": float(np.mean(values))}, "functions": [reported]}
    return checkpoint(storage, name, rows, schema, kept(None, judged(rows)), **told)


def test_a_metric_function_of_the_users_is_compared_by_its_rows_scores(tmp_path, compare):
    random = np.random.default_rng(5)
    theirs = random.normal(10, 2, 400)
    ours = theirs - random.normal(1, 1, 400)  # better, where less is
    live = scored(tmp_path, "v1", theirs.tolist(), direction="Minimize")
    candidate = scored(tmp_path, "v2", ours.tolist(), direction="Minimize")
    told = compare(candidate, live, "--metric", "cost", "--value", "cost")[2]
    pair = told["comparison"]
    assert told["values"] == [{"value": pytest.approx(ours.mean())}]
    assert (pair["metric"], pair["rows"], pair["lead"]) == ("cost", 400, pytest.approx((theirs - ours).mean()))
    deviation = (theirs - ours).std() / 20
    assert pair["leadAtLeast"] == pytest.approx(pair["lead"] + norm.ppf(0.05) * deviation, abs=deviation / 4)
    assert compare(live, candidate, "--metric", "cost")[2]["comparison"]["lead"] == pytest.approx(-pair["lead"])


def test_scores_that_say_nothing_of_the_two_are_not_compared(tmp_path, compare):
    values = [1.0] * 40
    live = scored(tmp_path, "v1", values, direction="Minimize")

    def says(name: str, **given: Any) -> str:
        stored = scored(tmp_path, name, values, **given)
        message: str = compare(stored, live, "--metric", "cost")[2]["comparison"]["message"]
        return message

    assert "another function" in says("v2", source="b", direction="Minimize")
    assert "no direction" in says("v3")
    plain = checkpoint(tmp_path, "v4", answers(40, 3), undefined={"cost": "ZeroDivisionError"})
    message = compare(plain, live, "--metric", "cost")[2]["comparison"]["message"]
    assert message == "the checkpoint has no scores of its rows by cost: ZeroDivisionError"
    candidate = scored(tmp_path, "v5", values, direction="Minimize")
    refit(tmp_path, live[0], thresholds={"spam": 0.05})
    message = compare(candidate, live, "--metric", "cost")[2]["comparison"]["message"]
    assert message.startswith("decision.json of the live one was fitted anew after cost ran")
    told = compare(live, None, "--value", "cost", "--value", "accuracy")[2]
    assert "fitted anew" in told["values"][0]["message"]
    assert told["values"][1]["value"] == 0.25  # everything is spam now
