"""The operator reaches an API server whose certificates kubectl takes too, whichever Python it runs on."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import plain_authority
import pytest

from winnow_operator import handlers
from winnow_operator.kube import connect
from winnow_operator.metrics import Metrics


@pytest.fixture(autouse=True)
def kubeconfig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    plain_authority.as_python_3_13(monkeypatch)
    with plain_authority.served(tmp_path) as file:
        monkeypatch.setenv("KUBECONFIG", str(file))
        yield


async def test_what_it_asks_and_writes() -> None:
    kube = await connect(Metrics(time.monotonic))
    assert await kube.request("GET", "/apis") == plain_authority.ANSWER
    await kube.close()


async def test_what_it_watches() -> None:
    login = handlers._login(settings=handlers.settings())
    assert login is not None
    connector = aiohttp.TCPConnector(ssl=login.as_ssl_context())
    async with aiohttp.ClientSession(connector=connector) as session, session.get(f"{login.server}/apis") as answer:
        assert await answer.json(content_type=None) == plain_authority.ANSWER
