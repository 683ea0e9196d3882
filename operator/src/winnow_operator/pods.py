"""What Jobs and pods say about themselves, in the terms of our conditions. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import cast

from winnow_operator.conditions import parse_time
from winnow_operator.reasons import Reason
from winnow_operator.resources import (
    Object,
    being_deleted,
    condition_of,
    is_true,
    name_of,
    namespace_of,
    newest,
    status_of,
)

KILLED_EXIT_CODE = 137  # 128 + SIGKILL: for memory, by force, or with its node; the kubelet's reason tells memory
# Jobs and pods come from two watches: the Job can be seen to end before its pod.
MESSAGE_GRACE = timedelta(seconds=30)
INDEX = "batch.kubernetes.io/job-completion-index"  # a label that the Job controller gives pods with a number
# Configuration, data, memory by the program's own word: the next attempt would end the same.
FINAL_EXIT_CODES = (10, 11, 12)
FOLLOWED_EXIT_CODE = 21  # of a pod that ended because another of its Job did
STOPPED_EXIT_CODE = 143  # 128 + SIGTERM

# Names of the containers that we build. A service mesh or an agent may add others, whose end says nothing about ours.
CONTAINERS = frozenset({"importer", "trainer", "collector", "compare", "server", "waker"})

# Kubernetes' own clients send more than ten like events within ten minutes as one, with this in front.
_PREFIX = r'^(\(combined from similar events\): )?(Error creating: )?((pods|Pod) "[^"]*" is (forbidden|invalid): )?'
_PULL = {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "RegistryUnavailable"}
_CREATE = {"CreateContainerConfigError", "CreateContainerError", "RunContainerError"}


@dataclass(frozen=True, slots=True)
class Ended:
    """How a container ended."""

    exit_code: int
    reason: str  # the kubelet's: Completed, Error, OOMKilled …
    message: str  # the program's termination message
    at: str  # when, as the kubelet has it

    @property
    def out_of_memory(self) -> bool:
        return self.reason == "OOMKilled"

    @property
    def killed(self) -> bool:
        """By SIGKILL, and nobody says why."""
        return self.exit_code == KILLED_EXIT_CODE and not self.out_of_memory


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why a pod does not run; people have to do something, or wait."""

    reason: Reason
    message: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a batch Job ended."""

    complete: bool
    reason: str  # the Job controller's: BackoffLimitExceeded, PodFailurePolicy, DeadlineExceeded …
    message: str
    at: str


def outcome(job: Object) -> Outcome | None:
    """None while the Job may still start pods."""
    for condition in status_of(job).get("conditions") or []:
        if condition["type"] in ("Complete", "Failed") and condition["status"] == "True":
            complete = condition["type"] == "Complete"
            at = condition.get("lastTransitionTime", "")
            return Outcome(complete, condition.get("reason", ""), condition.get("message", ""), at)
    return None


def active(jobs: Iterable[Object]) -> bool:
    """Whether a pod of these batch Jobs may still read or write, or will: one that is being deleted still writes its resume point."""
    return any(outcome(job) is None for job in jobs)


QUEUED = "The batch Job waits to be admitted by its queue"


def queued(job: Object) -> bool:
    """Whether Kueue holds the Job back, which it may do with Jobs that name no queue too: it has no pod until then."""
    return bool(job["spec"].get("suspend"))


def too_few(job: Object, made: Iterable[Object]) -> bool:
    """Whether a Job that may run has fewer pods than it should: they are on their way, or the API server refuses them."""
    if outcome(job) or being_deleted(job) or queued(job):
        return False
    return len(of_each_index(made)) < int(job["spec"].get("parallelism", 1))


def refused(job: Object, events: Iterable[Object]) -> str:
    """Why the last pod could not be created, from the Job controller's events, since a Job has no condition for it. Without
    the pod's name, which is another one each time."""
    last = max(events, key=lambda event: event.get("lastTimestamp") or event.get("eventTime") or "", default=None)
    if last is None:
        return ""
    return _refused(job, last)


def refused_servers(workload: Object) -> str:
    """The same of an apps/v1 Deployment, which has a condition for it."""
    failure = condition_of(workload, "ReplicaFailure")
    if failure is None or (failure["status"], failure.get("reason")) != ("True", "FailedCreate"):
        return ""
    return _refused(workload, failure)


def _refused(maker: Object, told: Object) -> str:
    words = re.sub(_PREFIX, "", str(told.get("message", "")))
    return f"The API server refuses the pods of {maker['kind']} {name_of(maker)}: {words}"


def lack_room(refused: str) -> bool:
    """Whether pods, or the objects that create them, were refused for a quota: as on full nodes, there is room again when
    others end."""
    return "exceeded quota" in refused


def message_awaited(ended: Ended | None, outcome: Outcome, now: datetime) -> bool:
    """Whether the Job was seen to end, and its pod, whose message is wanted, may be seen to end in a moment."""
    return ended is None and now < parse_time(outcome.at) + MESSAGE_GRACE


def _containers(pod: Object) -> list[Object]:
    status = status_of(pod)
    return [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]


def own(pod: Object) -> list[Object]:
    """The status of the pod's container of ours; the kubelet tells of all of them by name."""
    return [one for one in status_of(pod).get("containerStatuses") or [] if one["name"] in CONTAINERS]


def ended(pod: Object) -> Ended | None:
    """How the pod's container ended, or None if it did not (yet), or the kubelet could not tell."""
    for container in own(pod):
        terminated = (container.get("state") or {}).get("terminated")
        if terminated:
            return _ended(terminated)
    return None


def out_of_memory(pods: Iterable[Object]) -> Object | None:
    """The last pod that was killed for its memory, and not because its node was in need."""
    return newest(
        pod for pod in pods if (end := ended(pod)) and end.out_of_memory and not is_true(pod, "DisruptionTarget")
    )


def last_crash(pod: Object) -> Ended | None:
    """How a container that the kubelet always restarts ended badly the last time."""
    for container in own(pod):
        for state in ("state", "lastState"):
            terminated = (container.get(state) or {}).get("terminated")
            if terminated and terminated.get("exitCode") != 0:
                return _ended(terminated)
    return None


def _ended(terminated: Object) -> Ended:
    reason, message = terminated.get("reason", ""), terminated.get("message", "")
    return Ended(int(terminated.get("exitCode", 0)), reason, message, terminated.get("finishedAt") or "")


def running(pod: Object) -> bool:
    return status_of(pod).get("phase") == "Running"


def outlived(pod: Object) -> bool:
    """Whether our container has ended and others keep the pod running, for which the Job waits."""
    return running(pod) and ended(pod) is not None


def over(pod: Object) -> bool:
    """Whether it runs no more. Phase Unknown counts: its node was lost."""
    return status_of(pod).get("phase") in ("Succeeded", "Failed", "Unknown")


def leaving(pods: Iterable[Object]) -> Object | None:
    """One that is told to go and runs still: for as long as it takes to stop, or for ever on a node that was lost."""
    return next((pod for pod in pods if being_deleted(pod) and ended(pod) is None and not over(pod)), None)


def if_lost(pod: Object | None) -> str:
    """What to do if the pod, which is being deleted, never goes because its node and kubelet are gone; empty without a pod."""
    if pod is None:
        return ""
    return f". If its node is gone for good: kubectl delete pod {name_of(pod)} -n {namespace_of(pod)} --force"


def ready(pod: Object) -> bool:
    return is_true(pod, "Ready")


def trouble(pod: Object) -> Trouble | None:
    for container in _containers(pod):
        waiting = (container.get("state") or {}).get("waiting") or {}
        reason, message = waiting.get("reason", ""), waiting.get("message", "")
        if reason in _PULL:
            return Trouble(Reason.IMAGE_PULL_FAILED, _pull_message(pod, container, message))
        if reason in _CREATE:
            return Trouble(Reason.CONTAINER_NOT_CREATED, f"Pod {name_of(pod)}: {message or reason}")
    for condition in status_of(pod).get("conditions") or []:
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return Trouble(Reason.UNSCHEDULABLE, f"Pod {name_of(pod)} finds no node: {condition.get('message', '')}")
    return None


def _pull_message(pod: Object, container: Object, message: str) -> str:
    """The same for ErrImagePull and the ImagePullBackOff after it, so that status does not flicker between the two."""
    detail = message.rpartition("ErrImagePull: ")[2]
    if not detail or detail.startswith("Back-off"):
        detail = f'the image "{container.get("image", "")}" cannot be pulled'
    return f"Pod {name_of(pod)}: {detail}. Check the image's name, and that the nodes can reach its registry"


def index(pod: Object) -> int:
    """The pod's number among those of its Job; 0 where a Job has one."""
    return int((pod["metadata"].get("labels") or {}).get(INDEX, 0))


def of_each_index(pods: Iterable[Object]) -> list[Object]:
    """The newest pod of each number, by number."""
    by_index: dict[int, list[Object]] = {}
    for pod in pods:
        by_index.setdefault(index(pod), []).append(pod)
    return [found for number in sorted(by_index) if (found := newest(by_index[number])) is not None]


def least_far(pods: Iterable[Object]) -> Object | None:
    """Of pods that train together the one that the others wait for: it has trouble, does not run yet, or has ended."""
    found = of_each_index(pods)
    return min(found, key=lambda pod: (trouble(pod) is None, running(pod), ended(pod) is not None), default=None)


def decisive(pods: Iterable[Object]) -> Object | None:
    """Of pods that trained together the one whose end says why the Job ended: the newest that did not end only because
    another one did."""
    over = [(pod, end) for pod in pods if (end := ended(pod))]
    done = [pod for pod, end in over if end.exit_code == 0]
    own = [pod for pod, end in over if end.exit_code not in (FOLLOWED_EXIT_CODE, STOPPED_EXIT_CODE)]
    first = [pod for pod in done if index(pod) == 0]  # it writes the result, and knows of every warning
    return newest(first) or newest(done) or newest(own) or newest([pod for pod, _ in over])


def progress_url(pod: Object) -> str | None:
    """Where a running pod serves /progress; of several the first one does. The IP is the API server's word, never the pod's."""
    ip = status_of(pod).get("podIP")
    if not ip or not running(pod) or index(pod) != 0:
        return None
    for container in cast(list[Object], pod["spec"]["containers"]):
        for port in container.get("ports") or []:
            if port.get("name") == "progress":
                host = f"[{ip}]" if ":" in ip else ip
                return f"http://{host}:{port['containerPort']}/progress"
    return None
