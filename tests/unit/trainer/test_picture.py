"""The picture of a profile: drawn for whatever labels and texts there are, without a word on the terminal."""

import logging
import struct

import numpy as np
import pytest
from rows_in_memory import profile

from winnow_classifier.labels import LabelSchema, TaskDetail
from winnow_trainer.picture import draw


def rows_of(labels, detail):
    schema = LabelSchema(detail, labels)
    width = len(labels)
    targets = np.eye(width, dtype=np.int8)[[n % width for n in range(max(100, width))]]
    if detail is TaskDetail.MULTILABEL:
        targets[::3, 0] = 1
        targets[1::7] = 0
    return schema, [f"text number {n}" for n in range(len(targets))], targets


@pytest.mark.parametrize(
    ("labels", "detail", "lengths"),
    [
        pytest.param(("ham", "spam"), TaskDetail.BINARY, [12], id="two"),
        pytest.param(tuple(f"intent {n}" for n in range(77)), TaskDetail.MULTICLASS, [1, 600, 40_000], id="77"),
        pytest.param(("only",), TaskDetail.MULTILABEL, None, id="one"),
        pytest.param(("joy", "anger", "grief"), TaskDetail.MULTILABEL, None, id="three that occur together"),
        pytest.param(
            tuple(f"標籤 العربية $x_{n}$ {'long ' * 20}x" for n in range(1_000)),
            TaskDetail.MULTILABEL,
            [0],
            id="a thousand, long, in other scripts",
        ),
    ],
)
def test_any_labels_can_be_drawn(labels, detail, lengths, caplog, recwarn):
    schema, texts, targets = rows_of(labels, detail)
    found = profile(schema, texts, targets, lengths and [lengths[n % len(lengths)] for n in range(len(texts))])
    caplog.set_level(logging.WARNING)
    content = draw(found, schema)
    assert content.startswith(b"\x89PNG")
    width, height = struct.unpack(">II", content[16:24])
    assert width == 1_200
    assert 300 < height < 2_500
    assert (caplog.text, len(recwarn)) == ("", 0)


def test_one_row_can_be_drawn():
    schema = LabelSchema(TaskDetail.BINARY, ("ham", "spam"))
    found = profile(schema, ["one"], np.array([[0, 1]], dtype=np.int8))
    assert draw(found, schema).startswith(b"\x89PNG")
