"""A waker before real servers over HTTP: what is held and forwarded, what is refused, and what an autoscaler sees of it."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from tiny_server import free_port, until

from winnow_server.access import ApiKeys, is_open
from winnow_server.prefix import Prefixed
from winnow_server.process import configuration, listen
from winnow_server.recency import RECENT_SECONDS, Recency
from winnow_server.settings import parse as parse_server
from winnow_server.waking import wake
from winnow_server.waking.app import QUESTIONS, WORK, create_app
from winnow_server.waking.room import Room
from winnow_server.waking.upstream import Upstream
from winnow_server.watched import Watched, look_first

KEY = "k-3f9a81c2"


@contextmanager
def running(app: Any, port: int = 0) -> Iterator[str]:
    """The application under a real server, in a thread; its address."""
    listener = listen("127.0.0.1", port)
    server = uvicorn.Server(configuration(app))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        until(lambda: server.started)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


class Scene:
    """A waker, and a place where a server may come up."""

    def __init__(self, url: str, port: int) -> None:
        self.url, self._port = url, port
        self.client = httpx.Client(base_url=url, timeout=30, verify=False)
        self._threads = ThreadPoolExecutor(16)

    def asks(self, method: str = "POST", path: str = "/v1/classify", **request: Any) -> Future[httpx.Response]:
        """Sent, and not waited for."""
        return self._threads.submit(self.client.request, method, path, **request)

    def metric(self, name: str) -> float:
        """As KEDA finds it."""
        start = f'{name}{{model_name="web"'
        (line,) = [line for line in self.client.get("/metrics").text.splitlines() if line.startswith(start)]
        return float(line.rpartition(" ")[2])

    def held(self, number: int) -> None:
        until(lambda: self.metric("clf_queue_size") == number)

    @contextmanager
    def server(self, app: Any = None) -> Iterator[None]:
        with running(app or echo(), self._port):
            yield

    def close(self) -> None:
        self.client.close()
        self._threads.shutdown()


@contextmanager
def waker(
    *,
    requests: int = 8,
    size: int = 1 << 20,
    body_bytes: int = 1_000,
    seconds: float = 30,
    folder: Path | None = None,
    upstream: str = "",
    at_once: int = 32,
    prefixes: tuple[str, ...] = (),
) -> Iterator[Scene]:
    port = free_port()
    keys = ApiKeys() if folder else None
    watched = [Watched(folder, keys.read)] if keys and folder else []
    look_first(watched)
    app = create_app(
        Room("web", requests=requests, size=size),
        Upstream(upstream or f"http://127.0.0.1:{port}", look_seconds=0.02, at_once=at_once),
        body_bytes=body_bytes,
        seconds=seconds,
        keys=keys,
        watched=watched,
    )
    with running(Prefixed(app, prefixes)) as url:
        scene = Scene(url, port)
        try:
            yield scene
        finally:
            scene.close()


def echo(**answers: Any) -> Starlette:
    """A server that is ready, and says what reached it."""

    async def said(request: Request) -> Response:
        if wanted := answers.get(request.url.path):
            found = wanted(request)
            return found if isinstance(found, Response) else await found
        body = await request.body()
        told = [request.method, request.scope["raw_path"].decode(), request.url.query, body.decode()]
        headers = {"x-seen-id": request.headers.get("x-request-id", ""), "x-seen-host": request.headers["host"]}
        return Response("\n".join(told), headers=headers)

    return Starlette(routes=[Route("/{path:path}", said, methods=["GET", "POST"])])


def test_a_request_is_held_seen_by_the_autoscaler_and_answered_unchanged():
    with waker() as scene:
        assert [scene.metric("clf_queue_tokens"), scene.metric("clf_recently_used")] == [0, 0]
        asked = scene.asks(path="/v1/classify?a=b%20c", content="x" * 400, headers={"X-Request-Id": "mine"})
        scene.held(1)
        assert [scene.metric("clf_queue_tokens"), scene.metric("clf_recently_used")] == [100, 1]
        with scene.server():
            answer = asked.result(10)
        assert answer.status_code == 200
        assert answer.text.split("\n") == ["POST", "/v1/classify", "a=b%20c", "x" * 400]
        assert answer.headers["x-seen-id"] == answer.headers["x-request-id"] == "mine"
        assert answer.headers["x-seen-host"] == scene.url.removeprefix("http://")
        assert answer.headers["connection"] == "close"  # the next connection leads to a server
        assert [scene.metric("clf_queue_tokens"), scene.metric("clf_recently_used")] == [0, 1]


def test_all_that_wait_are_answered_and_later_ones_are_sent_on_at_once():
    with waker() as scene:
        asked = [scene.asks(content=f"text {number}") for number in range(8)]
        scene.held(8)
        with scene.server():
            assert sorted(one.result(10).text[-1] for one in asked) == list("01234567")
            before = time.monotonic()
            assert scene.asks("GET", "/v1/model").result(10).text.startswith("GET\n/v1/model")
            assert time.monotonic() - before < 1
        scene.asks(content="again")  # and when it is gone again
        scene.held(1)
        with scene.server():
            scene.held(0)


def test_a_server_that_has_just_come_up_is_not_overrun():
    """One server has a bounded queue: what was held all that time comes by and by."""
    running, most = 0, 0

    async def slow(request: Request) -> Response:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.02)
        running -= 1
        return Response()

    with waker(at_once=2) as scene:
        asked = [scene.asks(content="text") for _ in range(8)]
        scene.held(8)
        with scene.server(echo(**{"/v1/classify": slow})):
            assert [one.result(10).status_code for one in asked] == [200] * 8
    assert most == 2


def test_a_real_server_answers_through_it(server):
    with waker(upstream=server.url) as scene:
        answer = scene.client.post("/v1/classify", json={"input": "prize"})
        assert answer.json()["data"] == server.client.post("/v1/classify", json={"input": "prize"}).json()["data"]
        refused = scene.client.post("/v1/classify", json={"input": ""})
        assert refused.status_code == 422
        assert "<title>" in scene.client.get("/ui/").text


def test_a_server_that_dies_over_a_request_is_waited_out():
    """Classifying changes nothing, so that it is sent again."""
    with waker() as scene:
        dying = socket.create_server(("127.0.0.1", scene._port))
        asked = scene.asks(content="text")
        connection, _ = dying.accept()
        connection.recv(100)
        connection.close()
        dying.close()
        with scene.server():
            assert asked.result(10).text.endswith("text")


def test_a_server_that_is_not_ready_is_none():
    def loading(request: Request) -> Response:
        return Response(status_code=503)

    with waker() as scene:
        with scene.server(echo(**{"/v1/classify": loading, "/v2/health/ready": loading})):
            asked = scene.asks(content="text")
            scene.held(1)
            time.sleep(0.2)
            assert not asked.done()
        with scene.server():
            assert asked.result(10).status_code == 200


def test_an_answer_is_streamed_and_its_bytes_are_left_alone():
    packed = bytes(range(256)) * 8
    parts = [threading.Event(), threading.Event()]

    def answer(request: Request) -> Response:
        async def chunks():
            for part in parts:
                await asyncio.to_thread(part.wait, 10)
                yield packed

        return StreamingResponse(chunks(), headers={"content-encoding": "br", "x-many": "1"}, status_code=201)

    with waker() as scene, scene.server(echo(**{"/v1/classify": answer})):
        parts[0].set()
        with scene.client.stream("POST", "/v1/classify", content="a") as got:
            assert (got.status_code, got.headers["content-encoding"]) == (201, "br")
            chunks = got.iter_raw()
            assert next(chunks) == packed  # the first part, while the second is not there yet
            parts[1].set()
            assert b"".join(chunks) == packed


def test_without_a_server_in_time_the_client_is_asked_to_come_back():
    with waker(seconds=0.2) as scene:
        refused = scene.client.post("/v1/classify", content="text")
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "15")
        assert refused.json()["error"]["code"] == "asleep"
        foreign = scene.client.post("/predict", content="text").json()
        assert (foreign["code"], foreign["error_type"]) == ("asleep", "Unhealthy")
        # What was asked for goes on being wanted, so that the next try finds a server.
        assert [scene.metric("clf_queue_tokens"), scene.metric("clf_recently_used")] == [0, 1]


def test_who_waits_is_bounded_in_number():
    with waker(requests=2) as scene:
        asked = [scene.asks(content="text") for _ in range(2)]
        scene.held(2)
        refused = scene.client.post("/v1/classify", content="text")
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "15")
        assert refused.json()["error"]["code"] == "queue_full"
        with scene.server():
            assert [one.result(10).status_code for one in asked] == [200, 200]


def test_who_waits_is_bounded_in_bytes_also_where_the_client_does_not_say_how_many():
    with waker(body_bytes=600, size=1_000) as scene:
        too_large = scene.client.post("/v1/classify", content="x" * 601)
        assert (too_large.status_code, too_large.json()["error"]["code"]) == (413, "body_too_large")
        too_large = scene.client.post("/v1/classify", content=iter([b"x" * 300, b"x" * 301]))
        assert too_large.status_code == 413
        asked = scene.asks(content=iter([b"x" * 200, b"x" * 300]))
        until(lambda: scene.metric("clf_queue_tokens") == 125)
        assert scene.client.post("/v1/classify", content="x" * 501).status_code == 429
        second = scene.asks(content="x" * 500)
        scene.held(2)
        with scene.server():
            assert {asked.result(10).status_code, second.result(10).status_code} == {200}


def test_who_leaves_is_waited_for_no_longer():
    with waker() as scene:
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{scene.url}/v1/classify", content="text", timeout=0.1)
        scene.held(0)
        reached: list[str] = []

        def note(request: Request) -> Response:
            reached.append(request.url.path)
            return Response()

        with scene.server(echo(**{"/v1/classify": note})):
            time.sleep(0.2)
        assert reached == []


def test_who_leaves_gives_back_its_own_room_only():
    """Bodies of unknown size reserve the same."""
    rest = threading.Event()

    def body() -> Iterator[bytes]:
        yield b"te"
        rest.wait(10)
        yield b"xt"

    with waker() as scene:
        asked = scene.asks(content=body())
        scene.held(1)
        with socket.create_connection(("127.0.0.1", scene.client.base_url.port)) as leaving:
            leaving.sendall(b"POST /v1/classify HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: chunked\r\n\r\n")
            scene.held(2)
        scene.held(1)
        rest.set()
        with scene.server():
            assert asked.result(10).text.endswith("text")
        assert [scene.metric("clf_queue_size"), scene.metric("clf_queue_tokens")] == [0, 0]


def test_a_stream_is_not_held_but_wakes():
    with waker() as scene:
        refused = scene.client.post("/v1/classify/batch", content='"a"\n')
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "asleep")
        assert scene.metric("clf_recently_used") == 1


def test_probes_and_pages_wake_nobody():
    with waker() as scene:
        ready = scene.client.get("/v2/health/ready")
        assert (ready.status_code, ready.json()) == (200, {"ready": True, "phase": "asleep"})
        for live in ("/v2/health/live", "/health", "/ping"):
            assert scene.client.get(live).status_code == 200
        for page in ("/ui/", "/docs/", "/openapi.json", "/"):
            assert scene.client.get(page).status_code == 503
        assert scene.metric("clf_recently_used") == 0
        with scene.server():
            assert scene.client.get("/ui/").text.startswith("GET\n/ui/")


def test_what_the_server_does_not_have_wakes_nobody():
    with waker() as scene:
        for path in ("/favicon.ico", "/robots.txt", "/what/not", "/v1/nothing", "/v1/classify/"):
            refused = scene.client.get(path)
            assert (refused.status_code, refused.json()["error"]["code"]) == (404, "not_found")
        for method, path, allowed in (
            ("GET", "/v1/classify", "POST"),
            ("OPTIONS", "/v1/classify", "POST"),
            ("POST", "/v1/model", "GET, HEAD"),
            ("GET", "/v2/models/web/infer", "POST"),
            ("POST", "/health", "GET, HEAD"),
        ):
            refused = scene.client.request(method, path)
            assert (refused.status_code, refused.headers["allow"]) == (405, allowed)
        assert [scene.metric("clf_queue_tokens"), scene.metric("clf_recently_used")] == [0, 0]


def test_it_knows_the_servers_paths(server):
    described = server.client.get("/openapi.json").json()["paths"]
    closed = {
        (method, path) for path, found in described.items() for method in found if not is_open(method.upper(), path)
    }
    held = {("post", path) for path in (*WORK, "/")} | {("get", path) for path in QUESTIONS}
    assert {(method, path.replace(":path}", "}")) for method, path in held} == closed


def test_nobody_without_a_key_wakes_anything(tmp_path):
    (tmp_path / "alice").write_text(KEY)
    with waker(folder=tmp_path) as scene:
        for method, path in (("POST", "/v1/classify"), ("GET", "/v1/model"), ("POST", "/"), ("GET", "/what/not")):
            refused = scene.client.request(method, path, headers={"X-API-Key": "another"})
            assert refused.status_code == 401
        assert [scene.metric("clf_queue_tokens"), scene.metric("clf_recently_used")] == [0, 0]
        asked = scene.asks(content="text", headers={"Authorization": f"Bearer {KEY}"})
        scene.held(1)
        with scene.server():
            assert asked.result(10).status_code == 200


def test_below_a_path_of_an_ingress_it_is_the_same():
    with waker(prefixes=("/mail",)) as scene, scene.server():
        assert scene.client.get("/mail/v2/health/ready").json()["phase"] == "asleep"
        assert scene.client.post("/mail/v1/classify", content="a").text.startswith("POST\n/v1/classify")
        encoded = scene.client.post("/mail/v2/models/sp%C3%A4m%20a/infer", content="a").text
        assert encoded.startswith("POST\n/v2/models/sp%C3%A4m%20a/infer")


def test_a_server_is_recently_used_while_it_works_and_for_a_minute_after():
    now = 0.0
    recency = Recency(lambda: now)
    assert not recency.recent()
    recency.started()
    now = 1_000.0
    assert recency.recent()
    recency.ended()
    now += RECENT_SECONDS - 1
    assert recency.recent()
    now += 2
    assert not recency.recent()


def test_a_request_of_work_makes_a_server_recently_used(server):
    server.classify("prize")
    assert server.metric("clf_recently_used") == 1


def test_its_limits_are_the_servers():
    wanted = wake.parse(["--name", "web", "--upstream", "http://web-pods.demo.svc"])
    server = parse_server(["--checkpoint", "somewhere"])
    assert (wanted.max_body_bytes, wanted.port, wanted.drain_seconds) == (
        server.max_body_bytes,
        server.port,
        server.drain_seconds,
    )
