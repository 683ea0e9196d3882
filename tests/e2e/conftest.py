"""A namespace of its own for each end-to-end test."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from e2e_support import ROOT, S3_IMAGE, Cluster, local_cluster
from page_support import CHROMIUM, DESKTOP, PHONE
from selenium.webdriver import ChromeOptions, ChromeService
from selenium.webdriver.chrome.webdriver import WebDriver


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
    local_cluster("image", "--name", S3_IMAGE, "--context", str(context))


@pytest.fixture(params=[pytest.param(DESKTOP, id="desktop"), pytest.param(PHONE, id="phone")])
def browser(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[WebDriver]:
    width, height = request.param
    options = ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    for flag in [*CHROMIUM, f"--user-data-dir={tmp_path / 'profile'}", f"--window-size={width},{height}"]:
        options.add_argument(flag)
    if request.param == PHONE:
        metrics = {"width": width, "height": height, "pixelRatio": 2, "touch": True}
        options.add_experimental_option("mobileEmulation", {"deviceMetrics": metrics})
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    driver = WebDriver(options=options, service=ChromeService("/usr/bin/chromedriver"))
    yield driver
    driver.quit()
