"""What checkpoint.json says of a training: where everything came from, and what was measured."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from winnow_classifier.checkpoint import JobEntry, Manifest
from winnow_classifier.model import Classifier
from winnow_trainer.evaluate import Evaluation
from winnow_trainer.fsdp import is_cut
from winnow_trainer.prepare import Prepared, versions


def manifest_of(
    prepared: Prepared,
    model: Classifier,
    epoch: int,
    train_loss: float,
    test: Evaluation | None,
    validation: Evaluation | None,
    processes: int,
) -> Manifest:
    """train_loss: the mean over the rows of the epoch; processes: how many trained together."""
    job, schema = prepared.job, prepared.schema
    return Manifest(
        name=f"epoch-{epoch}",
        epoch=epoch,
        task_detail=schema.task_detail,
        labels=schema.labels,
        problem_type=schema.problem_type,
        method=job.spec.method,
        architecture=type(model.base).__name__,
        pooling=model.pooling,
        pools_as_transformers=prepared.pools_as_transformers,
        batches="Packed" if prepared.packs else "Padded",
        prompt_template=job.spec.prompt_template,
        max_seq_length=prepared.parameters.max_seq_length,
        base_model=prepared.base_model,
        continued_from=prepared.parent.continued() if prepared.parent else None,
        training_dataset=prepared.training_entry,
        test_dataset=prepared.test_entry,
        validation_dataset=prepared.validation_entry,
        rebalance=prepared.rebalance,
        metrics=test.metrics if test else {},
        validation_metrics=validation.metrics if validation else {},
        train_loss=train_loss,
        primary_metric=prepared.primary,
        higher_is_better=prepared.higher_is_better,
        selected_on=prepared.selected_on,
        parameters=used(prepared, model, processes),
        processes=processes,
        versions=versions(),
        training_job=JobEntry(
            name=job.name, uid=job.metadata.uid, output_model_name=job.spec.output_model_name or job.name
        ),
        created_at=datetime.now(UTC),
    )


def used(prepared: Prepared, model: Classifier, processes: int) -> dict[str, Any]:
    """The parameters, with what unset ones stood for and what the run chose by itself."""
    chosen: dict[str, Any] = {}
    if prepared.job.spec.method != "HeadOnly":
        chosen["gradient_checkpointing"] = bool(model.body.is_activation_checkpointing)
    if processes > 1:
        chosen["parallelism"] = "FSDP" if is_cut(model) else "DDP"
    if prepared.parent is not None:
        chosen["head_init"] = None  # the head is the parent's
    found = prepared.parameters.spelled_out().model_copy(update=chosen)
    return found.model_dump(by_alias=True, exclude_none=True)
