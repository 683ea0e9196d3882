"""One training run, from top to bottom: rows, model, epochs of steps, an evaluation and a checkpoint after each.

It can stop after any step and go on later: the order of rows is a function of seed and epoch, and a resume point holds
everything else. The learning itself is in learner.py.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any

import torch
from accelerate import Accelerator

from winnow_classifier import base_model
from winnow_classifier.checkpoint import Published
from winnow_classifier.cpu import multiplies_bfloat16, usable_cpus
from winnow_classifier.dataset import StoredDataset, Targets
from winnow_classifier.errors import DivergedError
from winnow_classifier.gpu import gpu_computes_bfloat16
from winnow_classifier.mirror import VOLUME, Mirror
from winnow_classifier.model import Classifier, quiet_transformers
from winnow_classifier.profile import Warn
from winnow_trainer import advice, memory, outcome, resume, step_losses
from winnow_trainer.data import HeldOut, ImportRows
from winnow_trainer.deciding import Judged
from winnow_trainer.examples import Examples, check_tokens, encode
from winnow_trainer.failures import in_words, is_full
from winnow_trainer.fsdp import is_cut
from winnow_trainer.job import TrainingJob
from winnow_trainer.learner import Learner
from winnow_trainer.methods import assemble
from winnow_trainer.metric_functions import MetricFunctions
from winnow_trainer.pace import Pace
from winnow_trainer.prepare import Prepared, prepare
from winnow_trainer.progress import FIELDS
from winnow_trainer.published import of_the_first
from winnow_trainer.publishing import Publisher
from winnow_trainer.ranks import ALONE, Ranks
from winnow_trainer.recorder import Recorder, Tracker
from winnow_trainer.resume import Position
from winnow_trainer.resume_writer import ResumeWriter
from winnow_trainer.room import WORDS, Patience
from winnow_trainer.run_folder import Changed, RunFolder
from winnow_trainer.schedule import learning_rate
from winnow_trainer.steps import count_steps, steps_of_epoch
from winnow_trainer.stopping import Stopped, check
from winnow_trainer.telling import Progress, Telling
from winnow_trainer.tensorboard import EventFile
from winnow_trainer.tracking import Track, no_trackers
from winnow_trainer.watch import LossWatch, check_answers

log = logging.getLogger(__name__)

RESUME_POINT_SECONDS = 600.0  # at most about this much work is lost when a node dies


def train(
    job: TrainingJob,
    storage: Path,
    *,
    run: str | None = None,
    progress: Progress,
    stop: Event,
    import_rows: ImportRows,
    mirror: Mirror = VOLUME,
    ranks: Ranks = ALONE,
    clock: Callable[[], float] = time.monotonic,
    track: Track = no_trackers,
    resolve: base_model.Resolve = base_model.resolve,
    patience: Patience = Patience(),  # noqa: B008 - it never changes
) -> dict[str, Any]:
    """The final word of the run: state Complete, or Stopped once `stop` is set and a resume point is written.

    `patience`: with storage that is full or away.

    Of several processes (`ranks`) the first one writes; all come to the same word.

    Raises a WinnowError that names what is wrong: exit_code and reason follow from its type.
    """
    quiet_transformers()
    with in_words(storage):
        with ranks.turn():
            prepared = prepare(job, storage, import_rows, mirror, resolve)
        folder = RunFolder(storage / "runs" / (run or job.run), mirror)
        if ranks.leads:
            folder.check(prepared.identity())
        if finished := ranks.tell(folder.result() if ranks.leads else None):
            return finished_before(finished, folder, progress, ranks)
        training = Training(prepared, folder, progress, stop, clock, track, ranks, patience)
        try:
            with training.functions:
                training.run()
            result = {"kind": "train", "state": "Complete", **training.ending(), **training.history()}
            if ranks.leads:
                training.telling.when_there_is_room("the end of the run", lambda: folder.finish(result))
        except Stopped:
            stopped = {"state": "Stopped", "reason": "Stopped", "message": training.where_it_stopped()}
            return {"kind": "train", **stopped, **training.history()}
        ranks.wait()
    progress.update(state="Complete", percent=100.0, etaSeconds=0)
    return result


def finished_before(finished: dict[str, Any], folder: RunFolder, progress: Progress, ranks: Ranks) -> dict[str, Any]:
    """The final word of a run that is done, with a warning of checkpoints that were changed since."""
    changed: list[Warn] = []
    if ranks.leads:
        changed = advice.about_changed(folder.published()[1])
        folder.clear()
    log.info("Finished before, nothing to do", extra={"run": str(folder.path)})
    for warning in changed:
        log.warning(warning.message, extra={"code": warning.code})
    known = finished.get("warnings") or []
    warnings = ranks.tell([*known, *(one for one in map(asdict, changed) if one not in known)])
    told = {**finished, "warnings": warnings}
    progress.update(**{name: told[name] for name in told.keys() & FIELDS} | {"percent": 100.0})
    return {**told, "message": f"This run finished before: {finished['message']}"}


def make_accelerator() -> Accelerator:
    """Matrix products in bfloat16 where that is fast, never in float16, whose range is too small. Weights, gradients and the
    optimizer stay in float32."""
    cuda = torch.cuda.is_available()
    fast = gpu_computes_bfloat16() if cuda else multiplies_bfloat16()
    return Accelerator(cpu=not cuda, mixed_precision="bf16" if fast else "no")


class Training:
    """The loop and where it stands."""

    def __init__(
        self,
        prepared: Prepared,
        folder: RunFolder,
        progress: Progress,
        stop: Event,
        clock: Callable[[], float],
        track: Track,
        ranks: Ranks,
        patience: Patience,
    ) -> None:
        self.ranks = ranks
        self.prepared = prepared
        self.parameters = prepared.parameters
        self.folder = folder
        self.progress = progress
        self.stop = stop
        self.clock = clock
        self.track = track
        self.position = Position()
        self.begun = False  # until then there may be a resume point further on
        self.changed: list[Changed] = []  # known to the first process
        self.published = of_the_first(ranks, self.look_for_checkpoints)
        warnings = [*advice.about_rows(prepared.data), *advice.about_decision(prepared.data), *prepared.warnings]
        self.telling = Telling(warnings, progress, stop, patience)
        self.functions = MetricFunctions(prepared.job.spec.metrics.custom or [], stop)
        self.writer = ResumeWriter(folder.resume, folder.mirror)
        self.recorder = Recorder(None, 0, [])
        self.saved: tuple[Position | None, float] = (None, clock())  # the last resume point, and when

    def look_for_checkpoints(self) -> list[Published]:
        published, self.changed = self.folder.published()
        return published

    def where_it_stopped(self) -> str:
        if not self.begun:
            return "Stopped while it started; goes on from where it was before"
        told = f"Stopped at epoch {self.position.epoch} after {self.position.step} of its steps"
        if self.position.epoch > self.parameters.num_train_epochs:
            told = "Stopped after the last epoch"
        if self.writer.lack:
            return f"{told}; {WORDS[self.writer.lack]}, so that it goes on from the resume point before"
        # Of several processes none knows within an evaluation whether the others are still there to write one with it.
        return f"{told}; goes on from {'there' if self.saved[0] == self.position else 'the resume point before'}"

    def check_points(self) -> None:
        """Raises what kept the last resume point from being written, if that is known by now. Storage that is full or away is only
        reported, as a warning."""
        self.writer.check()
        if self.ranks.leads:
            self.telling.resume_points(self.writer.lack)

    def run(self) -> None:
        """Raises Stopped after a resume point."""
        ended = "Failed"
        try:
            self.run_epochs()
            self.writer.wait()
            self.telling.resume_points(None)  # none is needed any more
            ended = "Complete"
        except Stopped:
            ended = "Stopped"
            raise
        finally:
            self.writer.close()
            self.telling.warnings += self.recorder.close(ended)

    def run_epochs(self) -> None:
        self.learner, self.test, self.validation = self.set_up()
        self.publisher = Publisher(
            self.prepared,
            self.folder,
            self.learner.model,
            self.test,
            self.validation,
            self.functions,
            self.telling,
            self.ranks.size,
        )
        rows, epochs = len(self.prepared.rows), self.parameters.num_train_epochs
        self.begin()
        self.steps_per_epoch = count_steps(rows, self.batch_size)
        self.total_steps = epochs * self.steps_per_epoch
        on_cpu = self.learner.model.device.type == "cpu"
        self.watch = LossWatch(on_cpu, self.clock, self.prepared.data.train.numbered)
        self.recorder = Recorder(self.parameters.logging_steps, self.total_steps, self.trackers())
        self.pace = Pace(self.total_steps - self.steps_done, epochs + 1 - self.position.epoch)
        self.report()
        for epoch in range(self.position.epoch, epochs + 1):
            if self.stopped_early is not None:
                break
            self.run_epoch(epoch)
            try:
                self.evaluate_and_publish(epoch)
            except Stopped:
                if self.ranks.size == 1:
                    self.writer.wait()
                    if self.writer.lack:
                        self.saved = (None, self.saved[1])  # it may be written by now
                    self.save()
                self.writer.wait()
                raise
            self.position = Position(epoch=epoch + 1, step_losses=self.position.step_losses)

    def begin(self) -> None:
        """From the resume point, or anew."""
        with self.ranks.turn():
            found = resume.load(self.folder.resume, self.folder.mirror, mapped=self.learner.cut)
        if found:
            self.position, state = found
            self.learner.load_state(state)
            self.saved = (self.position, self.clock())
            log.info("Resumed", extra={"epoch": self.position.epoch, "step": self.position.step})
        else:
            self.learner.start_head(self.prepared.rows)
            self.learner.agree()
            self.learner.read()
            self.ranks.own_random(self.parameters.seed)
        self.begun = True
        self.make_room_for_epochs()
        if self.ranks.leads:
            self.publisher.warn_again(self.published)

    def make_room_for_epochs(self) -> None:
        """Remove the changed checkpoints of epochs that this run trains again. The others stay: nothing would bring them back."""
        again = {f"epoch-{epoch}": epoch for epoch in range(self.position.epoch, self.parameters.num_train_epochs + 1)}
        for one in self.changed:
            if one.name in again:
                log.warning("Checkpoint made again", extra={"checkpoint": one.name, "error": one.why})
                self.folder.remove(again[one.name])
        for warning in advice.about_changed([one for one in self.changed if one.name not in again]):
            log.warning(warning.message, extra={"code": warning.code})
            self.telling.warnings.append(warning)

    def trackers(self) -> list[Tracker]:
        """Only the first process has any."""
        if not self.ranks.leads:
            return []
        return [*self.event_files(), *self.track(self.prepared, self.folder)]

    def event_files(self) -> list[Tracker]:
        try:
            return [EventFile(self.folder.tensorboard, self.steps_done, self.folder.mirror)]
        except OSError as error:
            if not is_full(error):
                raise
            log.warning("No curves for TensorBoard, storage is full", extra={"error": str(error)})
            return []

    def encoded(self) -> tuple[Examples, Examples | None, Examples | None]:
        """Training, test and validation rows as the model reads them; how many are cut is a warning."""
        data = self.prepared.data
        examples = self.read_rows("training", data.train, data.train.targets)
        test, validation = (
            self.read_rows(which, part.rows, part.targets) if part else None
            for which, part in (("test", data.test), ("validation", data.validation))
        )
        parts = {"training": examples, "test": test, "validation": validation}
        self.telling.warnings += advice.about_lengths(parts, self.parameters.max_seq_length)
        return examples, test, validation

    def read_rows(self, which: str, rows: StoredDataset, targets: Targets) -> Examples:
        examples = encode(rows.texts, targets, self.prepared.encoder)
        check_tokens(examples, which, rows.numbered)
        return examples

    def set_up(self) -> tuple[Learner, Examples | None, Examples | None]:
        """What learns, and the test and validation rows. Raises Stopped."""
        prepared = self.prepared
        accelerator = make_accelerator()
        device = accelerator.device
        if device.type == "cpu":
            device = torch.device("cpu")  # accelerate numbers CPUs by process, and tensors would be copied to and fro
            torch.set_num_threads(max(1, usable_cpus() // self.ranks.local_size))
            torch.set_flush_denormal(True)  # AdamW's moments of rare tokens fade into denormals, which are slow
        check(self.stop)
        examples, test, validation = self.encoded()
        for warning in self.telling.warnings:
            log.warning(warning.message, extra={"code": warning.code})
        check(self.stop)
        method = prepared.job.spec.method
        model = assemble(
            prepared.base,
            prepared.tokenizer,
            prepared.schema,
            method,
            self.parameters,
            device,
            prepared.pooling,
            prepared.parent,
        )
        # Not before: a manifest that the model refuses can be corrected and tried again under the same name.
        if self.ranks.leads:
            self.folder.claim(prepared.identity())
        self.place(model, accelerator, sum(len(part) for part in (examples, test, validation) if part is not None))
        learner = Learner(
            model,
            examples,
            prepared.schema,
            method,
            self.parameters,
            accelerator,
            self.stop,
            prepared.rows,
            self.ranks,
            self.tell,
        )
        log.info(
            "Training",
            extra={
                "method": method,
                "rows": len(prepared.rows),
                "tokens": len(examples.tokens),
                "truncatedTexts": examples.truncated,
                "trainableParameters": sum(parameter.numel() for parameter in learner.trainable.values()),
                "device": str(device),
                **({"parallelism": "FSDP"} if learner.cut else {}),
                **({"processes": self.ranks.size} if self.ranks.size > 1 else {}),
            },
        )
        return learner, test, validation

    def tell(self, words: str) -> None:
        """Say what goes on between steps, until `report` takes the message away."""
        self.progress.update(message=words)

    def place(self, model: Classifier, accelerator: Accelerator, rows: int) -> None:
        """The model to its device, whole or cut over the processes: a run goes on as it began."""
        method, parameters = self.prepared.job.spec.method, self.parameters
        open_ = self.ranks.size > 1 and parameters.parallelism is None
        began = self.ranks.tell(self.folder.parallelism() if open_ and self.ranks.leads else None)
        if began is not None:
            parameters = parameters.model_copy(update={"parallelism": began})
        self.telling.warnings += memory.place(model, method, parameters, accelerator, self.ranks, rows)
        if open_ and began is None and self.ranks.leads:
            self.folder.keep_parallelism("FSDP" if is_cut(model) else "DDP")

    @property
    def batch_size(self) -> int:
        """Rows of one optimizer step, of all processes together."""
        return self.parameters.batch_size * self.ranks.size

    @property
    def steps_done(self) -> int:
        return (self.position.epoch - 1) * self.steps_per_epoch + self.position.step

    def run_epoch(self, epoch: int) -> None:
        """The steps of the epoch that are still to do; a resume point at its end."""
        steps = steps_of_epoch(len(self.prepared.rows), self.batch_size, self.parameters.seed, epoch)
        if self.position.step == len(steps):
            return
        self.learner.learn()
        for chosen in steps[self.position.step :]:
            rows = self.prepared.rows[chosen]
            began = self.clock()
            rate = self.learning_rate()
            self.watch.add(epoch, self.position.step + 1, rows, self.learner.step(rows, rate), rate)
            self.position = replace(self.position, step=self.position.step + 1)
            self.pace.step(self.clock() - began, int(self.learner.examples.lengths[rows].sum()))
            if self.watch.due():
                self.look(rate)
            # Asked once a step: a stop that comes while the point is written waits for the next step. If one process wants to
            # stop or to write, all do.
            self.check_points()
            stopping, due = self.ranks.any(self.stop.is_set(), self.due(self.position.step == len(steps)))
            if stopping or due:
                self.look(rate)
                self.save()
            if stopping:
                self.writer.wait()
                self.ranks.wait()  # when one process leaves, the others are ended
                raise Stopped
        self.look(rate)
        self.learner.read()

    def due(self, last: bool) -> bool:
        """Whether a resume point shall be written after this step, the last of its epoch or not; the first process says so."""
        since = self.clock() - self.saved[1]
        return self.ranks.leads and (last or since >= RESUME_POINT_SECONDS) and self.writer.affordable(since)

    def save(self) -> None:
        """Begin to write a resume point of the current position, unless the last one is of the same."""
        if self.saved[0] != self.position:
            began = self.clock()
            state = self.learner.state()
            if self.ranks.leads:
                collected = self.clock() - began if self.learner.cut else None
                self.writer.save(self.steps_done, self.position, state, collected)
            self.saved = (self.position, self.clock())

    def learning_rate(self) -> float:
        parameters = self.parameters
        assert parameters.learning_rate is not None
        return learning_rate(
            parameters.lr_scheduler_type,
            parameters.learning_rate,
            parameters.warmup_ratio,
            self.steps_done,
            self.total_steps,
        )

    def look(self, rate: float) -> None:
        """Take in the losses since the last look, and tell them. Raises DivergedError."""
        with self.what_is_kept():
            seen = self.watch.look()
        if not seen.rows:
            return
        sums, first = self.position.step_losses, self.steps_done + 1 - len(seen.steps)
        for step, one in enumerate(seen.steps, start=first):
            sums = step_losses.added(sums, step, self.total_steps, one.loss_sum, one.rows)
        self.position = replace(
            self.position,
            loss_sum=self.position.loss_sum + seen.loss_sum,
            rows=self.position.rows + seen.rows,
            step_losses=sums,
        )
        self.progress.update(
            percent=round(100 * self.steps_done / self.total_steps, 2),
            epoch=self.position.epoch,
            step=self.steps_done,
            etaSeconds=self.pace.eta_seconds,
            tokensPerSecond=round(self.pace.tokens_per_second or 0),
            loss=outcome.rounded(seen.mean),
            learningRate=rate,
        )
        self.recorder.steps(seen.steps, self.steps_done, self.pace.tokens_per_second, self.pace.eta_seconds)

    @contextmanager
    def what_is_kept(self) -> Iterator[None]:
        """Adds to a DivergedError which checkpoint there is."""
        try:
            yield
        except DivergedError as error:
            kept = f"{self.published[-1].manifest.name} was published before" if self.published else "no checkpoint yet"
            raise DivergedError(f"{error}; {kept}", error.hint) from error

    def evaluate_and_publish(self, epoch: int) -> None:
        """A checkpoint of the epoch, unless there is one: what was published, and perhaps deployed, stays as it is."""
        if any(published.manifest.epoch == epoch for published in self.published):
            return
        began = self.clock()
        data = self.prepared.data
        with self.what_is_kept():
            test = self.judged(epoch, "test", self.test, data.test)
            validation = self.judged(epoch, "validation", self.validation, data.validation)
        self.tell(f"metrics of epoch {epoch} are computed, and its checkpoint is written")
        weights = self.learner.weights()
        train_loss = self.position.loss_sum / self.position.rows
        sums = self.position.step_losses
        steps = step_losses.told(sums, self.steps_done, self.total_steps, self.steps_per_epoch)
        publish = partial(self.publisher.publish, epoch, train_loss, steps, test, validation, weights, self.published)
        (published,) = of_the_first(self.ranks, lambda: [publish()])
        self.published.append(published)
        self.pace.evaluation(self.clock() - began)
        manifest = published.manifest
        log.info(
            "Checkpoint published",
            extra={
                "checkpoint": manifest.name,
                "trainLoss": manifest.train_loss,
                "metrics": manifest.metrics,
                "validationMetrics": manifest.validation_metrics,
                "sizeBytes": published.size_bytes,
                "digest": published.digest,
            },
        )
        measured = {"test": manifest.metrics, "validation": manifest.validation_metrics}
        told = {rows: metrics for rows, metrics in measured.items() if metrics}
        self.recorder.epoch(self.steps_done, train_loss, told)
        self.report()

    def judged(self, epoch: int, which: str, examples: Examples | None, part: HeldOut | None) -> Judged | None:
        if examples is None or part is None:
            return None
        logits = self.learner.predict(examples, f"{which} rows")
        check_answers(logits, epoch, which, part.rows.numbered)
        return Judged(logits, examples.targets)

    def report(self) -> None:
        self.progress.update(
            state="Running",
            epoch=min(self.position.epoch, self.parameters.num_train_epochs),
            totalEpochs=self.parameters.num_train_epochs,
            step=self.steps_done,
            totalSteps=self.total_steps,
            etaSeconds=self.pace.eta_seconds,
            message=None,
            **self.history(),
        )

    def history(self) -> dict[str, Any]:
        """The fields that /progress and the termination message share."""
        data = self.prepared.data
        rows = {"trainingRows": len(self.prepared.rows), "overlap": data.test.overlap if data.test else 0}
        if data.test:
            rows["testRows"] = len(data.test.targets)
        if data.validation:
            rows |= {"validationRows": len(data.validation.targets), "validationOverlap": data.validation.overlap}
        told = outcome.history(self.published, self.prepared.primary, self.prepared.selected_on)
        return {**rows, **told, "warnings": self.telling.told()}

    @property
    def stopped_early(self) -> int | None:
        prepared = self.prepared
        return outcome.stopped_early(
            self.published, prepared.job.spec.early_stopping, prepared.primary, prepared.selected_on
        )

    def ending(self) -> dict[str, str]:
        prepared = self.prepared
        wanted, epochs = prepared.job.spec.early_stopping, self.parameters.num_train_epochs
        return outcome.ending(self.published, wanted, prepared.primary, prepared.selected_on, epochs)
