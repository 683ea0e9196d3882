"""Whole visits, and fresh lists, over a real HTTP server that keeps what is applied as an API server does.

What is refused, rewritten or lost is told or mended, and nothing is written in circles.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web
from kubernetes.aio.client.api_client import ApiClient
from kubernetes.aio.client.configuration import Configuration
from operator_scene import (
    CONFIG,
    DIGEST,
    NOW,
    completed,
    condition,
    conditions_of,
    dataset,
    deployment,
    imported,
    job_of,
    labels_of,
    later,
    message_of,
    model_service,
    owner_reference,
    pod_of,
    training_job,
    with_metadata,
)

from winnow_operator import api, observe
from winnow_operator.build.served import SERVED
from winnow_operator.executor import Executor
from winnow_operator.guests import Guests
from winnow_operator.inbox import Inbox
from winnow_operator.kinds.model_service import LEAVING_SECONDS
from winnow_operator.kube import ApiError, Kube
from winnow_operator.metrics import Metrics
from winnow_operator.progress import ProgressPoller
from winnow_operator.queue import WorkQueue
from winnow_operator.reconcile import POD_SECONDS, REFUSED_SECONDS, Reconciler
from winnow_operator.resources import (
    DATASET,
    DEPLOYMENT,
    HTTP_ROUTE,
    IN_USE,
    MANAGED_BY,
    MODEL_SERVICE,
    POD,
    SCALED_OBJECT,
    TRAINING_JOB,
    WATCHED,
    Key,
    Object,
    resource_of,
)
from winnow_operator.store import Store

AT = "2026-11-23T12:00:00Z"
WEB, ROWS = Key(DEPLOYMENT, "ml", "web"), Key(DATASET, "ml", "rows")

AROUND: dict[str, Any] = {
    "ingress": {"host": "spam.example.com"},
    "autoscaling": {"minReplicas": 1, "maxReplicas": 3},
}


def as_it_is(obj: Object) -> Object:
    return obj


def merged(old: Any, patch: Object) -> Object:
    """RFC 7396."""
    kept = {name: value for name, value in old.items() if name not in patch} if isinstance(old, dict) else {}
    changes = {name: value for name, value in patch.items() if value is not None}
    return kept | {
        name: merged((old or {}).get(name), value) if isinstance(value, dict) else value
        for name, value in changes.items()
    }


@dataclass
class ApiServer:
    objects: dict[str, Object] = field(default_factory=dict)  # by path
    admit: Callable[[Object], Object] = as_it_is
    refused: dict[str, tuple[int, str]] = field(default_factory=dict)  # (HTTP status, message) by the kind's plural
    told: dict[str, list[Callable[[], Object]]] = field(default_factory=dict)  # what each GET of a path is answered
    changed: list[str] = field(default_factory=list)  # paths, of each write
    statuses: list[Object] = field(default_factory=list)

    def answer(self, path: str, obj: Object) -> web.Response:
        """A version is new only if something is."""
        old = self.objects.get(path)
        version = int(old["metadata"]["resourceVersion"]) if old else 0
        kept = {**obj, "metadata": {"uid": path, **obj["metadata"], "resourceVersion": str(version)}}
        if kept != old:
            kept["metadata"]["resourceVersion"] = str(version + 1)
        self.objects[path] = kept
        return web.json_response(kept)

    async def handle(self, request: web.Request) -> web.Response:
        plural = request.path.split("/")[-1 if request.method in ("GET", "POST") else -2]
        if request.method == "GET":
            if told := self.told.get(request.path):
                return web.json_response(told.pop(0)())
            if (obj := self.objects.get(request.path)) is not None:
                return web.json_response(obj)
            if plural in self.refused:
                return self.refusal(plural)
            if any(resource.plural == plural for resource in WATCHED):
                return web.json_response({"items": []})
            return web.json_response({"reason": "NotFound", "message": "not found"}, status=404)
        if request.path.endswith("/status"):
            path = request.path.removesuffix("/status")
            kept = merged(self.objects[path], json.loads(await request.text()))
            self.statuses.append(kept["status"])
            return self.answer(path, kept)
        if plural in self.refused:
            return self.refusal(plural)
        obj, path = json.loads(await request.text()), request.path
        if request.content_type == "application/merge-patch+json":
            obj = merged(self.objects[path], obj)
        if request.method == "DELETE":  # in the foreground: it waits for its dependents
            self.changed.append(path)
            gone = self.objects[path]
            return self.answer(path, {**gone, "metadata": {**gone["metadata"], "deletionTimestamp": AT}})
        if request.method == "POST":
            path += f"/{obj['metadata']['name']}"
        self.changed.append(path)
        if request.method == "POST" and path in self.objects:
            return web.json_response({"reason": "AlreadyExists", "message": "already exists"}, status=409)
        return self.answer(path, self.admit(obj))

    def refusal(self, plural: str) -> web.Response:
        status, message = self.refused[plural]
        return web.json_response({"reason": "Refused", "message": message}, status=status)


@dataclass
class Scene:
    server: ApiServer
    kube: Kube
    store: Store
    queue: WorkQueue
    inbox: Inbox
    reconciler: Reconciler

    def there(self, *objects: api.Resource) -> None:
        for obj in objects:
            raw = api.to_raw(obj)
            plural = {one.kind: one.plural for one in WATCHED}[raw["kind"]]
            self.server.objects[f"/apis/winnow.dev/v1alpha1/namespaces/ml/{plural}/{raw['metadata']['name']}"] = raw
            self.store.put(raw)

    def around(self, *objects: Object) -> None:
        """Children, as their controllers keep them."""
        for obj in objects:
            plural, api_version = resource_of(obj).plural, obj["apiVersion"]
            root = "apis" if "/" in api_version else "api"
            self.server.objects[f"/{root}/{api_version}/namespaces/ml/{plural}/{obj['metadata']['name']}"] = obj
            self.inbox.kept(obj)

    async def visits(self, wanted: Key = WEB, most: int = 20) -> int:
        """Until one brings nothing new to the queue; how many there were."""
        self.queue.add(wanted)
        for number in range(1, most + 1):
            key = await self.queue.get()
            while key != wanted:
                self.queue.done(key)
                key = await self.queue.get()
            await self.reconciler.visit(key, NOW)
            self.queue.done(key)
            if not self.queue.depth():
                return number
        raise AssertionError("it does not come to rest")


@asynccontextmanager
async def scene() -> AsyncIterator[Scene]:
    server = ApiServer()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    listener = socket.create_server(("127.0.0.1", 0))
    await web.SockSite(runner, listener).start()
    metrics, store, queue = Metrics(time.monotonic), Store(), WorkQueue()
    kube = Kube(ApiClient(Configuration(host=f"http://127.0.0.1:{listener.getsockname()[1]}")), metrics)
    inbox = Inbox(store, queue, metrics)
    poller = ProgressPoller(inbox.revisit, metrics, 1.0)
    executor = Executor(kube, store, inbox, metrics, instance="winnow-operator-0")
    try:
        yield Scene(
            server, kube, store, queue, inbox, Reconciler(store, queue, executor, kube, poller, metrics, CONFIG)
        )
    finally:
        queue.close()
        await poller.close()
        await kube.close()
        await runner.cleanup()


def to_a_mirror(obj: Object) -> Object:
    """As a policy of the cluster may do with each image."""
    if obj["kind"] != "Deployment":
        return obj
    (container,) = obj["spec"]["template"]["spec"]["containers"]
    container["image"] = f"mirror.example.com/{container['image']}"
    return obj


async def test_what_an_admission_webhook_rewrites_is_not_applied_again_and_again() -> None:
    async with scene() as here:
        here.server.admit = to_a_mirror
        here.there(model_service(), completed(), deployment())
        await here.visits()
        assert sorted(here.server.changed) == sorted(set(here.server.changed)), "each child once"
        assert conditions_of(here.server.statuses[-1])["Ready"] == ("False", "RollingOut")
        (path,) = (path for path in here.server.changed if "/apps/v1/" in path)
        assert await here.visits() == 1, "nothing is new"
        # What somebody changes by hand is still put right.
        changed = here.server.objects[path]
        changed["spec"]["replicas"] = 7
        changed["metadata"]["resourceVersion"] = "100"
        here.store.put(changed)
        await here.visits()
        assert here.server.objects[path]["spec"]["replicas"] == 1


@pytest.mark.parametrize("code", [500, 429, 409])
async def test_a_webhook_that_stays_away_stands_in_the_status_after_some_failures(code: int) -> None:
    async with scene() as here:
        here.there(model_service(), completed(), deployment())
        here.server.refused["services"] = (code, "failed calling webhook: no endpoints available")
        for attempt in range(4):
            with pytest.raises(ApiError, match="no endpoints available"):
                await here.reconciler.visit(WEB, NOW)
            here.queue.retry(WEB)
            assert bool(here.server.statuses) == (attempt >= 2)
        status = here.server.statuses[0]
        assert conditions_of(status)["Ready"] == ("False", "ApiRefused")
        assert conditions_of(status)["Reconciling"] == ("True", "ApiRefused"), "it may pass"
        assert "refused Service web: failed calling webhook" in message_of(status, "Ready")
        here.server.refused.clear()
        here.queue.succeeded(WEB)
        await here.visits()
        assert conditions_of(here.server.objects["/apis/winnow.dev/v1alpha1/namespaces/ml/deployments/web"]["status"])[
            "Ready"
        ] == ("False", "RollingOut")


async def test_a_route_that_is_refused_keeps_neither_the_classifier_nor_other_things_back() -> None:
    async with scene() as here:
        here.there(
            model_service(),
            completed(),
            deployment(**AROUND),
        )
        here.server.refused["ingresses"] = (422, 'host "spam.example.com" and path "/" is already defined')
        await here.visits()
        status = here.server.statuses[-1]
        assert conditions_of(status)["Exposed"] == ("False", "ApiRefused")
        assert "is already defined" in message_of(status, "Exposed")
        assert conditions_of(status)["Ready"] == ("False", "RollingOut")
        assert any("/horizontalpodautoscalers/" in path for path in here.server.changed)


async def test_each_thing_around_says_why_it_is_not_there() -> None:
    async with scene() as here:
        here.there(model_service(), completed(), deployment(**AROUND))
        here.server.refused["horizontalpodautoscalers"] = (403, "exceeded quota")
        here.server.refused["ingresses"] = (422, "already defined")
        await here.visits()
        status = here.server.statuses[-1]
        assert conditions_of(status)["Autoscaled"] == ("Unknown", "ApiRefused")
        assert conditions_of(status)["Exposed"] == ("False", "ApiRefused")
        assert "exceeded quota" in message_of(status, "Autoscaled")
        assert "already defined" in message_of(status, "Exposed")


@pytest.mark.parametrize(("message", "told"), [("exceeded quota: q", "Reconciling"), ("no such class", "Stalled")])
async def test_a_quota_is_waited_for_whatever_it_refuses(message: str, told: str) -> None:
    async with scene() as here:
        here.there(model_service(), completed(), deployment())
        here.server.refused["deployments"] = (403, message)
        await here.visits()
        status = here.server.statuses[-1]
        assert conditions_of(status)["Ready"] == ("False", "ApiRefused")
        assert {"Reconciling", "Stalled"} & conditions_of(status).keys() == {told}


async def test_a_webhook_that_is_away_for_one_thing_around_holds_no_other_back() -> None:
    async with scene() as here:
        here.there(model_service(), completed(), deployment(**AROUND))
        await here.reconciler.visit(WEB, NOW)  # the pods, which all the rest is put around
        here.server.refused["horizontalpodautoscalers"] = (500, "failed calling webhook")
        for _ in range(3):
            with pytest.raises(ApiError, match="failed calling webhook"):
                await here.reconciler.visit(WEB, NOW)
            here.queue.retry(WEB)
        assert any("/ingresses/" in path for path in here.server.changed)
        status = here.server.statuses[-1]
        assert conditions_of(status)["Autoscaled"] == ("Unknown", "ApiRefused")
        assert conditions_of(status)["Ready"] == ("False", "RollingOut")


async def test_what_a_finalizer_keeps_from_being_made_anew_is_told() -> None:
    """As that of an ingress controller, or of KEDA, which is away."""
    async with scene() as here:
        here.there(model_service(), completed(), deployment(**AROUND))
        await here.visits()
        (path,) = (path for path in here.server.changed if "/ingresses/" in path)
        made, finalizer = here.server.objects[path], "ingress.k8s.aws/resources"
        leaving = {"deletionTimestamp": AT, "finalizers": [finalizer], "resourceVersion": "100", "uid": "1st"}
        here.around({**made, "metadata": {**made["metadata"], **leaving}})
        for _ in range(3):
            with pytest.raises(ApiError, match="is being deleted"):
                await here.reconciler.visit(WEB, NOW)
            here.queue.retry(WEB)
        status = here.server.statuses[-1]
        assert conditions_of(status)["Exposed"] == ("Unknown", "NotMadeYet")
        assert message_of(status, "Exposed") == (
            "Ingress web is being deleted and waits for ingress.k8s.aws/resources, its finalizers; another is made once"
            " it is gone"
        )
        here.queue.succeeded(WEB)
        here.inbox.gone(here.server.objects.pop(path))
        await here.visits()
        assert conditions_of(here.server.statuses[-1])["Exposed"] == ("True", "Exposed")


async def test_a_policy_that_forbids_our_finalizer_is_told() -> None:
    """It answers with 422, as the API server does where an object is being deleted."""
    async with scene() as here:
        here.there(model_service(), imported(), training_job())
        here.server.refused["datasets"] = (422, "ValidatingAdmissionPolicy 'gitops' denied request")
        await here.visits(Key(TRAINING_JOB, "ml", "v1"))
        assert conditions_of(here.server.statuses[-1])["Accepted"] == ("False", "ApiRefused")
        assert message_of(here.server.statuses[-1], "Accepted").endswith("'gitops' denied request")


async def test_a_second_autoscaler_is_not_made_while_the_first_cannot_be_removed() -> None:
    async with scene() as here:
        here.there(model_service(), completed(), deployment(autoscaling={"minReplicas": 1, "maxReplicas": 3}))
        await here.visits()
        here.store.guests = frozenset({SCALED_OBJECT})
        here.server.refused["horizontalpodautoscalers"] = (403, "forbidden")
        await here.visits()
        assert not any("/scaledobjects/" in path for path in here.server.changed)
        assert conditions_of(here.server.statuses[-1])["Ready"] == ("False", "ApiRefused")
        assert "refused HorizontalPodAutoscaler web: forbidden" in message_of(here.server.statuses[-1], "Ready")


async def test_a_kind_that_cannot_be_listed_keeps_nothing_else_from_being_compared() -> None:
    async with scene() as here:
        here.there(model_service())
        pod = pod_of(job_of(training_job()))
        here.store.put(pod)
        here.server.refused["configmaps"] = (403, "forbidden")
        await here.inbox.look_again(here.kube)
        assert here.store.get(POD, "ml", pod["metadata"]["name"]) is None, "deleted while the watch was broken"
        assert here.store.get(MODEL_SERVICE, "ml", "spam") is not None


async def test_an_object_of_anybody_with_our_label_keeps_the_operator_neither_from_starting_nor_running(
    caplog: pytest.LogCaptureFixture,
) -> None:
    anybodys = {
        "name": "mine",
        "namespace": "team",
        "uid": "u",
        "resourceVersion": "7",
        "labels": {MANAGED_BY: "winnow"},
    }
    async with scene() as here:
        here.server.objects |= {
            "/apis/gateway.networking.k8s.io/v1": {"resources": [{"name": "httproutes"}]},
            "/apis/gateway.networking.k8s.io/v1/httproutes": {"items": [{"metadata": anybodys, "spec": {}}]},
            "/api/v1/pods": {"items": [{"metadata": anybodys, "spec": {}}]},
        }
        await Guests(here.kube, here.store, here.inbox, 30).prime()
        await here.inbox.look_again(here.kube)
        assert here.store.guests == {HTTP_ROUTE}
        assert "This is a bug" not in caplog.text


async def test_an_object_that_nobody_expected_ends_nothing_and_is_told(caplog: pytest.LogCaptureFixture) -> None:
    async with scene() as here:
        odd = {**api.to_raw(training_job("odd")), "spec": {}}  # as CRDs of another version may allow
        here.server.objects["/apis/winnow.dev/v1alpha1/trainingjobs"] = {"items": [odd, api.to_raw(training_job())]}
        await here.inbox.look_again(here.kube)
        assert here.store.get(TRAINING_JOB, "ml", "v1") is not None
        assert [vars(record)["object"] for record in caplog.records if "This is a bug" in record.message] == [
            "TrainingJob/ml/odd"
        ]


@pytest.mark.parametrize(
    ("annotation", "text"),
    [
        pytest.param("served", "garbage", id="no JSON"),
        pytest.param("served", '{"digest": "x"}', id="fields missing"),
        pytest.param(
            "served",
            '{"training_job": "v1", "checkpoint": "c", "digest": "d", "run": "r", "base_model": {"from": "future"}}',
            id="a base model of another kind",
        ),
        pytest.param("rollout", "[]", id="memory of another shape"),
    ],
)
async def test_what_somebody_made_of_an_annotation_is_put_right_and_keeps_nobody_else_back(
    annotation: str, text: str
) -> None:
    async with scene() as here:
        here.there(model_service(), completed(), deployment())
        await here.visits()
        (path,) = (path for path in here.server.changed if "/apps/v1/" in path)
        child = here.server.objects[path]
        wanted = child["metadata"]["annotations"]
        edited = {
            **child["metadata"],
            "annotations": {**wanted, f"winnow.dev/{annotation}": text},
            "resourceVersion": "50",
        }
        here.server.objects[path] = {**child, "metadata": edited}
        here.inbox.kept(here.server.objects[path])
        observe.training_job(here.store, completed(), lambda _: None)
        observe.model_service(here.store, model_service())
        await here.visits()
        assert here.server.objects[path]["metadata"]["annotations"][SERVED] == wanted[SERVED]
        assert conditions_of(here.server.statuses[-1])["Ready"] == ("False", "RollingOut")


def without_owner(obj: Object, **metadata: Any) -> Object:
    """As the garbage collector leaves it after `kubectl delete --cascade=orphan`."""
    kept = {name: value for name, value in obj["metadata"].items() if name != "ownerReferences"}
    return {**obj, "metadata": {**kept, **metadata, "resourceVersion": "50"}}


async def test_children_that_lost_their_owner_are_taken_back() -> None:
    async with scene() as here:
        service = model_service()
        here.there(service, completed(), deployment(ingress={"host": "spam.example.com"}))
        for key in (WEB, Key(MODEL_SERVICE, "ml", "spam")):
            await here.visits(key)
        children = {path for path in here.server.changed if "/jobs/" not in path}
        kinds = {here.server.objects[path]["kind"] for path in children}
        assert kinds == {"Service", "ConfigMap", "Deployment", "Ingress", "PersistentVolumeClaim"}
        before = {path: here.server.objects[path]["metadata"]["ownerReferences"] for path in children}
        for path in children:
            here.server.objects[path] = without_owner(here.server.objects[path])
            here.inbox.kept(here.server.objects[path])
        for key in (WEB, Key(MODEL_SERVICE, "ml", "spam")):
            await here.visits(key)
        assert {path: here.server.objects[path]["metadata"].get("ownerReferences") for path in children} == before


async def test_an_object_that_does_not_fit_our_types_says_so_and_goes_on_once_it_does() -> None:
    """As one with a field of a newer version's CRDs."""
    async with scene() as here:
        here.there(model_service(), imported())
        path = "/apis/winnow.dev/v1alpha1/namespaces/ml/datasets/rows"
        here.server.objects[path]["spec"]["source"]["kafka"] = {"topic": "mail"}
        assert await here.visits(ROWS) == 2, "its own status is the only news"
        status = here.server.statuses[-1]
        assert conditions_of(status) == {"Ready": ("False", "NotUnderstood"), "Stalled": ("True", "NotUnderstood")}
        assert message_of(status, "Ready").endswith("spec.source.kafka: Extra inputs are not permitted")
        assert status["rows"] == imported().status.rows, "what was told before stays"
        del here.server.objects[path]["spec"]["source"]["kafka"]
        here.server.objects[path]["metadata"]["resourceVersion"] = "100"
        here.inbox.kept(here.server.objects[path])
        await here.visits(ROWS)
        assert conditions_of(here.server.statuses[-1]) == {"Ready": ("True", "Verified")}


ANOTHER = {"apiVersion": "v1", "kind": "ConfigMap", "name": "theirs", "uid": "t"}
NOT_OURS = [
    pytest.param({"labels": {}}, id="without labels"),
    pytest.param(
        {"labels": {MANAGED_BY: "winnow", "winnow.dev/kind": "Deployment", "winnow.dev/name": "mail"}},
        id="of another name",
    ),
    pytest.param({"ownerReferences": [ANOTHER]}, id="owned by something else"),
]


@pytest.mark.parametrize("metadata", NOT_OURS)
async def test_an_object_of_somebody_else_is_left_alone(metadata: Object) -> None:
    async with scene() as here:
        here.there(model_service(), completed(), deployment())
        await here.visits()
        (path,) = (path for path in here.server.changed if path.endswith("/services/web"))
        theirs = without_owner(here.server.objects[path], **metadata)
        here.server.objects[path] = theirs
        here.inbox.kept(theirs)
        await here.visits()
        assert here.server.objects[path] == theirs
        assert conditions_of(here.server.statuses[-1])["Ready"] == ("False", "NameConflict")


async def test_what_is_deleted_while_it_is_listed_stays_gone() -> None:
    async with scene() as here:
        first, second = (api.to_raw(training_job(name)) for name in ("v1", "v2"))

        def gone_meanwhile() -> Object:
            here.inbox.saw("DELETED", {**first, "metadata": {**first["metadata"], "resourceVersion": "30"}})
            return {"items": [second]}

        path = "/apis/winnow.dev/v1alpha1/trainingjobs"
        here.server.told[path] = [lambda: {"items": [first], "metadata": {"continue": "2"}}, gone_meanwhile]
        await here.inbox.look_again(here.kube)
        assert here.store.get(TRAINING_JOB, "ml", "v1") is None
        assert here.store.get(TRAINING_JOB, "ml", "v2") is not None


async def test_a_job_without_its_labels_gets_them_back_and_is_not_asked_for_again_and_again() -> None:
    async with scene() as here:
        here.there(model_service(status={"conditions": [condition("Ready", "True", "StorageReady")]}), dataset())
        await here.visits(ROWS)
        (path,) = (path for path in here.server.changed if "/jobs/" in path)
        job = here.server.objects[path]
        here.server.objects[path] = {**job, "metadata": {**job["metadata"], "labels": {}, "resourceVersion": "50"}}
        here.inbox.saw("DELETED", here.server.objects[path])  # so the watch calls what its selector no longer picks
        assert await here.visits(ROWS) <= 3, "it comes to rest"
        assert here.server.objects[path]["metadata"]["labels"] == job["metadata"]["labels"]


async def test_an_import_that_begins_while_a_claim_is_asked_for_keeps_the_collection_waiting() -> None:
    left = {"dataset": "rows", "digest": DIGEST, "unreferencedSince": "2026-11-23T11:50:00Z"}
    storage = {"persistentVolumeClaim": {"claimName": "mine"}}
    async with scene() as here:
        here.there(model_service(storage=storage, status={"stored": [left]}))

        def begun_meanwhile() -> Object:
            here.inbox.kept(api.to_raw(dataset()))
            here.inbox.kept(job_of(dataset()))
            return {"metadata": {"name": "mine"}, "spec": {}, "status": {"phase": "Bound"}}

        here.server.told["/api/v1/namespaces/ml/persistentvolumeclaims/mine"] = [begun_meanwhile]
        await here.reconciler.visit(Key(MODEL_SERVICE, "ml", "spam"), NOW)
        assert not any("/jobs/" in path for path in here.server.changed)


def claim_of(service: api.ModelService, *, earlier: bool = False, **metadata: Any) -> Object:
    owner = {**owner_reference(service), **({"uid": "of-an-earlier-one"} if earlier else {})}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {
            "name": "spam-storage",
            "namespace": "ml",
            "uid": "claim",
            "resourceVersion": "30",
            "labels": labels_of(service),
            "ownerReferences": [owner],
            **metadata,
        },
        "spec": {},
        "status": {"phase": "Bound"},
    }


def on_the_volume(pod: Object) -> Object:
    volumes = [{"name": "storage", "persistentVolumeClaim": {"claimName": "spam-storage"}}]
    return {**pod, "spec": {**pod["spec"], "nodeName": "node-1", "volumes": volumes}}


async def test_a_model_service_made_anew_says_what_keeps_the_earlier_claim_and_goes_on_when_it_is_gone() -> None:
    spam, v1 = Key(MODEL_SERVICE, "ml", "spam"), Key(TRAINING_JOB, "ml", "v1")
    path = "/api/v1/namespaces/ml/persistentvolumeclaims/spam-storage"
    async with scene() as here:
        here.there(model_service(), completed(), deployment(), imported())
        claim = claim_of(model_service(), earlier=True, deletionTimestamp=AT)
        trained, read = job_of(completed(), outcome="Complete"), job_of(imported(), outcome="Complete")
        served = {"metadata": {"name": "web-rs", "uid": "rs", "labels": labels_of(deployment())}}
        pods = [on_the_volume(pod_of(served, phase="Running")), on_the_volume(pod_of(trained, exit_code=0))]
        here.around(claim, trained, read, *pods)

        assert await here.reconciler.visit(spam, NOW) == LEAVING_SECONDS
        status = here.server.statuses[-1]
        assert conditions_of(status)["Ready"] == ("False", "StorageBeingDeleted")
        assert conditions_of(status)["Stalled"] == ("True", "StorageBeingDeleted"), "what serves does not end by itself"
        assert message_of(status, "Ready") == (
            "PersistentVolumeClaim spam-storage of an earlier ModelService is being deleted, with all that lies in it, and"
            " waits for pods v1-0a1b2c3d-1, web-rs-1. To let it go: delete Deployment web or scale it to 0"
        )
        await here.reconciler.visit(v1, NOW)
        await here.visits(ROWS)
        assert [path.rpartition("/")[2] for path in here.server.changed] == ["v1-0a1b2c3d", "rows-0a1b2c3d"]
        assert conditions_of(here.server.statuses[-1])["Ready"] == ("False", "StorageBeingDeleted")
        assert "digest" not in here.server.statuses[-1], "the rows go with it"
        await here.reconciler.visit(WEB, NOW)  # its children are written
        await here.reconciler.visit(WEB, NOW)
        assert "is being deleted" in message_of(here.server.statuses[-1], "Ready")

        del here.server.objects[path]
        here.inbox.gone(claim)
        await here.visits(spam)
        assert here.server.objects[path]["metadata"]["ownerReferences"] == [owner_reference(model_service())]


async def test_a_claim_that_somebody_deletes_is_told_and_nothing_starts_on_it() -> None:
    v2 = Key(TRAINING_JOB, "ml", "v2")
    async with scene() as here:
        running = training_job()
        here.there(model_service(), imported(), running, training_job("v2"))
        batch = job_of(running)
        here.around(claim_of(model_service(), deletionTimestamp=AT), batch)
        here.around(on_the_volume(pod_of(batch, phase="Running")))
        await here.reconciler.visit(Key(MODEL_SERVICE, "ml", "spam"), NOW)
        status = here.server.statuses[-1]
        assert conditions_of(status)["Reconciling"] == ("True", "StorageBeingDeleted"), "the training ends by itself"
        assert message_of(status, "Ready").endswith("To let it go: suspend or delete TrainingJob v1")
        await here.reconciler.visit(v2, NOW)
        assert conditions_of(here.server.statuses[-1])["Accepted"] == ("False", "StorageBeingDeleted")
        assert here.server.changed == []


@pytest.mark.parametrize(
    ("end", "starts"),
    [
        pytest.param({"phase": "Running"}, False, id="it still writes its resume point"),
        pytest.param({"exit_code": 143}, True, id="it has ended"),
        pytest.param({"phase": "Unknown"}, True, id="its node is lost"),
        pytest.param(None, True, id="it is gone"),
    ],
)
async def test_a_training_whose_batch_job_somebody_deleted_begins_anew_once_no_pod_writes_to_its_run(
    end: dict[str, Any] | None, starts: bool
) -> None:
    v1, begun = Key(TRAINING_JOB, "ml", "v1"), training_job()
    async with scene() as here:
        here.there(model_service(), with_metadata(imported(), finalizers=[IN_USE]), begun)
        await here.visits(v1)
        (path,) = (path for path in here.server.changed if "/jobs/" in path)
        batch = here.server.objects.pop(path)
        (container,) = batch["spec"]["template"]["spec"]["containers"]

        def in_the_run(**fields: Any) -> Object:
            pod = pod_of(batch, **fields)
            return {**pod, "spec": {"containers": [container]}}

        here.around(in_the_run(phase="Running"))
        here.inbox.gone(batch)
        await here.visits(v1)
        assert conditions_of(here.server.statuses[-1])["Running"] == ("False", "Stopping")
        assert path not in here.server.objects
        if end:
            ended = in_the_run(**end)
            here.inbox.kept({**ended, "metadata": {**ended["metadata"], "resourceVersion": "50"}})
        else:
            here.inbox.gone(in_the_run(phase="Running"))
        await here.visits(v1)
        assert (path in here.server.objects) == starts


def refusals(*messages: str) -> Object:
    """As the Job controller tells them, the last one last."""
    return {
        "items": [
            {"reason": "FailedCreate", "message": message, "lastTimestamp": f"2026-11-23T11:5{minute}:00Z"}
            for minute, message in enumerate(messages)
        ]
    }


@pytest.mark.parametrize(
    ("key", "type_", "awaited"),
    [
        pytest.param(ROWS, "Ready", ("Importing", "The import's pod is awaited"), id="an import"),
        pytest.param(
            Key(TRAINING_JOB, "ml", "v1"),
            "Running",
            ("Starting", "The batch Job was created; its pod follows"),
            id="a training",
        ),
    ],
)
async def test_a_job_that_gets_no_pod_says_why(key: Key, type_: str, awaited: tuple[str, str]) -> None:
    events = "/api/v1/namespaces/ml/events"
    async with scene() as here:
        rows = with_metadata(imported(), finalizers=[IN_USE]) if key.resource == TRAINING_JOB else dataset()
        here.there(model_service(), rows, training_job())
        await here.visits(key)
        (path,) = (path for path in here.server.changed if "/jobs/" in path)

        def told() -> tuple[str, str]:
            status = here.server.statuses[-1]
            return conditions_of(status)[type_][1], message_of(status, type_)

        def started(at: str, version: str) -> None:
            batch = here.server.objects[path]
            metadata = {**batch["metadata"], "resourceVersion": version}
            here.around({**batch, "metadata": metadata, "status": {"startTime": at}})

        started("2026-11-23T11:59:59Z", "50")
        assert await here.reconciler.visit(key, NOW) == POD_SECONDS
        assert told() == awaited
        here.server.objects[events] = refusals(
            'Error creating: pods "a-7xk2p" is forbidden: exceeded quota: q, requested: pods=1, used: pods=3, limited: pods=3',
            'Error creating: pods "a-9bq4z" is forbidden: exceeded quota: q, requested: pods=1, used: pods=0, limited: pods=0',
        )
        assert await here.reconciler.visit(key, NOW) == POD_SECONDS
        assert told() == awaited, "a second old: it is not time to ask"
        started("2026-11-23T11:59:50Z", "60")
        assert await here.reconciler.visit(key, NOW) == REFUSED_SECONDS
        name = path.rpartition("/")[2]
        words = "exceeded quota: q, requested: pods=1, used: pods=0, limited: pods=0"
        assert told() == ("ApiRefused", f"The API server refuses the pods of Job {name}: {words}")
        assert conditions_of(here.server.statuses[-1])["Reconciling"] == ("True", "ApiRefused"), "others will end"
        here.server.objects[events] = refusals('Error creating: pods "a-4kz8m" is forbidden: no service account "web"')
        await here.reconciler.visit(key, NOW)
        assert conditions_of(here.server.statuses[-1])["Stalled"] == ("True", "ApiRefused")
        here.around(pod_of(here.server.objects[path], phase="Running"))
        await here.reconciler.visit(key, NOW)
        assert told()[0] in ("Importing", "Training")


async def test_an_old_refusal_is_none_of_a_pod_that_was_evicted() -> None:
    key = Key(TRAINING_JOB, "ml", "v1")
    async with scene() as here:
        here.there(model_service(), with_metadata(imported(), finalizers=[IN_USE]), training_job())
        await here.visits(key)
        (path,) = (path for path in here.server.changed if "/jobs/" in path)
        batch = here.server.objects[path]
        began = {"startTime": "2026-11-23T11:10:00Z"}
        here.around({**batch, "metadata": {**batch["metadata"], "resourceVersion": "50"}, "status": began})
        pod = pod_of(here.server.objects[path], phase="Running")
        here.around(pod)
        await here.reconciler.visit(key, NOW)
        here.inbox.gone(pod)

        def refused(words: str) -> None:
            here.server.objects["/api/v1/namespaces/ml/events"] = refusals(words)

        refused('Error creating: pods "v1-a" is forbidden: exceeded quota: q')
        assert await here.reconciler.visit(key, NOW) == POD_SECONDS
        assert "Stalled" not in conditions_of(here.server.statuses[-1])
        told = set()
        for name in ("v1-b", "v1-c"):  # no pod comes: it is refused now, and the API server is told of many as one
            refused(f'(combined from similar events): Error creating: pods "{name}" is forbidden: exceeded quota: q')
            await here.reconciler.visit(key, later(POD_SECONDS))
            told.add(message_of(here.server.statuses[-1], "Running"))
        (message,) = told
        assert message.endswith(": exceeded quota: q")
        assert "combined" not in message and "v1-b" not in message


async def test_an_orphaned_claim_is_taken_back_as_large_as_it_has_become() -> None:
    key = Key(MODEL_SERVICE, "ml", "spam")
    async with scene() as here:
        here.there(model_service())
        await here.visits(key)
        (path,) = (path for path in here.server.changed if "claims" in path)
        claim = without_owner(json.loads(json.dumps(here.server.objects[path])))
        claim["spec"]["resources"]["requests"]["storage"] = "400Gi"
        here.server.objects[path] = claim
        here.inbox.kept(claim)
        await here.visits(key)
        found = here.server.objects[path]
        assert found["spec"]["resources"]["requests"]["storage"] == "400Gi"
        assert found["metadata"]["ownerReferences"]


async def test_what_cannot_be_asked_keeps_nobody_waiting() -> None:
    async with scene() as here:
        here.there(model_service(), dataset())
        await here.visits(ROWS)
        (path,) = (path for path in here.server.changed if "/jobs/" in path)
        batch = here.server.objects[path]
        here.around({**batch, "metadata": {**batch["metadata"], "resourceVersion": "50"}, "status": {"startTime": AT}})
        here.server.refused["events"] = (403, "forbidden")  # the role is that of an older chart
        await here.reconciler.visit(ROWS, later(60))
        assert conditions_of(here.server.statuses[-1])["Ready"] == ("False", "Importing")
