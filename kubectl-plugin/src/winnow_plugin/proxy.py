"""Which proxy leads to a server, by the environment as Go reads it, and so kubectl: golang.org/x/net/http/httpproxy."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from urllib.parse import urlsplit

PORTS = {"http": 80, "https": 443}


def proxy_of(server: str, environment: Mapping[str, str]) -> str | None:
    """None: straight there."""
    url = urlsplit(server)
    proxy = _given(environment, f"{url.scheme}_proxy")
    port = url.port or PORTS[url.scheme]
    if not proxy or not url.hostname or _straight(url.hostname, port, _given(environment, "no_proxy")):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def _given(environment: Mapping[str, str], name: str) -> str:
    return environment.get(name.upper()) or environment.get(name, "")


def _straight(host: str, port: int, no_proxy: str) -> bool:
    address = _address(host)
    if host == "localhost" or (address and address.is_loopback):
        return True
    for entry in filter(None, (part.strip().lower() for part in no_proxy.split(","))):
        if entry == "*":
            return True
        if "/" in entry:
            if address and _within(address, entry):
                return True
            continue
        name, only = _split(entry)
        if only not in (None, port):
            continue
        if address and address == _address(name):
            return True
        # .example.com and *.example.com are those below it; example.com is itself, too.
        if name == host or host.endswith(name.removeprefix("*") if name.startswith(("*.", ".")) else f".{name}"):
            return True
    return False


def _split(entry: str) -> tuple[str, int | None]:
    """Name and port; an IPv6 address with a port stands in brackets."""
    if match := re.fullmatch(r"(\[.*\]|[^:]*):(\d+)", entry):
        return match[1].strip("[]"), int(match[2])
    return entry, None


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _within(address: ipaddress.IPv4Address | ipaddress.IPv6Address, network: str) -> bool:
    try:
        return address in ipaddress.ip_network(network, strict=False)
    except ValueError:
        return False
