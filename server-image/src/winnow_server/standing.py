"""The Deployment's thresholds: a JSON file that is read again when it changes."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

from pydantic import Field, TypeAdapter, ValidationError

from winnow_server.service import Service
from winnow_server.thresholds import NONE

log = logging.getLogger(__name__)

CONTENT = TypeAdapter(dict[str, Annotated[float, Field(ge=0, le=1)]])


def into(service: Service) -> Callable[[Path], None]:
    """What takes a file's thresholds over. Labels that the checkpoint lacks are said in the log and left out; a file that
    cannot be read changes nothing."""

    def take(path: Path) -> None:
        try:
            found = CONTENT.validate_json(path.read_bytes()) if path.exists() else NONE
        except ValidationError as err:
            log.error(
                "Thresholds must be an object of numbers from 0 to 1", extra={"file": str(path), "error": str(err)}
            )
            return
        known = service.schema.labels
        unknown = sorted(set(found) - set(known))
        if unknown:
            log.warning("Thresholds of labels that the checkpoint lacks", extra={"labels": unknown})
        service.thresholds = {label: value for label, value in found.items() if label in known}
        log.info("Thresholds read", extra={"thresholds": service.thresholds})

    return take
