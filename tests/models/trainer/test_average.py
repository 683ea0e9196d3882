"""Averaged weights: what is evaluated and saved, while the training goes on with its own."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_learner import ALL, learner
from tiny_training import Trainer, weights
from torch.testing import assert_close

from winnow_trainer.average import WeightAverage
from winnow_trainer.resume_writer import copy


def now(made):
    return {name: weight.detach().clone() for name, weight in made.trainable.items()}


@settings(deadline=None, max_examples=50)
@given(decay=st.floats(0.01, 0.9999), steps=st.integers(1, 40), looks=st.sets(st.integers(0, 39)))
def test_it_is_the_moving_average_whose_decay_grows_with_the_steps(decay, steps, looks):
    random = np.random.default_rng(0)
    weight = torch.nn.Parameter(torch.zeros(3))
    average = WeightAverage({"w": weight}, decay)
    expected = None
    for step in range(steps):
        value = random.normal(size=3)
        with torch.no_grad():
            weight.copy_(torch.tensor(value))
        average.update()
        count = step + 1
        kept = 0.0 if expected is None else min(decay, (1 + count) / (10 + count))
        expected = value if expected is None else kept * expected + (1 - kept) * value
        if step in looks:
            average.show()
            assert_close(weight.detach(), torch.tensor(expected).float(), rtol=1e-5, atol=1e-6)
            average.hide()
        assert_close(weight.detach(), torch.tensor(value).float(), rtol=0, atol=0)


@pytest.mark.parametrize("method", ["Full", "LoRA", "HeadOnly"])
def test_the_steps_are_the_same_to_the_bit_and_the_model_that_is_read_is_the_average(tmp_path, method):
    plain, averaged = (learner(tmp_path, method, dropout=True, ema_decay=decay) for decay in (None, 0.5))
    seen = []
    for made in (plain, averaged):
        torch.manual_seed(1)
        made.learn()
        for step in range(6):
            made.step(ALL, 0.01)
            if step == 2:  # as at the end of an epoch
                made.read()
                made.predict(made.examples)
                made.learn()
            if made is averaged:
                seen.append(now(made))
    for name, weight in now(plain).items():
        assert torch.equal(seen[-1][name], weight), name
    expected = seen[0]
    for count, each in enumerate(seen[1:], start=2):
        part = 1 - min(0.5, (1 + count) / (10 + count))
        expected = {name: torch.lerp(expected[name], weight, part) for name, weight in each.items()}
    averaged.read()
    for name, weight in now(averaged).items():
        assert_close(weight, expected[name], rtol=1e-5, atol=1e-7)
        assert not torch.equal(weight, seen[-1][name]) or not seen[-1][name].any() or "lora_A" in name, name
    if averaged.table is not None:  # the whole table has them too
        rows = averaged.model.body.get_input_embeddings().weight[averaged.table.occurring]
        assert torch.equal(rows, averaged.table.stand_in.rows)
    shown = averaged.predict(averaged.examples)
    averaged.read()  # again: nothing changes
    assert torch.equal(averaged.predict(averaged.examples), shown)


def test_what_a_resume_point_holds_is_the_same_while_the_average_is_read(tmp_path):
    made = learner(tmp_path, ema_decay=0.9)
    made.learn()
    made.step(ALL, 0.01)
    made.step(ALL, 0.01)
    learning = copy(made.state())
    made.read()
    reading = copy(made.state())
    for part in ("trainable", "average"):
        ours, theirs = (state[part].get("weights", state[part]) for state in (learning, reading))
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    again = learner(tmp_path, ema_decay=0.9)
    again.load_state(reading)
    assert torch.equal(again.predict(again.examples), made.predict(made.examples))
    for each in (made, again):
        each.load_random(learning["random"])
        each.learn()
        each.step(ALL, 0.01)
        each.read()
    assert torch.equal(again.predict(again.examples), made.predict(made.examples))


@pytest.mark.parametrize("method", ["Full", "LoRA", "HeadOnly"])
def test_a_job_publishes_the_average_and_tells_the_losses_of_its_steps(tmp_path, method):
    trainer = Trainer(tmp_path)
    plain = trainer.run(trainer.job(method))
    averaged = trainer.run(trainer.job(method, name="averaged", emaDecay=0.999))
    assert [epoch["trainLoss"] for epoch in averaged["epochs"]] == [epoch["trainLoss"] for epoch in plain["epochs"]]
    ours, theirs = (weights(trainer.checkpoint(2, name)) for name in ("averaged", "spam-v1"))
    assert ours.keys() == theirs.keys()
    assert any(not torch.equal(ours[name], weight) for name, weight in theirs.items())
    none = trainer.run(trainer.job(method, name="none", emaDecay=0))
    assert none["epochs"][1]["metrics"] == plain["epochs"][1]["metrics"]
    assert all(torch.equal(weight, theirs[name]) for name, weight in weights(trainer.checkpoint(2, "none")).items())
