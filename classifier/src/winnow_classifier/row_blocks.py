"""Many records judged at once, for the common case that all have the same fields and plain values.

Each function gives what rows.py would make of the records one by one, or None where it takes that to tell. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Any

from winnow_classifier.dataset import Labels


def columns(
    records: list[Any], text_names: Sequence[str], target_names: Sequence[str]
) -> tuple[list[str], list[Any]] | None:
    """Texts and targets, line ends made LF. The first of the names that a record has counts."""
    if set(map(type, records)) != {dict}:
        return None
    fields = set(map(tuple, records))
    names = {
        (
            next((name for name in text_names if name in found), None),
            next((name for name in target_names if name in found), None),
        )
        for found in fields
    }
    [(text_name, target_name), *others] = names
    if others or text_name is None or target_name is None:
        return None
    texts: list[str] = list(map(itemgetter(text_name), records))
    if set(map(type, texts)) != {str} or not all(texts) or any(map(str.isspace, texts)):
        return None
    together = "\n".join(texts)
    if "\0" in together:
        return None
    if "\r" in together:
        texts = [text.replace("\r\n", "\n") for text in texts]
    return texts, list(map(itemgetter(target_name), records))


def bits_held(targets: list[Any], labels: Labels) -> list[Labels] | None:
    """Of 0 and 1, as numbers or booleans."""
    if not set(map(type, targets)) <= {int, bool} or not set(targets) <= {0, 1}:
        return None
    negative, positive = (labels[0],), (labels[1],)
    return [positive if bit else negative for bit in targets]


def names_held(
    targets: list[Any], known: Mapping[str, Labels], is_name: Callable[[str], bool], *, single: bool
) -> list[Labels] | None:
    """Of names, or of lists of names, that were all met before. `is_name` tells a bare name from another value's text."""
    kinds = set(map(type, targets))
    if kinds == {str}:
        if not all(map(is_name, set(targets))):
            return None
        held = list(map(known.get, targets))
        return None if None in held else held  # type: ignore[return-value]
    if kinds != {list}:
        return None
    found: dict[tuple[Any, ...], Labels] = {}
    try:
        lists = list(map(tuple, targets))
        for names in set(lists):
            if len(set(names)) < len(names) or (single and len(names) != 1) or not all(name in known for name in names):
                return None
            found[names] = tuple(sorted(names))
    except TypeError:  # a list in a list
        return None
    return [found[names] for names in lists]


def maps_held(
    targets: list[Any], keys: Labels, hold: Callable[[tuple[int, ...]], Labels], *, single: bool
) -> list[Labels] | None:
    """Of maps that name exactly these labels, with 0 or 1 for each."""
    if set(map(type, targets)) != {dict} or set(map(len, targets)) != {len(keys)}:
        return None
    try:
        picked = list(map(itemgetter(*keys), targets))
        if len(keys) == 1:
            picked = [(bit,) for bit in picked]
        found: dict[tuple[Any, ...], Labels] = {}
        for bits in set(picked):
            if not all(isinstance(bit, int) and bit in (0, 1) for bit in bits) or (single and sum(bits) != 1):
                return None
            found[bits] = hold(tuple(map(int, bits)))
    except (KeyError, TypeError):
        return None
    return [found[bits] for bits in picked]
