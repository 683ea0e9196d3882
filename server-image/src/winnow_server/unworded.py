"""What logs say of an error that may quote a text."""

import traceback
from collections.abc import Iterator


def unworded(error: BaseException) -> str:
    """The kinds and places of an error and its causes, for logs, without its message, which may quote a user's text."""
    return "\n".join(_kinds_and_lines(error))


def _kinds_and_lines(error: BaseException) -> Iterator[str]:
    """Of the error, of those that it gathers, and of the one that it came from."""
    kind = f"{type(error).__module__}.{type(error).__qualname__}"
    yield "".join((f"{kind}\n", *traceback.format_tb(error.__traceback__)))
    origin = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    for other in (*getattr(error, "exceptions", ()), *([origin] if origin else [])):
        yield from _kinds_and_lines(other)
