"""The servers that requests are held for: whether one is there, and sending it what was held."""

import asyncio
import logging

import httpx2

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.25
CONNECT_SECONDS = 2.0  # some networks drop what leads to nobody instead of refusing it
AT_ONCE = 32  # requests sent at once: all that were held would overrun the queue of the first pod that comes up
ANSWER_SECONDS = 90.0  # a server gives up on a request after 60


class Upstream:
    """By the address of a Service that leads to ready pods only: who can be reached there is ready."""

    def __init__(self, url: str, *, look_seconds: float = LOOK_SECONDS, at_once: int = AT_ONCE) -> None:
        self._look_seconds = look_seconds
        self._turns = asyncio.Semaphore(at_once)
        self.url = httpx2.URL(url)
        # No pool: a kept connection would go on leading to a pod that leaves.
        self._client = httpx2.AsyncClient(
            timeout=httpx2.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS),
            limits=httpx2.Limits(max_connections=None, max_keepalive_connections=0),
            trust_env=False,
            verify=False,  # plain HTTP within the cluster: no certificates to read
        )
        self._waiting = 0
        self._looking: asyncio.Task[None] | None = None

    async def send(self, request: httpx2.Request) -> httpx2.Response | None:
        """Send a request. Returns the answer, whose body is still to be read and closed, or None if no server is there, or it
        went away: the request may then be sent again, since classifying changes nothing."""
        try:
            async with self._turns:
                answer = await self._client.send(request, stream=True)
        except httpx2.TransportError as err:
            log.debug("No server answers", extra={"error": repr(err)})
            return None
        if answer.status_code == 503:  # one that stops, or loads
            await answer.aclose()
            return None
        return answer

    async def appears(self) -> None:
        """Returns when a server is ready. However many requests wait, only one of them asks."""
        self._waiting += 1
        try:
            if self._looking is None or self._looking.done():
                self._looking = asyncio.create_task(self._look())
            await asyncio.shield(self._looking)
        finally:
            self._waiting -= 1
            if self._waiting == 0 and self._looking is not None:
                self._looking.cancel()
                self._looking = None

    async def _look(self) -> None:
        ready = self.url.copy_with(raw_path=b"/v2/health/ready")
        while True:
            await asyncio.sleep(self._look_seconds)
            answer = await self.send(httpx2.Request("GET", ready))
            if answer is not None:
                await answer.aclose()
                return

    async def close(self) -> None:
        await self._client.aclose()
