"""A manifest from a YAML file, as a checked value; what is wrong with it in words, field by field."""

from pathlib import Path
from typing import TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from winnow_classifier.errors import ConfigError

M = TypeVar("M", bound=BaseModel)


def read_manifest(path: Path, model: type[M]) -> M:
    """Raises ConfigError naming file, field and value."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not YAML: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path} is not a {model.__name__} manifest: it holds no mapping")
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise ConfigError(f"{path}: {describe(error)}") from error


def describe(error: ValidationError) -> str:
    """Pydantic's findings as a user reads them: field, what is wrong, what was found."""
    lines = []
    for finding in error.errors(include_url=False):
        field = ".".join(str(part) for part in finding["loc"]) or "manifest"
        message = finding["msg"].removeprefix("Value error, ")
        given = finding.get("input")
        found = f", found {given!r}" if isinstance(given, str | int | float | bool) else ""
        lines.append(f"{field}: {message}{found}")
    return "; ".join(lines)
