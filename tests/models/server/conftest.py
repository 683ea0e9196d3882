"""One server for the tests that only ask it things."""

import socket

import pytest
import tiny_server

from winnow_server import process


@pytest.fixture(scope="session")
def checkpoint_folder(tmp_path_factory):
    return tiny_server.publish(tmp_path_factory.mktemp("served"))


@pytest.fixture(scope="session")
def server(checkpoint_folder):
    with tiny_server.running(checkpoint_folder) as server:
        yield server


@pytest.fixture
def small_buffers(monkeypatch):
    """Of the kernel, for what servers send: it would hold some megabytes that nobody reads."""

    def listen(*address):
        listener = process.listen(*address)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4_096)
        return listener

    monkeypatch.setattr(tiny_server, "listen", listen)
