"""The Lease, on a clock that jumps and one object that lies where the API server would keep it. Two real replicas meet in tests/integration."""

from __future__ import annotations

import asyncio
import contextlib
import copy

import pytest
from operator_scene import run

from winnow_operator.kube import ApiError
from winnow_operator.lease import DURATION_SECONDS, RENEW_SECONDS, RETRY_SECONDS, Lease, LeaseLostError
from winnow_operator.resources import LEASE, Object, Resource

UNREACHABLE, FORBIDDEN = 0, 403


class Board:
    """One Lease with the API server's optimistic lock, and the status of every answer while the line is cut."""

    def __init__(self) -> None:
        self.lease: Object | None = None
        self.version = 0
        self.cut: int | None = None

    def _reach(self) -> None:
        if self.cut is not None:
            raise ApiError(self.cut, "", "cut off")

    async def get(self, resource: Resource, namespace: str, name: str) -> Object | None:
        self._reach()
        return copy.deepcopy(self.lease)

    async def create(self, resource: Resource, obj: Object) -> Object:
        self._reach()
        if self.lease is not None:
            raise ApiError(409, "AlreadyExists", name_of_lease(obj))
        return self._keep(obj)

    async def replace(self, resource: Resource, obj: Object) -> Object:
        self._reach()
        if self.lease is None or obj["metadata"]["resourceVersion"] != self.lease["metadata"]["resourceVersion"]:
            raise ApiError(409, "Conflict", name_of_lease(obj))
        return self._keep(obj)

    def _keep(self, obj: Object) -> Object:
        self.version += 1
        self.lease = {**copy.deepcopy(obj), "metadata": {**obj["metadata"], "resourceVersion": str(self.version)}}
        return copy.deepcopy(self.lease)

    @property
    def holder(self) -> str:
        assert self.lease is not None
        return str(self.lease["spec"]["holderIdentity"])


def name_of_lease(obj: Object) -> str:
    return str(obj["metadata"]["name"])


def replica(board: Board, holder: str) -> Lease:
    clock = asyncio.get_running_loop().time
    return Lease(board, namespace="winnow-system", name="winnow-operator", holder=holder, clock=clock)


def test_the_first_replica_leads_and_renews() -> None:
    async def story() -> None:
        board = Board()
        first = replica(board, "a")
        await first.acquire()
        keeping = asyncio.create_task(first.keep())
        await asyncio.sleep(60)
        assert not keeping.done()
        assert board.holder == "a"
        assert board.lease is not None
        assert board.lease["spec"]["leaseTransitions"] == 1
        keeping.cancel()

    run(story())


def test_a_second_replica_waits_as_long_as_the_first_renews() -> None:
    async def story() -> None:
        board = Board()
        first, second = replica(board, "a"), replica(board, "b")
        await first.acquire()
        keeping, waiting = asyncio.create_task(first.keep()), asyncio.create_task(second.acquire())
        await asyncio.sleep(300)
        assert not waiting.done()
        assert second.renewed is None
        keeping.cancel()
        died = asyncio.get_running_loop().time()
        await waiting
        assert board.holder == "b"
        # By its own clock, from the last change that it saw: the clocks of two nodes may differ.
        assert (
            DURATION_SECONDS - RETRY_SECONDS
            <= asyncio.get_running_loop().time() - died
            <= DURATION_SECONDS + 2 * RETRY_SECONDS
        )

    run(story())


def test_a_lease_that_is_given_back_is_taken_at_once() -> None:
    async def story() -> None:
        board = Board()
        first, second = replica(board, "a"), replica(board, "b")
        await first.acquire()
        waiting = asyncio.create_task(second.acquire())
        await asyncio.sleep(1)
        await first.release()
        released = asyncio.get_running_loop().time()
        await waiting
        assert asyncio.get_running_loop().time() - released <= RETRY_SECONDS

    run(story())


def test_a_leader_that_cannot_renew_stops_before_another_may_start() -> None:
    async def story() -> float:
        board = Board()
        first = replica(board, "a")
        await first.acquire()
        board.cut = UNREACHABLE
        cut = asyncio.get_running_loop().time()
        with pytest.raises(LeaseLostError, match="could not be renewed"):
            await first.keep()
        return asyncio.get_running_loop().time() - cut

    assert run(story()) <= RENEW_SECONDS + RETRY_SECONDS < DURATION_SECONDS


def test_a_leader_counts_from_when_it_asked_and_not_from_a_late_answer() -> None:
    class Slow(Board):
        seconds = 0.0

        async def replace(self, resource: Resource, obj: Object) -> Object:
            found = await super().replace(resource, obj)
            await asyncio.sleep(self.seconds)
            self.cut = UNREACHABLE if self.seconds else None
            return found

    async def story() -> float:
        board = Slow()
        first = replica(board, "a")
        await first.acquire()
        board.seconds = 7.5
        with pytest.raises(LeaseLostError, match="could not be renewed"):
            await first.keep()
        # Since the last write, which others may have seen at once.
        return asyncio.get_running_loop().time() - RETRY_SECONDS

    assert run(story()) <= RENEW_SECONDS + RETRY_SECONDS < DURATION_SECONDS


def test_a_leader_that_stood_still_as_it_asked_stops_at_once() -> None:
    """Its process was stopped, or its node paused: as it goes on, the request's own time-out is over as well as ours."""

    class Overdue(Board):
        overdue = False

        async def get(self, resource: Resource, namespace: str, name: str) -> Object | None:
            if self.overdue:
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.sleep(3600)
                raise ApiError(UNREACHABLE, "", "no answer in time")
            return await super().get(resource, namespace, name)

    async def story() -> float:
        board = Overdue()
        first = replica(board, "a")
        await first.acquire()
        acquired = asyncio.get_running_loop().time()
        board.overdue = True
        with pytest.raises(LeaseLostError, match="could not be renewed"):
            await first.keep()
        return asyncio.get_running_loop().time() - acquired

    assert run(story()) == pytest.approx(RENEW_SECONDS)


@pytest.mark.parametrize(
    "cut", [pytest.param(UNREACHABLE, id="away"), pytest.param(FORBIDDEN, id="rights not known yet")]
)
def test_a_short_break_is_survived(cut: int) -> None:
    async def story() -> None:
        board = Board()
        first = replica(board, "a")
        await first.acquire()
        keeping = asyncio.create_task(first.keep())
        board.cut = cut
        await asyncio.sleep(6)
        board.cut = None
        await asyncio.sleep(60)
        assert not keeping.done()
        keeping.cancel()

    run(story())


def test_an_api_server_that_answers_late_and_always_keeps_its_leader() -> None:
    class Slow(Board):
        async def get(self, resource: Resource, namespace: str, name: str) -> Object | None:
            await asyncio.sleep(2.4)
            return await super().get(resource, namespace, name)

        async def replace(self, resource: Resource, obj: Object) -> Object:
            await asyncio.sleep(2.4)
            return await super().replace(resource, obj)

    async def story() -> None:
        first = replica(Slow(), "a")
        await first.acquire()
        keeping = asyncio.create_task(first.keep())
        await asyncio.sleep(60)
        assert not keeping.done()
        keeping.cancel()

    run(story())


def test_a_leader_that_was_replaced_stops() -> None:
    async def story() -> None:
        board = Board()
        first = replica(board, "a")
        await first.acquire()
        stolen = await board.get(LEASE, "", "")
        assert stolen is not None
        stolen["spec"]["holderIdentity"] = "b"
        await board.replace(LEASE, stolen)
        with pytest.raises(LeaseLostError, match="b took the Lease"):
            await first.keep()
        assert board.holder == "b"

    run(story())


def test_a_right_that_is_missing_is_no_reason_to_wait() -> None:
    async def story() -> None:
        board = Board()
        board.cut = FORBIDDEN
        with pytest.raises(ApiError, match="403"):
            await replica(board, "a").acquire()

    run(story())
