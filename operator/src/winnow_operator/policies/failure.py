"""From how a pod ended to a reason in the user's terms: exit codes and termination messages are the trainer's contract."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from winnow_operator.conditions import shorten
from winnow_operator.pods import Ended, Outcome
from winnow_operator.reasons import Reason, known

_BY_EXIT_CODE = {
    10: Reason.INVALID_CONFIGURATION,
    11: Reason.DATA_INVALID,
    12: Reason.OUT_OF_MEMORY,
    13: Reason.DIVERGED,
    20: Reason.STORAGE_UNAVAILABLE,
    21: Reason.PEER_LOST,
}
TRAINING_ADVICE: Mapping[Reason, str] = {
    Reason.OUT_OF_MEMORY: "a smaller parameters.perDeviceTrainBatchSize or maxSeqLength, or a higher resources.limits.memory, helps",
    Reason.DIVERGED: "a lower parameters.learningRate helps",
}
KILLED = (
    "The container was killed (exit code 137), and the kubelet does not say why: its pod was deleted by force, its node was in trouble, or one of its processes used more"
    " memory than it may"
)


@dataclass(frozen=True, slots=True)
class Failure:
    reason: Reason
    message: str
    exit_code: int | None


def of(
    ended: Ended | None, said_reason: str, said: str, job: Outcome | None, advice: Mapping[Reason, str] | None = None
) -> Failure:
    """What to call it. `said_reason` and `said` come from the termination message, if it could be read; `ended` from the
    kubelet; `job` from the Job controller."""
    if job is not None and job.reason == "DeadlineExceeded":
        return Failure(Reason.DEADLINE_EXCEEDED, job.message, ended.exit_code if ended else None)
    if ended is None:
        return Failure(Reason.JOB_FAILED, (job.message if job else "") or "The pod is gone and left no message", None)
    reason = _reason(ended, said_reason)
    message, what_helps = _message(ended, said), (advice or {}).get(reason, "")
    if what_helps and what_helps not in message:
        message = f"{message}; {what_helps}"
    return Failure(reason, shorten(message), ended.exit_code)


def _reason(ended: Ended, said: str) -> Reason:
    if ended.out_of_memory:
        return Reason.OUT_OF_MEMORY
    return known(said) or _BY_EXIT_CODE.get(ended.exit_code, Reason.TOO_MANY_RESTARTS)


def _message(ended: Ended, said: str) -> str:
    if ended.out_of_memory:
        return f"The container used more memory than it may and was killed (exit code {ended.exit_code})"
    return (
        said
        or ended.message.strip()
        or (KILLED if ended.killed else "")
        or f"The container ended with exit code {ended.exit_code} ({ended.reason})"
    )
