"""Stored datasets: one digest for the same rows, stored once and whole, verified when loaded."""

import errno
import hashlib
import json
import os
import threading

import numpy as np
import orjson
import pyarrow.parquet as pq
import pytest
from rows_in_memory import store_dataset

from winnow_classifier import dataset as module
from winnow_classifier.dataset import load_dataset, targets_in_schema
from winnow_classifier.errors import ConfigError, DataError, StorageError, StorageFull
from winnow_classifier.labels import LabelSchema, TaskDetail

SPAM = LabelSchema(TaskDetail.BINARY, ("ham", "spam"))
TEXTS = ["hello", "grüße\r\n\u2028two", "win"]
TARGETS = np.array([[1, 0], [1, 0], [0, 1]], dtype=np.int8)


def one_hot(*columns, width):
    return np.eye(width, dtype=np.int8)[list(columns)]


@pytest.fixture
def stored(tmp_path):
    return store_dataset(tmp_path, SPAM, TEXTS, TARGETS)


def test_a_stored_dataset_comes_back_equal(stored):
    loaded = load_dataset(stored.path)
    assert loaded.texts == ["hello", "grüße\n\u2028two", "win"]
    assert loaded.targets.tolist() == TARGETS.tolist()
    assert loaded.targets.dtype == np.int8
    assert (loaded.schema, loaded.digest, loaded.path) == (SPAM, stored.digest, stored.path)


def test_the_digest_is_that_of_the_canonical_form(stored):
    lines = [
        '["hello",["ham"]]',
        '["grüße\\n\u2028two",["ham"]]',
        '["win",["spam"]]',
        '{"labels":["ham","spam"],"taskDetail":"Binary"}',
    ]
    expected = hashlib.sha256("".join(f"{line}\n" for line in lines).encode()).hexdigest()
    assert stored.digest == f"sha256:{expected}"
    assert stored.path.name == expected


def test_what_stands_in_the_folder(stored):
    assert sorted(path.name for path in stored.path.iterdir()) == ["dataset.json", "rows.parquet"]
    described = json.loads((stored.path / "dataset.json").read_bytes())
    assert described == {
        "formatVersion": 2,
        "digest": stored.digest,
        "taskDetail": "Binary",
        "labels": ["ham", "spam"],
        "rows": 3,
        "positives": {"ham": 2, "spam": 1},
        "rowsSha256": hashlib.sha256((stored.path / "rows.parquet").read_bytes()).hexdigest(),
    }
    table = pq.read_table(stored.path / "rows.parquet")
    assert [(field.name, str(field.type)) for field in table.schema] == [
        ("text", "string"),
        ("labels", "list<element: string>"),
    ]


def test_storing_the_same_rows_again_touches_nothing(stored, tmp_path):
    before = (stored.path / "rows.parquet").stat()
    again = store_dataset(tmp_path, SPAM, TEXTS, TARGETS)
    after = (stored.path / "rows.parquet").stat()
    assert again.path == stored.path
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


@pytest.mark.parametrize("damaged", [False, True])
@pytest.mark.parametrize("attempt", range(5))
def test_many_imports_of_the_same_rows_at_once_end_with_one_folder(tmp_path, damaged, attempt):
    texts = [f"text {n}" for n in range(500)]
    targets = one_hot(*(n % 2 for n in range(500)), width=2)
    start, failures = threading.Barrier(8), []
    if damaged:
        (store_dataset(tmp_path, SPAM, texts, targets).path / "rows.parquet").unlink()

    def store():
        start.wait()
        try:
            store_dataset(tmp_path, SPAM, texts, targets)
        except Exception as err:
            failures.append(err)

    threads = [threading.Thread(target=store) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    [folder] = (tmp_path / "datasets").iterdir()
    assert load_dataset(folder).texts == texts


def test_rows_that_were_changed_are_refused(stored):
    table = pq.read_table(stored.path / "rows.parquet")
    changed = table.set_column(0, "text", [["hello", "other", "win"]]).cast(table.schema)
    pq.write_table(changed, stored.path / "rows.parquet")
    with pytest.raises(DataError, match=r"the rows are not those of sha256:"):
        load_dataset(stored.path)


@pytest.mark.parametrize(
    ("name", "content", "error", "message"),
    [
        pytest.param("rows.parquet", None, DataError, "rows.parquet is missing", id="no rows"),
        pytest.param("rows.parquet", b"PAR1 not really", DataError, "rows.parquet was changed", id="no Parquet"),
        pytest.param("dataset.json", None, ConfigError, "has no dataset.json", id="no description"),
        pytest.param("dataset.json", b"{}", DataError, "is damaged", id="an empty description"),
    ],
)
def test_damage_is_named(stored, name, content, error, message):
    if content is None:
        (stored.path / name).unlink()
    else:
        (stored.path / name).write_bytes(content)
    with pytest.raises(error, match=message):
        load_dataset(stored.path)


def test_what_an_earlier_version_stored_can_be_read(stored):
    described = json.loads((stored.path / "dataset.json").read_bytes())
    del described["rowsSha256"]
    (stored.path / "dataset.json").write_bytes(orjson.dumps(described, option=orjson.OPT_INDENT_2) + b"\n")
    assert load_dataset(stored.path).digest == stored.digest


@pytest.mark.parametrize("name", ["rows.parquet", "dataset.json"])
def test_any_changed_byte_is_noticed(stored, name):
    content = (stored.path / name).read_bytes()
    for at in range(0, len(content), 7):
        (stored.path / name).write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        with pytest.raises(DataError) as raised:
            load_dataset(stored.path)
        assert raised.value.reason == "DataInvalid"
    (stored.path / name).write_bytes(content)
    assert load_dataset(stored.path).digest == stored.digest


def test_a_dataset_of_a_later_format_is_refused(stored):
    described = json.loads((stored.path / "dataset.json").read_bytes())
    (stored.path / "dataset.json").write_text(json.dumps({**described, "formatVersion": 3}))
    with pytest.raises(DataError, match="format version 3 is not known"):
        load_dataset(stored.path)


def test_a_damaged_dataset_is_replaced_by_the_next_import(stored, tmp_path):
    (stored.path / "rows.parquet").write_bytes(b"cut off")
    store_dataset(tmp_path, SPAM, TEXTS, TARGETS)
    assert load_dataset(stored.path).digest == stored.digest
    assert [path.name for path in (tmp_path / "datasets").iterdir()] == [stored.path.name]


@pytest.mark.parametrize(
    ("number", "error"),
    [
        pytest.param(errno.ENOSPC, StorageFull, id="no space"),
        pytest.param(errno.EDQUOT, StorageFull, id="over quota"),
        pytest.param(errno.EIO, StorageError, id="a broken disk"),
    ],
)
def test_a_write_that_fails_leaves_nothing_and_says_why(tmp_path, monkeypatch, number, error):
    def failing(descriptor):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(module.os, "fsync", failing)  # the moment at which a full volume shows
    with pytest.raises(error) as raised:
        store_dataset(tmp_path, SPAM, TEXTS, TARGETS)
    assert raised.value.exit_code == 20
    assert list((tmp_path / "datasets").iterdir()) == []


def test_what_a_killed_import_left_is_removed_after_a_day(stored, tmp_path):
    old, young = tmp_path / "datasets" / ".tmp-old", tmp_path / "datasets" / ".tmp-young"
    old.mkdir()
    young.mkdir()
    os.utime(old, (0, 0))
    store_dataset(tmp_path, SPAM, ["other"], TARGETS[:1])
    assert not old.exists()
    assert young.exists()


def test_a_test_set_takes_the_labels_of_the_training_set(tmp_path):
    schema = LabelSchema(TaskDetail.MULTICLASS, ("a", "b", "c"))
    test = store_dataset(tmp_path, LabelSchema(TaskDetail.MULTICLASS, ("c", "a")), ["x", "y"], one_hot(0, 1, width=2))
    assert targets_in_schema(test, schema).tolist() == [[0, 0, 1], [1, 0, 0]]


def test_zero_and_one_fit_any_binary_labels_by_place(tmp_path):
    test = store_dataset(tmp_path, LabelSchema(TaskDetail.BINARY, ("0", "1")), ["x"], one_hot(1, width=2))
    assert targets_in_schema(test, SPAM).tolist() == [[0, 1]]


def test_zero_and_one_are_matched_by_name_where_training_has_them_in_another_order(tmp_path):
    test = store_dataset(tmp_path, LabelSchema(TaskDetail.BINARY, ("0", "1")), ["x"], one_hot(1, width=2))
    assert targets_in_schema(test, LabelSchema(TaskDetail.BINARY, ("1", "0"))).tolist() == [[1, 0]]


def test_binary_labels_in_another_order_are_matched_by_name(tmp_path):
    test = store_dataset(tmp_path, LabelSchema(TaskDetail.BINARY, ("spam", "ham")), ["x"], one_hot(0, width=2))
    assert targets_in_schema(test, SPAM).tolist() == [[0, 1]]


def test_a_label_that_training_does_not_have_is_named(tmp_path):
    test = store_dataset(tmp_path, LabelSchema(TaskDetail.MULTILABEL, ("spam", "junk")), ["x"], one_hot(0, width=2))
    with pytest.raises(DataError, match='the test set has the label "junk", which the training set does not have'):
        targets_in_schema(test, SPAM)


def test_rows_with_two_labels_do_not_fit_a_multiclass_training_set(tmp_path):
    schema = LabelSchema(TaskDetail.MULTICLASS, ("a", "b"))
    both = np.array([[1, 0], [1, 1]], dtype=np.int8)
    test = store_dataset(tmp_path, LabelSchema(TaskDetail.MULTILABEL, ("a", "b")), ["x", "y"], both)
    with pytest.raises(DataError, match="row 2 of the test set has 2 labels; the training set is Multiclass"):
        targets_in_schema(test, schema)
