"""Datasets that wait for a file, and `kubectl winnow upload` at each state that it may find: a real API server and
operator, the import pod played by the test."""

from __future__ import annotations

import asyncio
import hashlib
import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from integration_client import DATASET, Client, Object
from integration_cluster import DIGEST, Cluster, imported
from integration_manifests import dataset, model_service
from integration_pods import message
from test_plugin import Plugin

from winnow_cluster.paths import Paths
from winnow_cluster.tools import Toolbox

CONTENT = b'{"prompt": "Win a prize now", "completion": 1}\n{"prompt": "See you at noon", "completion": 0}\n'


@pytest.fixture
def plugin(kubeconfig: Path, client: Client) -> Plugin:
    made = Plugin(kubeconfig)
    kubectl = Toolbox(Paths.of_this_clone()).program("kubectl")
    made.environment["PATH"] = f"{kubectl.parent}:{os.environ['PATH']}"
    return made


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mail.jsonl"
    path.write_bytes(CONTENT)
    return path


def write(file: Path, content: bytes) -> None:
    file.write_bytes(content)


def awaiting(name: str = "rows", content: bytes = CONTENT, **spec: Any) -> Object:
    upload = {"sizeBytes": len(content), "sha256": hashlib.sha256(content).hexdigest(), "fileName": "mail.jsonl"}
    return dataset(name, source={"upload": upload}, **spec)


async def prepared(cluster: Cluster, *datasets: Object) -> None:
    await cluster.apply(model_service(), *datasets)
    await cluster.bind_storage()


def arguments(cluster: Cluster, file: Path, *more: str) -> tuple[str, ...]:
    return ("upload", str(file), "--model-service", "spam", "--name", "rows", "-n", cluster.namespace, *more)


@pytest.mark.usefixtures("operator")
async def test_it_waits_for_its_file_over_evictions_and_then_imports(cluster: Cluster) -> None:
    await prepared(cluster, awaiting())
    command = f"kubectl winnow upload mail.jsonl --model-service spam --name rows -n {cluster.namespace}"
    waits: dict[str, Any] = {"status": "False", "reason": "AwaitingUpload", "says": command}
    await cluster.expect(DATASET, "rows", "Ready", **waits)
    names: list[str] = []
    pod = await cluster.pod_of(DATASET, "rows")
    for how in ({"exit_code": 137, "disrupted": True}, {"exit_code": 143}):
        await pod.start(ready=False)
        await cluster.expect(DATASET, "rows", "Ready", **waits)
        await pod.end(**how)  # type: ignore[arg-type]
        names.append(pod.name)
        pod = await cluster.pod_of(DATASET, "rows", but_not=names, seconds=60)
    (job,) = await cluster.jobs_of(DATASET, "rows")
    assert job["status"].get("failed", 0) == 0
    await pod.start(ready=False)
    await pod.become_ready()
    await cluster.expect(DATASET, "rows", "Ready", status="False", reason="Importing")
    await pod.end(0, imported())
    await cluster.expect(DATASET, "rows", "Ready", reason="Verified")


@pytest.mark.usefixtures("operator")
async def test_an_upload_that_is_there_is_told(cluster: Cluster, plugin: Plugin, file: Path) -> None:
    await prepared(cluster, awaiting(labels=["ham", "spam"]))
    await cluster.import_rows("rows")
    said = await plugin.run(*arguments(cluster, file))
    assert said.code == 0, said.err
    assert "Dataset rows holds this file already" in said.err
    assert DIGEST in said.out
    said = await plugin.run(*arguments(cluster, file, "--labels", "spam,ham"))
    assert (said.code, said.out) == (10, "")
    assert "has labels: ham, spam, and spam, ham is asked for" in said.err
    write(file, CONTENT * 2)
    said = await plugin.run(*arguments(cluster, file))
    assert said.code == 10
    assert f"is for another file, of {len(CONTENT)} bytes" in said.err
    assert f"kubectl delete wds rows -n {cluster.namespace}" in said.err


@pytest.mark.usefixtures("operator")
async def test_what_the_import_says_of_the_rows_is_said_here(cluster: Cluster, plugin: Plugin, file: Path) -> None:
    await prepared(cluster, awaiting())
    pod = await cluster.pod_of(DATASET, "rows")
    await pod.start(ready=False)
    problems = [{"line": 17, "column": 42, "message": "completion must be 0 or 1, found 2"}]
    failed = {"kind": "import", "state": "Failed", "reason": "InvalidRows", "message": "1 of 2 rows cannot be read"}
    await pod.end(11, message(**failed, problems=problems, problemCount=1))
    await cluster.expect(DATASET, "rows", "Stalled", reason="InvalidRows")
    said = await plugin.run(*arguments(cluster, file))
    assert (said.code, said.out) == (11, "")
    assert said.err.splitlines()[-2:] == [
        f"{file}:17:42: completion must be 0 or 1, found 2",
        "error: 1 of 2 rows cannot be read (InvalidRows)",
    ]


@pytest.mark.usefixtures("operator")
async def test_an_abandoned_upload_begins_anew(cluster: Cluster, plugin: Plugin, file: Path) -> None:
    await prepared(cluster, awaiting())
    pod = await cluster.pod_of(DATASET, "rows")
    await pod.start(ready=False)
    failed = {"kind": "import", "state": "Failed", "reason": "UploadAbandoned", "message": "no byte came for an hour"}
    await pod.end(10, message(**failed))
    before = await cluster.expect(DATASET, "rows", "Stalled", reason="UploadAbandoned", says="kubectl winnow upload")
    running = asyncio.create_task(plugin.run(*arguments(cluster, file)))
    await cluster.until(
        "another Dataset", DATASET, lambda obj: obj["metadata"]["uid"] != before["metadata"]["uid"], name="rows"
    )
    await cluster.import_rows("rows")
    said = await running
    assert (said.code, "4,460" in said.out) == (0, True), said.err
    assert "The last upload ended: no byte came for an hour" in said.err


async def test_without_its_model_service_nothing_is_made(cluster: Cluster, plugin: Plugin, file: Path) -> None:
    said = await plugin.run(*arguments(cluster, file))
    assert (said.code, said.out) == (1, "")
    assert f'there is no ModelService "spam" in the namespace {cluster.namespace}' in said.err
    assert await cluster.find_all(DATASET) == []


async def test_wrong_rows_of_a_small_file_are_known_before_anything_is_made(
    cluster: Cluster, plugin: Plugin, file: Path
) -> None:
    await cluster.apply(model_service())
    write(file, CONTENT + b'{"prompt": "a", "completion": 2}\n')
    said = await plugin.run(*arguments(cluster, file))
    assert (said.code, said.out) == (11, "")
    assert f"{file}:3:" in said.err
    assert await cluster.find_all(DATASET) == []


async def test_who_may_not_create_datasets_is_told_so(
    cluster: Cluster, plugin: Plugin, tmp_path: Path, file: Path
) -> None:
    may = [{"apiGroups": ["winnow.dev"], "resources": ["modelservices", "datasets"], "verbs": ["get", "list"]}]
    group = "rbac.authorization.k8s.io"
    await cluster.apply(
        model_service(),
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "reader"}},
        {"apiVersion": f"{group}/v1", "kind": "Role", "metadata": {"name": "reader"}, "rules": may},
        {
            "apiVersion": f"{group}/v1",
            "kind": "RoleBinding",
            "metadata": {"name": "reader"},
            "roleRef": {"apiGroup": group, "kind": "Role", "name": "reader"},
            "subjects": [{"kind": "ServiceAccount", "name": "reader", "namespace": cluster.namespace}],
        },
    )
    config = plugin.config
    config["users"][0]["user"] = {"token": await cluster.client.token(cluster.namespace, "reader")}
    (tmp_path / "reader").write_text(yaml.safe_dump(config))
    said = await plugin.run(*arguments(cluster, file, "--kubeconfig", str(tmp_path / "reader")))
    assert (said.code, said.out) == (1, "")
    assert f"you may not create datasets.winnow.dev in the namespace {cluster.namespace}" in said.err
    assert f"kubectl auth can-i create datasets.winnow.dev -n {cluster.namespace}" in said.err
