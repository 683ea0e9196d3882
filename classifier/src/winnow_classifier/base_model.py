"""Where a base model's files are, whether they are all there, and what identifies them."""

from __future__ import annotations

import contextlib
import fcntl
import glob
import hashlib
import json
import logging
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING, Protocol

from winnow_classifier.errors import BaseModelError, StorageError, StorageFull
from winnow_classifier.files import is_full, sha256_of_files

if TYPE_CHECKING:
    from winnow_classifier.base_bucket import BaseBucket

log = logging.getLogger(__name__)

HUGGING_FACE = "hf://"
BUCKET = "s3://"
CONFIG, TOKENIZER = "config.json", "tokenizer.json"
TOKENIZER_FILES = (TOKENIZER, "tokenizer_config.json", "special_tokens_map.json", "vocab.txt", "tokenizer.model")
WEIGHTS, WEIGHTS_INDEX = "model.safetensors", "model.safetensors.index.json"
# What was published before these two forms.
PICKLED, PICKLED_INDEX = "pytorch_model.bin", "pytorch_model.bin.index.json"
VOCABULARIES = (
    "vocab.txt",  # of WordPiece
    "vocab.json",
    "merges.txt",
    "tokenizer.model",  # and the others of SentencePiece
    "sentencepiece.bpe.model",
    "spiece.model",
    "spm.model",
    "added_tokens.json",
)
COMPLETE = ".complete"
COMMIT = re.compile(r"[0-9a-f]{40}")
VERSION = re.compile(r"[0-9a-f]{64}")
_SAVE_ANEW = (
    "read config, weights and tokenizer with transformers, and write them with save_pretrained into a new folder; what "
    "comes by huggingFace or s3 is converted by itself"
)
_PICKLED_SHARD = re.compile(r"pytorch_model-\d+-of-\d+\.bin")
STALE_SECONDS = 24 * 3_600
TELL_SECONDS = 2
REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


class Hub(Protocol):
    """Where `hf://` leads. All raise BaseModelError if it refuses, StorageError if it cannot be reached."""

    def commit(self, repository: str, revision: str) -> str:
        """The commit that a branch or tag names now."""

    def files(self, repository: str, commit: str) -> Mapping[str, int]:
        """Bytes of each file. Raises BaseModelError where they are no model."""

    def download(self, repository: str, commit: str, directory: Path, names: Collection[str]) -> None:
        """These files."""


class Told(Protocol):
    """Hears of a download how far it is, in words; None once it is over."""

    def __call__(self, words: str | None, /) -> None: ...


Resolve = Callable[[str, Path | None], Path]


def resolve(
    reference: str,
    storage: Path | None,
    hub: Hub | None = None,
    bucket: BaseBucket | None = None,
    told: Told | None = None,
) -> Path:
    """The local folder of `reference`: a path, or `hf://repo@revision` or `s3://bucket/prefix`, downloaded into
    `storage/models` once.

    Raises BaseModelError if a file is missing there, and names it; StorageError where a later try may help.
    """
    directory = Path(reference)
    if is_remote(reference):
        directory = downloaded(published(reference, storage, hub, bucket), told=told)
    model_files(directory)
    return directory


def resolve_tokenizer(
    reference: str, storage: Path | None, hub: Hub | None = None, bucket: BaseBucket | None = None
) -> Path:
    """A folder with config and tokenizer of `reference`, downloaded without the weights if these are not there: who only
    reads texts need not wait for gigabytes, nor have room for them. Raises as `resolve` does."""
    directory = Path(reference)
    if is_remote(reference):
        directory = downloaded(published(reference, storage, hub, bucket), weights=False)
    tokenizer_files(directory)
    return directory


def is_remote(reference: str) -> bool:
    return reference.startswith((HUGGING_FACE, BUCKET))


def without_version(reference: str) -> str:
    """Of a remote one: where it leads, whatever is there now."""
    return reference.partition("@")[0].rstrip("/")


def model_files(directory: Path) -> list[Path]:
    """The files that make the model: config, weights, tokenizer. Raises BaseModelError naming what is missing."""
    if not directory.is_dir():
        raise BaseModelError(f"Base model: there is no folder {directory}.")
    config = required(directory, CONFIG)
    index = directory / WEIGHTS_INDEX
    if (directory / WEIGHTS).is_file():
        weights = [directory / WEIGHTS]
    elif index.is_file():
        weights = [index, *(required(directory, name) for name in shard_names(index))]
    else:
        pickled = any((directory / name).is_file() for name in (PICKLED, PICKLED_INDEX))
        raise BaseModelError(f"Base model {directory} has no {WEIGHTS}.", _SAVE_ANEW if pickled else None)
    return [config, *weights, *tokenizer_files(directory)]


def tokenizer_files(directory: Path) -> list[Path]:
    if not (directory / TOKENIZER).is_file():
        older = any((directory / name).is_file() for name in VOCABULARIES)
        raise BaseModelError(f"Base model {directory} has no {TOKENIZER}.", _SAVE_ANEW if older else None)
    return [directory / name for name in TOKENIZER_FILES if (directory / name).is_file()]


def lacking(names: Collection[str]) -> str | None:
    """What these files of a published folder would need to be a model, in any form; None if they are one."""
    forms = [(CONFIG,), (WEIGHTS, WEIGHTS_INDEX, PICKLED, PICKLED_INDEX), (TOKENIZER, *VOCABULARIES)]
    return next((form[0] for form in forms if not any(name in names for name in form)), None)


def wanted(names: Iterable[str], *, with_weights: bool = True) -> set[str]:
    """Which files of a published folder make the model: older forms only where there are no safetensors, no tokenizer.json."""
    here = {name for name in names if "/" not in name}
    # Mistral publishes the same weights once more, for its own programs.
    sharded = {name for name in here if name.endswith(".safetensors") and not name.startswith("consolidated")}
    if WEIGHTS in here:
        weights = {WEIGHTS}
    elif WEIGHTS_INDEX in here:
        weights = {WEIGHTS_INDEX} | sharded
    elif PICKLED in here:
        weights = {PICKLED}
    else:
        weights = {name for name in here if name == PICKLED_INDEX or _PICKLED_SHARD.fullmatch(name)}
    tokenizer = TOKENIZER_FILES if TOKENIZER in here else (*TOKENIZER_FILES, *VOCABULARIES)
    return (weights if with_weights else set()) | (here & {CONFIG, *tokenizer})


def required(directory: Path, name: str) -> Path:
    path = directory / name
    if not path.is_file():
        raise BaseModelError(f"Base model {directory} has no {name}.")
    return path


def shard_names(index: Path) -> list[str]:
    try:
        names = sorted(set(json.loads(index.read_bytes())["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BaseModelError(f"{index} is not an index of weights: {error!r}.") from error
    if outside := [name for name in names if name != Path(name).name]:
        raise BaseModelError(f"{index} names {outside[0]!r}, which is no file beside it.")
    return names


def unreadable(what: Path | str, error: Exception) -> BaseModelError:
    """What transformers says of a config or a tokenizer, in words."""
    if needs_code(error):
        return BaseModelError(
            f"{what} needs Python code that came with the model, and code of models is never run.",
            hint="use a model of a type that transformers knows by itself",
        )
    return BaseModelError(f"{what} cannot be read: {error}")


def needs_code(error: Exception) -> bool:
    """Whether transformers raised it because it was not allowed to run what the folder brings."""
    return "trust_remote_code" in str(error)


def digest(directory: Path) -> str:
    """What identifies a base model: `sha256:` of its config and weights, by name and content, not of its tokenizer.

    The tokenizer travels in each checkpoint; an adapter fits exactly these weights.
    """
    files = [path for path in model_files(directory) if path.name not in TOKENIZER_FILES]
    lines = (f"{path.name} {sha256}\n" for path, sha256 in zip(files, sha256_of_files(files), strict=True))
    return "sha256:" + hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()


def pinned(reference: str, directory: Path) -> str:
    """`reference` as it was resolved: the name of a branch is replaced by the commit that it named, and what lies in a
    bucket gets the version that lay there."""
    return f"{without_version(reference)}@{directory.name}" if is_remote(reference) else reference


def repository_and_revision(reference: str) -> tuple[str, str]:
    repository, _, revision = reference.removeprefix(HUGGING_FACE).partition("@")
    if not REPOSITORY.fullmatch(repository):
        raise BaseModelError(f"{reference} is not hf://owner/name@revision.")
    return repository, revision or "main"


@dataclass(frozen=True)
class Published:
    """A version of a remote model, and how to get at its files."""

    reference: str
    folder: Path  # of all its versions in storage
    version: str
    files: Callable[[], Mapping[str, int]]  # bytes of each
    download: Callable[[Path, Collection[str]], None]


def published(reference: str, storage: Path | None, hub: Hub | None, bucket: BaseBucket | None) -> Published:
    if storage is None:
        raise BaseModelError(f"{reference} needs a storage folder to be downloaded into.", hint="name it by --storage")
    models = storage / "models"
    if reference.startswith(HUGGING_FACE):
        hub = hub or HuggingFaceHub(os.environ.get("HF_TOKEN"))
        repository, revision = repository_and_revision(reference)
        commit = revision if COMMIT.fullmatch(revision) else hub.commit(repository, revision)
        folder = models / repository.replace("/", "--")
        fetch = partial(hub.download, repository, commit)
        return Published(reference, folder, commit, partial(hub.files, repository, commit), fetch)
    from winnow_classifier.base_bucket import BaseBucket

    bucket = bucket or BaseBucket((), os.environ)
    uri, (_, at, version) = without_version(reference), reference.partition("@")
    if at and not VERSION.fullmatch(version):
        raise BaseModelError(f"{reference} is not s3://bucket/prefix, and what is behind its @ is no version.")
    version = version or bucket.version(uri)
    folder, fetch = models / "s3" / bucket.folder(uri), partial(bucket.download, uri, version)
    return Published(reference, folder, version, partial(bucket.files, uri, version), fetch)


def downloaded(model: Published, *, weights: bool = True, told: Told | None = None) -> Path:
    """folder/<version>: as it was downloaded before, or now. What is there is whole; without weights it may be
    folder/<version>.tokenizer."""
    from winnow_classifier.older_forms import renew

    whole = model.folder / model.version
    found = whole if weights else model.folder / f"{model.version}.tokenizer"
    for there in (whole, found):
        if (there / COMPLETE).is_file():
            return there
    if told:
        told(f"base model {model.reference} is downloaded")  # perhaps by another pod
    try:
        model.folder.mkdir(parents=True, exist_ok=True)
        with one_at_a_time(model.folder):
            if not (found / COMPLETE).is_file():
                temporary = Path(tempfile.mkdtemp(prefix=".tmp-", dir=model.folder))
                try:
                    temporary.chmod(0o755)
                    _download(model, temporary, weights, told)
                    try:
                        renew(temporary)
                        model_files(temporary) if weights else tokenizer_files(temporary)
                    except BaseModelError as err:
                        raise BaseModelError(str(err).replace(str(temporary), model.reference), err.hint) from err
                    (temporary / COMPLETE).write_text(model.version + "\n")
                    shutil.rmtree(found, ignore_errors=True)
                    temporary.rename(found)
                finally:
                    shutil.rmtree(temporary, ignore_errors=True)
    except OSError as err:
        message = f"{model.folder}: {err.strerror or err}, while {model.reference} was downloaded"
        raise (StorageFull(message, "it needs more room") if is_full(err) else StorageError(message)) from err
    finally:
        if told:
            told(None)
    return found


def _download(model: Published, directory: Path, weights: bool, told: Told | None) -> None:
    sizes = model.files()
    names = wanted(sizes, with_weights=weights)
    size, room = sum(sizes[name] for name in names), shutil.disk_usage(directory).free
    if size > room:
        message = f"{model.folder}: base model {model.reference} has {_in_words(size)}, and {_in_words(room)} are free"
        raise StorageFull(message, "it needs more room")
    log.info("Downloading base model", extra={"reference": model.reference, "version": model.version, "bytes": size})
    with _telling(model.reference, directory, size, told):
        model.download(directory, names)


@contextlib.contextmanager
def _telling(reference: str, directory: Path, size: int, told: Told | None) -> Iterator[None]:
    """How much of it lies in the folder, from time to time."""
    if told is None:
        yield
        return
    over = Event()

    def tell() -> None:
        while True:
            here = min(size, sum(_sizes_below(directory)))
            told(f"base model {reference} is downloaded: {_in_words(here)} of {_in_words(size)}")
            if over.wait(TELL_SECONDS):
                return

    teller = Thread(target=tell, name="download", daemon=True)
    teller.start()
    try:
        yield
    finally:
        over.set()
        teller.join()


def _sizes_below(directory: Path) -> Iterator[int]:
    for path in directory.rglob("*"):
        with contextlib.suppress(OSError):  # renamed meanwhile
            yield path.stat().st_size if path.is_file() else 0


def _in_words(size: int) -> str:
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.1f} MiB"


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

    def files(self, repository: str, commit: str) -> Mapping[str, int]:
        from huggingface_hub import HfApi
        from huggingface_hub.hf_api import RepoFile

        name = f"{HUGGING_FACE}{repository}@{commit}"
        with _hub_errors(name):
            found = HfApi(token=self._token).list_repo_tree(repository, revision=commit)
            sizes = {entry.path: entry.size for entry in found if isinstance(entry, RepoFile)}
        missing = lacking(sizes)
        if missing is not None:
            adapter = (
                "it is an adapter: name the model that it was made for" if "adapter_config.json" in sizes else None
            )
            raise BaseModelError(f"Base model {name} has no {missing}.", adapter)
        return sizes

    def download(self, repository: str, commit: str, directory: Path, names: Collection[str]) -> None:
        from huggingface_hub import HfApi
        from huggingface_hub.utils.tqdm import disable_progress_bars

        disable_progress_bars()  # who waits is told, and a log has a line of JSON for each thing said
        patterns = [glob.escape(name) for name in names]
        with _hub_errors(f"{HUGGING_FACE}{repository}@{commit}"):
            HfApi(token=self._token).snapshot_download(
                repository, revision=commit, local_dir=directory, allow_patterns=patterns
            )
        shutil.rmtree(directory / ".cache", ignore_errors=True)


@contextlib.contextmanager
def _hub_errors(name: str) -> Iterator[None]:
    from httpx2 import HTTPError  # what huggingface_hub asks by
    from huggingface_hub.constants import ENDPOINT
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
        raise StorageError(f"{name} could not be downloaded from {ENDPOINT}: {error}") from error
    except (LocalEntryNotFoundError, HTTPError, OSError) as error:
        if isinstance(error, OSError) and is_full(error):  # said by the one who knows where
            raise
        raise StorageError(f"{name} could not be downloaded from {ENDPOINT}: {error}") from error
    except RuntimeError as error:  # all that hf_xet raises, of proxies and certificates that it does not know, too
        raise StorageError(
            f"{name} could not be downloaded from the Hub's store of large files (Xet): {error}",
            hint="with HF_HUB_DISABLE_XET=1 in the environment they come from the Hub itself",
        ) from error
