"""The command line of `kubectl winnow`. Data on stdout, errors in words on stderr, exit codes as scripts expect them.

Each command imports what it needs itself: rows need no cluster, a cluster no pyarrow, and both would be felt at each start.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from importlib.metadata import version as version_of
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from winnow_classifier.errors import ConfigError, StorageError, WinnowError
from winnow_classifier.files import is_full
from winnow_plugin.objects import API_VERSION

if TYPE_CHECKING:
    from winnow_classifier.dataset_manifest import GivenOptions
    from winnow_plugin.cluster import Place

EXIT_USAGE = 10  # as the trainer's; typer's own is 2
EXIT_INTERRUPTED = 130  # 128 + SIGINT
GOES_ON = "the same command goes on where this one stood"
WHOLE = "what held before holds, or what was fitted, and nothing in between"
EXIT_CODES = (
    "Exit codes: 0 done, 1 the cluster refused or has no such object, 10 wrong options or kubeconfig, 11 wrong rows, "
    "12 not enough memory, 20 nothing answers, a file cannot be read or the volume is full: try again, 130 Ctrl-C."
)

app = typer.Typer(
    name="kubectl winnow",
    help="Check rows, upload them, watch what Winnow makes of them, fetch checkpoints, and fit their thresholds anew.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Namespace = Annotated[
    str | None,
    typer.Option("--namespace", "-n", metavar="NAME", help="The namespace; otherwise the one of the context."),
]
AllNamespaces = Annotated[bool, typer.Option("--all-namespaces", "-A", help="All namespaces.")]
Context = Annotated[
    str | None, typer.Option("--context", metavar="NAME", help="The kubeconfig's context; otherwise the current one.")
]
Kubeconfig = Annotated[
    Path | None,
    typer.Option("--kubeconfig", metavar="FILE", help="Otherwise as kubectl: $KUBECONFIG, then ~/.kube/config."),
]


# How rows are read, for validate and upload alike.
RowManifest = Annotated[
    Path | None,
    typer.Option("--dataset", metavar="FILE", help="Read the options below from a Dataset manifest (YAML)."),
]
RowFormat = Annotated[
    str | None,
    typer.Option("--format", metavar="NAME", help="Auto, JSONL, JSON, CSV, Parquet; otherwise by the content."),
]
RowTask = Annotated[
    str | None,
    typer.Option(
        "--task-detail", metavar="NAME", help="Auto, Binary, Multiclass, Multilabel; otherwise as the rows show it."
    ),
]
RowLabels = Annotated[
    str | None,
    typer.Option("--labels", metavar="A,B", help="Fix label names and order; for rows of 0 and 1: negative first."),
]
RowText = Annotated[
    str | None,
    typer.Option("--text-column", metavar="NAME", help="The field with the text; otherwise prompt, input or text."),
]
RowTarget = Annotated[
    str | None,
    typer.Option("--target-column", metavar="NAME", help="The field with the target; otherwise completion, …"),
]
RowSkip = Annotated[
    str | None,
    typer.Option("--on-invalid-rows", metavar="NAME", help="Fail, or Skip to leave wrong rows out and count them."),
]


class Output(StrEnum):
    TABLE = "table"
    JSON = "json"
    YAML = "yaml"
    NAME = "name"


@app.command()
def validate(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE…", help="Files, folders or quoted globs; each is checked as a dataset of its own."
        ),
    ],
    dataset: RowManifest = None,
    file_format: RowFormat = None,
    task_detail: RowTask = None,
    labels: RowLabels = None,
    text_column: RowText = None,
    target_column: RowTarget = None,
    on_invalid_rows: RowSkip = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the result as JSON, one object for each file.")
    ] = False,
) -> None:
    """Check rows as an import would, on this machine and without a cluster.

    Each wrong row is named by line and column, in the import's own words; nothing is stored or sent anywhere. The digest is
    the one that the Dataset will have. Lengths in tokens need the base model, so only the cluster tells them.

    kubectl winnow validate train.jsonl test.jsonl --labels ham,spam
    """
    from winnow_classifier.dataset_manifest import row_options
    from winnow_plugin.validate import validate as judge_files

    given = _given(file_format, task_detail, labels, text_column, target_column, on_invalid_rows)
    with _errors_in_words():
        options, _ = row_options(given, dataset)
        raise typer.Exit(judge_files(files, options, as_json=as_json))


@app.command()
def upload(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="One file of rows; compressed ones as they are.")],
    model_service: Annotated[
        str | None, typer.Option("--model-service", metavar="NAME", help="The ModelService that the rows are for.")
    ] = None,
    name: Annotated[str | None, typer.Option("--name", metavar="NAME", help="The Dataset's name.")] = None,
    dataset: RowManifest = None,
    file_format: RowFormat = None,
    task_detail: RowTask = None,
    labels: RowLabels = None,
    text_column: RowText = None,
    target_column: RowTarget = None,
    on_invalid_rows: RowSkip = None,
    check: Annotated[
        bool | None,
        typer.Option(
            "--check/--no-check",
            help="Check the rows here first, as validate does. Unless you say, files up to 32 MiB are checked.",
            show_default=False,
        ),
    ] = None,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Make a Dataset of a file, and send the file to its import.

    The bytes go by kubectl port-forward straight to the import pod: no row passes through objects of the cluster. After an
    interruption the same command goes on where it stood. What arrives is checked against the file's SHA-256.

    kubectl winnow upload train.jsonl --model-service mail --name spam-train -n demo --labels ham,spam
    """
    from winnow_plugin.upload import upload as send_file
    from winnow_plugin.upload_request import upload_request

    given = _given(file_format, task_detail, labels, text_column, target_column, on_invalid_rows)
    with _errors_in_words():
        request = upload_request(file, model_service, name, given, dataset, check)
        with _interruption_in_words(GOES_ON):
            raise typer.Exit(send_file(request, _place(kubeconfig, context, namespace, False)))


@app.command()
def datasets(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="One dataset, in full.")] = None,
    namespace: Namespace = None,
    all_namespaces: AllNamespaces = False,
    output: Annotated[Output, typer.Option("--output", "-o", help="How to print it.")] = Output.TABLE,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """List datasets with their rows, labels and warnings, or show one in full.

    Of one dataset: bars for its labels, lengths in tokens, warnings, and the first wrong rows by line and column.

    kubectl winnow datasets -A

    kubectl winnow datasets spam-train -n demo
    """
    from winnow_plugin.listing import print_datasets

    with _errors_in_words():
        if name is not None and all_namespaces:
            raise ConfigError("one dataset stands in one namespace", hint="name it by -n instead of --all-namespaces")
        asyncio.run(print_datasets(_place(kubeconfig, context, namespace, all_namespaces), name, output.value))


@app.command()
def artifacts(
    job: Annotated[str, typer.Argument(metavar="JOB", help="A TrainingJob.")],
    checkpoint: Annotated[
        str | None, typer.Argument(metavar="CHECKPOINT", help="Such as epoch-3, or best for the best one.")
    ] = None,
    download: Annotated[
        Path | None, typer.Option("--download", metavar="DIR", help="Fetch the files into DIR/CHECKPOINT.")
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option("--file", metavar="NAME", help="Only this file or glob, such as '*.png' (repeatable)."),
    ] = None,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """List the checkpoints of a training, list the files of one, or fetch them.

    Files come from storage, volume or bucket, by way of a small pod that reads them and is deleted afterwards. Each is
    checked against its SHA-256; what is there already is not fetched again, so that a broken download goes on.

    kubectl winnow artifacts spam-v1

    kubectl winnow artifacts spam-v1 best --download . --file report.html
    """
    from winnow_plugin.artifacts import Wanted
    from winnow_plugin.artifacts import artifacts as show_artifacts

    with _errors_in_words():
        wanted = Wanted(job, checkpoint or ("best" if download else None), download, tuple(only or ()))
        with _interruption_in_words(GOES_ON):
            show_artifacts(wanted, _place(kubeconfig, context, namespace, False))


@app.command()
def refit(
    job: Annotated[str, typer.Argument(metavar="JOB", help="A TrainingJob with validation rows.")],
    checkpoint: Annotated[
        str, typer.Argument(metavar="CHECKPOINT", help="Such as epoch-3; otherwise the best one.", show_default=False)
    ] = "best",
    objective: Annotated[
        str | None,
        typer.Option(
            "--objective",
            metavar="NAME",
            help="F1, PrecisionAtLeast, RecallAtLeast or Cost: what the threshold of each label is fitted for.",
        ),
    ] = None,
    value: Annotated[
        float | None,
        typer.Option(
            "--value", metavar="N", help="The precision or recall to reach, of PrecisionAtLeast and RecallAtLeast."
        ),
    ] = None,
    false_positive_cost: Annotated[
        float | None,
        typer.Option(
            "--false-positive-cost",
            metavar="N",
            help="Of Cost: what it costs to predict a label that does not hold.",
        ),
    ] = None,
    false_negative_cost: Annotated[
        float | None,
        typer.Option(
            "--false-negative-cost", metavar="N", help="Of Cost: what it costs not to predict a label that holds."
        ),
    ] = None,
    abstain_band: Annotated[
        float | None,
        typer.Option("--abstain-band", metavar="N", help="Abstain where a label is nearer to its threshold than this."),
    ] = None,
    abstain_min_probability: Annotated[
        float | None,
        typer.Option(
            "--abstain-min-probability",
            metavar="N",
            help="Abstain where the probability of the likeliest label is less.",
        ),
    ] = None,
    same: Annotated[
        bool, typer.Option("--same", help="Fit for what the last fit was for, in place of the options above.")
    ] = False,
    no_thresholds: Annotated[
        bool, typer.Option("--no-thresholds", help="Fit calibration alone: fitted thresholds and abstention go.")
    ] = False,
    uncalibrated: Annotated[
        bool, typer.Option("--uncalibrated", help="Leave probabilities as the model gives them.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the decision as JSON; who serves it is said on stderr.")
    ] = False,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Fit calibration and thresholds of a checkpoint anew, without training; servers take them without a restart.

    It works from what the checkpoint answered to its validation rows: no model runs. What the options ask for takes the place
    of what was asked for before, as a whole. So one of --objective, --abstain-…, --same or --no-thresholds must be given:
    fitted thresholds are never lost by leaving them out.

    kubectl winnow refit spam-v1 --objective PrecisionAtLeast --value 0.95

    kubectl winnow refit spam-v1 epoch-2 --objective Cost --false-positive-cost 10 --false-negative-cost 1
    """
    from winnow_classifier.refit_options import RefitOptions
    from winnow_plugin.refit import Wanted
    from winnow_plugin.refit import refit as fit_anew

    options = RefitOptions(
        objective=objective,
        value=value,
        false_positive_cost=false_positive_cost,
        false_negative_cost=false_negative_cost,
        abstain_band=abstain_band,
        abstain_min_probability=abstain_min_probability,
        same=same,
        no_thresholds=no_thresholds,
        uncalibrated=uncalibrated,
    )
    with _errors_in_words(), _interruption_in_words(WHOLE):
        fit_anew(Wanted(job, checkpoint, options, as_json), _place(kubeconfig, context, namespace, False))


@app.command()
def status(
    namespace: Namespace = None,
    all_namespaces: AllNamespaces = False,
    watch: Annotated[
        bool | None,
        typer.Option(
            "--watch/--no-watch",
            "-w",
            help="Keep watching until Ctrl-C, or print what is there and end. Unset: watch on a terminal only.",
            show_default=False,
        ),
    ] = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Watch all four kinds: states, progress bars, what is live.

    On a terminal the table is kept up to date until Ctrl-C. In a pipe or a file it is printed once; with --watch what is
    there is followed by a line for each change.

    kubectl winnow status -n demo
    """
    from winnow_plugin.listing import follow_status, print_status
    from winnow_plugin.screen import terminal

    place = _place(kubeconfig, context, namespace, all_namespaces)
    with _errors_in_words():
        if watch or (watch is None and terminal()):
            try:
                asyncio.run(follow_status(place))
            except KeyboardInterrupt:  # how it is meant to end
                raise typer.Exit(0) from None
        asyncio.run(print_status(place))


@app.command()
def version() -> None:
    """Print the plugin's version, and the API that it reads."""
    print(f"kubectl-winnow {version_of('kubectl-winnow')}, {API_VERSION}")


def _given(
    file_format: str | None,
    task_detail: str | None,
    labels: str | None,
    text_column: str | None,
    target_column: str | None,
    on_invalid_rows: str | None,
) -> GivenOptions:
    return {
        "format": file_format,
        "task_detail": task_detail,
        "labels": labels,
        "text_column": text_column,
        "target_column": target_column,
        "on_invalid_rows": on_invalid_rows,
    }


def _place(kubeconfig: Path | None, context: str | None, namespace: str | None, all_namespaces: bool) -> Place:
    from winnow_plugin.cluster import Place

    return Place(kubeconfig, context, namespace, all_namespaces)


@contextmanager
def _errors_in_words() -> Iterator[None]:
    try:
        yield
    except WinnowError as err:
        print(f"error: {err}", file=sys.stderr)
        if err.hint:
            print(f"hint: {err.hint}", file=sys.stderr)
        raise typer.Exit(err.exit_code) from err
    except OSError as err:
        if not is_full(err):
            raise
        print(f"error: the output cannot be written: {err.strerror}", file=sys.stderr)
        raise typer.Exit(StorageError.exit_code) from err


@contextmanager
def _interruption_in_words(words: str) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        print(f"interrupted; {words}", file=sys.stderr)
        raise typer.Exit(EXIT_INTERRUPTED) from None


def main() -> None:
    for stream in filter(None, (sys.stdout, sys.stderr)):  # None: closed by the shell
        stream.reconfigure(errors="replace")  # a terminal without UTF-8 gets question marks
    # Completion is installed for the executable; everywhere else the name is what people type.
    completing = "_KUBECTL_WINNOW_COMPLETE" in os.environ or {"--install-completion", "--show-completion"} & {*sys.argv}
    try:
        app(prog_name="kubectl-winnow" if completing else "kubectl winnow")
    except SystemExit as end:
        raise SystemExit(EXIT_USAGE if end.code == 2 else end.code) from None


if __name__ == "__main__":
    main()
