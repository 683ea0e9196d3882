"""TrainingJob: accepted, run as a batch Job, watched, ended. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from winnow_operator import api, conditions, pods, report
from winnow_operator.build.common import base_in_words, labels
from winnow_operator.build.group import meeting_place
from winnow_operator.build.training_job import FINAL_EXIT_CODES, base_model_source, dataset_path, training_job
from winnow_operator.conditions import Condition, false, true
from winnow_operator.kinds import training_results as results
from winnow_operator.observed import TrainingJobSeen
from winnow_operator.plan import Child, Config, Create, Delete, Event, Plan, Reference, TakeBack
from winnow_operator.policies import acceptance, failure, in_use, lineage, retention
from winnow_operator.policies.failure import TRAINING_ADVICE
from winnow_operator.reasons import Reason
from winnow_operator.resources import CONFIG_MAP, JOB, Object, being_deleted, controller_of, name_of, newest, status_of

LOOK_AGAIN_SECONDS = 10  # for a ConfigMap of the user's, which is not watched
WARNINGS = 20  # as the CRD has it
_COUNTS = (
    ("training_rows", "trainingRows"),
    ("test_rows", "testRows"),
    ("validation_rows", "validationRows"),
    ("overlap", "overlap"),
    ("validation_overlap", "validationOverlap"),
)


def references(obj: api.TrainingJob) -> tuple[Reference, ...]:
    """The ConfigMaps of its metric functions, which are not watched."""
    metrics = obj.spec.metrics
    names = {metric.config_map.name for metric in (metrics.custom if metrics else None) or ()}
    return tuple(Reference(CONFIG_MAP, name) for name in sorted(names))


@dataclass(frozen=True, slots=True)
class _State:
    """Where the job stands. Accepted is given as a condition of its own, because it is decided by other rules."""

    phase: str  # Waiting, Suspended, Starting, Running, Complete, Failed: for the summary only, never read back
    reason: Reason
    message: str
    accepted: acceptance.Verdict = acceptance.ACCEPTED
    final: bool = False  # nothing will change without a person
    news: report.Training | None = None
    failed: failure.Failure | None = None
    started: str | None = None
    children: tuple[Child, ...] = ()
    requeue_after: float | None = None


def plan(seen: TrainingJobSeen, now: datetime, config: Config) -> Plan:
    if seen.obj.status.completion_time is not None:
        return _after_the_end(seen, now)
    state = _state(seen, now, config)
    found = _conditions(seen, state)
    status = _status(seen, state, found, now)
    turn = in_use.turn(state.children)
    return Plan((*_taken_back(seen), *state.children), status, state.requeue_after, _events(seen, state, found), turn)


def _state(seen: TrainingJobSeen, now: datetime, config: Config) -> _State:
    job = newest(seen.jobs)
    if job is not None and (outcome := pods.outcome(job)) is not None:
        return _ended(seen, outcome, now)
    if seen.obj.spec.suspend:
        return _suspended(seen, job)
    if job is not None and being_deleted(job):
        message = f"The last run is being cleared away; the next one goes on from its resume point{pods.if_lost(pods.leaving(seen.pods))}"
        return _State("Waiting", Reason.STOPPING, message)
    if job is not None:
        return _running(seen, job, now)
    verdict = acceptance.accept(seen)
    if not verdict.accepted:
        again = LOOK_AGAIN_SECONDS if verdict.reason is Reason.METRIC_SOURCE_NOT_FOUND else None
        return _State("Waiting", verdict.reason, verdict.message, verdict, verdict.final, requeue_after=again)
    if seen.stray:
        # The Job was deleted by hand: a second trainer in the same folder would spoil what the first one still writes.
        pod = seen.stray[0]
        message = f"Pod {name_of(pod)} of the last run still ends; the next one goes on from its resume point{pods.if_lost(pod)}"
        return _State("Waiting", Reason.STOPPING, message)
    return _start(seen, config)


def _taken_back(seen: TrainingJobSeen) -> list[Child]:
    """The batch Jobs of pods that still train: one that nobody deleted has lost the label that the watch goes by."""
    names = {owner["name"] for pod in seen.stray if (owner := controller_of(pod))}
    about = {"namespace": seen.obj.metadata.namespace, "labels": labels(seen.obj)}
    return [
        TakeBack({"apiVersion": JOB.api_version, "kind": JOB.kind, "metadata": {"name": name, **about}})
        for name in sorted(names)
    ]


def _start(seen: TrainingJobSeen, config: Config) -> _State:
    used = _datasets(seen, None)
    if seen.service is None or "training" not in used:
        raise ValueError("A job was accepted without its ModelService or dataset. This is a bug.")
    settings, job = training_job(
        seen.obj,
        seen.service,
        training_digest=used["training"]["digest"],
        test_digest=used["test"]["digest"] if "test" in used else None,
        validation_digest=used["validation"]["digest"] if "validation" in used else None,
        continued=_continued(seen),
        image=config.trainer_image,
        networks=config.fetch.allowed_networks,
    )
    # The Datasets first: from then on they stay for as long as the batch Job is there.
    digests = {used[field]["digest"] for field in ("training", "test", "validation") if field in used}
    read = [dataset for dataset in seen.datasets if dataset.status.digest in digests]
    place = meeting_place(seen.obj)
    children = (*in_use.holds(*read), *((Create(place),) if place else ()), Create(settings), Create(job))
    return _State("Starting", Reason.STARTING, "The batch Job is being created", children=children)


def _suspended(seen: TrainingJobSeen, job: Object | None) -> _State:
    if job is None:
        message = "Set spec.suspend to false to go on"
        return _State("Suspended", Reason.SUSPENDED, message, acceptance.accept(seen), news=seen.pulled)
    message = f"The pod writes its resume point and ends{pods.if_lost(pods.leaving(seen.pods))}"
    children = () if being_deleted(job) else (Delete(job),)
    return _State("Suspended", Reason.STOPPING, message, children=children, news=seen.pulled)


def _running(seen: TrainingJobSeen, job: Object, now: datetime) -> _State:
    started = status_of(job).get("startTime")
    deadline = seen.obj.spec.active_deadline_seconds
    left = None
    if deadline is not None and started is not None:
        left = (conditions.parse_time(started) + timedelta(seconds=deadline) - now).total_seconds()
        if left <= 0:
            # Recorded first; the Job is deleted once that is seen, so that no crash in between starts it anew.
            message = f"The run took longer than activeDeadlineSeconds ({deadline} s)"
            failed = failure.Failure(Reason.DEADLINE_EXCEEDED, message, None)
            return _State("Failed", failed.reason, message, news=seen.pulled, failed=failed, started=started)
    if out_of_memory := pods.out_of_memory(seen.pods):
        # The Job controller would try again. Recorded first here too, however many attempts were made meanwhile.
        failed = _failed(seen, pods.ended(out_of_memory), None)
        return _State("Failed", failed.reason, failed.message, news=_news(seen), failed=failed, started=started)
    state = _pod_state(seen, job)
    # Datasets may lack our finalizer where an older version of the operator started the job, for example.
    read = [dataset for dataset in seen.datasets if in_use.reads(seen.obj, dataset)]
    held = in_use.holds(*(dataset for dataset in read if not in_use.held(dataset)))
    return replace(state, news=_news(seen), started=started, requeue_after=left, children=held)


def _pod_state(seen: TrainingJobSeen, job: Object) -> _State:
    pod, nodes, there = pods.least_far(seen.pods), seen.obj.spec.nodes, len(pods.of_each_index(seen.pods))
    if there < nodes and seen.pods_refused:
        final = not pods.lack_room(seen.pods_refused)
        return _State("Starting", Reason.API_REFUSED, seen.pods_refused, final=final)
    if pod is None:
        if pods.queued(job):
            return _State("Starting", Reason.QUEUED, pods.QUEUED)
        return _State("Starting", Reason.STARTING, "The batch Job was created; its pod follows")
    if leaving := pods.leaving(seen.pods):
        message = (
            f"Pod {name_of(leaving)} is told to go; the next one goes on from its resume point{pods.if_lost(leaving)}"
        )
        return _State("Waiting", Reason.STOPPING, message)
    if pods.running(pod) and there < nodes:
        return _State("Starting", Reason.STARTING, f"{there} of {nodes} pods run; the others follow")
    if pods.outlived(pod):
        message = f"The trainer of pod {pod['metadata']['name']} has ended, but other containers keep the pod running"
        return _State("Running", Reason.TRAINING, message)
    if pods.running(pod):
        who = f"Pod {pod['metadata']['name']} trains" if nodes == 1 else f"{nodes} pods train"
        if seen.pulled and seen.pulled.state == "Running" and seen.pulled.message:
            who = f"Pod {pod['metadata']['name']}: {seen.pulled.message}"
        return _State("Running", Reason.TRAINING, who)
    trouble = pods.trouble(pod)
    if trouble:
        return _State("Starting", trouble.reason, trouble.message, final=trouble.reason is not Reason.UNSCHEDULABLE)
    ended = pods.ended(pod)
    if ended and ended.exit_code in (0, *FINAL_EXIT_CODES):
        return _State("Running", Reason.TRAINING, f"Pod {pod['metadata']['name']} ended; the batch Job follows")
    if ended:
        said = report.parse(report.Training, ended.message)
        why = failure.of(ended, said.reason if said else "", said.message if said else "", None, TRAINING_ADVICE)
        return _State("Starting", Reason.RESTARTING, f"Pod {pod['metadata']['name']} ended: {why.message}")
    return _State("Starting", Reason.STARTING, f"Pod {pod['metadata']['name']} is being started")


def _news(seen: TrainingJobSeen) -> report.Training | None:
    """What the pods told last: /progress, else the termination message of the last one that ended."""
    if seen.pulled:
        return seen.pulled
    pod = newest([pod for pod in (*seen.pods, *seen.departed) if pods.ended(pod)])
    ended = pods.ended(pod) if pod else None
    return report.parse(report.Training, ended.message) if ended else None


def _ended(seen: TrainingJobSeen, outcome: pods.Outcome, now: datetime) -> _State:
    known = (*seen.pods, *seen.departed)
    pod = pods.decisive(known) if seen.obj.spec.nodes > 1 else newest([p for p in known if pods.ended(p)])
    ended = pods.ended(pod) if pod else None
    awaited = [pod for pod in pods.of_each_index(known) if pods.ended(pod) is None]
    if pods.message_awaited(None if awaited else ended, outcome, now):
        return _State(
            "Running", Reason.TRAINING, "The run ended; its message is awaited", news=seen.pulled, requeue_after=1
        )
    said = report.parse(report.Training, ended.message) if ended else None
    news = results.joined(seen.pulled, said)
    if outcome.complete:
        best = (said.best_checkpoint if said else None) or seen.obj.status.best_checkpoint
        if said and said.reason == Reason.STOPPED_EARLY:
            return _State("Complete", Reason.STOPPED_EARLY, conditions.shorten(said.message), news=news)
        message = f"All epochs are done; the best checkpoint is {best}" if best else "All epochs are done"
        return _State("Complete", Reason.TRAINING_COMPLETE, message, news=news)
    failed = _failed(seen, ended, outcome)
    return _State("Failed", failed.reason, failed.message, news=news, failed=failed)


def _failed(seen: TrainingJobSeen, ended: pods.Ended | None, outcome: pods.Outcome | None) -> failure.Failure:
    said = report.parse(report.Training, ended.message) if ended else None
    message = _in_words(seen, said.message) if said else ""
    return failure.of(ended, said.reason if said else "", message, outcome, TRAINING_ADVICE)


def _in_words(seen: TrainingJobSeen, message: str) -> str:
    """The trainer knows stored rows and the base model as folders; the user knows them as what lies there."""
    if seen.service is not None:
        message = base_in_words(base_model_source(seen.obj, seen.service), message)
    used = seen.obj.status.datasets
    for use in (used.training, used.test, used.validation) if used else ():
        if use and use.name and use.digest:
            name = f"Dataset {use.name}" + ("" if use.digest in message else f" ({use.digest})")
            path = dataset_path(use.digest)
            message = message.replace(f"{path}/", f"{name}, ").replace(path, name)
    return message


def _conditions(seen: TrainingJobSeen, state: _State) -> list[Condition]:
    verdict = acceptance.accepted(seen) if state.accepted == acceptance.ACCEPTED else state.accepted
    accepted = Condition("Accepted", verdict.accepted, verdict.reason, verdict.message)
    ended = state.phase in ("Complete", "Failed")
    if state.phase == "Suspended":
        suspended = true("Suspended", state.reason, state.message)
    else:
        suspended = false("Suspended", Reason.NOT_SUSPENDED, "spec.suspend is false")
    running = Condition("Running", state.phase == "Running", state.reason, state.message)
    if state.phase == "Complete":
        complete = true("Complete", state.reason, state.message)
    else:
        complete = false("Complete", state.reason if ended else Reason.NOT_FINISHED, "The job has not completed")
    if state.phase == "Failed":
        failed = true("Failed", state.reason, state.message)
    else:
        failed = false("Failed", Reason.NOT_FAILED, "Nothing failed")
    return [accepted, suspended, running, complete, failed, *_abnormal(state)]


def _abnormal(state: _State) -> list[Condition]:
    """The conditions of kstatus: Stalled where a person has to change something, Reconciling until the trainer runs, neither
    for a job that runs, is suspended or is done."""
    if state.phase == "Failed" or state.final:
        return [conditions.stalled(state.reason, state.message)]
    if state.phase in ("Waiting", "Starting"):
        return [conditions.reconciling(state.reason, state.message)]
    return []


def _status(seen: TrainingJobSeen, state: _State, found: list[Condition], now: datetime) -> Object:
    obj, old = seen.obj, seen.obj.status
    fields = results.merged(old, state.news, seen.deployments, obj.metadata.name, seen.children)
    progress = results.progress(old, state.news if state.phase not in ("Complete", "Failed") else None, now)
    if state.phase == "Complete":
        early = fields.get("epochs", []) if state.reason is Reason.STOPPED_EARLY else []
        total = obj.spec.parameters.num_train_epochs
        progress = results.finished(progress, now, total, early[-1]["epoch"] if early else None)
    ended = state.phase in ("Complete", "Failed")
    started = state.started or (conditions.timestamp(old.start_time) if old.start_time else None)
    return conditions.status(
        obj,
        found,
        now,
        startTime=started,
        completionTime=conditions.timestamp(now) if ended else None,
        progress=progress,
        **fields,
        baseModel=_base_model(seen),
        continuedFrom=api.to_raw(came) if (came := _continued(seen)) else None,
        datasets=_datasets(seen, state.news),
        failure=_failure(state.failed) if state.failed else None,
        summary=_summary(state, progress),
    )


def _datasets(seen: TrainingJobSeen, news: report.Training | None) -> Object:
    """The datasets in use, by digest. Fixed at the first start: a run that is resumed must get the rows that it began
    with."""
    old = seen.obj.status.datasets
    begun = bool(seen.jobs) or seen.obj.status.start_time is not None
    used: Object = {}
    for field, dataset in (("training", seen.training), ("test", seen.test), ("validation", seen.validation)):
        recorded = getattr(old, field) if old and begun else None
        if recorded is not None and recorded.digest:
            used[field] = {"name": recorded.name, "digest": recorded.digest}
        elif dataset is not None and dataset.status.digest:
            used[field] = {"name": dataset.metadata.name, "digest": dataset.status.digest}
    for field, name in _COUNTS:
        told = getattr(news, field) if news else None
        if (count := told if told is not None else getattr(old, field, None)) is not None:
            used[name] = count
    # A termination message leaves out warnings that do not fit, so known ones stay; but storage may not be full any more.
    known = [one for one in (old.warnings if old else None) or () if not news or one.code != Reason.STORAGE_FULL]
    if warnings := (news.warnings if news else ()) or known:
        told_short = [{"code": each.code, "message": conditions.shorten(each.message)} for each in warnings]
        used["warnings"] = told_short[:WARNINGS]
    return used


def _base_model(seen: TrainingJobSeen) -> Object | None:
    """The base model in use. Not fixed before a pod has run, so that one that cannot be pulled can be replaced. None until
    then, and where the job goes on from a checkpoint."""
    obj, wanted = seen.obj, seen.obj.spec.base_model
    begun = any(pods.running(pod) or pods.ended(pod) for pod in (*seen.pods, *seen.departed))
    if not begun or seen.service is None or (wanted and wanted.checkpoint):
        return api.to_raw(obj.status.base_model) if obj.status.base_model else None
    found: Object = api.to_raw(base_model_source(obj, seen.service))
    return found


def _continued(seen: TrainingJobSeen) -> api.ContinuedFrom | None:
    found = lineage.parent(seen)
    return found if isinstance(found, api.ContinuedFrom) else seen.obj.status.continued_from


def _failure(failed: failure.Failure) -> Object:
    exit_code = {"exitCode": failed.exit_code} if failed.exit_code is not None else {}
    return {"reason": str(failed.reason), "message": conditions.shorten(failed.message), **exit_code}


def _summary(state: _State, progress: Object | None) -> str:
    if state.phase == "Running":
        epoch, total = (progress or {}).get("epoch"), (progress or {}).get("totalEpochs")
        return f"Running: epoch {epoch}/{total}" if epoch is not None and total else "Running"
    if state.phase in ("Complete", "Suspended"):
        return state.phase
    return f"{state.phase}: {state.reason}"


def _events(seen: TrainingJobSeen, state: _State, found: list[Condition]) -> tuple[Event, ...]:
    """The turning points: acceptance, the run, the end. Each once."""
    old = seen.obj.status.conditions or ()
    if state.phase in ("Complete", "Failed", "Suspended"):
        return conditions.news(state.phase, found, old)
    return conditions.news("Running", found, old)


def _after_the_end(seen: TrainingJobSeen, now: datetime) -> Plan:
    """For a job that has ended. Its result stays; its batch Job is cleared away, and who uses its checkpoints is kept up to
    date."""
    obj, old = seen.obj, seen.obj.status
    kept = api.to_raw(old)
    # The end does not change with the generation: suspend, deadline and time to live no longer matter to the result.
    kept["observedGeneration"] = obj.metadata.generation
    kept["conditions"] = [
        {**condition, "observedGeneration": obj.metadata.generation} for condition in kept.get("conditions", [])
    ]
    kept.update(results.merged(old, None, seen.deployments, obj.metadata.name, seen.children))
    in_use_now = retention.used(seen.deployments, obj.metadata.name)
    in_use_now |= lineage.needed(seen.children, obj, seen.bases)
    kept["checkpoints"] = retention.marked(kept.get("checkpoints", []), obj, seen.service, now, in_use_now)
    active = [job for job in seen.jobs if not being_deleted(job) and pods.outcome(job) is None]
    children: tuple[Child, ...] = tuple(Delete(job) for job in active)
    requeue_after = None
    ttl = obj.spec.ttl_seconds_after_finished
    over = seen.storage_leaving  # the claim waits for pods that ended, too
    if not over and ttl is not None and old.completion_time is not None and seen.jobs and not active:
        left = (old.completion_time + timedelta(seconds=ttl) - now).total_seconds()
        over, requeue_after = left <= 0, left if left > 0 else None
    if over:
        children = tuple(Delete(job) for job in seen.jobs if not being_deleted(job))
    return Plan(children, kept, requeue_after)
