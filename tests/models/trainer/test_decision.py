"""Calibration and thresholds: fitted on validation rows, kept in decision.json, fitted again without training."""

from __future__ import annotations

import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tiny_training
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import confusion_matrix, f1_score, log_loss, precision_score, recall_score

from winnow_classifier import checkpoint, metrics
from winnow_classifier import decision as decisions
from winnow_classifier.decision import Abstain, DecidedSchema, Decision, abstains, predicted_targets
from winnow_classifier.errors import ConfigError
from winnow_classifier.files import DECISION
from winnow_classifier.labels import LabelSchema, TaskDetail
from winnow_classifier.mirror import VOLUME
from winnow_classifier.objectives import Thresholds, check
from winnow_trainer import answers, calibrate, cutoffs, deciding
from winnow_trainer.advice import about_band
from winnow_trainer.cli import main
from winnow_trainer.deciding import Judged
from winnow_trainer.evaluate import evaluate
from winnow_trainer.examples import Examples
from winnow_trainer.job import TrainingJob

BINARY = LabelSchema(TaskDetail.BINARY, ("ham", "spam"))
ONE_OF = LabelSchema(TaskDetail.MULTICLASS, ("a", "b", "c"))
SEVERAL = LabelSchema(TaskDetail.MULTILABEL, ("a", "b", "c"))


def one_hot(labels, count):
    return np.eye(count, dtype=np.int8)[labels]


def overconfident(schema, rows=4_000, factor=3.0, seed=0):
    """Logits that are `factor` times what they should be, and labels drawn from what they should be."""
    random = np.random.default_rng(seed)
    true = random.normal(size=(rows, len(schema.labels)))
    if schema.task_detail is TaskDetail.MULTILABEL:
        targets = (random.random(true.shape) < 1 / (1 + np.exp(-(true - 1)))).astype(np.int8)
    else:
        p = np.exp(true) / np.exp(true).sum(axis=1, keepdims=True)
        chosen = (p.cumsum(axis=1) < random.random((rows, 1))).sum(axis=1).clip(max=p.shape[1] - 1)
        targets = one_hot(chosen, p.shape[1])
    return Judged(torch.tensor(true * factor, dtype=torch.float32), targets)


@pytest.mark.parametrize("schema", [BINARY, ONE_OF, SEVERAL])
def test_overconfident_probabilities_are_calibrated(schema):
    found = deciding.fit(overconfident(schema), overconfident(schema, seed=1), schema, None)
    assert found.measured is not None
    assert found.measured.rows == "Test"
    before, after = found.measured.before, found.measured.after
    assert after["ece"] < 0.03 < 0.1 < before["ece"]
    assert after["brier"] < before["brier"]
    assert after["log_loss"] < before["log_loss"]
    if found.calibration.temperature is not None:
        assert found.calibration.temperature == pytest.approx(3.0, rel=0.1)
        assert after["accuracy"] == before["accuracy"]


def test_temperature_minimises_log_loss_as_scikit_learn_counts_it():
    rows = overconfident(ONE_OF)
    labels = rows.targets.argmax(axis=1)

    def loss(temperature):
        return log_loss(labels, (rows.logits.double() / temperature).softmax(-1).numpy())

    found = calibrate.temperature(rows.logits.double().numpy(), rows.targets.astype(float))
    assert loss(found) <= min(loss(found * 0.98), loss(found * 1.02)) + 1e-6


@pytest.mark.parametrize(("size", "seed"), [(12, 3), (24, 6), (24, 12)])
def test_a_line_is_that_of_scikit_learn_also_where_logits_are_large(size, seed):
    random = np.random.default_rng(seed)
    holds = (random.random(4_000) < 0.3).astype(float)
    believed = np.where(random.random(4_000) < 0.05, 1 - holds, holds)
    logits = (2 * believed - 1) * size + random.normal(size=4_000) * (1 if size == 12 else 3)
    line = calibrate.line(logits, holds)
    expected = LogisticRegression(C=1e6).fit(logits[:, None], holds)
    found = 1 / (1 + np.exp(-(line.slope * logits + line.intercept)))
    # So many rows leave next to nothing of what is believed beforehand.
    np.testing.assert_allclose(found, expected.predict_proba(logits[:, None])[:, 1], atol=0.005)


def test_a_line_never_turns_the_order_of_probabilities_round():
    logits = np.linspace(-5, 5, 200)
    line = calibrate.line(logits, (logits < 1).astype(float))
    assert line.slope == calibrate.MIN_SLOPE
    assert 1 / (1 + np.exp(-line.intercept)) == pytest.approx(0.6, abs=0.01)  # the share that holds


def test_rows_without_an_error_do_not_make_certainties():
    logits = np.array([[4.0, -4.0], [-4.0, 4.0]] * 10)
    targets = one_hot([0, 1] * 10, 2)
    surest = 1 / (1 + np.exp(-8 / calibrate.fit(logits, targets, BINARY).temperature))
    assert 0.9 < surest < 0.99  # one row of 20 may have been luck
    line = calibrate.line(np.array([-3.0, 3.0] * 10), np.array([0.0, 1.0] * 10))
    assert 0.85 < 1 / (1 + np.exp(-(3 * line.slope + line.intercept))) < 0.95


@pytest.mark.parametrize("task", [TaskDetail.BINARY, TaskDetail.MULTILABEL])
def test_calibration_on_rows_without_an_error_helps_on_others_that_have_some(task):
    """A fine-tuned model is sure of all, and wrong in a row of a hundred: of as many validation rows none may show it."""
    schema = LabelSchema(task, BINARY.labels)
    random = np.random.default_rng(0)

    def judged(rows):
        spam = random.integers(0, 2, rows)
        side = np.where(random.random(rows) < 0.01, -1, 1) * (2 * spam - 1)
        logits = (side * np.abs(random.normal(10, 3, rows)))[:, None] * [-1, 1]
        return Judged(torch.tensor(logits, dtype=torch.float32), one_hot(spam, 2))

    before = after = 0.0
    for _ in range(20):
        validation = judged(100)
        if ((validation.logits[:, 1] > 0).numpy() == validation.targets[:, 1]).all():
            measured = deciding.fit(validation, judged(4_000), schema, None).measured
            assert measured is not None
            before += measured.before["log_loss"]
            after += measured.after["log_loss"]
    assert 0 < after < 0.75 * before


scored = st.lists(st.tuples(st.integers(0, 100).map(lambda n: n / 100), st.booleans()), min_size=1, max_size=60)


def of(rows):
    p = np.array([value for value, _ in rows], dtype=np.float32)
    holds = np.array([[not spam, spam] for _, spam in rows], dtype=np.int8)
    return np.stack([1 - p, p], axis=1), holds


@settings(max_examples=25, deadline=None)
@given(scored, st.sampled_from([0.2, 0.5, 0.9, 1.0]))
def test_thresholds_keep_what_they_promise(rows, value):
    probabilities, holds = of(rows)
    y, p = holds[:, 1], probabilities[:, 1]
    cuts = [np.float32(t) for t in (*np.unique(p), 1.5)]

    def predict(asked):
        found = cutoffs.fit(probabilities, holds, BINARY, Thresholds.model_validate(asked))
        if not y.any():
            assert found.thresholds == {}
            assert "spam" in found.unfitted
            return None, found
        return predicted_targets(probabilities, found.thresholds, BINARY)[:, 1], found

    said, _ = predict({"objective": "RecallAtLeast", "value": value})
    if said is not None:
        assert recall_score(y, said) >= value - 1e-9
        fewer = [p >= cut for cut in cuts if (p >= cut).sum() < said.sum()]
        assert all(recall_score(y, other) < value for other in fewer)
    said, found = predict({"objective": "PrecisionAtLeast", "value": value})
    if said is not None:
        reach = [p >= cut for cut in cuts if (p >= cut).any() and precision_score(y, p >= cut) >= value - 1e-9]
        assert ("spam" in found.unfitted) == (not reach)
        assert reach or found.thresholds == {"spam": 1.0}
        if reach:
            assert precision_score(y, said) >= value - 1e-9
            assert recall_score(y, said) == max(recall_score(y, other) for other in reach)


def test_f1_and_cost_find_the_best_cut_where_there_are_enough_rows():
    rows = overconfident(BINARY, rows=20_000, factor=1.0)
    p, y = rows.logits.softmax(-1).numpy(), rows.targets
    cuts = np.linspace(0.02, 0.98, 49)
    found = cutoffs.fit(p, y, BINARY, Thresholds.model_validate({"objective": "F1"}))
    said = predicted_targets(p, found.thresholds, BINARY)[:, 1]
    assert f1_score(y[:, 1], said) > max(f1_score(y[:, 1], p[:, 1] >= cut) for cut in cuts) - 5e-4
    costs = {"falsePositive": 1, "falseNegative": 5}
    found = cutoffs.fit(p, y, BINARY, Thresholds.model_validate({"objective": "Cost", "costs": costs}))

    def cost(predicted):
        _, false_positive, false_negative, _ = confusion_matrix(y[:, 1], predicted).ravel()
        return false_positive + 5 * false_negative

    said = predicted_targets(p, found.thresholds, BINARY)[:, 1]
    assert cost(said) < min(cost(p[:, 1] >= cut) for cut in cuts) * 1.005
    assert found.thresholds["spam"] < 0.4


def test_few_rows_are_believed_a_little_so_that_thresholds_hold_for_others_too():
    others = overconfident(BINARY, rows=20_000, factor=1.0)
    p, y = others.logits.softmax(-1).numpy(), others.targets[:, 1] > 0

    def f1(holds, said):
        return 2 * (holds & said).sum() / (holds.sum() + said.sum())

    fitted, best = [], []
    for seed in range(40):
        some = np.random.default_rng(seed).choice(len(y), 120, replace=False)
        found = cutoffs.fit(p[some], others.targets[some], BINARY, Thresholds.model_validate({"objective": "F1"}))
        fitted.append(f1(y, p[:, 1] >= found.thresholds["spam"]))
        cut = max(np.unique(p[some, 1]), key=lambda cut: f1(y[some], p[some, 1] >= cut))
        best.append(f1(y, p[:, 1] >= cut))
    assert np.mean(fitted) > np.mean(best) + 0.005


def test_of_cuts_that_cost_the_same_the_one_nearest_to_what_probabilities_say_is_taken():
    p, y = of([(0.7, True), (0.6, False), (0.2, True)])  # one mistake at 0.65, and one at 0.1
    costs = {"falsePositive": 1, "falseNegative": 1}
    found = cutoffs.fit(p, y, BINARY, Thresholds.model_validate({"objective": "Cost", "costs": costs}))
    assert found.thresholds["spam"] == pytest.approx((2 * 0.65 + 100 * 0.5) / 102)


def test_a_rare_label_is_drawn_to_what_its_probabilities_say_and_one_without_rows_has_no_threshold():
    random = np.random.default_rng(0)
    p = random.random((400, 3)).astype(np.float32)
    holds = np.zeros((400, 3), dtype=np.int8)
    holds[:, 0] = p[:, 0] > random.random(400)
    holds[int(p[:, 1].argmax()), 1] = 1
    found = cutoffs.fit(p, holds, SEVERAL, Thresholds.model_validate({"objective": "F1"}))
    assert found.thresholds["a"] == pytest.approx(0.35, abs=0.1)
    assert found.thresholds["b"] < 0.7  # its own best cut lies above 0.99
    assert found.unfitted == {"c": "no validation row has it"}


def test_a_threshold_cuts_between_neighbours_among_floats():
    asked = Thresholds.model_validate({"objective": "PrecisionAtLeast", "value": 1})
    for low in np.linspace(0.5, 0.9, 8, dtype=np.float32):
        high = np.nextafter(low, np.float32(1))
        rows = np.array([[1 - high, high], [1 - low, low]], dtype=np.float32)
        assert cutoffs.fit(rows, one_hot([1, 0], 2), BINARY, asked).thresholds == {"spam": float(high)}


def test_precision_of_one_of_several_labels_is_had_by_abstaining():
    rows = overconfident(ONE_OF, factor=1.0)
    found = deciding.fit(rows, None, ONE_OF, Thresholds.model_validate({"objective": "PrecisionAtLeast", "value": 0.6}))
    schema = DecidedSchema(ONE_OF.task_detail, ONE_OF.labels, found)
    p = schema.probabilities(rows.logits).numpy()
    sure = ~schema.abstained(p)
    assert 0.05 < sure.mean() < 1
    right = (p.argmax(axis=1) == rows.targets.argmax(axis=1))[sure].mean()
    assert right >= 0.6
    assert found.measured.rows == "Validation"
    assert found.measured.abstained == pytest.approx(1 - sure.mean())


def test_a_precision_that_the_likeliest_label_never_has_leaves_only_certainty():
    rows = overconfident(ONE_OF, rows=50)
    wrong = Judged(rows.logits, one_hot((rows.logits.argmax(dim=1).numpy() + 1) % 3, 3))
    asked = Thresholds.model_validate({"objective": "PrecisionAtLeast", "value": 0.6})
    found = deciding.fit(wrong, None, ONE_OF, asked)
    assert (found.thresholds, found.abstain) == ({}, Abstain(min_probability=1.0))
    assert found.unfitted == {"*": "however likely a label is, it is right in less than 0.6 of the validation rows"}
    assert found.measured.abstained == 1.0


@pytest.mark.parametrize(
    ("schema", "row", "thresholds", "abstain", "expected"),
    [
        pytest.param(BINARY, [0.45, 0.55], {}, Abstain(band=0.1), True, id="near 0.5"),
        pytest.param(BINARY, [0.45, 0.55], {"spam": 0.8}, Abstain(band=0.1), False, id="far from its threshold"),
        pytest.param(SEVERAL, [0.9, 0.1, 0.52], {}, Abstain(band=0.1), True, id="one of several is unsure"),
        pytest.param(SEVERAL, [0.9, 0.1, 0.0], {}, Abstain(band=0.1), False, id="all are sure"),
        pytest.param(SEVERAL, [0.4, 0.6, 0.4], {}, Abstain(band=0.1), False, id="at the edges of the band"),
        pytest.param(SEVERAL, [0.9, 0.1, 0.4001], {}, Abstain(band=0.1), True, id="within the lower edge"),
        pytest.param(SEVERAL, [0.9, 0.1, 0.5999], {}, Abstain(band=0.1), True, id="within the upper edge"),
        pytest.param(BINARY, [0.0, 1.0], {"spam": 0.8}, Abstain(band=0.2), False, id="the band ends at 1"),
        pytest.param(BINARY, [1.0, 0.0], {"spam": 0.2}, Abstain(band=0.2), False, id="the band ends at 0"),
        pytest.param(ONE_OF, [0.5, 0.3, 0.2], {}, Abstain(min_probability=0.6), True, id="the likeliest is not likely"),
        pytest.param(ONE_OF, [0.7, 0.2, 0.1], {}, Abstain(min_probability=0.6), False, id="it is"),
        pytest.param(ONE_OF, [0.7, 0.2, 0.1], {}, Abstain(min_probability=0.7), False, id="just as likely is enough"),
        pytest.param(BINARY, [0.5, 0.5], {}, None, False, id="never without a rule"),
    ],
)
def test_abstention(schema, row, thresholds, abstain, expected):
    assert abstains([row], thresholds, abstain, schema).tolist() == [expected]


@pytest.mark.parametrize(
    ("asked", "task"),
    [
        ({"objective": "F1"}, TaskDetail.MULTICLASS),
        ({"abstain": {"band": 0.1}}, TaskDetail.MULTICLASS),
        ({"objective": "PrecisionAtLeast", "value": 0.9, "abstain": {"minProbability": 0.5}}, TaskDetail.MULTICLASS),
        ({"abstain": {"minProbability": 0.5}}, TaskDetail.MULTILABEL),
    ],
)
def test_what_is_not_defined_for_these_labels_is_refused(asked, task):
    with pytest.raises(ConfigError, match="thresholds"):
        check(Thresholds.model_validate(asked), task)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> tiny_training.Trainer:
    """One epoch with validation rows, thresholds, and a metric function that looks at the predicted labels."""
    trainer = tiny_training.Trainer(tmp_path_factory.mktemp("storage"))
    agrees = trainer.storage / "agrees.py"
    agrees.write_text("def score(text, expected, predicted): return predicted.labels == expected.labels\n")
    spec = trainer.job(rows=60, numTrainEpochs=1).spec.model_dump(by_alias=True, exclude_none=True)
    spec |= {"validationSplit": {"percent": 40}, "metrics": {"custom": [{"name": "agrees", "file": str(agrees)}]}}
    spec |= {"thresholds": {"objective": "RecallAtLeast", "value": 1.0, "abstain": {"band": 0.05}}}
    trainer.run(TrainingJob.model_validate({"kind": "TrainingJob", "metadata": {"name": "spam-v1"}, "spec": spec}))
    return trainer


def test_a_checkpoint_carries_its_decision_beside_the_immutable_files(trained):
    folder = trained.checkpoint(1)
    manifest = checkpoint.inspect(folder).manifest
    assert DECISION not in manifest.files
    decision = decisions.read(folder, manifest.schema_)
    assert decision.calibration.method == "Temperature"
    assert decision.thresholds.keys() == {"spam"}
    assert decision.fitted_on.rows == 24
    report = json.loads((folder / "metrics.json").read_bytes())
    assert report["metrics"]["log_loss"] == decision.measured.after["log_loss"]
    assert report["withoutDecision"]["log_loss"] == decision.measured.before["log_loss"]
    assert report["decisionDigest"] == json.loads((folder / DECISION).read_bytes())["digest"]
    lines = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
    threshold = np.float32(decision.thresholds["spam"])
    spam = [line["probabilities"]["spam"] for line in lines]
    assert any(0.5 < one < threshold for one in spam), "no row tells the threshold from the likeliest label"
    assert report["metrics"]["agrees"] == report["metrics"]["accuracy"]
    for line in lines:
        assert line["predicted"] == (["spam"] if np.float32(line["probabilities"]["spam"]) >= threshold else ["ham"])
        near = abs(np.float32(line["probabilities"]["spam"]) - threshold) < np.float32(0.05)
        assert line["abstained"] == bool(near)


@pytest.mark.parametrize("schema", [BINARY, ONE_OF, SEVERAL])
def test_what_a_decision_measured_is_not_computed_again_and_stays_the_same_to_the_last_bit(schema, monkeypatch):
    validation, test = overconfident(schema, rows=300), overconfident(schema, rows=200, seed=1)
    decision = deciding.fit(validation, test, schema, None if schema is ONE_OF else Thresholds(objective="F1"))
    decided, rows = decisions.decided(schema, decision), np.arange(201)
    examples = Examples([f"text {n}" for n in range(200)], test.targets, rows[:200], rows, 0)
    anew = evaluate(test.logits, examples, decided, None)
    calls = []
    plain = metrics.evaluate
    monkeypatch.setattr(metrics, "evaluate", lambda *given: calls.append(given) or plain(*given))
    known = evaluate(test.logits, examples, decided, None, measured=decision.measured)
    assert calls == []
    assert (known.metrics, known.report) == (anew.metrics, anew.report)


@pytest.mark.parametrize(
    ("band", "thresholds", "says"),
    [
        pytest.param(0.05, {"a": 0.3, "b": 0.9}, "", id="room on both sides"),
        pytest.param(0.2, {"a": 0.8, "b": 0.2}, "", id="just as far as 0 and 1"),
        pytest.param(0.05, {"a": 0.0123456, "b": 0.5}, 'the threshold of "a" (0.01235) to 0 or 1', id="near 0"),
        pytest.param(
            0.05, {"a": 0.01, "b": 0.99}, 'the thresholds of "a" (0.01), "b" (0.99) to 0 or 1', id="both ends"
        ),
        pytest.param(None, {"a": 0.01}, "", id="no band"),
    ],
)
def test_a_band_that_leaves_no_sure_answer_is_warned_of(band, thresholds, says):
    given = {"labels": SEVERAL.labels, "task_detail": SEVERAL.task_detail, "thresholds": thresholds}
    warnings = about_band(Decision(**given, abstain=Abstain(band=band) if band else None))
    assert [warning.code for warning in warnings] == ["WideBand"] * bool(says)
    assert all(says in warning.message for warning in warnings)
    sure = np.array([[0.0, 0.0, 0.0], [1.0, 1.0, 1.0]])
    assert abstains(sure, thresholds, Abstain(band=band), SEVERAL).any() == bool(says)


def refit(trainer, capsys, *options) -> Decision:
    where = ["--storage", str(trainer.storage), "--run", "spam-v1", "--checkpoint", "epoch-1"]
    assert main(["refit", *where, *options, "--json"]) == 0
    return Decision.model_validate_json(capsys.readouterr().out)


def test_a_refit_needs_no_training(trained, capsys):
    folder, schema = trained.checkpoint(1), BINARY
    first = (folder / DECISION).read_bytes()
    precision = refit(trained, capsys, "--objective", "PrecisionAtLeast", "--value", "1")
    assert precision.asked == {"objective": "PrecisionAtLeast", "value": 1.0}
    assert decisions.read(folder, schema) == precision
    checkpoint.inspect(folder)
    assert answers.read(folder, None, VOLUME).refitted
    assert refit(trained, capsys, "--no-thresholds", "--uncalibrated").calibration is None
    alone = refit(trained, capsys, "--no-thresholds")
    assert (alone.thresholds, alone.abstain, alone.asked) == ({}, None, None)
    assert alone.calibration is not None
    assert refit(trained, capsys, "--same").asked is None
    again = refit(trained, capsys, "--objective", "RecallAtLeast", "--value", "1", "--abstain-band", "0.05")
    assert again.abstain == Abstain(band=0.05)
    assert (folder / DECISION).read_bytes() == first
    assert not answers.read(folder, None, VOLUME).refitted
    refit(trained, capsys, "--same")
    assert (folder / DECISION).read_bytes() == first
    assert not list(folder.glob(".tmp-*"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--objective", "RecallAtLeast"], "value belongs to objective"),
        (["--same", "--value", "1"], "--same takes what the last fit was for"),
        (["--abstain-band", "2"], "abstain.band: Input should be less than or equal to 0.5"),
        (["--checkpoint", "epoch-9", "--same"], "There is no checkpoint in"),
        ([], "it is not said what thresholds are for, and those that were fitted would be lost"),
        (["--uncalibrated"], "it is not said what thresholds are for"),
        (["--no-thresholds", "--same"], "so it goes with none of the others"),
    ],
)
def test_a_refit_that_cannot_be_says_so(trained, capsys, options, words):
    where = ["--storage", str(trained.storage), "--run", "spam-v1", "--checkpoint", "epoch-1"]
    assert main(["refit", *where, *options]) in (10, 20)
    assert words in capsys.readouterr().err


def test_refits_at_once_leave_one_whole_decision(tmp_path: Path):
    """One is read while another is half written, again and again."""
    decided = [
        Decision(labels=BINARY.labels, task_detail=BINARY.task_detail, thresholds={"spam": t}) for t in (0.3, 0.7)
    ]
    decisions.replace_file(tmp_path, decided[0])
    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(decisions.replace_file, tmp_path, decided[i % 2]) for i in range(100)]:
            assert decisions.read(tmp_path, BINARY) in decided
            done.result()
    assert [path.name for path in tmp_path.iterdir()] == [DECISION]


def test_what_a_killed_refit_left_is_gone_after_the_next_one_a_day_later(trained, capsys):
    """Not before: another refit may be about to rename what it wrote."""
    left, written = (trained.checkpoint(1) / f".tmp-{DECISION}-{number}" for number in (1, 2))
    for path in (left, written):
        path.write_text("{")
    os.utime(left, (0, 0))
    refit(trained, capsys, "--same")
    assert (left.exists(), written.exists()) == (False, True)
    written.unlink()


def test_a_checkpoint_that_goes_meanwhile_does_not_come_back(trained, capsys, monkeypatch, tmp_path: Path):
    folder = tmp_path / "runs" / "spam-v1" / "checkpoints" / "epoch-1"
    shutil.copytree(trained.checkpoint(1), folder)
    fit = deciding.fit

    def removed_by_the_collection(*given, **options):
        folder.rename(tmp_path / ".removed")
        return fit(*given, **options)

    monkeypatch.setattr(deciding, "fit", removed_by_the_collection)
    where = ["--storage", str(tmp_path), "--run", "spam-v1", "--checkpoint", "epoch-1"]
    assert main(["refit", *where, "--objective", "F1"]) == 10
    assert "was removed while its decision was fitted" in capsys.readouterr().err
    assert not folder.exists()


def test_without_validation_rows_nothing_is_fitted_and_the_job_says_so(tmp_path: Path, capsys):
    trainer = tiny_training.Trainer(tmp_path)
    told = trainer.run(trainer.job(numTrainEpochs=1))
    assert "NotCalibrated" in [warning["code"] for warning in told["warnings"]]
    assert not (trainer.checkpoint(1) / DECISION).exists()
    assert main(["refit", "--storage", str(tmp_path), "--run", "spam-v1", "--checkpoint", "epoch-1", "--same"]) == 10
    words = "Checkpoint epoch-1 of TrainingJob spam-v1 has no answers to validation rows to fit on"
    assert words in capsys.readouterr().err
