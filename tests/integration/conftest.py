"""One real API server for the session, a namespace for each test, and the operator beside it.

Everything runs in one event loop, so that waiting on a watch costs nothing. A random order must not matter: every test has a namespace, and those that stop the
operator start another one before they end.
"""

from __future__ import annotations

import asyncio
import subprocess
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import pytest_asyncio
import yaml
from integration_client import CRD, NAMESPACE, RIGHTS, Client, Object, client_of
from integration_cluster import Cluster
from integration_operator import Operator
from integration_pods import beat, register_node

ROOT = Path(__file__).resolve().parents[2]
SYSTEM = "winnow-system"
HEARTBEAT_SECONDS = 10
BY_HAND = {  # a storage class whose volumes the tests make
    "apiVersion": "storage.k8s.io/v1",
    "kind": "StorageClass",
    "metadata": {"name": "by-hand"},
    "provisioner": "kubernetes.io/no-provisioner",
}
TEST_SECONDS = 180  # a guard against what hangs: each wait has a bound of its own


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if pytest_asyncio.is_async_test(item):
            item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)
            # Of the test alone: the first one of a worker sets up an API server and an operator, which have bounds of their own.
            item.add_marker(pytest.mark.timeout(TEST_SECONDS, func_only=True))


@pytest.fixture(scope="session")
def kubeconfig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """etcd, kube-apiserver and kube-controller-manager of their own, for this run."""
    folder = tmp_path_factory.mktemp("apiserver")
    command = str(ROOT / "cluster" / "cluster")
    subprocess.run([command, "apiserver-up", str(folder)], check=True, stdout=subprocess.DEVNULL)
    yield folder / "kubeconfig"
    subprocess.run([command, "apiserver-down", str(folder)], check=True, stdout=subprocess.DEVNULL)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def client(kubeconfig: Path) -> AsyncIterator[Client]:
    """An administrator of a cluster that has the CRDs, the operator's namespace and one node."""
    async with client_of(kubeconfig) as client:
        for path in sorted((ROOT / "crds").glob("*.yaml")):
            await client.apply(yaml.safe_load(path.read_text()))
        await client.until(CRD, "", lambda crds: sum(map(_established, crds)) == 4 or None)
        await client.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SYSTEM}})
        await client.apply(BY_HAND)
        await register_node(client)
        heart = asyncio.create_task(_keep_beating(client))
        yield client
        heart.cancel()


def _established(crd: Object) -> bool:
    conditions = crd.get("status", {}).get("conditions") or []
    return any(condition["type"] == "Established" and condition["status"] == "True" for condition in conditions)


async def _keep_beating(client: Client) -> None:
    while True:
        await asyncio.sleep(HEARTBEAT_SECONDS)
        await beat(client)


@asynccontextmanager
async def new_namespace(client: Client) -> AsyncIterator[Cluster]:
    name = f"t-{uuid.uuid4().hex[:8]}"
    await client.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    yield Cluster(client, name)
    await client.delete(NAMESPACE, "", name)


@pytest_asyncio.fixture(loop_scope="session")
async def cluster(client: Client) -> AsyncIterator[Cluster]:
    """A namespace of its own."""
    async with new_namespace(client) as cluster:
        yield cluster


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def dry(client: Client) -> AsyncIterator[Cluster]:
    """One namespace for all tests that make dry runs only: to empty one, the controllers ask for every kind there is."""
    async with new_namespace(client) as cluster:
        yield cluster


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def operators_kubeconfig(client: Client, kubeconfig: Path) -> Path:
    """With the ServiceAccount and the rights that the chart gives, and no others: what the operator may not do fails here."""
    for obj in _chart():
        if (obj["apiVersion"], obj["kind"]) in {(kind.api_version, kind.kind) for kind in RIGHTS}:
            await client.apply(obj)
    return _with_token(kubeconfig, await client.token(SYSTEM, "winnow-operator"))


def _chart() -> list[Object]:
    command = [
        str(ROOT / "cluster" / "cluster"),
        "helm",
        "template",
        "winnow",
        str(ROOT / "helm" / "winnow"),
        "--namespace",
        SYSTEM,
        "--kube-version",
        "1.36",
    ]
    rendered = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return [obj for obj in yaml.safe_load_all(rendered) if obj]


def _with_token(kubeconfig: Path, token: str) -> Path:
    config = yaml.safe_load(kubeconfig.read_text())
    config["users"][0]["user"] = {"token": token}
    path = kubeconfig.with_name("operator.kubeconfig")
    path.write_text(yaml.safe_dump(config))
    return path


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def operator(operators_kubeconfig: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Operator]:
    """The operator, for all tests; those that end it start it again."""
    operator = Operator(operators_kubeconfig, tmp_path_factory.mktemp("operator") / "log", SYSTEM)
    await operator.start()
    yield operator
    await operator.stop()
