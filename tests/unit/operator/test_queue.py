"""The work queue, on a clock that jumps."""

from __future__ import annotations

import asyncio

from operator_scene import run

from winnow_operator.queue import BEHIND, WorkQueue
from winnow_operator.resources import TRAINING_JOB, Key

A, B = Key(TRAINING_JOB, "ml", "a"), Key(TRAINING_JOB, "ml", "b")


def queue() -> WorkQueue:
    return WorkQueue(jitter=lambda: 0.0)


def test_a_key_waits_once_however_often_it_is_added() -> None:
    async def story() -> list[Key]:
        work = queue()
        for key in (A, B, A, A):
            work.add(key)
        assert work.depth() == 2
        return [await work.get(), await work.get()]

    assert run(story()) == [A, B]


def test_a_key_that_is_worked_on_comes_again_only_afterwards() -> None:
    async def story() -> None:
        work = queue()
        work.add(A)
        assert await work.get() == A
        work.add(A)
        work.add(A)
        assert work.depth() == 0  # no second worker gets it
        work.done(A)
        assert work.depth() == 1  # yet the change is not missed
        assert await work.get() == A
        work.done(A)
        assert work.depth() == 0

    run(story())


def test_failures_come_back_later_and_later_but_never_stop() -> None:
    async def story() -> list[float]:
        work, waits = queue(), []
        for _ in range(12):
            waits.append(work.retry(A))
            await work.get()
            work.done(A)
        work.succeeded(A)
        return [*waits, work.retry(A)]

    waits = run(story())
    assert waits[:4] == [1, 2, 4, 8]
    assert waits[-3:] == [300, 300, 1]


def test_keys_that_failed_together_do_not_come_back_together() -> None:
    values = iter([0.0, 1.0])

    async def story() -> tuple[float, float]:
        work = WorkQueue(jitter=lambda: next(values))
        return work.retry(A), work.retry(B)

    assert run(story()) == (1.0, 0.5)


def test_the_earlier_of_two_appointments_counts() -> None:
    async def story() -> list[float]:
        work, loop = queue(), asyncio.get_running_loop()
        work.add_after(A, 10)
        work.add_after(A, 5)
        work.add_after(A, 20)
        await work.get()
        first = loop.time()
        work.done(A)
        work.add_after(A, 1)
        await work.get()
        return [first, loop.time()]

    assert run(story()) == [5, 6]


def test_a_key_that_lets_others_first_comes_behind_them_but_comes() -> None:
    async def story() -> list[Key]:
        work = queue()
        work.let_others_first(A)
        work.add(A)
        for number in range(BEHIND + 50):
            work.add(Key(TRAINING_JOB, "ml", f"{number:03d}"))
        return [await work.get() for _ in range(BEHIND + 51)]

    assert run(story()).index(A) in range(BEHIND - 1, BEHIND + 2)


def test_who_waits_for_idleness_waits_until_all_keys_are_taken() -> None:
    async def story() -> None:
        work = queue()
        await work.idle()
        work.add(A)
        waiting = asyncio.create_task(work.idle())
        await asyncio.sleep(1)
        assert not waiting.done()
        assert work.oldest_seconds() == 1
        await work.get()
        await waiting

    run(story())
