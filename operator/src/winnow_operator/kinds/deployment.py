"""Deployment: the chosen checkpoint behind a Service, rolled over without an interruption. Pure.

Which checkpoint the pods are to serve is decided in policies/promotion.py; here is what follows from it: children,
conditions, what is live and what was.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from winnow_operator import api, conditions, pods
from winnow_operator.build import common, waker
from winnow_operator.build.served import Served
from winnow_operator.build.server_deployment import server_deployment
from winnow_operator.build.service import service, url
from winnow_operator.build.thresholds import thresholds
from winnow_operator.conditions import Condition, counted, false, true
from winnow_operator.kinds import surroundings
from winnow_operator.observed import DeploymentSeen
from winnow_operator.plan import Apply, Child, Config, Delete, Event, Plan
from winnow_operator.policies import gate, leaders, promotion, rollout
from winnow_operator.policies.checkpoint import Missing
from winnow_operator.policies.promotion import Promotion
from winnow_operator.reasons import Reason
from winnow_operator.resources import Object, being_deleted, status_of

HISTORY = 20


@dataclass(frozen=True, slots=True)
class _Rollout:
    """What the apps/v1 Deployment and its pods say."""

    replicas: int
    ready: int
    done: bool  # all replicas run what is asked for, and no older pod is left
    failed: str = ""  # why new pods do not come up
    refused: str = ""  # why no pods can be made
    paused: bool = False  # by a person, and before all pods run what is asked for


@dataclass(frozen=True, slots=True)
class _State:
    reason: Reason
    message: str
    live: bool = False  # the checkpoint that the spec asks for is what is served
    final: bool = False  # nothing will change without a person


def plan(seen: DeploymentSeen, now: datetime, config: Config) -> Plan:
    decided = promotion.decide(seen, now, config)
    progress = _rollout(seen, decided.target)
    state = _told_of_storage(seen, _state(seen, decided, progress))
    live, history = _live(seen, decided, progress, now)
    watched = _watched(seen, decided, live, now)
    promoted = _promoted(seen, decided, state, live, watched)
    found = [*_conditions(seen, state, progress, promoted), *surroundings.conditions(seen)]
    candidate = decided.chosen if isinstance(decided.chosen, Served) else None
    status = conditions.status(
        seen.obj,
        found,
        now,
        url=url(seen.obj) if candidate or seen.child else None,
        live=live,
        candidate=_name(candidate) if candidate and (live or {}).get("digest") != candidate.digest else None,
        gate=api.to_raw(decided.result) if decided.result else None,
        history=history,
        replicas=progress.replicas,
        readyReplicas=progress.ready,
        labelSelector=",".join(f"{key}={value}" for key, value in common.selector(seen.obj).items()),
        summary=_summary(state, live),
    )
    left = (watched - now).total_seconds() if watched else None
    waits = [seconds for seconds in (decided.requeue_after, left) if seconds is not None]
    children = (*_children(seen, decided, progress, config), *surroundings.children(seen))
    return Plan(children, status, min(waits, default=None), _news(seen, decided, found))


def _children(seen: DeploymentSeen, decided: Promotion, progress: _Rollout, config: Config) -> tuple[Child, ...]:
    """While the chosen checkpoint is not there or not let through, the one that is served goes on, and is scaled as asked."""
    if seen.service is None or decided.target is None:
        return decided.children
    networks = config.fetch.allowed_networks
    workload = server_deployment(
        seen.obj, seen.service, decided.target, decided.memory, image=config.server_image, networks=networks
    )
    # The Service first: a name that is taken shows before any pod is started for it, and clients are led to the waker before
    # the last pod is told to go.
    front = service(seen.obj, asleep=_asleep(seen, progress))
    return (Apply(front), Apply(thresholds(seen.obj)), Apply(workload), *_waker(seen, config), *decided.children)


def _waker(seen: DeploymentSeen, config: Config) -> tuple[Child, ...]:
    if waker.asked_for(seen.obj):
        return (Apply(waker.pods_service(seen.obj)), Apply(waker.waker(seen.obj, image=config.server_image)))
    # One after the other: what the waker still holds reaches the pods by that Service.
    return tuple(Delete(obj) for obj in seen.waker[:1] if not being_deleted(obj))


def _asleep(seen: DeploymentSeen, progress: _Rollout) -> bool:
    """Whether requests are to be held: no pod is ready, or none will be in a moment."""
    return waker.asked_for(seen.obj) and (progress.ready == 0 or seen.obj.spec.replicas == 0)


def _holding(seen: DeploymentSeen) -> bool:
    """Whether the waker's pod is ready."""
    return any(int(status_of(obj).get("readyReplicas", 0)) > 0 for obj in seen.waker)


def _rollout(seen: DeploymentSeen, target: Served | None) -> _Rollout:
    if seen.child is None:
        return _Rollout(0, 0, done=False)
    status, spec = status_of(seen.child), seen.child["spec"]
    asked = int(spec.get("replicas", 1))
    observed = rollout.observed(seen.child)
    total, updated = int(status.get("replicas", 0)), int(status.get("updatedReplicas", 0))
    current = target is not None and Served.of(seen.child) == target and asked == seen.obj.spec.replicas
    available = int(status.get("availableReplicas", 0))
    done = bool(current and observed and updated == asked and total == asked and available >= asked)
    refused = "" if done else rollout.refused(seen)
    failed = "" if done or target is None else _why_not(seen, target, refused)
    paused = bool(spec.get("paused")) and not (updated == asked == total)
    return _Rollout(total, int(status.get("readyReplicas", 0)), done, failed, refused, paused)


def _why_not(seen: DeploymentSeen, target: Served, refused: str) -> str:
    """What a new pod said before it ended, why it cannot start, or that the Deployment gave up waiting, though it may make pods."""
    return (
        rollout.keeps_down(seen, target)
        or rollout.trouble(seen, target)
        or ("" if refused else rollout.overdue(seen, target, promotion.memory(seen)))
    )


def _state(seen: DeploymentSeen, decided: Promotion, progress: _Rollout) -> _State:
    chosen = decided.chosen
    if isinstance(chosen, Missing):
        return _State(chosen.reason, chosen.message, final=chosen.final)
    if refusal := seen.refusal or surroundings.refusal_told_nowhere_else(seen):
        return _State(refusal.reason, refusal.message, final=refusal.final)
    what = f"Checkpoint {chosen.checkpoint} of TrainingJob {chosen.training_job}"
    if decided.held:
        return _held(seen, decided, progress, what)
    if progress.failed:
        return _State(Reason.CHECKPOINT_FAILED, f"{what} does not come up: {progress.failed}", final=True)
    if progress.paused:
        child = f"deployments.apps/{seen.obj.metadata.name} -n {seen.obj.metadata.namespace}"
        message = f"{what} waits, as somebody has paused the rollout; `kubectl rollout resume {child}` lets it go on"
        return _State(Reason.PAUSED, message, final=True)
    if progress.done and seen.obj.spec.replicas == 0:
        return _at_zero(seen, what)
    unknown = _unknown_labels(seen, chosen)
    if progress.done and unknown:
        message = f"{what} is served, but spec.thresholds names labels that it lacks: {', '.join(unknown[:10])}"
        return _State(Reason.THRESHOLDS_DIFFER, message, final=True)
    if progress.done:
        return _State(Reason.LIVE, _served_by(seen, progress, what), live=True)
    waiting = next((trouble for pod in seen.pods if (trouble := pods.trouble(pod))), None)
    live = seen.obj.status.live
    here = live is not None and live.digest == chosen.digest and progress.ready > 0
    change = "stopped" if progress.ready > seen.obj.spec.replicas else "started"
    doing = f"{_served_by(seen, progress, what)}; pods are being {change}" if here else f"{what} is being started"
    if progress.refused:
        return _State(Reason.API_REFUSED, f"{doing}. {progress.refused}", final=not pods.lack_room(progress.refused))
    return _State(Reason.ROLLING_OUT, f"{doing}{f'. {waiting.message}' if waiting else ''}")


def _told_of_storage(seen: DeploymentSeen, state: _State) -> _State:
    """Adds that storage is on its way out: what serves goes on, but its pods cannot be started anew."""
    if not seen.storage_leaving:
        return state
    going = (
        f"The volume of ModelService {seen.obj.spec.model_service} is being deleted, with its checkpoints, and waits for"
        " the pods that use it"
    )
    return replace(state, message=f"{state.message}. {going}")


def _at_zero(seen: DeploymentSeen, what: str) -> _State:
    if not waker.asked_for(seen.obj):
        return _State(Reason.SCALED_TO_ZERO, f"{what} is chosen, but no replicas are asked for", live=True)
    if _holding(seen):
        return _State(Reason.ASLEEP, f"{what} is chosen; no pod runs, and requests are held until one does", live=True)
    refused = next((words for obj in seen.waker if (words := pods.refused_servers(obj))), "")
    message = f"{what} is chosen; no pod runs, and the waker is not ready to hold requests"
    return _State(Reason.WAKER_STARTING, f"{message}{f'. {refused}' if refused else ''}")


def _held(seen: DeploymentSeen, decided: Promotion, progress: _Rollout, what: str) -> _State:
    """Why the chosen checkpoint is not served. A Deployment that follows the leaderboard asks for the best checkpoint that
    passes the gate: where the leader does not pass, it has what it asks for."""
    reason, target = decided.held or Reason.JUDGING, decided.target
    message = f"{what} is not live: {decided.message}"
    if seen.obj.spec.follow and target is not None and progress.done and seen.obj.spec.replicas > 0:
        served = _served_by(seen, progress, f"Checkpoint {target.checkpoint} of TrainingJob {target.training_job}")
        return _State(Reason.LIVE, f"{served}. {message}", live=True)
    if target is not None and not progress.done and (why := progress.failed or rollout.waits_for(seen, target)):
        message = f"{message}. Meanwhile {_served_by(seen, progress, target.words)}: {why}"
    return _State(reason, message, final=decided.refused)


def _served_by(seen: DeploymentSeen, progress: _Rollout, what: str) -> str:
    return f"{what} is served by {progress.ready} of {seen.obj.spec.replicas} replicas"


def _unknown_labels(seen: DeploymentSeen, chosen: Served) -> list[str]:
    """Labels with a threshold that the checkpoint lacks; none where its labels are not known, or not all of them."""
    learned = seen.training_job is not None and seen.training_job.metadata.name == chosen.training_job
    status = seen.training.status if seen.training and learned else None
    names = {label.name for label in (status.labels or ())} if status else set()
    if status is None or not names or len(names) != status.label_count:
        return []
    return sorted(label for label in seen.obj.spec.thresholds or {} if label not in names)


def _conditions(seen: DeploymentSeen, state: _State, progress: _Rollout, promoted: Condition) -> list[Condition]:
    if progress.ready > 0:
        available = true("Available", Reason.SERVING, f"Requests are answered by {counted(progress.ready, 'pod')}")
    elif state.reason is Reason.ASLEEP:
        available = false("Available", Reason.ASLEEP, "No pod runs; requests are held until one does")
    else:
        held = "; they are held until one does" if _asleep(seen, progress) and _holding(seen) else ""
        available = false("Available", Reason.NOT_SERVING, f"No pod answers requests{held}")
    # As in apps/v1: True while a rollout goes on and after it succeeded, False when it got stuck or cannot start.
    progressing = Condition(
        "Progressing", state.live or state.reason is Reason.ROLLING_OUT, state.reason, state.message
    )
    ready = conditions.ready(state.live, state.reason, state.message, final=state.final)
    return [available, progressing, promoted, *ready]


def _promoted(
    seen: DeploymentSeen, decided: Promotion, state: _State, live: Object | None, watched: datetime | None
) -> Condition:
    """Whether the chosen checkpoint is live for good."""
    chosen, taken_back = decided.chosen, decided.memory.taken_back
    another = f". Meanwhile {taken_back.message}" if taken_back and taken_back.message != decided.message else ""
    if decided.held and not (decided.held is Reason.JUDGING and seen.refusal):
        status = False if decided.refused else None
        what = f"{chosen.words}: " if isinstance(chosen, Served) and decided.held is not Reason.ROLLED_BACK else ""
        return Condition("Promoted", status, decided.held, f"{what}{decided.message}{another}")
    if isinstance(chosen, Missing) or not live or live.get("digest") != chosen.digest:
        return Condition("Promoted", False if state.final else None, state.reason, f"{state.message}{another}")
    why = f": {live['message']}" if live.get("message") else ""
    if watched is not None:
        until = conditions.timestamp(watched)
        message = f"{chosen.words} is live, and is taken back should its server crash before {until}{why}"
        return Condition("Promoted", None, Reason.WATCHING, message)
    return true("Promoted", Reason.PROMOTED, f"{chosen.words} is live{why}")


def _watched(seen: DeploymentSeen, decided: Promotion, live: Object | None, now: datetime) -> datetime | None:
    """Until when the live checkpoint may be taken back; None where there is nothing to go back to, or its time is over."""
    if decided.memory.fallback is None or decided.target is None or live is None or "since" not in live:
        return None
    if live.get("digest") != decided.target.digest:
        return None
    known = seen.obj.status.live is not None and seen.obj.status.live.digest == decided.target.digest
    promoted = seen.obj.status.condition("Promoted")
    if known and promoted is not None and promoted.status == "True":
        return None
    until = rollout.watch_end(conditions.parse_time(live["since"]), seen.obj.spec.rollout)
    return until if until > now else None


def _live(
    seen: DeploymentSeen, decided: Promotion, progress: _Rollout, now: datetime
) -> tuple[Object | None, list[Object]]:
    """What is live and what was. A checkpoint becomes live with its rollout, and enters the history when the next one is."""
    old, target = seen.obj.status.live, decided.target
    history = [api.to_raw(past) for past in seen.obj.status.history or ()]
    recorded = api.to_raw(old) if old else None
    if not progress.done or target is None or seen.obj.spec.replicas == 0:
        return recorded, history
    if old and (old.training_job, old.checkpoint, old.digest) == (
        target.training_job,
        target.checkpoint,
        target.digest,
    ):
        return recorded, history
    reason, message = _why(seen, decided, target)
    live = {
        **_name(target),
        "since": conditions.timestamp(now),
        **_value(seen, target, history),
        "reason": str(reason),
        **({"message": conditions.shorten(message)} if message else {}),
    }
    if recorded:
        history = [{**recorded, "until": conditions.timestamp(now)}, *history][:HISTORY]
    return live, history


def _why(seen: DeploymentSeen, decided: Promotion, target: Served) -> tuple[Reason, str]:
    """How the target came to be live."""
    if decided.memory.taken_back:
        return Reason.ROLLED_BACK, decided.memory.taken_back.message
    if decided.held is None and gate.was_live(seen.obj, target.digest):
        return Reason.ROLLED_BACK_BY_HAND, "spec.checkpoint names it again"
    return Reason.PROMOTED, "" if decided.held else decided.message


def _value(seen: DeploymentSeen, target: Served, history: list[Object]) -> Object:
    """The primary metric of its job and the value of the checkpoint, as far as they are known."""
    job = seen.training_job
    if job is not None and job.metadata.name == target.training_job:
        value = leaders.value_of(job.status, target.checkpoint)
        return {"metric": job.status.primary_metric, "value": value} if value is not None else {}
    before = next((past for past in history if past.get("digest") == target.digest), {})
    return {name: before[name] for name in ("metric", "value") if name in before}


def _name(served: Served) -> Object:
    return {"trainingJob": served.training_job, "checkpoint": served.checkpoint, "digest": served.digest}


def _news(seen: DeploymentSeen, decided: Promotion, found: list[Condition]) -> tuple[Event, ...]:
    """An event about Promoted only where Ready does not tell the same, and one of what was taken back while the spec asks
    for something else."""
    old = seen.obj.status.conditions or ()
    ready = conditions.news("Ready", found, old)
    told = {event.reason for event in ready}
    outcomes = {Reason.GATE_FAILED, Reason.ROLLED_BACK, Reason.PROMOTED}
    more = [event for event in conditions.news("Promoted", found, old) if event.reason in outcomes - told]
    bad = {Reason.GATE_FAILED, Reason.ROLLED_BACK}
    events = (*ready, *(replace(event, type="Warning" if event.reason in bad else "Normal") for event in more))
    back = decided.memory.taken_back
    if back is None or any(event.reason == Reason.ROLLED_BACK for event in events):
        return events
    head = back.message[:100]  # its beginning only: in a condition other words stand before it, and the end may be cut
    said = any(head in conditions.shorten(condition.message) for condition in found if condition.type == "Promoted")
    said_before = any(head in condition.message for condition in old if condition.type == "Promoted")
    return (*events, Event("Warning", Reason.ROLLED_BACK, back.message)) if said and not said_before else events


def _summary(state: _State, live: Object | None) -> str:
    if state.reason is Reason.ASLEEP:
        return f"Asleep, wakes on request{_goes_on(live)}"
    if state.live and live:
        return f"Live: {live['trainingJob']}/{live['checkpoint']}"
    return f"{'Stalled' if state.final else 'Waiting'}: {state.reason}{_goes_on(live)}"


def _goes_on(live: Object | None) -> str:
    return f"; live: {live['trainingJob']}/{live['checkpoint']}" if live else ""
