"""What holds where a request brings nothing: the checkpoint's decision.json, and over it the Deployment's thresholds. Both
files are read again when they change."""

import logging
from pathlib import Path
from typing import Annotated

from pydantic import Field, TypeAdapter, ValidationError

from winnow_classifier.decision import Decision, parse
from winnow_classifier.errors import CheckpointError, ConfigError
from winnow_server.service import Service
from winnow_server.thresholds import NONE, Rules, Thresholds

log = logging.getLogger(__name__)

# Strict, as in a request: true would be 1.
CONTENT = TypeAdapter(dict[str, Annotated[float, Field(ge=0, le=1, strict=True)]])


class Standing:
    """Puts a service's rules together."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._decision: Decision | None = None
        self._override: Thresholds | None = None  # before the first look
        self._begun = False

    def take_decision(self, path: Path) -> None:
        """Take the checkpoint's decision.json. Raises CheckpointError if the first one is not valid; a later one that is not
        changes nothing. Raises OSError."""
        try:
            found = read_decision(path, self._service)
        except CheckpointError as err:
            if not self._begun:
                raise
            log.error("Decision cannot be used", extra={"file": str(path), "error": str(err)})
            return
        self._begun = True
        self._decision, self._service.decision = found if found else (None, None)
        self._apply()
        if found:
            log.info("Decision read", extra={"file": str(path), "digest": self._service.decision})

    def take_override(self, path: Path) -> None:
        """Take the Deployment's thresholds. Labels that the checkpoint lacks are said in the log and left out. Raises
        ConfigError if the first file is missing or wrong; a later one that is wrong changes nothing. Raises OSError."""
        try:
            found = read_thresholds(path)
            if found is None and self._override is None:
                raise ConfigError(f"There is no file {path}.")
        except ConfigError as err:
            if self._override is None:
                raise
            log.error("Thresholds cannot be used", extra={"file": str(path), "error": str(err)})
            return
        found = found or NONE
        known = self._service.schema.labels
        unknown = sorted(set(found) - set(known))
        if unknown:
            log.warning("Thresholds of labels that the checkpoint lacks", extra={"labels": unknown})
        self._override = {label: value for label, value in found.items() if label in known}
        self._apply()
        log.info("Thresholds read", extra={"thresholds": dict(self._override)})

    def _apply(self) -> None:
        decision = self._decision
        thresholds = {**(decision.thresholds if decision else {}), **(self._override or NONE)}
        self._service.rules = Rules(
            decision.calibration if decision else None, thresholds, decision.abstain if decision else None
        )


def read_thresholds(path: Path) -> Thresholds | None:
    """None where there is no file. Raises ConfigError, OSError."""
    try:
        return CONTENT.validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as err:
        first = err.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise ConfigError(
            f"{path} must hold an object of numbers from 0 to 1 by label: {where}{': ' if where else ''}{first['msg']}."
        ) from err


def read_decision(path: Path, service: Service) -> tuple[Decision, str] | None:
    """With its digest; None where there is none. Raises CheckpointError, OSError."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    return parse(data, path, service.schema)
