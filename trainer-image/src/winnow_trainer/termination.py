"""The final word of a pod: one compact JSON object that the kubelet keeps, made to fit.

What does not fit is dropped in this order, least needed first; storage has all of it:
  train   metrics of older epochs but the primary; every epoch's metrics but the primary; older epochs and checkpoints,
          but never the best and the last
  import  labels from the end of the list (labelCount stays); long problems and warnings are cut; warnings and problems
          from the end of their lists
  both    the end of the message
"""

import errno
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson

log = logging.getLogger(__name__)

MESSAGE_BYTES = 4_096  # the kubelet cuts here, for each container
KEPT_LABELS = 20
KEPT_PROBLEMS = 5
SHORT_CHARACTERS = 160
Message = dict[str, Any]


def fitted(message: Message, limit_bytes: int = MESSAGE_BYTES) -> bytes:
    """The message as JSON of at most `limit_bytes`. The given one is left as it is."""
    message = orjson.loads(orjson.dumps(message))
    encoded = orjson.dumps(message)
    for shrink in _SHRINKS:
        for _ in shrink(message):
            if len(encoded := orjson.dumps(message)) <= limit_bytes:
                break
        if len(encoded) <= limit_bytes:
            break
    return encoded


def write(path: Path | None, message: Message) -> None:
    """Never fails: the exit code must still be told when this file cannot be written."""
    if path is None:
        return
    try:
        path.write_bytes(fitted(message))
    except OSError as err:
        log.warning(
            "Termination message not written",
            extra={"path": str(path), "error": err.strerror or errno.errorcode.get(err.errno or 0, "")},
        )


Shrink = Callable[[Message], Iterator[None]]  # takes a little more away each time it is asked


def _older_metrics(message: Message) -> Iterator[None]:
    for epoch in message.get("epochs", [])[:-1]:
        if epoch.get("checkpoint") != message.get("bestCheckpoint"):
            _only_primary(epoch, message)
            yield


def _all_metrics(message: Message) -> Iterator[None]:
    for epoch in message.get("epochs", []):
        _only_primary(epoch, message)
        yield


def _only_primary(epoch: Message, message: Message) -> None:
    primary = message.get("primaryMetric")
    epoch["metrics"] = {name: value for name, value in epoch.get("metrics", {}).items() if name == primary}


def _older_epochs(message: Message) -> Iterator[None]:
    numbers = [entry["epoch"] for key in ("epochs", "checkpoints") for entry in message.get(key, [])]
    for number in sorted(set(numbers))[:-1]:
        for key, name in (("checkpoints", "name"), ("epochs", "checkpoint")):
            message[key] = [
                entry
                for entry in message.get(key, [])
                if entry["epoch"] != number or entry.get(name) == message.get("bestCheckpoint")
            ]
        yield


def _labels(message: Message) -> Iterator[None]:
    yield from _from_the_end(message, "labels", KEPT_LABELS)


def _long_texts(message: Message) -> Iterator[None]:
    for key in ("problems", "warnings"):
        for entry in message.get(key, []):
            if len(entry["message"]) > SHORT_CHARACTERS:
                entry["message"] = entry["message"][: SHORT_CHARACTERS - 1] + "…"
                yield


def _lists(message: Message) -> Iterator[None]:
    yield from _from_the_end(message, "warnings", KEPT_PROBLEMS)
    yield from _from_the_end(message, "problems", KEPT_PROBLEMS)
    for key in ("labels", "warnings", "problems"):
        yield from _from_the_end(message, key, 1 if key == "problems" else 0)


def _from_the_end(message: Message, key: str, kept: int) -> Iterator[None]:
    while len(message.get(key, [])) > kept:
        message[key].pop()
        yield


def _words(message: Message) -> Iterator[None]:
    while len(words := message.get("message", "")) > SHORT_CHARACTERS:
        message["message"] = words[: max(SHORT_CHARACTERS, len(words) * 3 // 4) - 1] + "…"
        yield


_SHRINKS: tuple[Shrink, ...] = (_older_metrics, _all_metrics, _older_epochs, _labels, _long_texts, _lists, _words)
