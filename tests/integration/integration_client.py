"""A small client of the API server: what a user's kubectl and a node's kubelet send. It shares nothing with the operator's own."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
import yaml

Object = dict[str, Any]
T = TypeVar("T")

WAIT_SECONDS = 20.0  # more than anything takes here, less than a person would wait
# The garbage collector looks for new kinds every 30 s and collects nothing while it reads them in, which it does
# whenever a test has changed a CRD.
COLLECTED_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of object with its place in the API."""

    api_version: str
    kind: str
    plural: str
    namespaced: bool = True

    def path(self, namespace: str = "", name: str = "", subresource: str = "") -> str:
        root = f"/apis/{self.api_version}" if "/" in self.api_version else f"/api/{self.api_version}"
        parts = [root]
        if self.namespaced and namespace:
            parts.append(f"namespaces/{namespace}")
        parts += [self.plural, *filter(None, (name, subresource))]
        return "/".join(parts)


MODEL_SERVICE = Kind("winnow.dev/v1alpha1", "ModelService", "modelservices")
DATASET = Kind("winnow.dev/v1alpha1", "Dataset", "datasets")
TRAINING_JOB = Kind("winnow.dev/v1alpha1", "TrainingJob", "trainingjobs")
DEPLOYMENT = Kind("winnow.dev/v1alpha1", "Deployment", "deployments")
APPS_DEPLOYMENT = Kind("apps/v1", "Deployment", "deployments")
REPLICA_SET = Kind("apps/v1", "ReplicaSet", "replicasets")
JOB = Kind("batch/v1", "Job", "jobs")
POD = Kind("v1", "Pod", "pods")
SERVICE = Kind("v1", "Service", "services")
CLAIM = Kind("v1", "PersistentVolumeClaim", "persistentvolumeclaims")
VOLUME = Kind("v1", "PersistentVolume", "persistentvolumes", namespaced=False)
CONFIG_MAP = Kind("v1", "ConfigMap", "configmaps")
SECRET = Kind("v1", "Secret", "secrets")
QUOTA = Kind("v1", "ResourceQuota", "resourcequotas")
NAMESPACE = Kind("v1", "Namespace", "namespaces", namespaced=False)
NODE = Kind("v1", "Node", "nodes", namespaced=False)
LEASE = Kind("coordination.k8s.io/v1", "Lease", "leases")
EVENT = Kind("events.k8s.io/v1", "Event", "events")
STORAGE_CLASS = Kind("storage.k8s.io/v1", "StorageClass", "storageclasses", namespaced=False)
SERVICE_ACCOUNT = Kind("v1", "ServiceAccount", "serviceaccounts")
ROLE = Kind("rbac.authorization.k8s.io/v1", "Role", "roles")
ROLE_BINDING = Kind("rbac.authorization.k8s.io/v1", "RoleBinding", "rolebindings")
CLUSTER_ROLE = Kind("rbac.authorization.k8s.io/v1", "ClusterRole", "clusterroles", namespaced=False)
CLUSTER_ROLE_BINDING = Kind(
    "rbac.authorization.k8s.io/v1", "ClusterRoleBinding", "clusterrolebindings", namespaced=False
)
RIGHTS = (SERVICE_ACCOUNT, ROLE, ROLE_BINDING, CLUSTER_ROLE, CLUSTER_ROLE_BINDING)
AUTOSCALER = Kind("autoscaling/v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers")
BUDGET = Kind("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets")
NETWORK_POLICY = Kind("networking.k8s.io/v1", "NetworkPolicy", "networkpolicies")
INGRESS = Kind("networking.k8s.io/v1", "Ingress", "ingresses")
AROUND = (AUTOSCALER, BUDGET, NETWORK_POLICY, INGRESS)
SCALED_OBJECT = Kind("keda.sh/v1alpha1", "ScaledObject", "scaledobjects")
SERVICE_MONITOR = Kind("monitoring.coreos.com/v1", "ServiceMonitor", "servicemonitors")
HTTP_ROUTE = Kind("gateway.networking.k8s.io/v1", "HTTPRoute", "httproutes")
GUESTS = (SCALED_OBJECT, SERVICE_MONITOR, HTTP_ROUTE)
CRD = Kind("apiextensions.k8s.io/v1", "CustomResourceDefinition", "customresourcedefinitions", namespaced=False)
OURS = (MODEL_SERVICE, DATASET, TRAINING_JOB, DEPLOYMENT)
ALL = (
    *OURS,
    *(
        APPS_DEPLOYMENT,
        REPLICA_SET,
        JOB,
        POD,
        SERVICE,
        CLAIM,
        VOLUME,
        CONFIG_MAP,
        SECRET,
        QUOTA,
        NAMESPACE,
        NODE,
        LEASE,
        EVENT,
    ),
    *(STORAGE_CLASS, CRD),
    *RIGHTS,
    *AROUND,
    *GUESTS,
)
_BY_TYPE = {(kind.api_version, kind.kind): kind for kind in ALL}


def kind_of(obj: Mapping[str, Any]) -> Kind:
    return _BY_TYPE[obj["apiVersion"], obj["kind"]]


class RefusedError(Exception):
    """The API server said no."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status
        self.message = message


class Client:
    """Requests as the administrator of the kubeconfig."""

    def __init__(self, session: aiohttp.ClientSession, server: str) -> None:
        self._session = session
        self._server = server

    async def _request(self, method: str, path: str, **arguments: Any) -> Any:
        async with self._session.request(method, self._server + path, **arguments) as response:
            text = await response.text()
            try:
                body = json.loads(text)
            except ValueError:
                body = text
            if response.status >= 400:
                raise RefusedError(response.status, body["message"] if isinstance(body, dict) else str(body))
            return body

    async def raw(self, path: str) -> Any:
        return await self._request("GET", path)

    async def table(self, kind: Kind, namespace: str) -> list[Object]:
        """What `kubectl get` prints, a dict for each row; without the columns of `-o wide`."""
        headers = {"Accept": "application/json;as=Table;g=meta.k8s.io;v=v1"}
        found = await self._request("GET", kind.path(namespace), headers=headers)
        columns = [
            (number, column["name"])
            for number, column in enumerate(found["columnDefinitions"])
            if not column["priority"]
        ]
        return [{name: row["cells"][number] for number, name in columns} for row in found["rows"]]

    async def get(self, kind: Kind, namespace: str, name: str) -> Object | None:
        try:
            found: Object = await self._request("GET", kind.path(namespace, name))
        except RefusedError as refused:
            if refused.status == 404:
                return None
            raise
        return found

    async def find_all(self, kind: Kind, namespace: str = "", selector: str = "") -> list[Object]:
        items, _ = await self._list(kind, namespace, {"labelSelector": selector})
        return items

    async def _list(self, kind: Kind, namespace: str, parameters: Mapping[str, str]) -> tuple[list[Object], str]:
        page = await self._request("GET", kind.path(namespace), params=parameters)
        items = [{"apiVersion": kind.api_version, "kind": kind.kind, **item} for item in page["items"]]
        return items, page["metadata"]["resourceVersion"]

    async def create(self, obj: Mapping[str, Any], *, dry_run: bool = False) -> Object:
        path = kind_of(obj).path(obj["metadata"].get("namespace", ""))
        created: Object = await self._request("POST", path, json=obj, params={"dryRun": "All"} if dry_run else {})
        return created

    async def apply(self, obj: Mapping[str, Any], *, dry_run: bool = False) -> Object:
        """As `kubectl apply --server-side` does."""
        path = kind_of(obj).path(obj["metadata"].get("namespace", ""), obj["metadata"]["name"])
        parameters = {"fieldManager": "user", "force": "true", **({"dryRun": "All"} if dry_run else {})}
        headers = {"Content-Type": "application/apply-patch+yaml"}
        applied: Object = await self._request("PATCH", path, data=json.dumps(obj), params=parameters, headers=headers)
        return applied

    async def check(self, manifest: str, namespace: str) -> None:
        """As `kubectl apply --server-side --dry-run=server` does, the YAML as it stands. Raises RefusedError, also for an unknown field."""
        obj = yaml.safe_load(manifest)
        path = kind_of(obj).path(namespace, obj["metadata"]["name"])
        parameters = {"fieldManager": "user", "dryRun": "All", "fieldValidation": "Strict"}
        headers = {"Content-Type": "application/apply-patch+yaml"}
        await self._request("PATCH", path, data=manifest.encode(), params=parameters, headers=headers)

    async def patch(
        self, kind: Kind, namespace: str, name: str, change: Mapping[str, Any], subresource: str = ""
    ) -> Object:
        """A merge patch."""
        headers = {"Content-Type": "application/merge-patch+json"}
        path = kind.path(namespace, name, subresource)
        patched: Object = await self._request("PATCH", path, data=json.dumps(change), headers=headers)
        return patched

    async def post(self, kind: Kind, namespace: str, name: str, subresource: str, body: Mapping[str, Any]) -> Object:
        posted: Object = await self._request("POST", kind.path(namespace, name, subresource), json=body)
        return posted

    async def token(self, namespace: str, service_account: str) -> str:
        """What the kubelet mounts into the pods of a ServiceAccount."""
        request = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"expirationSeconds": 3600},
        }
        answer = await self.post(SERVICE_ACCOUNT, namespace, service_account, "token", request)
        return str(answer["status"]["token"])

    async def delete(
        self, kind: Kind, namespace: str, name: str, *, grace_seconds: int | None = None, policy: str = "Background"
    ) -> None:
        options: Object = {"propagationPolicy": policy}
        if grace_seconds is not None:
            options["gracePeriodSeconds"] = grace_seconds
        try:
            await self._request("DELETE", kind.path(namespace, name), json=options)
        except RefusedError as refused:
            if refused.status != 404:
                raise

    async def _watch(
        self, kind: Kind, namespace: str, parameters: Mapping[str, str], version: str
    ) -> AsyncIterator[Object]:
        query = {**parameters, "watch": "1", "resourceVersion": version, "timeoutSeconds": "120"}
        timeout = aiohttp.ClientTimeout(total=None)
        async with self._session.get(self._server + kind.path(namespace), params=query, timeout=timeout) as response:
            async for line in response.content:
                yield json.loads(line)

    async def until(
        self,
        kind: Kind,
        namespace: str,
        check: Callable[[list[Object]], T | None],
        *,
        name: str = "",
        selector: str = "",
        seconds: float = WAIT_SECONDS,
    ) -> T:
        """The first answer of `check` that is neither None nor False, asked at once and after each change. Raises TimeoutError."""
        parameters = {"labelSelector": selector, **({"fieldSelector": f"metadata.name={name}"} if name else {})}
        async with asyncio.timeout(seconds):
            while True:
                items, version = await self._list(kind, namespace, parameters)
                known = {item["metadata"]["uid"]: item for item in items}
                if (answer := check(list(known.values()))) not in (None, False):
                    return answer
                async for event in self._watch(kind, namespace, parameters, version):
                    if event["type"] == "ERROR":
                        break
                    obj = event["object"]
                    if event["type"] == "DELETED":
                        known.pop(obj["metadata"]["uid"], None)
                    else:
                        known[obj["metadata"]["uid"]] = obj
                    if (answer := check(list(known.values()))) not in (None, False):
                        return answer


@asynccontextmanager
async def client_of(kubeconfig: Path) -> AsyncIterator[Client]:
    """A client with the certificate of the kubeconfig's only user."""
    server, context = server_and_tls(kubeconfig)
    connector = aiohttp.TCPConnector(ssl=context, limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=30)) as session:
        yield Client(session, server)


def server_and_tls(kubeconfig: Path) -> tuple[str, ssl.SSLContext]:
    config = yaml.safe_load(kubeconfig.read_text())
    cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
    context = ssl.create_default_context(cadata=_content(cluster, "certificate-authority").decode())
    certificate = kubeconfig.with_name("test-client.pem")
    certificate.write_bytes(_content(user, "client-certificate") + b"\n" + _content(user, "client-key"))
    context.load_cert_chain(certificate)
    return cluster["server"], context


def _content(entry: Mapping[str, str], field: str) -> bytes:
    """A file that the kubeconfig holds or names."""
    if f"{field}-data" in entry:
        return base64.b64decode(entry[f"{field}-data"])
    return Path(entry[field]).read_bytes()
