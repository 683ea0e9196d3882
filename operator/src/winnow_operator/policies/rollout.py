"""Did a checkpoint that took over, or is about to, fail? What its pods and the apps/v1 Deployment say. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from winnow_operator import api, conditions, pods, report
from winnow_operator.build.common import base_in_words
from winnow_operator.build.rollout_memory import Memory
from winnow_operator.build.served import Served
from winnow_operator.observed import DeploymentSeen
from winnow_operator.policies import failure
from winnow_operator.reasons import Reason
from winnow_operator.resources import GROUP, Object, being_deleted, condition_of, name_of, status_of

# Exit codes that say nothing against a checkpoint: the server was stopped, or storage did not answer. Where it never answers,
# the rollout's deadline ends the wait.
INNOCENT = (0, 20, pods.STOPPED_EXIT_CODE)
KILLS = 3  # of a pod, before SIGKILL is taken for more than an unlucky node's


def crash(seen: DeploymentSeen, served: Served, since: str = "", until: datetime | None = None) -> str:
    """How a server of this checkpoint ended, in words; empty if none ended badly in that time."""
    return _crash(served, _pods(seen, served), since, until)


def keeps_down(seen: DeploymentSeen, served: Served) -> str:
    """The same, of servers that are not ready only: one that is ready again has got over its crash."""
    return _crash(served, [pod for pod in _pods(seen, served) if not pods.ready(pod)])


def _crash(served: Served, found: Iterable[Object], since: str = "", until: datetime | None = None) -> str:
    for pod in found:
        ended = pods.last_crash(pod)
        if ended is None or ended.exit_code in INNOCENT or not _within(ended.at, since, until):
            continue
        if ended.out_of_memory:
            return "The server used more memory than resources.limits.memory allows and was killed"
        if ended.killed and _restarts(pod) < KILLS:
            continue
        said = report.parse(report.Serving, ended.message)
        words = said.message if said else conditions.shorten(ended.message, 500)
        words = base_in_words(served.base_model, words) if served.base_model else words
        code = failure.KILLED if ended.killed else f"The server ended with exit code {ended.exit_code}"
        return f"{code}: {words}" if words else code
    return ""


def _within(at: str, since: str, until: datetime | None) -> bool:
    """What has no time counts."""
    if not at:
        return True
    when = conditions.parse_time(at)
    return (not since or when >= conditions.parse_time(since)) and (until is None or when <= until)


def overdue(seen: DeploymentSeen, served: Served, memory: Memory) -> str:
    """In words, that a rollout made no progress within its deadline, and what it waits for; empty before that."""
    child = seen.child
    if child is None or not observed(child):
        return ""
    progressing = condition_of(child, "Progressing")
    if progressing is None or progressing["status"] != "False":
        return ""
    at = progressing.get("lastUpdateTime") or progressing.get("lastTransitionTime") or ""
    if at and memory.since and conditions.parse_time(at) < conditions.parse_time(memory.since):
        return ""  # it is about the rollout before
    late = f"No further pod became ready within {seen.obj.spec.rollout.deadline_seconds} s (rollout.deadlineSeconds)"
    return f"{late}: {why}" if (why := waits_for(seen, served)) else late


def trouble(seen: DeploymentSeen, served: Served) -> str:
    """Why a pod of this checkpoint cannot start, where that is more than a full node."""
    for pod in _pods(seen, served):
        found = None if pods.ready(pod) else pods.trouble(pod)
        if found and found.reason is not Reason.UNSCHEDULABLE:
            return found.message
    return ""


def refused(seen: DeploymentSeen) -> str:
    """Why no further pod can be created, which is no fault of the checkpoint."""
    return pods.refused_servers(seen.child) if seen.child and observed(seen.child) else ""


def waits_for(seen: DeploymentSeen, served: Served) -> str:
    """What keeps pods of this checkpoint from being ready, as far as Kubernetes says it."""
    unready = [pod for pod in _pods(seen, served) if not pods.ready(pod)]
    return (
        trouble(seen, served)
        or refused(seen)
        or next((found.message for pod in unready if (found := pods.trouble(pod))), "")
    )


def failed(seen: DeploymentSeen, served: Served, memory: Memory) -> str:
    """Why a rollout that is not done has failed; empty while it may succeed."""
    return crash(seen, served, memory.since) or overdue(seen, served, memory)


def watched_until(seen: DeploymentSeen, served: Served) -> datetime | None:
    """Until when a checkpoint that is live may be taken back; None if it is not, or was found good already."""
    status = seen.obj.status
    if status.live is None or status.live.digest != served.digest or status.live.since is None:
        return None
    promoted = status.condition("Promoted")
    if promoted is not None and promoted.status == "True":
        return None
    return watch_end(status.live.since, seen.obj.spec.rollout)


def watch_end(since: datetime, spec: api.Rollout) -> datetime:
    return since.astimezone(UTC) + timedelta(seconds=spec.watch_seconds)


def observed(child: Object) -> bool:
    """Whether its controller has seen the version at hand."""
    return bool(status_of(child).get("observedGeneration", 0) >= child["metadata"].get("generation", 0))


def _pods(seen: DeploymentSeen, served: Served) -> list[Object]:
    return [
        pod
        for pod in sorted(seen.pods, key=name_of)
        if (pod["metadata"].get("annotations") or {}).get(f"{GROUP}/checkpoint-digest") == served.digest
        and not being_deleted(pod)
    ]


def _restarts(pod: Object) -> int:
    return max((int(one.get("restartCount", 0)) for one in pods.own(pod)), default=0)
