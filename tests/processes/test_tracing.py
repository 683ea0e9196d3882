"""Spans of the server, as a collector gets them: OTLP over HTTP, from the real program, read by the protocol's own types."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
import tiny_server
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from server_program import logged, started

SECRET = "canary-5d1e prize"
CALLER = ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331")


class Collector:
    """What a collector was sent."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.headers: list[dict[str, str]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                outer.headers.append({**dict(self.headers), "path": self.path})
                outer.bodies.append(self.rfile.read(int(self.headers["content-length"])))
                self.send_response(200)
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def requests(self) -> list[Any]:
        return [ExportTraceServiceRequest.FromString(body) for body in self.bodies]

    def resource(self) -> dict[str, str]:
        attributes = self.requests()[0].resource_spans[0].resource.attributes
        return {one.key: one.value.string_value for one in attributes}

    def spans(self) -> list[Any]:
        return [
            span
            for request in self.requests()
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]


@pytest.fixture
def collector() -> Iterator[Collector]:
    collector = Collector()
    thread = threading.Thread(target=collector.server.serve_forever)
    thread.start()
    yield collector
    collector.server.shutdown()
    thread.join()
    collector.server.server_close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_server.publish(tmp_path_factory.mktemp("served"))


@contextmanager
def serving(folder: Path, environment: dict[str, str], *arguments: str) -> Iterator[str]:
    """The address of a server that is ready; asked to end, it sends what is left."""
    given = ("--drain-seconds", 0, "--name", "spam", "--checkpoint", folder, *arguments)
    with started(*given, **environment) as process:
        port = logged(process, "Listening")["port"]
        logged(process, "Ready")
        yield f"http://127.0.0.1:{port}"
        process.terminate()
        process.communicate(timeout=60)
        assert process.returncode == 0


def attributes(span: Any) -> dict[str, Any]:
    return {one.key: one.value.string_value or one.value.int_value for one in span.attributes}


def test_a_request_is_a_span_with_its_stages_below_and_holds_no_text(collector: Collector, folder: Path) -> None:
    environment = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        "OTEL_EXPORTER_OTLP_HEADERS": "authorization=Basic%20abc",
        "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment=test",
        "OTEL_PROPAGATORS": "tracecontext,baggage,b3",  # as OpenTelemetry's operator has it; b3 is not installed
    }
    headers = {"traceparent": f"00-{CALLER[0]}-{CALLER[1]}-01", "x-request-id": "mine", "authorization": SECRET}
    with serving(folder, environment, "--path-prefix", "/x") as url:
        answer = httpx.post(f"{url}/x/v1/classify", json={"input": [SECRET, "b"]}, headers=headers)
        assert answer.status_code == 200
        assert httpx.post(f"{url}/v1/classify", json={"input": ["", SECRET]}).status_code == 422
        lines = '"one"\n"two"\n'
        assert httpx.post(f"{url}/v1/classify/batch", content=lines).status_code == 200
        for path in ("/v2/health/ready", "/metrics", "/ui/"):
            assert httpx.get(url + path).status_code == 200

    assert {(told["path"], told["authorization"]) for told in collector.headers} == {("/v1/traces", "Basic abc")}
    assert SECRET.encode() not in b"".join(collector.bodies)
    assert b"canary" not in b"".join(collector.bodies)
    resource = collector.resource()
    assert (resource["service.name"], resource["deployment.environment"]) == ("spam", "test")
    assert "@sha256:" in resource["service.version"]
    spans = collector.spans()
    (request,) = (span for span in spans if attributes(span).get("winnow.request_id") == "mine")
    assert request.name == "POST /v1/classify"
    assert (request.trace_id.hex(), request.parent_span_id.hex()) == CALLER
    told = attributes(request)
    assert (told["http.route"], told["http.response.status_code"], told["winnow.texts"]) == ("/v1/classify", 200, 2)
    assert told["winnow.tokens"] == answer.json()["usage"]["prompt_tokens"]
    stages = [span for span in spans if span.parent_span_id == request.span_id]
    assert [stage.name for stage in stages] == ["tokenize", "queue", "infer"]
    moments = [moment for stage in stages for moment in (stage.start_time_unix_nano, stage.end_time_unix_nano)]
    assert moments == sorted(moments)
    slack = 1_000_000  # ns: one clock is read for spans, another one for stages
    assert request.start_time_unix_nano - slack <= moments[0]
    assert moments[-1] <= request.end_time_unix_nano + slack
    others = sorted(attributes(span)["http.response.status_code"] for span in spans if span.name.startswith("POST"))
    assert others == [200, 200, 422]
    assert len(spans) == 3 + 3  # the refused one and the stream have no stages, probes and pages no span


@pytest.mark.parametrize(
    "environment",
    [
        pytest.param({}, id="no collector named"),
        pytest.param({"OTEL_EXPORTER_OTLP_ENDPOINT": "URL", "OTEL_SDK_DISABLED": "true"}, id="switched off"),
    ],
)
def test_without_a_word_nothing_is_sent(collector: Collector, folder: Path, environment: dict[str, str]) -> None:
    told = {name: value.replace("URL", collector.url) for name, value in environment.items()}
    with serving(folder, told) as url:
        assert httpx.post(f"{url}/v1/classify", json={"input": "prize"}).status_code == 200
    assert collector.bodies == []


def test_a_collector_that_is_not_there_disturbs_nobody(folder: Path) -> None:
    environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_BSP_SCHEDULE_DELAY": "50"}
    with serving(folder, environment) as url:
        for _ in range(20):
            assert httpx.post(f"{url}/v1/classify", json={"input": "prize"}).status_code == 200


def test_a_variable_that_cannot_be_used_is_said(folder: Path) -> None:
    environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_BSP_MAX_QUEUE_SIZE": "8"}
    with started("--checkpoint", folder, **environment) as process:
        _, said = process.communicate(timeout=300)
    assert process.returncode == 10
    assert "winnow_server: OpenTelemetry cannot use its variables (OTEL_…): max_export_batch_size" in said
    assert "Traceback" not in said
