"""Results as the endpoints word them. Probabilities are never rounded: float32, shortest form."""

import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from winnow_classifier.tokens import Encoded
from winnow_server.model import Announced
from winnow_server.schemas import ClassificationRequest, ClassifyRequest
from winnow_server.thresholds import Rules
from winnow_server.ticket import Result, Ticket

MOST_TRUNCATED = 32  # named in a header


def classify(request: ClassifyRequest, ticket: Ticket, announced: Announced, rules: Rules) -> dict[str, Any]:
    """POST /v1/classify: vLLM's answer, and what it leaves out."""
    labels = announced.manifest.labels
    data = []
    truncated = 0
    for index, (item, encoded, result) in enumerate(
        zip(request.input, ticket.encoded, ticket.complete_results(), strict=True)
    ):
        values = result.logits if request.use_activation is False else result.probabilities
        entry = {
            "index": index,
            **judged(encoded, result, labels),
            "probs": values,
            "num_classes": len(labels),
        }
        if item.id is not None:
            entry["id"] = item.id
        if request.return_logits:
            entry["logits"] = result.logits
        if request.top_k is not None:
            entry["top"] = most_probable(result, labels, request.top_k)
        truncated += encoded.truncated
        data.append(entry)
    return {
        "id": request.request_id or request.rid or new_id(),
        "object": "list",
        "created": int(time.time()),
        "model": announced.name,
        "model_version": announced.version,
        "problem_type": announced.manifest.problem_type,
        "labels": labels,
        "thresholds": dict(rules.thresholds),
        "data": data,
        "usage": usage(ticket),
        "warnings": [f"{truncated} of {len(data)} inputs truncated"] if truncated else [],
    }


def classification(request: ClassificationRequest, ticket: Ticket, announced: Announced) -> dict[str, Any]:
    """POST /v1/classification: Emissary's answer, by label name."""
    labels = announced.manifest.labels
    data = []
    for index, result in enumerate(ticket.complete_results()):
        kind, values = ("probs", result.probabilities) if request.data_format == "probs" else ("logits", result.logits)
        data.append({"index": index, kind: named(values, labels)})
    return {
        "id": new_id(),
        "model": announced.name,
        "data": data,
        "created": int(time.time()),
        "usage": usage(ticket),
    }


def rules(standing: Rules) -> dict[str, Any]:
    """What holds where a request brings nothing."""
    parts = (standing.calibration, standing.abstain)
    calibration, abstain = (part.model_dump(exclude_none=True) if part else None for part in parts)
    return {"thresholds": dict(standing.thresholds), "calibration": calibration, "abstain": abstain}


def judged(encoded: Encoded, result: Result, labels: Sequence[str]) -> dict[str, Any]:
    """Of one text, in every protocol that has room for it."""
    return {
        "label": labels[result.top],
        "predicted_labels": result.predicted,
        "abstained": result.abstained,
        "tokens": len(encoded.input_ids),
        "truncated": encoded.truncated,
        "original_tokens": encoded.original_tokens,
    }


def most_probable(result: Result, labels: Sequence[str], count: int) -> list[dict[str, Any]]:
    return [{"label": label, "prob": value} for label, value in by_score(result.probabilities, labels, count)]


def by_score(values: NDArray[np.float32], labels: Sequence[str], count: int) -> list[tuple[str, np.float32]]:
    """Highest first; equal ones in label order."""
    return [(labels[index], values[index]) for index in np.argsort(-values, kind="stable")[:count]]


def named(values: NDArray[np.float32], labels: Sequence[str]) -> Mapping[str, np.float32]:
    return dict(zip(labels, values, strict=True))


def usage(ticket: Ticket) -> dict[str, Any]:
    tokens = sum(ticket.lengths)
    return {"prompt_tokens": tokens, "total_tokens": tokens, "completion_tokens": 0, "prompt_tokens_details": None}


def server_timing(ticket: Ticket) -> str:
    """The Server-Timing header, milliseconds: tokenising, waiting for a batch, the model."""
    timing = ticket.timing
    stages = (
        ("tok", timing.tokenised - timing.arrived),
        ("queue", timing.started - timing.tokenised),
        ("infer", timing.finished - timing.started),
    )
    return ", ".join(f"{name};dur={seconds * 1e3:.2f}" for name, seconds in stages)


def headers(ticket: Ticket) -> dict[str, str]:
    """Of every answer with results."""
    cut = truncated(ticket)
    return {"server-timing": server_timing(ticket), **({"x-winnow-truncated": cut} if cut else {})}


def truncated(ticket: Ticket) -> str:
    """The X-Winnow-Truncated header: index:tokens/read of each text that was cut. For answers that have no room to say so.

    Bounded, since proxies refuse headers of some kilobytes: behind the first 32 stands how many more there are.
    """
    cut = [
        f"{index}:{encoded.original_tokens}/{len(encoded.input_ids)}"
        for index, encoded in enumerate(ticket.encoded)
        if encoded.truncated
    ]
    more = [f"+{len(cut) - MOST_TRUNCATED}"] if len(cut) > MOST_TRUNCATED else []
    return ",".join(cut[:MOST_TRUNCATED] + more)


def new_id() -> str:
    return f"classify-{uuid.uuid4().hex}"
