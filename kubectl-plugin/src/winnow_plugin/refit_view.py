"""What a refit came to, for people: what was fitted, what it changed, and who serves it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from winnow_plugin.objects import Object, name_of, status_of
from winnow_plugin.screen import table
from winnow_plugin.storage_access import Checkpoint
from winnow_plugin.words import NOTHING, plain

Decision = Mapping[str, Any]  # decision.json
METRICS = ("ece", "brier", "log_loss", "accuracy", "f1", "f1_macro")
SHOWN_LABELS = 50


def told(job: str, checkpoint: str, decision: Decision, before: Decision) -> list[RenderableType]:
    """`before` is what held until now; empty where there was none."""
    rows = (decision.get("fittedOn") or {}).get("rows", 0)
    lines = [f"{checkpoint} of {job}, fitted on {rows:,} validation rows"]
    lines += [f"{name}: {now} ({was} before)" for name, was, now in _settings(decision, before) if was != now]
    lines += [f"{name}: {now}" for name, was, now in _settings(decision, before) if was == now]
    parts: list[RenderableType] = [Text("\n".join(lines))]
    if labels := _thresholds(decision, before):
        parts += [Text(""), labels]
    unfitted = [f"{plain(label)}: {plain(why)}" for label, why in (decision.get("unfitted") or {}).items()]
    if unfitted:
        parts.append(Text("\n".join(unfitted[:SHOWN_LABELS])))
    if measured := _measured(decision, before):
        parts += [Text(""), measured]
    return parts


def _settings(decision: Decision, before: Decision) -> list[tuple[str, str, str]]:
    """(what, until now, now)"""
    return [
        ("calibration", _calibration(before), _calibration(decision)),
        ("thresholds for", _asked(before), _asked(decision)),
        ("abstains", _abstains(before), _abstains(decision)),
    ]


def _calibration(decision: Decision) -> str:
    found = decision.get("calibration") or {}
    if (temperature := found.get("temperature")) is not None:
        return f"temperature {temperature:.4f}"
    return "Platt, by label" if found else "none"


def _asked(decision: Decision) -> str:
    asked = decision.get("asked") or {}
    costs = asked.get("costs") or {}
    words = [str(asked.get("objective") or "nothing"), *([f"{asked['value']:g}"] if "value" in asked else [])]
    words += [f"falsePositive {costs['falsePositive']:g}, falseNegative {costs['falseNegative']:g}"] if costs else []
    return plain(" ".join(words))


def _abstains(decision: Decision) -> str:
    found = decision.get("abstain") or {}
    if (band := found.get("band")) is not None:
        return f"nearer than {band:g} to a threshold"
    if (least := found.get("minProbability")) is not None:
        return f"where the likeliest label has less than {least:.4f}"
    return "never"


def _thresholds(decision: Decision, before: Decision) -> Table | None:
    now, was = decision.get("thresholds") or {}, before.get("thresholds") or {}
    labels = [label for label in decision.get("labels") or () if label in now or label in was]
    if not labels:
        return None
    shown = table("LABEL", "BEFORE", "NOW", right=("BEFORE", "NOW"))
    for label in labels[:SHOWN_LABELS]:
        shown.add_row(plain(label), _number(was.get(label)), _number(now.get(label)))
    if len(labels) > SHOWN_LABELS:
        shown.add_row(f"… and {len(labels) - SHOWN_LABELS} more", "", "")
    return shown


def _measured(decision: Decision, before: Decision) -> Table | None:
    """RAW is as the model answers: without calibration, decided at 0.5 or by the likeliest label."""
    measured = decision.get("measured")
    if not measured:
        return None
    earlier = before.get("measured") or {}
    same = all(earlier.get(field) == measured.get(field) for field in ("rows", "count"))
    raw, now, was = measured["before"], measured["after"], earlier.get("after") or {} if same else {}
    shown = table(
        f"ON {measured['count']:,} {measured['rows'].upper()} ROWS",
        "RAW",
        "BEFORE",
        "NOW",
        right=("RAW", "BEFORE", "NOW"),
    )
    for name in METRICS:
        if now.get(name) is not None:
            shown.add_row(name, *(_number(values.get(name)) for values in (raw, was, now)))
    shares = [0.0, earlier.get("abstained", 0.0) if was else None, measured.get("abstained", 0.0)]
    if any(shares):
        shown.add_row("abstained", *(NOTHING if share is None else f"{share:.1%}" for share in shares))
    return shown


def served_by(
    deployments: Iterable[Object], checkpoint: Checkpoint, decision: Decision, *, in_bucket: bool
) -> list[str]:
    """Who takes it without a restart, and what of it does not hold there."""
    live = sorted((each for each in deployments if _serves(each, checkpoint)), key=name_of)
    if not live:
        return ["no Deployment serves it now; one that does later begins with this"]
    when = "half a minute" if in_bucket else "seconds"
    lines = [f"served by {', '.join(map(name_of, live))}: taken within {when}, without a restart"]
    for each in live:
        if words := _overridden(each, decision):
            lines.append(
                f"warning: spec.thresholds of Deployment {name_of(each)} go before the fitted ones: {', '.join(words)}"
            )
    return lines


def _serves(deployment: Object, checkpoint: Checkpoint) -> bool:
    """By the digest: another run of the same name is another checkpoint."""
    live = status_of(deployment).get("live") or {}
    return bool(live.get("digest")) and live["digest"] == checkpoint.get("digest")


def _overridden(deployment: Object, decision: Decision) -> Sequence[str]:
    own = (deployment.get("spec") or {}).get("thresholds") or {}
    fitted = decision.get("thresholds") or {}
    return [
        f"{plain(label)} {own[label]:g} ({_number(fitted[label]) if label in fitted else 'none'} fitted)"
        for label in decision.get("labels") or ()
        if label in own
    ]


def _number(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.4f}"
