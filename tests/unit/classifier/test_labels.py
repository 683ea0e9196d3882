"""Label schemas: names, probabilities, predicted labels."""

import math

import pytest
import torch

from winnow_classifier.errors import ConfigError
from winnow_classifier.labels import LabelSchema, TaskDetail, binary_labels

BINARY = LabelSchema(TaskDetail.BINARY, ("ham", "spam"))
MULTILABEL = LabelSchema(TaskDetail.MULTILABEL, ("a", "b", "c"))


def test_binary_probabilities_are_a_softmax_over_two():
    probabilities = BINARY.probabilities(torch.tensor([[0.0, math.log(3.0)]], dtype=torch.bfloat16))
    assert probabilities.dtype == torch.float32
    torch.testing.assert_close(probabilities, torch.tensor([[0.25, 0.75]]), rtol=0, atol=2e-3)  # bf16 logits
    assert BINARY.problem_type == "single_label_classification"


def test_multilabel_probabilities_are_a_sigmoid_each():
    logits = torch.tensor([[0.0, math.log(3.0), -math.log(3.0)]])
    torch.testing.assert_close(MULTILABEL.probabilities(logits), torch.tensor([[0.5, 0.75, 0.25]]))
    assert MULTILABEL.problem_type == "multi_label_classification"


def test_predicted_labels():
    assert BINARY.predicted([[0.4, 0.6], [0.5, 0.5]]) == [["spam"], ["ham"]]  # a tie goes to the first
    assert MULTILABEL.predicted(torch.tensor([[0.5, 0.9, 0.1], [0.4, 0.1, 0.2]])) == [["a", "b"], []]
    assert BINARY.predicted([]) == []


@pytest.mark.parametrize(
    ("detail", "labels", "message"),
    [
        pytest.param(TaskDetail.BINARY, ("a",), "two labels, the negative one first; found 1", id="Binary with one"),
        pytest.param(TaskDetail.MULTICLASS, ("a",), "at least two labels", id="Multiclass with one"),
        pytest.param(TaskDetail.MULTILABEL, (), "at least one label", id="none"),
        pytest.param(TaskDetail.MULTILABEL, ("a", "a"), "'a' is named twice", id="twice"),
        pytest.param(TaskDetail.MULTILABEL, ("a", " b"), "spaces around it", id="spaces"),
        pytest.param(TaskDetail.MULTILABEL, ("a", "b\tc"), "cannot be printed", id="a tab"),
        pytest.param(TaskDetail.MULTILABEL, ("a", "b\u200e"), "cannot be printed", id="a mark of direction"),
        pytest.param(TaskDetail.MULTILABEL, ("a", "\u200d"), "is empty", id="a joiner that joins nothing"),
        pytest.param(TaskDetail.MULTILABEL, ("a" * 129,), "129 characters; 128 are allowed", id="long"),
        pytest.param(TaskDetail.MULTILABEL, tuple(map(str, range(1_001))), "1,001 are named", id="too many"),
    ],
)
def test_schemas_that_cannot_be(detail, labels, message):
    with pytest.raises(ConfigError, match=message):
        LabelSchema(detail, labels)


@pytest.mark.parametrize("label", ["می\u200cخواهم", "👨\u200d👩\u200d👧"], ids=["Persian", "emoji"])
def test_labels_are_written_as_their_languages_are(label):
    assert LabelSchema(TaskDetail.MULTILABEL, (label, "a")).labels[0] == label


def test_binary_label_names():
    assert binary_labels(None) == ("0", "1")
    assert binary_labels(["spam"]) == ("not_spam", "spam")
    assert binary_labels(["ham", "spam"]) == ("ham", "spam")
    with pytest.raises(ConfigError, match="found 3"):
        binary_labels(["a", "b", "c"])
