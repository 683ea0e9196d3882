"""From a cluster to stdout: what the commands `datasets` and `status` print."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime

import yaml

from winnow_plugin.cluster import Place, connected
from winnow_plugin.datasets import dataset_in_full, datasets_table
from winnow_plugin.follow import follow, look
from winnow_plugin.objects import DATASET, Object, name_of, namespace_of
from winnow_plugin.screen import console, show, terminal
from winnow_plugin.status import lines, nothing, plain_table, screen_table
from winnow_plugin.views import Lines, Screen

# The Kubernetes client warns in a log what then also arrives as an error.
logging.getLogger("kubernetes").addHandler(logging.NullHandler())


async def print_datasets(place: Place, name: str | None, output: str) -> None:
    """One of them if it is named. Raises ClusterError, ConfigError."""
    async with connected(place) as cluster:
        found = [await cluster.get(DATASET, name)] if name is not None else (await cluster.list(DATASET))[0]
        where = cluster.namespace
    found = sorted((_without_bookkeeping(obj) for obj in found), key=lambda obj: (namespace_of(obj), name_of(obj)))
    now = _now()
    if output in ("json", "yaml"):
        many: Object = {"apiVersion": "v1", "kind": "List", "metadata": {}, "items": found}
        _print_raw(many if name is None else found[0], output)
    elif output == "name":
        print("".join(f"dataset.winnow.dev/{name_of(obj)}\n" for obj in found), end="")
    elif name is not None:
        show(dataset_in_full(found[0], now))
    elif found:
        show(datasets_table(found, now, namespaces=where is None))
    else:
        print(nothing(where, "datasets"), file=sys.stderr)


async def print_status(place: Place) -> None:
    world = await look(place)
    if found := lines(world.objects.values()):
        namespaces = world.namespace is None
        if terminal():
            show(screen_table(found, _now(), namespaces=namespaces, width=console().width))
        else:
            show(plain_table(found, _now(), namespaces=namespaces))
    else:
        print(nothing(world.namespace), file=sys.stderr)


async def follow_status(place: Place) -> None:
    """Until Ctrl-C."""
    if not terminal():
        await follow(place, Lines(clock=_now))
        return
    with Screen(console(), clock=_now) as screen:
        await follow(place, screen)


def _without_bookkeeping(obj: Object) -> Object:
    """As kubectl prints objects: who wrote which field is of no interest."""
    return {**obj, "metadata": {key: value for key, value in obj["metadata"].items() if key != "managedFields"}}


def _print_raw(obj: Object, output: str) -> None:
    if output == "json":
        print(json.dumps(obj, indent=4, ensure_ascii=False))
    else:
        print(yaml.safe_dump(obj, sort_keys=False, allow_unicode=True), end="")


def _now() -> datetime:
    return datetime.now(UTC)
