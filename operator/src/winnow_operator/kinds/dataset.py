"""Dataset: one import Job, and what it found. Pure."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from datetime import datetime, timedelta

from winnow_operator import api, conditions, pods, report
from winnow_operator.build.common import base_in_words
from winnow_operator.build.import_job import import_job
from winnow_operator.kinds import collection
from winnow_operator.observed import DatasetSeen
from winnow_operator.plan import NO_TURN, Child, Config, Create, Delete, Plan, Reference, Turn
from winnow_operator.policies import failure, in_use
from winnow_operator.reasons import Reason
from winnow_operator.resources import CLAIM, CONFIG_MAP, IN_USE, Object, being_deleted, name_of, newest

LOOK_AGAIN_SECONDS = 10  # for a ConfigMap or claim of the user's, which is not watched
# Failures that need not come again with the same rows: a person mends the cause, then deletes the Job for another try.
MAY_PASS = {
    Reason.SOURCE_UNREACHABLE,
    Reason.STORAGE_FULL,
    Reason.STORAGE_UNAVAILABLE,
    Reason.OUT_OF_MEMORY,
    Reason.IMPORT_FAILED,
    Reason.UPLOAD_ABANDONED,
}
TERMINATING = "Terminating"  # the condition's type, as namespaces and CRDs have it
# How long the Job and pod of a successful import stay: they count against quotas, and only their log may still be wanted.
LOG_KEPT = timedelta(hours=1)
SKEW = timedelta(minutes=5)  # between the API server's clock and ours
# How the importer says that a ConfigMap, mounted whole, lacks the key.
_NO_KEY = re.compile(
    r"/source/\S+ does not exist: /source holds (?:nothing that could be read|(.*?))(?:; name a file.*)?"
)
LIST_ITEMS = 20  # of warnings and problems, as the CRD has it


@dataclass(frozen=True, slots=True)
class _State:
    ready: bool
    reason: Reason
    message: str
    final: bool = False  # nothing will change without a person
    result: report.Import | None = None
    children: tuple[Child, ...] = ()
    requeue_after: float | None = None
    turn: Turn = NO_TURN


def references(obj: api.Dataset) -> tuple[Reference, ...]:
    source = obj.spec.source
    if source.config_map:
        return (Reference(CONFIG_MAP, source.config_map.name),)
    if source.persistent_volume_claim:
        return (Reference(CLAIM, source.persistent_volume_claim.claim_name),)
    return ()


def imported(obj: api.Dataset) -> bool:
    """Whether the rows are stored: recorded by their digest, and final, because the spec cannot change."""
    return obj.status.digest is not None


def plan(seen: DatasetSeen, now: datetime, config: Config) -> Plan:
    # First, so that nothing happens between looking for readers and writing.
    released = (in_use.release(seen.obj),) if in_use.held(seen.obj) and not seen.readers else ()
    if in_use.leaving(seen.obj):
        return _leaving(seen, released, now)
    state = _state(seen, now, config)
    found = conditions.ready(state.ready, state.reason, state.message, final=state.final)
    fields = _kept(seen.obj.status) if imported(seen.obj) and state.ready else _fields(state.result)
    status = conditions.status(seen.obj, found, now, **fields, summary=_summary(state, fields))
    events = conditions.news("Ready", found, seen.obj.status.conditions or ())
    turn = Turn(state.turn.shared, in_use.turn(released).alone)
    return Plan((*released, *state.children), status, state.requeue_after, events, turn)


def _leaving(seen: DatasetSeen, released: tuple[Child, ...], now: datetime) -> Plan:
    """For a Dataset that is being deleted, and waits while trainings read it. The rest of its status stays as it was."""
    obj, old = seen.obj, seen.obj.status
    status = {**api.to_raw(old), "observedGeneration": obj.metadata.generation}
    kept = [c for c in status.get("conditions", []) if c["type"] != TERMINATING]
    if seen.readers:
        reason, message, by = Reason.IN_USE, in_use.in_words(seen.readers), f" by {in_use.short(seen.readers)}"
    elif seen.refusal:
        reason, by = seen.refusal.reason, ""
        message = f"Nothing reads its rows, but finalizer {IN_USE} cannot be taken off: {seen.refusal.message}"
    else:
        # Written only where somebody else's finalizer still keeps it.
        status |= {"conditions": kept, "summary": "Deleting"}
        return Plan(released, status, turn=in_use.turn(released))
    waits = [conditions.true(TERMINATING, reason, message)]
    told = conditions.render(waits, old.conditions or (), generation=obj.metadata.generation, now=now)
    status["conditions"] = [*({**c, "observedGeneration": obj.metadata.generation} for c in kept), *told]
    status["summary"] = conditions.shorten(f"Deleting: {reason}{by}", 200)
    events = conditions.news(TERMINATING, waits, old.conditions or ())
    return Plan(released, status, events=events, turn=in_use.turn(released))


def _state(seen: DatasetSeen, now: datetime, config: Config) -> _State:
    if seen.service is None:
        message = f"ModelService {seen.obj.spec.model_service} does not exist in this namespace"
        return _lost(seen, Reason.MODEL_SERVICE_NOT_FOUND, message)
    if seen.storage_leaving:
        message = (
            f"The volume of ModelService {seen.obj.spec.model_service} is being deleted, with all rows in it; they are"
            " imported once there is another"
        )
        return _lost(seen, Reason.STORAGE_BEING_DELETED, message)
    if imported(seen.obj) and _volume_is_newer(seen.obj, seen.service):
        message = "The rows lay in the volume of an earlier ModelService of this name; they are imported again"
        return _lost(seen, Reason.IMPORTING, message)
    if imported(seen.obj):
        return _stored(seen, now)
    if seen.refusal:
        return _State(False, seen.refusal.reason, seen.refusal.message, final=seen.refusal.final)
    job = newest(seen.jobs)
    if job is None:
        return _start(seen, seen.service, config)
    if being_deleted(job):
        message = f"The last import is being cleared away{pods.if_lost(pods.leaving(seen.pods))}"
        return _State(False, Reason.IMPORTING, message)
    state = _run(seen, job, now)
    _, wanted = import_job(seen.obj, seen.service, config)
    if state.final and name_of(wanted) != name_of(job):
        # Another Job is wanted than the one that failed: the cause may be mended, for example by another base model.
        return _State(False, Reason.IMPORTING, "The import is tried again with new settings", children=(Delete(job),))
    return state


def _verified(rows: int | None) -> str:
    return "1 row is valid and stored" if rows == 1 else f"{rows} rows are valid and stored"


def _stored(seen: DatasetSeen, now: datetime) -> _State:
    message = _verified(seen.obj.status.rows)
    ends = [(job, pods.outcome(job)) for job in seen.jobs if not being_deleted(job)]
    left = [(job, conditions.parse_time(end.at) + LOG_KEPT - now) for job, end in ends if end]
    over = tuple(Delete(job) for job, time in left if time <= timedelta())
    again = min((time.total_seconds() for _, time in left if time > timedelta()), default=None)
    return _State(True, Reason.VERIFIED, message, children=over, requeue_after=again)


def _lost(seen: DatasetSeen, reason: Reason, message: str) -> _State:
    """The rows went with a volume and are imported anew once there is one; the old Job must not speak for them."""
    return _State(False, reason, message, children=tuple(Delete(job) for job in seen.jobs if not being_deleted(job)))


def _volume_is_newer(obj: api.Dataset, service: api.ModelService) -> bool:
    """Whether the ModelService, and with it the volume, was made after the rows were stored: then an earlier ModelService was
    deleted while no operator ran."""
    own, ready = service.spec.storage.persistent_volume_claim, obj.status.condition("Ready")
    made = service.metadata.creation_timestamp
    if own is None or own.size is None or ready is None or made is None:
        return False
    return made > ready.last_transition_time + SKEW


def _start(seen: DatasetSeen, service: api.ModelService, config: Config) -> _State:
    for reference, found in sorted(seen.lookups.items(), key=lambda item: item[0]):
        if found is None:
            message = f"{reference.resource.kind} {reference.name} does not exist in this namespace; the import starts once it does"
            return _State(False, Reason.SOURCE_UNREACHABLE, message, requeue_after=LOOK_AGAIN_SECONDS)
    if seen.collecting:
        return _State(False, Reason.IMPORTING, "The import starts once storage has been cleared of deleted datasets")
    settings, job = import_job(seen.obj, service, config)
    turn = Turn(shared=frozenset({collection.place(service)}))
    return _State(False, Reason.IMPORTING, "The import starts", children=(Create(settings), Create(job)), turn=turn)


def _run(seen: DatasetSeen, job: Object, now: datetime) -> _State:
    outcome = pods.outcome(job)
    pod = newest(seen.pods)
    if outcome is None:
        trouble = pods.trouble(pod) if pod else None
        if trouble:
            final = trouble.reason is not Reason.UNSCHEDULABLE
            return _State(False, trouble.reason, _in_words(seen, trouble.message), final=final)
        if pod is None and seen.pods_refused:
            return _State(False, Reason.API_REFUSED, seen.pods_refused, final=not pods.lack_room(seen.pods_refused))
        if pod is None and pods.queued(job):
            return _State(False, Reason.QUEUED, pods.QUEUED)
        if seen.obj.spec.source.upload and not (pod and pods.ready(pod)):
            message = f"The import waits for the file: {_upload_command(seen.obj)}"
            return _State(False, Reason.AWAITING_UPLOAD, message)
        if pod and pods.outlived(pod):
            message = f"The import has ended, but other containers keep its pod {name_of(pod)} running"
            return _State(False, Reason.IMPORTING, message)
        if leaving := pods.leaving(seen.pods):
            message = (
                f"Pod {name_of(leaving)} of the import is told to go; the next one begins anew{pods.if_lost(leaving)}"
            )
            return _State(False, Reason.IMPORTING, message)
        message = "The rows are being read and checked" if pod else "The import's pod is awaited"
        return _State(False, Reason.IMPORTING, message)
    ended = pods.ended(pod) if pod else None
    if pods.message_awaited(ended, outcome, now):
        return _State(False, Reason.IMPORTING, "The import ended; its message is awaited", requeue_after=1)
    said = report.parse(report.Import, ended.message) if ended else None
    if outcome.complete:
        if said and said.state == "Ready" and said.digest:
            return _State(True, Reason.VERIFIED, _verified(said.rows), result=said)
        if ended is None:
            # Somebody deleted its pod: the rows are stored, and the next import finds them.
            message = "The import's pod is gone, and its message with it; the rows are imported again"
            return _State(False, Reason.IMPORTING, message, children=(Delete(job),))
        message = f"The import ended well, but its message was lost; delete Job {name_of(job)} to import again"
        return _State(False, Reason.IMPORT_FAILED, message, final=True)
    failed = failure.of(ended, said.reason if said else "", said.message if said else "", outcome)
    reason, message = _reason(failed), _in_words(seen, failed.message)
    if reason in MAY_PASS:
        again = f"delete Job {name_of(job)} to import again"
        if seen.obj.spec.source.upload:
            again = f"to try again: {_upload_command(seen.obj)}"
        message = f"{message}; {again}"
    return _State(False, reason, message, final=True, result=said)


def _reason(failed: failure.Failure) -> Reason:
    """The trainer's exit codes, in the words that fit an import."""
    return {
        Reason.DATA_INVALID: Reason.INVALID_ROWS,
        Reason.TOO_MANY_RESTARTS: Reason.IMPORT_FAILED,
        Reason.JOB_FAILED: Reason.IMPORT_FAILED,
    }.get(failed.reason, failed.reason)


def _upload_command(obj: api.Dataset) -> str:
    """Without options for reading the rows: those stand in the spec."""
    upload = obj.spec.source.upload
    file = shlex.quote(upload.file_name) if upload and upload.file_name else "FILE"
    where = f"--model-service {obj.spec.model_service} --name {obj.metadata.name} -n {obj.metadata.namespace}"
    return f"kubectl winnow upload {file} {where}"


def _in_words(seen: DatasetSeen, message: str) -> str:
    """The importer knows its source as a path under /source; the user knows it as something else."""
    source = seen.obj.spec.source
    if seen.service is not None:
        message = base_in_words(seen.service.spec.base_model, message)
    if source.config_map:
        if missing := _NO_KEY.fullmatch(message):
            return (
                f"ConfigMap {source.config_map.name} has no key {source.config_map.key}; it has {missing[1] or 'none'}"
            )
        return message.replace(
            f"/source/{source.config_map.key}", f"ConfigMap {source.config_map.name}, key {source.config_map.key}"
        )
    if source.persistent_volume_claim:
        claim = source.persistent_volume_claim
        return _mounted(message, f"PersistentVolumeClaim {claim.claim_name}, path /")
    if source.image:
        return _mounted(message, f"Image {source.image.reference}, path /")
    if source.http or source.s3 or source.hugging_face:
        return re.sub(r"/source/rows-[^/\s]+/", "", message)
    if source.upload:
        name = source.upload.file_name or "the uploaded file"
        return re.sub(r"/\S*uploads/[^/\s]+/rows\b", lambda _: name, message)
    return re.sub(r"/source/rows|^rows(?= is | begins )", "spec.source.inline", message)


def _mounted(message: str, root: str) -> str:
    return re.sub(r"/source\b/?", lambda _: root, message)


def _summary(state: _State, fields: dict[str, object]) -> str:
    if state.ready:
        rows = fields.get("rows")
        return f"Ready: {'1 row' if rows == 1 else f'{rows} rows'}"
    return f"{'Failed' if state.final else 'Waiting'}: {state.reason}"


def _kept(status: api.DatasetStatus) -> dict[str, object]:
    kept = api.to_raw(status)
    return {name: value for name, value in kept.items() if name not in ("conditions", "observedGeneration", "summary")}


def _fields(result: report.Import | None) -> dict[str, object]:
    if result is None:
        return {}
    problems = [{**problem.as_status(), "message": conditions.shorten(problem.message)} for problem in result.problems]
    pins = result.source.as_status() if result.source else None
    if result.state == "Failed":
        count = max(result.problem_count, len(problems)) or None
        return {"source": pins, "problems": problems[:LIST_ITEMS], "problemCount": count}
    warnings = [{"code": warning.code, "message": conditions.shorten(warning.message)} for warning in result.warnings]
    return {
        "source": pins,
        "format": result.format,
        "taskDetail": result.task_detail,
        "rows": result.rows,
        "digest": result.digest,
        "labels": [
            {"name": name, "positives": positives, "share": round(positives / result.rows, 6) if result.rows else 0.0}
            for name, positives in result.labels
        ],
        "labelCount": result.label_count if result.label_count is not None else len(result.labels),
        "tokens": result.tokens.as_status() if result.tokens else None,
        "duplicates": result.duplicates,
        "conflicts": result.conflicts,
        "nearDuplicates": result.near_duplicates,
        "skippedRows": result.skipped_rows,
        "warnings": warnings[:LIST_ITEMS],
        "problems": problems[:LIST_ITEMS],
        "problemCount": result.problem_count,
    }
