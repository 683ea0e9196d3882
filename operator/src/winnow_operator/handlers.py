"""kopf as an event source: each event goes to the inbox, and nowhere else. It never writes, because nothing but on.event is used."""

from __future__ import annotations

import ssl
from typing import Any

import kopf

from winnow_operator.inbox import Inbox
from winnow_operator.resources import GROUP, WATCHED, Resource


def registry(inbox: Inbox) -> kopf.OperatorRegistry:
    found = kopf.OperatorRegistry()
    kopf.on.login(registry=found)(_login)
    for resource in WATCHED:
        _watch(found, inbox, resource)
    return found


def _watch(found: kopf.OperatorRegistry, inbox: Inbox, resource: Resource) -> None:
    @kopf.on.event(resource.group, resource.version, resource.plural, registry=found, id=f"{resource.plural}")
    async def saw(event: Any, **_: Any) -> None:
        typed = {"apiVersion": resource.api_version, "kind": resource.kind}  # items of the first list lack both
        inbox.saw(event["type"], {**event["object"], **typed})


def _login(settings: kopf.OperatorSettings, **_: Any) -> kopf.ConnectionInfo | None:
    """kopf's own readers of credentials, in the order of kube.connect(). Its default would load the whole synchronous client:
    40 MiB."""
    found = kopf.login_with_kubeconfig(settings=settings) or kopf.login_with_service_account(settings=settings)
    return _Connection(**vars(found)) if found else None


class _Connection(kopf.ConnectionInfo):
    """As kube.connect() has it: no stricter with the cluster's certificates than Go."""

    def as_ssl_context(self) -> ssl.SSLContext:
        context = super().as_ssl_context()
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        return context


class _NoDiffs(kopf.DiffBaseStorage):
    """kopf copies each object to compare it with what it handled last. Nobody here asks for the difference, and the copy is
    half of an event's cost."""

    def build(self, *, body: Any, extra_fields: Any = None) -> Any:
        return {}

    def fetch(self, *, body: Any) -> Any:
        return None

    def store(self, *, body: Any, patch: Any, essence: Any) -> None:
        raise NotImplementedError("Only on.event is used, which stores nothing. This is a bug.")


def settings() -> kopf.OperatorSettings:
    """Nothing written ever, fixed kinds, watches that end and begin anew before they can fall silent."""
    chosen = kopf.OperatorSettings()
    # Never written, as there are no handlers that do; yet the names must not collide with another operator's.
    chosen.persistence.finalizer = f"{GROUP}/cleanup"
    chosen.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix=GROUP, v1=False)
    chosen.persistence.diffbase_storage = _NoDiffs()
    chosen.posting.enabled = False
    chosen.scanning.disabled = True
    chosen.watching.chunk_size = 500
    chosen.watching.server_timeout, chosen.watching.client_timeout = 300, 310
    chosen.networking.request_timeout, chosen.networking.connect_timeout = 30, 10
    for resource in WATCHED:
        if resource.selector:
            chosen.watching.label_selectors[resource.group, resource.version, resource.plural] = resource.selector
    return chosen
