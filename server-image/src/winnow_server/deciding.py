"""The model's results under a request's rules: calibrated probabilities, predicted labels, abstention. Pure."""

from collections.abc import Sequence

import numpy as np
import torch

from winnow_classifier.decision import calibrated
from winnow_classifier.labels import LabelSchema
from winnow_server.thresholds import Rules, abstained, predicted
from winnow_server.ticket import Result


def decided(results: Sequence[Result], rules: Rules, schema: LabelSchema) -> list[Result]:
    """Logits stay the model's own."""
    if rules.calibration is not None:
        logits = torch.from_numpy(np.stack([result.logits for result in results]))
        probabilities = schema.probabilities(calibrated(logits, rules.calibration, schema.labels)).numpy()
    else:
        probabilities = np.stack([result.probabilities for result in results])
    top = probabilities.argmax(axis=1).tolist()
    labels = predicted(probabilities, rules.thresholds, schema)
    unsure = abstained(probabilities, rules, schema)
    rows = zip(results, probabilities, top, labels, unsure, strict=True)
    return [Result(result.logits, *row) for result, *row in rows]
