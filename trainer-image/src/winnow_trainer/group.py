"""What a process knows of the processes that were started with it, from torchrun's variables; without torch."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any


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
