"""The command line: import rows, train, refit, compare, hand out artifacts, collect. Errors in words on stderr, exit codes as
pods and scripts expect them."""

import argparse
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event
from types import FrameType
from typing import Any, NoReturn

import orjson

from winnow_classifier import base_model, verdict
from winnow_classifier.base_bucket import BaseBucket
from winnow_classifier.base_hub import HuggingFaceHub
from winnow_classifier.dataset_manifest import GivenOptions, read_dataset, row_options
from winnow_classifier.errors import ConfigError, DataError, OutOfMemoryError_, StorageFull, WinnowError
from winnow_classifier.files import DECISION, is_full
from winnow_classifier.mirror import Mirror, opened
from winnow_classifier.refit_options import RefitOptions
from winnow_classifier.row_paths import common_folder, find_files, is_glob
from winnow_classifier.rows import InvalidRowsError, RowOptions
from winnow_trainer import group, importer, logs, reception, termination
from winnow_trainer.arguments import parser
from winnow_trainer.collect import collect
from winnow_trainer.console import TerminalLine
from winnow_trainer.fetch import Limits
from winnow_trainer.fetched import Fetched
from winnow_trainer.progress import FIELDS, Progress
from winnow_trainer.progress_server import served
from winnow_trainer.receiver import received
from winnow_trainer.sources import fetch, source_of

log = logging.getLogger(__name__)

EXIT_STOPPED = 143  # 128 + SIGTERM
LAST_READ_SECONDS = 20.0  # the operator reads /progress about every 15 s


class Terminated(BaseException):
    """SIGTERM during an import: unwind, so that nothing half-written stays."""


def main(arguments: Sequence[str] | None = None) -> int:
    try:
        options = parser().parse_args(arguments)
    except ConfigError as err:
        _say(err)
        return err.exit_code
    logs.set_up()
    pinned: dict[str, str] = {}
    progress = Progress()
    commands: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
        "collect": collect_unused,
        "compare": compare_checkpoints,
        "import": partial(import_rows, pinned=pinned),
        "refit": refit,
        "train": partial(train, progress=progress, arguments=sys.argv[1:] if arguments is None else [*arguments]),
    }
    failed: Callable[[str, str, BaseException], dict[str, Any]] = partial(verdict.failed_message, options.command)
    if options.command == "import":
        failed = partial(_failed_import, pinned)
    elif options.command == "train":
        failed = _failed_training(progress)
        options.termination_log = group.own_message_file(options.termination_log)
    try:
        if options.command == "artifacts":
            hand_out_files(options)
            return 0
        result = commands[options.command](options)
        sys.stdout.flush()  # at the end of the process nobody could tell in words what came of it
    except Terminated:
        termination.write(
            options.termination_log, failed("Stopped", "Stopped before the end; start it again", Terminated())
        )
        return EXIT_STOPPED
    except group.GroupEnded as ended:
        termination.write(options.termination_log, ended.message)
        return ended.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except WinnowError as err:
        return _fail(err, options, failed)
    except MemoryError as err:
        out = OutOfMemoryError_("there is not enough memory", hint="give the program more memory")
        out.__cause__ = err
        return _fail(out, options, failed)
    except BrokenPipeError:
        _end_output()
        return 0  # whoever reads has seen enough; what was asked for is done
    except Exception as err:
        if isinstance(err, OSError) and is_full(err):  # not in storage: there it was raised as StorageFull
            _end_output()
            what = err.filename or "the output or a temporary file"
            return _fail(StorageFull(f"{what} cannot be written: {err.strerror}"), options, failed)
        log.exception("Unexpected error. This is a bug")
        message = f"{type(err).__name__}: {err}; this is a bug, its traceback stands in the log"
        termination.write(options.termination_log, failed("InternalError", message, err))
        return 1
    termination.write(options.termination_log, result)
    return EXIT_STOPPED if result["state"] == "Stopped" else 0


def _end_output() -> None:
    """Keep Python from writing the rest of stdout at its exit, which would fail once more."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _unwind(*_: object) -> NoReturn:
    raise Terminated


def import_rows(options: argparse.Namespace, pinned: dict[str, str]) -> dict[str, Any]:
    """`pinned` is filled in as soon as it is known: a failure tells it too."""
    with _handled(_unwind, signal.SIGTERM):
        how, name = _row_options(options)
        with _storage(options) as (storage, mirror), _files(options) as found:
            reception.remove_stale(storage / reception.FOLDER)
            pinned |= found.pinned
            how = replace(how, class_names=found.class_names)
            resolve = partial(base_model.resolve_tokenizer, **_places(options))
            imported = importer.import_files(
                found.files, storage, how, options.base_model, name, mirror=mirror, resolve=resolve
            )
            stored = mirror.shown(imported.dataset.path)
            picture = mirror.shown(imported.picture) if imported.picture else None
    imported.verdict.profile.warnings.extend(found.warnings)
    message = _with_source(verdict.ready_message(imported.verdict, "import"), pinned)
    if options.json:
        print(orjson.dumps({**message, "path": stored, "picture": picture}, option=orjson.OPT_INDENT_2).decode())
    else:
        lines = [*verdict.summary(imported.verdict), f"stored  {stored}"]
        lines += [f"source  {name} {value}" for name, value in pinned.items()]
        lines += [f"picture {picture}"] if picture else []
        print("\n".join(lines))
    return message


def _with_source(message: dict[str, Any], pinned: dict[str, str]) -> dict[str, Any]:
    return {**message, "source": pinned} if pinned else message


def _failed_import(pinned: dict[str, str], reason: str, message: str, error: BaseException) -> dict[str, Any]:
    return _with_source(verdict.failed_message("import", reason, message, error), pinned)


def collect_unused(options: argparse.Namespace) -> dict[str, Any]:
    with _handled(_unwind, signal.SIGTERM), _storage(options) as (storage, mirror):
        asked = (options.remove, options.remove_problems_of, options.before, mirror, options.remove_checkpoint)
        found = collect(storage, *asked)
    message = found.message()
    print(orjson.dumps(message, option=orjson.OPT_INDENT_2).decode() if options.json else message["message"])
    return message


def compare_checkpoints(options: argparse.Namespace) -> dict[str, Any]:
    from winnow_trainer.compare import Value, compare  # as in train(): torch takes seconds to import

    wanted = [Value.of(text) for text in options.value]
    with _handled(_unwind, signal.SIGTERM), _storage(options) as (storage, mirror):
        found = compare(
            storage / options.candidate,
            options.candidate_digest,
            wanted,
            storage / options.live if options.live else None,
            options.live_digest,
            options.metric,
            mirror,
        )
    message = found.message()
    print(orjson.dumps(message, option=orjson.OPT_INDENT_2).decode() if options.json else "\n".join(found.lines()))
    return message


def refit(options: argparse.Namespace) -> dict[str, Any]:
    given = RefitOptions(**{field.name: getattr(options, field.name) for field in fields(RefitOptions)})
    asked = given.asked("python -m winnow_trainer refit --help")
    from winnow_trainer.advice import about_band
    from winnow_trainer.refit import refit_checkpoint, words

    folder = Path("runs", options.run, "checkpoints", options.checkpoint)
    with _handled(_unwind, signal.SIGTERM), _storage(options) as (storage, mirror):
        decision = refit_checkpoint(storage / folder, asked, mirror, calibration=not given.uncalibrated)
        shown = mirror.shown(storage / folder)
    for warning in about_band(decision):
        print(f"warning: {warning.message} ({warning.code})", file=sys.stderr)
    lines = words(decision)
    if options.json:
        print(decision.model_dump_json(by_alias=True, exclude_none=True, indent=2))
    else:
        print("\n".join([*lines, f"stored {shown}/{DECISION}"]))
    return {"kind": "refit", "state": "Done", "message": "; ".join(lines)}


def hand_out_files(options: argparse.Namespace) -> None:
    from winnow_trainer.hand_out import hand_out

    with _handled(_unwind, signal.SIGTERM), _storage(options) as (storage, mirror):
        hand_out(storage, mirror, options.run, options.checkpoint, options.file, sys.stdout.buffer)


def train(options: argparse.Namespace, progress: Progress, arguments: list[str]) -> dict[str, Any]:
    """Raises GroupEnded where the job wants several processes: each of them comes here again, with its number."""
    stop = Event()
    with ExitStack() as stack:
        # Before anything slow: a container's first process never sees a signal that it does not handle.
        stack.enter_context(_handled(_setter(stop), signal.SIGTERM, signal.SIGINT))
        # Here and not above: torch takes seconds to import, and neither --help nor an import of rows needs it.
        from winnow_classifier.gpu import require_gpu
        from winnow_trainer.job import a_folders_name, load_job

        try:
            if options.run is not None:
                a_folders_name(options.run)
        except ValueError as err:
            raise ConfigError(f"--run: {err}, found {options.run!r}") from err
        job = load_job(options.job)
        if options.require_gpu:
            require_gpu()
        storage, mirror = stack.enter_context(_storage(options))
        run = storage / "runs" / (options.run or job.run)
        several = job.spec.processes > 1 and (group.launched() or not _finished(run, mirror))
        if several and not group.launched():
            from winnow_trainer import launch

            where = launch.place(job.spec.nodes, options.node_rank, options.rendezvous)
            launch.run(where, job.spec.processes_per_node, arguments, run.name, stop)
        if group.leads():
            _tell(progress, options, stack)
        else:
            logging.getLogger().setLevel(logging.ERROR)  # the first process says what all would say
        from winnow_trainer.ranks import joined
        from winnow_trainer.tracking import trackers
        from winnow_trainer.train import train as run_training

        ranks = stack.enter_context(joined(job.spec.processes if several else 1))
        result = run_training(
            job,
            storage,
            run=options.run,
            progress=progress,
            stop=stop,
            import_rows=lambda file: _import_missing(file, storage, mirror),
            mirror=mirror,
            track=trackers(options.allow_network, os.environ),
            ranks=ranks,
            resolve=partial(
                base_model.resolve,
                **_places(options),
                told=lambda words: progress.update(message=words),
            ),
        )
        progress.update(**{name: result[name] for name in ("state", "reason", "message") if name in result})
        if options.progress_port is not None and options.termination_log and not several:
            _wait_for_a_reader(progress, result, stop)
    if group.leads():
        _print_checkpoints(result, mirror.shown(run / "checkpoints"))
    return result


def _wait_for_a_reader(progress: Progress, result: dict[str, Any], stop: Event) -> None:
    """After a quick run of many epochs, those that nobody has read yet may not fit into the termination message."""
    new = {
        key: [entry for entry in result[key] if entry["epoch"] > progress.epochs_read]
        for key in ("epochs", "checkpoints")
    }
    if result["state"] == "Complete" and not termination.tells_all({**result, **new}):
        log.info("Waiting until /progress is read once more", extra={"seconds": LAST_READ_SECONDS})
        progress.wait_for_a_reader(LAST_READ_SECONDS, stop)


def _finished(run: Path, mirror: Mirror) -> bool:
    """Whether the run has ended before. Then one process is enough to say so, and the others may be gone for good."""
    result = run / "result.json"
    mirror.fetch(result)
    return result.is_file()


def _tell(progress: Progress, options: argparse.Namespace, stack: ExitStack) -> None:
    """To whoever asks, and on the terminal, until the stack unwinds."""
    if options.progress_port is not None:
        stack.enter_context(served(progress, options.progress_port))
    if sys.stderr.isatty():
        console = TerminalLine(sys.stderr)
        stack.callback(console.close)
        progress.listen(console)


def _storage(options: argparse.Namespace) -> AbstractContextManager[tuple[Path, Mirror]]:
    return opened(options.storage, options.mirror, options.allow_network, os.environ)


def _places(options: argparse.Namespace) -> Mapping[str, Any]:
    """Where base models may lie that are not on this machine."""
    return {
        "hub": HuggingFaceHub(os.environ.get("HF_TOKEN"), options.allow_network),
        "bucket": BaseBucket(options.allow_network, os.environ, options.base_keys),
    }


def _import_missing(file: Path, storage: Path, mirror: Mirror) -> Path:
    try:
        imported = importer.import_files([file], storage, RowOptions(), mirror=mirror)
    except DataError as err:
        err.args = (f"{file}: {err}",)  # a job has several
        if isinstance(err, InvalidRowsError):  # a job has no options for rows either
            err.hint = f"correct them, or `python -m winnow_trainer import --file {file} --on-invalid-rows Skip`, and name the folder that it prints"
        raise
    log.info("Rows imported", extra={"file": str(file), "rows": imported.verdict.profile.rows})
    return imported.dataset.path


def _print_checkpoints(result: dict[str, Any], folder: str) -> None:
    print(result["message"])
    for warning in result.get("warnings") or []:
        print(f"warning: {warning['message']} ({warning['code']})")
    for checkpoint in result.get("checkpoints", []):
        best = "  best" if checkpoint["name"] == result.get("bestCheckpoint") else ""
        print(f"{checkpoint['name']}  {folder}/{checkpoint['name']}{best}")


@contextmanager
def _files(options: argparse.Namespace) -> Iterator[Fetched]:
    """The row files: those named, or else received or fetched for as long as they are read."""
    if options.file:
        yield Fetched(find_files(options.file))
        return
    source = source_of(read_dataset(options.dataset).spec.source if options.dataset else None)
    if options.receive:
        if source.upload is None:
            raise ConfigError("--receive: spec.source of the manifest is no upload", hint="set spec.source.upload")
        arriving = reception.Reception(options.receive, source.upload.size_bytes, source.upload.sha256)
        with received(arriving, options.receive_port, options.receive_idle_seconds) as file:
            yield Fetched([file])
        return
    limits = Limits(options.max_bytes, options.timeout_seconds, tuple(options.allow_network))
    if options.scratch and not options.scratch.is_dir():
        raise ConfigError(f"--scratch: there is no folder {options.scratch}")
    with TemporaryDirectory(dir=options.scratch, prefix="rows-") as folder:
        yield fetch(source, Path(folder), limits, os.environ, options.hub_token_env, options.source_keys)


def _row_options(options: argparse.Namespace) -> tuple[RowOptions, str]:
    """How to read the rows, and the name of their dataset."""
    given: GivenOptions = {
        "format": options.format,
        "task_detail": options.task_detail,
        "labels": options.labels,
        "text_column": options.text_column,
        "target_column": options.target_column,
        "on_invalid_rows": options.on_invalid_rows,
    }
    found, name = row_options(given, options.dataset)
    return found, name or (_name(options.file) if options.file else "rows")


def _name(files: Sequence[Path]) -> str:
    """The dataset's name: that of the first file, or of the folder that its glob begins in."""
    first = Path(os.path.normpath(files[0].absolute()))  # `..` is no name, and would lead out of imports/ in storage
    name = next(path.stem for path in (first, *first.parents) if not is_glob(path.name))
    return name if name.strip(".") else "rows"


Handler = Callable[[int, FrameType | None], None]


def _setter(stop: Event) -> Handler:
    def on_signal(number: int, frame: FrameType | None) -> None:
        if stop.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt  # a second Ctrl-C ends at once
        stop.set()
        log.info("Stopping after this step", extra={"signal": signal.Signals(number).name})

    return on_signal


@contextmanager
def _handled(handler: Handler, *signals: signal.Signals) -> Iterator[None]:
    before = {number: signal.signal(number, handler) for number in signals}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)


def _failed_training(progress: Progress) -> Callable[[str, str, BaseException], dict[str, Any]]:
    moment = {"state", "percent", "epoch", "totalEpochs", "step", "totalSteps", "etaSeconds", "tokensPerSecond", "loss"}
    kept = FIELDS - moment - {"learningRate", "message", "reason"}

    def failed(reason: str, message: str, _: BaseException) -> dict[str, Any]:
        state = progress.snapshot()
        known = {name: value for name, value in state.items() if name in kept}
        return {"kind": "train", "state": "Failed", "reason": reason, "message": message, **known}

    return failed


def _fail(
    err: WinnowError, options: argparse.Namespace, failed: Callable[[str, str, BaseException], dict[str, Any]]
) -> int:
    result = failed(err.reason, verdict.in_one_line(err), err)
    termination.write(options.termination_log, result)
    if getattr(options, "json", False):
        print(orjson.dumps(result, option=orjson.OPT_INDENT_2).decode())
    named = options.command == "import" and options.file and isinstance(err, InvalidRowsError)
    files = find_files(options.file) if named else []
    _say(err, files[0] if len(files) == 1 else Path(common_folder(files)) if files else None)
    return err.exit_code


def _say(err: WinnowError, where: Path | None = None) -> None:
    print("\n".join(verdict.error_lines(err, where)), file=sys.stderr)
