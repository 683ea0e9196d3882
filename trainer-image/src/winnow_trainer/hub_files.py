"""Which files of a dataset repository hold the rows of a configuration and a split: those that the `datasets` library
chooses, by the repository's card or else by the names of files and folders. Pure.

The rules are documented at huggingface.co/docs/hub/datasets-file-names-and-splits and datasets-manual-configuration.
"""

from __future__ import annotations

import posixpath
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from winnow_classifier.errors import SourceError
from winnow_classifier.row_paths import is_glob, pattern_of
from winnow_classifier.words import some
from winnow_trainer.hub_card import Card

# What is read, by file name: which of a repository's files are rows is not known before they are fetched.
_KINDS: Mapping[str, str] = {
    "parquet": "Parquet",
    "geoparquet": "Parquet",
    "gpq": "Parquet",
    "jsonl": "JSON",
    "json": "JSON",
    "ndjson": "JSON",
    "csv": "CSV",
    "tsv": "CSV",
}
_FAVOURITES = ("parquet", "jsonl", "json", "csv")  # where a split has as many files of one ending as of another
_NO_ROWS = frozenset(
    ("README.md", "config.json", "dataset_info.json", "dataset_infos.json", "dummy_data.zip", "dataset_dict.json")
)
_KEYWORDS: Mapping[str, tuple[str, ...]] = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "dev", "val"),
    "test": ("test", "testing", "eval", "evaluation"),
}
_SEPARATORS = "-._ 0-9"
_IN_FOLDER_NAMES = ("**/{0}/**", "**/{0}[{1}]*/**", "**/*[{1}]{0}/**", "**/*[{1}]{0}[{1}]*/**")
_IN_FILE_NAMES = ("**/{0}[{1}]*", "**/*[{1}]{0}[{1}]*")
_SHARD = "-[0-9][0-9][0-9][0-9][0-9]-of-[0-9][0-9][0-9][0-9][0-9]*.*"
_SHARD_NAME = re.compile(r"data/(?P<split>[^/]+)-\d{5}-of-\d{5}[^/]*\.[^/]*")
# How the Hub lays out its own conversion of a repository to Parquet; partial- where it holds the first part only.
_CONVERTED = re.compile(r"(?P<config>[^/]+)/(?P<split>[^/]+?)(-part\d+)?/\d{4}\.parquet")
_PARTIAL = "partial-"
_SHOWN = 20
Patterns = dict[str, tuple[str, ...]]  # by split


class ChoiceError(SourceError):
    """What was asked for is not there. Its text begins with "it", the repository."""


class NothingReadable(ChoiceError):  # noqa: N818 - it says what there is
    """The repository has no rows in a form that is read; the Hub's conversion of it may have."""


@dataclass(frozen=True, slots=True)
class Choice:
    config: str
    split: str
    files: tuple[str, ...]  # in the order in which they are read


def choose(paths: Iterable[str], card: Card, repo: str, config: str | None, split: str | None) -> Choice:
    """Raises ChoiceError naming what there is; NothingReadable where the files are of other kinds."""
    found = sorted(set(paths))
    script = f"{repo.rpartition('/')[2]}.py"
    if script in found and not card.says_files:
        raise NothingReadable(f"its rows are made by a program, {script}, and programs of datasets are not run")
    if not any(map(_kind, found)):
        raise NothingReadable(f"it holds no Parquet, JSON or CSV files, but {_visible(found)}")
    name = _one_of("configuration", "config", config, list(card.configs), card.default)
    chosen = card.configs[name]
    patterns = _under(chosen.data_dir, chosen.data_files) if chosen.data_files is not None else None
    if patterns is None:
        patterns = _under(chosen.data_dir, _by_name(found, chosen.data_dir))
    if not patterns:
        raise ChoiceError(f"its folder {chosen.data_dir or '/'} holds no files")
    part = _one_of("split", "split", split, list(patterns), None)
    files = [path for pattern in patterns[part] for path in _matching(found, pattern)]
    readable = tuple(dict.fromkeys(_of_one_kind(files)))  # two globs may fit the same file
    if not readable:
        wanted = ", ".join(patterns[part])
        if not files:
            raise ChoiceError(f"split {part} should lie in {wanted}, where no files are; the repository is incomplete")
        raise NothingReadable(f"split {part} lies in files that are no Parquet, JSON or CSV: {_visible(files)}")
    return Choice(name, part, readable)


def is_conversion(paths: Iterable[str]) -> bool:
    """Whether this is a listing of the Hub's own conversion to Parquet, which has no card."""
    rows = [path for path in paths if not path.startswith(".")]
    return bool(rows) and all(map(_CONVERTED.fullmatch, rows))


def choose_converted(paths: Iterable[str], config: str | None, split: str | None) -> Choice:
    """The same of such a listing. Raises ChoiceError naming what there is."""
    found: dict[str, dict[str, list[str]]] = {}
    for path in sorted(paths):
        if match := _CONVERTED.fullmatch(path):
            found.setdefault(match["config"], {}).setdefault(match["split"], []).append(path)
    if not found:
        raise ChoiceError("its conversion to Parquet holds no files")
    default = "default" if "default" in found else None
    name = _one_of("configuration", "config", config, list(found), default)
    splits = found[name]
    whole = [each for each in splits if not each.startswith(_PARTIAL)]
    if split is not None and split not in splits and f"{_PARTIAL}{split}" in splits:
        message = f"its conversion to Parquet holds only the first part of split {split}"
        raise ChoiceError(message, hint=f"to read that part, set split: {_PARTIAL}{split}")
    part = _one_of("split", "split", split, list(splits), whole[0] if len(whole) == 1 else None)
    return Choice(name, part, tuple(splits[part]))


def _one_of(what: str, field: str, asked: str | None, there: Sequence[str], default: str | None) -> str:
    names = some(there, _SHOWN)
    if asked is not None:
        if asked in there:
            return asked
        raise ChoiceError(f"it has no {what} {asked}; it has {names}", hint=f"set huggingFace.{field} to one of them")
    if default is not None or len(there) == 1:
        return default or there[0]
    raise ChoiceError(f"it has several {what}s: {names}", hint=f"set huggingFace.{field} to one of them")


def _by_name(paths: Sequence[str], directory: str) -> Patterns:
    """The first way of naming splits that fits any file."""
    start = f"{directory}/" if directory else ""
    inside = [path.removeprefix(start) for path in paths if path.startswith(start)]
    shards = _matching(inside, f"data/*{_SHARD}")
    if shards:
        names = {match["split"] for path in shards if (match := _SHARD_NAME.fullmatch(path))}
        ordered = [split for split in _KEYWORDS if split in names] + sorted(names - set(_KEYWORDS))
        return {split: (f"data/{split}{_SHARD}",) for split in ordered}
    for templates in (_IN_FOLDER_NAMES, _IN_FILE_NAMES):
        patterns = {
            split: tuple(template.format(word, _SEPARATORS) for word in words for template in templates)
            for split, words in _KEYWORDS.items()
        }
        if found := {
            split: globs for split, globs in patterns.items() if any(_matching(inside, glob) for glob in globs)
        }:
            return found
    return {"train": ("**",)} if _matching(inside, "**") else {}


def _under(directory: str, patterns: Mapping[str, Sequence[str]]) -> Patterns:
    return {split: tuple(_joined(directory, glob) for glob in globs) for split, globs in patterns.items()}


def _joined(directory: str, glob: str) -> str:
    return posixpath.normpath(posixpath.join(directory, glob))


def _matching(paths: Iterable[str], glob: str) -> list[str]:
    """The files that fit the glob; hidden ones, and those in folders such as __MACOSX, only where the glob itself names
    such."""
    if not is_glob(glob):
        return [path for path in paths if path == glob]
    fits, ignored = pattern_of(glob).fullmatch, _NO_ROWS - {posixpath.basename(glob)}
    hidden, special = _hidden(glob), _special(glob)
    return [
        path
        for path in paths
        if fits(path)
        and posixpath.basename(path) not in ignored
        and _hidden(path) == hidden
        and _special(path) == special
    ]


def _hidden(path: str) -> int:
    return sum(part.startswith(".") and part.strip(".") != "" for part in path.split("/"))


def _special(path: str) -> int:
    return sum(part.startswith("__") for part in path.split("/")[:-1])


def _of_one_kind(files: Sequence[str]) -> list[str]:
    """The files of one format, where the same rows are there in several: the one with the most files."""
    endings = Counter(ending for path in files for ending in _endings(path) if ending in _KINDS)
    if not endings:
        return []
    order = {ending: place for place, ending in enumerate(reversed(_FAVOURITES), 1)}
    best = max(endings, key=lambda ending: (endings[ending], order.get(ending, 0), ending))
    return [path for path in files if _KINDS[best] in {_KINDS.get(ending) for ending in _endings(path)}]


def _kind(path: str) -> str | None:
    if posixpath.basename(path) in _NO_ROWS:
        return None
    return next((_KINDS[ending] for ending in _endings(path) if ending in _KINDS), None)


def _endings(path: str) -> list[str]:
    return [ending.lower() for ending in posixpath.basename(path).split(".")[1:]]


def _visible(paths: Sequence[str]) -> str:
    shown = [path for path in paths if not path.startswith(".")][:5]
    more = len(paths) - len(shown)
    return (", ".join(shown) or "nothing") + (f" and {more} more" if shown and more > 0 else "")
