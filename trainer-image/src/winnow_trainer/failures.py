"""What a library raises, turned into the errors that users and the operator know."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from winnow_classifier.errors import OutOfMemoryError_, StorageError, StorageFull

FULL = (errno.ENOSPC, errno.EDQUOT)
SMALLER = "lower parameters.perDeviceTrainBatchSize (and raise gradientAccumulationSteps) or maxSeqLength"


@contextmanager
def in_words(storage: Path) -> Iterator[None]:
    """Raises OutOfMemoryError_, StorageFull or StorageError for what torch, safetensors and the disk say."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise OutOfMemoryError_("There is not enough memory for this training", hint=SMALLER) from error
    except OSError as error:
        if error.errno in FULL:
            raise full(storage) from error
        raise StorageError(f"{error.filename or storage}: {error.strerror or error}") from error
    except Exception as error:
        # Their writers and torch's CPU allocator raise types of their own, and keep the system's word in the text.
        if "No space left on device" in str(error) or "PytorchStreamWriter failed" in str(error):
            raise full(storage) from error
        if "can't allocate memory" in str(error):
            raise OutOfMemoryError_("There is not enough memory for this training", hint=SMALLER) from error
        raise


def full(storage: Path) -> StorageFull:
    return StorageFull(f"{storage}: no space is left", hint="enlarge the volume or delete old runs")
