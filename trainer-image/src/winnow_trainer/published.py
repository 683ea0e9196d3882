"""Checkpoints that one process publishes, known to all processes of the training."""

from __future__ import annotations

from collections.abc import Callable

from winnow_classifier.checkpoint import Manifest, Published
from winnow_trainer.ranks import Ranks


def of_the_first(ranks: Ranks, publish: Callable[[], list[Published]]) -> list[Published]:
    """What `publish` returns in the first process; it runs there only, and the others wait for its result."""
    if ranks.size == 1:
        return publish()
    told = None
    if ranks.leads:
        told = [
            {"manifest": each.manifest.model_dump(mode="json"), "digest": each.digest, "size": each.size_bytes}
            for each in publish()
        ]
    return [
        Published(Manifest.model_validate(each["manifest"]), each["digest"], each["size"]) for each in ranks.tell(told)
    ]
