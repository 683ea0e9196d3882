"""The words that users script against."""

from __future__ import annotations

import re

import pytest

from winnow_operator.conditions import MESSAGE_CHARS, shorten
from winnow_operator.reasons import Reason, known


@pytest.mark.parametrize("reason", Reason)
def test_a_reason_is_one_word_with_a_sentence(reason: Reason) -> None:
    assert re.fullmatch(r"[A-Z][A-Za-z]{1,63}", reason)
    assert re.fullmatch(r"[A-Za-z].{10,}\.", reason.sentence)


def test_only_reasons_are_known() -> None:
    assert known("OutOfMemory") is Reason.OUT_OF_MEMORY
    assert known("rm -rf") is None


def test_a_message_is_one_line_of_bounded_length() -> None:
    assert shorten("a\x00b\n\tc") == "a b c"
    cut = shorten("x" * 5_000)
    assert (len(cut), cut[-1]) == (MESSAGE_CHARS, "…")
