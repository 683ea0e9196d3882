"""What the operator says as it ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from winnow_operator.main import tell_all_but_generators


@pytest.mark.parametrize("quiet", [True, False])
def test_a_watch_that_is_left_open_adds_nothing_to_the_last_words(
    quiet: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async def watch() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            raise RuntimeError("generator didn't stop after athrow()")

    left_open = watch()

    async def run() -> None:
        if quiet:
            asyncio.get_running_loop().set_exception_handler(tell_all_but_generators)
        await anext(left_open)

    asyncio.run(run())
    assert [record.levelname for record in caplog.records] == ([] if quiet else ["ERROR"])


def test_other_exceptions_that_nobody_awaits_are_told(caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> None:
        raise RuntimeError("of a callback")

    async def run() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(tell_all_but_generators)
        loop.call_soon(fail)
        await asyncio.sleep(0)

    asyncio.run(run())
    assert "of a callback" in caplog.text
