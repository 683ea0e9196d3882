"""From a row file to a stored dataset: read, judge, profile, store."""

import errno
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Self

import orjson
from tokenizers import Tokenizer

from winnow_classifier import base_model
from winnow_classifier.dataset import DatasetWriter, PublishedDataset
from winnow_classifier.errors import BaseModelError, StorageError, StorageFull, WinnowError
from winnow_classifier.labels import LabelSchema
from winnow_classifier.profile import Profile, Profiler, Warn
from winnow_classifier.row_files import Problem
from winnow_classifier.rows import Judge, RowOptions
from winnow_classifier.verdict import Verdict, place

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
) -> Imported:
    """Reads, judges, profiles and stores in one pass. Raises a WinnowError; then no row is stored.

    All problems, not only the first, go to imports/<name>/problems.jsonl in storage, where a name is given.
    """
    count_tokens, unknown = _token_counter(base_model_reference, storage)
    with _ProblemFile(storage / "imports" / name if name else None) as problems, DatasetWriter(storage) as writer:
        judge, profiler = Judge(options, problems.add), Profiler()
        for batch in judge.read(files):
            profiler.add(batch, count_tokens(batch.texts))
            writer.add(batch)
        found = profiler.finish(judge.schema)
        dataset = writer.publish(judge.schema)
    write_profile(dataset.path, found)
    if unknown:
        found.warnings.append(Warn("NoTokenLengths", unknown))
    verdict = Verdict(judge.schema, dataset.digest, judge.origin, found, judge.problem_count, judge.problems)
    return Imported(dataset, verdict, write_picture(dataset.path, found, judge.schema))


def write_profile(dataset: Path, found: Profile) -> None:
    """profile.json beside the rows, whole or not at all. The last import's word stands: token lengths depend on the
    base model."""
    temporary = dataset / f".tmp-{PROFILE_FILE}"
    try:
        temporary.write_bytes(orjson.dumps(found.document(), option=orjson.OPT_INDENT_2) + b"\n")
        temporary.replace(dataset / PROFILE_FILE)
    except OSError as err:
        raise StorageError(f"{dataset / PROFILE_FILE} cannot be written: {err.strerror or err}") from err


def write_picture(dataset: Path, found: Profile, schema: LabelSchema) -> Path | None:
    """profile.png beside the rows. They are stored whatever becomes of it, so what goes wrong here is only logged."""
    temporary = dataset / f".tmp-{PICTURE_FILE}"
    try:
        logging.getLogger("matplotlib").setLevel(logging.ERROR)  # no word on where it keeps its list of fonts
        from winnow_trainer.picture import draw  # here, because the library takes a second to import

        temporary.write_bytes(draw(found, schema))
        temporary.replace(dataset / PICTURE_FILE)
    except Exception as err:
        log.warning("The picture of the profile was not drawn", extra={"error": f"{type(err).__name__}: {err}"})
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        return None
    return dataset / PICTURE_FILE


class _ProblemFile:
    """A line of JSON for each problem. It appears when all are in it; an import without any removes an older one."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._stream: IO[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def add(self, problem: Problem) -> None:
        if self._folder is None:
            return
        with _told(self._folder):
            if self._stream is None:
                self._folder.mkdir(parents=True, exist_ok=True)
                self._stream = (self._folder / f".tmp-{PROBLEMS_FILE}").open("wb")
            self._stream.write(orjson.dumps(place(problem), option=orjson.OPT_APPEND_NEWLINE))

    def __exit__(self, *_: object) -> None:
        if self._folder is None:
            return
        with _told(self._folder):
            if self._stream is None:
                (self._folder / PROBLEMS_FILE).unlink(missing_ok=True)
            else:
                self._stream.close()
                Path(self._stream.name).replace(self._folder / PROBLEMS_FILE)


@contextmanager
def _told(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as err:
        full = err.errno in (errno.ENOSPC, errno.EDQUOT)
        raise (StorageFull if full else StorageError)(f"{folder / PROBLEMS_FILE}: {err.strerror or err}") from err


CountTokens = Callable[[Sequence[str]], Sequence[int]]


def _token_counter(reference: str | None, storage: Path) -> tuple[CountTokens, str | None]:
    """Counts the tokens of texts; or why it cannot: rows are good rows even where the base model is not there."""
    if reference is None:
        return lambda texts: (), None
    try:
        file = base_model.resolve(reference, storage) / "tokenizer.json"
        try:
            tokenizer = Tokenizer.from_file(str(file))
        except Exception as err:  # the library raises nothing narrower
            raise BaseModelError(f"{file} is not a tokenizer: {err}") from err
    except WinnowError as err:
        return lambda texts: (), f"the rows' lengths in tokens are not known: {err}"
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return lambda texts: [len(encoding) for encoding in tokenizer.encode_batch_fast(list(texts))], None
