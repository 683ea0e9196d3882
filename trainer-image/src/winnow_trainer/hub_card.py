"""What a dataset repository of the Hugging Face Hub says of itself: the YAML at the head of its README.md, and the names
of its classes. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson
import yaml

from winnow_classifier.class_labels import ClassNames, of_card, of_features
from winnow_classifier.errors import SourceError

DEFAULT = "default"  # what a configuration without a name is called


class CardError(SourceError):
    """The card cannot be understood."""


@dataclass(frozen=True, slots=True)
class Config:
    """One of the sets that a repository holds, each with its splits."""

    data_files: Mapping[str, tuple[str, ...]] | None = None  # globs by split; None: as the files are called
    data_dir: str = ""
    class_names: Mapping[str, ClassNames] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Card:
    configs: Mapping[str, Config]  # at least one
    default: str | None  # which of them is meant where none is named
    says_files: bool  # whether it names any files


def metadata_of(readme: str) -> dict[str, Any]:
    """The mapping between the first two lines of dashes. Raises CardError where that is no YAML."""
    lines = readme.removeprefix("\ufeff").splitlines()
    if lines[:1] != ["---"] or "---" not in lines[1:]:
        return {}
    return yaml_of("\n".join(lines[1 : lines.index("---", 1)]), "README.md")


def yaml_of(text: str, file: str) -> dict[str, Any]:
    try:
        # libyaml's loader: the cards of benchmarks have thousands of lines, and the pure one takes seconds for them.
        found = yaml.load(text, Loader=yaml.CSafeLoader)
    except (yaml.YAMLError, ValueError, RecursionError) as err:
        said = " ".join(str(err).split())[:200]
        raise CardError(f"its {file} begins with what is no YAML: {said}", hint="mend it there") from err
    return found if isinstance(found, dict) else {}


def card_of(metadata: Mapping[str, Any]) -> Card:
    """Raises CardError where its `configs` cannot be understood."""
    names = _class_names(metadata.get("dataset_info"))
    given = metadata.get("configs") or []
    if not isinstance(given, list) or not all(isinstance(each, dict) and "config_name" in each for each in given):
        raise _odd(f"configs is no list of configurations with a config_name: {given}")
    if not given:
        name = next(iter(names)) if len(names) == 1 else DEFAULT
        return Card({name: Config(class_names=names.get(name, {}))}, name, says_files=False)
    configs = {str(each["config_name"]): _config(each, names) for each in given}
    defaults = [str(each["config_name"]) for each in given if each.get("default") is True]
    only = list(configs) if len(configs) == 1 else list(names) if len(names) == 1 else []
    default = next((name for name in (*defaults, DEFAULT, *only) if name in configs), None)
    return Card(configs, default, any(config.data_files is not None for config in configs.values()))


def class_names_of_infos(infos: bytes, config: str) -> dict[str, ClassNames]:
    """Of dataset_infos.json, which repositories had before cards did."""
    try:
        found = orjson.loads(infos)
        chosen = found.get(config) or (next(iter(found.values())) if len(found) == 1 else {})
        return of_features(chosen.get("features"))
    except (ValueError, AttributeError):
        return {}


def _config(given: Mapping[str, Any], names: Mapping[str, Mapping[str, ClassNames]]) -> Config:
    name = str(given["config_name"])
    files = given.get("data_files")
    directory = given.get("data_dir")
    own = of_card(given.get("features"))
    return Config(
        None if files is None else _data_files(files, name),
        directory.strip("/") if isinstance(directory, str) else "",
        own or names.get(name) or (next(iter(names.values())) if len(names) == 1 and DEFAULT in names else {}),
    )


def _data_files(given: object, config: str) -> dict[str, tuple[str, ...]]:
    """A glob, a list of globs (both for train), or a list of splits, each with a glob or a list."""
    entries = given if isinstance(given, list) else [given]
    if all(isinstance(entry, str) for entry in entries):
        return {"train": tuple(entries)}
    found: dict[str, tuple[str, ...]] = {}
    for entry in entries:
        if not isinstance(entry, dict) or set(entry) != {"split", "path"}:
            raise _odd(f"data_files of {config} has an entry without split and path: {entry}")
        paths = entry["path"] if isinstance(entry["path"], list) else [entry["path"]]
        if not all(isinstance(path, str) for path in paths) or str(entry["split"]) in found:
            raise _odd(f"data_files of {config} has something else than paths, or a split twice: {entry}")
        found[str(entry["split"])] = tuple(paths)
    return found


def _class_names(infos: object) -> dict[str, dict[str, ClassNames]]:
    """By configuration."""
    entries = infos if isinstance(infos, list) else [infos]
    return {
        str(entry.get("config_name", DEFAULT)): of_card(entry.get("features"))
        for entry in entries
        if isinstance(entry, dict)
    }


def _odd(message: str) -> CardError:
    return CardError(f"its README.md cannot be understood: {message[:300]}", hint="mend it there")
