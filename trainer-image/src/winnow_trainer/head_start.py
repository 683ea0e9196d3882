"""A head that knows something before its first step: ridge regression from the features of some rows to their labels.

The regularisation is the one with the least leave-one-out error, which ridge gives in closed form (Golub, Heath and Wahba
1979); its leave-one-out answers also fit the scale that turns scores into logits, so that the head does not begin too sure.
Both count what the head's dropout will do: to a linear layer it is a penalty on each weight, by the squares of what reaches it
(Wager et al. 2013, arXiv:1307.1493). Without it large weights may cancel what all rows have in common, and each drop leaves
a part of that uncancelled. Letters: N rows, d width, C labels. Computed in float64.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from winnow_classifier.model import Classifier
from winnow_trainer.steps import Rows

SAMPLE_ROWS = 4_096  # rows: more hardly change a linear head, and the time of the decomposition grows with N d²
STRENGTHS = 10.0 ** np.arange(-6.0, 1.5, 0.5)  # of the largest squared singular value
FLOOR = 1e-4  # the least strength, as a share of a feature's mean sum of squares: a body that trains moves its features

Objective = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class Ridge:
    """Scores (N, C) are `features @ weight.T + bias`; `left_out` has those of each row by the others alone."""

    weight: Tensor  # (C, d)
    bias: Tensor  # (C,)
    left_out: Tensor  # (N, C)
    strength: float  # beside the penalty of the dropout


def sample(rows: Rows, seed: int) -> Rows:
    """Some of the rows that train, each once: of a repeated row a copy would stay when it is left out, and give its answer
    away."""
    different = np.unique(rows)
    if len(different) <= SAMPLE_ROWS:
        return different
    return np.sort(np.random.default_rng([seed, len(different)]).permutation(different)[:SAMPLE_ROWS])


def start_head(model: Classifier, features: Tensor, targets: Tensor, objective: Objective) -> None:
    """Sets the last layer of the head, from features (N, d) and targets (N, C); layers before it stay as they are."""
    layer, inputs, drop = into_last_layer(model, features)
    inputs = inputs.double()
    ridge = fit_ridge(inputs, targets.double(), intercept=layer.bias is not None, drop=drop)
    scores = torch.cat([ridge.left_out + noise for noise in dropped(inputs, ridge.weight, drop)])
    known = targets.repeat(len(scores) // len(targets), 1)
    scale, shift = fit_scale(scores, known, objective, shifted=layer.bias is not None)
    with torch.no_grad():
        layer.weight.copy_(ridge.weight * scale)
        if layer.bias is not None:
            layer.bias.copy_(ridge.bias * scale + shift)


def dropped(inputs: Tensor, weight: Tensor, drop: float) -> Iterator[Tensor]:
    """(N, C): what dropout adds to the scores of inputs (N, d), a few times where there are few rows."""
    if not drop:
        yield torch.zeros(len(inputs), len(weight), dtype=inputs.dtype, device=inputs.device)
        return
    generator = torch.Generator().manual_seed(0)  # its own: the draws of the training stay what they are
    for _ in range(max(1, SAMPLE_ROWS // len(inputs))):
        kept = (torch.rand(inputs.shape, generator=generator) >= drop).to(inputs)
        yield inputs * (kept / (1 - drop) - 1) @ weight.T


def into_last_layer(model: Classifier, features: Tensor) -> tuple[nn.Linear, Tensor, float]:
    """The linear layer that gives the logits, what reaches it, (N, its width), and the chance of dropout before it."""
    seen: list[tuple[nn.Linear, Tensor, float]] = []
    drop = 0.0

    def see(layer: nn.Module, given: tuple[Tensor, ...]) -> None:
        nonlocal drop
        if isinstance(layer, nn.Linear):
            seen.append((layer, given[0].detach().flatten(0, -2), drop))
        drop = layer.p if isinstance(layer, nn.Dropout) else 0.0

    layers = [layer for layer in model.base.modules() if isinstance(layer, nn.Linear | nn.Dropout)]
    hooks = [layer.register_forward_pre_hook(see) for layer in layers]
    model.eval()
    try:
        with torch.no_grad():
            model.head(features.to(model.device))
    finally:
        for hook in hooks:
            hook.remove()
    return seen[-1]


def fit_ridge(features: Tensor, targets: Tensor, intercept: bool, drop: float = 0.0) -> Ridge:
    """features (N, d) and targets (N, C), float64; `drop`: the chance of dropout of each feature."""
    count = len(features)
    centre = features.mean(dim=0) if intercept else torch.zeros_like(features[0])
    level = targets.mean(dim=0) if intercept else torch.zeros_like(targets[0])
    size = features.square().sum(dim=0)
    penalty = size * drop / (1 - drop)
    # A penalty is a regression of as many more rows, whose targets are 0.
    more = [torch.diag(penalty.sqrt())] if drop else []
    u, singular, vt = torch.linalg.svd(torch.cat([features - centre, *more]), full_matrices=False)
    u = u[:count]
    squared, along = singular**2, u.T @ (targets - level)
    best: tuple[float, float, Tensor, Tensor] | None = None
    for strength in (STRENGTHS * max(float(squared.max()), 1e-12)).clip(FLOOR * float(size.mean())).tolist():
        kept = squared / (squared + strength)
        own = (u**2 @ kept) + (1 / count if intercept else 0.0)  # how far each row decides its own score
        residual = (targets - level - u @ (kept[:, None] * along)) / (1 - own).clamp(min=1e-9)[:, None]
        weight = ((singular / (squared + strength))[:, None] * along).T @ vt
        error = float((residual**2).mean() + (weight**2 @ penalty).mean() / count)
        if best is None or error < best[0]:
            best = (error, strength, targets - residual, weight)
    assert best is not None
    _, strength, left_out, weight = best
    return Ridge(weight, level - weight @ centre, left_out, strength)


def fit_scale(scores: Tensor, targets: Tensor, objective: Objective, shifted: bool) -> tuple[Tensor, Tensor]:
    """The factor and, if `shifted`, the addition of each label that make scores (N, C) the best logits for the loss."""
    power = torch.zeros((), dtype=torch.float64, device=scores.device, requires_grad=True)
    shift = torch.zeros(scores.shape[1], dtype=torch.float64, device=scores.device, requires_grad=shifted)
    optimizer = torch.optim.LBFGS([power, shift] if shifted else [power], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        logits = (scores * power.exp() + shift).float()
        # For rows that are separated without a mistake the best scale is infinite; this term keeps it finite.
        loss = objective(logits, targets).mean() + 1e-3 * (power**2 + shift.square().mean())
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    return power.detach().exp(), shift.detach()
