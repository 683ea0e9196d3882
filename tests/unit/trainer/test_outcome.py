"""Which checkpoint is the best, and when a training will be done."""

import pytest
from tiny_checkpoint import manifest

from winnow_classifier.checkpoint import Published
from winnow_trainer.early_stopping import EarlyStopping
from winnow_trainer.outcome import best, ending, history, message
from winnow_trainer.pace import Pace


def published(*values, metric="f1", validation=()):
    return [
        Published(
            manifest(
                name=f"epoch-{epoch}",
                epoch=epoch,
                metrics={metric: value},
                validation_metrics={metric: validation[epoch - 1]} if validation else {},
                train_loss=0.123456789,
            ),
            digest=f"sha256:{epoch}",
            size_bytes=epoch,
        )
        for epoch, value in enumerate(values, start=1)
    ]


@pytest.mark.parametrize(
    ("values", "metric", "expected"),
    [
        pytest.param([0.8, 0.9, 0.7], "f1", "epoch-2", id="the highest"),
        pytest.param([0.3, 0.1, 0.2], "log_loss", "epoch-2", id="the lowest where less is better"),
        pytest.param([0.9, 0.9, 0.8], "f1", "epoch-1", id="ties go to the earlier"),
        pytest.param([0.1, 0.1], "log_loss", "epoch-1", id="ties of losses too"),
        pytest.param([None, 0.2, None], "f1", "epoch-2", id="a value beats none"),
        pytest.param([None, None], "f1", "epoch-2", id="no value at all: the last"),
    ],
)
def test_the_best_checkpoint_is_chosen_by_the_primary_metric(values, metric, expected):
    assert best(published(*values, metric=metric), metric, "Test").manifest.name == expected


def test_validation_rows_choose_whatever_the_test_rows_say():
    epochs = published(0.9, 0.5, 0.8, validation=[0.6, 0.7, 0.65])
    assert best(epochs, "f1", "Validation").manifest.name == "epoch-2"
    told = history(epochs, "f1", "Validation")
    assert (told["selectedOn"], told["bestCheckpoint"]) == ("Validation", "epoch-2")
    assert (told["epochs"][1]["metrics"], told["epochs"][1]["validationMetrics"]) == ({"f1": 0.5}, {"f1": 0.7})
    words = "epoch-2 is the best of 3: f1 0.7000 on the validation rows, 0.5000 on the test rows"
    assert message(epochs, "f1", "Validation") == words


def test_a_metric_that_the_validation_rows_do_not_define_is_not_taken_from_the_test_rows():
    epochs = published(0.9, 0.5, validation=[None, None])
    assert best(epochs, "f1", "Validation").manifest.name == "epoch-2"
    assert "f1 is undefined on these validation rows" in message(epochs, "f1", "Validation")


def test_metrics_are_rounded_in_status_only():
    told = history(published(0.123456789), "f1", "Test")
    assert told["epochs"] == [{"epoch": 1, "checkpoint": "epoch-1", "trainLoss": 0.123457, "metrics": {"f1": 0.123457}}]
    assert told["checkpoints"] == [{"name": "epoch-1", "epoch": 1, "digest": "sha256:1", "sizeBytes": 1}]


def test_the_final_word_says_what_was_chosen_and_why():
    assert message(published(0.5, 0.75), "f1", "Test") == "epoch-2 is the best of 2: f1 0.7500 on the test rows"
    assert "f1 is undefined on these test rows" in message(published(None), "f1", "Test")
    assert "there are no test or validation rows" in message(published(0.5), None, None)


def test_a_run_that_stopped_early_says_so_and_one_that_had_all_its_epochs_does_not():
    epochs, wanted = published(0.7, 0.6, 0.6), EarlyStopping(patience=2)
    told = ending(epochs, wanted, "f1", "Test", planned_epochs=5)
    assert told["reason"] == "StoppedEarly"
    assert told["message"].startswith(
        "Stopped early after epoch 3 of 5: f1 on the test rows, since there are no validation rows, did not get better "
        "by more than 0 for 2 epochs. epoch-1 is the best of 3"
    )
    assert ending(epochs, wanted, "f1", "Test", planned_epochs=3)["reason"] == "Trained"
    assert ending(epochs, None, "f1", "Test", planned_epochs=5)["reason"] == "Trained"
    assert ending(published(0.5), wanted, None, None, planned_epochs=1)["reason"] == "Trained"


def test_nothing_published_has_no_best():
    assert history([], "f1", "Test")["bestCheckpoint"] is None


def test_the_eta_counts_steps_and_evaluations_to_come():
    pace = Pace(steps_left=10, evaluations_left=2)
    assert pace.eta_seconds is None
    for _ in range(4):
        pace.step(seconds=2.0, tokens=100)
    assert (pace.eta_seconds, pace.tokens_per_second) == (12, 50)
    pace.evaluation(seconds=5.0)
    assert pace.eta_seconds == 17


def test_the_eta_follows_a_device_that_gets_slower_and_not_one_odd_step():
    pace = Pace(steps_left=1_000, evaluations_left=0)
    for _ in range(50):
        pace.step(seconds=2.0, tokens=100)
    pace.step(seconds=12.0, tokens=100)
    assert (pace.seconds_per_step, pace.tokens_per_second) == (pytest.approx(3), pytest.approx(50, rel=0.1))
    for _ in range(50):
        pace.step(seconds=4.0, tokens=100)
    assert (pace.seconds_per_step, pace.tokens_per_second) == (pytest.approx(4, rel=0.01), pytest.approx(25, rel=0.01))
    assert pace.eta_seconds == pytest.approx(899 * 4, rel=0.01)
