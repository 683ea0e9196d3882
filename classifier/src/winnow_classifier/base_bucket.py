"""Base models in a bucket: which version lies there, and its files. What objects are is told by their listing alone."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from winnow_classifier.addresses import Network
from winnow_classifier.base_model import CONFIG, instead_of, lacking, wanted
from winnow_classifier.bucket import Bucket, Stored, name_and_prefix
from winnow_classifier.errors import BaseModelError, ConfigError, StorageError
from winnow_classifier.refusals import told

NAMED = 3  # folders in a message
_RIGHTS = "s3:ListBucket on the bucket and s3:GetObject on its objects"


class BaseBucket:
    """Where `s3://` leads, with keys, endpoint and region from the environment. `keys`: a prefix of their names there;
    without it they are the storage's. Methods raise BaseModelError for what a person has to change, or StorageError."""

    def __init__(self, networks: Sequence[Network], environ: Mapping[str, str], keys: str = "") -> None:
        self._networks, self._environ, self._keys = networks, environ, keys

    def folder(self, uri: str) -> Path:
        """Where it is kept, below other buckets' models."""
        try:
            return Path(*name_and_prefix(uri))
        except ConfigError as err:
            raise BaseModelError(str(err)) from err

    def version(self, uri: str) -> str:
        """Of the model that lies there now."""
        return _digest(self._stored(self._at(uri)))

    def files(self, uri: str, version: str) -> dict[str, int]:
        """Bytes of config, tokenizer and weights, if they are still those of the version."""
        stored = self._stored(self._at(uri))
        if _digest(stored) != version:
            raise BaseModelError(
                f"{uri} holds another model now: version {version} is wanted, its objects are version {_digest(stored)}.",
                hint="put the objects back that were there, under this prefix or under another one that baseModel.s3.uri "
                "then names; or train on those that are there now",
            )
        return {name: stored[name].size_bytes for name in stored}

    def download(self, uri: str, version: str, directory: Path, names: Collection[str]) -> None:
        """These files of the version. Raises StorageError if one of its files changes meanwhile."""
        bucket = self._at(uri)
        for name in sorted(names):
            with _told(bucket):
                is_there = bucket.get(name, directory / name)
            if not is_there:
                raise _changed(uri)
        stored = self._stored(bucket)
        if _digest(stored) != version or any(
            (directory / name).stat().st_size != stored[name].size_bytes for name in names
        ):
            raise _changed(uri)

    def _at(self, uri: str) -> Bucket:
        try:
            return Bucket.at(uri, self._networks, self._environ, self._keys)
        except ConfigError as err:
            raise BaseModelError(str(err), hint=err.hint) from err

    def _stored(self, bucket: Bucket) -> dict[str, Stored]:
        with _told(bucket):
            objects = bucket.objects("")
        _check(bucket.uri(), objects)
        return {name: objects[name] for name in sorted(wanted(objects))}


def _told(bucket: Bucket) -> AbstractContextManager[None]:
    return told(bucket, bucket.uri(), "baseModel.s3", _RIGHTS, BaseModelError)


def _digest(files: Mapping[str, Stored]) -> str:
    lines = (f"{name} {stored.size_bytes} {stored.etag}\n" for name, stored in sorted(files.items()))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _check(uri: str, names: Mapping[str, Stored]) -> None:
    """Before gigabytes are fetched."""
    missing = lacking(names)
    if missing is None:
        return
    hint = instead_of(names)
    folders = sorted(name.removesuffix(f"/{CONFIG}") for name in names if name.endswith(f"/{CONFIG}"))
    if missing == CONFIG and folders:
        hint = "there is one in " + ", ".join(f"{uri}/{folder}" for folder in folders[:NAMED])
    elif missing == CONFIG and hint is None:
        hint = "check baseModel.s3.uri: it names the model's folder"
    raise BaseModelError(f"Base model {uri} has no {missing}.", hint)


def _changed(uri: str) -> StorageError:
    return StorageError(f"{uri} was changed while it was downloaded", hint="try again once all its objects are there")
