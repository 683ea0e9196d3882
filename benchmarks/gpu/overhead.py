"""What a request costs beside the model's own time: one client, one text at a time, in a process of both.

Over HTTP where winnow_server is installed. Without its libraries by its queue, tokeniser and engine alone, which the report
says: what HTTP adds is not in the number then.
"""

from __future__ import annotations

import asyncio
import copy
import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from statistics import median
from typing import Any, cast

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from gpu.llama import LABELS, plan
from gpu.serving import BATCH_TOKENS, packed
from winnow_classifier.cpu import usable_cpus
from winnow_classifier.labels import LabelSchema, TaskDetail
from winnow_classifier.tokens import Encoder
from winnow_server.engine import Engine, Threads
from winnow_server.queue import TokenQueue
from winnow_server.ticket import Ticket
from winnow_server.tokenising import SHORT_CHARACTERS, Tokeniser, estimated_tokens

BAR_SECONDS = 0.002  # medians
LENGTHS = (16, 128, 512)  # tokens a text
REQUESTS = 200  # and as many bare passes, in turn
WARM_UP = 5
START_SECONDS = 300.0
WORDS = {f"w{number}": number for number in range(400)}
SCHEMA = LabelSchema(TaskDetail.MULTICLASS, tuple(f"label {number}" for number in range(LABELS)))

Ask = Callable[[str], object]


@dataclass(frozen=True)
class Loaded:
    """What the engine and the service take of winnow_server's `Served`, whose module needs its libraries."""

    encoder: Encoder
    answer: Callable[[Sequence[list[int]]], Tensor]
    device: torch.device
    workers: Sequence[Threads]
    schema: LabelSchema = SCHEMA
    precision: str = "bfloat16"
    rows: tuple[()] = ()

    def logits(self, sequences: Sequence[list[int]]) -> tuple[Tensor, float]:
        return self.answer(sequences), 0.0

    def encoders(self, count: int) -> list[Encoder]:
        return [copy.deepcopy(self.encoder) for _ in range(count)]


class Uncounted:
    """In the place of the server's metrics."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_, **__: None


def load(device: torch.device, tiny: bool) -> Loaded:
    words = Tokenizer(models.WordLevel(WORDS, unk_token="w0"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="w0", unk_token="w0")
    # As winnow_server has them on a GPU. On a CPU the bare passes and the engine's would fight for the cores.
    cpus = usable_cpus() if device.type == "cuda" else 1
    torch.set_num_threads(cpus)
    encoder = Encoder(tokenizer, "{text}", max(LENGTHS))
    return Loaded(encoder, packed(plan(tiny), device), device, [Threads(cpus, cpus)])


def text(tokens: int) -> str:
    return " ".join(f"w{1 + number % 399}" for number in range(tokens))


@contextmanager
def by_queue(loaded: Loaded) -> Iterator[Ask]:
    """What winnow_server's `Service.classify` does, without its surroundings."""
    loop = asyncio.new_event_loop()
    queue = TokenQueue(max_tokens=16 * BATCH_TOKENS, max_batch_tokens=BATCH_TOKENS)
    tokeniser = Tokeniser(loaded.encoders(1), queue)
    started, failures = threading.Event(), list[Exception]()

    def failed(error: Exception) -> None:
        failures.append(error)
        started.set()

    engine = Engine(
        lambda: cast(Any, loaded),
        queue,
        cast(Any, Uncounted()),
        deliver=loop.call_soon_threadsafe,
        on_ready=lambda _: started.set(),
        on_failure=failed,
        workers=loaded.workers,
    )

    async def classify(one: str) -> None:
        ticket = Ticket([one])
        queue.reserve(ticket, estimated_tokens([one], loaded.encoder.max_seq_length))
        if len(one) > SHORT_CHARACTERS or not queue.hand(ticket):
            tokeniser.submit(ticket)
        await ticket.done

    tokeniser.start()
    engine.start()
    started.wait()
    if failures:
        raise failures[0]
    try:
        yield lambda one: loop.run_until_complete(classify(one))
    finally:
        tokeniser.close()
        queue.close()
        engine.join()
        loop.close()


@contextmanager
def by_http(loaded: Loaded) -> Iterator[Ask]:
    """Raises ImportError where winnow_server is not installed."""
    from winnow_classifier.checkpoint import BaseModelEntry, DatasetEntry, JobEntry, Manifest
    from winnow_server.app import create_app
    from winnow_server.model import Announced
    from winnow_server.process import Server, configuration, listen
    from winnow_server.service import Service

    manifest = Manifest(
        name="random",
        epoch=1,
        task_detail=SCHEMA.task_detail,
        labels=SCHEMA.labels,
        problem_type=SCHEMA.problem_type,
        method="Full",
        architecture="LlamaForSequenceClassification",
        pooling="last",
        prompt_template="{text}",
        max_seq_length=loaded.encoder.max_seq_length,
        base_model=BaseModelEntry(reference="random", digest="sha256:0"),
        training_dataset=DatasetEntry(digest="sha256:0", rows=0),
        training_job=JobEntry(name="none"),
        created_at=datetime.now(UTC),
    )
    service = Service(
        Announced("random", manifest, "sha256:0"),
        lambda: cast(Any, loaded),
        max_batch_tokens=BATCH_TOKENS,
        max_queue_tokens=16 * BATCH_TOKENS,
        workers=loaded.workers,
    )
    server = Server(configuration(create_app(service)), service.drain, 0)
    server.capture_signals = nullcontext  # type: ignore[method-assign, assignment]  # they are the main thread's
    with listen("127.0.0.1", 0) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        connection = http.client.HTTPConnection("127.0.0.1", listener.getsockname()[1])

        def asked(method: str, path: str, body: str | None = None) -> int:
            connection.request(method, path, body, {"content-type": "application/json"})
            response = connection.getresponse()
            response.read()
            return response.status

        def classify(one: str) -> None:
            status = asked("POST", "/v1/classify", json.dumps({"input": one}))
            if status != 200:
                raise RuntimeError(f"the server answered {status}")

        try:
            end = time.monotonic() + START_SECONDS
            while asked("GET", "/v2/health/ready") != 200:
                if service.failure or time.monotonic() > end:
                    raise service.failure or RuntimeError("the server did not become ready")
                time.sleep(0.01)
            yield classify
        finally:
            server.should_exit = True
            connection.close()
            thread.join()


def seconds_of(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def measured(loaded: Loaded, ask: Ask, tokens: int, requests: int) -> dict[str, float]:
    """Bare passes and requests in turn, so that a clock that changes meets both."""
    one = text(tokens)
    (encoded,) = loaded.encoder.encode([one])
    bare, asked = [], []
    for _ in range(WARM_UP + requests):
        with torch.inference_mode():
            bare.append(seconds_of(lambda: loaded.logits([encoded.input_ids])))
        asked.append(seconds_of(lambda: ask(one)))
    model, whole = (median(times[WARM_UP:]) for times in (bare, asked))
    return {"textTokens": tokens, "modelSeconds": model, "requestSeconds": whole, "overheadSeconds": whole - model}


def run(device: torch.device, tiny: bool) -> dict[str, Any]:
    loaded = load(device, tiny)
    lengths, requests = ((16, 32), 3) if tiny else (LENGTHS, REQUESTS)
    for through, way in (("HTTP", by_http), ("queue and engine", by_queue)):
        try:
            with way(loaded) as ask:
                rounds = [measured(loaded, ask, tokens, requests) for tokens in lengths]
            break
        except ImportError as missing:
            print(f"  not by {through}: {missing}")
    for found in rounds:
        print(
            f"  a text of {found['textTokens']} tokens, by {through}: {found['requestSeconds'] * 1e3:.2f} ms, "
            f"the model {found['modelSeconds'] * 1e3:.2f} ms"
        )
    missed = [
        f"{found['overheadSeconds'] * 1e3:.2f} ms more than the model for a text of {found['textTokens']} tokens, "
        f"of {BAR_SECONDS * 1e3:g}, by {through}"
        for found in rounds
        if not tiny and found["overheadSeconds"] > BAR_SECONDS
    ]
    return {"passed": not missed, "missed": missed, "through": through, "rounds": rounds}
