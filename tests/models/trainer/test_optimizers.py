"""Optimizers against their formulas, and gradients that are computed again against those that were kept."""

import pytest
import torch
from bitsandbytes.optim.adamw import AdamW8bit, PagedAdamW8bit
from pydantic import ValidationError
from tiny_learner import ALL, learner
from torch.testing import assert_close

from winnow_classifier.errors import ConfigError
from winnow_trainer.job import Parameters
from winnow_trainer.optimizers import make_optimizer


def one_step(gradient, rate=0.1, **given):
    """A matrix of ones after a step."""
    weight = torch.nn.Parameter(torch.ones_like(gradient))
    optimizer = make_optimizer({"weight": weight}, Parameters.model_validate(given))
    optimizer.param_groups[0]["lr"] = rate
    weight.grad = gradient.clone()
    optimizer.step()
    return weight.detach()


def test_adamw_has_the_betas_and_the_epsilon_that_were_asked_for():
    gradient = torch.tensor([[1e-3, -2e-3]])
    # Bias correction makes the first step g / (|g| + epsilon), whatever the betas.
    assert_close(one_step(gradient, adamEpsilon=1e-3), 1 - 0.1 * gradient / (gradient.abs() + 1e-3))
    weight = torch.nn.Parameter(torch.ones(2))
    optimizer = make_optimizer({"w": weight}, Parameters.model_validate({"adamBeta1": 0.5, "adamBeta2": 0.75}))
    for value in (1.0, 3.0):
        optimizer.param_groups[0]["lr"] = 0.1
        weight.grad = torch.full((2,), value)
        optimizer.step()
    mean = (0.5 * 0.5 * 1 + 0.5 * 3) / (1 - 0.5**2)
    square = (0.75 * 0.25 * 1 + 0.25 * 9) / (1 - 0.75**2)
    assert_close(weight.detach(), torch.full((2,), 1 - 0.1 - 0.1 * mean / (square**0.5 + 1e-8)))


def test_adafactors_first_step_is_that_of_the_paper():
    """Shazeer and Stern 2018 (arXiv:1804.04235, algorithm 4): V = R C / mean(R), update g / sqrt(V), clipped at RMS 1."""
    gradient = torch.tensor([[1.0, 2.0, 3.0], [4.0, 0.5, 1.0]])
    squares = gradient**2 + 1e-30
    rows, columns = squares.mean(dim=1, keepdim=True), squares.mean(dim=0, keepdim=True)
    update = gradient / (rows * columns / rows.mean()).sqrt()
    update = update / update.square().mean().sqrt().clamp(min=1.0)
    assert_close(one_step(gradient, optim="adafactor"), 1 - 0.1 * update)


def test_adafactor_trains_the_whole_table(tmp_path):
    assert learner(tmp_path, optim="adafactor").table is None


@pytest.mark.parametrize("model_type", ["bert", "llama"])
def test_rows_are_learned_by_heart_with_adafactor(tmp_path, model_type):
    each = learner(tmp_path, "Full", model_type, optim="adafactor")
    each.targets = torch.eye(3)[torch.from_numpy(ALL % 2)]  # as the words say: spam or not
    each.learn()
    for _ in range(60):
        result = each.step(ALL, 0.01)
    assert float(result.losses.mean()) < 0.05


@pytest.mark.parametrize("model_type", ["bert", "roberta", "llama", "mistral"])
@pytest.mark.parametrize("method", ["Full", "LoRA"])
def test_states_that_are_computed_again_give_the_same_weights(tmp_path, method, model_type):
    """Dropout included: it draws the same masks again."""
    kept = learner(tmp_path, method, model_type, dropout=True)
    again = learner(tmp_path, method, model_type, dropout=True, gradient_checkpointing=True)
    layers = [module for module in again.model.modules() if getattr(module, "gradient_checkpointing", False)]
    assert len(layers) >= 2
    for each in (kept, again):
        torch.manual_seed(11)
        each.learn()
        for _ in range(3):
            each.step(ALL, 0.01)
        each.read()
    for name, weight in kept.trainable.items():
        assert_close(again.trainable[name], weight, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("optim", "wanted"), [("adamw_8bit", AdamW8bit), ("paged_adamw_8bit", PagedAdamW8bit)])
@pytest.mark.filterwarnings("ignore:Paged optimizers are not supported on CPU")  # there they stay where they are
def test_moments_of_eight_bits_are_those_of_bitsandbytes_paged_where_that_is_asked_for(optim, wanted):
    weight = torch.nn.Parameter(torch.ones(64, 64))
    given = {"optim": optim, "adamBeta1": 0.5, "adamBeta2": 0.75, "adamEpsilon": 1e-6}
    optimizer = make_optimizer({"weight": weight}, Parameters.model_validate(given))
    assert type(optimizer) is wanted
    assert {"betas": (0.5, 0.75), "eps": 1e-6}.items() <= optimizer.defaults.items()
    weight.grad = torch.ones_like(weight)
    optimizer.step()
    assert {optimizer.state[weight][moment].dtype for moment in ("state1", "state2")} == {torch.uint8}


def test_betas_need_adamw():
    with pytest.raises(ValidationError, match="adamBeta1 need an optim of AdamW"):
        Parameters.model_validate({"optim": "adafactor", "adamBeta1": 0.8})


def test_a_body_that_does_not_train_has_nothing_to_compute_again(trainer):
    with pytest.raises((ValidationError, ConfigError), match="needs a body that trains"):
        trainer.job("HeadOnly", gradientCheckpointing=True)
