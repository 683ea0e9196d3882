"""The model's results under a request's rules: calibrated probabilities, predicted labels, abstention. Pure."""

import numpy as np
import torch

from winnow_classifier.decision import calibrated
from winnow_classifier.labels import LabelSchema
from winnow_server.errors import InternalError
from winnow_server.thresholds import Rules, abstained, predicted
from winnow_server.ticket import Result, Ticket


def decided(ticket: Ticket, rules: Rules, schema: LabelSchema) -> list[Result]:
    """Of a ticket with all its results. Logits stay the model's own. Raises InternalError if calibration leaves no number of
    one."""
    results = ticket.complete_results()
    if rules.calibration is not None:
        logits = torch.from_numpy(np.stack([result.logits for result in results]))
        probabilities = schema.probabilities(calibrated(logits, rules.calibration, schema.labels)).numpy()
        finite = np.isfinite(probabilities).all(axis=1)
        if not finite.all():
            raise InternalError.not_finite(ticket.named(int(finite.argmin())), of="calibration")
    else:
        probabilities = np.stack([result.probabilities for result in results])
    top = probabilities.argmax(axis=1).tolist()
    labels = predicted(probabilities, rules.thresholds, schema)
    unsure = abstained(probabilities, rules, schema)
    rows = zip(results, probabilities, top, labels, unsure, strict=True)
    return [Result(result.logits, *row) for result, *row in rows]
