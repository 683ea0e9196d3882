"""Learning rates and the order of rows."""

import math

import numpy as np
import pytest
import torch
from transformers import get_scheduler

from winnow_trainer.schedule import learning_rate
from winnow_trainer.steps import count_steps, steps_of_epoch


@pytest.mark.parametrize("kind", ["linear", "cosine", "constant", "constant_with_warmup", "polynomial"])
@pytest.mark.parametrize("warmup_ratio", [0.0, 0.03, 0.5])
def test_each_schedule_is_the_one_that_transformers_has_by_that_name(kind, warmup_ratio):
    total, peak = 47, 3e-4
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=peak)
    # The Trainer has no use for warm-up with `constant` either.
    warmup = math.ceil(warmup_ratio * total)
    scheduler = get_scheduler(kind, optimizer, num_warmup_steps=warmup, num_training_steps=total)
    for step in range(total):
        ours = learning_rate(kind, peak, warmup_ratio, step, total)
        assert ours == pytest.approx(scheduler.get_last_lr()[0], rel=1e-6, abs=1e-12)
        optimizer.step()
        scheduler.step()


@pytest.mark.parametrize("kind", ["linear", "cosine", "constant", "constant_with_warmup", "polynomial"])
def test_the_only_step_of_a_run_is_one_that_learns(kind):
    assert learning_rate(kind, 3e-4, 0.03, 0, 1) == pytest.approx(3e-4)


def test_a_polynomial_never_rises_above_its_peak():
    peak = 1e-9
    rates = [learning_rate("polynomial", peak, 0.0, step, 10) for step in range(11)]
    assert max(rates) <= peak * (1 + 1e-9)


def test_an_epoch_sees_every_row_once_in_an_order_of_seed_and_epoch():
    first, again = steps_of_epoch(22, 4, seed=5, epoch=1), steps_of_epoch(22, 4, seed=5, epoch=1)
    assert [len(step) for step in first] == [4, 4, 4, 4, 4, 2]
    assert sorted(np.concatenate(first)) == list(range(22))
    assert all(map(np.array_equal, first, again))
    for other in (steps_of_epoch(22, 4, seed=5, epoch=2), steps_of_epoch(22, 4, seed=6, epoch=1)):
        assert not np.array_equal(np.concatenate(other), np.concatenate(first))
    assert count_steps(22, 4) == len(first)


def test_rows_that_fill_the_last_step_leave_no_empty_one():
    assert [len(step) for step in steps_of_epoch(8, 4, seed=0, epoch=1)] == [4, 4]
    assert [len(step) for step in steps_of_epoch(3, 4, seed=0, epoch=1)] == [3]
