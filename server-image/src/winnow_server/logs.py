"""Logs for operators: one JSON object a line on stderr, a fixed message with facts as fields."""

import logging
import traceback
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import orjson

STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message"}


class JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {name: value for name, value in vars(record).items() if name not in STANDARD}
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return orjson.dumps(line, default=str).decode()


def unworded(error: BaseException) -> str:
    """What led to an error, without its message, which may quote the text that it is about."""
    return "\n".join(_kinds_and_lines(error))


def _kinds_and_lines(error: BaseException) -> Iterator[str]:
    """Of the error, of those that it gathers, and of the one that it came from."""
    kind = f"{type(error).__module__}.{type(error).__qualname__}"
    yield "".join((f"{kind}\n", *traceback.format_tb(error.__traceback__)))
    origin = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    for other in (*getattr(error, "exceptions", ()), *([origin] if origin else [])):
        yield from _kinds_and_lines(other)


def set_up(level: str) -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("winnow_server").setLevel(level.upper())
