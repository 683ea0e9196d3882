"""One namespace of the real API server, as a user, a kubelet and a person who waits see it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from integration_client import (
    CLAIM,
    COLLECTED_SECONDS,
    DATASET,
    EVENT,
    JOB,
    OURS,
    POD,
    TRAINING_JOB,
    WAIT_SECONDS,
    Client,
    Kind,
    Object,
)
from integration_manifests import dataset, model_service, training_job
from integration_pods import Pod, message

T = TypeVar("T")
DIGEST = f"sha256:{'a' * 64}"


class Cluster:
    """A namespace of its own for each test."""

    def __init__(self, client: Client, namespace: str) -> None:
        self.client = client
        self.namespace = namespace

    def here(self, manifest: Mapping[str, Any]) -> Object:
        return {**manifest, "metadata": {**manifest["metadata"], "namespace": self.namespace}}

    async def apply(self, *manifests: Mapping[str, Any]) -> None:
        """One after the other, as kubectl does."""
        for manifest in manifests:
            await self.client.apply(self.here(manifest))

    async def change(self, kind: Kind, name: str, **spec: Any) -> None:
        await self.client.patch(kind, self.namespace, name, {"spec": spec})

    async def look_again(self, kind: Kind, name: str) -> None:
        """A change by the user that means nothing: the operator looks again, at the object and at those around it."""
        await self.client.patch(kind, self.namespace, name, {"metadata": {"annotations": {"look": "again"}}})

    async def get(self, kind: Kind, name: str) -> Object:
        found = await self.client.get(kind, self.namespace, name)
        assert found is not None, f"{kind.kind} {name} does not exist"
        return found

    async def find_all(self, kind: Kind, selector: str = "") -> list[Object]:
        return await self.client.find_all(kind, self.namespace, selector)

    async def delete(self, kind: Kind, name: str) -> None:
        await self.client.delete(kind, self.namespace, name)

    async def until(
        self, what: str, kind: Kind, check: Callable[[Object], Any], *, name: str, seconds: float = WAIT_SECONDS
    ) -> Object:
        """The object once the check holds; on a time-out its story is told."""

        def holds(obj: Object) -> bool:
            try:
                return bool(check(obj))
            except (KeyError, IndexError):  # a field that is not there yet
                return False

        try:
            return await self.client.until(
                kind,
                self.namespace,
                lambda found: next((obj for obj in found if holds(obj)), None),
                name=name,
                seconds=seconds,
            )
        except TimeoutError:
            raise AssertionError(
                f"{kind.kind} {name}: waited {seconds:.0f} s for {what}\n{await self.story()}"
            ) from None

    async def until_all(
        self,
        what: str,
        kind: Kind,
        check: Callable[[list[Object]], T | None],
        *,
        selector: str = "",
        seconds: float = WAIT_SECONDS,
    ) -> T:
        """The check's answer about all objects of the kind, once it has one."""
        try:
            return await self.client.until(kind, self.namespace, check, selector=selector, seconds=seconds)
        except TimeoutError:
            raise AssertionError(f"{kind.plural}: waited {seconds:.0f} s for {what}\n{await self.story()}") from None

    async def until_gone(self, kind: Kind, name: str, seconds: float = COLLECTED_SECONDS) -> None:
        def gone(found: list[Object]) -> bool | None:
            return all(obj["metadata"]["name"] != name for obj in found) or None

        await self.until_all(f"{name} to be gone", kind, gone, seconds=seconds)

    async def expect(
        self,
        kind: Kind,
        name: str,
        type_: str,
        *,
        status: str = "True",
        reason: str | None = None,
        says: str = "",
        seconds: float = WAIT_SECONDS,
    ) -> Object:
        """The object once a condition stands as told, for the spec as it is now."""

        def holds(obj: Object) -> bool:
            found = condition(obj, type_)
            return (
                found is not None
                and found["status"] == status
                and (reason is None or found["reason"] == reason)
                and says in found["message"]
                and found["observedGeneration"] == obj["metadata"]["generation"]
            )

        return await self.until(f"{type_}={status} {reason or ''} {says}", kind, holds, name=name, seconds=seconds)

    async def quiet(self, kind: Kind, seconds: float = 1.0, *, name: str = "") -> None:
        """Nothing of the kind changes for so long."""
        before = {
            obj["metadata"]["uid"]: obj for obj in await self.find_all(kind) if name in ("", obj["metadata"]["name"])
        }

        def changed(found: list[Object]) -> Object | None:
            now = {obj["metadata"]["uid"]: obj for obj in found}
            return next((obj for uid, obj in now.items() if _version(before.get(uid)) != _version(obj)), None)

        try:
            obj = await self.client.until(kind, self.namespace, changed, name=name, seconds=seconds)
        except TimeoutError:
            return
        raise AssertionError(
            f"{kind.kind} {obj['metadata']['name']} changed: {obj['metadata'].get('managedFields', [])[-1:]}"
        )

    async def story(self) -> str:
        """Conditions, pods and events of the namespace, for the message of a failed wait."""
        lines = [f"namespace {self.namespace}"]
        for kind in OURS:
            for obj in await self.find_all(kind):
                lines.append(f"{kind.kind} {obj['metadata']['name']}: {obj.get('status', {}).get('summary')}")
                lines += [f"  {c['type']}={c['status']} {c['reason']}: {c['message']}" for c in conditions(obj)]
        for kind in (JOB, POD, CLAIM):
            lines += [f"{kind.kind} {obj['metadata']['name']}: {_state(obj)}" for obj in await self.find_all(kind)]
        lines += [
            f"event {event['regarding']['name']}: {event['reason']} {event.get('note', '')}"
            for event in await self.find_all(EVENT)
        ]
        return "\n".join(lines)

    # What other controllers and nodes do

    async def bind_storage(self, name: str = "spam-storage") -> None:
        """A volume for the claim, as a provisioner makes it; the real volume controller binds the two."""
        claim = await self.until("the claim", CLAIM, lambda _: True, name=name)
        spec = claim["spec"]
        volume = {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": f"{self.namespace}-{name}"},
            "spec": {
                "capacity": {"storage": spec["resources"]["requests"]["storage"]},
                "accessModes": spec["accessModes"],
                "storageClassName": spec.get("storageClassName", ""),
                # With the uid the controller binds at once; without it, at its next resync 15 s later.
                "claimRef": {"namespace": self.namespace, "name": name, "uid": claim["metadata"]["uid"]},
                "hostPath": {"path": "/nowhere"},
            },
        }
        await self.client.apply(volume)

    async def pod_of(self, kind: Kind, name: str, *, but_not: Iterable[str] = (), seconds: float = WAIT_SECONDS) -> Pod:
        """The next pod that runs for an object of ours, apart from those that were played before."""
        played = set(but_not)

        def fresh(pods: list[Object]) -> Object | None:
            waiting = [
                pod
                for pod in pods
                if pod["metadata"]["name"] not in played
                and "deletionTimestamp" not in pod["metadata"]
                and pod["status"].get("phase") == "Pending"
            ]
            return waiting[0] if waiting else None

        selector = f"winnow.dev/kind={kind.kind},winnow.dev/name={name}"
        return Pod(
            self.client,
            await self.until_all(f"a pod of {kind.kind} {name}", POD, fresh, selector=selector, seconds=seconds),
        )

    async def jobs_of(self, kind: Kind, name: str) -> list[Object]:
        return await self.find_all(JOB, f"winnow.dev/kind={kind.kind},winnow.dev/name={name}")

    async def until_no_job_of(self, kind: Kind, name: str) -> None:
        """A Job stands until the garbage collector has taken its pods, however soon the operator deleted it."""
        for job in await self.jobs_of(kind, name):
            await self.until_gone(JOB, job["metadata"]["name"])
        assert await self.jobs_of(kind, name) == []

    async def until_told_to_end(self, pod: Pod) -> None:
        """By the garbage collector where the operator deletes a Job: its pods go first."""
        told = lambda found: "deletionTimestamp" in found["metadata"]  # noqa: E731
        await self.until("it to be told to end", POD, told, name=pod.name, seconds=COLLECTED_SECONDS)

    # The usual way to where a test begins

    async def import_rows(self, name: str = "rows", **told: Any) -> Object:
        """Play the import of a Dataset that was applied."""
        pod = await self.pod_of(DATASET, name)
        await pod.start()
        await pod.end(0, imported(**told))
        return await self.expect(DATASET, name, "Ready")

    async def ready_rows(self, *names: str) -> None:
        """A ModelService `spam` and imported Datasets."""
        await self.apply(model_service(), *(dataset(name) for name in names or ("rows",)))
        await self.bind_storage()
        await asyncio.gather(*(self.import_rows(name) for name in names or ("rows",)))

    async def training(self, name: str = "v1", **spec: Any) -> Pod:
        """The pod of a TrainingJob that runs."""
        await self.apply(training_job(name, **spec))
        pod = await self.pod_of(TRAINING_JOB, name)
        await pod.start()
        await self.expect(TRAINING_JOB, name, "Running")
        return pod

    async def trained(self, name: str = "v1", **spec: Any) -> Object:
        """A TrainingJob that is complete, with two epochs of which the second is the best."""
        await self.apply(training_job(name, **spec))
        pod = await self.pod_of(TRAINING_JOB, name)
        await pod.start()
        await pod.end(0, trained())
        return await self.expect(TRAINING_JOB, name, "Complete")


def conditions(obj: Mapping[str, Any]) -> list[Object]:
    found: list[Object] = obj.get("status", {}).get("conditions", [])
    return found


def condition(obj: Mapping[str, Any], type_: str) -> Object | None:
    return next((found for found in conditions(obj) if found["type"] == type_), None)


def kstatus(obj: Mapping[str, Any]) -> str:
    """What Flux and Helm make of an object, by the rules of cli-utils' kstatus."""
    if "deletionTimestamp" in obj["metadata"]:
        return "Terminating"
    if obj.get("status", {}).get("observedGeneration") != obj["metadata"]["generation"]:
        return "InProgress"
    true = {found["type"] for found in conditions(obj) if found["status"] == "True"}
    if "Reconciling" in true:
        return "InProgress"
    if "Stalled" in true:
        return "Failed"
    ready = condition(obj, "Ready")
    return "Current" if ready is None or ready["status"] == "True" else "InProgress"


def _version(obj: Object | None) -> str | None:
    return obj["metadata"]["resourceVersion"] if obj else None


def _state(obj: Object) -> str:
    status = obj.get("status", {})
    said = [f"{c['type']}={c['status']}" for c in status.get("conditions") or []]
    return f"{status.get('phase', '')} {' '.join(said)} {'(being deleted)' if 'deletionTimestamp' in obj['metadata'] else ''}"


def imported(**told: Any) -> str:
    """The termination message of an import that went well."""
    usual: Object = {
        "kind": "import",
        "state": "Ready",
        "reason": "",
        "message": "",
        "digest": DIGEST,
        "taskDetail": "Binary",
        "rows": 4460,
        "labels": [["ham", 3857], ["spam", 603]],
        "labelCount": 2,
        "tokens": {"mean": 80.5, "p50": 60, "p95": 200, "p99": 400, "max": 900},
        "duplicates": 214,
        "conflicts": 3,
        "skippedRows": 0,
        "warnings": [],
        "problems": [],
        "problemCount": 0,
    }
    return message(**{**usual, **told})


def epoch(number: int, f1: float) -> Object:
    return {
        "epoch": number,
        "checkpoint": f"epoch-{number}",
        "trainLoss": round(0.6 / number, 6),
        "metrics": {"f1": f1, "accuracy": 0.98, "roc_auc": None},
    }


def checkpoint(number: int) -> Object:
    return {
        "name": f"epoch-{number}",
        "epoch": number,
        "digest": f"sha256:{number:064x}",
        "sizeBytes": 90_000_000 + number,
    }


def trained(**told: Any) -> str:
    """The termination message of a training of two epochs that went well."""
    usual: Object = {
        "kind": "train",
        "state": "Complete",
        "reason": "",
        "message": "",
        "primaryMetric": "f1",
        "higherIsBetter": True,
        "bestCheckpoint": "epoch-2",
        "overlap": 0,
        "epochs": [epoch(1, 0.91), epoch(2, 0.9721)],
        "checkpoints": [checkpoint(1), checkpoint(2)],
    }
    return message(**{**usual, **told})


def failed(kind: str, reason: str, why: str, **told: Any) -> str:
    """The termination message of an import or a training that failed."""
    return message(kind=kind, state="Failed", reason=reason, message=why, **told)
