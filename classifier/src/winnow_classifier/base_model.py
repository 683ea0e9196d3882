"""Where a base model's files are, whether they are all there, and what identifies them."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from winnow_classifier.errors import BaseModelError, StorageError

HUGGING_FACE = "hf://"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt", "tokenizer.model")
WEIGHTS, WEIGHTS_INDEX = "model.safetensors", "model.safetensors.index.json"
COMPLETE = ".complete"
REVISION = re.compile(r"[0-9a-f]{40}")
REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")

# (repository, revision, token, folder): fetches config, tokenizer and safetensors; returns the commit it got
Download = Callable[[str, str, str | None, Path], str]


def resolve(reference: str, storage: Path | None, download: Download | None = None) -> Path:
    """The local folder of `reference`: a path, or `hf://repo@revision`, downloaded into `storage/models` once.

    Raises BaseModelError if a file is missing there, and names it.
    """
    if reference.startswith(HUGGING_FACE):
        directory = from_hugging_face(reference, storage, download or snapshot)
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


def from_hugging_face(reference: str, storage: Path | None, download: Download) -> Path:
    repository, _, revision = reference.removeprefix(HUGGING_FACE).partition("@")
    if storage is None:
        raise BaseModelError(f"{reference} needs a storage folder to be downloaded into.")
    if not REPOSITORY.fullmatch(repository):
        raise BaseModelError(f"{reference} is not hf://owner/name@revision.")
    revision = revision or "main"
    models = storage / "models" / repository.replace("/", "--")
    if REVISION.fullmatch(revision) and (models / revision / COMPLETE).is_file():
        return models / revision
    temporary = models / f".tmp-{os.getpid()}"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        commit = download(repository, revision, os.environ.get("HF_TOKEN"), temporary)
        model_files(temporary)
        (temporary / COMPLETE).write_text(commit + "\n")
        if not (models / commit / COMPLETE).is_file():
            shutil.rmtree(models / commit, ignore_errors=True)
            temporary.rename(models / commit)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return models / commit


def snapshot(repository: str, revision: str, token: str | None, directory: Path) -> str:
    """Fetch from the Hugging Face Hub. Raises BaseModelError if it refuses, StorageError if it cannot be reached."""
    import httpx
    from huggingface_hub import HfApi
    from huggingface_hub.errors import (
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    name = f"{HUGGING_FACE}{repository}@{revision}"
    api = HfApi(token=token)
    try:
        commit = api.model_info(repository, revision=revision, timeout=30).sha
        patterns = ["config.json", "*.safetensors", WEIGHTS_INDEX, *TOKENIZER_FILES]
        api.snapshot_download(repository, revision=commit, local_dir=directory, allow_patterns=patterns)
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
    shutil.rmtree(directory / ".cache", ignore_errors=True)
    if commit is None:
        raise StorageError(f"{name}: the Hub named no commit.")
    return str(commit)
