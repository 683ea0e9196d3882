"""The test page in a real browser: a text typed, bars seen, an error in words, no request to another host.

Against a server of its own on this machine, or against the one at WINNOW_URL (a Service's address, http://…).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from page_support import keep, one, requested_hosts, served, wait, wait_for_text
from selenium.webdriver.chrome.webdriver import WebDriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where the server is, without a path."""
    if url := os.environ.get("WINNOW_URL"):
        yield url.rstrip("/")
        return
    with served(tmp_path_factory.mktemp("page")) as url:
        yield url


def test_a_text_is_typed_and_its_bars_are_seen(
    browser: WebDriver, address: str, request: pytest.FixtureRequest
) -> None:
    browser.get(f"{address}/")
    assert browser.current_url == f"{address}/ui/"
    assert "epoch" in wait(browser, "#about").text
    assert one(browser, "#model-name").text != "Classifier"
    one(browser, "#text").send_keys("win free money now")
    one(browser, "#classify").click()
    wait(browser, "#facts")
    bars = browser.find_elements(By.CSS_SELECTOR, "#bars .bar")
    shares = [float(re.sub(r"[^\d.]", "", bar.find_element(By.CSS_SELECTOR, ".percent").text)) for bar in bars]
    widths = [bar.find_element(By.CSS_SELECTOR, ".value").rect["width"] for bar in bars]
    assert len(bars) >= 2
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) == pytest.approx(100, abs=0.3)
    assert widths[0] > widths[-1] > 0
    assert one(browser, ".chip").text == bars[0].find_element(By.CSS_SELECTOR, ".name").text
    assert "tokens" in one(browser, "#facts").text
    width = browser.execute_script("return document.documentElement.scrollWidth - window.innerWidth")
    assert width <= 0, "the page scrolls sideways"
    keep(browser, "result", request)
    assert requested_hosts(browser) == {urlsplit(address).netloc}
    log = browser.get_log("browser")
    assert [entry for entry in log if entry["level"] == "SEVERE"] == []


def test_the_keyboard_is_enough_and_earlier_texts_come_back(browser: WebDriver, address: str) -> None:
    browser.get(f"{address}/ui/")
    text = one(browser, "#text")
    for words in ("meeting on monday", "claim a prize"):
        text.clear()
        text.send_keys(words, Keys.CONTROL, Keys.ENTER)
        wait_for_text(browser, "#earlier", words)
    rows = browser.find_elements(By.CSS_SELECTOR, "#earlier .row")
    assert len(rows) == 2
    rows[1].send_keys(Keys.ENTER)
    assert text.get_attribute("value") == "meeting on monday"


def test_a_long_text_is_said_to_be_cut(browser: WebDriver, address: str) -> None:
    browser.get(f"{address}/ui/")
    browser.execute_script("document.getElementById('text').value = 'meeting on monday '.repeat(400)")
    one(browser, "#text").send_keys(Keys.CONTROL, Keys.ENTER)
    words = wait(browser, "#truncation").text
    assert re.fullmatch(r"The text was cut: the model read \d+ of [\d,]+ tokens\.", words)  # the last ones, with Left


def test_errors_are_said_in_words(browser: WebDriver, address: str, request: pytest.FixtureRequest) -> None:
    browser.get(f"{address}/ui/")
    one(browser, "#classify").click()
    error = wait(browser, "#error")
    assert error.get_attribute("role") == "alert"
    assert error.text == "Write or paste a text first."
    browser.execute_script("document.getElementById('text').value = 'x'.repeat(3 * 1024 * 1024)")
    one(browser, "#text").send_keys(Keys.CONTROL, Keys.ENTER)
    wait_for_text(browser, "#error", "larger than")
    browser.execute_script("document.getElementById('text').value = 'x'.repeat(300_000)")
    one(browser, "#text").send_keys(Keys.CONTROL, Keys.ENTER)
    wait_for_text(browser, "#error", "The text has 300000 characters")
    assert not one(browser, "#result").is_displayed()
    keep(browser, "error", request)


def test_a_key_is_asked_for_where_one_is_needed(
    browser: WebDriver, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    keys = tmp_path / "keys"
    keys.mkdir()
    (keys / "alice").write_text("a-key-of-some-length-1234")
    with served(tmp_path, "--api-keys", str(keys)) as address:
        browser.get(f"{address}/ui/")
        assert wait(browser, "#key-error").text == "This model answers with an API key only."
        keep(browser, "key", request)
        one(browser, "#pasted").send_keys("prize")
        one(browser, "#score").click()
        WebDriverWait(browser, 20).until(lambda _: one(browser, "#score").is_displayed())
        one(browser, "#key").send_keys("another-key-of-some-length", Keys.ENTER)
        wait_for_text(browser, "#key-error", "not one of this server's")
        one(browser, "#key").clear()
        one(browser, "#key").send_keys("schlüssel-of-some-length", Keys.ENTER)
        wait_for_text(browser, "#key-error", "printable ASCII")
        one(browser, "#key").clear()
        one(browser, "#key").send_keys("a-key-of-some-length-1234", Keys.ENTER)
        wait(browser, "#about")
        assert not one(browser, "#batch-error").is_displayed()
        one(browser, "#text").send_keys("free prize", Keys.CONTROL + Keys.ENTER)
        wait(browser, "#bars")
        assert not one(browser, "#access").is_displayed()


def test_the_api_is_told_on_a_page_that_needs_no_other_host(
    browser: WebDriver, address: str, request: pytest.FixtureRequest
) -> None:
    browser.get(f"{address}/docs/")
    wait(browser, "details summary")
    first = one(browser, "details")
    first.find_element(By.CSS_SELECTOR, "summary").click()
    assert "/v1/classify" in first.text and "ClassifyRequest" in first.text
    assert "thresholds (query)" in str(one(browser, "main").get_property("textContent"))
    keep(browser, "api", request)
    assert requested_hosts(browser) == {urlsplit(address).netloc}
