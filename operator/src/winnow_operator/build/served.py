"""Which checkpoint an apps/v1 Deployment serves, as it stands written on it."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import TypeAdapter

from winnow_operator import api
from winnow_operator.build.common import noted
from winnow_operator.resources import GROUP, Object

SERVED = f"{GROUP}/served"


@dataclass(frozen=True, slots=True)
class Served:
    """Which checkpoint, and what it takes to load it. Written on the apps/v1 Deployment, so that it can be read back when the
    TrainingJob is deleted."""

    training_job: str
    checkpoint: str
    digest: str
    run: str
    base_model: api.AdapterBase | None  # only an adapter needs its base; other checkpoints hold the whole model

    @property
    def folder(self) -> str:
        """Below the ModelService's storage."""
        return f"runs/{self.run}/checkpoints/{self.checkpoint}"

    @property
    def words(self) -> str:
        return f"{self.training_job}/{self.checkpoint}"

    @staticmethod
    def of(deployment: Object) -> Served | None:
        """None where it says nothing of ours any more."""
        return noted(deployment, SERVED, _SERVED, None)


_SERVED: TypeAdapter[Served | None] = TypeAdapter(Served)
