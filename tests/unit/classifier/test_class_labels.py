"""Names of classes: in the files of `datasets` as it writes them, and what values of the rows stand for them."""

import datasets
import pytest
from hypothesis import given
from hypothesis import strategies as st

from winnow_classifier.class_labels import ClassNames, NoSuchClass, of_card, of_features

NAMES = ("neg", "pos")
STARS = ("1", "2", "3", "4", "5")
FEATURES = {
    "text": datasets.Value("string"),
    "label": datasets.ClassLabel(names=list(NAMES)),
    "list": datasets.List(datasets.ClassLabel(names=list(STARS))),
    "large": datasets.LargeList(datasets.ClassLabel(names=list(NAMES))),
    "lists": datasets.List(datasets.List(datasets.ClassLabel(names=list(NAMES)))),
    "struct": {"a": datasets.ClassLabel(names=list(NAMES)), "b": datasets.Value("int8")},
    "number": datasets.Value("int64"),
}
FOUND = {"label": ClassNames(NAMES), "list": ClassNames(STARS, many=True), "large": ClassNames(NAMES, many=True)}


def test_features_as_parquet_files_have_them():
    assert of_features(datasets.Features(FEATURES).to_dict()) == FOUND


def test_features_as_cards_have_them():
    assert of_card(datasets.Features(FEATURES)._to_yaml_list()) == FOUND


def test_lists_as_older_versions_wrote_them():
    label = {"names": list(NAMES), "_type": "ClassLabel"}
    assert of_features({"a": [label], "b": {"feature": label, "length": -1, "_type": "Sequence"}}) == {
        "a": ClassNames(NAMES, many=True),
        "b": ClassNames(NAMES, many=True),
    }
    older = {"name": "c", "sequence": {"class_label": {"names": {0: "neg", 1: "pos"}}}}
    assert of_card([older]) == {"c": ClassNames(NAMES, many=True)}


@pytest.mark.parametrize("names", [[], None, {"1": "a"}, {"x": "a"}, {"0": "a", "2": "b"}, "neg", [None]])
def test_names_that_are_none_are_left_out(names):
    assert of_features({"a": {"names": names, "_type": "ClassLabel"}}) == {}
    assert of_card([{"name": "a", "dtype": {"class_label": {"names": names}}}]) == {}


@pytest.mark.parametrize(
    ("value", "typed", "name"),
    [
        (0, True, "neg"),
        (1.0, True, "pos"),
        ("pos", True, "pos"),
        (" pos ", False, "pos"),
        ("1", False, "pos"),
        ("1.0", False, "pos"),
        ("1", True, "pos"),
    ],
)
def test_values_that_stand_for_a_class(value, typed, name):
    assert ClassNames(NAMES).of(value, typed=typed) == [name]


def test_a_number_in_csv_is_the_number_of_a_class_and_a_text_in_json_its_name():
    assert ClassNames(STARS).of("1", typed=False) == ["2"]
    assert ClassNames(STARS).of("1", typed=True) == ["1"]
    assert ClassNames(STARS).of(1, typed=True) == ["2"]


def test_0_and_1_stay_what_they_are():
    assert ClassNames(("0", "1")).of(1) == "1"
    assert ClassNames(("False", "True")).of(0) == "False"


@pytest.mark.parametrize(
    "value", [2, -1, 0.5, None, "neutral", "", "-1", [0], {"a": 1}, 10**30, float("nan"), float("inf")]
)
@pytest.mark.parametrize("typed", [True, False])
def test_values_that_stand_for_none(value, typed):
    with pytest.raises(NoSuchClass, match="expected a class from 0 to 1, found "):
        ClassNames(NAMES).of(value, typed=typed)


def test_minus_one_is_a_row_without_a_label():
    for value in (-1, "-1", -1.0):
        with pytest.raises(NoSuchClass, match=r"found .*-1.*, which stands for a row without a label"):
            ClassNames(NAMES).of(value, typed=False)


def test_lists_of_classes():
    assert ClassNames(NAMES, many=True).of([1, 0]) == ["pos", "neg"]
    assert ClassNames(NAMES, many=True).of([]) == []
    with pytest.raises(NoSuchClass, match="expected a list of classes, found 1"):
        ClassNames(NAMES, many=True).of(1)
    with pytest.raises(NoSuchClass, match="found 2"):
        ClassNames(NAMES, many=True).of([0, 2])


@given(st.recursive(st.none() | st.floats() | st.integers() | st.text(), lambda inner: st.lists(inner), max_leaves=4))
def test_any_value_is_a_class_or_none(value):
    for many in (False, True):
        try:
            found = ClassNames(NAMES, many=many).of(value)
        except NoSuchClass:
            continue
        assert set(found) <= set(NAMES)
