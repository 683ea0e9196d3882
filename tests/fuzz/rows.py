"""Fuzzing of the row readers: any bytes are rows or problems with a place; never a crash, a hang or much memory.

    make fuzz SECONDS=60

libFuzzer (through atheris) looks for inputs that reach new code. Its inputs that went wrong stand in the folder from
which it ran, as crash-…, timeout-… or oom-…; give one as an argument to run it again.
"""

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["winnow_classifier"]):
    from winnow_classifier import csv_rows, json_rows, parquet_rows  # noqa: F401  (imported late otherwise)
    from winnow_classifier.dataset import targets_of
    from winnow_classifier.errors import WinnowError
    from winnow_classifier.labels import TaskDetail
    from winnow_classifier.row_files import FileFormat
    from winnow_classifier.rows import InvalidRowsError, Judge, OnInvalidRows, RowOptions

FILE = Path(tempfile.mkdtemp()) / "rows"
FORMATS = [FileFormat.AUTO, FileFormat.JSON, FileFormat.CSV]
DETAILS = [None, *TaskDetail]
STARTS = [
    b"",
    b"input,expected_output\n",
    b"text,label\n",
    b'{"prompt": "x", "completion": 1}\n',
    b"[",
    b"text;labels\n",
]


def one_input(content: bytes) -> None:
    if len(content) < 2:
        return
    options = RowOptions(
        FORMATS[content[0] % len(FORMATS)],
        DETAILS[content[0] // 8 % len(DETAILS)],
        labels=("a", "b") if content[0] & 4 else (),
        on_invalid_rows=OnInvalidRows.SKIP if content[1] & 1 else OnInvalidRows.FAIL,
    )
    FILE.write_bytes(STARTS[content[1] // 2 % len(STARTS)] + content[2:])
    try:
        judge = Judge(options)
        batches = list(judge.read([FILE]))
        schema = judge.schema
    except InvalidRowsError as err:
        assert err.problems
        assert err.problem_count >= len(err.problems)
        assert all(problem.line >= 1 and problem.message for problem in err.problems)
        assert all(problem.column is None or problem.column >= 1 for problem in err.problems)
        str(err).encode()
    except WinnowError as err:
        str(err).encode()
    else:
        assert batches
        for batch in batches:
            assert targets_of(schema, batch.labels).shape == (len(batch.texts), len(schema.labels))
            "".join(batch.texts).encode()


if __name__ == "__main__":
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
