"""The test page in a real browser: servers of tiny checkpoints, and what is looked for on the page.

Screenshots are kept in .local/screenshots.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
from selenium.webdriver.chrome.webdriver import WebDriver
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait
from server_program import logged, started

if TYPE_CHECKING:
    from winnow_classifier.decision import Decision

ROOT = Path(__file__).resolve().parents[2]
SCREENSHOTS = ROOT / ".local" / "screenshots"
CHROMIUM = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
DESKTOP, PHONE = (1200, 1000), (390, 844)


@contextmanager
def served(folder: Path, *options: str, decision: Decision | None = None, **checkpoint: Any) -> Iterator[str]:
    """The address of a server of a tiny checkpoint, without a path."""
    from tiny_server import publish  # needs torch, which a WINNOW_URL spares

    from winnow_classifier import decision as decisions

    published = publish(folder, **checkpoint)
    if decision is not None:
        decisions.replace_file(published, decision)
    with started("--checkpoint", published, "--drain-seconds", "0", *options) as process:
        port = logged(process, "Listening")["port"]
        logged(process, "Ready")
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.communicate(timeout=60)


def one(browser: WebDriver, selector: str) -> WebElement:
    return browser.find_element(By.CSS_SELECTOR, selector)


def wait(browser: WebDriver, selector: str) -> WebElement:
    """The element once it is shown and says something."""

    def shown(driver: WebDriver) -> WebElement | None:
        found = [element for element in driver.find_elements(By.CSS_SELECTOR, selector) if element.is_displayed()]
        return found[0] if found and found[0].text else None

    element = WebDriverWait(browser, 20).until(shown)
    assert element is not None
    return element


def wait_for_text(browser: WebDriver, selector: str, words: str) -> None:
    WebDriverWait(browser, 20).until(lambda driver: words in one(driver, selector).text)


def darken(browser: WebDriver) -> None:
    features = [{"name": "prefers-color-scheme", "value": "dark"}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def requested_hosts(browser: WebDriver) -> set[str]:
    """Every host and port that the page asked for anything."""
    entries = (json.loads(entry["message"])["message"] for entry in browser.get_log("performance"))
    urls = (e["params"]["request"]["url"] for e in entries if e["method"] == "Network.requestWillBeSent")
    return {urlsplit(url).netloc for url in urls if url.startswith(("http:", "https:"))}


def keep(browser: WebDriver, name: str, request: pytest.FixtureRequest) -> None:
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    browser.save_screenshot(str(SCREENSHOTS / f"{name}-{request.node.callspec.id}.png"))
