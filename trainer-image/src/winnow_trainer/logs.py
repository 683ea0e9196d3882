"""Log lines: JSON objects for a cluster, plain lines on a terminal. Always on stderr; data goes to stdout."""

import logging
import sys
import warnings
from datetime import UTC, datetime
from typing import TextIO

import orjson

ERASE_LINE = "\r\x1b[K"  # a progress line may stand there
_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def set_up(stream: TextIO | None = None) -> None:
    stream = stream or sys.stderr
    handler = logging.StreamHandler(stream)
    handler.setFormatter(PlainFormatter() if stream.isatty() else JsonFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.captureWarnings(True)  # libraries' own: written past the log they are no JSON, and tear the line that moves
    warnings.simplefilter("ignore", FutureWarning)  # what libraries will do without is for those who write programs
    if stream.isatty():
        logging.getLogger("winnow_trainer.recorder").setLevel(logging.WARNING)  # a line that moves says it there
    for name in ("httpx", "httpx2", "httpcore", "httpcore2", "urllib3", "filelock", "fsspec"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # It warns, wherever LoRA is imported, of a package that only four bits on a CPU could use.
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)


class JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            **_facts(record),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return orjson.dumps(line, default=str).decode()


class PlainFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created).strftime("%H:%M:%S")
        facts = "".join(f"  {name}={_plain(value)}" for name, value in _facts(record).items())
        traceback = f"\n{self.formatException(record.exc_info)}" if record.exc_info else ""
        return f"{ERASE_LINE}{moment} {record.getMessage()}{facts}{traceback}"


def _facts(record: logging.LogRecord) -> dict[str, object]:
    return {name: value for name, value in vars(record).items() if name not in _OWN}


def _plain(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
