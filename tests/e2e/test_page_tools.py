"""What the test page does beyond one text: rows of the test set, thresholds tried out, a CSV scored, code to copy."""

from __future__ import annotations

import csv
import http.client
import http.server
import json
import os
import re
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from page_support import darken, keep, one, requested_hosts, served, wait, wait_for_text
from selenium.webdriver.chrome.webdriver import WebDriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select, WebDriverWait

from winnow_classifier.decision import Abstain, Calibration, Decision
from winnow_classifier.labels import TaskDetail

LABELS = ("invoice", "complaint", "question", "thanks")
KEY = "a-key-of-some-length-1234"
PREFIX = "/api/v1/namespaces/demo/services/email:80/proxy"


def row(text: str, expected: str, predicted: str) -> str:
    return json.dumps(
        {"input": text, "expected": {one: int(one == expected) for one in LABELS}, "predicted": [predicted]}
    )


ROWS = "\n".join(
    [
        row("win free money now", "complaint", "complaint"),
        row("notes and agenda for the budget review on monday", "question", "question"),
        row("thanks see you at lunch", "thanks", "question"),
    ]
)
CHECKPOINT: dict[str, Any] = {
    "task_detail": TaskDetail.MULTILABEL,
    "labels": LABELS,
    "artifacts": {"predictions.jsonl": ROWS.encode()},
}


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with served(tmp_path_factory.mktemp("tools"), **CHECKPOINT) as url:
        yield url


def ask(address: str, text: str) -> dict[str, Any]:
    body = json.dumps({"input": text}).encode()
    with urllib.request.urlopen(urllib.request.Request(f"{address}/v1/classify", body)) as response:
        item: dict[str, Any] = json.load(response)["data"][0]
        return item


def chips(browser: WebDriver) -> set[str]:
    """In one look: the page makes them anew with each answer."""
    return set(browser.execute_script("return [...document.querySelectorAll('.chip')].map((one) => one.textContent)"))


def place_in_card(browser: WebDriver, selector: str) -> tuple[float, float]:
    """Left and top in pixels, of the card of many texts."""
    left, top = browser.execute_script(
        "const [card, it] = [document.getElementById('batch'), document.querySelector(arguments[0])]"
        ".map((one) => one.getBoundingClientRect()); return [it.left - card.left, it.top - card.top]",
        selector,
    )
    return left, top


def drop(browser: WebDriver, name: str, content: str | bytes) -> None:
    """A file onto the card of many texts."""
    browser.execute_script(
        "const part = typeof arguments[1] === 'string' ? arguments[1] : new Uint8Array(arguments[1]);"
        "const files = new DataTransfer(); files.items.add(new File([part], arguments[0]));"
        "document.getElementById('batch').dispatchEvent(new DragEvent('drop', { dataTransfer: files, bubbles: true }))",
        name,
        content if isinstance(content, str) else list(content),
    )


def download(browser: WebDriver, folder: Path, name: str) -> Path:
    """The scored rows, as the page's button gives them."""
    browser.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(folder)})
    one(browser, "#download").click()
    found = folder / name
    WebDriverWait(browser, 10).until(lambda _: found.exists())
    return found


def slide(browser: WebDriver, value: float) -> None:
    browser.execute_script(
        "const slider = document.getElementById('threshold'); slider.value = arguments[0];"
        "slider.dispatchEvent(new Event('input'))",
        value,
    )


def paste(browser: WebDriver, rows: str) -> None:
    browser.execute_script(
        "const box = document.getElementById('pasted'); box.value = arguments[0]; box.dispatchEvent(new Event('input'))",
        rows,
    )


def test_a_row_of_the_test_set_is_tried(browser: WebDriver, address: str, request: pytest.FixtureRequest) -> None:
    browser.get(f"{address}/ui/")
    wait(browser, "#examples")
    choice = Select(one(browser, "#example"))
    groups = [group.get_attribute("label") for group in browser.find_elements(By.CSS_SELECTOR, "#example optgroup")]
    assert groups == ["Predicted right", "Mistakes"]
    choice.select_by_visible_text("thanks see you at lunch")
    assert wait(browser, "#expected").text == "The test set says: thanks."
    assert one(browser, "#text").get_attribute("value") == "thanks see you at lunch"
    assert re.search(r"Tokenising.*Waiting.*Model.*Way there and back", wait(browser, "#latency").text, re.DOTALL)
    keep(browser, "example", request)
    darken(browser)
    keep(browser, "example-dark", request)


def test_the_card_says_what_the_model_is_made_of_and_how_good_it_is(browser: WebDriver, address: str) -> None:
    browser.get(f"{address}/ui/")
    wait(browser, "#about")
    entries = (
        "return Object.fromEntries([...document.querySelectorAll(arguments[0])].map("
        "(one) => [one.querySelector('dt').textContent, one.querySelector('dd').textContent]))"
    )
    about = browser.execute_script(entries, "#about > div")
    assert (about["Base model"], about["Method"], about["Trained on"]) == ("tiny", "Full", "40 rows")
    assert browser.execute_script(entries, "#metrics > div") == {"f1": "0.97"}, "roc_auc has no value"
    assert browser.execute_script(entries, "#metrics > .primary") == {"f1": "0.97"}
    assert one(browser, "#metrics-heading").is_displayed()


def test_the_page_is_as_light_or_dark_as_the_system(browser: WebDriver, address: str) -> None:
    browser.get(f"{address}/ui/")
    wait(browser, "#about")

    def brightness(selector: str, of: str) -> int:
        style = "return getComputedStyle(document.querySelector(arguments[0]))[arguments[1]]"
        return sum(map(int, re.findall(r"\d+", browser.execute_script(style, selector, of))[:3]))

    for selector in ("body", ".card"):
        assert brightness(selector, "backgroundColor") > 600 > 300 > brightness(selector, "color")
    darken(browser)
    for selector in ("body", ".card"):
        assert brightness(selector, "backgroundColor") < 300 < 600 < brightness(selector, "color")


def test_a_threshold_is_tried_out_with_the_servers_own_decision(
    browser: WebDriver, address: str, request: pytest.FixtureRequest
) -> None:
    browser.get(f"{address}/ui/")
    one(browser, "#text").send_keys("win free money now", Keys.CONTROL, Keys.ENTER)
    wait(browser, "#facts")
    item = ask(address, "win free money now")
    before = chips(browser)
    assert before == set(item["predicted_labels"]) or before == {"no label"}
    assert len(browser.find_elements(By.CSS_SELECTOR, ".limit")) == len(LABELS)
    label = LABELS[0]
    probability = item["probs"][0]
    Select(one(browser, "#threshold-label")).select_by_value(label)
    other = min(1.0, probability + 0.02) if label in before else max(0.0, probability - 0.02)
    slide(browser, other)
    WebDriverWait(browser, 10).until(lambda driver: (label in chips(driver)) != (label in before))
    assert "on this page only" in one(browser, "#threshold-words").text
    one(browser, ".code summary").click()
    assert '"thresholds"' in one(browser, "#curl").text
    browser.execute_script("document.querySelector('.what-if').scrollIntoView()")
    keep(browser, "what-if", request)
    one(browser, "#threshold-reset").click()
    WebDriverWait(browser, 10).until(lambda driver: chips(driver) == before)


def test_a_keyboard_goes_on_at_the_slider_once_its_thresholds_are_reset(browser: WebDriver, address: str) -> None:
    browser.get(f"{address}/ui/")
    one(browser, "#text").send_keys("win free money", Keys.CONTROL + Keys.ENTER)
    wait(browser, "#predicted")
    slide(browser, 0.01)
    one(browser, "#threshold-reset").send_keys(Keys.ENTER)
    assert not one(browser, "#threshold-reset").is_displayed()
    assert browser.switch_to.active_element.get_attribute("id") == "threshold"


def test_an_earlier_text_is_judged_by_the_thresholds_that_are_shown(browser: WebDriver, address: str) -> None:
    browser.get(f"{address}/ui/")
    text = one(browser, "#text")
    text.send_keys("win free money now", Keys.CONTROL, Keys.ENTER)
    wait(browser, "#facts")
    before = chips(browser)
    label = LABELS[0]
    text.clear()
    text.send_keys("meeting notes", Keys.CONTROL, Keys.ENTER)
    wait_for_text(browser, "#earlier", "meeting notes")
    Select(one(browser, "#threshold-label")).select_by_value(label)
    slide(browser, 1.0 if label in before else 0.0)
    WebDriverWait(browser, 10).until(lambda driver: (label in chips(driver)) == (label not in before))
    one(browser, "#earlier li:nth-child(2) button").click()
    WebDriverWait(browser, 10).until(lambda driver: chips(driver) == before ^ {label})
    one(browser, "#threshold-reset").click()
    WebDriverWait(browser, 10).until(lambda driver: chips(driver) == before)


def test_a_pasted_csv_comes_back_scored(
    browser: WebDriver, address: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    browser.get(f"{address}/ui/")
    wait(browser, "#about")
    texts = ["win free money now", 'she said "thanks",\nsee you at lunch', "", "notes and agenda; budget"]
    content = "id,text\r\n" + "".join(f'{n},"{text.replace(chr(34), chr(34) * 2)}"\r\n' for n, text in enumerate(texts))
    paste(browser, content)
    assert one(browser, "#header").is_selected()
    assert Select(one(browser, "#column")).first_selected_option.text == "text"
    assert one(browser, "#score").text == "Score 4 rows"
    one(browser, "#score").click()
    wait(browser, "#download")
    assert one(browser, "#scored-words").text == "4 of 4 rows, 1 of them with an error."
    browser.execute_script("document.getElementById('batch').scrollIntoView()")
    keep(browser, "csv", request)
    found = download(browser, tmp_path, "pasted-scored.csv")
    with found.open(newline="", encoding="utf-8") as file:
        scored = list(csv.DictReader(file))
    assert [line["text"] for line in scored] == texts
    assert [line["id"] for line in scored] == ["0", "1", "2", "3"]
    assert scored[2]["error"] == "The text is empty."
    for line in (scored[0], scored[1], scored[3]):
        item = ask(address, line["text"])
        assert line["predicted"] == " | ".join(item["predicted_labels"])
        assert [float(line[f"probability of {label}"]) for label in LABELS] == pytest.approx(item["probs"], abs=1e-5)
    severe = [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    assert severe == []
    assert requested_hosts(browser) == {urlsplit(address).netloc}


def test_an_answer_that_is_abstained_is_no_decision_anywhere(
    browser: WebDriver, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    texts = ("win free money now", "meeting on monday", "thanks see you at lunch")
    temperature = Calibration(method="Temperature", temperature=1.25)
    plain = Decision(labels=("ham", "spam"), task_detail=TaskDetail.BINARY, calibration=temperature)
    with served(tmp_path, decision=plain) as address:
        sure = {text: max(ask(address, text)["probs"]) for text in texts}
        browser.get(f"{address}/ui/")
        wait(browser, "#about")
        assert "temperature 1.25" in one(browser, "#about").text
        one(browser, "#text").send_keys(texts[0], Keys.CONTROL, Keys.ENTER)
        wait(browser, "#facts")
        assert not one(browser, "#abstained").is_displayed()
    unsure, *_, surest = sorted(texts, key=lambda text: sure[text])
    abstain = Abstain(min_probability=(sure[unsure] + sure[surest]) / 2)
    with served(tmp_path / "unsure", decision=plain.model_copy(update={"abstain": abstain})) as address:
        browser.get(f"{address}/ui/")
        wait(browser, "#about")
        card = str(one(browser, "#about").get_property("textContent"))
        assert re.search(r"Abstainswhere no label has [\d.]+ %", card)
        assert "Decisionsha256:" in str(one(browser, "#digests").get_property("textContent"))
        one(browser, "#text").send_keys(unsure, Keys.CONTROL, Keys.ENTER)
        assert "take the answer for no decision" in wait(browser, "#abstained").text
        assert "abstained" in chips(browser)
        assert "abstained (" in one(browser, "#earlier").text
        keep(browser, "abstained", request)
        paste(browser, "text\n" + "\n".join(texts))
        one(browser, "#score").click()
        wait(browser, "#download")
        answers = {text: ask(address, text) for text in texts}
        count = sum(item["abstained"] for item in answers.values())
        assert one(browser, "#scored-words").text == f"3 of 3 rows, {count} of them abstained."
        browser.execute_script("document.getElementById('batch').scrollIntoView()")
        darken(browser)
        keep(browser, "abstained-csv-dark", request)
        found = download(browser, tmp_path, "pasted-scored.csv")
        with found.open(newline="", encoding="utf-8") as file:
            scored = {line["text"]: line["abstained"] for line in csv.DictReader(file)}
        assert scored == {text: str(item["abstained"]).lower() for text, item in answers.items()}
        assert (scored[unsure], scored[surest]) == ("true", "false")


def test_a_dropped_file_is_read_and_scoring_can_be_cancelled(browser: WebDriver, address: str, tmp_path: Path) -> None:
    browser.get(f"{address}/ui/")
    wait(browser, "#about")
    drop(browser, "mail.csv", "\n".join(f"meeting {n}, with the team" for n in range(200_000)))
    wait_for_text(browser, "#score", "200,000 rows")
    before = place_in_card(browser, "#score")
    one(browser, "#score").click()
    WebDriverWait(browser, 20).until(lambda driver: int(one(driver, "#scored").get_attribute("value") or 0) > 5)
    assert place_in_card(browser, "#cancel") == before, "a pointer that goes for it would miss it"
    one(browser, "#cancel").click()
    wait_for_text(browser, "#scored-words", "Cancelled.")
    assert one(browser, "#score").is_displayed()
    count = int(one(browser, "#scored").get_attribute("value") or 0)
    found = download(browser, tmp_path, "mail-scored.csv")
    assert len(found.read_text().splitlines()) == count + 1, "what was scored can be had"


def test_the_rest_of_the_page_is_left_alone_while_rows_are_scored(browser: WebDriver, address: str) -> None:
    browser.get(f"{address}/ui/")
    wait(browser, "#about")
    one(browser, "#text").send_keys("win free money now", Keys.CONTROL, Keys.ENTER)
    wait(browser, "#earlier")
    # So many that they are not done before this program has looked: 3,000 were, once.
    drop(browser, "mail.csv", "\n".join(f"meeting {n} with the team" for n in range(10_000)))
    wait_for_text(browser, "#score", "10,000 rows")
    one(browser, "#score").click()
    wait(browser, "#scored-words")
    assert one(browser, "#scored-words").get_attribute("aria-live") == "off", "it would be read out ten times a second"
    browser.execute_script("document.querySelector('#earlier button').focus()")
    wait(browser, "#download")
    assert browser.switch_to.active_element.get_attribute("class") == "row"
    assert one(browser, "#scored-words").get_attribute("aria-live") == "polite"
    one(browser, "#score").click()
    wait(browser, "#download")
    assert browser.switch_to.active_element.get_attribute("id") == "download", "Cancel's place, whose focus it takes"


def test_a_server_that_is_going_away_is_not_left_classifying_for_nobody(browser: WebDriver, address: str) -> None:
    """Its answers have no end here, and the page stops at the first one."""
    browser.get(f"{address}/ui/")
    became = browser.execute_async_script("""
        const became = arguments[0];
        const line = JSON.stringify({ error: { code: "draining", message: "The server is shutting down." } });
        const start = (answers) => answers.enqueue(new TextEncoder().encode(`${line}\\n`));
        window.fetch = async () => new Response(new ReadableStream({ start, cancel: () => became("cancelled") }));
        const { classifyAll } = await import("./batch.js");
        await classifyAll(["a", "b"], { onAnswer() {} }).catch((error) => setTimeout(became, 500, error.message));
    """)
    assert became == "cancelled"


@pytest.mark.parametrize("scored", [True, False])
def test_a_server_that_went_between_two_parts_is_told_of_by_what_was_scored(
    browser: WebDriver, address: str, scored: bool
) -> None:
    browser.get(f"{address}/ui/")
    said = browser.execute_async_script(
        """
        const [scored, done] = arguments;
        let asked = 0;
        window.fetch = async (url, { body }) => {
          if (asked++ === Number(scored)) throw new TypeError("Failed to fetch");
          return new Response(body.replace(/.+/g, "{}"));
        };
        const { classifyAll } = await import("./batch.js");
        await classifyAll(Array(300).fill("prize"), { onAnswer() {} }).catch((error) => done(error.message));
        """,
        scored,
    )
    assert said.startswith("The server went away before all rows" if scored else "The server cannot be reached.")


def test_a_server_that_ends_while_it_scores_is_told_of_in_words(browser: WebDriver, tmp_path: Path) -> None:
    with served(tmp_path, "--drain-seconds", "3") as address:
        browser.get(f"{address}/ui/")
        wait(browser, "#about")
        drop(browser, "mail.csv", "\n".join(f"meeting {n} with the team" for n in range(200_000)))
        wait_for_text(browser, "#score", "200,000 rows")
        one(browser, "#score").click()
        wait(browser, "#scored-words")
    assert wait(browser, "#batch-error").text.startswith("The server went away before all rows were scored.")
    assert one(browser, "#download").is_displayed(), "what was scored can be had"


def test_lines_of_prose_are_a_text_each(browser: WebDriver, address: str) -> None:
    browser.get(f"{address}/ui/")
    paste(browser, "Hello, you\nWell, this, too, is one text\nthanks")
    wait_for_text(browser, "#score", "Score 3 rows")
    assert not one(browser, "#header").is_selected()
    assert "Well, this, too, is one text" in one(browser, "#preview-rows").text


@pytest.mark.parametrize(
    ("encoding", "notice"),
    [
        pytest.param("cp1252", "not UTF-8 and was read as Windows-1252", id="as Excel saves CSV"),
        pytest.param("utf-8-sig", "", id="UTF-8 with a mark"),
        pytest.param("utf-16", "", id="UTF-16 with a mark"),
    ],
)
def test_a_file_is_read_in_its_encoding(
    browser: WebDriver, address: str, encoding: str, notice: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    browser.get(f"{address}/ui/")
    wait(browser, "#about")
    drop(browser, "mail.csv", "id;text\r\n1;café crème\r\n2;Müller grüßt\r\n".encode(encoding))
    wait_for_text(browser, "#score", "Score 2 rows")
    assert "café crème" in one(browser, "#preview-rows").text
    assert "Müller grüßt" in one(browser, "#preview-rows").text
    assert notice in one(browser, "#batch-notice").text
    assert one(browser, "#batch-notice").is_displayed() == bool(notice)
    if notice:
        browser.execute_script("document.getElementById('batch').scrollIntoView()")
        keep(browser, "csv-encoding", request)
    one(browser, "#score").click()
    wait(browser, "#download")
    found = download(browser, tmp_path, "mail-scored.csv").read_bytes()
    assert found.startswith("\ufeffid;text;predicted;".encode()), "Excel would not take it for UTF-8"
    assert "Müller grüßt" in found.decode()


def test_a_row_with_a_cell_too_many_leaves_a_csv_what_it_is(browser: WebDriver, address: str) -> None:
    browser.get(f"{address}/ui/")
    wait(browser, "#about")
    paste(browser, "id;text\n1;hello\n2;x;y\n3;thanks\n")
    wait_for_text(browser, "#score", "Score 3 rows")
    assert Select(one(browser, "#column")).first_selected_option.text == "text"
    assert one(browser, "#batch-notice").text.startswith("Row 3 has another number of cells")
    paste(browser, "text\nHello, you\nthanks\n")
    wait_for_text(browser, "#score", "Score 2 rows")
    assert "Hello, you" in one(browser, "#preview-rows").text
    assert "each line is a text" in one(browser, "#batch-notice").text


@pytest.mark.parametrize("before", ["\r\n\r\n", "sep=;\r\n"], ids=["empty lines", "what Excel goes by"])
def test_lines_before_a_csv_leave_it_what_it_is(browser: WebDriver, address: str, before: str) -> None:
    browser.get(f"{address}/ui/")
    wait(browser, "#about")
    paste(browser, f"{before}id;text\r\n1;Hello, you\r\n2;thanks\r\n")
    wait_for_text(browser, "#score", "Score 2 rows")
    assert Select(one(browser, "#column")).first_selected_option.text == "text"
    assert not one(browser, "#batch-notice").is_displayed()


def test_a_file_that_was_put_right_is_chosen_again(browser: WebDriver, address: str, tmp_path: Path) -> None:
    browser.get(f"{address}/ui/")
    wait(browser, "#about")
    file = tmp_path / "mail.csv"
    for count in (1, 2):
        file.write_text("text\n" + "thanks\n" * count)
        browser.execute_script(
            "const input = document.getElementById('file');"
            "input.addEventListener('click', (event) => event.preventDefault(), { once: true }); input.click()"
        )  # without the dialog, which only a person can answer
        one(browser, "#file").send_keys(str(file))
        wait_for_text(browser, "#score", f"Score {count} row")


def test_an_empty_file_is_said_to_be_empty(browser: WebDriver, address: str) -> None:
    browser.get(f"{address}/ui/")
    wait(browser, "#about")
    drop(browser, "mail.csv", "")
    wait_for_text(browser, "#batch-error", "The file is empty.")


def test_a_label_may_be_named_as_what_every_object_has(browser: WebDriver, tmp_path: Path) -> None:
    with served(tmp_path, labels=("constructor", "driver", "toString"), task_detail=TaskDetail.MULTICLASS) as address:
        browser.get(f"{address}/ui/")
        wait(browser, "#about")
        assert one(browser, "#labels").get_property("textContent") == "constructordrivertoString"
        one(browser, "#text").send_keys("win free money now", Keys.CONTROL, Keys.ENTER)
        wait(browser, "#facts")
        Select(one(browser, "#threshold-label")).select_by_value("constructor")
        assert one(browser, "#threshold-value").text == "not set"
        slide(browser, 1.0)
        wait_for_text(browser, "#threshold-value", "100.0 %")
        Select(one(browser, "#threshold-label")).select_by_value("toString")
        assert one(browser, "#threshold-value").text == "not set"


def test_many_labels_and_long_names_fit_a_narrow_page(
    browser: WebDriver, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    labels = [f"{number} {'x' * 100}" for number in range(200)]
    browser.execute_cdp_cmd(  # 320 wide: a small phone, or 1,280 at 400 %
        "Emulation.setDeviceMetricsOverride", {"width": 320, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    )
    with served(tmp_path, task_detail=TaskDetail.MULTICLASS, labels=labels) as url:
        browser.get(f"{url}/ui/")
        one(browser, "#text").send_keys("win free money", Keys.CONTROL + Keys.ENTER)
        wait(browser, "#predicted")
        paste(browser, f"text,{'a_name_without_a_break_' * 3}\nprize,1\nmeeting,2\n")
        one(browser, "#score").click()
        wait(browser, "#download")
        keep(browser, "narrow", request)
        aside, below = browser.execute_script(
            "const page = document.documentElement, end = document.querySelector('aside').getBoundingClientRect().bottom;"
            "return [page.scrollWidth - page.clientWidth, page.scrollHeight - scrollY - end]"
        )
    assert aside == 0
    assert below < 100  # pixels: no page of nothing below its last card


def test_bars_and_buttons_are_seen_in_the_colours_of_a_contrast_theme(
    browser: WebDriver, address: str, request: pytest.FixtureRequest
) -> None:
    features = [{"name": "forced-colors", "value": "active"}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    browser.get(f"{address}/ui/")
    one(browser, "#text").send_keys("win free money", Keys.CONTROL + Keys.ENTER)
    wait(browser, "#predicted")
    keep(browser, "contrast", request)
    styles = browser.execute_script(
        "return ['.value', '.limit', '.card'].map((one) => getComputedStyle(document.querySelector(one)).backgroundColor)"
    )
    bar, limit, behind = styles
    assert behind not in (bar, limit)
    for selector in ("#classify", ".chip", ".track"):
        assert one(browser, selector).value_of_css_property("border-top-style") == "solid", selector


def test_another_checkpoint_takes_over_under_an_open_page(browser: WebDriver, tmp_path: Path) -> None:
    with served(tmp_path / "old") as address:
        browser.get(f"{address}/ui/")
        one(browser, "#text").send_keys("win free money now", Keys.CONTROL, Keys.ENTER)
        wait(browser, "#facts")
        slide(browser, 0.9)
        wait_for_text(browser, "#threshold-words", "Tried on this page only")
        old = one(browser, "#digests").get_property("textContent")
    port = str(urlsplit(address).port)
    with served(
        tmp_path / "new", "--port", port, labels=("low", "high", "constructor"), task_detail=TaskDetail.MULTICLASS
    ):
        one(browser, "#text").send_keys(Keys.CONTROL, Keys.ENTER)
        wait_for_text(browser, "#labels", "constructor")
        assert one(browser, "#digests").get_property("textContent") != old
        assert chips(browser) <= {"low", "high", "constructor"}
        assert not one(browser, "#threshold-reset").is_displayed()
        paste(browser, "text\nwin free money now\n")
        one(browser, "#score").click()
        wait(browser, "#download")
        with download(browser, tmp_path, "pasted-scored.csv").open(newline="", encoding="utf-8") as file:
            (scored,) = csv.DictReader(file)
        item = ask(address, "win free money now")
        found = [float(scored[f"probability of {label}"]) for label in ("low", "high", "constructor")]
        assert found == pytest.approx(item["probs"], abs=1e-5)


def test_a_quote_that_never_ends_does_not_make_one_text_of_all_lines(browser: WebDriver, address: str) -> None:
    browser.get(f"{address}/ui/")
    wait(browser, "#about")
    drop(browser, "prose.txt", '"Hello, you\n' + "Well, this, too, is one text\n" * 400_000)
    wait_for_text(browser, "#score", "Score 400,001 rows")
    assert one(browser, "#preview-rows").text.startswith('"Hello, you')


def copied(browser: WebDriver, what: str, words: str) -> str:
    """What its button leaves in the clipboard, as it can be pasted."""
    one(browser, f"button[data-copies={what}]").click()
    wait_for_text(browser, "#copied", words)
    text = one(browser, "#text")
    text.clear()
    text.send_keys(Keys.CONTROL, "v")
    return str(text.get_property("value"))


def test_the_code_runs_as_it_is_copied_and_holds_no_key(browser: WebDriver, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.mkdir()
    (keys / "alice").write_text(KEY)
    text = 'she said "win", it\'s $HOME\nnow'
    with served(tmp_path, "--api-keys", str(keys), **CHECKPOINT) as address:
        browser.get(f"{address}/ui/")
        wait(browser, "#key-error")
        one(browser, "#key").send_keys(KEY, Keys.ENTER)
        wait(browser, "#examples")
        browser.execute_script("document.getElementById('text').value = arguments[0]", text)
        one(browser, "#text").send_keys(Keys.CONTROL, Keys.ENTER)
        wait(browser, "#facts")
        one(browser, ".code summary").click()
        curl = copied(browser, "curl", "The command copied.")
        # As a page has it that came by plain http from another machine.
        browser.execute_script("Object.defineProperty(navigator, 'clipboard', { value: undefined })")
        python = copied(browser, "python", "The program copied.")
        assert KEY not in curl + python
        environment = {**os.environ, "WINNOW_API_KEY": KEY}
        answers = []
        for command in (["bash", "-c", curl], [sys.executable, "-c", python]):
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
            answers.append(done.stdout)
        assert json.loads(answers[0])["data"][0]["label"] in LABELS
        assert json.loads(answers[0])["data"][0]["label"] in answers[1]


class Proxy(http.server.BaseHTTPRequestHandler):
    """As the API server's proxy: a path in front, Authorization kept."""

    upstream = ""

    def do_GET(self) -> None:
        if not self.path.startswith(PREFIX):
            self.send_error(404)
            return
        connection = http.client.HTTPConnection(self.upstream)
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        kept = {name: value for name, value in self.headers.items() if name.lower() not in ("authorization", "host")}
        connection.request(self.command, self.path.removeprefix(PREFIX) or "/", body, kept)
        response = connection.getresponse()
        content = response.read()
        self.send_response(response.status)
        for name, value in response.getheaders():
            if name.lower() not in ("transfer-encoding", "content-length", "connection"):
                self.send_header(name, value)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_POST = do_GET  # noqa: N815

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def behind_a_path(address: str) -> Iterator[str]:
    handler = type("Handler", (Proxy,), {"upstream": urlsplit(address).netloc})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}{PREFIX}"
        server.shutdown()
        thread.join()


def test_everything_works_behind_a_path(browser: WebDriver, address: str) -> None:
    with behind_a_path(address) as url:
        browser.get(f"{url}/ui/")
        wait(browser, "#examples")
        one(browser, "#text").send_keys("win free money now", Keys.CONTROL, Keys.ENTER)
        wait(browser, "#facts")
        one(browser, ".code summary").click()
        assert f"{url}/v1/classify" in one(browser, "#curl").text
        paste(browser, "text\nwin free money\n")
        one(browser, "#score").click()
        wait(browser, "#download")
        assert requested_hosts(browser) == {urlsplit(url).netloc}


def test_whatever_takes_the_focus_has_a_name(browser: WebDriver, address: str) -> None:
    """As a screen reader is told it: Chromium's own accessibility tree."""
    browser.get(f"{address}/ui/")
    wait(browser, "#examples")
    one(browser, "#text").send_keys("win free money now", Keys.CONTROL, Keys.ENTER)
    wait(browser, "#facts")
    paste(browser, "id,text\n1,win free money\n")
    one(browser, ".code summary").click()
    nodes = browser.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    focusable = [
        node
        for node in nodes
        if not node.get("ignored")
        and any(one["name"] == "focusable" and one["value"]["value"] for one in node.get("properties", []))
        and node["role"]["value"] not in ("RootWebArea",)
    ]
    nameless = [node["role"]["value"] for node in focusable if not node.get("name", {}).get("value")]
    assert len(focusable) > 12
    assert nameless == []
