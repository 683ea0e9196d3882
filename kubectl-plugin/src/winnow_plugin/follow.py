"""All objects of the four kinds as they are now, kept up to date by watches, for a view that shows them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol

from winnow_plugin.cluster import Change, Cluster, ExpiredError, Place, connected
from winnow_plugin.errors import SignedOut, Unreachable
from winnow_plugin.objects import KINDS, Kind, Object, name_of, namespace_of

Key = tuple[str, str, str]  # kind, namespace, name
News = Change | list[Object] | Unreachable

FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS = 1.0, 30.0
TICK_SECONDS = 1.0  # ages move on though nothing changes
SETTLE_SECONDS = 0.1  # changes that come together are shown together


@dataclass
class World:
    namespace: str | None  # None: all
    objects: dict[Key, Object] = field(default_factory=dict)
    trouble: dict[str, str] = field(default_factory=dict)  # by kind: why it may be out of date

    def take(self, kind: Kind, news: News) -> None:
        if isinstance(news, Unreachable):
            self.trouble[kind.name] = str(news)
            return
        self.trouble.pop(kind.name, None)
        if isinstance(news, Change):
            key = _key(news.object)
            if news.deleted:
                self.objects.pop(key, None)
            else:
                self.objects[key] = news.object
            return
        self.objects = {key: obj for key, obj in self.objects.items() if key[0] != kind.name}
        self.objects.update((_key(obj), obj) for obj in news)


class View(Protocol):
    def show(self, world: World) -> None: ...


async def look(place: Place) -> World:
    """Once. Raises ClusterError, ConfigError."""
    async with connected(place) as cluster:
        world, _ = await _look(cluster)
        return world


async def follow(place: Place, view: View) -> None:
    """Until it is cancelled. Raises ClusterError, ConfigError; but waits where the cluster was reached once and is away."""
    signed_in = False
    while True:
        try:
            async with connected(place) as cluster:
                world, versions = await _look(cluster)
                signed_in = True
                await _follow(cluster, world, versions, view)
        except SignedOut:
            # Tokens of cloud providers live for minutes; a new connection fetches a new one.
            if not signed_in:
                raise
            signed_in = False


async def _look(cluster: Cluster) -> tuple[World, dict[Kind, str]]:
    world, versions = World(cluster.namespace), {}
    for kind, (objects, version) in zip(KINDS, await asyncio.gather(*map(cluster.list, KINDS)), strict=True):
        world.take(kind, objects)
        versions[kind] = version
    return world, versions


async def _follow(cluster: Cluster, world: World, versions: dict[Kind, str], view: View) -> None:
    arrived: asyncio.Queue[tuple[Kind, News]] = asyncio.Queue()

    async def feed(kind: Kind) -> None:
        async for news in _news(cluster, kind, versions[kind]):
            await arrived.put((kind, news))

    async def show() -> None:
        while True:
            view.show(world)
            with suppress(TimeoutError):
                async with asyncio.timeout(TICK_SECONDS):
                    world.take(*await arrived.get())
                await asyncio.sleep(SETTLE_SECONDS)
            while not arrived.empty():
                world.take(*arrived.get_nowait())

    try:
        async with asyncio.TaskGroup() as tasks:
            for kind in KINDS:
                tasks.create_task(feed(kind))
            tasks.create_task(show())
    except BaseExceptionGroup as group:
        raise group.exceptions[0] from None


async def _news(cluster: Cluster, kind: Kind, version: str) -> AsyncIterator[News]:
    """Changes as they come; after any that may have been missed, all objects anew. Raises ClusterErrors other than
    Unreachable."""
    wait = FIRST_WAIT_SECONDS
    again = False
    while True:
        began = time.monotonic()
        try:
            if again:
                objects, version = await cluster.list(kind)
                yield objects
            again = True
            async for change in cluster.watch(kind, version):
                yield change
        except ExpiredError:
            pass
        except Unreachable as err:
            yield err
        # A list that worked does not reset the pause: where lists pass and watches do not, all objects would be asked for
        # each second.
        if time.monotonic() - began > LONGEST_WAIT_SECONDS:
            wait = FIRST_WAIT_SECONDS
        await asyncio.sleep(wait)
        wait = min(wait * 2, LONGEST_WAIT_SECONDS)


def _key(obj: Object) -> Key:
    return obj["kind"], namespace_of(obj), name_of(obj)
