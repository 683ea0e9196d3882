"""A manifest from a YAML file, as a checked value; what is wrong with it in words, field by field."""

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, field_validator
from pydantic.alias_generators import to_camel

from winnow_classifier.errors import ConfigError

M = TypeVar("M", bound=BaseModel)


class Manifest(BaseModel):
    """A part of one: names as YAML has them, no others, and numbers that are numbers."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True)

    @field_validator("*", mode="before")
    @classmethod
    def true_is_no_number(cls, value: Any, info: ValidationInfo) -> Any:
        kinds = set(_kinds(cls.model_fields[str(info.field_name)].annotation))
        given = value.values() if isinstance(value, dict) else (value,)
        if kinds & {int, float} and bool not in kinds and any(isinstance(one, bool) for one in given):
            raise ValueError("a number is wanted, and YAML takes this word for true or false")
        return value


class _Loader(yaml.SafeLoader):
    """Without keys that stand twice: YAML forbids them, and PyYAML takes the last one's value."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        assert isinstance(node, yaml.MappingNode)
        seen = set()
        for key, _ in node.value:
            known = (key.tag, str(key.value))
            if known in seen:
                mark = key.start_mark
                raise ValueError(f"line {mark.line + 1}, column {mark.column + 1}: the key {key.value!r} stands twice")
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                seen.add(known)
        return node


def read_manifest(path: Path, model: type[M]) -> M:
    """Raises ConfigError naming file, field and value."""
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _Loader)
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
        given, kind = finding.get("input"), finding["type"]
        if kind == "string_type" and isinstance(given, dict) and finding["loc"][-1] == "constrained-str":
            continue  # of a field that is a text or a mapping: what is wrong with the mapping is told
        loc = _fields(model, finding["loc"])
        field = ".".join(str(part) for part in loc) or "manifest"
        if kind == "extra_forbidden":
            lines.append(f"{field}: {_unknown(model, loc)}")
            continue
        if kind == "string_type" and isinstance(given, int | float):
            lines.append(f"{field.removesuffix('.[key]')}: {_unquoted(given)}")
            continue
        message = finding["msg"].removeprefix("Value error, ")
        if kind == "model_type":
            message = f"must have fields, such as {loc[-1]}: {{{_first_field(_holders(model, loc)[0])}: …}}"
        elif kind == "string_pattern_mismatch" and (wanted := _wanted(model, loc)):
            message = f"must be {wanted}"
        found = f", found {_as_written(given)}" if isinstance(given, str | int | float | None) else ""
        lines.append(f"{field}: {message}{'' if kind == 'missing' else found}")
    return "; ".join(lines)


def _as_written(given: str | float | None) -> str:
    if given is None:
        return "nothing"
    return str(given).lower() if isinstance(given, bool) else repr(given)


def _first_field(model: type[BaseModel]) -> str:
    """As the manifest has it; one that must be there, if any."""
    fields = model.model_fields.items()
    return next((f.alias or name for name, f in fields if f.is_required()), next(f.alias or name for name, f in fields))


def _wanted(model: type[BaseModel], loc: tuple[int | str, ...]) -> str | None:
    """The words that a field has for its pattern."""
    fields = (holder.model_fields.items() for holder in _holders(model, loc[:-1]))
    return next((f.description for some in fields for name, f in some if loc[-1] in (name, f.alias)), None)


def _fields(model: type[BaseModel], loc: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """Without the names of classes that pydantic puts behind a field of several kinds."""
    kinds = [[], *(_models(holder, loc[i]) for i in range(len(loc)) for holder in _holders(model, loc[:i])[:1])]
    return tuple(part for part, before in zip(loc, kinds, strict=False) if part not in [one.__name__ for one in before])


def _holders(model: type[BaseModel], loc: tuple[int | str, ...]) -> list[type[BaseModel]]:
    """The models that a place may hold."""
    holders = [model]
    for part in loc:  # an index of a list leads nowhere new
        holders = [found for holder in holders for found in _models(holder, part)] or holders
    return holders


def _unquoted(given: float) -> str:
    """What to do about a label that looks like a number, or is one of YAML's words for true and false."""
    if isinstance(given, bool):
        return f"YAML takes this word for {str(given).lower()}; write it in quotes"
    return f'YAML takes this for a number; write it in quotes: "{given}"'


def _unknown(model: type[BaseModel], loc: tuple[int | str, ...]) -> str:
    """What to do about a field that is not there. A model's `ELSEWHERE` has words for names of other programs."""
    holders, name = _holders(model, loc[:-1]), str(loc[-1])
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
    kinds = _kinds(field.annotation) if field else ()
    return [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)]


def _kinds(annotation: Any) -> Iterator[Any]:
    """The plain types that a type is made of."""
    parts = get_args(annotation)
    if not parts:
        yield annotation
    for part in parts:
        yield from _kinds(part)
