"""The processes of one training: which one this is, and what all of them add up, agree on and wait for.

A training of one process has nothing to wait for: every function here then gives back what it was given. Each function is
called by all processes, in the same order. What goes between them is numbers and JSON, never pickled objects.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from winnow_classifier.errors import ConfigError, NoPeersError, PeerLostError
from winnow_trainer.sharing import shares

PIECE_ELEMENTS = 16 * 1024**2  # added up at a time: large enough to fill a network, small beside the gradients
# Of waiting for one process that writes or measures while the others have nothing to do. A process that ended is noticed
# at once, whatever this says.
PATIENCE = timedelta(hours=12)
STUCK = timedelta(minutes=30)  # of one sum between GPUs, where a process that vanished may go unnoticed


@dataclass(frozen=True)
class Ranks:
    """This process among `size`: `rank` counts all of them, `local_rank` those of this machine."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    waiting: dist.ProcessGroup | None = None  # over the CPUs, with PATIENCE

    @property
    def leads(self) -> bool:
        """Whether this process is the one that writes and tells."""
        return self.rank == 0

    def share(self, weights: Sequence[int]) -> list[int]:
        """This process's pieces of some work, as indices."""
        return shares(weights, self.size)[self.rank]

    def wait(self) -> None:
        """Until all processes are here."""
        self.any(False)

    def any(self, *flags: bool) -> tuple[bool, ...]:
        """For each flag, whether any process has set it: the same answer for all."""
        return tuple(bool(found) for found in self._largest([int(flag) for flag in flags]))

    def largest(self, number: int) -> int:
        return self._largest([number])[0]

    def _largest(self, numbers: list[int]) -> list[int]:
        if self.size == 1 or not numbers:
            return numbers
        found = torch.tensor(numbers)
        with peers():
            dist.all_reduce(found, dist.ReduceOp.MAX, group=self.waiting)
        return [int(number) for number in found]

    def tell(self, value: Any) -> Any:
        """The first process's value, which JSON can hold; what the others give does not matter."""
        if self.size == 1:
            return value
        said = json.dumps(value).encode() if self.leads else b""
        size = self.largest(len(said))
        letters = (
            torch.from_numpy(np.frombuffer(said, dtype=np.uint8).copy())
            if self.leads
            else torch.empty(size, dtype=torch.uint8)
        )
        with peers():
            dist.broadcast(letters, 0, group=self.waiting)
        return json.loads(letters.numpy().tobytes())

    def gather(self, tensor: Tensor) -> list[Tensor]:
        """A CPU tensor of one shape, of each process."""
        if self.size == 1:
            return [tensor]
        found = [torch.empty_like(tensor) for _ in range(self.size)]
        with peers():
            dist.all_gather(found, tensor.contiguous(), group=self.waiting)
        return found

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """Each tensor becomes its sum over all processes, the same bits for all. Small ones travel together."""
        if self.size == 1:
            return
        for piece in pieces(tensors):
            together = piece[0].reshape(-1) if len(piece) == 1 else torch.cat([tensor.reshape(-1) for tensor in piece])
            with peers():
                dist.all_reduce(together)
            parts = torch.split(together, [tensor.numel() for tensor in piece])
            for tensor, part in zip(piece, parts, strict=True):
                tensor.copy_(part.view_as(tensor))

    def copy(self, tensors: Sequence[Tensor]) -> None:
        """Each tensor becomes the first process's."""
        if self.size == 1:
            return
        for tensor in tensors:
            with peers(), torch.no_grad():
                dist.broadcast(tensor.detach(), 0)

    @contextmanager
    def turn(self) -> Iterator[None]:
        """One after the other on each machine, the first process before all: what it fetches or makes, the others find."""
        if self.size == 1:
            yield
            return
        own = 0 if self.leads else 1 + self.local_rank
        for number in range(1 + self.largest(self.local_size)):
            if number == own:
                yield
            self.wait()

    def own_random(self, seed: int) -> None:
        """From here on the processes draw different numbers; the first one draws what it would draw alone."""
        if not self.leads:
            mixed = np.random.SeedSequence([seed, self.rank]).generate_state(1, np.uint64)
            torch.manual_seed(int(mixed[0]) >> 1)


ALONE = Ranks()


def pieces(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Neighbours of one type, together as long as they are small."""
    piece: list[Tensor] = []
    for tensor in tensors:
        if piece and (
            tensor.dtype != piece[0].dtype or sum(t.numel() for t in piece) + tensor.numel() > PIECE_ELEMENTS
        ):
            yield piece
            piece = []
        piece.append(tensor)
    if piece:
        yield piece


@contextmanager
def peers() -> Iterator[None]:
    """Raises PeerLostError for what torch says when a process does not answer any more."""
    try:
        yield
    except (torch.AcceleratorError, torch.OutOfMemoryError):  # what ails this process's own GPU, noticed by chance here
        raise
    except RuntimeError as error:
        raise PeerLostError("Another process of this training ended; this one cannot go on alone") from error


@contextmanager
def joined(processes: int, environment: Mapping[str, str] = os.environ) -> Iterator[Ranks]:
    """This process's place among `processes`, as torchrun's variables tell it. Raises ConfigError, NoPeersError."""
    if processes == 1 and environment.get("WORLD_SIZE", "1") == "1":
        yield ALONE
        return
    rank, size, local_rank, local_size = (
        int(environment[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    )
    if size != processes:
        raise ConfigError(f"nodes times processesPerNode of this job is {processes}, but {size} processes were started")
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(local_rank)
    try:
        dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo", timeout=STUCK if cuda else PATIENCE)
        waiting = dist.new_group(backend="gloo", timeout=PATIENCE)
        dist.all_reduce(torch.zeros(1), group=waiting)
        if cuda:
            # NCCL connects at its first sum, so one is made here. Later a failure to connect would look like the loss of a
            # process, after which a job is restarted without end; and whether the job fits into the GPU is judged next, when
            # NCCL has taken its share of the memory.
            dist.all_reduce(torch.zeros(1, device="cuda"))
            torch.cuda.synchronize()
    except RuntimeError as error:
        raise NoPeersError(
            f"The {size} processes of this training do not reach each other: {error}",
            hint="pods of one job must be able to connect to each other on all ports; look for a NetworkPolicy. Of GPUs, the "
            "pods' logs say more with NCCL_DEBUG: INFO in env",
        ) from error
    yield Ranks(rank, size, local_rank, local_size, waiting)
    # Only after a good end: with a process lost, saying goodbye would wait for it.
    dist.destroy_process_group()
