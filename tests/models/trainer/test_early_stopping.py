"""Early stopping: patience on the primary metric, the same after a restart."""

from __future__ import annotations

import pytest
import tiny_training

from winnow_trainer.early_stopping import EarlyStopping, stops_after
from winnow_trainer.job import TrainingJob


@pytest.mark.parametrize(
    ("values", "patience", "min_delta", "expected"),
    [
        pytest.param([0.5, 0.6, 0.7], 1, 0.0, None, id="better each time"),
        pytest.param([0.5, 0.6, 0.6], 1, 0.0, 3, id="equal is not better"),
        pytest.param([0.5, 0.4, 0.6, 0.5, 0.5], 2, 0.0, 5, id="what is better starts anew"),
        pytest.param([0.5, 0.505, 0.509], 2, 0.01, 3, id="a little is not enough"),
        pytest.param([0.5, 0.506, 0.512], 2, 0.01, None, id="counted from the best"),
        pytest.param([None, None, 0.5], 1, 0.0, None, id="undefined tells nothing"),
        pytest.param([0.5, 0.4, 0.9], 1, 0.0, 2, id="what would have come"),
    ],
)
def test_when_it_stops(values, patience, min_delta, expected):
    wanted = EarlyStopping(patience=patience, min_delta=min_delta)
    found = stops_after(enumerate(values, 1), wanted, higher_is_better=True)
    assert found == expected
    lower = [None if value is None else -value for value in values]
    assert stops_after(enumerate(lower, 1), wanted, higher_is_better=False) == expected


def job(trainer: tiny_training.Trainer, patience: int = 2) -> TrainingJob:
    found = trainer.job(rows=40, numTrainEpochs=6).spec.model_dump(by_alias=True, exclude_none=True)
    # No epoch is better by more than 1: it ends after the first and `patience` more.
    found |= {"validationSplit": {"percent": 30}, "earlyStopping": {"patience": patience, "minDelta": 1}}
    return TrainingJob.model_validate({"kind": "TrainingJob", "metadata": {"name": "spam-v1"}, "spec": found})


def test_on_test_rows_where_there_are_no_others(tmp_path):
    trainer = tiny_training.Trainer(tmp_path)
    spec = job(trainer, 1).spec.model_dump(by_alias=True, exclude_none=True)
    del spec["validationSplit"]
    manifest = {"kind": "TrainingJob", "metadata": {"name": "spam-v1"}, "spec": spec}
    told = trainer.run(TrainingJob.model_validate(manifest))
    assert "on the test rows, since there are no validation rows, did not" in told["message"]
    with pytest.raises(ValueError, match="earlyStopping needs validation or test rows"):
        TrainingJob.model_validate({**manifest, "spec": {k: v for k, v in spec.items() if k != "testDataset"}})
