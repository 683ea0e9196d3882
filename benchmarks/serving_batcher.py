"""What the queue, the batches and the engine cost over the bare model, at full batches, in this process, without HTTP.

    python benchmarks/serving_batcher.py [--base-model DIR] [--rounds 7]

The same short texts, tokenised before: once through TokenQueue and Engine as single-text requests, once as packed batches of the same size straight into the model, in turn. Bar:
at most 10 % more time for the medians.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import NamedTuple

import torch

from bars import verdict
from serving import make_checkpoint, minilm
from serving_load import TEXTS
from winnow_classifier.cpu import usable_cpus
from winnow_classifier.mirror import VOLUME
from winnow_classifier.packing import plan_batches
from winnow_classifier.tokens import Encoded
from winnow_server import model
from winnow_server.engine import Engine, workers_on
from winnow_server.metrics import Metrics
from winnow_server.queue import TokenQueue
from winnow_server.settings import CPU_BATCH_TOKENS
from winnow_server.ticket import Ticket

BAR = 0.10
REQUESTS = 1_024


class Spent(NamedTuple):
    seconds: float
    cpu_seconds: float  # of all threads: what other work on the machine hardly touches

    def since(self, start: Spent) -> Spent:
        return Spent(self.seconds - start.seconds, self.cpu_seconds - start.cpu_seconds)


def now() -> Spent:
    return Spent(time.perf_counter(), time.process_time())


async def queued(served: model.Served, encoded: list[Encoded]) -> Spent:
    """From the first batch's start to the last answer."""
    loop = asyncio.get_running_loop()
    queue = TokenQueue(max_tokens=sum(len(one.input_ids) for one in encoded), max_batch_tokens=CPU_BATCH_TOKENS)
    ready = asyncio.Event()
    engine = Engine(
        lambda: served,
        queue,
        Metrics("benchmark", "1"),
        deliver=loop.call_soon_threadsafe,
        on_ready=lambda _: loop.call_soon_threadsafe(ready.set),
        on_failure=lambda err: sys.exit(f"the engine failed: {err}"),
        workers=workers_on(usable_cpus()),
    )
    tickets = [Ticket(["text"]) for _ in encoded]
    for ticket, one in zip(tickets, encoded, strict=True):
        ticket.tokenised([one])
    engine.start()
    await ready.wait()
    started = now()
    for ticket in tickets:
        queue.put(ticket)
    await asyncio.gather(*(ticket.done for ticket in tickets))
    took = now().since(started)
    queue.close()
    await asyncio.to_thread(engine.join)
    return took


def bare(served: model.Served, encoded: list[Encoded]) -> Spent:
    sequences = [one.input_ids for one in encoded]
    batches = plan_batches([len(one) for one in sequences], CPU_BATCH_TOKENS)
    started = now()
    with torch.inference_mode():
        for batch in batches:
            served.logits([sequences[index] for index in batch])
    return now().since(started)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base-model", type=Path)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    torch.set_num_threads(usable_cpus())
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary, "checkpoint")
        make_checkpoint(arguments.base_model or minilm(), folder)
        served = model.load(folder, model.announce(folder, None, None), None, None, VOLUME)
    encoded = served.encoder.encode([TEXTS[number % len(TEXTS)] for number in range(REQUESTS)])
    tokens = sum(len(one.input_ids) for one in encoded)
    bare(served, encoded)
    ours, plain = [], []
    for _ in range(arguments.rounds):
        plain.append(bare(served, encoded))
        ours.append(asyncio.run(queued(served, encoded)))
    cost, cpu_cost = (median(one[part] for one in ours) / median(one[part] for one in plain) - 1 for part in (0, 1))
    print(
        f"{served.precision}: bare {tokens / median(one.seconds for one in plain):.0f} tokens/s, through queue and engine {tokens / median(one.seconds for one in ours):.0f}"
    )
    print(f"{cost:.1%} more time, {cpu_cost:.1%} more CPU time.")
    return verdict([] if cost <= BAR else [f"{cost:.1%} more time, of {BAR:.0%}"])


if __name__ == "__main__":
    sys.exit(main())
