"""A kubelet played by the test: it binds pods, starts and ends their containers, and answers /progress for them over real HTTP."""

from __future__ import annotations

import itertools
import json
import os
from datetime import UTC, datetime
from typing import Any

from aiohttp import web
from integration_client import NODE, POD, Client, Object, RefusedError

NODE_NAME = "played"
PROGRESS_PORT = 8081
WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))  # those beside it have addresses too


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def message(**fields: Any) -> str:
    """A termination message."""
    return json.dumps(fields, separators=(",", ":"))


class Pod:
    """One pod of the cluster, in the hands of the test."""

    def __init__(self, client: Client, obj: Object) -> None:
        self._client = client
        self.namespace: str = obj["metadata"]["namespace"]
        self.name: str = obj["metadata"]["name"]
        self.job: str = obj["metadata"]["labels"].get("batch.kubernetes.io/job-name", "")
        self.spec: Object = obj["spec"]
        self._ip = ""
        self._started = now()

    @property
    def container(self) -> Object:
        container: Object = self.spec["containers"][0]
        return container

    async def start(self, ip: str = "10.244.0.9", *, ready: bool = True) -> None:
        """Bound to the node, its container running."""
        self._ip = ip
        await self._bind()
        await self._report("Running", {"running": {"startedAt": self._started}}, ready=ready)

    async def become_ready(self) -> None:
        await self._report("Running", {"running": {"startedAt": self._started}}, ready=True)

    async def wait_in_vain(self, reason: str, why: str) -> None:
        """Bound, but its container cannot be started."""
        await self._bind()
        await self._report("Pending", {"waiting": {"reason": reason, "message": why}}, ready=False)

    async def find_no_node(self, why: str) -> None:
        await self._patch({"phase": "Pending", "conditions": [_condition("PodScheduled", False, "Unschedulable", why)]})

    async def crash(self, exit_code: int, said: str = "", *, restarts: int = 1) -> None:
        """The container of a pod that is restarted for ever ends, and waits for its next start."""
        await self._bind()
        waiting = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s restarting failed container"}}
        await self._report(
            "Running", waiting, ready=False, last=self._terminated(exit_code, "Error", said), restarts=restarts
        )

    async def end(self, exit_code: int = 0, said: str = "", *, reason: str = "", disrupted: bool = False) -> None:
        """The container ends for good; a pod that was being deleted is gone with it."""
        await self._bind()
        reason = reason or ("Completed" if exit_code == 0 else "Error")
        phase = "Succeeded" if exit_code == 0 else "Failed"
        more = (
            [_condition("DisruptionTarget", True, "TerminationByKubelet", "The node was shut down")]
            if disrupted
            else []
        )
        await self._report(phase, self._terminated(exit_code, reason, said), ready=False, conditions=more)

    async def lose_company(self, name: str) -> None:
        """A container that a mesh put beside ours is killed for its memory; the kubelet tells of all of them by name."""
        pod = await self._client.get(POD, self.namespace, self.name)
        assert pod is not None
        other = {"name": name, "image": "mesh", "imageID": "", "ready": False, "started": False, "restartCount": 0}
        killed = {**other, "state": self._terminated(137, "OOMKilled", ""), "lastState": {}}
        await self._patch({"containerStatuses": [killed, *pod["status"]["containerStatuses"]]})

    async def disappear(self) -> None:
        """What a kubelet does last for a pod that was being deleted."""
        await self._client.delete(POD, self.namespace, self.name, grace_seconds=0)

    async def _bind(self) -> None:
        if self.spec.get("nodeName"):
            return
        target = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": self.name},
            "target": {"kind": "Node", "name": NODE_NAME},
        }
        try:
            await self._client.post(POD, self.namespace, self.name, "binding", target)
        except RefusedError as refused:
            if refused.status != 409:  # bound by an earlier player of the same pod
                raise
        self.spec["nodeName"] = NODE_NAME

    def _terminated(self, exit_code: int, reason: str, said: str) -> Object:
        ended: Object = {"exitCode": exit_code, "reason": reason, "startedAt": self._started, "finishedAt": now()}
        return {"terminated": {**ended, **({"message": said} if said else {})}}

    async def _report(
        self,
        phase: str,
        state: Object,
        *,
        ready: bool,
        last: Object | None = None,
        restarts: int = 0,
        conditions: list[Object] | None = None,
    ) -> None:
        container = self.container
        status = {
            "name": container["name"],
            "image": container["image"],
            "imageID": "",
            "ready": ready,
            "started": "running" in state,
            "restartCount": restarts,
            "state": state,
            "lastState": last or {},
        }
        await self._patch(
            {
                "phase": phase,
                "startTime": self._started,
                **({"podIP": self._ip, "podIPs": [{"ip": self._ip}], "hostIP": "10.0.0.2"} if self._ip else {}),
                "containerStatuses": [status],
                "conditions": [
                    _condition("PodScheduled", True, "", ""),
                    _condition("Ready", ready, "" if ready else "ContainersNotReady", ""),
                    _condition("ContainersReady", ready, "" if ready else "ContainersNotReady", ""),
                    *(conditions or []),
                ],
            }
        )

    async def _patch(self, status: Object) -> None:
        await self._client.patch(POD, self.namespace, self.name, {"status": status}, "status")


def _condition(type_: str, status: bool, reason: str, why: str) -> Object:
    return {"type": type_, "status": str(status), "reason": reason, "message": why, "lastTransitionTime": now()}


class ProgressServer:
    """What a trainer serves at :8081, on a loopback address of its own, so that each played pod has an IP that answers."""

    _addresses = itertools.count(1)

    def __init__(self, **progress: Any) -> None:
        number = next(self._addresses)
        self.ip = f"127.{77 + WORKER}.{number // 250}.{number % 250 + 1}"
        self.progress: Object = progress
        self.pulls = 0
        self._runner: web.AppRunner | None = None

    async def _answer(self, _request: web.Request) -> web.Response:
        self.pulls += 1
        return web.json_response(self.progress)

    async def __aenter__(self) -> ProgressServer:
        app = web.Application()
        app.router.add_get("/progress", self._answer)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        await web.TCPSite(self._runner, self.ip, PROGRESS_PORT).start()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._runner is not None:
            await self._runner.cleanup()


async def register_node(client: Client) -> None:
    """The node that played pods are bound to: without it the pod garbage collector would remove them."""
    await client.create({"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE_NAME}})
    await beat(client)


async def beat(client: Client) -> None:
    """What keeps the node Ready, and its pods from being evicted."""
    ready = {
        "type": "Ready",
        "status": "True",
        "reason": "KubeletReady",
        "message": "played by a test",
        "lastHeartbeatTime": now(),
        "lastTransitionTime": now(),
    }
    await client.patch(NODE, "", NODE_NAME, {"status": {"conditions": [ready]}}, "status")
