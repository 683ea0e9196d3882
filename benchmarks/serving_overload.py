"""Three times what the server can do, for a minute: how much of its capacity still comes through, and what memory does.

    python benchmarks/serving_overload.py [--base-model DIR] [--seconds 60] [--texts 8]

Capacity is what clients get that each wait for their answer. Then requests are sent at three times that rate whatever becomes of them, from a process of its own. A request holds
several texts, so that making requests does not take the CPUs from answering them. Bars: 90 % of capacity answered with 200 within the minute, 429 with a Retry-After for the rest and
nothing else, and at most 10 % more memory at the end than after a sixth of the time. What is answered is held against the mean of capacity before and after: machines that others
share change their speed within a minute.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import cast

import uvloop

from bars import verdict
from serving import Server, make_checkpoint, minilm, running
from serving_load import TEXTS

PORT = 18_384
TIMES = 3
GOODPUT_BAR, MEMORY_BAR = 0.9, 1.1
CAPACITY_SECONDS, CLIENTS = 10.0, 16
LENGTH, RETRY = re.compile(rb"(?i)content-length: (\d+)"), re.compile(rb"(?i)retry-after: \d+\r")


def request(texts: int) -> bytes:
    body = json.dumps({"input": [TEXTS[number % len(TEXTS)] for number in range(texts)]}).encode()
    return b"POST /v1/classify HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


class Connection(asyncio.Protocol):
    """One request after the other. Bare, since a whole HTTP client takes a fifth of both cores at this rate, which the
    server then lacks."""

    def __init__(self, answered: Callable[[Connection, str], None]) -> None:
        self._answered = answered
        self._seen = b""
        self._asked = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is not derived from it

    def send(self, content: bytes) -> None:
        self._asked = True
        self._transport.write(content)

    def data_received(self, data: bytes) -> None:
        self._seen += data
        head, found, body = self._seen.partition(b"\r\n\r\n")
        length = LENGTH.search(head)
        if not found or not length or len(body) < int(length[1]):
            return
        self._seen, self._asked = b"", False
        status = head[9:12].decode()
        self._answered(self, "429 without Retry-After" if status == "429" and not RETRY.search(head) else status)

    def connection_lost(self, err: Exception | None) -> None:
        if self._asked:
            self._answered(self, "connection lost")

    def close(self) -> None:
        self._asked = False  # no answer is waited for
        self._transport.close()


async def connect(answered: Callable[[Connection, str], None]) -> Connection:
    _, connection = await asyncio.get_running_loop().create_connection(lambda: Connection(answered), "127.0.0.1", PORT)
    return connection


async def capacity(texts: int) -> float:
    """Requests a second."""
    done = 0
    content = request(texts)

    def answered(connection: Connection, status: str) -> None:
        nonlocal done
        done += status == "200"
        connection.send(content)

    connections = [await connect(answered) for _ in range(CLIENTS)]
    for connection in connections:
        connection.send(content)
    await asyncio.sleep(CAPACITY_SECONDS)
    able = done / CAPACITY_SECONDS
    for connection in connections:
        connection.close()
    return able


async def flood(rate: float, seconds: float, texts: int) -> Counter[str]:
    """Answers by status; those that came after it are late."""
    found: Counter[str] = Counter()
    idle: list[Connection] = []
    content = request(texts)
    started = time.monotonic()
    end = started + seconds

    def count(status: str) -> None:
        found[status if time.monotonic() <= end else f"{status}, late"] += 1
        if found.total() == sent:
            all_answered.set()

    def answered(connection: Connection, status: str) -> None:
        if status != "connection lost":
            idle.append(connection)
        count(status)

    async def on_a_new_connection() -> None:
        try:
            (await connect(answered)).send(content)
        except OSError as err:
            count(type(err).__name__)

    opening: set[asyncio.Task[None]] = set()
    all_answered = asyncio.Event()  # so far
    sent = 0
    while (now := time.monotonic()) < end:
        for _ in range(int((now - started) * rate) - sent):
            if idle:
                idle.pop().send(content)
            else:
                task = asyncio.create_task(on_a_new_connection())
                opening.add(task)
                task.add_done_callback(opening.discard)
            sent += 1
            all_answered.clear()
        await asyncio.sleep(0.005)
    await all_answered.wait()
    return found


def resident_bytes(process: int) -> int:
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:"))


def measure(base: Path, seconds: float, texts: int) -> int:
    with tempfile.TemporaryDirectory() as temporary:
        model = Path(temporary, "checkpoint")
        make_checkpoint(base, model)
        command = [sys.executable, "-m", "winnow_server", "--checkpoint", str(model), "--port", str(PORT)]
        command += ["--drain-seconds", "0", "--log-level", "warning"]
        with running(Server(command, PORT, {}, "/v2/health/ready")) as (process, _):
            uvloop.run(capacity(texts))  # warm
            before = uvloop.run(capacity(texts))
            flooding = [sys.executable, __file__, "--flood", str(TIMES * before), "--seconds", str(seconds)]
            load = subprocess.Popen([*flooding, "--texts", str(texts)], stdout=subprocess.PIPE, text=True)
            time.sleep(seconds / 6)
            early = resident_bytes(process.pid)
            output, _ = load.communicate()
            late = resident_bytes(process.pid)
            after = uvloop.run(capacity(texts))
    able = (before + after) / 2
    found = json.loads(output)
    goodput = found.get("200", 0) / seconds / able
    others = {name: count for name, count in found.items() if name not in ("200", "200, late", "429", "429, late")}
    print(
        f"Capacity {before:.1f} requests/s of {texts} texts before, {after:.1f} after; {TIMES} times the first for {seconds:g} s: {found}"
    )
    print(f"Goodput {goodput:.1%} of capacity; memory {early / 2**20:.0f} to {late / 2**20:.0f} MiB.")
    missed = [] if goodput >= GOODPUT_BAR else [f"{goodput:.1%} of capacity answered, of {GOODPUT_BAR:.0%}"]
    missed += [f"answered with something else: {others}"] if others else []
    missed += [f"{late / early:.2f} times the memory, of {MEMORY_BAR}"] if late > MEMORY_BAR * early else []
    return verdict(missed)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base-model", type=Path)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--texts", type=int, default=8)
    parser.add_argument("--flood", type=float, help=argparse.SUPPRESS)  # requests a second: the load's own process
    arguments = parser.parse_args()
    if arguments.flood:
        print(json.dumps(uvloop.run(flood(arguments.flood, arguments.seconds, arguments.texts))))
        return 0
    return measure(arguments.base_model or minilm(), arguments.seconds, arguments.texts)


if __name__ == "__main__":
    sys.exit(main())
