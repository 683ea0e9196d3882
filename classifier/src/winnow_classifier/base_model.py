"""Where a base model's files are, whether they are all there, and what identifies them."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from winnow_classifier.errors import BaseModelError
from winnow_classifier.files import sha256_of_files

if TYPE_CHECKING:
    from winnow_classifier.base_bucket import BaseBucket
    from winnow_classifier.base_download import RemoteModel, Told

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
ADAPTER_CONFIG = "adapter_config.json"
_NOT_TRAINED = (".gguf", ".onnx", ".h5", ".msgpack")
COMMIT = re.compile(r"[0-9a-f]{40}")
VERSION = re.compile(r"[0-9a-f]{64}")
_SAVE_ANEW = (
    "read config, weights and tokenizer with transformers, and write them with save_pretrained into a new folder; what "
    "comes by huggingFace or s3 is converted by itself"
)
_PICKLED_SHARD = re.compile(r"pytorch_model-\d+-of-\d+\.bin")
REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


class Hub(Protocol):
    """Where `hf://` leads. All raise BaseModelError if it refuses, StorageError if it cannot be reached."""

    def commit(self, repository: str, revision: str) -> str:
        """The commit that a branch or tag names now."""

    def files(self, repository: str, commit: str) -> Mapping[str, int]:
        """Bytes of each file. Raises BaseModelError where they are no model."""

    def download(self, repository: str, commit: str, directory: Path, names: Collection[str]) -> None:
        """These files."""


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
    from winnow_classifier.base_download import downloaded

    directory = Path(reference)
    if is_remote(reference):
        directory = downloaded(remote_model(reference, storage, hub, bucket), told=told)
    model_files(directory)
    return directory


def resolve_tokenizer(
    reference: str, storage: Path | None, hub: Hub | None = None, bucket: BaseBucket | None = None
) -> Path:
    """A folder with config and tokenizer of `reference`, downloaded without the weights if these are not there: who only
    reads texts need not wait for gigabytes, nor have room for them. Raises as `resolve` does."""
    from winnow_classifier.base_download import downloaded

    directory = Path(reference)
    if is_remote(reference):
        directory = downloaded(remote_model(reference, storage, hub, bucket), weights=False)
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
    names = [path.name for path in directory.iterdir()]
    if CONFIG not in names:
        raise BaseModelError(f"Base model {directory} has no {CONFIG}.", instead_of(names))
    index = directory / WEIGHTS_INDEX
    if (directory / WEIGHTS).is_file():
        weights = [directory / WEIGHTS]
    elif index.is_file():
        weights = [index, *(required(directory, name) for name in shard_names(index))]
    else:
        pickled = any((directory / name).is_file() for name in (PICKLED, PICKLED_INDEX))
        raise BaseModelError(f"Base model {directory} has no {WEIGHTS}.", _SAVE_ANEW if pickled else instead_of(names))
    if ADAPTER_CONFIG in names:
        # transformers would load it into the model, and then save the adapter alone.
        raise BaseModelError(
            f"Base model {directory} has an adapter beside its weights ({ADAPTER_CONFIG}), and nothing says whether it is in them already.",
            hint="take its files away if it is, or if it is not meant; else add it with peft's merge_and_unload, and save the model anew",
        )
    return [directory / CONFIG, *weights, *tokenizer_files(directory)]


def tokenizer_files(directory: Path) -> list[Path]:
    if not (directory / TOKENIZER).is_file():
        older = any((directory / name).is_file() for name in VOCABULARIES)
        raise BaseModelError(f"Base model {directory} has no {TOKENIZER}.", _SAVE_ANEW if older else None)
    return [directory / name for name in TOKENIZER_FILES if (directory / name).is_file()]


def lacking(names: Collection[str]) -> str | None:
    """What these files of a published folder would need to be a model, in any form; None if they are one."""
    forms = [(CONFIG,), (WEIGHTS, WEIGHTS_INDEX, PICKLED, PICKLED_INDEX), (TOKENIZER, *VOCABULARIES)]
    return next((form[0] for form in forms if not any(name in names for name in form)), None)


def instead_of(names: Collection[str]) -> str | None:
    """Where these files of a folder lack a model: what to take in place of it."""
    if ADAPTER_CONFIG in names:
        return "it is an adapter: name the model that it was made for"
    other = next((name for name in sorted(names) if name.endswith(_NOT_TRAINED)), None)
    if other is None or any(name.endswith((".safetensors", ".bin")) for name in names):
        return None
    return f"{other} is of a form that is not trained: name the model that it was made of, in safetensors"


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


def remote_model(reference: str, storage: Path | None, hub: Hub | None, bucket: BaseBucket | None) -> RemoteModel:
    from winnow_classifier.base_bucket import BaseBucket
    from winnow_classifier.base_download import RemoteModel
    from winnow_classifier.base_hub import HuggingFaceHub

    if storage is None:
        raise BaseModelError(f"{reference} needs a storage folder to be downloaded into.", hint="name it by --storage")
    models = storage / "models"
    if reference.startswith(HUGGING_FACE):
        hub = hub or HuggingFaceHub(os.environ.get("HF_TOKEN"))
        repository, revision = repository_and_revision(reference)
        commit = revision if COMMIT.fullmatch(revision) else hub.commit(repository, revision)
        folder = models / repository.replace("/", "--")
        fetch = partial(hub.download, repository, commit)
        return RemoteModel(reference, folder, commit, partial(hub.files, repository, commit), fetch)
    bucket = bucket or BaseBucket((), os.environ)
    uri, (_, at, version) = without_version(reference), reference.partition("@")
    if at and not VERSION.fullmatch(version):
        raise BaseModelError(f"{reference} is not s3://bucket/prefix, and what is behind its @ is no version.")
    version = version or bucket.version(uri)
    folder, fetch = models / "s3" / bucket.folder(uri), partial(bucket.download, uri, version)
    return RemoteModel(reference, folder, version, partial(bucket.files, uri, version), fetch)
