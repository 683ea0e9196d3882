"""What a process knows of the processes that were started with it, from torchrun's variables; without torch."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any, NoReturn


class GroupEnded(Exception):  # noqa: N818 - not always an error
    """How the processes of a training ended: the exit code, and the final word of the one that decides."""

    def __init__(self, exit_code: int, message: dict[str, Any]) -> None:
        super().__init__(message.get("message", ""))
        self.exit_code = exit_code
        self.message = message


def launched() -> bool:
    """Whether this process is one of several that were started together."""
    return "RANK" in os.environ


def leads() -> bool:
    """Whether it is the one that writes and tells: alone, or the first."""
    return os.environ.get("RANK", "0") == "0"


def message_file(path: Path, local_rank: int) -> Path:
    """Where one of several processes of a machine leaves its final word."""
    return path.with_name(f"{path.name}-{local_rank}")


def own_message_file(path: Path | None) -> Path | None:
    return message_file(path, int(os.environ["LOCAL_RANK"])) if path and launched() else path


def leave(exit_code: int) -> NoReturn:
    """Ends this process at once, all being written, instead of taking Python down around the connections to the others.

    After a failure that would wait for processes that are gone. After a good end a thread of Gloo that still holds a tensor
    may want Python when it is half gone, and aborts the process: https://github.com/pytorch/pytorch/pull/179291
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(exit_code)
