"""Kubernetes' quantities, as 1500m or 1.5Gi, as numbers."""

from __future__ import annotations

from decimal import Decimal

_SUFFIXES = {
    **{suffix: Decimal(1_000) ** power for power, suffix in enumerate(("", "k", "M", "G", "T", "P", "E"))},
    **{suffix: Decimal(1_024) ** power for power, suffix in enumerate(("Ki", "Mi", "Gi", "Ti", "Pi", "Ei"), start=1)},
    **{suffix: Decimal(1_000) ** -power for power, suffix in enumerate(("m", "u", "n"), start=1)},
}


def quantity(text: str) -> Decimal:
    """Raises decimal.InvalidOperation or KeyError for what is none."""
    number = text.rstrip("kKMGTPEimun")
    return Decimal(number) * _SUFFIXES[text[len(number) :]]
