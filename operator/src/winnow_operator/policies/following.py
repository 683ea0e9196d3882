"""Which checkpoint does a Deployment mean that follows its ModelService? Pure.

Values are compared only by one metric: that of what is live. Jobs that were judged by another one are not looked at.
"""

from __future__ import annotations

from collections.abc import Iterable

from winnow_operator import api
from winnow_operator.policies import leaders
from winnow_operator.policies.leaders import Leader


def leader(jobs: Iterable[api.TrainingJob], live: api.LiveCheckpoint | None) -> Leader | frozenset[str]:
    """The best one, or the metrics of which none can be preferred; an empty set where no job is complete."""
    found = leaders.complete(jobs)
    metrics = frozenset(one.metric for one in found)
    metric = live.metric if live and live.metric in metrics else None
    if metric is None and len(metrics) != 1:
        return metrics
    return next(one for one in found if metric in (None, one.metric))


def better_than(found: Leader, live: api.LiveCheckpoint) -> bool:
    """Whether it may take over from what is live: one that is no better does not, as after the live one's job was deleted."""
    if live.metric != found.metric or live.value is None:
        return True
    lower_is_better = found.job.status.higher_is_better is False
    return found.value < live.value if lower_is_better else found.value > live.value
