"""Deployment: the chosen checkpoint behind a Service, rolled over without an interruption. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from winnow_operator import api, conditions, pods, report
from winnow_operator.build import common
from winnow_operator.build.server_deployment import Served, server_deployment
from winnow_operator.build.service import service, url
from winnow_operator.build.thresholds import thresholds
from winnow_operator.conditions import Condition, false, true
from winnow_operator.kinds import surroundings
from winnow_operator.observed import DeploymentSeen
from winnow_operator.plan import Apply, Child, Config, Plan
from winnow_operator.policies import failure
from winnow_operator.policies.checkpoint import Missing, resolve
from winnow_operator.reasons import Reason
from winnow_operator.resources import GROUP, Object, status_of

HISTORY = 20


@dataclass(frozen=True, slots=True)
class _Rollout:
    """What the apps/v1 Deployment and its pods say."""

    replicas: int
    ready: int
    done: bool  # all replicas run what is asked for, and none is left of what was before
    failed: str = ""  # why new pods do not come up


@dataclass(frozen=True, slots=True)
class _State:
    reason: Reason
    message: str
    live: bool = False  # the checkpoint that the spec asks for is what is served
    final: bool = False  # nothing will change without a person


def plan(seen: DeploymentSeen, now: datetime, config: Config) -> Plan:
    wanted = resolve(seen)
    rollout = _rollout(seen, wanted)
    children = (*_children(seen, wanted, config), *surroundings.children(seen))
    state = _state(seen, wanted, rollout)
    found = [*_conditions(seen, state, rollout), *surroundings.conditions(seen)]
    live, history = _live(seen, wanted, rollout, now)
    status = conditions.status(
        seen.obj,
        found,
        now,
        url=url(seen.obj) if isinstance(wanted, Served) or seen.child else None,
        live=live,
        history=history,
        replicas=rollout.replicas,
        readyReplicas=rollout.ready,
        labelSelector=",".join(f"{key}={value}" for key, value in common.selector(seen.obj).items()),
        summary=_summary(state, live),
    )
    return Plan(children, status, None, conditions.news("Ready", found, seen.obj.status.conditions or ()))


def _children(seen: DeploymentSeen, wanted: Served | Missing, config: Config) -> tuple[Child, ...]:
    """Without a checkpoint to serve nothing is touched: what was live stays live."""
    if seen.service is None or isinstance(wanted, Missing):
        return ()
    networks = config.fetch.allowed_networks
    workload = server_deployment(seen.obj, seen.service, wanted, image=config.server_image, networks=networks)
    # The Service first: a name that is taken shows before any pod is started for it.
    return (Apply(service(seen.obj)), Apply(thresholds(seen.obj)), Apply(workload))


def _rollout(seen: DeploymentSeen, wanted: Served | Missing) -> _Rollout:
    if seen.child is None:
        return _Rollout(0, 0, done=False)
    status, spec = status_of(seen.child), seen.child["spec"]
    asked = int(spec.get("replicas", 1))
    observed = status.get("observedGeneration", 0) >= seen.child["metadata"].get("generation", 0)
    total, updated = int(status.get("replicas", 0)), int(status.get("updatedReplicas", 0))
    current = isinstance(wanted, Served) and Served.of(seen.child) == wanted and asked == seen.obj.spec.replicas
    available = int(status.get("availableReplicas", 0))
    done = bool(current and observed and updated == asked and total == asked and available >= asked)
    failed = "" if done else _why_not(seen, wanted)
    return _Rollout(total, int(status.get("readyReplicas", 0)), done, failed)


def _why_not(seen: DeploymentSeen, wanted: Served | Missing) -> str:
    """What a new pod said before it ended, why it cannot start, or that the Deployment gave up waiting."""
    if isinstance(wanted, Missing) or seen.child is None:
        return ""
    for pod in sorted(seen.pods, key=lambda pod: str(pod["metadata"]["name"])):
        annotations = pod["metadata"].get("annotations") or {}
        if annotations.get(f"{GROUP}/checkpoint-digest") != wanted.digest or pods.ready(pod):
            continue
        crash = pods.last_crash(pod)
        if crash is not None:
            if crash.out_of_memory:
                return "The server used more memory than resources.limits.memory allows and was killed"
            said = report.parse(report.Serving, crash.message)
            words = said.message if said else crash.message.strip()
            return words or (failure.KILLED if crash.killed else f"The server ended with exit code {crash.exit_code}")
        trouble = pods.trouble(pod)
        if trouble and trouble.reason is not Reason.UNSCHEDULABLE:
            return trouble.message
    for condition in status_of(seen.child).get("conditions") or []:
        if condition["type"] == "Progressing" and condition["status"] == "False":
            return str(condition.get("message", ""))
        if condition["type"] == "ReplicaFailure" and condition["status"] == "True":
            return str(condition.get("message", ""))
    return ""


def _state(seen: DeploymentSeen, wanted: Served | Missing, rollout: _Rollout) -> _State:
    if isinstance(wanted, Missing):
        return _State(wanted.reason, wanted.message, final=wanted.final)
    if seen.refusal:
        return _State(seen.refusal.reason, seen.refusal.message, final=True)
    what = f"Checkpoint {wanted.checkpoint} of TrainingJob {wanted.training_job}"
    if rollout.failed:
        return _State(Reason.CHECKPOINT_FAILED, f"{what} does not come up: {rollout.failed}", final=True)
    if rollout.done and seen.obj.spec.replicas == 0:
        return _State(Reason.SCALED_TO_ZERO, f"{what} is chosen, but no replicas are asked for", live=True)
    unknown = _unknown_labels(seen)
    if rollout.done and unknown:
        message = f"{what} is served, but spec.thresholds names labels that it lacks: {', '.join(unknown[:10])}"
        return _State(Reason.THRESHOLDS_DIFFER, message, final=True)
    if rollout.done:
        return _State(
            Reason.LIVE, f"{what} is served by {rollout.ready} of {seen.obj.spec.replicas} replicas", live=True
        )
    waiting = next((trouble for pod in seen.pods if (trouble := pods.trouble(pod))), None)
    return _State(Reason.ROLLING_OUT, f"{what} is being started{f'. {waiting.message}' if waiting else ''}")


def _unknown_labels(seen: DeploymentSeen) -> list[str]:
    """Labels with a threshold that the checkpoint lacks; none where its labels are not known, or not all of them."""
    status = seen.training.status if seen.training else None
    names = {label.name for label in (status.labels or ())} if status else set()
    if status is None or not names or len(names) != status.label_count:
        return []
    return sorted(label for label in seen.obj.spec.thresholds or {} if label not in names)


def _conditions(seen: DeploymentSeen, state: _State, rollout: _Rollout) -> list[Condition]:
    if rollout.ready > 0:
        available = true("Available", Reason.SERVING, f"{rollout.ready} pods answer requests")
    else:
        available = false("Available", Reason.NOT_SERVING, "No pod answers requests")
    # As in apps/v1: True while a rollout goes on and after it succeeded, False when it got stuck or cannot start.
    progressing = Condition(
        "Progressing", state.live or state.reason is Reason.ROLLING_OUT, state.reason, state.message
    )
    ready = Condition("Ready", state.live, state.reason, state.message)
    found = [available, progressing, ready]
    if state.live:
        return found
    abnormal = conditions.stalled if state.final else conditions.reconciling
    return [*found, abnormal(state.reason, state.message)]


def _live(
    seen: DeploymentSeen, wanted: Served | Missing, rollout: _Rollout, now: datetime
) -> tuple[Object | None, list[Object]]:
    """What is live and what was. A checkpoint becomes live with its rollout, and enters the history when the next one is."""
    old = seen.obj.status.live
    history = [api.to_raw(past) for past in seen.obj.status.history or ()]
    recorded = api.to_raw(old) if old else None
    if not rollout.done or isinstance(wanted, Missing) or seen.obj.spec.replicas == 0:
        return recorded, history
    if old and (old.training_job, old.checkpoint, old.digest) == (
        wanted.training_job,
        wanted.checkpoint,
        wanted.digest,
    ):
        return recorded, history
    if recorded:
        history = [{**recorded, "until": conditions.timestamp(now)}, *history][:HISTORY]
    live = {
        "trainingJob": wanted.training_job,
        "checkpoint": wanted.checkpoint,
        "digest": wanted.digest,
        "since": conditions.timestamp(now),
    }
    return live, history


def _summary(state: _State, live: Object | None) -> str:
    if state.live and live:
        return f"Live: {live['trainingJob']}/{live['checkpoint']}"
    return f"{'Stalled' if state.final else 'Waiting'}: {state.reason}"
