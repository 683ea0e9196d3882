"""Where a base model's files are, whether they are all there, and what identifies them."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from winnow_classifier.addresses import ALLOWING, Network, NotPublicError
from winnow_classifier.errors import BaseModelError, StorageError, StorageFull
from winnow_classifier.files import is_full, sha256_of_files

if TYPE_CHECKING:
    from huggingface_hub import HfApi

    from winnow_classifier.base_bucket import BaseBucket

log = logging.getLogger(__name__)

HUGGING_FACE = "hf://"
BUCKET = "s3://"
CONFIG, TOKENIZER = "config.json", "tokenizer.json"
TOKENIZER_FILES = (TOKENIZER, "tokenizer_config.json", "special_tokens_map.json", "vocab.txt", "tokenizer.model")
WEIGHTS, WEIGHTS_INDEX = "model.safetensors", "model.safetensors.index.json"
COMPLETE = ".complete"
COMMIT = re.compile(r"[0-9a-f]{40}")
VERSION = re.compile(r"[0-9a-f]{64}")
TOKEN = re.compile(r"[!-~]+")
STALE_SECONDS = 24 * 3_600
_ENDPOINT_HINT = "check huggingFace.endpoint (outside a cluster: HF_ENDPOINT)"
REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


class Hub(Protocol):
    """Where `hf://` leads. Both raise BaseModelError if it refuses, StorageError if it cannot be reached."""

    def commit(self, repository: str, revision: str) -> str:
        """The commit that a branch or tag names now."""

    def download(self, repository: str, commit: str, directory: Path) -> None:
        """Config, tokenizer and safetensors."""


Resolve = Callable[[str, Path | None], Path]


def resolve(reference: str, storage: Path | None, hub: Hub | None = None, bucket: BaseBucket | None = None) -> Path:
    """The local folder of `reference`: a path, or `hf://repo@revision` or `s3://bucket/prefix`, downloaded into
    `storage/models` once.

    Raises BaseModelError if a file is missing there, and names it; StorageError where a later try may help.
    """
    if reference.startswith(HUGGING_FACE):
        directory = from_hugging_face(reference, storage, hub or HuggingFaceHub(os.environ.get("HF_TOKEN")))
    elif reference.startswith(BUCKET):
        directory = from_bucket(reference, storage, bucket)
    else:
        directory = Path(reference)
    model_files(directory)
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
        pickled = sorted(path.name for path in directory.glob("*.bin"))
        hint = f" Convert {pickled[0]} with save_pretrained: pickled weights are not read." if pickled else ""
        raise BaseModelError(f"Base model {directory} has no {WEIGHTS} (nor {WEIGHTS_INDEX}).{hint}")
    tokenizer = [directory / name for name in TOKENIZER_FILES if (directory / name).is_file()]
    required(directory, TOKENIZER)
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


def from_hugging_face(reference: str, storage: Path | None, hub: Hub) -> Path:
    models = folder_of_models(reference, storage)
    repository, revision = repository_and_revision(reference)
    commit = revision if COMMIT.fullmatch(revision) else hub.commit(repository, revision)
    return downloaded(reference, models / repository.replace("/", "--"), commit, partial(hub.download, repository))


def from_bucket(reference: str, storage: Path | None, bucket: BaseBucket | None) -> Path:
    from winnow_classifier.base_bucket import BaseBucket

    models = folder_of_models(reference, storage)
    bucket = bucket or BaseBucket((), os.environ)
    uri, (_, at, version) = without_version(reference), reference.partition("@")
    if at and not VERSION.fullmatch(version):
        raise BaseModelError(f"{reference} is not s3://bucket/prefix, and what is behind its @ is no version.")
    version = version or bucket.version(uri)
    return downloaded(reference, models / "s3" / bucket.folder(uri), version, partial(bucket.download, uri))


def folder_of_models(reference: str, storage: Path | None) -> Path:
    if storage is None:
        raise BaseModelError(f"{reference} needs a storage folder to be downloaded into.", hint="name it by --storage")
    return storage / "models"


def downloaded(reference: str, models: Path, version: str, download: Callable[[str, Path], None]) -> Path:
    """models/<version>: as it was downloaded before, or now. What is there is whole."""
    found = models / version
    if (found / COMPLETE).is_file():
        return found
    try:
        models.mkdir(parents=True, exist_ok=True)
        with one_at_a_time(models):
            if not (found / COMPLETE).is_file():
                log.info("Downloading base model", extra={"reference": reference, "version": version})
                temporary = Path(tempfile.mkdtemp(prefix=".tmp-", dir=models))
                try:
                    temporary.chmod(0o755)
                    download(version, temporary)
                    try:
                        model_files(temporary)
                    except BaseModelError as err:
                        raise BaseModelError(str(err).replace(str(temporary), reference)) from err
                    (temporary / COMPLETE).write_text(version + "\n")
                    shutil.rmtree(found, ignore_errors=True)
                    temporary.rename(found)
                finally:
                    shutil.rmtree(temporary, ignore_errors=True)
    except OSError as err:
        message = f"{models}: {err.strerror or err}, while {reference} was downloaded"
        raise (StorageFull(message, "it needs more room") if is_full(err) else StorageError(message)) from err
    return found


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
    """The Hub, or the mirror that HF_ENDPOINT names, which must have a public address or one in `networks` (ADR 97)."""

    def __init__(self, token: str | None, networks: Sequence[Network] = ()) -> None:
        self._token, self._networks = (token or "").strip() or None, networks

    def _api(self) -> HfApi:
        from winnow_classifier.hub_client import client

        if self._token and not TOKEN.fullmatch(self._token):  # the client's own words would have it in them
            raise BaseModelError(
                "the token of tokenSecretRef (HF_TOKEN) is none", hint="it should hold the token alone"
            )
        return client(self._token, self._networks)

    def commit(self, repository: str, revision: str) -> str:
        with _hub_errors(f"{HUGGING_FACE}{repository}@{revision}"):
            found = str(self._api().model_info(repository, revision=revision, timeout=30).sha)
            if not COMMIT.fullmatch(found):  # it names a folder
                raise LookupError("no commit")
        return found

    def download(self, repository: str, commit: str, directory: Path) -> None:
        from huggingface_hub.utils.tqdm import disable_progress_bars

        if not sys.stderr.isatty():  # a log has a line of JSON for each thing said
            disable_progress_bars()
        with _hub_errors(f"{HUGGING_FACE}{repository}@{commit}"):
            self._api().snapshot_download(
                repository,
                revision=commit,
                local_dir=directory,
                allow_patterns=[CONFIG, "*.safetensors", WEIGHTS_INDEX, *TOKENIZER_FILES],
                ignore_patterns=["*/*", "consolidated*"],  # the same weights once more, for Mistral's own programs
            )
        shutil.rmtree(directory / ".cache", ignore_errors=True)


@contextlib.contextmanager
def _hub_errors(name: str) -> Iterator[None]:
    from httpx2 import HTTPError, InvalidURL  # what huggingface_hub asks by

    try:
        from huggingface_hub.constants import ENDPOINT
    except ValueError as error:
        raise BaseModelError(f"{name}: HF_ENDPOINT is no URL: {error}", hint=_ENDPOINT_HINT) from error
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        yield
    except HFValidationError as error:
        raise BaseModelError(f"{name} can be no repository of the Hub: {error}") from error
    except NotPublicError as error:
        message = f"{name}: {error}, which is not public, and base models are fetched from public addresses only"
        raise BaseModelError(message, hint=ALLOWING) from error
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise BaseModelError(
            f"{name} does not exist at {ENDPOINT}, or this token may not read it. Check repo, revision and tokenSecretRef."
        ) from error
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else 0
        if status in (401, 403):
            raise BaseModelError(
                f"{name}: access refused by {ENDPOINT} ({status}). Accept its licence and check the token."
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
    except (InvalidURL, ValueError, LookupError, TypeError, AttributeError) as error:
        # A page in place of JSON, or JSON of another shape: the library looks at neither.
        message = f"{name}: {ENDPOINT} does not answer as the Hub does: {error!r}"
        raise BaseModelError(message, hint=_ENDPOINT_HINT) from error
