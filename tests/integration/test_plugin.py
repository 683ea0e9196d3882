"""`kubectl winnow` as a user runs it: the executable, a kubeconfig, a real API server, statuses by the real operator."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from integration_client import DATASET, DEPLOYMENT, TRAINING_JOB, Client, Object
from integration_cluster import DIGEST, Cluster, checkpoint, epoch
from integration_manifests import ROWS, dataset, deployment, training_job
from integration_pods import ProgressServer

from winnow_cluster.paths import Paths
from winnow_cluster.tools import Toolbox

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
SECONDS = 60.0  # a bound, not a measure: it starts in one second on a free core
COLOUR = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@dataclass(frozen=True)
class Said:
    code: int
    out: str
    err: str

    def row(self, name: str) -> list[str]:
        """The cells of a table's row, the one that has this name."""
        rows = [re.split(r"\s{2,}", line.strip()) for line in self.out.splitlines()]
        (row,) = [cells for cells in rows if name in cells[:2]]
        return row


class Plugin:
    def __init__(self, kubeconfig: Path) -> None:
        self.environment = {**os.environ, "KUBECONFIG": str(kubeconfig)}
        self.config: Object = yaml.safe_load(kubeconfig.read_text())

    async def run(self, *arguments: str, program: Path = BIN / "kubectl-winnow") -> Said:
        process = await asyncio.create_subprocess_exec(
            program, *arguments, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        async with asyncio.timeout(SECONDS):
            out, err = await process.communicate()
        return Said(process.returncode or 0, out.decode(), err.decode())

    @asynccontextmanager
    async def watching(self, *arguments: str) -> AsyncIterator[Watching]:
        """`status --watch` in a pipe; what ends it is Ctrl-C."""
        process = await asyncio.create_subprocess_exec(
            BIN / "kubectl-winnow", "status", "--watch", *arguments, env=self.environment, stdout=subprocess.PIPE
        )
        try:
            yield Watching(process)
        finally:
            if process.returncode is None:
                process.send_signal(signal.SIGINT)
            async with asyncio.timeout(SECONDS):
                assert await process.wait() == 0


class Watching:
    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def until(self, pattern: str) -> str:
        """The next line that fits."""
        assert self.process.stdout is not None
        seen = []
        try:
            async with asyncio.timeout(SECONDS):
                while line := (await self.process.stdout.readline()).decode():
                    seen.append(line)
                    if re.search(pattern, line):
                        return line
        except TimeoutError:
            pass
        raise AssertionError(f"no line fits {pattern}; there were\n{''.join(seen)}")


@pytest.fixture(scope="module", autouse=True)
def ctrl_c_reaches_programs() -> Iterator[None]:
    """A shell that starts the tests in the background has SIGINT ignored, and what they start would inherit that."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def plugin(kubeconfig: Path, client: Client) -> Plugin:
    return Plugin(kubeconfig)


@pytest.mark.usefixtures("operator")
async def test_datasets_are_listed_with_what_their_import_found(cluster: Cluster, plugin: Plugin) -> None:
    await cluster.ready_rows("rows")
    await cluster.apply(dataset("waits", modelService="none"))
    await cluster.expect(DATASET, "waits", "Ready", status="False", reason="ModelServiceNotFound")
    here = ("-n", cluster.namespace)
    said = await plugin.run("datasets", *here)
    assert said.code == 0, said.err
    assert said.row("NAME")[:-1] == [
        *("NAME", "READY", "REASON", "TASK", "ROWS", "LABELS"),
        *("DUPLICATES", "CONFLICTS", "WARNINGS", "DIGEST"),
    ]
    found = ["rows", "True", "Verified", "Binary", "4,460", "ham 86%, spam 14%", "214", "3", "0", "aaaaaaaaaaaa"]
    assert said.row("rows")[:-1] == found
    assert said.row("waits")[:4] == ["waits", "False", "ModelServiceNotFound", "-"]
    everywhere = await plugin.run("datasets", "--all-namespaces")
    (row,) = [
        line for line in everywhere.out.splitlines() if line.startswith(f"{cluster.namespace} ") and "4,460" in line
    ]
    assert "ham 86%, spam 14%" in row
    assert (await plugin.run("datasets", *here, "-o", "name")).out == (
        "dataset.winnow.dev/rows\ndataset.winnow.dev/waits\n"
    )
    listed = json.loads((await plugin.run("datasets", *here, "-o", "json")).out)
    assert listed["kind"] == "List"
    assert [item["status"].get("digest") for item in listed["items"]] == [DIGEST, None]
    one: Object = yaml.safe_load((await plugin.run("datasets", "rows", *here, "-o", "yaml")).out)
    assert (one["kind"], one["status"]["rows"]) == ("Dataset", 4460)
    assert "managedFields" not in one["metadata"]


@pytest.mark.usefixtures("operator")
async def test_a_dataset_is_told_in_full(cluster: Cluster, plugin: Plugin) -> None:
    await cluster.ready_rows("rows")
    problems = [{"line": 17, "column": 42, "message": "completion must be 0 or 1, found 2"}]
    warnings = [{"code": "ConflictingLabels", "message": "3 texts occur with different labels"}]
    await cluster.apply(dataset("odd", onInvalidRows="Skip"))
    pinned = {"revision": "ab" * 20}
    told = {"problems": problems, "problemCount": 21, "skippedRows": 21, "warnings": warnings, "source": pinned}
    await cluster.import_rows("odd", **told)
    said = await plugin.run("datasets", "odd", "-n", cluster.namespace)
    assert said.code == 0, said.err
    assert f"Digest:        {DIGEST}" in said.out
    assert re.search(rf"Source: +revision {'ab' * 20}\n", said.out)
    assert re.search(r"ham +3,857 +86% +█{20,}", said.out)
    assert re.search(r"80.5 +60 +200 +400 +900\n", said.out)
    assert "ConflictingLabels: 3 texts occur with different labels\n" in said.out
    assert (
        "Problems: 21 rows were skipped\nline 17, column 42: completion must be 0 or 1, found 2\n… and 20 more"
        in said.out
    )
    assert not COLOUR.search(said.out)
    missing = await plugin.run("datasets", "nix", "-n", cluster.namespace)
    assert (missing.code, missing.out) == (1, "")
    assert f'there is no Dataset "nix" in the namespace {cluster.namespace}' in missing.err


def running(percent: float, **more: Any) -> Object:
    return {
        "state": "Running",
        "percent": percent,
        "epoch": 2,
        "totalEpochs": 3,
        "step": 120,
        "totalSteps": 300,
        "etaSeconds": 200,
        "loss": 0.21,
        "primaryMetric": "f1",
        "higherIsBetter": True,
        "bestCheckpoint": "epoch-1",
        "epochs": [epoch(1, 0.95)],
        "checkpoints": [checkpoint(1)],
        **more,
    }


@pytest.mark.usefixtures("operator")
async def test_status_tells_all_four_kinds_and_watches_what_changes(cluster: Cluster, plugin: Plugin) -> None:
    here = ("-n", cluster.namespace)
    await cluster.ready_rows("rows")
    await cluster.apply(deployment())
    await cluster.expect(DEPLOYMENT, "web", "Ready", status="False", reason="TrainingJobNotFound")
    async with plugin.watching(*here) as watching:
        await watching.until(r"^\S+Z  Deployment +web  TrainingJobNotFound  0/1 ready  nothing is live yet · ")
        await cluster.apply(training_job())
        pod = await cluster.pod_of(TRAINING_JOB, "v1")
        await watching.until(r"TrainingJob +v1  ")
        async with ProgressServer(**running(41.5)) as server:
            await pod.start(server.ip)
            await watching.until(
                r"TrainingJob +v1  Running: epoch 2/3  41\.5%  3m20s left · best f1 0\.9500 \(epoch-1\)"
            )
            once = await plugin.run("status", *here)
        many = ROWS * 2_500  # 240 KiB in one line of the watch
        await cluster.apply(dataset("large", source={"inline": many}))
        await watching.until(r"Dataset +large  ")
        await cluster.delete(DEPLOYMENT, "web")
        await watching.until(r"Deployment +web  deleted")
    assert once.code == 0, once.err
    assert once.row("NAME") == ["KIND", "NAME", "STATE", "PROGRESS", "DETAILS", "AGE"]
    assert once.row("spam")[:3] == ["ModelService", "spam", "StorageReady"]
    assert once.row("rows")[:5] == ["Dataset", "rows", "Verified", "-", "4,460 rows · Binary · 2 labels"]
    assert once.row("v1")[:4] == ["TrainingJob", "v1", "Running: epoch 2/3", "41.5%"]
    assert once.row("web")[:4] == ["Deployment", "web", "CheckpointNotReady", "0/1 ready"]


class Terminal:
    """A terminal that the plugin believes in, 120 by 30, and what it shows."""

    def __init__(self) -> None:
        self._ours, self.theirs = pty.openpty()
        fcntl.ioctl(self.theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 120, 0, 0))
        self.seen = ""

    async def until(self, check: Callable[[str], bool]) -> str:
        """What is on it once the check holds; the check sees everything that was drawn, without colours."""
        async with asyncio.timeout(SECONDS):
            while not check(self.seen):
                drawn = await asyncio.to_thread(os.read, self._ours, 65_536)
                self.seen += COLOUR.sub("", drawn.decode(errors="replace"))
        return self.seen

    def close(self) -> None:
        os.close(self._ours)
        os.close(self.theirs)


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    terminal = Terminal()
    yield terminal
    terminal.close()


@pytest.mark.usefixtures("operator")
async def test_on_a_terminal_the_status_stays_up_to_date_until_ctrl_c(
    cluster: Cluster, plugin: Plugin, terminal: Terminal
) -> None:
    await cluster.ready_rows("rows")
    environment = {**plugin.environment, "TERM": "xterm-256color"}
    environment.pop("COLUMNS", None)
    process = await asyncio.create_subprocess_exec(
        *(BIN / "kubectl-winnow", "status", "-n", cluster.namespace),
        env=environment,
        stdin=terminal.theirs,
        stdout=terminal.theirs,
        stderr=terminal.theirs,
    )
    seen = await terminal.until(lambda seen: "4,460 rows" in seen)
    assert re.search(r"ModelServices +\r\n  spam +StorageReady", seen)
    await cluster.apply(training_job())
    pod = await cluster.pod_of(TRAINING_JOB, "v1")
    async with ProgressServer(**running(50.0)) as server:
        await pod.start(server.ip)
        await terminal.until(lambda seen: "██████" in seen and "50.0%" in seen)
    process.send_signal(signal.SIGINT)
    async with asyncio.timeout(SECONDS):
        assert await process.wait() == 0


async def test_kubectl_finds_the_plugin(cluster: Cluster, plugin: Plugin) -> None:
    plugin.environment["PATH"] = f"{BIN}:{os.environ['PATH']}"
    kubectl = Toolbox(Paths.of_this_clone()).program("kubectl")
    said = await plugin.run("winnow", "datasets", "-n", cluster.namespace, program=kubectl)
    assert (said.code, said.out) == (0, "")
    assert said.err == f"There are no datasets in the namespace {cluster.namespace}.\n"


async def test_who_may_not_read_is_told_what_to_ask_for(cluster: Cluster, plugin: Plugin, tmp_path: Path) -> None:
    await cluster.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "guest"}})
    config = plugin.config
    config["users"][0]["user"] = {"token": await cluster.client.token(cluster.namespace, "guest")}
    config["contexts"][0]["context"]["namespace"] = cluster.namespace
    (tmp_path / "guest").write_text(yaml.safe_dump(config))
    for command in (("datasets",), ("status",), ("status", "--watch")):
        said = await plugin.run(*command, "--kubeconfig", str(tmp_path / "guest"))
        assert (said.code, said.out) == (1, "")
        assert re.match(rf"error: you may not read \w+\.winnow\.dev in the namespace {cluster.namespace}: ", said.err)
        assert f"kubectl auth can-i list datasets.winnow.dev -n {cluster.namespace}" in said.err or command != (
            "datasets",
        )
    config["users"][0]["user"] = {"token": "out-of-date"}
    (tmp_path / "guest").write_text(yaml.safe_dump(config))
    said = await plugin.run("status", "--kubeconfig", str(tmp_path / "guest"))
    assert said.code == 1
    assert "does not know you" in said.err


async def test_a_cluster_that_does_not_answer_is_named(plugin: Plugin, tmp_path: Path) -> None:
    config = plugin.config
    config["clusters"][0]["cluster"]["server"] = "https://127.0.0.1:1"
    (tmp_path / "gone").write_text(yaml.safe_dump(config))
    for command in ("datasets", "status"):
        said = await plugin.run(command, "--kubeconfig", str(tmp_path / "gone"))
        assert (said.code, said.out) == (20, "")
        assert "error: the cluster at https://127.0.0.1:1 cannot be reached: " in said.err
    said = await plugin.run("status", "--context", "elsewhere")
    assert said.code == 10
    assert 'there is no context "elsewhere"' in said.err


@pytest.fixture
def bare_cluster(tmp_path: Path) -> Iterator[Path]:
    """An API server of its own, without the CRDs."""
    folder = tmp_path / f"bare-{uuid.uuid4().hex[:8]}"
    command = str(ROOT / "cluster" / "cluster")
    subprocess.run([command, "apiserver-up", str(folder)], check=True, stdout=subprocess.DEVNULL)
    yield folder / "kubeconfig"
    subprocess.run([command, "apiserver-down", str(folder)], check=True, stdout=subprocess.DEVNULL)


async def test_where_winnow_is_not_installed_it_says_so(bare_cluster: Path) -> None:
    plugin = Plugin(bare_cluster)
    for command in (("datasets",), ("datasets", "rows"), ("status",)):
        said = await plugin.run(*command)
        assert (said.code, said.out) == (1, "")
        assert said.err.startswith("error: Winnow is not installed in the cluster at https://")
        assert "hint: install the chart" in said.err


async def test_changes_during_an_outage_are_caught_up_with(cluster: Cluster, plugin: Plugin, tmp_path: Path) -> None:
    """A proxy stands between, and falls silent for a while."""
    config = plugin.config
    host, port = config["clusters"][0]["cluster"]["server"].removeprefix("https://").split(":")
    await cluster.apply(dataset("before"))
    async with Proxy(host, int(port)) as proxy:
        config["clusters"][0]["cluster"]["server"] = f"https://127.0.0.1:{proxy.port}"
        (tmp_path / "proxied").write_text(yaml.safe_dump(config))
        async with Plugin(tmp_path / "proxied").watching("-n", cluster.namespace) as watching:
            await watching.until(r"Dataset +before  ")
            await proxy.cut()
            await watching.until(r"cannot be reached")
            await cluster.delete(DATASET, "before")
            await cluster.apply(dataset("meanwhile"))
            await proxy.open()
            await watching.until(r"Dataset +meanwhile  ")
            await watching.until(r"Dataset +before  deleted")


class Proxy:
    """Passes bytes on to a port, unless it is cut."""

    def __init__(self, host: str, port: int) -> None:
        self._to = host, port
        self.port = 0
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Proxy:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.cut()

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._pass_on, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def cut(self) -> None:
        if self._server is not None:
            self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        to_reader, to_writer = await asyncio.open_connection(*self._to)
        self._writers |= {writer, to_writer}
        await asyncio.gather(_copy(reader, to_writer), _copy(to_reader, writer))


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while part := await reader.read(65_536):
            writer.write(part)
            await writer.drain()
        writer.close()
    except ConnectionError:
        writer.transport.abort()
