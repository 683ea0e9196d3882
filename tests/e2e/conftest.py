"""A namespace of its own for each end-to-end test."""

from __future__ import annotations

import os
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from e2e_support import ROOT, S3_IMAGE, Cluster


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """A namespace of its own, gone after the test (left standing with WINNOW_E2E_KEEP=1)."""
    name = f"e2e-{uuid.uuid4().hex[:8]}"
    cluster = Cluster(name)
    cluster.run("create", "namespace", name)
    yield cluster
    if not os.environ.get("WINNOW_E2E_KEEP"):
        cluster.run("delete", "namespace", name, "--wait=false")


@pytest.fixture(scope="session")
def s3_image(tmp_path_factory: pytest.TempPathFactory) -> None:
    context: Path = tmp_path_factory.mktemp("versitygw")
    shutil.copy(ROOT / ".local" / "bin" / "versitygw", context / "versitygw")
    (context / "Dockerfile").write_text("FROM scratch\nCOPY versitygw /versitygw\n")
    command = [str(ROOT / "cluster" / "cluster"), "image", "--name", S3_IMAGE, "--context", str(context)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
