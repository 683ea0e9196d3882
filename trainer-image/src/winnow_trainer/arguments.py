"""What can be asked of the command line, in words: its commands and their options."""

import argparse
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

from winnow_classifier.addresses import Network, network
from winnow_classifier.dataset_manifest import TASK_DETAILS
from winnow_classifier.errors import ConfigError
from winnow_classifier.row_files import FileFormat
from winnow_classifier.rows import OnInvalidRows
from winnow_trainer import reception
from winnow_trainer.fetch import Limits
from winnow_trainer.hub_dataset import TOKEN_VARIABLE
from winnow_trainer.receiver import PORT

BASE_MODEL = "a folder, hf://repo@revision or s3://bucket/prefix"
EXIT_CODES = """\
exit codes:
  0 done   1 a bug   10 bad configuration   11 bad rows   12 out of memory   13 the loss is not finite
  20 storage or network: try again   21 another process of the job ended: try again
  130 Ctrl-C, of `train` the second one
  143 stopped; `train` goes on from there when it is started again"""


def parser() -> argparse.ArgumentParser:
    root = _Parser(
        prog="python -m winnow_trainer",
        description="Import labelled rows and train a text classifier on them.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = root.add_subparsers(
        dest="command", required=True, metavar="import | train | refit | compare | artifacts | collect"
    )
    _add_import(commands)
    _add_train(commands)
    _add_refit(commands)
    _add_compare(commands)
    _add_collect(commands)
    _add_artifacts(commands)
    return root


def _add_import(commands: "argparse._SubParsersAction[Any]") -> None:
    add = commands.add_parser(
        "import",
        help="check rows and store them as a dataset",
        description="Check every row of a file and store them as an immutable dataset, named by a digest of its rows.",
        epilog="example: python -m winnow_trainer import --file rows.csv --labels ham,spam --storage storage",
    ).add_argument
    add(
        "--file",
        type=Path,
        nargs="+",
        action="extend",
        metavar="PATH",
        help="the rows: JSON, CSV or Parquet, also compressed with gzip or zstd; files, folders or globs such as "
        "'shards/*.jsonl.gz' ('**' for any folders); default: where spec.source of --dataset says",
    )
    _add_storage(add)
    add("--dataset", type=Path, metavar="FILE", help="read the options below from a Dataset manifest (YAML)")
    limits = Limits()
    add("--scratch", type=Path, metavar="DIR", help="where fetched files lie meanwhile (default: a temporary folder)")
    add("--max-bytes", type=int, default=limits.max_bytes, metavar="N", help="fetch no more (default: %(default)s)")
    seconds = int(limits.timeout_seconds)
    add("--timeout-seconds", type=int, default=seconds, metavar="N", help="fetch no longer (default: %(default)s)")
    token = "environment variable with the access token of a huggingFace source (default: %(default)s)"
    add("--hub-token-env", default=TOKEN_VARIABLE, metavar="NAME", help=token)
    receive = "receive spec.source.upload into this folder first, on a port of this machine's loopback"
    add("--receive", type=Path, metavar="DIR", help=receive)
    add("--receive-port", type=int, default=PORT, metavar="PORT", help="0: any (default: %(default)s)")
    idle = "give up when no byte came for so long (default: %(default)s)"
    add("--receive-idle-seconds", type=float, default=reception.IDLE_SECONDS, metavar="N", help=idle)
    keys = "the names of the variables with the keys of source.s3 begin with this (default: AWS_ACCESS_KEY_ID, …)"
    add("--source-keys", default="", metavar="PREFIX", help=keys)
    add("--base-model", metavar="REF", help=f"measure the rows in its tokens: {BASE_MODEL}")
    _add_base_keys(add)
    add("--format", metavar="NAME", help=_choices(FileFormat, "by the content"))
    add("--task-detail", metavar="NAME", help=_choices(TASK_DETAILS, "as the rows show it"))
    add("--labels", metavar="A,B", help="fix label names and order; for 0/1 rows: negative first")
    add("--text-column", metavar="NAME", help="the field with the text (default: prompt, input or text)")
    add("--target-column", metavar="NAME", help="the field with the target (default: completion, …)")
    add("--on-invalid-rows", metavar="NAME", help=_choices(OnInvalidRows, "Fail"))
    _add_result(add, "result")


def _add_train(commands: "argparse._SubParsersAction[Any]") -> None:
    add = commands.add_parser(
        "train",
        help="train, evaluate each epoch, write checkpoints",
        description="Run a TrainingJob manifest. Started again, it goes on where it stopped.",
        epilog="In the manifest trainingDataset, testDataset and validationDataset are folders of stored datasets or files "
        f"of rows, and baseModel is {BASE_MODEL}.",
    ).add_argument
    add("--job", type=Path, required=True, metavar="FILE", help="a TrainingJob manifest (YAML)")
    _add_storage(add)
    _add_base_keys(add)
    add("--run", metavar="NAME", help="folder below runs/ (default: the job's name)")
    rank = "which of the machines this is, where the job has nodes above 1: from 0 (default: %(default)s)"
    add("--node-rank", type=int, default=0, metavar="N", help=rank)
    add("--rendezvous", metavar="HOST:PORT", help="where the first of the machines listens for the others")
    add("--require-gpu", action="store_true", help="end where torch sees no GPU (default: train on CPUs there)")
    add("--progress-port", type=int, metavar="PORT", help="serve /progress, /metrics and /healthz there; 0: any port")
    add("--termination-log", type=Path, metavar="FILE", help="write the result as compact JSON, 4,096 bytes at most")


def _add_result(add: Callable[..., Any], printed: str) -> None:
    add("--json", action="store_true", help=f"print the {printed} as JSON")
    add("--termination-log", type=Path, metavar="FILE", help="write the result as compact JSON, 4,096 bytes at most")


def _add_compare(commands: "argparse._SubParsersAction[Any]") -> None:
    add = commands.add_parser(
        "compare",
        help="metrics of a checkpoint, and whether it is worse than another one",
        description="Read what two checkpoints answered to the same test rows, and say by a paired bootstrap how much better one of them is at "
        "least. No model is loaded.",
        epilog="example: python -m winnow_trainer compare --storage storage --candidate runs/v2/checkpoints/epoch-3 "
        "--live runs/v1/checkpoints/epoch-2 --value 'recall[spam]'",
    ).add_argument
    _add_storage(add)
    add("--candidate", required=True, metavar="PATH", help="the checkpoint, in the storage")
    add("--candidate-digest", metavar="DIGEST", help="sha256:… that it must have")
    add("--live", metavar="PATH", help="the checkpoint that it is compared with, in the storage")
    add("--live-digest", metavar="DIGEST", help="sha256:… that that one must have")
    add("--metric", metavar="NAME", help="what is compared (default: the primary metric of the candidate's training)")
    value = "a metric to tell, as f1_macro or recall[spam] (repeatable)"
    add("--value", action="append", default=[], metavar="NAME", help=value)
    _add_result(add, "result")


def _add_refit(commands: "argparse._SubParsersAction[Any]") -> None:
    add = commands.add_parser(
        "refit",
        help="fit calibration and thresholds of a checkpoint anew, without training",
        description="Fit decision.json of a checkpoint again from what it answered to its validation rows. The weights stay. Servers "
        "that serve it take the new file without a restart: within a second from a volume, within half a minute from a bucket.",
        epilog="example: python -m winnow_trainer refit --storage storage --run spam-v1 --checkpoint epoch-2 "
        "--objective PrecisionAtLeast --value 0.95",
    ).add_argument
    _add_storage(add)
    add("--run", required=True, metavar="NAME", help="folder below runs/")
    add("--checkpoint", required=True, metavar="NAME", help="such as epoch-2")
    add(
        "--objective",
        metavar="NAME",
        help="F1, PrecisionAtLeast, RecallAtLeast or Cost: what the threshold of each label is fitted for",
    )
    add(
        "--value",
        type=float,
        metavar="N",
        help="the precision or recall to reach, of PrecisionAtLeast and RecallAtLeast",
    )
    add(
        "--false-positive-cost",
        type=float,
        metavar="N",
        help="of Cost: what a label costs that is predicted and does not hold",
    )
    add(
        "--false-negative-cost",
        type=float,
        metavar="N",
        help="of Cost: what a label costs that holds and is not predicted",
    )
    add("--abstain-band", type=float, metavar="N", help="abstain where a label is nearer to its threshold than this")
    add("--abstain-min-probability", type=float, metavar="N", help="abstain where the likeliest label has less")
    add("--same", action="store_true", help="fit for what the last fit was for, in place of the options above")
    add("--no-thresholds", action="store_true", help="fit calibration alone: fitted thresholds and abstention go")
    add("--uncalibrated", action="store_true", help="leave probabilities as the model gives them")
    _add_result(add, "decision")


def _add_collect(commands: "argparse._SubParsersAction[Any]") -> None:
    add = commands.add_parser(
        "collect",
        help="remove rows and checkpoints that nothing needs any more",
        description="Remove datasets from storage by their digests, checkpoints by their runs and names, and what imports that were "
        "killed left there. What is not there is no error, and it can be stopped and started again at any moment.",
        epilog="example: python -m winnow_trainer collect --storage storage --remove sha256:0123…",
    ).add_argument
    _add_storage(add)
    add("--remove", action="append", default=[], metavar="DIGEST", help="rows to remove (repeatable)")
    names = "dataset whose imports/NAME/problems.jsonl goes (repeatable)"
    add("--remove-problems-of", action="append", default=[], metavar="NAME", help=names)
    of_runs = "checkpoint of a run that has ended (repeatable)"
    add("--remove-checkpoint", action="append", default=[], metavar="RUN/NAME", help=of_runs)
    before = "keep rows that an import stored or found again since then, as 2026-11-24T20:00:00Z (default: now)"
    add("--before", type=_time, default=datetime.now(UTC), metavar="TIME", help=before)
    _add_result(add, "result")


def _add_artifacts(commands: "argparse._SubParsersAction[Any]") -> None:
    add = commands.add_parser(
        "artifacts",
        help="write a checkpoint's files to stdout",
        description="Write checkpoint.json to stdout, or the files that are named as a tar archive.",
        epilog="example: python -m winnow_trainer artifacts --storage s3://winnow/mail --run v1 --checkpoint epoch-3 --file report.html | tar x",
    ).add_argument
    _add_storage(add)
    add("--run", required=True, metavar="NAME", help="folder below runs/")
    add("--checkpoint", required=True, metavar="NAME", help="such as epoch-3")
    add("--file", action="append", default=[], metavar="NAME", help="a file of the checkpoint (repeatable)")
    add("--termination-log", type=Path, metavar="FILE", help="where an error is written as JSON, too")


def _add_base_keys(add: Callable[..., Any]) -> None:
    keys = "the names of the variables for a base model in s3:// begin with this (default: AWS_ACCESS_KEY_ID, …)"
    add("--base-keys", default="", metavar="PREFIX", help=keys)


def _add_storage(add: Callable[..., Any]) -> None:
    what = "folder for datasets, base models and runs, or s3://bucket/prefix with keys, endpoint and region from AWS_…"
    add("--storage", required=True, metavar="DIR", help=what)
    add("--mirror", type=Path, metavar="DIR", help="where files of s3:// storage lie meanwhile (default: temporary)")
    networks = "connect to addresses in there too (repeatable); otherwise to public ones only"
    add("--allow-network", type=_network, action="append", default=[], metavar="CIDR", help=networks)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError(message, hint=f"{self.prog} --help")


def _time(given: str) -> datetime:
    try:
        found = datetime.fromisoformat(given)
    except ValueError as err:
        raise argparse.ArgumentTypeError(f"{given!r} is no time such as 2026-11-24T20:00:00Z: {err}") from err
    return found if found.tzinfo else found.astimezone()


def _network(given: str) -> Network:
    try:
        return network(given)
    except ValueError as err:
        raise argparse.ArgumentTypeError(str(err)) from err


def _choices(values: Any, default: str) -> str:
    return f"{' | '.join(str(value) for value in values)} (default: {default})"
