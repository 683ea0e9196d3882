"""A classifier of Llama-3.1-8B's shape with random weights, answering: packed batches as the server makes them on a GPU, beside transformers' own
classifier on padded ones."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from gpu.llama import Plan, body_weights, network, peak_flops, plan
from winnow_classifier.attention import PACKED_ATTENTION, register
from winnow_classifier.model import Classifier
from winnow_classifier.packing import pack

GOAL = 0.65
BATCH_TOKENS = 4_096  # the server's default on a GPU
LENGTHS = (128, 512)  # tokens a text
SECONDS = 20.0  # of each program and length, after the warm-up
WARM_UP = 3
AGREE = 0.05  # of a probability, in bfloat16: what the server allows

Texts = Sequence[list[int]]


def texts(length: int, tokens: int) -> list[list[int]]:
    generator = torch.Generator().manual_seed(length)
    count = max(1, tokens // length)
    return [torch.randint(1, 400, (length,), generator=generator).tolist() for _ in range(count)]


def packed(made: Plan, device: torch.device) -> Callable[[Texts], Tensor]:
    """What winnow_server's `Served.logits` does."""
    register()
    model = Classifier(network(made, device, PACKED_ATTENTION)).eval().requires_grad_(False)
    for parameter in model.head_parameters():
        parameter.data = parameter.data.float()
    return lambda batch: model(pack(batch).to(device)).float().cpu()


def padded(made: Plan, device: torch.device) -> Callable[[Texts], Tensor]:
    """Texts of one length: nothing is padded, which is the best that it can have."""
    model = network(made, device, "sdpa").eval().requires_grad_(False)

    def answer(batch: Texts) -> Tensor:
        ids = torch.tensor(batch, device=device)
        logits: Tensor = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
        return logits.float().cpu()

    return answer


def tokens_a_second(answer: Callable[[Texts], Tensor], batch: Texts, seconds: float) -> float:
    for _ in range(WARM_UP):
        answer(batch)
    rounds, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        answer(batch)
        rounds += 1
    return rounds * sum(map(len, batch)) / (time.perf_counter() - began)


def run(device: torch.device, tiny: bool) -> dict[str, Any]:
    made = plan(tiny)
    lengths, tokens, seconds = ((16, 32), 128, 0.05) if tiny else (LENGTHS, BATCH_TOKENS, SECONDS)
    flops, peak = 2 * body_weights(made), peak_flops(device)
    found: dict[int, dict[str, Any]] = {length: {"textTokens": length} for length in lengths}
    answers: dict[int, list[Tensor]] = {length: [] for length in lengths}
    with torch.inference_mode():
        for name, program in (("winnow", packed), ("transformers", padded)):
            answer = program(made, device)
            for length in lengths:
                batch = texts(length, tokens)
                speed = tokens_a_second(answer, batch, seconds)
                used = speed * flops / peak if peak else None
                found[length][name] = {"tokensPerSecond": speed, "utilisation": used}
                answers[length].append(answer(batch).softmax(dim=-1))
                told = f", {used:.1%} of the GPU" if used else ""
                print(f"  texts of {length} tokens, {name}: {speed:,.0f} tokens/s{told}")
            del answer
            gc.collect()
            if device.type == "cuda":
                torch.cuda.empty_cache()
    for length, (ours, theirs) in answers.items():
        found[length]["difference"] = float((ours - theirs).abs().max())
    missed = []
    for length, one in found.items():
        used = one["winnow"]["utilisation"]
        if one["difference"] > AGREE:
            missed.append(f"texts of {length} tokens: a probability is off by {one['difference']:.3f}, of {AGREE}")
        if used is not None and used < GOAL and not tiny:
            missed.append(f"texts of {length} tokens: {used:.1%} of the GPU, of {GOAL:.0%}")
    rounds = list(found.values())
    return {"passed": not missed, "missed": missed, "flopsPerToken": flops, "peakFlops": peak, "rounds": rounds}
