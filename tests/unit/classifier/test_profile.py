"""What an import tells about rows: counts, lengths, warnings."""

import tracemalloc

import numpy as np
import pytest
from rows_in_memory import profile

from winnow_classifier.dataset import Batch
from winnow_classifier.labels import LabelSchema, TaskDetail
from winnow_classifier.profile import Profiler, histogram, lengths_of

SPAM = LabelSchema(TaskDetail.BINARY, ("ham", "spam"))


def profile_of(*columns, schema=SPAM, texts=None):
    targets = np.eye(len(schema.labels), dtype=np.int8)[list(columns)]
    return profile(schema, texts or [f"text {n}" for n in range(len(columns))], targets)


def codes(found):
    return [warning.code for warning in found.warnings]


def test_enough_different_rows_give_no_warning():
    found = profile_of(*[0] * 20, *[1] * 25)
    assert (found.rows, found.labels, found.warnings) == (45, [("ham", 20), ("spam", 25)], [])


def test_few_examples_of_a_label_are_warned_about():
    found = profile_of(*[0] * 20, *[1] * 7)
    assert [w.message for w in found.warnings] == ['label "spam" has 7 positives; 20 or more are advised']


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        pytest.param(("Spam", "ham", "spam"), '"Spam" and "spam"', id="case"),
        pytest.param(
            ("not-spam", "not spam", "not_spam"), '"not-spam" and "not spam" and "not_spam"', id="between words"
        ),
        pytest.param(("caf\u00e9", "cafe\u0301"), '"caf\u00e9" and "cafe\u0301"', id="form of a letter"),
        pytest.param(("-1", "1", "C", "C++", "cafe", "café"), None, id="others"),
    ],
)
def test_labels_that_are_written_alike_are_warned_about(labels, says):
    columns = list(range(len(labels))) * 20
    found = profile_of(*columns, schema=LabelSchema(TaskDetail.MULTICLASS, labels)).warnings
    assert [warning.code for warning in found] == ([] if says is None else ["LabelsAlike"])
    assert says is None or found[0].message.startswith(f"the labels {says} differ only in case")


def test_many_labels_with_few_examples_share_a_warning():
    schema = LabelSchema(TaskDetail.MULTICLASS, tuple(f"label {n}" for n in range(40)))
    found = profile_of(*range(40), schema=schema)
    assert codes(found) == ["FewExamples"] * 6
    assert found.warnings[-1].message == "35 more labels have fewer than 20 positives"


def test_rows_of_a_single_class_are_warned_about():
    found = profile_of(*[1] * 30)
    assert codes(found) == ["SingleClass", "FewExamples"]
    assert 'every row has the label "spam"' in found.warnings[0].message


def test_duplicates_and_conflicts():
    found = profile_of(0, 0, 1, 0, 1, texts=["a", "a", "a", "b", "c"])
    assert (found.duplicates, found.conflicts) == (2, 1)
    assert found.warnings[-1].message == "1 text occurs with different labels"


def test_a_multilabel_set_that_is_nearly_multiclass_is_pointed_out():
    schema = LabelSchema(TaskDetail.MULTILABEL, ("a", "b"))
    targets = np.eye(2, dtype=np.int8)[[0, 1] * 100]
    targets[7] = [1, 1]
    found = profile(schema, [f"text {n}" for n in range(200)], targets)
    assert codes(found) == ["NearlyMulticlass"]
    assert "all but 1 of 200 rows" in found.warnings[0].message
    assert "row 8" in found.warnings[0].message


def test_an_imbalance_beyond_a_hundred_to_one_is_warned_about():
    assert codes(profile_of(*[0] * 2_000, *[1] * 20)) == []
    found = profile_of(*[0] * 2_001, *[1] * 20)
    assert codes(found) == ["Imbalance"]
    assert found.warnings[0].message == 'label "ham" has 2,001 positives and "spam" 20: 100 to 1'


def test_texts_that_most_models_would_cut_are_warned_about():
    targets = np.eye(2, dtype=np.int8)[[0] * 50 + [1] * 50]
    texts = [f"text {n}" for n in range(100)]
    assert codes(profile(SPAM, texts, targets, [512] * 100)) == []
    found = profile(SPAM, texts, targets, [512] * 90 + [600] * 10)
    assert codes(found) == ["LongTexts"]
    assert found.longer_than == {64: 1, 128: 1, 256: 1, 512: 0.1, 1024: 0, 2048: 0, 4096: 0}


def test_odd_texts_are_counted():
    found = profile_of(*[0] * 20, *[1] * 20, texts=["\x07bell", "123 456!", "78 9", *(f"text {n}" for n in range(37))])
    assert (found.control_characters, found.without_words, found.only_digits) == (1, 2, 1)
    assert codes(found) == ["ControlCharacters", "WithoutWords"]
    assert found.warnings[-1].message == "2 texts have only digits and signs, no letters"


@pytest.mark.parametrize(
    "lengths",
    [
        pytest.param([1, 1], id="one"),
        pytest.param([0, 0], id="nothing at all, as a tokenizer may find"),
        pytest.param([1, 2, 3, 512, 100_000], id="far apart"),
        pytest.param(list(range(1, 4_000)), id="all"),
    ],
)
def test_a_histogram_counts_each_row_once(lengths):
    found = histogram(np.array(lengths, dtype=np.int32))
    assert sum(found.rows) == len(lengths)
    assert len(found.edges) == len(found.rows) + 1
    assert found.edges == sorted(set(found.edges))


def test_of_long_texts_only_the_beginnings_are_kept():
    profiler = Profiler()
    tracemalloc.start()
    for number in range(50):
        text = f"{number} " + "long " * 200_000
        profiler.add(Batch([text, text + "!"], [("ham",), ("spam",)]))
    del text
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 1_000_000  # of 100 million characters
    found = profiler.finish(SPAM)
    assert (found.rows, found.duplicates) == (100, 0)
    assert found.near_duplicates >= 50


def test_near_duplicates_are_estimated():
    base = [" ".join(f"word{(n * 7919 + k * k * 31) % 10007}" for k in range(60)) for n in range(300)]
    close = [text + " tail" for text in base[:100]]
    far = [
        text[: len(text) // 3] + " ".join(f"other{(i * 13 + k) % 997}" for k in range(40))
        for i, text in enumerate(base)
    ]
    found = profile_of(*[0] * 350, *[1] * 350, texts=base + close + far)
    assert 97 <= found.near_duplicates <= 103
    assert profile_of(*[0, 1] * 2, texts=["a", "b", "ab", "ba"]).near_duplicates == 0


def test_near_duplicates_are_sought_among_the_first_different_texts(monkeypatch):
    monkeypatch.setattr("winnow_classifier.profile.MAX_TEXTS", 4)
    close = [" ".join(f"word{n}" for n in range(60)) + end for end in ("", " a", " b", " c", " d")]
    found = profile_of(*[0] * 4, *[1] * 4, texts=[close[0]] * 4 + close[1:])
    assert found.document()["nearDuplicates"] == {"count": 3, "ofTheFirst": 4}
    found = profile_of(0, 0, 1, 1, texts=[close[0]] * 3 + close[1:2])
    assert found.document()["nearDuplicates"] == {"count": 1, "ofTheFirst": 2}


@pytest.mark.parametrize(
    ("lengths", "expected"),
    [
        pytest.param(range(1, 101), (50.5, 50, 95, 99, 100), id="one to a hundred"),
        pytest.param([3], (3, 3, 3, 3, 3), id="one row"),
        pytest.param([1, 2, 4], (2.3, 2, 4, 4, 4), id="three rows"),
    ],
)
def test_lengths(lengths, expected):
    found = lengths_of(list(lengths))
    assert (found.mean, found.p50, found.p95, found.p99, found.max) == expected
