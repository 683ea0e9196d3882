"""The Hub's own client. Where it asks another server than the Hub, it connects to checked addresses only (ADR 51, 97)."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from functools import partial

import httpcore2
import httpx2
from huggingface_hub import HfApi, constants, set_client_factory
from huggingface_hub.utils._http import default_client_factory

from winnow_classifier.addresses import Network, allowed_addresses, first_reached

HUB = "https://huggingface.co"


def client(token: str | None, networks: Iterable[Network]) -> HfApi:
    """Of the server that HF_ENDPOINT names, which is read once in a process. Its calls raise NotPublicError too."""
    if constants.ENDPOINT != HUB:
        constants.HF_HUB_DISABLE_XET = True  # it connects in a way of its own, and to where an answer says
        set_client_factory(partial(_checked, tuple(networks)))
    return HfApi(token=token)


def _checked(networks: tuple[Network, ...]) -> httpx2.Client:
    endpoint = httpx2.URL(constants.ENDPOINT)

    def check(request: httpx2.Request) -> None:
        """Each request, also that of a redirect, and also what a proxy of the environment will connect to."""
        if request.url.origin != endpoint.origin:
            request.headers.pop("authorization", None)  # the library gives it to huggingface.co, too
        with suppress(OSError):  # a name that only the proxy knows; without one the connection will say so
            allowed_addresses(request.url.raw_host.decode(), request.url.port or 0, networks)

    made = default_client_factory()
    made.event_hooks = {"request": [*made.event_hooks["request"], check]}
    made._transport = _Transport(networks)  # proxies stay: those are mounted beside it
    return made


class _Transport(httpx2.HTTPTransport):
    def __init__(self, networks: tuple[Network, ...]) -> None:
        super().__init__()
        self._pool = httpcore2.ConnectionPool(
            ssl_context=httpx2.create_ssl_context(), network_backend=_Backend(networks)
        )


class _Backend(httpcore2.SyncBackend):
    """Resolves a name, and connects to the very address that was checked; a second look-up could answer otherwise."""

    def __init__(self, networks: tuple[Network, ...]) -> None:
        self._networks = networks

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.NetworkStream:
        def connect(address: str) -> httpcore2.NetworkStream:
            return httpcore2.SyncBackend.connect_tcp(self, address, port, timeout, local_address, socket_options)

        try:
            allowed = allowed_addresses(host, port, self._networks)
        except OSError as err:
            raise httpcore2.ConnectError(f"the name {host} cannot be resolved: {err.strerror or err}") from err
        return first_reached(allowed, connect, (httpcore2.ConnectError, httpcore2.ConnectTimeout))
