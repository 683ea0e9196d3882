"""From a row file to a stored dataset: read, judge, profile, store."""

import logging
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Self

import orjson
from tokenizers import Tokenizer

from winnow_classifier import base_model
from winnow_classifier.dataset import (
    DATASET_FILE,
    ROWS_FILE,
    DatasetWriter,
    PublishedDataset,
    remove_stale,
    storage_errors,
)
from winnow_classifier.errors import BaseModelError, DataError, StorageError, WinnowError
from winnow_classifier.labels import LabelSchema
from winnow_classifier.mirror import Mirror
from winnow_classifier.profile import Profile, Profiler, Warn
from winnow_classifier.row_files import Problem
from winnow_classifier.rows import Judge, RowOptions
from winnow_classifier.verdict import Verdict, in_one_line, place

log = logging.getLogger(__name__)

PROFILE_FILE = "profile.json"
PICTURE_FILE = "profile.png"
PROBLEMS_FILE = "problems.jsonl"


@dataclass(frozen=True, slots=True)
class Imported:
    dataset: PublishedDataset
    verdict: Verdict
    picture: Path | None  # of its profile, if it could be drawn


def import_files(
    files: Sequence[Path],
    storage: Path,
    options: RowOptions,
    base_model_reference: str | None = None,
    name: str | None = None,
    *,
    mirror: Mirror,
    resolve: base_model.Resolve = base_model.resolve_tokenizer,
) -> Imported:
    """Reads, judges, profiles and stores in one pass. Raises a WinnowError; then no row is stored.

    All problems, not only the first, go to imports/<name>/problems.jsonl in storage, where a name is given.
    """
    count_tokens, unknown = _token_counter(base_model_reference, storage, resolve)
    problem_file = _ProblemFile(storage / "imports" / name if name else None, mirror)
    with problem_file as problems, DatasetWriter(storage) as writer:
        judge, profiler = Judge(options, problems.add), Profiler()
        for batch in judge.read(files):
            profiler.add(batch, count_tokens(batch.texts))
            writer.add(batch)
        problems.close()  # while nothing is published yet: a full volume may show with the last problem
        found = profiler.finish(judge.schema)
        if unknown:
            found.warnings.append(Warn("NoTokenLengths", unknown))
        # The last import's word stands: token lengths depend on the base model.
        beside = {PROFILE_FILE: _encoded(found)}
        if picture := _drawn(found, judge.schema):
            beside[PICTURE_FILE] = picture
        mirror.fetch_folder(writer.folder(judge.schema), DATASET_FILE)  # the same rows may be stored already
        dataset = writer.publish(judge.schema, beside)
        _store(dataset, mirror)
    verdict = Verdict(judge.schema, dataset.digest, judge.origin, found, judge.problem_count, judge.problems)
    return Imported(dataset, verdict, dataset.path / PICTURE_FILE if picture else None)


def _store(dataset: PublishedDataset, mirror: Mirror) -> None:
    """Of rows that are stored already dataset.json goes up again all the same: its time says that they were wanted now."""
    if not dataset.is_new:
        for file in (PROFILE_FILE, PICTURE_FILE, DATASET_FILE):
            mirror.store(dataset.path / file)
        stored = mirror.sizes(dataset.path)
        if stored is None or ROWS_FILE in stored:
            return  # else they were cleared away at this moment
    mirror.publish(dataset.path, DATASET_FILE)


def _encoded(found: Profile) -> bytes:
    return orjson.dumps(found.document(), option=orjson.OPT_INDENT_2) + b"\n"


def _drawn(found: Profile, schema: LabelSchema) -> bytes | None:
    """profile.png. The rows are good whatever becomes of it, so what goes wrong here is only logged."""
    try:
        logging.getLogger("matplotlib").setLevel(logging.ERROR)  # no word on where it keeps its list of fonts
        from winnow_trainer.picture import draw  # here, because the library takes a second to import

        return draw(found, schema)
    except Exception as err:
        log.warning("The picture of the profile was not drawn", extra={"error": f"{type(err).__name__}: {err}"})
        return None


class _ProblemFile:
    """A line of JSON for each problem. It appears when all are in it; an import without any removes an older one, and
    one that did not come to judge all rows leaves nothing."""

    def __init__(self, folder: Path | None, mirror: Mirror) -> None:
        self._folder = folder
        self._mirror = mirror
        self._stream: IO[bytes] | None = None
        self._temporary = ""

    def __enter__(self) -> Self:
        return self

    def add(self, problem: Problem) -> None:
        if self._folder is None:
            return
        with storage_errors(self._folder / PROBLEMS_FILE):
            if self._stream is None:
                self._folder.mkdir(parents=True, exist_ok=True)
                remove_stale(self._folder, time.time())
                descriptor, self._temporary = tempfile.mkstemp(prefix=".tmp-", dir=self._folder)
                self._stream = os.fdopen(descriptor, "wb")
            self._stream.write(orjson.dumps(place(problem), option=orjson.OPT_APPEND_NEWLINE))

    def close(self) -> None:
        """After the last one."""
        if self._folder is not None and self._stream is not None:
            with storage_errors(self._folder / PROBLEMS_FILE):
                self._stream.close()

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if self._folder is None:
            return
        if error is not None and not isinstance(error, DataError):
            self._discard(self._folder)
            return
        try:
            with storage_errors(self._folder / PROBLEMS_FILE):
                if self._stream is None:
                    (self._folder / PROBLEMS_FILE).unlink(missing_ok=True)
                else:
                    self._stream.close()
                    Path(self._temporary).chmod(0o644)
                    Path(self._temporary).replace(self._folder / PROBLEMS_FILE)
            self._mirror.store(self._folder / PROBLEMS_FILE)
        except StorageError:
            self._discard(self._folder)
            raise

    def _discard(self, folder: Path) -> None:
        if self._stream is None:
            return
        with suppress(OSError):
            self._stream.close()
        Path(self._temporary).unlink(missing_ok=True)
        with suppress(OSError):
            folder.rmdir()  # unless an earlier import left its problems there


CountTokens = Callable[[Sequence[str]], Sequence[int]]


def _token_counter(reference: str | None, storage: Path, resolve: base_model.Resolve) -> tuple[CountTokens, str | None]:
    """Counts the tokens of texts; or why it cannot: rows are good rows even where the base model is not there."""
    if reference is None:
        return lambda texts: (), None
    try:
        file = resolve(reference, storage) / base_model.TOKENIZER
        try:
            tokenizer = Tokenizer.from_file(str(file))
        except Exception as err:  # the library raises nothing narrower
            raise BaseModelError(f"{file} is not a tokenizer: {err}") from err
    except WinnowError as err:
        return lambda texts: (), f"the rows' lengths in tokens are not known: {in_one_line(err)}"
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return lambda texts: [len(encoding) for encoding in tokenizer.encode_batch_fast(list(texts))], None
