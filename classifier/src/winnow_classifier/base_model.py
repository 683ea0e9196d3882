"""Where a base model's files are, whether they are all there, and what identifies them."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

from winnow_classifier.errors import BaseModelError, StorageError

HUGGING_FACE = "hf://"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt", "tokenizer.model")
WEIGHTS, WEIGHTS_INDEX = "model.safetensors", "model.safetensors.index.json"
COMPLETE = ".complete"
COMMIT = re.compile(r"[0-9a-f]{40}")
STALE_SECONDS = 24 * 3_600
REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


class Hub(Protocol):
    """Where `hf://` leads. Both raise BaseModelError if it refuses, StorageError if it cannot be reached."""

    def commit(self, repository: str, revision: str) -> str:
        """The commit that a branch or tag names now."""

    def download(self, repository: str, commit: str, directory: Path) -> None:
        """Config, tokenizer and safetensors."""


def resolve(reference: str, storage: Path | None, hub: Hub | None = None) -> Path:
    """The local folder of `reference`: a path, or `hf://repo@revision`, downloaded into `storage/models` once.

    Raises BaseModelError if a file is missing there, and names it.
    """
    if reference.startswith(HUGGING_FACE):
        directory = from_hugging_face(reference, storage, hub or HuggingFaceHub(os.environ.get("HF_TOKEN")))
    else:
        directory = Path(reference)
    model_files(directory)
    return directory


def model_files(directory: Path) -> list[Path]:
    """The files that make the model: config, weights, tokenizer. Raises BaseModelError naming what is missing."""
    if not directory.is_dir():
        raise BaseModelError(f"Base model: there is no folder {directory}.")
    config = required(directory, "config.json")
    index = directory / WEIGHTS_INDEX
    if (directory / WEIGHTS).is_file():
        weights = [directory / WEIGHTS]
    elif index.is_file():
        weights = [index, *(required(directory, name) for name in shard_names(index))]
    else:
        pickled = sorted(path.name for path in directory.glob("*.bin"))
        hint = f" Convert {pickled[0]} with save_pretrained: pickled weights are not read." if pickled else ""
        raise BaseModelError(f"Base model {directory} has no {WEIGHTS} (nor {WEIGHTS_INDEX}).{hint}")
    tokenizer = [directory / name for name in TOKENIZER_FILES if (directory / name).is_file()]
    required(directory, "tokenizer.json")
    return [config, *weights, *tokenizer]


def required(directory: Path, name: str) -> Path:
    path = directory / name
    if not path.is_file():
        raise BaseModelError(f"Base model {directory} has no {name}.")
    return path


def shard_names(index: Path) -> list[str]:
    try:
        return sorted(set(json.loads(index.read_bytes())["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BaseModelError(f"{index} is not an index of weights: {error!r}.") from error


def digest(directory: Path) -> str:
    """What identifies a base model: `sha256:` of its config and weights, by name and content, not of its tokenizer.

    The tokenizer travels in each checkpoint; an adapter fits exactly these weights.
    """
    files = [path for path in model_files(directory) if path.name not in TOKENIZER_FILES]
    lines = (f"{path.name} {sha256}\n" for path, sha256 in zip(files, sha256_of_files(files), strict=True))
    return "sha256:" + hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()


def sha256_of_files(paths: Iterable[Path]) -> list[str]:
    """hashlib lets go of the interpreter lock, so the shards of a large model are read side by side."""
    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(sha256_of_file, paths))


def sha256_of_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def pinned(reference: str, directory: Path) -> str:
    """`reference` as it was resolved: the name of a branch is replaced by the commit that it named."""
    if not reference.startswith(HUGGING_FACE):
        return reference
    return f"{HUGGING_FACE}{repository_and_revision(reference)[0]}@{directory.name}"


def repository_and_revision(reference: str) -> tuple[str, str]:
    repository, _, revision = reference.removeprefix(HUGGING_FACE).partition("@")
    if not REPOSITORY.fullmatch(repository):
        raise BaseModelError(f"{reference} is not hf://owner/name@revision.")
    return repository, revision or "main"


def from_hugging_face(reference: str, storage: Path | None, hub: Hub) -> Path:
    if storage is None:
        raise BaseModelError(f"{reference} needs a storage folder to be downloaded into.")
    repository, revision = repository_and_revision(reference)
    commit = revision if COMMIT.fullmatch(revision) else hub.commit(repository, revision)
    models = storage / "models" / repository.replace("/", "--")
    if (models / commit / COMPLETE).is_file():
        return models / commit
    models.mkdir(parents=True, exist_ok=True)
    with one_at_a_time(models):
        if not (models / commit / COMPLETE).is_file():
            temporary = Path(tempfile.mkdtemp(prefix=".tmp-", dir=models))
            try:
                temporary.chmod(0o755)
                hub.download(repository, commit, temporary)
                model_files(temporary)
                (temporary / COMPLETE).write_text(commit + "\n")
                shutil.rmtree(models / commit, ignore_errors=True)
                temporary.rename(models / commit)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
    return models / commit


@contextlib.contextmanager
def one_at_a_time(directory: Path) -> Iterator[None]:
    """The imports of two datasets begin together; gigabytes are fetched by one of them, for both.

    Where a file system knows no locks, both fetch, and the last one stands.
    """
    with (directory / ".lock").open("w") as lock:
        with contextlib.suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_EX)
        for left in directory.glob(".tmp-*"):
            if time.time() - left.stat().st_mtime > STALE_SECONDS:  # of a process that was killed
                shutil.rmtree(left, ignore_errors=True)
        yield


class HuggingFaceHub:
    def __init__(self, token: str | None) -> None:
        self._token = token

    def commit(self, repository: str, revision: str) -> str:
        from huggingface_hub import HfApi

        with _hub_errors(f"{HUGGING_FACE}{repository}@{revision}"):
            found = HfApi(token=self._token).model_info(repository, revision=revision, timeout=30).sha
        if found is None:
            raise StorageError(f"{HUGGING_FACE}{repository}@{revision}: the Hub named no commit.")
        return str(found)

    def download(self, repository: str, commit: str, directory: Path) -> None:
        from huggingface_hub import HfApi

        patterns = ["config.json", "*.safetensors", WEIGHTS_INDEX, *TOKENIZER_FILES]
        with _hub_errors(f"{HUGGING_FACE}{repository}@{commit}"):
            HfApi(token=self._token).snapshot_download(
                repository, revision=commit, local_dir=directory, allow_patterns=patterns
            )
        shutil.rmtree(directory / ".cache", ignore_errors=True)


@contextlib.contextmanager
def _hub_errors(name: str) -> Iterator[None]:
    import httpx
    from huggingface_hub.errors import (
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        yield
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise BaseModelError(
            f"{name} does not exist, or this token may not read it. Check repo, revision and tokenSecretRef."
        ) from error
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else 0
        if status in (401, 403):
            raise BaseModelError(
                f"{name}: access refused ({status}). Accept its licence and check the token."
            ) from error
        raise StorageError(f"{name} could not be downloaded: {error}") from error
    except (LocalEntryNotFoundError, httpx.HTTPError, OSError) as error:
        raise StorageError(f"{name} could not be downloaded: {error}") from error
