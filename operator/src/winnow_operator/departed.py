"""Training pods that ended and are gone: their last message is kept, even if a watch tells of end and deletion at once.

They are kept until the end of the training is recorded: the newest pod of each index, of one batch Job at a time.
"""

from __future__ import annotations

from collections import defaultdict

from winnow_operator import pods
from winnow_operator.resources import Key, Object, controller_of, newest


class Departed:
    def __init__(self) -> None:
        self._pods: dict[Key, dict[int, Object]] = defaultdict(dict)

    def keep(self, training: Key, pod: Object) -> None:
        if pods.ended(pod) is None:
            return
        kept = self._pods[training]
        if any(_job(other) != _job(pod) for other in kept.values()):
            kept.clear()
        number = pods.index(pod)
        kept[number] = newest((pod, kept.get(number, pod))) or pod

    def of(self, training: Key) -> tuple[Object, ...]:
        return tuple(self._pods[training].values()) if training in self._pods else ()

    def forget(self, training: Key) -> None:
        self._pods.pop(training, None)


def _job(pod: Object) -> str:
    return str((controller_of(pod) or {}).get("uid"))
