"""Does an object at the API server still say what we want it to say? Pure.

Only what we specify is compared: defaults and other writers' fields are theirs. A digest of what was applied last stands on the object, so that a field that we no
longer specify is noticed too.
"""

from __future__ import annotations

import copy
from decimal import Decimal, InvalidOperation
from typing import Any

from winnow_operator.build.common import digest
from winnow_operator.resources import GROUP, Object

APPLIED = f"{GROUP}/applied"
_QUANTITIES = {"limits", "requests", "averageValue"}
_SUFFIXES = {
    **{suffix: Decimal(1_000) ** power for power, suffix in enumerate(("", "k", "M", "G", "T", "P", "E"))},
    **{suffix: Decimal(1_024) ** power for power, suffix in enumerate(("Ki", "Mi", "Gi", "Ti", "Pi", "Ei"), start=1)},
    "m": Decimal("0.001"),
}


def stamped(desired: Object) -> Object:
    """The object with the digest of itself."""
    result = copy.deepcopy(desired)
    result["metadata"].setdefault("annotations", {})[APPLIED] = digest(desired)
    return result


def differs(desired: Object, live: Object) -> bool:
    return not _contains(live, stamped(desired))


def _contains(live: Any, wanted: Any, *, quantities: bool = False) -> bool:
    if isinstance(wanted, dict):
        return isinstance(live, dict) and all(
            key in live and _contains(live[key], value, quantities=key in _QUANTITIES or quantities)
            for key, value in wanted.items()
        )
    if isinstance(wanted, list):
        if not isinstance(live, list) or len(live) != len(wanted):
            return False
        return all(_contains(have, want, quantities=quantities) for have, want in zip(live, wanted, strict=True))
    return bool(live == wanted) or (quantities and _same_quantity(live, wanted))


def _same_quantity(left: Any, right: Any) -> bool:
    """The API server writes 1000m as 1."""
    try:
        return quantity(str(left)) == quantity(str(right))
    except (InvalidOperation, KeyError):
        return False


def quantity(text: str) -> Decimal:
    number = text.rstrip("kKMGTPEim")
    return Decimal(number) * _SUFFIXES[text[len(number) :]]
