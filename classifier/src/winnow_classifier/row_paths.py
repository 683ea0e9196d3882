"""Which files a path means: a file, a folder with all that is in it, or a glob. Keys of a bucket follow the same rules."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from winnow_classifier.errors import SourceError, StorageError
from winnow_classifier.words import some

MAX_FILES = 10_000  # more is mostly a path that is too short, and each costs an open file or a request
_SHOWN = 10
_WILDCARD = re.compile(r"[*?\[]")


def find_files(paths: Sequence[Path]) -> list[Path]:
    """The files that the paths mean, each path's in sorted order. Raises SourceError where one means none."""
    return [file for path in paths for file in _files(path)]


def common_folder(files: Sequence[Path]) -> str:
    """The folder that holds all of the files, from the working directory on where they are named so."""
    folder = os.path.commonpath([file.absolute().parent for file in files]) if files else ""
    return folder if any(file.is_absolute() for file in files) else os.path.relpath(folder or ".")


def is_glob(path: str) -> bool:
    return _WILDCARD.search(path) is not None


def is_a_path(name: str) -> bool:
    """Whether a name in a bucket or a repository can be that of a file below a folder, and nowhere else."""
    parts = name.split("/")
    usual = all(part not in ("", ".", "..") and len(part.encode(errors="replace")) < 256 for part in parts)
    return usual and "\0" not in name and len(name) <= 1_024


def fixed_part(path: str) -> str:
    """What stands before the first wildcard, up to a slash: `mail/2026/` of `mail/2026/*.csv`."""
    wildcard = _WILDCARD.search(path)
    return path[: path.rfind("/", 0, wildcard.start()) + 1] if wildcard else path


def chosen(names: Iterable[str], pattern: str | None) -> list[str]:
    """The names, relative to a folder, that are row files and fit the pattern; sorted.

    A part that begins with . or _ is left out, as Spark does: _SUCCESS, .crc, checksums and the like beside the rows.
    """
    fits = pattern_of(pattern or "**").fullmatch
    return sorted(name for name in names if not any(map(_hidden, name.split("/"))) and fits(name))


def pattern_of(glob: str) -> re.Pattern[str]:
    """The glob as a pattern for whole paths, hidden ones among them. Raises SourceError where it is none."""
    try:
        return re.compile(_expression(glob), re.DOTALL)
    except re.error as err:
        brackets = "one of its brackets names no character"
        raise SourceError(f"{glob} is no glob: {brackets}", hint="write it as [a-z], [!a-z], or [[] for [") from err


def no_match(looked_for: str, found: Sequence[str], where: str) -> SourceError:
    """What was looked for, and what there is instead."""
    there = f"{where} holds {some(sorted(found), _SHOWN) or 'nothing that could be read'}"
    return SourceError(
        f"{looked_for} means no file: {there}", hint="name a file, a folder or a glob such as *.jsonl.gz"
    )


def too_many(looked_for: str) -> SourceError:
    return SourceError(
        f"{looked_for} means more than {MAX_FILES:,} files", hint="name a narrower one, or join the files"
    )


def _files(path: Path) -> list[Path]:
    try:
        if not path.exists() and is_glob(str(path)):
            folder = Path(fixed_part(str(path)) or ".")
            pattern: str | None = str(path)[len(fixed_part(str(path))) :]
        elif path.is_dir():
            folder, pattern = path, None
        elif path.exists():
            return [path]  # also a pipe
        else:
            raise _missing(path)
        if not folder.is_dir():
            raise _missing(folder, looked_for=path)
        found = chosen(_walk(folder, _depth(pattern)), pattern)
    except OSError as err:
        raise StorageError(f"{err.filename or path} cannot be read: {err.strerror or err}") from err
    if not found:
        raise no_match(str(path), _listed(folder), str(folder))
    if len(found) > MAX_FILES:
        raise too_many(str(path))
    return [folder / name for name in found]


def _missing(path: Path, looked_for: Path | None = None) -> SourceError:
    parent = next((parent for parent in path.parents if parent.is_dir()), Path())
    said = no_match(str(looked_for or path), _listed(parent), str(parent))
    return SourceError(str(said).replace(" means no file:", " does not exist:"), hint=said.hint)


def _listed(folder: Path) -> list[str]:
    """Without the kubelet's own, such as ..data of a mounted ConfigMap."""
    found = [entry for entry in folder.iterdir() if not entry.name.startswith("..")]
    return [entry.name + ("/" if entry.is_dir() else "") for entry in found]


def _walk(folder: Path, depth: int | None) -> Iterator[str]:
    """depth: how many folders down a name may lie; None: any number."""

    def failed(err: OSError) -> None:
        if Path(err.filename or "").name != "lost+found":  # of ext4, for root only
            raise err

    links = _Links(folder)
    for parent, folders, files in os.walk(folder, onerror=failed, followlinks=True):
        at = Path(parent).relative_to(folder)
        down = [] if depth is not None and len(at.parts) >= depth else sorted(folders)
        folders[:] = [name for name in down if not _hidden(name) and links.leads_on(Path(parent, name))]
        for name in files:
            if Path(parent, name).is_file():
                yield (at / name).as_posix()


def _depth(pattern: str | None) -> int | None:
    return None if pattern is None or "**" in pattern else pattern.count("/")


class _Links:
    """Which folders are walked: each once, by whatever name it is come to, so that no row is read twice and a link that leads
    in a circle ends. Links are followed out of the folder, or to what is hidden in it; what lies beside them is read anyway."""

    def __init__(self, folder: Path) -> None:
        self._root = Path(os.path.realpath(folder))
        self._walked = {self._root}

    def leads_on(self, path: Path) -> bool:
        target = Path(os.path.realpath(path))
        if path.is_symlink():
            # Behind a hidden name, as ..data of a mounted ConfigMap, nothing is read by its own path.
            beside = target.is_relative_to(self._root) and not any(map(_hidden, target.relative_to(self._root).parts))
            if beside or self._root.is_relative_to(target):
                return False
        if target in self._walked:
            return False
        self._walked.add(target)
        return True


def _hidden(name: str) -> bool:
    return name[:1] in (".", "_")


def _expression(pattern: str) -> str:
    """A glob as a regular expression: * and ? stay within a folder, ** goes through any number of them."""
    parts = {"**/": "(?:[^/]+/)*", "**": ".*", "*": "[^/]*", "?": "[^/]"}

    def translated(token: re.Match[str]) -> str:
        text = token.group()
        if text.startswith("[") and len(text) > 2:
            inner = re.sub(r"([\\\[&~|])", r"\\\1", text[1:-1])
            return f"[{'^' + inner[1:] if inner.startswith('!') else inner}]"
        return parts.get(text) or re.escape(text)

    return re.sub(r"(?:(?<=/)|^)\*\*/|\*\*|\*|\?|\[!?\]?[^\]/]*\]|.", translated, pattern, flags=re.DOTALL)
