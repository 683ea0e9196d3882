"""The part of report.html that tells of decision.json: calibration, thresholds, abstention, and what they change. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from winnow_classifier.decision import Abstain, Calibration, Decision
from winnow_classifier.labels import MULTILABEL_THRESHOLD, TaskDetail
from winnow_classifier.metrics import HIGHER_IS_BETTER
from winnow_trainer.markup import number, text

OF_CALIBRATION = ("ece", "brier", "log_loss")
OPEN_UP_TO = 12  # labels
EVERY_LABEL = "*"  # in `unfitted`


def section(content: Mapping[str, Any] | None, primary: str | None) -> str:
    """`content` as decision.json holds it."""
    if not content:
        return ""
    decision = Decision.model_validate(content)
    facts = {
        "Calibration": _calibration(decision.calibration),
        "Thresholds": _thresholds(decision),
        "Abstention": _abstention(decision),
        "Digest": f"{content.get('digest', '–')}, as <code>decision</code> in <code>GET /v1/model</code>",
    }
    rows = "".join(f"<tr><th>{name}</th><td>{told}</td></tr>" for name, told in facts.items())
    return (
        f"<section><h2>Calibration and thresholds</h2><p>{_fitted_on(decision)} A later refit replaces decision.json "
        f"and leaves this page as it is.</p><table class=tree>{rows}</table>{_measured(decision, primary)}"
        f"{_labels(decision)}</section>"
    )


def _fitted_on(decision: Decision) -> str:
    if decision.fitted_on is None:
        return ""
    digest = decision.fitted_on.dataset_digest
    of = f" of <code>{text(digest)}</code>" if digest else ""
    return f"Fitted on {decision.fitted_on.rows:,} validation rows{of}, never on test rows."


def _calibration(found: Calibration | None) -> str:
    if found is None:
        return "none"
    if found.temperature is not None:
        softer = "less" if found.temperature > 1 else "more"
        return f"temperature {number(found.temperature)}: logits are divided by it, which makes answers {softer} sure"
    return "Platt: each label's logit gets a slope and an intercept of its own"


def _thresholds(decision: Decision) -> str:
    asked = _asked(decision.asked or {})
    if decision.thresholds:
        return f"fitted for {asked}; a label counts from its threshold on"
    if decision.task_detail is TaskDetail.MULTILABEL:
        return f"none: each label counts from {MULTILABEL_THRESHOLD:g} on"
    return "none: the likeliest label counts" + (f", asked for was {asked}" if asked else "")


def _asked(asked: Mapping[str, Any]) -> str:
    """spec.thresholds in words; empty where it asks for abstention only."""
    costs = asked.get("costs") or {}
    return {
        "F1": "the best F1",
        "PrecisionAtLeast": f"a precision of at least {asked.get('value')}",
        "RecallAtLeast": f"a recall of at least {asked.get('value')}",
        "Cost": f"the least cost (false positive {costs.get('falsePositive')}, false negative {costs.get('falseNegative')})",
    }.get(str(asked.get("objective")), "")


def _abstention(decision: Decision) -> str:
    if decision.abstain is None:
        return "never"
    told = _when(decision.abstain)
    if decision.measured is not None:
        rows = decision.measured.rows.lower()
        told += f": {100 * decision.measured.abstained:.1f} % of the {rows} rows. Metrics count its best guess."
    return told


def _when(abstain: Abstain) -> str:
    rules = []
    if abstain.band is not None:
        rules.append(f"where a probability is nearer to its threshold than {number(abstain.band)}")
    if abstain.min_probability is not None:
        rules.append(f"where the likeliest label has less than {number(abstain.min_probability)}")
    return ", and ".join(rules)


def _measured(decision: Decision, primary: str | None) -> str:
    measured = decision.measured
    if measured is None:
        return ""
    names = [name for name in dict.fromkeys((primary, *OF_CALIBRATION)) if name in measured.after]
    rows = "".join(
        f"<tr><th>{text(name)}{'' if HIGHER_IS_BETTER.get(name, True) else ' <small>lower is better</small>'}</th>"
        f"<td class=n>{number(measured.before.get(name))}</td><td class=n>{number(measured.after[name])}</td>"
        f"<td class=n>{_change(name, measured.before.get(name), measured.after[name])}</td></tr>"
        for name in names
    )
    which = f"{measured.count:,} {measured.rows.lower()} rows"
    flatters = "" if measured.rows == "Test" else " <small>on which it was fitted: these figures flatter</small>"
    return (
        f"<h3>What it changes, on the {which}{flatters}</h3><div class=wide><table><thead><tr><th>metric</th>"
        f"<th>without it</th><th>with it</th><th>change</th></tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _change(name: str, before: float | None, after: float | None) -> str:
    if before is None or after is None:
        return "–"
    change = after - before
    if abs(change) < 5e-5:
        return "none"
    better = (change > 0) == HIGHER_IS_BETTER.get(name, True)
    return f"{change:+.4f} <small>{'better' if better else 'worse'}</small>"


def _labels(decision: Decision) -> str:
    lines = (decision.calibration.labels if decision.calibration else None) or {}
    everywhere = decision.unfitted.get(EVERY_LABEL)
    told = f"<p>{text(everywhere)}.</p>" if everywhere else ""
    named = [
        label
        for label in decision.labels
        if label in decision.thresholds or label in lines or label in decision.unfitted
    ]
    if not named:
        return told
    head = ["label", "threshold", *(["slope", "intercept"] if lines else []), *(["note"] if decision.unfitted else [])]
    rows = "".join(f"<tr><th><bdi>{text(label)}</bdi></th>{''.join(_cells(decision, label))}</tr>" for label in named)
    return (
        f"{told}<details{' open' if len(named) <= OPEN_UP_TO else ''}><summary>Labels ({len(named):,})</summary>"
        f"<div class=wide><table><thead><tr>{''.join(f'<th>{each}</th>' for each in head)}</tr></thead>"
        f"<tbody>{rows}</tbody></table></div></details>"
    )


def _cells(decision: Decision, label: str) -> Iterable[str]:
    default = MULTILABEL_THRESHOLD if decision.task_detail is TaskDetail.MULTILABEL else None
    yield f"<td class=n>{number(decision.thresholds.get(label, default))}</td>"
    if decision.calibration and decision.calibration.labels:
        line = decision.calibration.labels.get(label)
        yield f"<td class=n>{number(line.slope if line else 1)}</td><td class=n>{number(line.intercept if line else 0)}</td>"
    if decision.unfitted:
        yield f"<td>{text(decision.unfitted.get(label, ''))}</td>"
