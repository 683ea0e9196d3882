"""A head that starts from ridge regression: the numbers of scikit-learn, a better first loss, the same bits after a resume."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from sklearn.linear_model import Ridge, RidgeCV
from tiny_learner import ALL, learner
from torch.testing import assert_close

from winnow_trainer import head_start
from winnow_trainer.head_start import dropped, fit_ridge, fit_scale, into_last_layer, sample
from winnow_trainer.job import Parameters


def rows(count=60, width=12, labels=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(count, width, generator=generator, dtype=torch.float64) + 0.5
    truth = torch.randn(width, labels, generator=generator, dtype=torch.float64)
    noise = torch.randn(count, labels, generator=generator, dtype=torch.float64)
    return features, torch.eye(labels, dtype=torch.float64)[(features @ truth + noise).argmax(dim=1)]


@pytest.mark.parametrize("width", [12, 100], ids=["more rows than features", "more features than rows"])
@pytest.mark.parametrize("intercept", [True, False])
def test_the_regression_is_scikit_learns(width, intercept):
    features, targets = rows(width=width)
    found = fit_ridge(features, targets, intercept)
    theirs = Ridge(alpha=found.strength, fit_intercept=intercept).fit(features.numpy(), targets.numpy())
    assert found.weight.numpy() == pytest.approx(theirs.coef_, rel=1e-6, abs=1e-9)
    assert found.bias.numpy() == pytest.approx(np.broadcast_to(theirs.intercept_, 3), rel=1e-6, abs=1e-9)


def test_dropout_is_a_penalty_of_each_weight_by_the_squares_of_its_feature():
    features, targets = rows()
    found = fit_ridge(features, targets, intercept=True, drop=0.2)
    penalty = (features.square().sum(dim=0) * 0.2 / 0.8 + found.strength).sqrt()
    theirs = Ridge(alpha=1.0).fit((features / penalty).numpy(), targets.numpy())
    assert found.weight.numpy() == pytest.approx(theirs.coef_ / penalty.numpy(), rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("intercept", [True, False])
def test_the_strength_is_the_one_that_scikit_learn_finds_by_leaving_rows_out(intercept):
    features, targets = rows()
    found = fit_ridge(features, targets, intercept)
    shape = features - features.mean(dim=0) if intercept else features
    strengths = head_start.STRENGTHS * float(torch.linalg.svdvals(shape).max() ** 2)
    theirs = RidgeCV(alphas=strengths, fit_intercept=intercept).fit(features.numpy(), targets.numpy())
    assert found.strength == pytest.approx(theirs.alpha_)


def test_a_left_out_row_is_answered_by_the_others_alone():
    features, targets = rows(count=20)
    found = fit_ridge(features, targets, intercept=True)
    for row in (0, 7, 19):
        others = [other for other in range(20) if other != row]
        model = Ridge(alpha=found.strength).fit(features[others].numpy(), targets[others].numpy())
        assert found.left_out[row].numpy() == pytest.approx(model.predict(features[[row]].numpy())[0], abs=1e-8)


def test_the_scale_stays_finite_where_no_row_is_mistaken():
    scores = torch.eye(2, dtype=torch.float64).repeat(10, 1)
    scale, shift = fit_scale(
        scores, scores.float(), lambda z, y: torch.nn.functional.cross_entropy(z, y, reduction="none"), True
    )
    assert 1 < float(scale) < 100
    assert torch.isfinite(shift).all()


@pytest.mark.parametrize("model_type", ["bert", "roberta", "llama"])
@pytest.mark.parametrize("method", ["Full", "LoRA", "HeadOnly"])
def test_the_first_loss_is_better_than_that_of_a_random_head(tmp_path, method, model_type):
    losses = {}
    for start in ("Random", "Ridge"):
        each = learner(tmp_path, method, model_type, head_init=start)
        each.targets = torch.eye(3)[torch.from_numpy(ALL % 2)]  # as the words say: spam or not
        each.start_head(ALL)
        with torch.no_grad():
            losses[start] = float(each.objective(each.logits(ALL), each.targets).mean())
    assert losses["Ridge"] < losses["Random"] - 0.05


@pytest.mark.parametrize("method", ["Full", "HeadOnly"])
def test_of_many_rows_those_that_are_sampled_come_with_their_own_labels(tmp_path, monkeypatch, method):
    rows = np.arange(80)
    targets = np.eye(3, dtype=np.int8)[rows % 2]  # as the words say: spam or not
    monkeypatch.setattr(head_start, "SAMPLE_ROWS", 40)
    each = learner(tmp_path, method, targets=targets, head_init="Ridge")
    each.start_head(rows)
    with torch.no_grad():
        loss = float(each.objective(each.logits(rows), each.targets).mean())
    assert loss < 0.5  # by labels of other rows: log 2


@pytest.mark.parametrize("model_type", ["bert", "roberta"])
def test_rows_that_hardly_differ_get_no_head_that_dropout_destroys(tmp_path, model_type):
    each = learner(tmp_path, "HeadOnly", model_type, dropout=True, head_init="Ridge")
    each.targets = torch.eye(3)[torch.from_numpy(ALL % 2)]
    common = each.features.mean(dim=0)
    each.features = common + 1e-3 * (each.features - common)
    each.start_head(ALL)
    with torch.no_grad():
        each.learn()
        loss = float(torch.stack([each.objective(each.logits(ALL), each.targets).mean() for _ in range(20)]).mean())
    assert loss < 1.0  # as good as knowing how often each label occurs, which is log 2


def test_what_dropout_adds_to_scores_is_that_of_torch_in_mean_and_spread():
    """Each input is 0 or 1 / (1 - p) of itself, so the mean of what is added is 0 and its variance p / (1 - p) Σ (w x)²."""
    inputs, weight = torch.tensor([[1.0, -2.0, 3.0]]).double(), torch.tensor([[0.5, 1.0, 2.0]]).double()
    added = torch.cat(list(dropped(inputs, weight, 0.2)))
    spread = float((0.25 * (inputs * weight).square().sum()).sqrt())
    assert abs(float(added.mean())) < 4 * spread / len(added) ** 0.5
    assert float(added.std()) == pytest.approx(spread, rel=0.05)


@pytest.mark.parametrize(("model_type", "drop"), [("bert", 0.1), ("roberta", 0.1), ("llama", 0.0)])
def test_the_chance_of_dropout_is_that_before_the_last_layer(tmp_path, model_type, drop):
    each = learner(tmp_path, "HeadOnly", model_type, dropout=True)
    assert into_last_layer(each.model, each.features)[2] == drop


def test_the_last_layer_of_an_adapter_is_the_one_that_trains(tmp_path):
    each = learner(tmp_path, "LoRA", "bert", head_init="Ridge")
    layer, inputs, _ = into_last_layer(each.model, each.run(each.model.features, each.examples, "features"))
    assert any(parameter is layer.weight for parameter in each.trainable.values())
    assert_close(layer(inputs), each.predict(each.examples))


def test_a_repeated_row_is_met_once_and_many_are_sampled_by_seed(monkeypatch):
    assert sample(np.array([3, 1, 1, 3]), 0).tolist() == [1, 3]
    monkeypatch.setattr(head_start, "SAMPLE_ROWS", 5)
    chosen = sample(np.arange(50), 1)
    assert len(set(chosen.tolist())) == 5
    assert chosen.tolist() == sample(np.arange(50), 1).tolist() != sample(np.arange(50), 2).tolist()


def test_another_start_is_refused():
    with pytest.raises(ValidationError, match="'Random' or 'Ridge'"):
        Parameters.model_validate({"headInit": "Zero"})
