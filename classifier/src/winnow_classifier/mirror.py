"""Storage in a bucket, mirrored by a local folder: fetched before a step reads it, stored after a step wrote it.

Everything works on a folder, as on a volume. Names below the folder are names below the bucket's prefix. What is published
is there once its manifest is (dataset.json, checkpoint.json, point.json): it is written last and removed first, so nothing
half is ever met.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from winnow_classifier.addresses import Network
from winnow_classifier.bucket import SCHEME, Bucket
from winnow_classifier.errors import ConfigError, StorageError, StorageFull, StorageRefused
from winnow_classifier.files import MANIFEST, is_full
from winnow_classifier.refusals import KEYS, told

MANIFESTS = ("dataset.json", MANIFEST, "point.json")  # each is written last of its folder


class Mirror:
    """The mirror of a volume: the folder is the storage itself, so there is nothing to fetch and nothing to store."""

    def shown(self, path: Path) -> str:
        """The path as a user finds it."""
        return str(path)

    def sizes(self, folder: Path) -> Mapping[str, int] | None:
        """Bytes of each file that storage has below the folder. None: the files are here, look at them."""
        return None

    def folders(self, folder: Path) -> list[Path]:
        """The folders in this folder, as storage has them."""
        return sorted(path for path in folder.glob("[!.]*") if path.is_dir())

    def fetch(self, path: Path) -> None:
        """The file as storage has it: afterwards it is here, or it is not stored."""

    def refresh(self, path: Path) -> None:
        """As `fetch`, for a file that others read meanwhile: replaced whole, and only if it has changed in storage."""

    def fetch_folder(self, folder: Path, manifest: str) -> None:
        """The same for a published folder: afterwards it is here whole, or it is not here."""

    def store(self, path: Path) -> None:
        """Make storage have the file as it is here: stored, or removed if it is not here."""

    def publish(self, folder: Path, manifest: str) -> None:
        """Store a whole folder. Its `manifest` comes last, so that a half-stored folder counts as not there."""

    def remove(self, path: Path) -> int:
        """Remove a file or folder, here and in storage. Returns the bytes that were freed in a bucket."""
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
        return 0

    def release(self, folder: Path) -> None:
        """Remove the copy here, where storage is elsewhere."""


VOLUME = Mirror()


class BucketMirror(Mirror):
    """Raises StorageRefused for what a person has to change, StorageFull, or StorageError where a later try may help."""

    def __init__(self, root: Path, bucket: Bucket) -> None:
        self.root = root
        self._bucket = bucket
        self._refreshed: dict[Path, str] = {}  # ETags

    def shown(self, path: Path) -> str:
        return self._bucket.uri(self._key(path))

    def sizes(self, folder: Path) -> Mapping[str, int]:
        with self._told(folder):
            return self._bucket.sizes(self._key(folder))

    def times(self, folder: Path) -> Mapping[str, float]:
        """When each file below the folder was stored, in seconds since the epoch, by the server's clock."""
        with self._told(folder):
            found = self._bucket.objects(self._key(folder))
            return {name: stored.timestamp for name, stored in found.items()}

    def folders(self, folder: Path) -> list[Path]:
        names = {name.split("/")[0] for name in self.sizes(folder) if "/" in name}
        return [folder / name for name in sorted(names)]

    def fetch(self, path: Path) -> None:
        with self._told(path):
            self._bucket.get(self._key(path), path)

    def refresh(self, path: Path) -> None:
        with self._told(path):
            etag = self._bucket.etag(self._key(path))
            if etag is not None and etag == self._refreshed.get(path):
                return
            fresh = path.with_name(f".tmp-{path.name}")
            # Also where there seems to be none: only now it is told from a missing bucket, or keys that have run out.
            if self._bucket.get(self._key(path), fresh):
                fresh.replace(path)
                self._refreshed[path] = etag or ""
            else:
                path.unlink(missing_ok=True)
                self._refreshed.pop(path, None)

    def fetch_folder(self, folder: Path, manifest: str) -> None:
        """The manifest at last, so that a process that ends in between leaves no folder that looks whole."""
        shutil.rmtree(folder, ignore_errors=True)
        names = self.sizes(folder)
        if manifest not in names:
            return
        for name in _manifests_last(names):
            self.fetch(folder / name)

    def store(self, path: Path) -> None:
        with self._told(path):
            if path.is_file():
                self._bucket.put(self._key(path), path)
            else:
                self._bucket.remove([self._key(path)])

    def publish(self, folder: Path, manifest: str) -> None:
        names = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file()]
        assert manifest in names
        for name in _manifests_last(names):
            self.store(folder / name)

    def remove(self, path: Path) -> int:
        sizes = self.sizes(path)
        names = list(reversed(_manifests_last(sizes)))
        with self._told(path):
            self._bucket.remove(f"{self._key(path)}/{name}" for name in names)
            self._bucket.remove([] if names else [self._key(path)])
        super().remove(path)
        return sum(sizes.values())

    def release(self, folder: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)

    def _key(self, path: Path) -> str:
        if not path.is_relative_to(self.root) or ".." in path.parts or "\0" in str(path):
            # A bucket, or a manifest in it, may hold any names.
            raise ConfigError(f"{str(path)!r} leads out of {self.root}", hint="the bucket holds what is not Winnow's")
        key = path.relative_to(self.root).as_posix()
        return "" if key == "." else key

    @contextlib.contextmanager
    def _told(self, path: Path) -> Iterator[None]:
        try:
            with told(self._bucket, self.shown(path), "spec.storage.s3", _RIGHTS):
                yield
        except OSError as err:
            message = f"{path}: {err.strerror or err}, while it was fetched or stored"
            hint = "the local copy of what is in the bucket needs more room"
            raise (StorageFull(message, hint) if is_full(err) else StorageError(message)) from err


_RIGHTS = (
    "s3:ListBucket on the bucket, and s3:GetObject, s3:PutObject, s3:DeleteObject and s3:AbortMultipartUpload on its "
    "objects"
)


def is_bucket(storage: str) -> bool:
    return storage.startswith(SCHEME)


@contextlib.contextmanager
def opened(
    storage: str, folder: Path | None, networks: Sequence[Network], environ: Mapping[str, str]
) -> Iterator[tuple[Path, Mirror]]:
    """A folder to work on and what mirrors it: of `--storage DIR` that folder; of `--storage s3://…` `folder`, or a
    temporary one. Keys, endpoint and region are in the environment, as for every S3 tool. Raises ConfigError."""
    if not is_bucket(storage):
        yield Path(storage), VOLUME
        return
    bucket = _bucket(storage, networks, environ)
    with contextlib.ExitStack() as stack:
        root = folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="winnow-")))
        root.mkdir(parents=True, exist_ok=True)
        yield root, BucketMirror(root, bucket)


def _bucket(uri: str, networks: Sequence[Network], environ: Mapping[str, str]) -> Bucket:
    bucket = Bucket.at(uri, networks, environ)
    if not bucket.signs:
        message = f"{uri} needs keys, and {KEYS} are not both there"
        hint = "give the Secret of spec.storage.s3.secretRef both keys; outside a cluster, set them in the environment"
        raise StorageRefused(message, hint=hint)
    return bucket


def _manifests_last(names: Sequence[str] | Mapping[str, int]) -> list[str]:
    return sorted(names, key=lambda name: (name.rpartition("/")[2] in MANIFESTS, name))
