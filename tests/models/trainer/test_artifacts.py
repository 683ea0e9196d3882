"""What lies beside the weights of a checkpoint: a whole run with functions of the user's, and its files."""

import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import tiny_models
from matplotlib.axes import Axes
from random_answers import rows_of
from tiny_training import dataset

from winnow_classifier import checkpoint, metrics
from winnow_classifier.errors import ConfigError
from winnow_classifier.labels import LabelSchema, TaskDetail
from winnow_classifier.objectives import Thresholds
from winnow_trainer import curves, mistakes, plots
from winnow_trainer.compare import Value, compare
from winnow_trainer.job import TrainingJob, load_job

PICTURES = {"loss.png", "confusion.png", "pr.png", "roc.png", "reliability.png", "scores.png"}
pytestmark = pytest.mark.pictures


def with_functions(trainer, primary=None, validation=True, **sources):
    job = trainer.job()
    custom = []
    for name, source in sources.items():
        (trainer.storage / f"{name}.py").write_text(source)
        custom.append({"name": name, "file": str(trainer.storage / f"{name}.py"), "direction": "Minimize"})
    spec = job.model_dump(mode="json", by_alias=True, exclude_none=True)["spec"]
    spec["metrics"] = {"custom": custom, **({"primary": primary} if primary else {})}
    if validation:
        spec["validationDataset"] = str(dataset(trainer.storage, 10, seed=3).path)
    return TrainingJob.model_validate({"kind": "TrainingJob", "metadata": {"name": "spam-v1"}, "spec": spec})


COST = "def score(input_text, expected, predicted): return 0 if predicted.labels == expected.labels else 5"


def test_a_function_picks_the_best_and_a_broken_one_only_warns(trainer):
    told = trainer.run(
        with_functions(trainer, "cost", cost=COST, broken="def score(a, b, c):\n    return len(a) / (a == 'none')")
    )
    assert (told["state"], told["primaryMetric"], told["higherIsBetter"]) == ("Complete", "cost", False)
    warnings = [warning["message"] for warning in told["warnings"] if warning["code"] == "MetricFailed"]
    assert len(warnings) == 2  # one for test, one for validation rows, not one an epoch
    assert 'the metric "broken" failed on test rows: ZeroDivisionError: division by zero (line 2' in warnings[0]
    folder = trainer.checkpoint(2)
    report = json.loads((folder / "metrics.json").read_bytes())
    rows = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
    costs = [row["scores"]["cost"] for row in rows]
    assert report["metrics"]["cost"] == pytest.approx(np.mean(costs))
    assert [cost == 0 for cost in costs] == [row["scores"]["accuracy"] == 1 for row in rows]
    assert "broken" not in rows[0]["scores"]
    assert report["metrics"]["broken"] is None
    assert report["undefined"]["broken"] == report["functions"][1]["error"]
    assert report["functions"][1]["row"] == 1
    assert report["validation"]["metrics"].keys() == report["metrics"].keys()
    best = min(told["epochs"], key=lambda epoch: (epoch["validationMetrics"]["cost"], epoch["epoch"]))
    assert told["bestCheckpoint"] == best["checkpoint"]

    # A gate compares the two epochs by it, and what it computes anew is what the evaluation said.
    wanted = [Value("cost"), Value("log_loss"), Value("recall", "spam")]
    gate = compare(folder, None, wanted, trainer.checkpoint(1), None, "cost")
    recall = next(label["recall"] for label in report["labels"] if label["label"] == "spam")
    assert [one.value for one in gate.values] == [report["metrics"]["cost"], report["metrics"]["log_loss"], recall]
    other = json.loads((trainer.checkpoint(1) / "metrics.json").read_bytes())["metrics"]["cost"]
    assert gate.comparison.message == ""
    assert gate.comparison.lead == pytest.approx(other - report["metrics"]["cost"])


class Page(HTMLParser):
    def __init__(self, page):
        super().__init__()
        self.tags, self.loads, self.text = set(), [], ""
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.loads += [value for name, value in attributes if name in ("src", "href", "action")]
        assert not [name for name, _ in attributes if name.startswith("on") or name == "style"]

    def handle_data(self, data):
        self.text += data


def test_a_checkpoint_has_its_pictures_and_a_page_that_shows_all_of_it(trainer):
    trainer.run(with_functions(trainer, cost=COST))
    folder = trainer.checkpoint(2)
    manifest = checkpoint.inspect(folder).manifest
    assert {*PICTURES, "metrics.json", "predictions.jsonl", "curves.json", "errors.jsonl", "report.html"} < {
        *manifest.files
    }
    for name in PICTURES:
        assert (folder / name).read_bytes().startswith(b"\x89PNG")
    page = Page((folder / "report.html").read_text())
    assert "script" not in page.tags
    assert len(page.loads) == len(PICTURES)
    assert all(value.startswith("data:image/png;base64,") for value in page.loads)
    for told in (
        "chosen on the",
        "validation rows",
        "test (8 rows)",
        "f1_macro",
        "log_loss lower is better",
        "cost lower is better",
        "epoch-2",
        "on the 8 test rows",
    ):
        assert told in page.text, told
    drawn = json.loads((folder / "curves.json").read_bytes())
    assert [epoch["epoch"] for epoch in drawn["loss"]] == [1, 2]
    assert [point["step"] for point in drawn["stepLoss"]["points"]] == list(range(1, 13))
    means = np.array([point["trainLoss"] for point in drawn["stepLoss"]["points"]]).reshape(2, 6)
    assert means.mean(axis=1) == pytest.approx(
        [epoch["trainLoss"] for epoch in drawn["loss"]], rel=0.01
    )  # a step has fewer rows
    assert sum(each["answers"] for each in drawn["reliability"]) == 8


def test_the_page_says_that_test_rows_chose(trainer):
    trainer.run(with_functions(trainer, cost=COST, validation=False))
    assert "There are no validation rows" in (trainer.checkpoint(1) / "report.html").read_text()


def test_what_users_write_cannot_run_in_the_page(trainer):
    evil = "<script>alert(1)</script><img src=x onerror=alert(1)> \x07"
    schema = LabelSchema(TaskDetail.BINARY, ("ham", '"><script>alert(2)</script>'))
    job = with_functions(trainer, cost=COST)
    from rows_in_memory import store_dataset

    texts, spam = tiny_models.texts(8, seed=5)
    targets = np.eye(2, dtype=np.int8)[spam]
    rows = [
        str(store_dataset(trainer.storage, schema, [f"{text} {evil}{n}" for text in texts], targets).path)
        for n in "abc"
    ]
    spec = {"training_dataset": rows[0], "test_dataset": rows[1], "validation_dataset": rows[2]}
    spec["thresholds"] = Thresholds(objective="F1")
    trainer.run(job.model_copy(update={"spec": job.spec.model_copy(update=spec)}))
    page = Page((trainer.checkpoint(1) / "report.html").read_text())
    assert "script" not in page.tags
    assert len(page.loads) == len(PICTURES)
    assert evil[:-1] in page.text and schema.labels[1] in page.text  # told as it is
    policy = re.search(
        r'http-equiv="Content-Security-Policy" content="([^"]*)"', (trainer.checkpoint(1) / "report.html").read_text()
    )
    assert "default-src 'none'" in policy[1]


@pytest.mark.parametrize(
    ("detail", "labels"),
    [(TaskDetail.BINARY, 2), (TaskDetail.MULTICLASS, 3), (TaskDetail.MULTICLASS, 200), (TaskDetail.MULTILABEL, 30)],
)
def test_pictures_of_few_and_many_labels(detail, labels):
    schema, p, y = rows_of(detail, labels, rows=120)
    steps = {"stepsPerEpoch": 4, "points": [{"step": 2, "trainLoss": 0.7}, {"step": 4, "trainLoss": 0.5}]}
    drawn = {"loss": curves.losses([]), "stepLoss": steps, **curves.curves(p, y, schema)}
    found = plots.pictures(drawn, metrics.confusion(p, y, schema), schema)
    assert found.keys() == PICTURES
    assert len(json.dumps(drawn)) < 2_000_000


def test_a_label_that_begins_with_an_underscore_has_its_curve_named_too(monkeypatch):
    schema, p, y = rows_of(TaskDetail.MULTICLASS, 3, rows=120)
    schema = LabelSchema(TaskDetail.MULTICLASS, ("_other", "bill", "__card__"))
    drawn = {"loss": curves.losses([]), "stepLoss": {"stepsPerEpoch": 1, "points": []}, **curves.curves(p, y, schema)}
    legend, named = Axes.legend, []

    def recorded(axes, *handles, **options):
        found = legend(axes, *handles, **options)
        named.extend(text.get_text().split()[0] for text in found.get_texts())
        return found

    monkeypatch.setattr(Axes, "legend", recorded)
    plots.pictures(drawn, metrics.confusion(p, y, schema), schema)
    assert all(named.count(label) == 2 for label in schema.labels), named  # of precision and recall, and of ROC


@pytest.mark.parametrize("digits", [pytest.param(16, id="no two rows score the same"), pytest.param(1, id="many do")])
def test_a_curve_goes_through_the_metrics_of_its_thresholds(digits):
    schema, p, y = rows_of(TaskDetail.BINARY, 2, rows=90)
    p = p.round(digits)
    (spam,) = curves.curves(p, y, schema)["labels"]
    for n in (0, 5, -1):
        predicted = p[:, 1] >= spam["thresholds"][n] - 1e-6
        hits = (predicted & (y[:, 1] == 1)).sum()
        assert spam["precision"][n] == pytest.approx(hits / predicted.sum(), abs=1e-5)
        assert spam["recall"][n] == pytest.approx(hits / y[:, 1].sum(), abs=1e-5)
        others = (predicted.sum() - hits) / (y[:, 1] == 0).sum()
        assert spam["falsePositiveRate"][n] == pytest.approx(others, abs=1e-5)


def test_answers_that_a_label_does_not_hold_are_sure_too():
    schema = LabelSchema(TaskDetail.MULTILABEL, ("a", "b"))
    found = curves.curves(np.array([[0.02, 0.98], [0.07, 0.52]]), np.array([[0, 1], [1, 1]], dtype=np.int8), schema)
    assert [bins[-2:] for bins in found["confidence"].values()] == [[0, 2], [1, 0]]
    assert [sum(bins) for bins in found["confidence"].values()] == [3, 1]


def test_mistakes_come_surest_first_and_wrong_labels_are_suspected():
    schema = LabelSchema(TaskDetail.BINARY, ("ham", "spam"))
    spam = np.array([0.9, 0.8, 0.85, 0.1, 0.2, 0.99, 0.45, 0.15])
    targets = np.eye(2, dtype=np.int8)[[1, 1, 1, 0, 0, 0, 1, 0]]  # row 6 is surely spam, whatever its label says
    texts = [f"text {n}" for n in range(8)]
    found = mistakes.mistakes("test", texts, np.stack([1 - spam, spam], axis=1), targets, schema)
    assert [(each["row"], each["likelyMislabelled"]) for each in found] == [(6, True), (7, False)]
    assert (found[0]["expected"], found[0]["predicted"], found[0]["margin"]) == (["ham"], ["spam"], pytest.approx(0.98))
    several = LabelSchema(TaskDetail.MULTILABEL, ("a", "b"))
    p, y = np.array([[0.9, 0.1], [0.8, 0.2], [0.95, 0.9]]), np.array([[1, 0], [1, 0], [0, 1]], dtype=np.int8)
    (only,) = mistakes.mistakes("test", texts[:3], p, y, several)
    assert (only["row"], only["expected"], only["predicted"], only["likelyMislabelled"]) == (3, ["b"], ["a", "b"], True)


@pytest.mark.parametrize(
    ("custom", "message"),
    [
        ({"name": "cost"}, "needs file"),
        ({"name": "accuracy", "file": "cost.py"}, "is the name of a built-in metric"),
        ({"name": "Cost", "file": "cost.py"}, "must be lower-case letters, digits and _"),
        ({"name": "cost", "file": "cost.py"}, "needs direction"),
    ],
)
def test_functions_that_cannot_be_are_refused_in_the_manifest(tmp_path, custom, message):
    spec = {"trainingDataset": "a", "baseModel": "b", "metrics": {"primary": "cost", "custom": [custom]}}
    (tmp_path / "job.yaml").write_text(json.dumps({"kind": "TrainingJob", "metadata": {"name": "j"}, "spec": spec}))
    with pytest.raises(ConfigError, match=message):
        load_job(tmp_path / "job.yaml")


def test_a_function_lies_beside_the_manifest(tmp_path):
    (tmp_path / "cost.py").write_text(COST)
    custom = {"name": "cost", "file": "cost.py"}
    spec = {"trainingDataset": "a", "baseModel": "b", "testSplit": {"percent": 20}, "metrics": {"custom": [custom]}}
    (tmp_path / "job.yaml").write_text(json.dumps({"kind": "TrainingJob", "metadata": {"name": "j"}, "spec": spec}))
    assert load_job(tmp_path / "job.yaml").spec.metrics.custom[0].file == str(tmp_path / "cost.py")
