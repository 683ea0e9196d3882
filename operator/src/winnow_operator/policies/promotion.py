"""Which checkpoint are the pods to serve: the one that the spec chooses, or for now, or again, the one that is live? Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from winnow_operator import api, conditions
from winnow_operator.build import common
from winnow_operator.build.rollout_memory import NOTHING, Memory, TakenBack
from winnow_operator.build.served import Served
from winnow_operator.observed import DeploymentSeen
from winnow_operator.plan import Child, Config
from winnow_operator.policies import gate, rollout
from winnow_operator.policies.checkpoint import Missing, known, resolve
from winnow_operator.reasons import Reason

_SCALING = ("replicas",)  # no reason to try a checkpoint again that was rolled back


@dataclass(frozen=True, slots=True)
class Promotion:
    chosen: Served | Missing  # by the spec
    target: Served | None  # what the pods are to serve; None: they are left alone
    memory: Memory
    held: Reason | None = None  # why the target is not what was chosen: Judging, GateFailed, RolledBack
    message: str = ""  # on what numbers, or why not
    result: api.GateResult | None = None
    children: tuple[Child, ...] = ()  # of the gate
    requeue_after: float | None = None

    @property
    def refused(self) -> bool:
        return self.held in (Reason.GATE_FAILED, Reason.ROLLED_BACK)


def decide(seen: DeploymentSeen, now: datetime, config: Config) -> Promotion:
    chosen, kept = resolve(seen), seen.obj.status.gate
    current, before = Served.of(seen.child) if seen.child else None, memory(seen)
    live = _live(seen)
    if live and before.taken_back and live.digest == before.taken_back.digest:
        live = current  # status calls it live until the rollout back is done
    if current and before.fallback and seen.service and (why := _failure(seen, current, before)):
        # Even if the spec chooses another one by now: what serves must be known to be good.
        return _take_back(seen, chosen, current, before, before.fallback, why, now)
    if isinstance(chosen, Missing):
        return Promotion(chosen, (current or live) if seen.service else None, before, result=kept)
    taken_back = before.taken_back
    if taken_back and (taken_back.digest, taken_back.spec) == (chosen.digest, spec_digest(seen.obj)):
        return Promotion(chosen, current, before, Reason.ROLLED_BACK, taken_back.message, kept)
    if live and live.digest == chosen.digest:
        # The live checkpoint passed the gate when it came: a gate that is raised later takes nothing down.
        verdict = gate.Verdict(True, _how_it_came(seen.obj), kept, gate.leftover(seen))
    else:
        verdict = gate.decide(seen, chosen, live, now, config)
    result, more = verdict.result or kept, verdict.children
    if verdict.passed:
        target, remembered = chosen, _memory(seen, chosen, live, now)
        return Promotion(chosen, target, remembered, None, verdict.message, result, more, verdict.requeue_after)
    held = Reason.JUDGING if verdict.passed is None else Reason.GATE_FAILED
    stays = current or live
    if held is Reason.GATE_FAILED and current and current.digest == chosen.digest:
        stays, before = live, NOTHING  # the gate was raised while it was rolling out
    return Promotion(chosen, stays, before, held, verdict.message, result, more, verdict.requeue_after)


def memory(seen: DeploymentSeen) -> Memory:
    return Memory.of(seen.child)


def spec_digest(deployment: api.Deployment) -> str:
    spec = api.to_raw(deployment.spec)
    return common.digest({name: value for name, value in spec.items() if name not in _SCALING})


def _live(seen: DeploymentSeen) -> Served | None:
    live = seen.obj.status.live
    return next((one for one in known(seen) if live and one.digest == live.digest), None)


def _how_it_came(deployment: api.Deployment) -> str:
    live = deployment.status.live
    return (live.message if live else None) or ""


def _memory(seen: DeploymentSeen, chosen: Served, live: Served | None, now: datetime) -> Memory:
    """What is to be remembered with the chosen checkpoint on its way."""
    current = Served.of(seen.child) if seen.child else None
    if seen.child is None or current is None or live is None:
        return NOTHING
    if current.digest == chosen.digest:
        return memory(seen).settled()
    if live.digest == chosen.digest:
        return NOTHING
    template = seen.child["spec"]["template"] if live.digest == current.digest else memory(seen).template
    return Memory(conditions.timestamp(now), live, template)


def _failure(seen: DeploymentSeen, current: Served, before: Memory) -> str:
    live = seen.obj.status.live
    if live is None or live.digest != current.digest:
        return rollout.failed(seen, current, before)
    until = rollout.watched_until(seen, current)
    return rollout.crash(seen, current, before.since, until) if until is not None else ""


def _take_back(
    seen: DeploymentSeen,
    chosen: Served | Missing,
    failed: Served,
    before: Memory,
    fallback: Served,
    why: str,
    now: datetime,
) -> Promotion:
    message = conditions.shorten(f"{failed.words} was taken back and {fallback.words} serves: {why}", 900)
    taken_back = TakenBack(failed.training_job, failed.checkpoint, failed.digest, spec_digest(seen.obj), message)
    remembered = Memory(conditions.timestamp(now), template=before.template, taken_back=taken_back)
    kept = seen.obj.status.gate
    if isinstance(chosen, Missing):
        return Promotion(chosen, fallback, remembered, result=kept)
    held = Reason.ROLLED_BACK if chosen.digest == failed.digest else Reason.JUDGING
    return Promotion(chosen, fallback, remembered, held, message, kept)
