"""Losses against torch's own modules, and against their formulas where torch has none. float32, CPU."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch.testing import assert_close

from winnow_classifier.errors import ConfigError
from winnow_classifier.labels import LabelSchema, TaskDetail
from winnow_trainer.job import Parameters
from winnow_trainer.losses import check_labels, label_weights, objective

CLASSES = LabelSchema(TaskDetail.MULTICLASS, ("a", "b", "c"))
LABELS = LabelSchema(TaskDetail.MULTILABEL, ("a", "b", "c"))
HELD = torch.tensor([0, 0, 0, 0, 0, 1, 1, 2])
ONE_HOT = torch.eye(3)[HELD]
MANY = torch.tensor([[1, 0, 0], [1, 1, 0], [0, 0, 0], [1, 0, 1], [0, 0, 0], [1, 1, 0], [0, 0, 0], [1, 0, 0]]).float()
LOGITS = torch.randn(8, 3, generator=torch.Generator().manual_seed(5))
CUSTOM = {"classWeights": {"mode": "Custom", "weights": {"b": 3, "c": 0.5}}}
WEIGHTS = torch.tensor([1.0, 3.0, 0.5])


def parameters(**given):
    return Parameters.model_validate(given)


def losses(given, schema):
    targets = ONE_HOT if schema is CLASSES else MANY
    return objective(parameters(**given), schema, targets.numpy().astype(np.int8))(LOGITS, targets)


@pytest.mark.parametrize(
    ("given", "torch_own"),
    [
        pytest.param({}, {}, id="plain"),
        pytest.param({"classWeights": {"mode": "None"}}, {}, id="no weights"),
        pytest.param({"loss": {"type": "Focal", "gamma": 0}}, {}, id="focal without focus"),
        pytest.param({"labelSmoothing": 0.1}, {"label_smoothing": 0.1}, id="smoothing"),
        pytest.param(CUSTOM, {"weight": WEIGHTS}, id="weights"),
        pytest.param(CUSTOM | {"labelSmoothing": 0.2}, {"weight": WEIGHTS, "label_smoothing": 0.2}, id="both"),
    ],
)
def test_over_all_rows_the_loss_of_classes_is_torchs_cross_entropy(given, torch_own):
    assert_close(losses(given, CLASSES).mean(), torch.nn.CrossEntropyLoss(**torch_own)(LOGITS, HELD))


@pytest.mark.parametrize(
    ("given", "pos_weight"), [pytest.param({}, None, id="plain"), pytest.param(CUSTOM, WEIGHTS, id="weights")]
)
def test_the_loss_of_labels_is_torchs_binary_cross_entropy(given, pos_weight):
    assert_close(losses(given, LABELS).mean(), torch.nn.BCEWithLogitsLoss(pos_weight=pos_weight)(LOGITS, MANY))


def test_smoothed_labels_are_moved_towards_one_half():
    expected = torch.nn.BCEWithLogitsLoss()(LOGITS, MANY * 0.8 + 0.1)
    assert_close(losses({"labelSmoothing": 0.2}, LABELS).mean(), expected)


@pytest.mark.parametrize(("gamma", "used"), [(None, 2.0), (1.5, 1.5)])
def test_the_focal_loss_is_that_of_the_paper(gamma, used):
    """FL(p) = -(1 - p)^γ log p, where p is the chance that is given to what is true (arXiv:1708.02002, equation 4)."""
    given = {"loss": {"type": "Focal"} if gamma is None else {"type": "Focal", "gamma": gamma}}
    chance = LOGITS.softmax(dim=1)[torch.arange(8), HELD]
    assert_close(losses(given, CLASSES), -((1 - chance) ** used) * chance.log())
    chances = torch.where(MANY > 0, LOGITS.sigmoid(), 1 - LOGITS.sigmoid())
    assert_close(losses(given, LABELS), (-((1 - chances) ** used) * chances.log()).mean(dim=1))


@pytest.mark.parametrize("schema", [CLASSES, LABELS], ids=["classes", "labels"])
def test_extreme_logits_give_finite_losses_and_gradients(schema):
    logits = (LOGITS * 1e4).requires_grad_()
    targets = ONE_HOT if schema is CLASSES else MANY
    focal = objective(parameters(loss={"type": "Focal", "gamma": 0.5}), schema, targets.numpy().astype(np.int8))
    focal(logits, targets).sum().backward()
    assert torch.isfinite(logits.grad).all()


def test_balanced_classes_are_scikit_learns():
    from sklearn.utils.class_weight import compute_class_weight

    found = label_weights(parameters(classWeights={"mode": "Balanced"}).class_weights, CLASSES, ONE_HOT.numpy())
    assert found == pytest.approx(compute_class_weight("balanced", classes=np.arange(3), y=HELD.numpy()))


def test_balanced_labels_weigh_as_much_with_as_without():
    """torch's advice for BCEWithLogitsLoss: pos_weight = negatives / positives."""
    targets = np.array([[1, 0, 1], [1, 0, 1], [0, 0, 1], [0, 1, 1], [0, 0, 1]], dtype=np.int8)
    found = label_weights(parameters(classWeights={"mode": "Balanced"}).class_weights, LABELS, targets)
    assert found.tolist() == [1.5, 4.0, 1.0]  # the last one is always there: nothing to balance


def test_a_class_without_rows_is_no_part_of_the_balance():
    found = label_weights(parameters(classWeights={"mode": "Balanced"}).class_weights, CLASSES, ONE_HOT.numpy()[:7])
    assert found[:2] == pytest.approx([7 / (2 * 5), 7 / (2 * 2)])


def test_weights_move_the_answer_as_far_as_they_say():
    """With one constant feature the best logits are those of the weighted shares of the labels."""
    weighted = objective(parameters(**CUSTOM), CLASSES, ONE_HOT.numpy().astype(np.int8))
    logits = torch.zeros(3, requires_grad=True)
    optimizer = torch.optim.LBFGS([logits], max_iter=100)

    def closure():
        optimizer.zero_grad()
        loss = weighted(logits.expand(8, 3), ONE_HOT).mean()
        loss.backward()
        return loss

    optimizer.step(closure)
    shares = WEIGHTS * torch.tensor([5.0, 2.0, 1.0])
    assert_close(logits.detach().softmax(dim=0), shares / shares.sum(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        pytest.param({"classWeights": {"weights": {"a": 2}}}, "weights need mode Custom", id="weights without Custom"),
        pytest.param({"classWeights": {"mode": "Custom"}}, "Custom needs weights", id="Custom without weights"),
        pytest.param({"loss": {"gamma": 2}}, "gamma needs type Focal", id="gamma without Focal"),
        pytest.param({"loss": {"type": "Focal"}, "labelSmoothing": 0.1}, "not defined for the Focal", id="both"),
    ],
)
def test_what_does_not_fit_is_refused(given, said):
    with pytest.raises(ValidationError, match=said):
        parameters(**given)


def test_a_weight_for_an_unknown_label_is_refused():
    wanted = parameters(classWeights={"mode": "Custom", "weights": {"d": 2}})
    with pytest.raises(ConfigError, match=r"d is no label of the training rows\. They have: a, b, c"):
        check_labels(wanted, CLASSES, np.eye(3, dtype=np.int8))


def test_a_weight_for_a_label_that_no_row_has_is_refused():
    wanted = parameters(classWeights={"mode": "Custom", "weights": {"a": 2, "c": 2}})
    with pytest.raises(
        ConfigError, match="none of the rows that train has the label c, so its weight would do nothing"
    ):
        check_labels(wanted, CLASSES, np.eye(3, dtype=np.int8)[:2])
