"""Hugging Face's ClassLabel: whole numbers in the rows, and the names that they stand for, as Parquet files and dataset
cards have them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from winnow_classifier.row_files import shown

_INTEGER = re.compile(r"[-+]?\d{1,9}(\.0+)?")
_BITS = frozenset(("0", "1", "false", "true"))
_UNLABELLED = -1  # as `datasets` has it in test splits whose answers are kept back
_LISTS = ("list", "sequence", "large_list")


class NoSuchClass(ValueError):  # noqa: N818 - it reads as what it says
    """Its text says what was expected and found."""


@dataclass(frozen=True, slots=True)
class ClassNames:
    """Of one column."""

    names: tuple[str, ...]
    many: bool = False  # a list of classes in each row

    def of(self, value: object, *, typed: bool = True) -> str | list[str]:
        """The name that stands for a value, or the names. `typed`: the file tells numbers from texts, as CSV does not.

        Raises NoSuchClass.
        """
        if self.many:
            if not isinstance(value, list | tuple):
                raise NoSuchClass(f"expected a list of classes, found {shown(value)}")
            return [self._name(one, typed) for one in value]
        name = self._name(value, typed)
        # In a list it is a name beyond doubt, also where it looks like a number, such as 3 of 5 stars.
        return name if _BITS.issuperset(map(str.lower, self.names)) else [name]

    def _name(self, value: object, typed: bool) -> str:
        number = value if isinstance(value, int) else None
        if isinstance(value, float) and value.is_integer():
            number = int(value)
        if isinstance(value, str):
            text = value.strip()
            if text in self.names and (typed or not _INTEGER.fullmatch(text)):
                return text
            number = int(float(text)) if _INTEGER.fullmatch(text) else None
        if number is not None and 0 <= number < len(self.names):
            return self.names[number]
        found = shown(value) + (", which stands for a row without a label" if number == _UNLABELLED else "")
        raise NoSuchClass(f"expected a class from 0 to {len(self.names) - 1}, found {found}")


def of_features(features: object) -> dict[str, ClassNames]:
    """By column, from the features that `datasets` writes into Parquet files and dataset_infos.json."""
    if not isinstance(features, dict):
        return {}
    found = {str(column): _of_feature(feature) for column, feature in features.items()}
    return {column: names for column, names in found.items() if names}


def of_card(features: object) -> dict[str, ClassNames]:
    """By column, from the features in a dataset card's dataset_info, which write the same another way."""
    if not isinstance(features, list):
        return {}
    columns = [feature for feature in features if isinstance(feature, dict) and "name" in feature]
    found = {str(feature["name"]): _of_card_feature(feature) for feature in columns}
    return {column: names for column, names in found.items() if names}


def _of_feature(feature: Any) -> ClassNames | None:
    if isinstance(feature, list) and len(feature) == 1:  # a list, in files of older versions
        return _many(_of_feature(feature[0]))
    if not isinstance(feature, dict):
        return None
    if feature.get("_type") == "ClassLabel":
        return _class_names(feature.get("names"))
    if feature.get("_type") in ("List", "LargeList", "Sequence"):
        return _many(_of_feature(feature.get("feature")))
    return None


def _of_card_feature(feature: Mapping[str, Any]) -> ClassNames | None:
    for kind in _LISTS:
        if isinstance(inner := feature.get(kind), dict):
            return _many(_of_card_feature(inner))
    if isinstance(inner := feature.get("dtype"), dict):
        return _of_card_feature(inner)
    if isinstance(inner := feature.get("class_label"), dict):
        return _class_names(inner.get("names"))
    return None


def _class_names(names: Any) -> ClassNames | None:
    """A list of names, or a map from each number to its name."""
    if isinstance(names, dict):
        try:
            by_number = {int(number): name for number, name in names.items()}
        except (ValueError, TypeError):
            return None
        names = [by_number.get(number) for number in range(len(by_number))]
    if not isinstance(names, list) or not names or None in names:
        return None
    return ClassNames(tuple(map(str, names)))


def _many(of_one: ClassNames | None) -> ClassNames | None:
    return ClassNames(of_one.names, many=True) if of_one and not of_one.many else None
