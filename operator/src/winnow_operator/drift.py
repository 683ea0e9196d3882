"""Does an object at the API server still say what we want it to say? Pure.

Only what we specify is compared: defaults and other writers' fields are theirs. A digest of what was applied last stands on
the object, so that a field that we no longer specify is noticed too.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from decimal import InvalidOperation
from typing import Any

from winnow_operator.build.common import digest
from winnow_operator.quantities import quantity
from winnow_operator.resources import GROUP, Object

APPLIED = f"{GROUP}/applied"
_EMPTY: tuple[Any, ...] = ("", [], {})  # Kubernetes' types drop them (omitempty)
_SPEC = "f:spec"  # as managedFields has it
_QUANTITIES = {"limits", "requests", "averageValue"}


def stamped(desired: Object) -> Object:
    """The object with the digest of itself."""
    result = copy.deepcopy(desired)
    result["metadata"].setdefault("annotations", {})[APPLIED] = digest(desired)
    return result


def differs(desired: Object, live: Object) -> bool:
    return not _contains(live, stamped(desired))


def content(obj: Object) -> str:
    """A digest of all that may be specified of it: not of its status, and not of who wrote it and when."""
    metadata = {name: obj["metadata"].get(name) for name in ("labels", "annotations", "ownerReferences", "finalizers")}
    return digest({**obj, "metadata": metadata, "status": None})


def taken_over(written: Sequence[Object], manager: str) -> list[Object] | None:
    """`metadata.managedFields` rewritten so that we are the applier of all that others specified under `spec`; None where
    they specified nothing there, or we applied nothing. Metadata, such as finalizers, and subresources, such as an
    autoscaler's number, stay theirs."""
    ours = next((entry for entry in written if (entry["manager"], entry["operation"]) == (manager, "Apply")), None)
    theirs = [
        entry for entry in written if entry is not ours and "subresource" not in entry and _SPEC in entry["fieldsV1"]
    ]
    if ours is None or not theirs:
        return None
    fields: Object = ours["fieldsV1"]
    for entry in theirs:
        fields = _union(fields, {_SPEC: entry["fieldsV1"][_SPEC]})
    rest = [
        {**entry, "fieldsV1": {name: below for name, below in entry["fieldsV1"].items() if name != _SPEC}}
        for entry in theirs
    ]
    untouched = [entry for entry in written if entry is not ours and entry not in theirs]
    return [{**ours, "fieldsV1": fields}, *untouched, *(entry for entry in rest if entry["fieldsV1"])]


def _union(left: Object, right: Object) -> Object:
    """Of two sets of fields, which are trees without values."""
    return {**left, **{name: _union(left.get(name, {}), below) for name, below in right.items()}}


def _contains(live: Any, wanted: Any, *, quantities: bool = False) -> bool:
    if isinstance(wanted, dict):
        return isinstance(live, dict) and all(
            _contains(live[key], value, quantities=key in _QUANTITIES or quantities) if key in live else value in _EMPTY
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
