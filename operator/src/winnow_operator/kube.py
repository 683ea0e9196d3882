"""The API server over `kubernetes.aio`: typed errors, time-outs and plain JSON. Nothing here decides anything.

The package's model classes stay unloaded: the objects are dicts, so the client's transport, credentials and TLS are all that
is used of it.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import AsyncIterator
from typing import Any, Literal, cast
from urllib.parse import quote

import aiohttp
from kubernetes.aio import config
from kubernetes.aio.client.api_client import ApiClient
from kubernetes.aio.client.configuration import Configuration

from winnow_operator.metrics import Metrics
from winnow_operator.resources import TOLD, Object, Resource

TIMEOUT = aiohttp.ClientTimeout(total=15, connect=5)
CHUNK = 500  # objects a page of a list
PATCH_TYPES = {"apply": "application/apply-patch+yaml", "merge": "application/merge-patch+json"}
METADATA_ONLY = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"


class ApiError(Exception):
    """The API server said no. `status` is HTTP's, 0 when it could not be reached."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status, self.reason, self.message = status, reason, message

    @property
    def transient(self) -> bool:
        """Whether the same request may succeed later."""
        return self.status in (0, 408, 409, 410, 429) or self.status >= 500


class Kube:
    def __init__(self, client: ApiClient, metrics: Metrics) -> None:
        self._client = client
        self._metrics = metrics

    async def close(self) -> None:
        await self._client.close()

    async def get(self, resource: Resource, namespace: str, name: str, *, metadata_only: bool = False) -> Object | None:
        """None where there is no such object."""
        accept = METADATA_ONLY if metadata_only else "application/json"
        try:
            return await self.request("GET", _path(resource, namespace, name), accept=accept)
        except ApiError as err:
            if err.status == 404:
                return None
            raise

    async def list(self, resource: Resource) -> AsyncIterator[Object]:
        """All objects of the resource that its selector picks, in pages."""
        query = {"limit": str(CHUNK), **({"labelSelector": resource.selector} if resource.selector else {})}
        while True:
            page = await self.request("GET", _path(resource), query)
            for item in page.get("items") or []:
                # Items of a list carry no type of their own.
                yield {"apiVersion": resource.api_version, "kind": resource.kind, **item}
            more = (page.get("metadata") or {}).get("continue")
            if not more:
                return
            query["continue"] = more

    async def events(self, namespace: str, uid: str, reason: str) -> tuple[Object, ...]:
        """About one object. They are few: what happens again counts up."""
        query = {"fieldSelector": f"involvedObject.uid={uid},reason={reason}"}
        page = await self.request("GET", _path(TOLD, namespace), query)
        return tuple(page.get("items") or ())

    async def create(self, resource: Resource, obj: Object, field_manager: str = "winnow") -> Object:
        path = _path(resource, obj["metadata"].get("namespace", ""))
        return await self.request("POST", path, {"fieldManager": field_manager}, obj)

    async def replace(self, resource: Resource, obj: Object, field_manager: str = "winnow") -> Object:
        path = _path(resource, obj["metadata"].get("namespace", ""), obj["metadata"]["name"])
        return await self.request("PUT", path, {"fieldManager": field_manager}, obj)

    async def apply(self, resource: Resource, obj: Object, field_manager: str) -> Object:
        """Server-side apply. Conflicts are ours to win: the caller has made sure that the object is."""
        path = _path(resource, obj["metadata"].get("namespace", ""), obj["metadata"]["name"])
        query = {"fieldManager": field_manager, "force": "true"}
        return await self.request("PATCH", path, query, obj, patch="apply")

    async def patch(self, resource: Resource, namespace: str, name: str, patch: Object, field_manager: str) -> Object:
        path = _path(resource, namespace, name)
        return await self.request("PATCH", path, {"fieldManager": field_manager}, patch, patch="merge")

    async def patch_status(
        self, resource: Resource, namespace: str, name: str, patch: Object, field_manager: str
    ) -> Object:
        path = _path(resource, namespace, name) + "/status"
        return await self.request("PATCH", path, {"fieldManager": field_manager}, patch, patch="merge")

    async def delete(self, resource: Resource, obj: Object) -> Object:
        """This very object, as it was seen; its dependents go first."""
        metadata = obj["metadata"]
        options = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "propagationPolicy": "Foreground",
            "preconditions": {"uid": metadata["uid"], "resourceVersion": metadata["resourceVersion"]},
        }
        path = _path(resource, metadata.get("namespace", ""), metadata["name"])
        return await self.request("DELETE", path, body=options)

    async def request(
        self,
        method: str,
        path: str,
        query: dict[str, str] | None = None,
        body: Object | None = None,
        *,
        patch: Literal["apply", "merge"] | None = None,
        accept: str = "application/json",
    ) -> Object:
        """The answer as JSON. Raises ApiError, also when nothing answers."""
        headers = {"Accept": accept, "Content-Type": PATCH_TYPES[patch] if patch else "application/json"}
        started, code = time.monotonic(), "0"
        try:
            prepared = await self._client.param_serialize(
                method,
                path,
                query_params=list((query or {}).items()),
                header_params=headers,
                body=body,
                auth_settings=["BearerToken"],
            )
            response = await self._client.call_api(*prepared, _request_timeout=TIMEOUT)
            content = await response.read()
            code = str(response.status)
        except (TimeoutError, aiohttp.ClientError, OSError) as err:
            raise ApiError(0, "Unreachable", f"{method} {path}: {type(err).__name__} {err}") from err
        finally:
            self._metrics.api_requests.labels(method, code).inc()
            self._metrics.api_seconds.labels(method).observe(time.monotonic() - started)
        if response.status >= 400:
            raise _error(response.status, content)
        return cast(Object, json.loads(content))


def _error(status: int, content: bytes) -> ApiError:
    try:
        said: dict[str, Any] = json.loads(content)
    except ValueError:
        said = {}
    message = said.get("message") or content[:200].decode(errors="replace")
    return ApiError(status, said.get("reason", ""), message)


def _path(resource: Resource, namespace: str = "", name: str = "") -> str:
    parts = ["apis" if resource.group else "api", resource.api_version]
    if namespace and resource.namespaced:
        parts += ["namespaces", quote(namespace)]
    parts += [resource.plural, *([quote(name)] if name else [])]
    return "/" + "/".join(parts)


async def connect(metrics: Metrics) -> Kube:
    """With KUBECONFIG where it is set, else with the pod's service account."""
    configuration = Configuration()
    if files := os.environ.get("KUBECONFIG"):
        await config.load_kube_config(files, client_configuration=configuration)
    else:
        config.load_incluster_config(client_configuration=configuration)
    configuration.connection_pool_maxsize = 32
    # Python 3.13 wants of a CA's certificate what that of many clusters lacks, EKS among them (VERIFY_X509_STRICT); Go does not.
    configuration.disable_strict_ssl_verification = True
    return Kube(ApiClient(configuration), metrics)
