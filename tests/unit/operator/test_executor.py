"""Writing to an API server that is a real HTTP server here: what it says is told, and being told to end is heard at every step."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from kubernetes.aio.client.api_client import ApiClient
from kubernetes.aio.client.configuration import Configuration
from operator_scene import raw

from winnow_operator.executor import Executor
from winnow_operator.inbox import Inbox
from winnow_operator.kube import Kube
from winnow_operator.metrics import Metrics
from winnow_operator.plan import Event
from winnow_operator.queue import WorkQueue
from winnow_operator.resources import Object
from winnow_operator.store import Store

STARTED = Event("Normal", "Started", "The training has started")


class ApiServer:
    """Takes every status as it comes and keeps the events, which it answers once `open`."""

    def __init__(self) -> None:
        self.events: list[Object] = []
        self.asked = asyncio.Event()  # to keep one
        self.open = asyncio.Event()
        self.open.set()

    async def status(self, request: web.Request) -> web.Response:
        patch = await request.json()
        obj = raw("Dataset", "rows", {"modelService": "spam"}, patch["status"], resourceVersion="11")
        return web.json_response(obj)

    async def event(self, request: web.Request) -> web.Response:
        self.asked.set()
        await self.open.wait()
        self.events.append(await request.json())
        return web.json_response(self.events[-1], status=201)


@asynccontextmanager
async def writing() -> AsyncIterator[tuple[ApiServer, Executor, WorkQueue]]:
    api = ApiServer()
    app = web.Application()
    app.router.add_patch("/apis/winnow.dev/v1alpha1/namespaces/ml/datasets/rows/status", api.status)
    app.router.add_post("/apis/events.k8s.io/v1/namespaces/ml/events", api.event)
    runner = web.AppRunner(app)
    await runner.setup()
    listener = socket.create_server(("127.0.0.1", 0))
    await web.SockSite(runner, listener).start()
    metrics, store, queue = Metrics(time.monotonic), Store(), WorkQueue()
    client = ApiClient(Configuration(host=f"http://127.0.0.1:{listener.getsockname()[1]}"))
    kube = Kube(client, metrics)
    try:
        yield api, Executor(kube, store, Inbox(store, queue, metrics), metrics, instance="winnow-operator-0"), queue
    finally:
        queue.close()
        await kube.close()
        await runner.cleanup()


async def tell(executor: Executor) -> None:
    """As a visit does: a status that says something new, and an event about it."""
    assert await executor.status(raw("Dataset", "rows", {"modelService": "spam"}), {"summary": "Importing"}, [STARTED])


async def look(queue: WorkQueue) -> None:
    """As a worker does at what is new, so that nothing waits any more."""
    queue.done(await queue.get())


async def ends(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait({task}, timeout=5)
    assert task.cancelled(), "It was told to end and goes on"


async def test_an_event_is_posted_once_nothing_else_waits() -> None:
    async with writing() as (api, executor, queue):
        await tell(executor)
        await look(queue)
        posting = asyncio.create_task(executor.post_events(queue.idle))
        await asyncio.wait_for(api.asked.wait(), 5)
        await ends(posting)
        assert [event["note"] for event in api.events] == ["The training has started"]


@pytest.mark.parametrize("turns", range(12))
async def test_told_to_end_at_any_turn_of_the_loop_it_posts_no_more_events(turns: int) -> None:
    async with writing() as (_, executor, queue):
        await tell(executor)
        await look(queue)
        posting = asyncio.create_task(executor.post_events(queue.idle))
        for _ in range(turns):
            await asyncio.sleep(0)
        await ends(posting)


async def test_told_to_end_while_the_api_server_does_not_answer_it_ends() -> None:
    async with writing() as (api, executor, queue):
        api.open.clear()
        await tell(executor)
        await look(queue)
        posting = asyncio.create_task(executor.post_events(queue.idle))
        await asyncio.wait_for(api.asked.wait(), 5)
        await ends(posting)
        api.open.set()


async def test_told_to_end_while_others_are_busy_it_ends() -> None:
    async with writing() as (_, executor, queue):
        await tell(executor)  # whose new status is itself something to look at
        assert queue.depth() == 1
        posting = asyncio.create_task(executor.post_events(queue.idle))
        await asyncio.sleep(0)
        await ends(posting)
