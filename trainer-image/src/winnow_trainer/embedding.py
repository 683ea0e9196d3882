"""Training only the rows of the embedding table that occur in the texts.

A row whose token never occurs has a gradient of zero at every step, and AdamW without weight decay then leaves it where
it is: its moments stay zero, and so does its update. Leaving those rows out of the optimizer is therefore exact. For
small encoders it matters: the table is half of MiniLM's 22.7 M parameters, and an optimizer step on two cores costs as
much as a third of the matrix work of a batch of short texts.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel


class OccurringRows(nn.Module):
    """Stands in for an embedding table while training; ids (any shape) must be among `occurring` (U,)."""

    place: Tensor

    def __init__(self, table: nn.Embedding, occurring: Tensor) -> None:
        super().__init__()
        self.rows = nn.Parameter(table.weight.detach()[occurring].clone())  # (U, d)
        place = torch.full((table.num_embeddings,), -1, device=table.weight.device)
        place[occurring] = torch.arange(len(occurring), device=place.device)
        self.register_buffer("place", place, persistent=False)
        padding = -1 if table.padding_idx is None else int(place[table.padding_idx])
        self.padding_idx = padding if padding >= 0 else None

    def forward(self, input_ids: Tensor) -> Tensor:
        return nn.functional.embedding(self.place[input_ids], self.rows, padding_idx=self.padding_idx)


class TrimmedTable:
    """Puts the stand-in into a body, and the whole table back with what was learned."""

    def __init__(self, body: PreTrainedModel, occurring: Tensor) -> None:
        self.body = body
        self.table = body.get_input_embeddings()
        assert isinstance(self.table, nn.Embedding)
        self.table.weight.requires_grad_(False)
        self.occurring = occurring.to(self.table.weight.device)
        self.stand_in = OccurringRows(self.table, self.occurring)

    def install(self) -> None:
        self.body.set_input_embeddings(self.stand_in)

    def restore(self) -> None:
        with torch.no_grad():
            self.table.weight[self.occurring] = self.stand_in.rows  # type: ignore[operator]
        self.body.set_input_embeddings(self.table)
