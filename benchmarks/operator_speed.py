"""From apply to the batch Job, for a hundred TrainingJobs at once, on a real etcd and kube-apiserver; and the operator's memory.

    python benchmarks/operator_speed.py [--jobs 100] [--json FILE]

Starts an API server of its own (`cluster/cluster apiserver-up`), runs `python -m winnow_operator` against it as its pod would, creates a ModelService and a dataset
that is already imported, then all TrainingJobs at once. A time counts from just before a TrainingJob is sent until a watch of this program sees its Job. The bar: p99 of at
most 2 s, and at most 150 MiB of resident memory with all of them alive.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import os
import ssl
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import median
from typing import Any

import aiohttp
import yaml

from bars import verdict

ROOT = Path(__file__).resolve().parents[1]
BAR_SECONDS = 2.0
BAR_MIB = 150.0
NAMESPACE = "default"
HTTP_PORT = 18_480
WAIT_SECONDS = 60.0
GROUP = "/apis/winnow.dev/v1alpha1/namespaces/default"
Object = dict[str, Any]


class Api:
    """Plain requests with the administrator's certificate."""

    def __init__(self, session: aiohttp.ClientSession, server: str) -> None:
        self._session, self._server = session, server

    async def send(self, method: str, path: str, body: Object | None = None, content: str = "json") -> Object:
        headers = {"Content-Type": f"application/{content}"}
        async with self._session.request(
            method, self._server + path, data=json.dumps(body) if body else None, headers=headers
        ) as response:
            answer: Object = await response.json(content_type=None)
            if response.status >= 400:
                raise RuntimeError(f"{method} {path}: {response.status} {answer.get('message')}")
            return answer

    async def watch(self, path: str) -> AsyncIterator[Object]:
        timeout = aiohttp.ClientTimeout(total=None)
        async with self._session.get(f"{self._server}{path}?watch=1", timeout=timeout) as response:
            async for line in response.content:
                yield json.loads(line)


@asynccontextmanager
async def api_server(folder: Path) -> AsyncIterator[Api]:
    await _cluster("apiserver-up", folder)
    try:
        config = yaml.safe_load((folder / "kubeconfig").read_text())
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        context = ssl.create_default_context(cadata=_content(cluster, "certificate-authority"))
        certificate = folder / "benchmark.pem"
        certificate.write_text(_content(user, "client-certificate") + "\n" + _content(user, "client-key"))
        context.load_cert_chain(certificate)
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context, limit=0)) as session:
            yield Api(session, cluster["server"])
    finally:
        await _cluster("apiserver-down", folder)


async def _cluster(command: str, folder: Path) -> None:
    quiet = asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(ROOT / "cluster/cluster", command, folder, stdout=quiet)
    if await process.wait() != 0:
        raise RuntimeError(f"cluster/cluster {command} ended with {process.returncode}")


def _content(entry: Mapping[str, str], field: str) -> str:
    if f"{field}-data" in entry:
        return base64.b64decode(entry[f"{field}-data"]).decode()
    return Path(entry[field]).read_text()


async def install(api: Api) -> None:
    for path in sorted((ROOT / "crds").glob("*.yaml")):
        await api.send(
            "POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", yaml.safe_load(path.read_text())
        )
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "winnow-system"}}
    await api.send("POST", "/api/v1/namespaces", namespace)


@asynccontextmanager
async def operator(folder: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    env = {
        **os.environ,
        "KUBECONFIG": str(folder / "kubeconfig"),
        "WINNOW_TRAINER_IMAGE": "docker.io/winnow/trainer:dev",
        "WINNOW_SERVER_IMAGE": "docker.io/winnow/server:dev",
        "WINNOW_HTTP_PORT": str(HTTP_PORT),
    }
    with (folder / "operator.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(sys.executable, "-m", "winnow_operator", env=env, stderr=log)
    try:
        await _until_ready(process)
        yield process
    finally:
        process.terminate()
        await asyncio.wait_for(process.wait(), timeout=20)


async def _until_ready(process: asyncio.subprocess.Process) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    async with aiohttp.ClientSession() as session:
        while time.monotonic() < deadline and process.returncode is None:
            try:
                async with session.get(f"http://127.0.0.1:{HTTP_PORT}/metrics") as response:
                    if (
                        "winnow_leader 1.0" in await response.text()
                        and (await session.get(f"http://127.0.0.1:{HTTP_PORT}/readyz")).ok
                    ):
                        return
            except aiohttp.ClientConnectionError:
                pass
            await asyncio.sleep(0.2)
    raise RuntimeError("The operator did not become ready; see operator.log")


async def prepare(api: Api) -> None:
    """A ModelService, and a dataset whose import is told by its status."""
    await api.send(
        "POST",
        f"{GROUP}/modelservices",
        _object(
            "ModelService",
            "spam",
            {
                "baseModel": {"image": {"reference": "docker.io/winnow/base-minilm:dev"}},
                "storage": {"persistentVolumeClaim": {"size": "1Gi"}},
            },
        ),
    )
    source = {"inline": '{"prompt": "Win a prize", "completion": 1}'}
    await api.send("POST", f"{GROUP}/datasets", _object("Dataset", "rows", {"modelService": "spam", "source": source}))
    status = {
        "observedGeneration": 1,
        "digest": f"sha256:{'a' * 64}",
        "rows": 4460,
        "taskDetail": "Binary",
        "labels": [
            {"name": "ham", "positives": 3857, "share": 0.865},
            {"name": "spam", "positives": 603, "share": 0.135},
        ],
        "labelCount": 2,
    }
    await api.send("PATCH", f"{GROUP}/datasets/rows/status", {"status": status}, "merge-patch+json")
    deadline = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < deadline:
        found = await api.send("GET", f"{GROUP}/datasets/rows")
        if any(c["type"] == "Ready" and c["status"] == "True" for c in found["status"].get("conditions", [])):
            return
        await asyncio.sleep(0.2)
    raise RuntimeError("The dataset did not become ready")


def _object(kind: str, name: str, spec: Object) -> Object:
    return {
        "apiVersion": "winnow.dev/v1alpha1",
        "kind": kind,
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": spec,
    }


async def measure(api: Api, jobs: int) -> list[float]:
    """Seconds from sending each TrainingJob to seeing its Job."""
    names = [f"job-{number:03d}" for number in range(jobs)]
    sent: dict[str, float] = {}
    seen: dict[str, float] = {}

    async def see() -> None:
        async for event in api.watch(f"/apis/batch/v1/namespaces/{NAMESPACE}/jobs"):
            name = event["object"]["metadata"]["labels"].get("winnow.dev/name", "")
            if event["type"] == "ADDED" and name in sent:
                seen.setdefault(name, time.perf_counter())
                if len(seen) == jobs:
                    return

    async def send(name: str) -> None:
        sent[name] = time.perf_counter()
        spec = {"modelService": "spam", "trainingDataset": "rows"}
        await api.send("POST", f"{GROUP}/trainingjobs", _object("TrainingJob", name, spec))

    watching = asyncio.create_task(see())
    await asyncio.sleep(0.5)  # the watch is open
    await asyncio.gather(*(send(name) for name in names))
    async with asyncio.timeout(WAIT_SECONDS):
        await watching
    return [seen[name] - sent[name] for name in names]


def resident_mib(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"/proc/{pid}/status has no VmRSS")


async def run(jobs: int) -> Object:
    with tempfile.TemporaryDirectory(prefix="winnow-benchmark-") as name:
        folder = Path(name)
        async with api_server(folder) as api:
            await install(api)
            async with operator(folder) as process:
                await prepare(api)
                seconds = sorted(await measure(api, jobs))
                await asyncio.sleep(5)  # statuses are written, everything is at rest
                memory = resident_mib(process.pid)
    p99 = seconds[min(len(seconds) - 1, int(len(seconds) * 0.99))]
    return {
        "benchmark": "operator",
        "jobs": jobs,
        "cpus": os.cpu_count(),
        "secondsToJob": {"median": round(median(seconds), 3), "p99": round(p99, 3), "max": round(seconds[-1], 3)},
        "residentMiB": round(memory, 1),
        "bar": {"p99Seconds": BAR_SECONDS, "residentMiB": BAR_MIB},
        "missed": [
            *([f"p99 after {p99:.2f} s, of {BAR_SECONDS:g}"] if p99 > BAR_SECONDS else []),
            *([f"{memory:.0f} MiB, of {BAR_MIB:.0f}"] if memory > BAR_MIB else []),
        ],
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=100, help="TrainingJobs that are created at once")
    parser.add_argument("--json", type=Path, help="write the result here too")
    arguments = parser.parse_args()
    result = asyncio.run(run(arguments.jobs))
    text = json.dumps(result, indent=2)
    print(text)
    if arguments.json:
        arguments.json.write_text(text + "\n")
    return verdict(result["missed"])


if __name__ == "__main__":
    sys.exit(main())
