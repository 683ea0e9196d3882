"""Rows of the test set to try: a varied few, mistakes among them, bounded, and for those only who may classify."""

import json

import pytest
import tiny_server

from winnow_classifier.files import PREDICTIONS
from winnow_server import examples
from winnow_server.examples import Example


def line(text, expected, predicted=None):
    labels = {label: int(label == expected) for label in ("ham", "spam")}
    return json.dumps({"input": text, "expected": labels, "predicted": [predicted or expected], "scores": {}})


ROWS = "\n".join(
    [
        *(line(f"meeting {number}", "ham") for number in range(30)),
        line("free lunch", "ham", "spam"),
        *(line(f"prize {number}", "spam") for number in range(30)),
        line("x" * 3_000, "spam", "ham"),
        line("your budget review", "spam", "ham"),
    ]
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_server.publish(tmp_path_factory.mktemp("rows"), artifacts={"predictions.jsonl": ROWS.encode()})


def test_a_few_rows_of_each_label_with_the_mistakes(folder):
    with tiny_server.running(folder) as server:
        shown = server.client.get("/v1/examples").json()["examples"]
    assert len(shown) == 24
    assert sum(one["expected"] == ["spam"] for one in shown) == 12
    assert {one["text"] for one in shown if not one["correct"]} == {"free lunch", "your budget review"}
    assert all(len(one["text"]) <= 2_000 for one in shown)


def test_they_can_be_hidden_and_need_a_key_where_keys_are_needed(folder, tmp_path):
    with tiny_server.running(folder, show_examples=False) as server:
        assert server.client.get("/v1/examples").json() == {"examples": []}
    (tmp_path / "alice").write_text("a-key-of-some-length")
    with tiny_server.running(folder, api_keys=tmp_path) as server:
        assert server.client.get("/v1/examples").status_code == 401
        assert server.client.get("/v1/examples", headers={"x-api-key": "a-key-of-some-length"}).json()["examples"]


def test_a_checkpoint_without_test_rows_has_none(server):
    assert server.client.get("/v1/examples").json() == {"examples": []}


@pytest.mark.parametrize(
    ("content", "count"),
    [
        pytest.param(b"", 0, id="empty"),
        pytest.param(b"{}\n", 0, id="another form"),
        pytest.param(b"\xff\xfe", 0, id="not text"),
        pytest.param(line("a", "ham").encode(), 1, id="no line end"),
    ],
)
def test_a_file_of_another_form_has_none(tmp_path, content, count):
    (tmp_path / PREDICTIONS).write_bytes(content)
    assert len(examples.read(tmp_path)) == count


def test_of_a_large_file_the_beginning_is_read(tmp_path, monkeypatch):
    (tmp_path / PREDICTIONS).write_text("".join(line(f"row {number}", "ham") + "\n" for number in range(100)))
    monkeypatch.setattr(examples, "READ_BYTES", 1_000)
    assert 5 <= len(examples.read(tmp_path)) < 20


def test_judged_texts_come_from_all_of_the_rows_within_bounds():
    rows = [Example(text=f"row {n}", expected=["a"], predicted=["a"], correct=True) for n in range(10_000)]
    texts = examples.to_judge(rows)
    assert len(texts) == 256
    assert texts[-1] > "row 9"
    long = [one.model_copy(update={"text": "x" * 1_000}) for one in rows]
    assert sum(map(len, examples.to_judge(long))) <= 32_768
