"""One server for the tests that only ask it things."""

import pytest
import tiny_server


@pytest.fixture(scope="session")
def checkpoint_folder(tmp_path_factory):
    return tiny_server.publish(tmp_path_factory.mktemp("served"))


@pytest.fixture(scope="session")
def server(checkpoint_folder):
    with tiny_server.running(checkpoint_folder) as server:
        yield server
