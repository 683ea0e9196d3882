"""What a training gave so far: the recorded status, the pulled progress and the termination message, merged. Pure.

The newest word wins, field by field, and what was once recorded is never forgotten: the termination message drops what does
not fit in 4,096 bytes, and pods and Jobs are deleted in the end.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from winnow_operator import api, report
from winnow_operator.conditions import timestamp
from winnow_operator.policies import in_use, lineage
from winnow_operator.resources import Object

# Status is written when progress moved a percent or this long passed: a hundred jobs stay under four writes a second.
QUIET = timedelta(seconds=30)
PERCENT = 1.0

_MOMENT = (
    "percent",
    "epoch",
    "totalEpochs",
    "step",
    "totalSteps",
    "etaSeconds",
    "tokensPerSecond",
    "loss",
    "learningRate",
)
_MEASURED = ("metrics", "validationMetrics")
# So many epochs keep all metrics, earlier ones the primary metric alone: a thousand would be too large an object for etcd.
FULL = 200


def merged(
    status: api.TrainingJobStatus,
    news: report.Training | None,
    deployments: Iterable[api.Deployment],
    job_name: str,
    children: Iterable[api.TrainingJob] = (),
) -> Object:
    """The fields of status about epochs, checkpoints and the best one."""
    told = news or report.Training(state="Running")
    epochs = _epochs(status, told)
    best = told.best_checkpoint or status.best_checkpoint
    metric = told.primary_metric or status.primary_metric
    higher = told.higher_is_better if told.higher_is_better is not None else status.higher_is_better
    selected_on = told.selected_on or status.selected_on
    measured = {epoch.get("checkpoint"): {name: epoch[name] for name in _MEASURED if name in epoch} for epoch in epochs}
    value = measured.get(best, {}).get(_measured_on(selected_on), {}).get(metric)
    where = " on validation rows" if selected_on == "Validation" else ""
    for epoch in epochs[:-FULL]:
        if epoch.get("checkpoint") != best:
            slim = {name: {metric: epoch[name][metric]} for name in _MEASURED if metric in epoch.get(name, {})}
            measured[epoch.get("checkpoint")] = slim
            for name in _MEASURED:
                epoch.pop(name, None)
            epoch.update(slim)
    digests = {one.name: one.digest for one in status.checkpoints or ()}
    users = {
        "deployedBy": _deployed_by(deployments, job_name, digests),
        "continuedBy": lineage.continued_by(children, job_name),
    }
    fields: Object = {
        "epochs": epochs,
        "checkpoints": _checkpoints(status, told, measured, best, users),
        "bestCheckpoint": best,
        "primaryMetric": metric,
        "higherIsBetter": higher,
        "selectedOn": selected_on,
        "bestMetric": f"{metric} {value:.4f}{where}" if value is not None else None,
    }
    return {name: value for name, value in fields.items() if value is not None}


def joined(pulled: report.Training | None, said: report.Training | None) -> report.Training | None:
    """The final word, and beside it what /progress told that did not fit into it."""
    if pulled is None or said is None:
        return said or pulled
    earlier = {epoch.epoch: epoch for epoch in pulled.epochs}
    told = {epoch.epoch: epoch.over(earlier.get(epoch.epoch)) for epoch in said.epochs}
    checkpoints = {one.name: one for one in (*pulled.checkpoints, *said.checkpoints)}
    return said.model_copy(
        update={"epochs": list({**earlier, **told}.values()), "checkpoints": list(checkpoints.values())}
    )


def _epochs(status: api.TrainingJobStatus, told: report.Training) -> list[Object]:
    by_number: dict[int, Object] = {epoch.epoch: api.to_raw(epoch) for epoch in status.epochs or ()}
    for epoch in told.epochs:
        old, new = by_number.get(epoch.epoch, {}), epoch.as_status()
        merged_ones = {name: {**old.get(name, {}), **new.pop(name, {})} for name in _MEASURED}
        by_number[epoch.epoch] = {**old, **new, **{name: values for name, values in merged_ones.items() if values}}
    return [by_number[number] for number in sorted(by_number)]


def _checkpoints(
    status: api.TrainingJobStatus,
    told: report.Training,
    measured: dict[str | None, Object],
    best: str | None,
    users: dict[str, dict[str, list[str]]],
) -> list[Object]:
    by_name: dict[str, Object] = {checkpoint.name: api.to_raw(checkpoint) for checkpoint in status.checkpoints or ()}
    for checkpoint in told.checkpoints:
        by_name[checkpoint.name] = {**by_name.get(checkpoint.name, {}), **checkpoint.as_status()}
    result = []
    for name, known in sorted(by_name.items(), key=lambda item: (item[1].get("epoch", 0), item[0])):
        fields = {key: value for key, value in known.items() if key not in ("best", *users, *_MEASURED)}
        used = {field: by_checkpoint[name] for field, by_checkpoint in users.items() if name in by_checkpoint}
        result.append({**fields, **measured.get(name, {}), "best": name == best, **used})
    return result


def _measured_on(selected_on: str | None) -> str:
    return "validationMetrics" if selected_on == "Validation" else "metrics"


def _deployed_by(
    deployments: Iterable[api.Deployment], job_name: str, digests: dict[str, str | None]
) -> dict[str, list[str]]:
    """Not those that serve a checkpoint of an earlier job of the same name."""
    users: dict[str, list[str]] = {}
    for deployment in sorted(deployments, key=lambda deployment: deployment.metadata.name):
        uses = [use for use in in_use.checkpoints(deployment.status) if use.training_job == job_name]
        for name in {use.checkpoint for use in uses if digests.get(use.checkpoint) in (None, use.digest)}:
            users.setdefault(name, []).append(deployment.metadata.name)
    return {checkpoint: names[:100] for checkpoint, names in users.items()}


def progress(status: api.TrainingJobStatus, pulled: report.Training | None, now: datetime) -> Object | None:
    """The moment's figures, as recorded unless they moved enough to be worth a write."""
    recorded = api.to_raw(status.progress) if status.progress else None
    if pulled is None:
        return recorded
    told = pulled.as_status()
    fresh: Object = {name: _tidy(told[name]) for name in _MOMENT if name in told}
    if "percent" in fresh:
        fresh["percent"] = min(max(round(fresh["percent"], 1), 0.0), 100.0)
    for name in ("etaSeconds", "tokensPerSecond", "learningRate"):
        if fresh.get(name, 0) < 0:
            del fresh[name]
    if "etaSeconds" in fresh:
        fresh["etaSeconds"] = round(fresh["etaSeconds"])
        fresh["eta"] = duration(fresh["etaSeconds"])
    if recorded and not _moved(status.progress, recorded, fresh, now):
        return recorded
    return {**fresh, "updatedAt": timestamp(now)}


def _moved(last: api.Progress | None, recorded: Object, fresh: Object, now: datetime) -> bool:
    same = {name: value for name, value in recorded.items() if name != "updatedAt"} == fresh
    if same or last is None or last.updated_at is None:
        return not same
    if recorded.get("epoch") != fresh.get("epoch") or now - last.updated_at >= QUIET:
        return True
    return bool(abs(fresh.get("percent", 0.0) - recorded.get("percent", 0.0)) >= PERCENT)


def _tidy(value: float | int) -> float | int:
    """Six significant digits: people read these, learning rates among them."""
    return float(f"{value:.6g}") if isinstance(value, float) else value


def finished(recorded: Object | None, now: datetime, total_epochs: int, last_epoch: int | None) -> Object:
    """The progress of a completed job, also where nobody asked while it ran. `last_epoch`: after which it stopped early."""
    kept = {name: value for name, value in (recorded or {}).items() if name not in ("eta", "etaSeconds")}
    total = kept.get("totalEpochs") or total_epochs
    kept |= {"epoch": total if last_epoch is None else last_epoch, "totalEpochs": total}
    if "totalSteps" in kept:
        kept["step"] = kept["totalSteps"] * kept["epoch"] // total
    return {**kept, "percent": 100.0, "updatedAt": timestamp(now)}


def duration(seconds: float) -> str:
    """For people: 45s, 3m20s, 2h05m."""
    whole = int(seconds)
    hours, minutes = divmod(whole // 60, 60)
    if hours:
        return f"{hours}h{minutes:02d}m"
    return f"{minutes}m{whole % 60:02d}s" if minutes else f"{whole}s"
