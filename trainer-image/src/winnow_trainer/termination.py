"""The final word of a pod: one compact JSON object that the kubelet keeps, made to fit.

What does not fit is dropped in this order, least needed first; storage has all of it:
  train   the names of metrics in each epoch: they are told once, as metricNames, and each epoch has a list of values; then
          metrics of older epochs but the primary; older epochs and checkpoints, but never the best and the last; their
          metrics but the primary; long warnings are cut, then left out
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
MEASURED = ("metrics", "validationMetrics")  # of an epoch
Message = dict[str, Any]


def fitted(message: Message, limit_bytes: int = MESSAGE_BYTES, *, lists: bool = True) -> bytes:
    """The message as JSON of at most `limit_bytes`. The given one is left as it is. Without `lists`, for readers that people
    write, metrics keep their names."""
    encoded = orjson.dumps(message)
    message = orjson.loads(encoded)
    for shrink in _SHRINKS if lists else _SHRINKS[1:]:
        excess = len(encoded) - limit_bytes
        if excess <= 0:
            break
        for freed in shrink(message):
            excess -= freed
            if excess <= 0:
                break
        encoded = orjson.dumps(message)
    return encoded


def tells_all(message: Message) -> bool:
    """Whether all its metrics fit."""
    told = orjson.loads(fitted(message))
    kept = [len(epoch.get(rows, ())) for epoch in told.get("epochs", []) for rows in MEASURED]
    names = len(told.get("metricNames", ()))
    given = [len(epoch.get(rows, ())) for epoch in message.get("epochs", []) for rows in MEASURED]
    return kept == [names if names and count else count for count in given]


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


Shrink = Callable[[Message], Iterator[int]]  # takes a little more away each time, and says how many bytes


def _names_of_metrics(message: Message) -> Iterator[int]:
    epochs = [epoch for epoch in message.get("epochs", []) if any(epoch.get(rows) for rows in MEASURED)]
    names = list(dict.fromkeys(name for epoch in epochs for rows in MEASURED for name in epoch.get(rows, {})))
    if not names:
        return
    before = _size(message)
    message["metricNames"] = names
    for epoch in epochs:
        for rows in MEASURED:
            if values := epoch.get(rows):
                epoch[rows] = [values.get(name) for name in names]
    yield before - _size(message)


def _older_metrics(message: Message) -> Iterator[int]:
    for epoch in message.get("epochs", [])[:-1]:
        if epoch.get("checkpoint") != message.get("bestCheckpoint"):
            yield _only_primary(epoch, message)


def _all_metrics(message: Message) -> Iterator[int]:
    for epoch in message.get("epochs", []):
        yield _only_primary(epoch, message)


def _only_primary(epoch: Message, message: Message) -> int:
    freed, primary = 0, message.get("primaryMetric")
    for rows in MEASURED:
        if before := epoch.get(rows):
            named = before if isinstance(before, dict) else dict(zip(message["metricNames"], before, strict=True))
            epoch[rows] = {name: value for name, value in named.items() if name == primary}
            freed += _size(before) - _size(epoch[rows])
    return freed


def _older_epochs(message: Message) -> Iterator[int]:
    best = message.get("bestCheckpoint")
    numbers = {entry["epoch"] for key in ("epochs", "checkpoints") for entry in message.get(key, [])}
    for number in sorted(numbers)[:-1]:
        freed = 0
        for key, name in (("checkpoints", "name"), ("epochs", "checkpoint")):
            entries = message.get(key, [])
            gone = [entry for entry in entries if entry["epoch"] == number and entry.get(name) != best]
            message[key] = [entry for entry in entries if entry not in gone] if gone else entries
            freed += sum(_size(entry) + 1 for entry in gone)
        yield freed


def _labels(message: Message) -> Iterator[int]:
    yield from _from_the_end(message, "labels", KEPT_LABELS)


def _long_texts(message: Message) -> Iterator[int]:
    for key in ("problems", "warnings"):
        for entry in message.get(key, []):
            yield _cut(entry, SHORT_CHARACTERS)


def _lists(message: Message) -> Iterator[int]:
    for key, kept in (("warnings", KEPT_PROBLEMS), ("problems", KEPT_PROBLEMS)):
        yield from _from_the_end(message, key, kept)
    for key, kept in (("labels", 0), ("warnings", 0), ("problems", 1)):
        yield from _from_the_end(message, key, kept)


def _words(message: Message) -> Iterator[int]:
    while len(message.get("message", "")) > SHORT_CHARACTERS:
        yield _cut(message, max(SHORT_CHARACTERS, len(message["message"]) * 3 // 4))


def _from_the_end(message: Message, key: str, kept: int) -> Iterator[int]:
    while len(message.get(key, [])) > kept:
        yield _size(message[key].pop()) + 1  # and its comma


def _cut(entry: Message, characters: int) -> int:
    words: str = entry["message"]
    if len(words) > characters:
        entry["message"] = words[: characters - 1] + "…"
    return _size(words) - _size(entry["message"])


def _size(value: Any) -> int:
    return len(orjson.dumps(value))


_SHRINKS: tuple[Shrink, ...] = (
    _names_of_metrics,
    _older_metrics,
    _older_epochs,
    _all_metrics,
    _labels,
    _long_texts,
    _lists,
    _words,
)
