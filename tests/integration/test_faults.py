"""An API server that answers badly, or a way to it that does: the operator goes on, and says nothing of it to users."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio
from aiohttp import web
from integration_client import DATASET, EVENT, MODEL_SERVICE, TRAINING_JOB
from integration_cluster import Cluster
from integration_manifests import training_job
from integration_operator import START_SECONDS, Operator
from integration_proxy import Proxy, between


@pytest_asyncio.fixture(loop_scope="session")
async def proxy(kubeconfig: Path, operators_kubeconfig: Path, tmp_path: Path) -> AsyncIterator[Proxy]:
    async with between(kubeconfig, operators_kubeconfig, tmp_path / "kubeconfig") as proxy:
        yield proxy


@pytest_asyncio.fixture(loop_scope="session")
async def behind(operator: Operator, proxy: Proxy, tmp_path: Path) -> AsyncIterator[Operator]:
    """An operator that leads behind the proxy once it is started; the tests after this one find theirs alive."""
    await operator.stop()
    other = Operator(tmp_path / "kubeconfig", tmp_path / "log", operator.namespace)
    yield other
    await other.stop()
    await operator.start()


async def until_it_leads(operator: Operator) -> None:
    async with asyncio.timeout(START_SECONDS):
        while await operator.metric("winnow_leader") != 1:  # noqa: ASYNC110  (a port gives no sign)
            await asyncio.sleep(0.05)
    await operator.until_ready()


async def test_a_start_waits_for_an_api_server_that_is_away_and_then_busy(proxy: Proxy, behind: Operator) -> None:
    refused = set[str]()

    def busy(request: web.Request) -> web.Response | None:
        """As API priority and fairness has it, and as a list that took too long for the versions that etcd keeps."""
        if request.path in refused or not request.path.endswith(("/datasets", "/pods")):
            return None
        refused.add(request.path)
        return _refusal(410, "Expired") if request.path.endswith("/pods") else _refusal(429, "TooManyRequests")

    proxy.refuse = lambda _: _refusal(503, "ServiceUnavailable")
    starting = asyncio.create_task(behind.start())
    async with asyncio.timeout(START_SECONDS):
        while "503 ServiceUnavailable" not in (await behind.get("/readyz"))[1]:  # noqa: ASYNC110  (a port gives no sign)
            await asyncio.sleep(0.05)
    assert (await behind.get("/healthz"))[0] == 200, "to start it again would not help"
    proxy.refuse = busy
    await starting
    await until_it_leads(behind)
    assert len(refused) == 2


async def test_what_changed_behind_a_silent_watch_keeps_no_training_back(
    cluster: Cluster, proxy: Proxy, behind: Operator
) -> None:
    """The operator marks the Dataset that a training reads, and finds that it knew an older version."""
    await behind.start()
    await until_it_leads(behind)
    await cluster.ready_rows()
    proxy.forget_watch("datasets")
    proxy.refuse = lambda request: (  # nor do lists tell of it
        _refusal(503, "ServiceUnavailable") if request.method == "GET" and request.path.endswith("/datasets") else None
    )
    await cluster.look_again(DATASET, "rows")
    await cluster.apply(training_job())
    await cluster.pod_of(TRAINING_JOB, "v1")
    told = {event["reason"] for event in await cluster.find_all(EVENT) if event["regarding"]["name"] == "v1"}
    assert "ApiRefused" not in told


async def test_what_was_deleted_while_a_watch_began_anew_is_noticed_soon(
    cluster: Cluster, proxy: Proxy, behind: Operator
) -> None:
    lists = list[str]()

    def note(request: web.Request) -> None:
        if request.path.endswith("/ingresses") and "watch" not in request.query:
            lists.append(request.path)

    proxy.refuse = note
    await behind.start()
    await until_it_leads(behind)
    await cluster.ready_rows("rows", "other")
    await cluster.until("both", MODEL_SERVICE, lambda found: found["status"]["datasets"] == 2, name="spam")
    async with asyncio.timeout(20):
        while len(lists) < 3:  # noqa: ASYNC110  (the start's, the watch's own, and the first look after the start)
            await asyncio.sleep(0.05)
    proxy.expire_watch("datasets")
    await cluster.delete(DATASET, "other")
    await cluster.until("one", MODEL_SERVICE, lambda found: found["status"]["datasets"] == 1, name="spam")


async def test_a_watch_that_fails_ends_the_operator_so_that_it_does_not_lead_without_news(
    proxy: Proxy, behind: Operator
) -> None:
    proxy.refuse = lambda request: (
        _refusal(410, "Expired") if "watch" in request.query and request.path.endswith("/datasets") else None
    )
    await behind.start()
    assert await behind.ended() == 1
    assert "The watches ended" in behind.tail(1)
    assert "Expired" in behind.tail(1)
    assert "Traceback" not in behind.tail(1)


def _refusal(status: int, reason: str) -> web.Response:
    return web.json_response({"kind": "Status", "code": status, "reason": reason, "message": reason}, status=status)
