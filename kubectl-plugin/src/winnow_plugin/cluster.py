"""The API server that the kubeconfig names: lists, watches, the few writes of an upload, and what it refuses in words.
Objects are plain JSON."""

from __future__ import annotations

import json
import os
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from ssl import SSLError
from typing import Any, cast
from urllib.parse import quote, urlsplit

import aiohttp
from kubernetes.aio import config
from kubernetes.aio.client.api_client import ApiClient
from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.client.rest import RESTResponse
from kubernetes.aio.config.kube_config import KubeConfigLoader, KubeConfigMerger
from yaml import YAMLError

from winnow_classifier.errors import ConfigError
from winnow_plugin import login
from winnow_plugin.errors import ClusterError, SignedOut, Unreachable
from winnow_plugin.objects import API_VERSION, DATASET, KINDS, Kind, Object, name_of
from winnow_plugin.proxy import proxy_of

PAGE = 500  # objects, as kubectl asks for them
TIMEOUT = aiohttp.ClientTimeout(total=30, connect=5)
WATCH_SECONDS = 120  # then the server ends a watch, and it goes on where it ended
# A lost network says nothing, so a watch is taken for dead once it is silent for longer than it may last.
WATCH_TIMEOUT = aiohttp.ClientTimeout(total=None, connect=5, sock_read=WATCH_SECONDS + 15)
SHORTEST_WATCH_SECONDS = 1.0  # a watch that ends sooner was cut by a proxy in between that does not pass watches on
POD_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
CHECK_CONFIG = "kubectl config view shows what kubectl makes of it"
INSTALL = "install the chart: make install in a clone of Winnow, or helm install winnow helm/winnow"


class ExpiredError(Exception):
    """The server has forgotten where the watch stood: list again."""


@dataclass(frozen=True, slots=True)
class Place:
    """Which cluster, as kubectl's options of the same names say it; None: as the kubeconfig has it."""

    kubeconfig: Path | None = None
    context: str | None = None
    namespace: str | None = None
    all_namespaces: bool = False

    @property
    def kubectl_options(self) -> list[str]:
        """For kubectl itself, where it is run; the namespace is that of what it is asked about."""
        found = ["--kubeconfig", str(self.kubeconfig)] if self.kubeconfig else []
        return [*found, "--context", self.context] if self.context else found


@dataclass(frozen=True, slots=True)
class Change:
    kind: Kind
    object: Object
    deleted: bool


class Cluster:
    def __init__(self, client: ApiClient, namespace: str | None) -> None:
        self._client = client
        self.namespace = namespace  # None: all

    @property
    def server(self) -> str:
        return str(self._client.configuration.host)

    async def get(self, kind: Kind, name: str) -> Object:
        """Raises ClusterError."""
        if (found := await self.find(kind, name)) is None:
            tool = "winnow" if kind == DATASET else "get"
            hint = f"kubectl {tool} {kind.plural} --all-namespaces lists those that exist"
            raise ClusterError(f'there is no {kind.name} "{name}" in the namespace {self.namespace}', hint)
        return found

    async def find(self, kind: Kind, name: str) -> Object | None:
        """None where there is none of that name. Raises ClusterError."""
        if not name:  # without one the path is that of all
            raise ConfigError(f"the name of the {kind.name} is empty", hint=f"kubectl get {kind.plural} lists them")
        response = await self._request(kind.path(self.namespace, name), {}, TIMEOUT)
        if response.status == 404 and _said(await response.read()).get("kind") == "Status":
            return None
        return await self._content(kind, response)

    async def create(self, kind: Kind, obj: Object) -> Object:
        """Raises ClusterError."""
        response = await self._request(kind.path(self.namespace), {}, TIMEOUT, "POST", obj)
        return await self._content(kind, response, "create")

    async def delete(self, kind: Kind, obj: Object) -> None:
        """This very object, not another that took its name. Gone already is good, too. Raises ClusterError."""
        only = {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": obj["metadata"]["uid"]}}
        path = kind.path(self.namespace, name_of(obj))
        response = await self._request(path, {}, TIMEOUT, "DELETE", only)
        if response.status not in (404, 409):
            await self._content(kind, response, "delete")

    async def list(self, kind: Kind, selector: str = "") -> tuple[list[Object], str]:
        """All objects, and where to watch from. Raises ClusterError."""
        found: list[Object] = []
        query = {"limit": str(PAGE), **({"labelSelector": selector} if selector else {})}
        while True:
            response = await self._request(kind.path(self.namespace), query, TIMEOUT)
            page = await self._content(kind, response)
            # Items of a list carry no type of their own.
            found += ({"apiVersion": page["apiVersion"], "kind": kind.name, **item} for item in page.get("items") or [])
            if not (more := page["metadata"].get("continue")):
                return found, page["metadata"]["resourceVersion"]
            query["continue"] = more

    async def watch(self, kind: Kind, version: str) -> AsyncIterator[Change]:
        """Changes after that version, for ever. Raises ExpiredError, ClusterError."""
        while True:
            query = {
                "watch": "1",
                "resourceVersion": version,
                "allowWatchBookmarks": "true",
                "timeoutSeconds": str(WATCH_SECONDS),
            }
            started = time.monotonic()
            response = await self._request(kind.path(self.namespace), query, WATCH_TIMEOUT)
            try:
                if response.status == 410:
                    raise ExpiredError
                if response.status >= 400:
                    await self._content(kind, response)
                async for line in _lines(response):
                    event = self._object(line, "object")
                    obj: Object = event["object"]
                    if event["type"] == "ERROR":
                        if obj.get("code") == 410:
                            raise ExpiredError
                        raise Unreachable(f"the watch of {kind.plural} ended: {obj.get('message', 'without a word')}")
                    version = obj["metadata"]["resourceVersion"]
                    if event["type"] != "BOOKMARK":
                        yield Change(kind, obj, deleted=event["type"] == "DELETED")
            except (TimeoutError, aiohttp.ClientError, OSError) as err:
                raise self._unreachable(err) from err
            finally:
                response.response.close()
            if time.monotonic() - started < SHORTEST_WATCH_SECONDS:
                raise Unreachable(f"the cluster at {self.server} ended a watch of {kind.plural} at once")

    async def _request(
        self,
        path: str,
        query: Mapping[str, str],
        timeout: aiohttp.ClientTimeout,
        method: str = "GET",
        body: Object | None = None,
    ) -> RESTResponse:
        headers = {"Accept": "application/json", **({"Content-Type": "application/json"} if body else {})}
        try:
            prepared = await self._client.param_serialize(
                method,
                path,
                query_params=list(query.items()),
                header_params=headers,
                body=body,
                auth_settings=["BearerToken"],
            )
            return await self._client.call_api(*prepared, _request_timeout=timeout)
        except (TimeoutError, aiohttp.ClientError, OSError) as err:
            raise self._unreachable(err) from err

    async def _content(self, kind: Kind, response: RESTResponse, verb: str = "read") -> dict[str, Any]:
        try:
            content = await response.read()
        except (TimeoutError, aiohttp.ClientError, OSError) as err:
            raise self._unreachable(err) from err
        if response.status >= 400:
            raise self._refusal(kind, response.status, _said(content), verb)
        return self._object(content, "kind")

    def _object(self, content: bytes, has: str) -> dict[str, Any]:
        """JSON with such a field. A log-in page, as a proxy puts it in between, has status 200 too."""
        try:
            found = json.loads(content)
        except ValueError:
            found = None
        if not isinstance(found, dict) or has not in found:
            raise ClusterError(
                f"what answers at {self.server} is no API server: {content[:60].decode(errors='replace').strip()!r}",
                hint="a proxy may want you to log in first; check the server in kubectl config view",
            )
        return cast(dict[str, Any], found)

    def _unreachable(self, err: BaseException) -> Unreachable:
        why = str(err) or type(err).__name__
        return Unreachable(
            f"the cluster at {self.server} cannot be reached: {why}",
            hint="is it up, and is this the right --context? kubectl cluster-info tells the same story",
        )

    def _refusal(self, kind: Kind, status: int, said: Mapping[str, Any], verb: str) -> ClusterError:
        message = said.get("message") or f"HTTP {status}"
        where = f"in the namespace {self.namespace}" if self.namespace is not None else "in all namespaces"
        if status == 401:
            return SignedOut(
                f"the cluster at {self.server} does not know you: {message}",
                hint="renew the credentials in your kubeconfig, or choose another --context",
            )
        if status == 403:
            flag = f"-n {self.namespace}" if self.namespace is not None else "-A"
            what = f"{kind.plural}.winnow.dev" if kind in KINDS else kind.plural
            needed, asked = ("get, list and watch are", "list") if verb == "read" else (f"{verb} is", verb)
            return ClusterError(
                f"you may not {verb} {what} {where}: {message}",
                hint=f"{needed} needed; ask whoever grants rights in this cluster, and check with "
                f"kubectl auth can-i {asked} {what} {flag}",
            )
        if status == 404:
            return ClusterError(
                f"Winnow is not installed in the cluster at {self.server}: it does not know {kind.plural} of "
                f"{API_VERSION}",
                hint=INSTALL,
            )
        if status in (410, 429) or status >= 500:  # 410: a page of a list came too late
            return Unreachable(f"the cluster at {self.server} cannot answer now: {message}", hint="try again")
        refused = f"refused to tell its {kind.plural}" if verb == "read" else f"refused to {verb} the {kind.name}"
        return ClusterError(f"the cluster at {self.server} {refused}: {message}")


def _said(content: bytes) -> Mapping[str, Any]:
    """A Status of the API server; a proxy in between may say anything."""
    try:
        said = json.loads(content)
    except ValueError:
        return {"message": content[:200].decode(errors="replace").strip()}
    return said if isinstance(said, dict) else {}


async def _lines(response: RESTResponse) -> AsyncIterator[bytes]:
    """The lines of an answer. Not by aiohttp's readline, whose limit an object with inline rows exceeds."""
    rest = b""
    async for part in response.response.content.iter_any():
        *lines, rest = (rest + part).split(b"\n")
        for line in lines:
            if line.strip():
                yield line


@asynccontextmanager
async def connected(place: Place) -> AsyncIterator[Cluster]:
    """Raises ConfigError where the kubeconfig cannot be used."""
    configuration = Configuration()
    # Python 3.13 wants of a CA's certificate what that of many clusters lacks, EKS among them (VERIFY_X509_STRICT); kubectl does not.
    configuration.disable_strict_ssl_verification = True
    named = await _configure(configuration, place)
    try:
        client = ApiClient(configuration)
    except SSLError as err:
        raise ConfigError(
            f"the certificates or the key in the kubeconfig {_kubeconfig(place)} cannot be used: {err}",
            hint=CHECK_CONFIG,
        ) from err
    try:
        yield Cluster(client, None if place.all_namespaces else place.namespace or named)
    finally:
        await client.close()


async def _configure(configuration: Configuration, place: Place) -> str:
    """Server and credentials; returns the namespace that the context names."""
    if (files := _kubeconfig(place)) is None:
        config.load_incluster_config(client_configuration=configuration)
        _as_kubectl_connects(configuration, [])
        return _pods_namespace()
    try:
        merged = KubeConfigMerger(os.pathsep.join(filter(_says_something, files.split(os.pathsep))) or files)
        context = place.context or _current_context(merged)
        if context is None:
            raise ConfigError(
                f"the kubeconfig {files} cannot be used: none of its contexts is the current one",
                hint="kubectl config get-contexts lists them; name one by --context, or kubectl config use-context",
            )
        loader = _Loader(merged.config, context, config_base_path=None)  # type: ignore[no-untyped-call]
        await loader.load_and_set(configuration)  # type: ignore[no-untyped-call]
        _as_kubectl_connects(configuration, loader.impersonation())
        namespace = str(loader.current_context["context"].get("namespace") or "default")
    except config.ConfigException as err:
        if place.context and f"name {place.context} in" in str(err) and "contexts" in str(err):
            raise ConfigError(
                f'there is no context "{place.context}" in {files}', hint="kubectl config get-contexts lists them"
            ) from err
        raise ConfigError(f"the kubeconfig {files} cannot be used: {err}", hint=CHECK_CONFIG) from err
    except (OSError, YAMLError) as err:
        why = err.strerror if isinstance(err, OSError) and err.strerror else err
        raise ConfigError(f"the kubeconfig {files} cannot be read: {why}", hint=CHECK_CONFIG) from err
    except (TypeError, AttributeError, LookupError, ValueError) as err:
        # The client expects a valid file, and fails on an empty one such as /dev/null.
        raise ConfigError(
            f"the kubeconfig {files} cannot be used: it is empty, or something else than a kubeconfig",
            hint=CHECK_CONFIG,
        ) from err
    if token := configuration.api_key.get("BearerToken"):
        configuration.api_key["BearerToken"] = token.strip()  # a tokenFile mostly ends in a newline
    return namespace


class _Loader(KubeConfigLoader):
    """What the client leaves out of a kubeconfig's user."""

    async def load_from_exec_plugin(self) -> None:
        """Put what the log-in program gives into the kubeconfig's user, where the client reads it afterwards."""
        assert self._user is not None and self._cluster is not None  # the client asks only where there are both
        user: Object = self._user.value
        folder = Path(self._user.path).parent
        user.update(await login.credentials(user["exec"], self._cluster.value, folder))

    def impersonation(self) -> list[tuple[str, str]]:
        """The headers by which the cluster acts as for the user, group and uid that the kubeconfig names (`as`, …)."""
        user = self._user.value if self._user else {}
        more = [("Impersonate-Uid", user["as-uid"])] if user.get("as-uid") else []
        more += [("Impersonate-Group", group) for group in user.get("as-groups") or ()]
        for key, values in (user.get("as-user-extra") or {}).items():
            more += [(f"Impersonate-Extra-{quote(key, safe='')}", value) for value in values]
        if more and not user.get("as"):
            raise ConfigError("the kubeconfig names groups to act for, and no user (as)", hint=CHECK_CONFIG)
        return [("Impersonate-User", user["as"]), *more] if user.get("as") else []


def _as_kubectl_connects(configuration: Configuration, headers: list[tuple[str, str]]) -> None:
    named = configuration.host
    if "://" not in named:
        configuration.host = f"http://{named}"
    if not _is_address(configuration.host):
        raise ConfigError(
            f"the kubeconfig names a server that cannot be asked: {named!r} is no address such as https://10.0.0.1:6443",
            hint=CHECK_CONFIG,
        )
    if not configuration.proxy:
        configuration.proxy = proxy_of(configuration.host, os.environ)
    if configuration.proxy and urlsplit(configuration.proxy).scheme not in ("http", "https"):
        raise ConfigError(
            f"the plugin cannot go through the proxy {configuration.proxy.rpartition('@')[2]}: it knows those of http:// and https://",
            hint="kubectl proxy goes through it: run that, and give a kubeconfig with its address as the server",
        )
    # aiohttp shall not read the environment itself: it knows no CIDR in NO_PROXY, and would send a password of ~/.netrc in
    # place of the token.
    configuration.client_session_kwargs = {"trust_env": False, "headers": headers}


def _is_address(url: str) -> bool:
    parts = urlsplit(url)
    try:
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # of a port that is no number
        return False


def _says_something(file: str) -> bool:
    """False for an empty file, as `touch` leaves it, and for an empty name: both are left out of several."""
    path = Path(file).expanduser()
    return bool(file) and (not path.exists() or bool(path.read_bytes().strip()))


def _current_context(merged: KubeConfigMerger) -> str | None:
    """Of several files the first that names one: the client takes the last one, and so another cluster than kubectl."""
    named = (content.get("current-context") for content in merged.config_files.values())
    return next(filter(None, named), None)


def _kubeconfig(place: Place) -> str | None:
    """One file or several, as in KUBECONFIG; None in a pod that has none. Raises ConfigError."""
    files = str(place.kubeconfig) if place.kubeconfig else os.environ.get("KUBECONFIG") or "~/.kube/config"
    if any(Path(file).expanduser().exists() for file in files.split(os.pathsep) if file):
        return files
    if place.kubeconfig is None and place.context is None and POD_NAMESPACE.exists():
        return None
    raise ConfigError(f"there is no kubeconfig at {files}", hint="name one by --kubeconfig, or export KUBECONFIG=…")


def _pods_namespace() -> str:
    return POD_NAMESPACE.read_text(encoding="utf-8").strip()
