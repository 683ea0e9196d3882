"""A namespace of its own for each end-to-end test."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator

import pytest
from e2e_support import Cluster


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """A namespace of its own, gone after the test (left standing with WINNOW_E2E_KEEP=1)."""
    name = f"e2e-{uuid.uuid4().hex[:8]}"
    cluster = Cluster(name)
    cluster.run("create", "namespace", name)
    yield cluster
    if not os.environ.get("WINNOW_E2E_KEEP"):
        cluster.run("delete", "namespace", name, "--wait=false")
