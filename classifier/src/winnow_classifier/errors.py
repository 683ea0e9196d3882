"""What can go wrong, each with the trainer's exit code and the reason that users script against.

WinnowError
├── ConfigError          10 InvalidConfiguration   the manifest or the command line
│   ├── SourceError      10 SourceUnreachable      there is no such row file, or it may not be fetched
│   │   └── SourceUnavailable 20 SourceUnreachable worth a retry: the network, a server's trouble
│   ├── UploadAbandoned  10 UploadAbandoned        no file came for too long
│   ├── BaseModelError   10 BaseModelInvalid       the base model's folder or repository
│   ├── CheckpointError  10 CheckpointInvalid      a checkpoint that is missing or was changed
│   └── StorageRefused   10 StorageUnavailable     a bucket that these keys may not use, or that is not there
├── DataError            11 InvalidRows            the rows
│   ├── EmptyDatasetError 11 EmptyDataset
│   └── DamagedError      11 DataInvalid          stored rows that are no longer those that were imported
├── OutOfMemoryError_    12 OutOfMemory
├── DivergedError        13 Diverged
├── StorageError         20 StorageUnavailable     worth a retry
│   ├── StorageAway      20 StorageUnavailable     a bucket that does not answer
│   └── StorageFull      20 StorageFull
│       └── NoRoomForUpload 10 StorageFull         the file is gone with it: a retry would have nothing to read
├── NoPeersError         20 PeersUnreachable       processes of one training that do not find each other: worth a retry
├── GpuNotSeen           20 GpuNotSeen             a GPU that was given and does not work: another node may be better
└── PeerLostError        21 PeerLost               nothing is wrong here: another process of the training ended
"""

from typing import ClassVar


class WinnowError(Exception):
    """Its text is one sentence for the user: what, where; `hint` says what to do."""

    exit_code: ClassVar[int] = 1
    reason: ClassVar[str] = "InternalError"

    def __init__(self, message: str, hint: str | None = None) -> None:
        # A file's name may hold bytes that are no UTF-8, and the words have to go into JSON and onto a terminal.
        super().__init__(message.encode(errors="backslashreplace").decode())
        self.hint = hint


class ConfigError(WinnowError):
    exit_code = 10
    reason = "InvalidConfiguration"


class SourceError(ConfigError):
    reason = "SourceUnreachable"


class SourceUnavailable(SourceError):  # noqa: N818 - as StorageFull
    exit_code = 20


class UploadAbandoned(ConfigError):  # noqa: N818 - named as the reason that users read
    reason = "UploadAbandoned"


class BaseModelError(ConfigError):
    reason = "BaseModelInvalid"


class CheckpointError(ConfigError):
    reason = "CheckpointInvalid"


class StorageRefused(ConfigError):  # noqa: N818 - as StorageFull
    reason = "StorageUnavailable"


class DataError(WinnowError):
    exit_code = 11
    reason = "InvalidRows"


class EmptyDatasetError(DataError):
    reason = "EmptyDataset"


class DamagedError(DataError):
    reason = "DataInvalid"


class OutOfMemoryError_(WinnowError):  # noqa: N801, N818 - the plain name would hide torch's
    exit_code = 12
    reason = "OutOfMemory"


class DivergedError(WinnowError):
    exit_code = 13
    reason = "Diverged"


class StorageError(WinnowError):
    exit_code = 20
    reason = "StorageUnavailable"


class StorageAway(StorageError):  # noqa: N818 - as StorageFull
    pass


class StorageFull(StorageError):  # noqa: N818 - named as the reason that users read
    reason = "StorageFull"


class NoRoomForUpload(StorageFull):
    exit_code = 10


class NoPeersError(WinnowError):
    exit_code = 20
    reason = "PeersUnreachable"


class GpuNotSeen(WinnowError):  # noqa: N818 - named as the reason that users read
    exit_code = 20
    reason = "GpuNotSeen"


class PeerLostError(WinnowError):
    exit_code = 21
    reason = "PeerLost"
