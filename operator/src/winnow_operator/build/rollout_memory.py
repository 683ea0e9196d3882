"""What a rollout has to remember, on the apps/v1 Deployment itself: written together with the pods' template, so that the two
never disagree.

Status cannot hold it: between a rollback and the status that tells of it the operator may end, and the next one would roll
the same checkpoint out again.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Annotated

from pydantic import AfterValidator, TypeAdapter

from winnow_operator.build.common import noted
from winnow_operator.build.served import Served
from winnow_operator.resources import GROUP, Object

ROLLOUT = f"{GROUP}/rollout"


@dataclass(frozen=True, slots=True)
class TakenBack:
    """A checkpoint that was rolled back, and the spec that asked for it: with another spec it may be tried again."""

    training_job: str
    checkpoint: str
    digest: str
    spec: str
    message: str


def _moment(text: str) -> str:
    if text and datetime.fromisoformat(text).tzinfo is None:
        raise ValueError("a time without a zone")
    return text


@dataclass(frozen=True, slots=True)
class Memory:
    since: Annotated[str, AfterValidator(_moment)] = ""  # when the pods' checkpoint was last changed
    fallback: Served | None = None  # what was live then
    # Of the fallback's pods. A rollback brings these back as they were: another field of the spec may have been the cause.
    template: Object | None = None
    taken_back: TakenBack | None = None

    def settled(self) -> Memory:
        """Without what was taken back: the chosen checkpoint is served, or on its way."""
        return replace(self, taken_back=None, template=None) if self.taken_back else self

    @staticmethod
    def of(deployment: Object | None) -> Memory:
        return noted(deployment, ROLLOUT, _MEMORY, NOTHING) if deployment else NOTHING


NOTHING = Memory()
_MEMORY = TypeAdapter(Memory)
