"""Pulling /progress from real HTTP servers: slow, large, wrong and right ones."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import aiohttp
import pytest
from aiohttp import web
from operator_scene import completed, imported, job_of, model_service, pod_of, training_job

from winnow_operator import pods, progress
from winnow_operator.metrics import Metrics
from winnow_operator.observed import TrainingJobSeen
from winnow_operator.progress import LIMIT_BYTES, ProgressPoller
from winnow_operator.resources import TRAINING_JOB, Key, Object

KEY = Key(TRAINING_JOB, "ml", "v1")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def serving(handler: Handler, host: str = "127.0.0.1") -> AsyncIterator[int]:
    app = web.Application()
    app.router.add_get("/progress", handler)
    runner = web.AppRunner(app, shutdown_timeout=0)
    await runner.setup()
    listener = socket.create_server((host, 0))
    await web.SockSite(runner, listener).start()
    try:
        yield listener.getsockname()[1]
    finally:
        await runner.cleanup()


@asynccontextmanager
async def polling(changed: Callable[[Key], None] = lambda key: None) -> AsyncIterator[ProgressPoller]:
    poller = ProgressPoller(changed, Metrics(time.monotonic), period_seconds=15, jitter=lambda: 0.0)
    try:
        yield poller
    finally:
        await poller.close()


def answering(body: str | bytes, status: int = 200, **headers: str) -> Handler:
    async def answer(request: web.Request) -> web.Response:
        content = body.encode() if isinstance(body, str) else body
        return web.Response(status=status, body=content, headers=headers)

    return answer


async def test_a_good_answer_is_read() -> None:
    async with serving(answering(json.dumps({"state": "Running", "percent": 41.5}))) as port, polling() as poller:
        told = await poller.pull(f"http://127.0.0.1:{port}/progress")
    assert told is not None
    assert told.percent == 41.5


async def endless(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    while True:
        await response.write(b" " * LIMIT_BYTES)


@pytest.mark.parametrize(
    "handler",
    [
        pytest.param(answering("not JSON"), id="not JSON"),
        pytest.param(answering('{"state": "Running"}', status=500), id="an error"),
        pytest.param(answering("", status=302, Location="http://169.254.169.254/"), id="a redirect is not followed"),
        pytest.param(answering(b" " * LIMIT_BYTES + b'{"state": "Running"}'), id="too large"),
        pytest.param(endless, id="endless"),
    ],
)
async def test_any_other_answer_is_no_answer(handler: Handler) -> None:
    async with serving(handler) as port, polling() as poller:
        async with asyncio.timeout(10):
            assert await poller.pull(f"http://127.0.0.1:{port}/progress") is None


async def test_an_answer_that_takes_too_long_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "TIMEOUT", aiohttp.ClientTimeout(total=0.05))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        async with polling() as poller:
            assert await poller.pull(f"http://127.0.0.1:{silent.getsockname()[1]}/progress") is None


async def test_nobody_there_is_no_answer() -> None:
    async with polling() as poller:
        assert await poller.pull("http://127.0.0.1:1/progress") is None


def seen(*, ip: str, port: int, phase: str = "Running") -> TrainingJobSeen:
    job = job_of(training_job())
    pod = pod_of(job, phase=phase)
    pod["status"]["podIP"] = ip
    pod["spec"]["containers"][0]["ports"][0]["containerPort"] = port
    return TrainingJobSeen(training_job(), model_service(), imported(), jobs=(job,), pods=(pod,))


async def test_what_a_running_pod_tells_leads_to_a_visit_and_stays_until_the_end_is_recorded() -> None:
    visits: asyncio.Queue[Key] = asyncio.Queue()
    async with serving(answering('{"state": "Running", "epoch": 2}')) as port, polling(visits.put_nowait) as poller:
        running = seen(ip="127.0.0.1", port=port)
        poller.follow(KEY, running)
        async with asyncio.timeout(10):
            assert await visits.get() == KEY
        told = poller.latest(KEY)
        assert told is not None
        assert told.epoch == 2
        poller.follow(KEY, seen(ip="127.0.0.1", port=port, phase="Succeeded"))
        assert poller.latest(KEY) == told  # until the final message is read
        poller.follow(KEY, replace(running, obj=completed()))
        assert poller.latest(KEY) is None


@pytest.mark.parametrize(
    ("change", "url"),
    [
        pytest.param({}, "http://10.0.0.7:8081/progress", id="as the API server says"),
        pytest.param({"podIP": "fd00::7"}, "http://[fd00::7]:8081/progress", id="IPv6"),
        pytest.param({"podIP": None}, None, id="no address yet"),
        pytest.param({"phase": "Succeeded"}, None, id="not running any more"),
    ],
)
def test_the_address_comes_from_the_pod_of_the_api_server(change: Object, url: str | None) -> None:
    pod = pod_of(job_of(training_job()), phase="Running")
    pod["status"].update(change)
    assert pods.progress_url(pod) == url
