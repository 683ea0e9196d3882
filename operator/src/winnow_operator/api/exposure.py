"""What lies around a Deployment's pods when asked for: a budget for disruptions, a network policy, a monitor, ways in from
outside."""

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field, StringConstraints

from .common import ObjectName, Spec
from .placement import LabelSelector, LabelValue, NamespaceName

Portion = int | Annotated[str, StringConstraints(max_length=4, pattern=r"^(100|[0-9]{1,2})%$")]
Cidr = Annotated[str, StringConstraints(max_length=43)]
_HOST = r"^(\*\.)?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
UrlPath = Annotated[str, StringConstraints(max_length=253, pattern=r"^/$|^(/[A-Za-z0-9_.~-]+)+$")]


class DisruptionBudget(Spec):
    """How many pods a drain of nodes may take; a CEL rule allows one of the two."""

    min_available: Portion | None = None
    max_unavailable: Portion | None = None


class IpBlock(Spec):
    """A network without some of its parts."""

    cidr: Cidr
    except_: Annotated[Annotated[tuple[Cidr, ...], Field(max_length=32)] | None, Field(alias="except")] = None


class Peer(Spec):
    """Who may connect."""

    pod_selector: LabelSelector | None = None
    namespace_selector: LabelSelector | None = None
    ip_block: IpBlock | None = None


class NetworkPolicy(Spec):
    """Who may connect; unset: all pods of the namespace."""

    from_: Annotated[Annotated[tuple[Peer, ...], Field(min_length=1, max_length=32)] | None, Field(alias="from")] = None


class ServiceMonitor(Spec):
    """How the Prometheus operator finds it, and how often it asks."""

    labels: Annotated[Mapping[str, LabelValue], Field(max_length=32)] | None = None
    interval: Annotated[str, StringConstraints(max_length=16, pattern=r"^[0-9]+(ms|s|m|h)$")] | None = None


class Monitoring(Spec):
    """What Prometheus is told."""

    service_monitor: ServiceMonitor | None = None


class Ingress(Spec):
    """A way in from outside."""

    class_name: ObjectName | None = None
    host: Annotated[str, StringConstraints(max_length=253, pattern=_HOST)] | None = None
    path: UrlPath = "/"
    tls_secret_name: ObjectName | None = None
    annotations: (
        Annotated[Mapping[str, Annotated[str, StringConstraints(max_length=4096)]], Field(max_length=32)] | None
    ) = None


class ParentRef(Spec):
    """A Gateway, or a listener of it."""

    name: ObjectName
    namespace: NamespaceName | None = None
    section_name: ObjectName | None = None


class HttpRoute(Spec):
    """A way in through a Gateway."""

    parent_refs: Annotated[tuple[ParentRef, ...], Field(min_length=1, max_length=16)]
    hostnames: (
        Annotated[
            tuple[Annotated[str, StringConstraints(min_length=1, max_length=253, pattern=_HOST)], ...],
            Field(max_length=16),
        ]
        | None
    ) = None
    path: UrlPath = "/"
