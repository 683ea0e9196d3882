"""What the operator is told by its environment."""

from __future__ import annotations

import logging
import socket
from collections.abc import Mapping
from dataclasses import dataclass

from winnow_operator.plan import Config


class SettingsError(Exception):
    """An environment variable is missing or wrong."""


@dataclass(frozen=True, slots=True)
class Settings:
    config: Config
    namespace: str  # where the Lease lies
    instance: str  # who holds it, and who reports events
    http_port: int
    log_level: int
    progress_seconds: float = 15.0  # between two pulls of /progress from a training pod


def read(environ: Mapping[str, str]) -> Settings:
    return Settings(
        config=Config(
            trainer_image=_required(environ, "WINNOW_TRAINER_IMAGE"),
            server_image=_required(environ, "WINNOW_SERVER_IMAGE"),
        ),
        namespace=environ.get("WINNOW_NAMESPACE", "winnow-system"),
        instance=environ.get("POD_NAME") or socket.gethostname(),
        http_port=_port(environ.get("WINNOW_HTTP_PORT", "8080")),
        log_level=_level(environ.get("WINNOW_LOG_LEVEL", "INFO")),
        progress_seconds=_seconds(environ.get("WINNOW_PROGRESS_SECONDS", "15")),
    )


def _required(environ: Mapping[str, str], name: str) -> str:
    value = environ.get(name, "")
    if not value:
        raise SettingsError(f"{name} is not set: it names the image of the pods that the operator starts")
    return value


def _port(text: str) -> int:
    if text.isdecimal() and 0 < int(text) < 65_536:
        return int(text)
    raise SettingsError(f"WINNOW_HTTP_PORT is {text!r}: a port from 1 to 65535 is needed")


def _seconds(text: str) -> float:
    if text.isdecimal() and 0 < int(text) <= 3_600:
        return float(text)
    raise SettingsError(f"WINNOW_PROGRESS_SECONDS is {text!r}: whole seconds from 1 to 3600 are needed")


def _level(text: str) -> int:
    level = logging.getLevelNamesMapping().get(text.upper())
    if level is None:
        raise SettingsError(f"WINNOW_LOG_LEVEL is {text!r}: DEBUG, INFO, WARNING or ERROR is needed")
    return level
