"""Waiting for something to become true, with a bound, and a word when it does not."""

import http.client
import ssl
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

from winnow_cluster.errors import ClusterError, log_tail
from winnow_cluster.processes import Process

POLL_SECONDS = 0.1
START_SECONDS = 60


def wait_until(
    true: Callable[[], bool], what: str, process: Process | None = None, seconds: float = START_SECONDS
) -> None:
    """Poll until `true`; give up early when the process that should make it true has ended."""
    deadline = time.monotonic() + seconds
    while not true():
        if process is not None:
            process.expect_alive()
        if time.monotonic() > deadline:
            where = "" if process is None else f"\n{log_tail(process.log)}"
            raise ClusterError(f"{what}: not so after {seconds:.0f} s.{where}")
        time.sleep(POLL_SECONDS)


def answers(url: str, authority: Path) -> bool:
    """Does a health endpoint behind TLS say 200?"""
    return _answers(url, urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=str(authority))))


def answers_plain(url: str) -> bool:
    """Does a health endpoint say 200?"""
    return _answers(url)


def _answers(url: str, *handlers: urllib.request.BaseHandler) -> bool:
    # No proxy handler: an https_proxy in the environment must not swallow requests to this machine.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), *handlers)
    try:
        with opener.open(url, timeout=5) as response:
            return bool(response.status == 200)
    except (http.client.HTTPException, OSError):
        return False
