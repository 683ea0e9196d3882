"""What a library raises, turned into the errors that users and the operator know."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from winnow_classifier import files
from winnow_classifier.errors import OutOfMemoryError_, StorageError, StorageFull

FULL_WORDS = ("No space left on device", "Disk quota exceeded", "PytorchStreamWriter failed")
SMALLER = "lower parameters.perDeviceTrainBatchSize (and raise gradientAccumulationSteps) or maxSeqLength"


@contextmanager
def in_words(storage: Path) -> Iterator[None]:
    """Raises OutOfMemoryError_, StorageFull or StorageError for what torch, safetensors and the disk say."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise OutOfMemoryError_("There is not enough memory for this training", hint=SMALLER) from error
    except OSError as error:
        if is_full(error):
            raise files.full(storage) from error
        raise StorageError(f"{error.filename or storage}: {error.strerror or error}") from error
    except Exception as error:
        if is_full(error) and not isinstance(error, StorageFull):
            raise files.full(storage) from error
        # torch's CPU allocator raises a type of its own, and keeps the system's word in the text.
        if "can't allocate memory" in str(error):
            raise OutOfMemoryError_("There is not enough memory for this training", hint=SMALLER) from error
        raise


def is_full(error: BaseException) -> bool:
    """Whether there was no room for what was written, in storage or a bucket."""
    if isinstance(error, StorageFull):
        return True
    if isinstance(error, OSError):
        return files.is_full(error)
    # The writers of safetensors, tokenizers and torch raise types of their own, and keep the system's word in the text.
    return any(words in str(error) for words in FULL_WORDS)
