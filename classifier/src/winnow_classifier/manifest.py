"""A manifest from a YAML file, as a checked value; what is wrong with it in words, field by field."""

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar, get_args

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
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a date such as 2024-13-45
        raise ConfigError(f"{path} is not YAML: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path} is not a {model.__name__} manifest: it holds no mapping")
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise ConfigError(f"{path}: {describe(error, model)}") from error


def describe(error: ValidationError, model: type[BaseModel]) -> str:
    """Pydantic's findings as a user reads them: field, what is wrong, what was found."""
    lines = []
    for finding in error.errors(include_url=False):
        field = ".".join(str(part) for part in finding["loc"]) or "manifest"
        if finding["type"] == "extra_forbidden":
            lines.append(f"{field}: {_unknown(model, finding['loc'])}")
            continue
        message = finding["msg"].removeprefix("Value error, ")
        given = finding.get("input")
        if finding["type"] == "string_type" and isinstance(given, int | float):
            lines.append(f"{field.removesuffix('.[key]')}: {_unquoted(given)}")
            continue
        found = f", found {given!r}" if isinstance(given, str | int | float | bool) else ""
        lines.append(f"{field}: {message}{found}")
    return "; ".join(lines)


def _unquoted(given: float) -> str:
    """What to do about a label that looks like a number, or is one of YAML's words for true and false."""
    if isinstance(given, bool):
        return f"YAML takes this word for {str(given).lower()}; write it in quotes"
    return f'YAML takes this for a number; write it in quotes: "{given}"'


def _unknown(model: type[BaseModel], loc: tuple[int | str, ...]) -> str:
    """What to do about a field that is not there. A model's `ELSEWHERE` has words for names of other programs."""
    holders, name = [model], str(loc[-1])
    for part in loc[:-1]:  # an index of a list, or the name of one of several models, leads nowhere new
        holders = [found for holder in holders for found in _models(holder, part)] or holders
    elsewhere: Mapping[str, str] = {}
    for holder in holders:
        elsewhere = {**elsewhere, **getattr(holder, "ELSEWHERE", {})}
    if words := elsewhere.get(name.lower().replace("_", "").replace("-", "")):
        return words
    names = {field.alias or key: key for holder in holders for key, field in holder.model_fields.items()}
    by_lower = {alias.lower(): alias for alias in names}
    near = get_close_matches(name.lower().replace("_", ""), by_lower, n=1)
    return f"there is no such field; did you mean {by_lower[near[0]]}?" if near else "there is no such field"


def _models(holder: type[BaseModel], part: int | str) -> list[type[BaseModel]]:
    fields = {name: field for key, field in holder.model_fields.items() for name in (key, field.alias)}
    field = fields.get(str(part))
    return list(_in(field.annotation)) if field else []


def _in(annotation: Any) -> Iterator[type[BaseModel]]:
    """The models that a type is made of."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _in(part)
