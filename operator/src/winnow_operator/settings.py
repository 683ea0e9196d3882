"""What the operator is told by its environment."""

from __future__ import annotations

import ipaddress
import logging
import socket
from collections.abc import Mapping
from dataclasses import dataclass

from winnow_operator.plan import Config, FetchLimits


class SettingsError(Exception):
    """An environment variable is missing or wrong."""


@dataclass(frozen=True, slots=True)
class Settings:
    config: Config
    namespace: str  # where the Lease lies
    instance: str  # who holds it, and who reports events
    http_port: int
    log_level: int
    progress_seconds: float  # between two pulls of /progress from a training pod
    guest_seconds: float  # between two looks for kinds of other projects, such as KEDA's


def read(environ: Mapping[str, str]) -> Settings:
    return Settings(
        config=Config(
            trainer_image=_required(environ, "WINNOW_TRAINER_IMAGE"),
            server_image=_required(environ, "WINNOW_SERVER_IMAGE"),
            fetch=_fetch(environ),
        ),
        namespace=environ.get("WINNOW_NAMESPACE", "winnow-system"),
        instance=environ.get("POD_NAME") or socket.gethostname(),
        http_port=_port(environ.get("WINNOW_HTTP_PORT", "8080")),
        log_level=_level(environ.get("WINNOW_LOG_LEVEL", "INFO")),
        progress_seconds=_seconds(environ.get("WINNOW_PROGRESS_SECONDS", "15"), "WINNOW_PROGRESS_SECONDS"),
        guest_seconds=_seconds(environ.get("WINNOW_GUEST_SECONDS", "30"), "WINNOW_GUEST_SECONDS"),
    )


def _required(environ: Mapping[str, str], name: str) -> str:
    value = environ.get(name, "")
    if not value:
        raise SettingsError(f"{name} is not set: it names the image of the pods that the operator starts")
    return value


def _fetch(environ: Mapping[str, str]) -> FetchLimits:
    default = FetchLimits()
    return FetchLimits(
        _positive(environ, "WINNOW_FETCH_MAX_BYTES", default.max_bytes),
        _positive(environ, "WINNOW_FETCH_TIMEOUT_SECONDS", default.timeout_seconds),
        tuple(_network(text) for text in environ.get("WINNOW_FETCH_ALLOWED_NETWORKS", "").split()),
    )


def _positive(environ: Mapping[str, str], name: str, default: int) -> int:
    text = environ.get(name) or str(default)
    if text.isdecimal() and int(text) > 0:
        return int(text)
    raise SettingsError(f"{name} is {text!r}: a whole number above 0 is needed")


def _network(text: str) -> str:
    try:
        return str(ipaddress.ip_network(text, strict=False))
    except ValueError as err:
        raise SettingsError(f"WINNOW_FETCH_ALLOWED_NETWORKS has {text!r}, which is no network: {err}") from err


def _port(text: str) -> int:
    if text.isdecimal() and 0 < int(text) < 65_536:
        return int(text)
    raise SettingsError(f"WINNOW_HTTP_PORT is {text!r}: a port from 1 to 65535 is needed")


def _seconds(text: str, name: str) -> float:
    if text.isdecimal() and 0 < int(text) <= 3_600:
        return float(text)
    raise SettingsError(f"{name} is {text!r}: whole seconds from 1 to 3600 are needed")


def _level(text: str) -> int:
    level = logging.getLevelNamesMapping().get(text.upper())
    if level is None:
        raise SettingsError(f"WINNOW_LOG_LEVEL is {text!r}: DEBUG, INFO, WARNING or ERROR is needed")
    return level
