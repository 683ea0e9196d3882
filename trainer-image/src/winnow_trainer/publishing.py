"""What an epoch came to becomes a checkpoint: a decision is fitted, the answers are evaluated, reports are made, and all of it
is published at once."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from torch import Tensor

from winnow_classifier import checkpoint
from winnow_classifier import decision as decisions
from winnow_classifier.checkpoint import Manifest, Published
from winnow_classifier.errors import CheckpointError
from winnow_classifier.files import DECISION, METRICS
from winnow_classifier.labels import LabelSchema
from winnow_classifier.model import Classifier
from winnow_trainer import advice, artifacts, deciding, evaluate, outcome
from winnow_trainer.deciding import Judged
from winnow_trainer.evaluate import Evaluation
from winnow_trainer.examples import Examples
from winnow_trainer.manifests import manifest_of
from winnow_trainer.metric_functions import MetricFunctions
from winnow_trainer.prepare import Prepared
from winnow_trainer.run_folder import RunFolder
from winnow_trainer.telling import Telling

log = logging.getLogger(__name__)


class Publisher:
    """Of one training; its first process alone publishes."""

    def __init__(
        self,
        prepared: Prepared,
        folder: RunFolder,
        model: Classifier,
        test: Examples | None,
        validation: Examples | None,
        functions: MetricFunctions,
        telling: Telling,
        processes: int,
    ) -> None:
        self.prepared = prepared
        self.folder = folder
        self.model = model
        self.test, self.validation = test, validation
        self.functions = functions
        self.telling = telling
        self.processes = processes

    def warn_again(self, published: Sequence[Published]) -> None:
        """Repeat what evaluations before a restart warned of, so that later reports say it too."""
        for one in published:
            epoch = one.manifest.epoch
            try:
                decision = decisions.read(self.folder.file(epoch, DECISION).parent, self.prepared.schema)
                report = orjson.loads(self.folder.file(epoch, METRICS).read_bytes())
            except (OSError, ValueError, CheckpointError):
                continue  # nothing was measured, or decision.json was changed by hand, which is reported where it is used
            self.telling.warn_once(advice.about_band(decision) if decision else [])
            parts = {"test": report, "validation": report.get("validation", {})}
            scored = {rows: evaluate.scored_before(part) for rows, part in parts.items()}
            self.telling.warn_once(advice.about_functions(one.manifest.name, scored))

    def publish(
        self,
        epoch: int,
        train_loss: float,
        steps: Mapping[str, Any],
        judged_test: Judged | None,
        judged_validation: Judged | None,
        weights: dict[str, Tensor] | None,
        before: Sequence[Published],
    ) -> Published:
        """`steps`: their losses, as step_losses tells them. `before`: the checkpoints so far. Raises Stopped."""
        decision = self.decision(judged_test, judged_validation)
        schema = decisions.decided(self.prepared.schema, decision)
        measured = {decision.measured.rows: decision.measured} if decision and decision.measured else {}
        test = self.evaluation(judged_test, self.test, schema, measured.get("Test"))
        validation = self.evaluation(judged_validation, self.validation, schema, measured.get("Validation"))
        decided = decisions.content(decision) if decision else None
        manifest = manifest_of(self.prepared, self.model, epoch, train_loss, test, validation, self.processes)
        parts = {"test": test, "validation": validation}
        scored = {rows: part.scored for rows, part in parts.items() if part}
        self.telling.warn_once(advice.about_functions(manifest.name, scored))
        files = self.artifacts(manifest, test, validation, schema, steps, decided, before)
        self.folder.release(epoch)  # of a try that had no room in a bucket
        published = self.telling.when_there_is_room(
            manifest.name,
            lambda: checkpoint.publish(
                self.folder.checkpoint(epoch),
                manifest,
                self.model,
                self.prepared.tokenizer,
                files | deciding.kept(judged_validation, judged_test),
                {DECISION: decided} if decided else {},
                weights,
            ),
        )
        self.telling.when_there_is_room(manifest.name, lambda: self.folder.stored(epoch))
        return published

    def decision(self, test: Judged | None, validation: Judged | None) -> decisions.Decision | None:
        """Fitted on validation rows; None without."""
        if validation is None:
            return None
        asked, entry = self.prepared.job.spec.thresholds, self.prepared.validation_entry
        found = deciding.fit(validation, test, self.prepared.schema, asked, entry.digest if entry else None)
        for label, why in found.unfitted.items():
            log.warning("Threshold not as asked for", extra={"label": label, "why": why})
        self.telling.warn_once(advice.about_band(found))
        return found

    def evaluation(
        self,
        judged: Judged | None,
        examples: Examples | None,
        schema: LabelSchema,
        measured: decisions.Measured | None,
    ) -> Evaluation | None:
        if judged is None or examples is None:
            return None
        reported, seed = self.prepared.reported, self.prepared.parameters.seed
        return evaluate.evaluate(judged.logits, examples, schema, reported, self.functions, seed, measured)

    def artifacts(
        self,
        manifest: Manifest,
        test: Evaluation | None,
        validation: Evaluation | None,
        schema: LabelSchema,
        steps: Mapping[str, Any],
        decision: bytes | None,
        before: Sequence[Published],
    ) -> dict[str, bytes]:
        likely = [*before, Published(manifest, "", 0)]
        return artifacts.artifacts(
            test,
            validation,
            schema,
            [published.manifest for published in likely],
            steps=steps,
            best=outcome.message(likely, self.prepared.primary, self.prepared.selected_on) + ", so far.",
            warnings=[warning.message for warning in self.telling.warnings],
            decision=decision,
        )
