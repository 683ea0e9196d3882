"""ModelService: its storage, what belongs to it, and which checkpoint leads. Pure."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from winnow_operator import api, conditions
from winnow_operator.build import pvc
from winnow_operator.build.common import storage_claim
from winnow_operator.conditions import counted
from winnow_operator.kinds import collection
from winnow_operator.observed import ModelServiceSeen
from winnow_operator.plan import Apply, Config, Delete, Plan, Reference
from winnow_operator.policies import leaders, storage
from winnow_operator.resources import CLAIM, JOB, Object, being_deleted

LEADERS = 10
# A claim that the user brought carries no label of ours, so it is not watched.
LOOK_AGAIN_SECONDS = 15
LEAVING_SECONDS = 5  # between looks at what keeps a claim that is being deleted: pods of others do not lead here


def references(obj: api.ModelService) -> tuple[Reference, ...]:
    claim = obj.spec.storage.persistent_volume_claim
    return (Reference(CLAIM, claim.claim_name),) if claim and claim.claim_name else ()


def plan(seen: ModelServiceSeen, now: datetime, config: Config) -> Plan:
    verdict = storage.judge(seen)
    # A collection that is refused, for example by a quota, is no reason to call the storage unusable.
    if seen.refusal and seen.refusal.kind != JOB.kind:
        verdict = storage.Verdict(False, seen.refusal.reason, seen.refusal.message, final=seen.refusal.final)
    leaving = seen.claim is not None and storage.leaving(seen.claim, seen.obj)
    claim = None if leaving else pvc.claim(seen.obj, seen.claim)
    collected = collection.decide(seen, now, config, ready=verdict.ready)
    if leaving:
        # Whatever they would remove goes with the claim, and their pods would keep it.
        cleared = tuple(Delete(job) for job in seen.jobs if not being_deleted(job))
        collected = replace(collected, children=cleared, requeue_after=LEAVING_SECONDS)
    elif collected.trouble:
        # The storage is ready all the same: an import that wants to begin has such a Job removed.
        verdict = replace(
            verdict, message=f"{verdict.message}. What is not needed is not removed yet: {collected.trouble}"
        )
    found = conditions.ready(verdict.ready, verdict.reason, verdict.message, final=verdict.final)
    status = conditions.status(
        seen.obj,
        found,
        now,
        datasets=len(seen.datasets),
        trainingJobs=len(seen.training_jobs),
        deployments=len(seen.deployments),
        storage=seen.obj.spec.storage.s3.uri if seen.obj.spec.storage.s3 else storage_claim(seen.obj),
        storageClaim=storage_claim(seen.obj),
        leaderboard=leaderboard(seen),
        stored=[api.to_raw(rows) for rows in collected.stored],
        collected=api.to_raw(collected.collected) if collected.collected else None,
        summary=f"{verdict.reason}: {counted(len(seen.datasets), 'dataset')}, {counted(len(seen.training_jobs), 'training job')}, {counted(len(seen.deployments), 'deployment')}",
    )
    waits_for_users_claim = not verdict.ready and claim is None and not leaving
    return Plan(
        children=((Apply(claim),) if claim else ()) + collected.children,
        status=status,
        requeue_after=LOOK_AGAIN_SECONDS if waits_for_users_claim else collected.requeue_after,
        events=conditions.news("Ready", found, seen.obj.status.conditions or ()) + collected.events,
        turn=collected.turn,
    )


def leaderboard(seen: ModelServiceSeen) -> list[Object]:
    """The best checkpoint of each job. Jobs with the same metric stand together, the better value first."""
    live = {
        (one.training_job, one.checkpoint, one.digest)
        for deployment in seen.deployments
        if (one := deployment.status.live)
    }
    return [
        {
            "trainingJob": leader.job.metadata.name,
            "checkpoint": leader.checkpoint,
            "metric": leader.metric,
            "value": leader.value,
            **({"selectedOn": leader.job.status.selected_on} if leader.job.status.selected_on else {}),
            "deployed": (leader.job.metadata.name, leader.checkpoint, leader.digest) in live,
        }
        for leader in leaders.ranked(seen.training_jobs)[:LEADERS]
    ]
