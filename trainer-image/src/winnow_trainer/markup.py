"""Values as the text of an HTML page: escaped, rounded, or as a table of tables."""

from __future__ import annotations

import html
from collections.abc import Mapping
from typing import Any
from unicodedata import category


def text(value: Any) -> str:
    """Escaped; control characters, which HTML forbids, become U+FFFD."""
    shown = (char if char in "\n\t" or category(char) != "Cc" else "\N{REPLACEMENT CHARACTER}" for char in str(value))
    return html.escape("".join(shown), quote=True)


def number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def tree(value: Any) -> str:
    """Whatever it holds: mappings become tables."""
    if isinstance(value, Mapping):
        rows = "".join(f"<tr><th>{text(name)}</th><td>{tree(each)}</td></tr>" for name, each in value.items())
        return f"<table class=tree>{rows}</table>"
    if isinstance(value, list):
        return ", ".join(tree(each) for each in value)
    return f"{value:g}" if isinstance(value, float) else text("–" if value is None else value)
