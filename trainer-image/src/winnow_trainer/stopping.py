"""Leaving at a place where nothing is lost."""

from threading import Event


class Stopped(Exception):  # noqa: N818 - no error: someone asked for it
    """SIGTERM came: the resume point, if there is anything to keep, is written."""


def check(stop: Event) -> None:
    if stop.is_set():
        raise Stopped
