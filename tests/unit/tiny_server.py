"""A real server around a tiny checkpoint, in a thread of the test: HTTP in, HTTP out."""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import tiny_checkpoint
import tiny_models
import torch
from torch import nn

from winnow_classifier import base_model, checkpoint
from winnow_classifier.files import DECISION
from winnow_classifier.labels import LabelSchema, TaskDetail
from winnow_classifier.mirror import VOLUME
from winnow_classifier.model import Classifier, classifier_config, load_network
from winnow_classifier.tokens import load_tokenizer
from winnow_server import model, standing
from winnow_server.access import ApiKeys
from winnow_server.app import create_app
from winnow_server.engine import Threads
from winnow_server.limits import Limits
from winnow_server.prefix import Prefixed
from winnow_server.process import Server, configuration, listen
from winnow_server.service import Service
from winnow_server.watched import Watched, look_first

MAX_TOKENS = 12  # of a text: ten words and two special tokens


def publish(
    folder: Path,
    model_type: str = "bert",
    task_detail: TaskDetail = TaskDetail.BINARY,
    labels: Sequence[str] = ("ham", "spam"),
    prompt_template: str = "{text}",
    artifacts: Mapping[str, bytes] | None = None,
    added_tokens: Sequence[str] = (),
    words_alone: bool = False,
) -> Path:
    """A checkpoint with random weights, whose probabilities differ well from text to text. added_tokens: to the tokenizer,
    which the model knows nothing of. words_alone: its tokenizer leaves nothing of a text of digits."""
    base = tiny_models.base_model(folder / "base", model_type)
    if words_alone:
        tiny_models.reads_words_alone(base)
    schema = LabelSchema(task_detail, tuple(labels))
    tokenizer = load_tokenizer(base)
    tokenizer.add_tokens(list(added_tokens))
    torch.manual_seed(3)
    network = load_network(base, classifier_config(base, schema, tokenizer.pad_token_id))
    for parameter in network.parameters():
        if parameter.dim() > 1:
            nn.init.normal_(parameter, std=0.4)
    manifest = tiny_checkpoint.manifest(
        schema,
        architecture=type(network).__name__,
        pooling="cls" if model_type in tiny_models.ENCODERS else "last",
        prompt_template=prompt_template,
        max_seq_length=MAX_TOKENS,
        base_model=checkpoint.BaseModelEntry(reference="tiny", digest=base_model.digest(base)),
        training_dataset=checkpoint.DatasetEntry(digest="sha256:" + "0" * 64, rows=40),
        metrics={"f1": 0.97, "roc_auc": None},
        primary_metric="f1",
        training_job=checkpoint.JobEntry(name="email-v1", output_model_name="spam-detector"),
    )
    checkpoint.publish(folder / "checkpoint", manifest, Classifier(network), tokenizer, artifacts or {})
    return folder / "checkpoint"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def until(true: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)


class InThread(Server):
    def capture_signals(self) -> nullcontext[None]:  # type: ignore[override]
        """They are the main thread's."""
        return nullcontext()


class RunningServer:
    until = staticmethod(until)

    def __init__(self, url: str, service: Service, process: Server) -> None:
        self.url = url
        self.service = service
        self.process = process
        self.client = httpx.Client(base_url=url, timeout=30, verify=False)  # else it reads all of the CAs: 50 ms

    def on_loop(self, call: Callable[[], object]) -> None:
        """What only the server's own event loop may do."""
        self.service.loop.call_soon_threadsafe(call)

    def classify(self, texts: Any, **fields: Any) -> dict[str, Any]:
        response = self.client.post("/v1/classify", json={"input": texts, **fields})
        assert response.status_code == 200, response.text
        answer: dict[str, Any] = response.json()
        return answer

    def probabilities(self, texts: Any) -> list[list[float]]:
        return [item["probs"] for item in self.classify(texts)["data"]]

    def refusal(self, status: int, **request: Any) -> dict[str, Any]:
        """The error of a POST that is refused with this status, in the one shape that errors have."""
        path = request.pop("path", "/v1/classify")
        response = self.client.request(request.pop("method", "POST"), path, **request)
        assert response.status_code == status, response.text
        error: dict[str, Any] = response.json()["error"]
        assert set(error) == {"message", "type", "param", "code", "request_id"}
        assert error["request_id"] == response.headers["x-request-id"]
        return error

    def metric(self, name: str) -> float:
        """The sum of all series of this name."""
        lines = self.client.get("/metrics").text.splitlines()
        found = [float(line.rpartition(" ")[2]) for line in lines if line.startswith((f"{name}{{", f"{name} "))]
        assert found, f"{name} is not among the metrics"
        return sum(found)

    def exposed(self) -> dict[str, float]:
        """All series as they stand there, without the model that each of them names: clf_requests_total{code="200"}."""
        text = re.sub(r',?model_name="[^"]*",model_version="[^"]*",?', "", self.client.get("/metrics").text)
        lines = [line.replace("{}", "").rpartition(" ") for line in text.splitlines() if not line.startswith("#")]
        return {series: float(value) for series, _, value in lines}

    def connect(self) -> socket.socket:
        host, port = self.url.removeprefix("http://").split(":")
        return socket.create_connection((host, int(port)), timeout=20)


@contextmanager
def running(
    folder: Path,
    *,
    prepare: Callable[[nn.Module], object] = lambda network: None,
    before_load: Callable[[], object] = lambda: None,
    wait: bool = True,
    max_batch_tokens: int = 64,
    workers: Sequence[Threads] = (Threads(1, 1),),
    max_queue_tokens: int = 4_096,
    limits: Limits | None = None,
    api_keys: Path | None = None,
    thresholds: Path | None = None,
    path_prefixes: Sequence[str] = (),
    show_examples: bool = True,
) -> Iterator[RunningServer]:
    """`prepare` gets the loaded model, to hang hooks on it: the server around it stays the real one."""
    announced = model.announce(folder, None, None)

    def load() -> model.Served:
        before_load()
        served = model.load(folder, announced, None, None, VOLUME, rules=service.rules)
        prepare(served.model)
        # Which form of the model is the fastest is measured, and only some fill batches up: what hooks see stays the same.
        return replace(served, multiple=1)

    service = Service(
        announced,
        load,
        max_batch_tokens=max_batch_tokens,
        workers=workers,
        max_queue_tokens=max_queue_tokens,
        limits=limits,
        show_examples=show_examples,
    )
    listener = listen("127.0.0.1", 0)
    keys = ApiKeys() if api_keys else None
    watched = [Watched(api_keys, keys.read)] if keys and api_keys else []
    stands = standing.Standing(service)
    watched.append(Watched(folder / DECISION, stands.take_decision))
    if thresholds:
        watched.append(Watched(thresholds, stands.take_override))
    look_first(watched)
    app = Prefixed(create_app(service, keys=keys, watched=watched), path_prefixes)
    server = InThread(configuration(app), service.drain, drain_seconds=0)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    started = RunningServer(f"http://127.0.0.1:{listener.getsockname()[1]}", service, server)
    try:
        started.until(lambda: server.started)
        if wait:
            started.until(lambda: started.client.get("/v2/health/ready").status_code == 200)
        yield started
    finally:
        started.client.close()
        server.should_exit = True
        thread.join()
        listener.close()


class Gate:
    """Holds the model before a batch until the test lets it go on."""

    def __init__(self) -> None:
        self.closed = False
        self.reached = threading.Event()
        self._open = threading.Event()
        self.batches: list[list[int]] = []  # lengths in tokens

    def guard(self, network: nn.Module) -> None:
        def hook(_: nn.Module, arguments: tuple[Any, ...]) -> None:
            self.batches.append(list(arguments[0].lengths))
            if self.closed:
                self.reached.set()
                assert self._open.wait(30)

        network.register_forward_pre_hook(hook)

    def close(self) -> None:
        self.closed = True
        self.reached.clear()
        self._open.clear()
        self.batches.clear()

    def open(self) -> None:
        self.closed = False
        self._open.set()
