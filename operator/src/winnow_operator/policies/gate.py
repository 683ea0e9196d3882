"""May a checkpoint get traffic? What a Job measured once, held against spec.gate as often as that changes. Pure.

The Job's name hangs on what is asked of it, and its answer is kept in status with the digests that it is about: so nothing is
measured twice, whoever asks.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from winnow_operator import api, conditions, pods, report
from winnow_operator.build.compare_job import Measurement, compare_job
from winnow_operator.build.served import Served
from winnow_operator.observed import DeploymentSeen
from winnow_operator.plan import Child, Config, Create, Delete
from winnow_operator.resources import being_deleted, name_of, newest, owned_by, uid_of

TOLERANCE = 0.02


@dataclass(frozen=True, slots=True)
class Verdict:
    passed: bool | None  # None: not known yet
    message: str
    result: api.GateResult | None = None  # to be kept
    children: tuple[Child, ...] = ()
    requeue_after: float | None = None


def decide(seen: DeploymentSeen, candidate: Served, live: Served | None, now: datetime, config: Config) -> Verdict:
    """`live` is what the candidate would replace, if anything is served."""
    gate, kept = seen.obj.spec.gate, seen.obj.status.gate
    if gate is None:
        return Verdict(True, "There is no gate", children=leftover(seen))
    if was_live(seen.obj, candidate.digest):
        return Verdict(True, "It was live before, so the gate does not hold it up", kept, leftover(seen))
    wanted = _measurement(gate, seen, candidate, live)
    if not wanted.values and wanted.live is None:
        return Verdict(True, "Nothing is live yet that it could be worse than", children=leftover(seen))
    if kept is not None and _answers(kept, wanted, seen, config):
        passed, message = judge(gate, kept, live)
        return Verdict(passed, message, kept, _without(seen, keep="" if _complete(seen, kept.job) else kept.job or ""))
    return _measure(seen, wanted, now, config)


def leftover(seen: DeploymentSeen) -> tuple[Child, ...]:
    """Jobs whose answer nobody waits for."""
    return _without(seen, keep="")


def was_live(deployment: api.Deployment, digest: str) -> bool:
    """Whether a person names a checkpoint that was live before: it need not pass the gate again. One that was taken back
    because it failed, or that a leaderboard chose, has to."""
    if deployment.spec.checkpoint is None:
        return False
    status = deployment.status
    newer: api.LiveCheckpoint | None = status.live
    for past in status.history or ():
        if past.digest == digest:
            return newer is None or newer.reason != "RolledBack"
        newer = past
    return False


def judge(gate: api.Gate, result: api.GateResult, live: Served | None) -> tuple[bool, str]:
    """Whether the numbers suffice, and the numbers."""
    if result.message:
        return False, f"It could not be measured: {result.message}"
    measured = {(value.metric, value.label): value for value in result.values or ()}
    said = [_floor(floor, measured.get((floor.metric, floor.label))) for floor in gate.bounds]
    if said:
        rows = (
            f" {result.rows} {(result.measured_on or 'test').lower()} rows" if result.rows is not None else " its rows"
        )
        said[0] = (said[0][0], f"on{rows} {said[0][1]}")
    if gate.not_worse_than_live and live is not None:
        said.append(_beside_live(gate, result.comparison or api.Comparison(message="there is no comparison"), live))
    return all(ok for ok, _ in said), "; ".join(words for _, words in said)


def _floor(floor: api.Floor, measured: api.MeasuredValue | None) -> tuple[bool, str]:
    name = floor.metric if floor.label is None else f"{floor.metric} of {floor.label}"
    if measured is None or measured.value is None:
        return False, f"{name} is not known{f': {measured.message}' if measured and measured.message else ''}"
    value = measured.value
    if floor.at_least is not None:
        ok = value >= floor.at_least
        return ok, f"{name} {value:.6g} is {'at least' if ok else 'below'} {floor.at_least:g}"
    bound = floor.at_most if floor.at_most is not None else value
    return value <= bound, f"{name} {value:.6g} is {'at most' if value <= bound else 'above'} {bound:g}"


def _beside_live(gate: api.Gate, found: api.Comparison, live: Served) -> tuple[bool, str]:
    if found.message or found.lead_at_least is None:
        return False, f"it cannot be compared with {live.words}: {found.message or 'there are no numbers'}"
    tolerance = TOLERANCE if gate.tolerance is None else gate.tolerance
    ok = found.lead_at_least >= -tolerance
    where = (
        f"on {found.rows} test rows"
        if found.rows == found.candidate_rows
        else (f"on the {found.rows} of its {found.candidate_rows} test rows that both have answered")
    )
    numbers = (
        f"{where} {found.metric} is {found.candidate:.6g}, that of {live.words} {found.live:.6g}; with 95 % confidence"
        f" it is {_lead(found.lead_at_least)}"
    )
    allowed = f"{tolerance:g} worse is tolerated"
    return ok, f"{numbers}, and {allowed}" if ok else f"{numbers}, but only {allowed}"


def _lead(least: float) -> str:
    return f"at least {least:.3g} better" if least > 0 else f"at most {-least:.3g} worse" if least < 0 else "no worse"


def _measurement(gate: api.Gate, seen: DeploymentSeen, candidate: Served, live: Served | None) -> Measurement:
    values = tuple(dict.fromkeys((floor.metric, floor.label) for floor in gate.bounds))
    if not gate.not_worse_than_live or live is None:
        return Measurement(candidate, values)
    job = seen.training_job
    return Measurement(candidate, values, live, gate.metric or (job.status.primary_metric if job else None))


def _answers(result: api.GateResult, wanted: Measurement, seen: DeploymentSeen, config: Config) -> bool:
    """Whether the result answers this measurement; what else was measured with it does not matter."""
    if result.candidate != wanted.candidate.digest:
        return False
    if result.message:  # asked for something else, it may go better
        return seen.service is None or result.job == name_of(compare_job(seen.obj, seen.service, wanted, config))
    if wanted.live is not None:
        found = result.comparison
        if result.live != wanted.live.digest or found is None:
            return False
        if wanted.metric is not None and found.metric != wanted.metric:
            return False
    return {(one.metric, one.label) for one in result.values or ()} >= set(wanted.values)


def _measure(seen: DeploymentSeen, wanted: Measurement, now: datetime, config: Config) -> Verdict:
    if seen.service is None:
        return Verdict(None, "its ModelService does not exist")
    compare = compare_job(seen.obj, seen.service, wanted, config)
    name = name_of(compare)
    stale = _without(seen, keep=name)
    if seen.storage_leaving:
        return Verdict(None, "the volume that it lies in is being deleted", children=stale)
    job = next((job for job in seen.jobs if name_of(job) == name), None)
    against = f" beside {wanted.live.words}" if wanted.live else ""
    waiting = f"the gate measures it{against}"
    if job is None:
        return Verdict(None, waiting, children=(*stale, Create(compare)))
    outcome = pods.outcome(job)
    own = [pod for pod in seen.job_pods if owned_by(pod, uid_of(job))]
    if being_deleted(job) or outcome is None:
        trouble = next((found for pod in own if (found := pods.trouble(pod))), None)
        why = trouble.message if trouble else "" if own else pods.QUEUED if pods.queued(job) else seen.pods_refused
        message = f"{waiting}{f'. {why}' if why else ''}{pods.if_lost(pods.leaving(own))}"
        return Verdict(None, message, children=stale)
    pod = newest([pod for pod in own if pods.ended(pod)])
    ended = pods.ended(pod) if pod else None
    if pods.message_awaited(ended, outcome, now):
        return Verdict(None, waiting, children=stale, requeue_after=1)
    said = report.parse(report.Measured, ended.message) if ended else None
    if outcome.complete and said and said.state == "Done":
        result = _result(wanted, said, name, now)
    elif ended is not None and ended.exit_code in pods.FINAL_EXIT_CODES and said:
        result = _about(wanted, name, now, message=conditions.shorten(said.message or "no reason was given"))
    else:
        why = (
            (said.message if said else ended.message.strip() if ended else "")
            or outcome.message
            or "no message was left"
        )
        return Verdict(
            None,
            f"{waiting}, which failed and is tried again within the hour: {conditions.shorten(why, 500)}",
            children=stale,
        )
    gate = seen.obj.spec.gate
    passed, message = judge(gate, result, wanted.live) if gate else (True, "")
    return Verdict(passed, message, result, stale)


def _about(wanted: Measurement, job: str, now: datetime, message: str | None = None) -> api.GateResult:
    return api.GateResult(
        candidate=wanted.candidate.digest,
        live=wanted.live.digest if wanted.live else None,
        message=message,
        job=job,
        measured_at=now,
    )


def _result(wanted: Measurement, said: report.Measured, job: str, now: datetime) -> api.GateResult:
    values = tuple(
        api.MeasuredValue(
            metric=metric, label=label, value=told.value, message=conditions.shorten(told.message) or None
        )
        for (metric, label), told in zip(wanted.values, said.values, strict=False)
    )
    missing = wanted.values[len(values) :]
    values += tuple(
        api.MeasuredValue(metric=metric, label=label, message="it was not told") for metric, label in missing
    )
    comparison = None
    if wanted.live:
        told = said.comparison or report.PairedComparison(message="it was not told")
        fields = told.model_dump(exclude={"message", "metric"})
        comparison = api.Comparison(
            **fields, metric=told.metric or wanted.metric, message=conditions.shorten(told.message) or None
        )
    about = _about(wanted, job, now)
    return about.model_copy(
        update={
            "rows": said.rows,
            "measured_on": said.measured_on,
            "values": values or None,
            "comparison": comparison,
        }
    )


def _without(seen: DeploymentSeen, *, keep: str) -> tuple[Child, ...]:
    """The Jobs but this one; all of them where the claim is being deleted, which waits for their pods."""
    unwanted = [job for job in seen.jobs if name_of(job) != keep or seen.storage_leaving]
    return tuple(Delete(job) for job in unwanted if not being_deleted(job))


def _complete(seen: DeploymentSeen, name: str | None) -> bool:
    """Whether that Job has done its work: one that failed stays for people to look at, until its time is up."""
    job = next((job for job in seen.jobs if name_of(job) == name), None)
    outcome = pods.outcome(job) if job else None
    return outcome is not None and outcome.complete
