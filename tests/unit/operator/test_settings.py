"""What the operator is told by its environment, and what it makes of it."""

from __future__ import annotations

import ast
import logging
from pathlib import Path

import pytest

import winnow_operator
from winnow_operator import handlers
from winnow_operator.inbox import Inbox
from winnow_operator.metrics import Metrics
from winnow_operator.plan import FetchLimits
from winnow_operator.queue import WorkQueue
from winnow_operator.resources import WATCHED
from winnow_operator.settings import SettingsError, read
from winnow_operator.store import Store

IMAGES = {"WINNOW_TRAINER_IMAGE": "trainer:1", "WINNOW_SERVER_IMAGE": "server:1"}


def test_images_are_all_it_needs() -> None:
    settings = read(IMAGES)
    assert (settings.config.trainer_image, settings.config.server_image) == ("trainer:1", "server:1")
    assert (settings.namespace, settings.http_port, settings.log_level) == ("winnow-system", 8080, logging.INFO)


def test_what_may_be_fetched_is_bounded_unless_told_otherwise() -> None:
    assert read(IMAGES).config.fetch == FetchLimits(10 * 1024**3, 3_600, ())
    told = {
        "WINNOW_FETCH_MAX_BYTES": "1000",
        "WINNOW_FETCH_TIMEOUT_SECONDS": "60",
        "WINNOW_FETCH_ALLOWED_NETWORKS": "10.1.2.3/8 fd00::/8",
    }
    assert read({**IMAGES, **told}).config.fetch == FetchLimits(1_000, 60, ("10.0.0.0/8", "fd00::/8"))


def test_a_pod_is_known_by_its_name() -> None:
    assert read({**IMAGES, "POD_NAME": "winnow-operator-0", "WINNOW_NAMESPACE": "ml"}).instance == "winnow-operator-0"


@pytest.mark.parametrize(
    ("environ", "says"),
    [
        pytest.param({}, "WINNOW_TRAINER_IMAGE is not set", id="no image"),
        pytest.param({**IMAGES, "WINNOW_SERVER_IMAGE": ""}, "WINNOW_SERVER_IMAGE is not set", id="an empty image"),
        pytest.param({**IMAGES, "WINNOW_HTTP_PORT": "80a"}, "'80a'", id="a port that is none"),
        pytest.param({**IMAGES, "WINNOW_HTTP_PORT": "70000"}, "1 to 65535", id="a port too high"),
        pytest.param({**IMAGES, "WINNOW_FETCH_MAX_BYTES": "1G"}, "MAX_BYTES is '1G'", id="bytes that are no number"),
        pytest.param({**IMAGES, "WINNOW_FETCH_TIMEOUT_SECONDS": "0"}, "above 0", id="no time to fetch"),
        pytest.param({**IMAGES, "WINNOW_FETCH_ALLOWED_NETWORKS": "10.0.0.0/33"}, "no network", id="no network"),
        pytest.param({**IMAGES, "WINNOW_LOG_LEVEL": "loud"}, "DEBUG, INFO", id="a level that is none"),
    ],
)
def test_what_is_wrong_is_said(environ: dict[str, str], says: str) -> None:
    with pytest.raises(SettingsError, match=says):
        read(environ)


def test_kopf_watches_our_kinds_by_label_and_writes_nothing() -> None:
    registry = handlers.registry(Inbox(Store(), WorkQueue(), Metrics(lambda: 0.0)))
    assert len(registry._watching.get_all_handlers()) == len(WATCHED)
    writing = (registry._changing, registry._spawning, registry._indexing, registry._webhooks)
    assert [found.get_all_handlers() for found in writing] == [[], [], [], []]
    settings = handlers.settings()
    assert not settings.posting.enabled
    assert settings.scanning.disabled


def test_kopf_is_an_event_source_and_nothing_more() -> None:
    """Handlers that write annotations and finalizers, timers and daemons have no place here."""
    used = set()
    for path in Path(winnow_operator.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and ast.unparse(node).startswith("kopf.on."):
                used.add(ast.unparse(node))
    assert used == {"kopf.on.event", "kopf.on.login"}
