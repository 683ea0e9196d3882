"""The training loss over the steps: equal spans, every row once, and old resume points."""

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from winnow_trainer import resume, step_losses
from winnow_trainer.resume import Position


@given(total=st.integers(1, 2_000), done=st.integers(1, 2_000), rows=st.integers(1, 7))
def test_each_step_counts_once_in_one_of_at_most_a_hundred_equal_spans(total, done, rows):
    done, sums = min(done, total), ()
    for step in range(1, done + 1):
        sums = step_losses.added(sums, step, total, step * rows, rows)
    points = step_losses.told(sums, done, total, 7)["points"]
    ends = [point["step"] for point in points]
    assert len(ends) <= 100
    assert ends[-1] == done
    begins = [1, *(end + 1 for end in ends[:-1])]
    assert [point["trainLoss"] for point in points] == pytest.approx(
        [(begin + end) / 2 for begin, end in zip(begins, ends, strict=True)]
    )
    lengths = {end + 1 - begin for begin, end in zip(begins, ends, strict=True)}
    whole = lengths if done == total else {end + 1 - begin for begin, end in zip(begins[:-1], ends[:-1], strict=True)}
    assert not whole or max(whole) - min(whole) <= 1


def test_a_resume_point_keeps_them_and_an_older_one_loads_without(tmp_path):
    sums = ((0.1 + 0.2, 4), (1 / 3, 4))
    resume.save(tmp_path, 2, Position(step=2, step_losses=sums), {"w": torch.ones(1)})
    assert resume.load(tmp_path)[0] == Position(step=2, step_losses=sums)
    point = tmp_path / "step-2" / "point.json"
    content = json.loads(point.read_text())
    del content["position"]["step_losses"]
    content["position"]["seconds"] = 0.0  # as older ones have it
    point.write_text(json.dumps(content))
    position, _ = resume.load(tmp_path)
    assert position == Position(step=2)
    later = step_losses.added(position.step_losses, 3, 4, 2.0, 4)
    assert step_losses.told(later, 3, 4, 2)["points"] == [{"step": 3, "trainLoss": 0.5}]
