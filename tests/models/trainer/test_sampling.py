"""Which rows train: parts and counts by label, the same for the same seed."""

from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError
from tiny_training import stop_after

from winnow_classifier import checkpoint
from winnow_classifier.dataset import StoredDataset
from winnow_classifier.errors import ConfigError
from winnow_classifier.labels import LabelSchema, TaskDetail
from winnow_trainer.data import Data
from winnow_trainer.job import Rebalance, TrainingJob
from winnow_trainer.sampling import sample

BINARY = LabelSchema(TaskDetail.BINARY, ("ham", "spam"))


def data(ham=80, spam=20, task=TaskDetail.BINARY, distinct=None) -> Data:
    count = ham + spam
    targets = np.eye(2, dtype=np.int8)[[0] * ham + [1] * spam]
    texts = [f"text {row % (distinct or count)}" for row in range(count)]
    schema = LabelSchema(task, ("ham", "spam"))
    return Data(StoredDataset(schema, texts, targets, "sha256:0", Path("rows")), None, None)


def counts(sampled):
    chosen, rows = sampled
    return chosen.train.targets[rows].sum(axis=0).tolist()


def rebalance(**given) -> Rebalance:
    return Rebalance.model_validate(given)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        pytest.param({"counts": {"ham": 20}}, [20, 20], id="fewer of one"),
        pytest.param({"counts": {"spam": 50}}, [80, 50], id="more of one"),
        pytest.param({"counts": {"ham": 10, "spam": 45}}, [10, 45], id="both"),
        pytest.param({"ratios": {"ham": 1, "spam": 1}}, [50, 50], id="equal parts"),
        pytest.param({"ratios": {"ham": 0.7, "spam": 0.3}}, [70, 30], id="parts of one"),
        pytest.param({"ratios": {"ham": 2, "spam": 1}}, [67, 33], id="parts that do not divide"),
        pytest.param({"ratios": {"ham": 1_000_000, "spam": 1}}, [100, 1], id="at least one row"),
    ],
)
def test_labels_get_as_many_rows_as_asked_for(given, expected):
    assert counts(sample(data(), None, rebalance(**given), 0)) == expected


def test_labels_get_their_rows_from_the_part_that_downsampling_leaves():
    assert counts(sample(data(), 50, rebalance(counts={"ham": 11, "spam": 30}), 0)) == [11, 30]


def test_rows_repeat_evenly_and_none_is_left_out_where_more_are_wanted_than_there_are():
    chosen, rows = sample(data(), None, rebalance(counts={"spam": 50}), 0)
    repeats = np.bincount(rows)[chosen.train.targets[:, 1] == 1]
    assert (len(repeats), repeats.min(), repeats.max()) == (20, 2, 3)


def test_a_part_keeps_the_shares_of_the_labels():
    assert counts(sample(data(), 25, None, 0)) == [20, 5]
    assert counts(sample(data(), 100, None, 0)) == [80, 20]


def test_equal_texts_stay_together_in_a_part():
    whole = data(distinct=10)
    chosen, _ = sample(whole, 50, None, 3)
    for text in set(chosen.train.texts):
        assert chosen.train.texts.count(text) == whole.train.texts.count(text)
    assert 0 < len(chosen.train.texts) < 100


def test_a_part_never_loses_a_label():
    assert min(counts(sample(data(ham=200, spam=2), 1, None, 0))) >= 1


def test_the_seed_decides():
    def texts(seed):
        chosen, rows = sample(data(), 50, rebalance(counts={"ham": 11, "spam": 30}), seed)
        return [chosen.train.texts[row] for row in rows]

    assert texts(1) == texts(1)
    assert texts(1) != texts(2)


@pytest.mark.parametrize(
    ("rows", "given", "said"),
    [
        pytest.param(data(), {"counts": {"eggs": 1}}, "eggs is no label of the training rows", id="unknown label"),
        pytest.param(data(spam=0), {"counts": {"spam": 5}}, "there are no rows of spam", id="no rows"),
        pytest.param(
            data(task=TaskDetail.MULTILABEL), {"counts": {"ham": 5}}, "Use parameters.classWeights", id="many"
        ),
    ],
)
def test_what_cannot_be_balanced_is_refused_in_words(rows, given, said):
    with pytest.raises(ConfigError, match=said):
        sample(rows, None, rebalance(**given), 0)


@pytest.mark.parametrize("given", [{}, {"counts": {"a": 1}, "ratios": {"a": 1, "b": 1}}, {"ratios": {"a": 1}}])
def test_counts_or_ratios_of_two_labels_or_more(given):
    with pytest.raises(ValidationError, match="rebalance"):
        rebalance(**given)


def balanced_job(trainer, **fields) -> TrainingJob:
    job = trainer.job(rows=40, downsamplePercent=50).model_dump(mode="json", by_alias=True, exclude_none=True)
    job["spec"] |= {"rebalance": {"counts": {"ham": 5, "spam": 12}}} | fields
    return TrainingJob.model_validate(job)


def test_a_run_tells_how_many_rows_train_and_goes_on_with_the_same(trainer):
    job = balanced_job(trainer)
    stopped = trainer.run(job, stop_after(trainer.progress, 3))
    assert (stopped["state"], stopped["trainingRows"]) == ("Stopped", 17)
    told = trainer.run(job)
    assert (told["state"], told["trainingRows"]) == ("Complete", 17)
    assert trainer.progress.snapshot()["totalSteps"] == 2 * 5  # 17 rows in steps of 4
    manifest = checkpoint.inspect(trainer.checkpoint(2)).manifest
    assert (manifest.training_dataset.rows, manifest.rebalance) == (17, {"counts": {"ham": 5, "spam": 12}})
    other = balanced_job(trainer, rebalance={"counts": {"ham": 6}})
    with pytest.raises(ConfigError, match="rebalance"):
        trainer.run(other)


def test_test_rows_are_taken_before_any_row_is_repeated(trainer):
    told = trainer.run(balanced_job(trainer, testSplit={"percent": 20}, testDataset=None))
    assert (told["trainingRows"], told["testRows"], told["overlap"]) == (17, 8, 0)
