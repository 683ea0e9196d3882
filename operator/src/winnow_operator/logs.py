"""One JSON object a line: a fixed message, and the facts as fields."""

from __future__ import annotations

import logging
import sys

from pythonjsonlogger.json import JsonFormatter


def configure(level: int) -> None:
    handler = logging.StreamHandler(sys.stderr)
    renames = {"asctime": "time", "levelname": "level", "name": "logger"}
    handler.setFormatter(
        JsonFormatter(
            "%(asctime)s %(levelname)s %(name)s %(message)s", rename_fields=renames, datefmt="%Y-%m-%dT%H:%M:%S%z"
        )
    )
    logging.basicConfig(level=level, handlers=[handler], force=True)
    # What kopf has to say about every event is of no interest unless it goes wrong.
    logging.getLogger("kopf").setLevel(max(level, logging.WARNING))
    logging.getLogger("aiohttp").setLevel(max(level, logging.WARNING))
