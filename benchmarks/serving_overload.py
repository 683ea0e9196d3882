"""Three times what the server can do, for a minute: how much of its capacity still comes through, and what memory does.

    python benchmarks/serving_overload.py [--base-model DIR] [--seconds 60] [--texts 8]

Capacity is what clients get that each wait for their answer. Then requests are sent at three times that rate whatever becomes of them, from a process of its own. A request holds
several texts, so that making requests does not take the CPUs from answering them. Bars: 90 % of capacity answered with 200 within the minute, 429 with a Retry-After for the rest and
nothing else, and at most 10 % more memory at the end than after a sixth of the time.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import aiohttp

from serving import Server, make_checkpoint, minilm, running
from serving_load import TEXTS

PORT = 18_384
URL = f"http://127.0.0.1:{PORT}/v1/classify"
TIMES = 3
GOODPUT_BAR, MEMORY_BAR = 0.9, 1.1
CAPACITY_SECONDS, CLIENTS = 10.0, 16


def body(texts: int) -> bytes:
    return json.dumps({"input": [TEXTS[number % len(TEXTS)] for number in range(texts)]}).encode()


async def capacity(texts: int) -> float:
    """Requests a second."""
    done = 0
    end = time.monotonic() + CAPACITY_SECONDS

    async def client(session: aiohttp.ClientSession) -> None:
        nonlocal done
        while time.monotonic() < end:
            async with session.post(URL, data=body(texts)) as response:
                await response.read()
                done += response.status == 200

    async with aiohttp.ClientSession() as session:
        await asyncio.gather(*(client(session) for _ in range(CLIENTS)))
    return done / CAPACITY_SECONDS


async def flood(rate: float, seconds: float, texts: int) -> Counter[str]:
    """Answers by status; 200 only of those that came while it lasted."""
    found: Counter[str] = Counter()
    end = time.monotonic() + seconds
    content = body(texts)

    async def one(session: aiohttp.ClientSession) -> None:
        try:
            async with session.post(URL, data=content) as response:
                await response.read()
                name = str(response.status)
                if response.status == 429 and not response.headers.get("retry-after", "").isdecimal():
                    name = "429 without Retry-After"
                found[name if time.monotonic() <= end else f"{name}, late"] += 1
        except aiohttp.ClientError as err:
            found[type(err).__name__] += 1

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        running: set[asyncio.Task[None]] = set()
        started = time.monotonic()
        sent = 0
        while (now := time.monotonic()) < end:
            for _ in range(int((now - started) * rate) - sent):
                task = asyncio.create_task(one(session))
                running.add(task)
                task.add_done_callback(running.discard)
                sent += 1
            await asyncio.sleep(0.005)
        await asyncio.gather(*running)
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
            asyncio.run(capacity(texts))  # warm
            able = asyncio.run(capacity(texts))
            flooding = [sys.executable, __file__, "--flood", str(TIMES * able), "--seconds", str(seconds)]
            load = subprocess.Popen([*flooding, "--texts", str(texts)], stdout=subprocess.PIPE, text=True)
            time.sleep(seconds / 6)
            early = resident_bytes(process.pid)
            output, _ = load.communicate()
            late = resident_bytes(process.pid)
    found = json.loads(output)
    goodput = found.get("200", 0) / seconds / able
    others = {name: count for name, count in found.items() if name not in ("200", "200, late", "429", "429, late")}
    print(f"Capacity {able:.1f} requests/s of {texts} texts; {TIMES} times that for {seconds:g} s: {found}")
    print(
        f"Goodput {goodput:.1%} of capacity (the bar is {GOODPUT_BAR:.0%}); memory {early / 2**20:.0f} to {late / 2**20:.0f} MiB."
    )
    return 0 if goodput >= GOODPUT_BAR and not others and late <= MEMORY_BAR * early else 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base-model", type=Path)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--texts", type=int, default=8)
    parser.add_argument("--flood", type=float, help=argparse.SUPPRESS)  # requests a second: the load's own process
    arguments = parser.parse_args()
    if arguments.flood:
        print(json.dumps(asyncio.run(flood(arguments.flood, arguments.seconds, arguments.texts))))
        return 0
    return measure(arguments.base_model or minilm(), arguments.seconds, arguments.texts)


if __name__ == "__main__":
    sys.exit(main())
