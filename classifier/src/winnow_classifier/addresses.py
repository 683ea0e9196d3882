"""Which addresses may be connected to: public ones, and networks that an administrator allows (ADR 51)."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

Connection = TypeVar("Connection")
Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_NAT64 = ipaddress.ip_network("64:ff9b::/96")
ALLOWING = (
    "an administrator may allow its network by the chart's value fetch.allowedNetworks, a command by --allow-network"
)


class NotPublicError(Exception):
    """Its text names the address and is the beginning of a sentence."""


def is_allowed(address: Address, networks: Iterable[Network] = ()) -> bool:
    """Public, or in one of the networks. An IPv4 address within an IPv6 one is judged as what it leads to."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo or (None, None))[1]
        if address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return is_allowed(inner, networks)
    if any(address in network for network in networks):
        return True
    return address.is_global and not address.is_multicast


def allowed_addresses(host: str, port: int, networks: Iterable[Network]) -> list[str]:
    """Where a connection to the host may go. Whoever connects takes one of these and does not resolve the name again: a
    second look-up could answer otherwise. Raises OSError if the name has no address, NotPublicError if none is allowed.
    """
    networks = tuple(networks)
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    allowed = [text for text in addresses if is_allowed(ipaddress.ip_address(text), networks)]
    if not allowed:
        raise NotPublicError(
            f"{host} has the address {addresses[0]}" if addresses[0] != host else f"the address {host}"
        )
    return allowed


def first_reached(
    addresses: Sequence[str], connect: Callable[[str], Connection], unreachable: tuple[type[Exception], ...]
) -> Connection:
    """Try the addresses in order: what `connect` returns for the first that can be reached. An exception of the types
    `unreachable` leads to the next address; the last address's is raised, as is any other."""
    for address in addresses[:-1]:
        try:
            return connect(address)
        except unreachable:
            continue
    return connect(addresses[-1])


def network(text: str) -> Network:
    """The network that a command line names, also by an address within it. Raises ValueError in words."""
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError as err:
        raise ValueError(f"{text!r} is no network such as 10.20.0.0/16: {err}") from err
