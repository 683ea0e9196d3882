"""Row files judged where they lie, by the functions and in the words of the import."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson

from winnow_classifier import verdict
from winnow_classifier.dataset import CanonicalDigest
from winnow_classifier.errors import OutOfMemoryError_, WinnowError
from winnow_classifier.profile import Profiler
from winnow_classifier.row_paths import common_folder, find_files
from winnow_classifier.rows import Judge, RowOptions
from winnow_classifier.verdict import Verdict


def validate(files: Sequence[Path], options: RowOptions, *, as_json: bool, quiet: bool = False) -> int:
    """Each file, folder or glob is a set of rows of its own. Returns the exit code: of several, the one of the worst file.

    Quiet: of good rows nothing is said.
    """
    code = 0
    for number, file in enumerate(files):
        if len(files) > 1 and not as_json:
            print(f"{'' if number == 0 else chr(10)}== {_shown(file)}", flush=True)
        code = max(code, _validate(file, options, as_json=as_json, quiet=quiet))
    return code


def judge(files: Sequence[Path], options: RowOptions) -> Verdict:
    """Raises a WinnowError. Lengths in tokens are left out: they need the base model."""
    judge, profiler, digest = Judge(options), Profiler(), CanonicalDigest()
    for batch in judge.read(files):
        profiler.add(batch)
        digest.add(batch)
    found = profiler.finish(judge.schema)
    return Verdict(judge.schema, digest.of(judge.schema), judge.origin, found, judge.problem_count, judge.problems)


def _validate(file: Path, options: RowOptions, *, as_json: bool, quiet: bool) -> int:
    where = file
    try:
        files = find_files([file])
        where = files[0] if len(files) == 1 else Path(common_folder(files))
        judged = judge(files, options)
    except WinnowError as err:
        return _fail(file, err, where, as_json=as_json)
    except MemoryError:
        return _fail(file, OutOfMemoryError_("there is not enough memory for this file"), where, as_json=as_json)
    if as_json:
        _print_json(file, verdict.ready_message(judged, "validate"))
    elif not quiet:
        print("\n".join(verdict.summary(judged)), flush=True)
    return 0


def _fail(file: Path, err: WinnowError, where: Path, *, as_json: bool) -> int:
    if as_json:
        _print_json(file, verdict.failed_message("validate", err.reason, verdict.in_one_line(err), err))
    print("\n".join(verdict.error_lines(err, where)), file=sys.stderr)
    return err.exit_code


def _shown(file: Path) -> str:
    return str(file).encode(errors="backslashreplace").decode()


def _print_json(file: Path, message: dict[str, Any]) -> None:
    print(orjson.dumps({**message, "file": _shown(file)}, option=orjson.OPT_INDENT_2).decode(), flush=True)
