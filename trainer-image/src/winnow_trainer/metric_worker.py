"""The process in which one metric function runs: python -P -s metric_worker.py NAME.py CPU_SECONDS MEMORY_BYTES.

It imports nothing of Winnow and reads no environment. On stdin a line of JSON for each batch of rows, on stdout one answer
for each line: {"scores": […]} or {"error": "…", "row": n}. The first answer says that `score` is there. What the function
prints goes to stderr. It ends with its stdin.
"""

import contextlib
import ctypes
import json
import math
import os
import resource
import signal
import sys
import traceback
from pathlib import Path
from types import ModuleType

PR_SET_PDEATHSIG = 1
FILE_BYTES = 1 << 20


class Answer(dict):  # type: ignore[type-arg]
    """Label to number: 0 or 1 where it is expected, the probability where it is predicted. `labels`: those that hold."""

    def __init__(self, values: dict[str, float], labels: list[str]) -> None:
        super().__init__(values)
        self.labels = labels


def limit(cpu_seconds: int, memory_bytes: int) -> None:
    with contextlib.suppress(OSError, AttributeError):  # Linux only: else it ends with its stdin
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_BYTES, FILE_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    allow_cpu(cpu_seconds)


def allow_cpu(seconds: int) -> None:
    """So much more from now on: the process is used again after each epoch."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    soft = math.ceil(used.ru_utime + used.ru_stime) + seconds
    resource.setrlimit(resource.RLIMIT_CPU, (soft, resource.getrlimit(resource.RLIMIT_CPU)[1]))


def load(path: str):  # type: ignore[no-untyped-def]
    source = Path(path).read_bytes()  # which may begin with a mark of its encoding, or declare one
    module = ModuleType("metric")
    module.__file__ = path
    sys.modules["metric"] = module  # dataclasses, pickle and typing look a class's module up there
    exec(compile(source, Path(path).name, "exec"), vars(module))
    score = getattr(module, "score", None)
    if not callable(score):
        raise TypeError("there is no function score(input_text, expected, predicted)")
    return score


def number(value: object) -> float:
    """A float, a bool, or what numpy makes of one. Raises TypeError, ValueError."""
    if isinstance(value, str | bytes) or not hasattr(value, "__float__"):
        raise TypeError(f"score must return a number, and returned {value!r:.80}")
    found = float(value)
    if not math.isfinite(found):
        raise ValueError(f"score must return a finite number, and returned {found}")
    return found


def told(error: BaseException, name: str) -> str:
    """The last line of the traceback, and where in the user's file it comes from."""
    last = traceback.format_exception_only(error)[-1].strip()
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == name]
    return f"{last} (line {lines[-1]} of {name})" if lines else last


def main(path: str, cpu_seconds: int, memory_bytes: int) -> None:
    limit(cpu_seconds, memory_bytes)
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    name = Path(path).name

    def answer(content: object) -> None:
        answers.write(json.dumps(content) + "\n")
        answers.flush()

    try:
        score = load(path)
    except BaseException as error:
        answer({"error": told(error, name)})
        return
    answer({"scores": []})
    for line in sys.stdin.buffer:
        asked = json.loads(line)
        if asked["first"]:
            allow_cpu(cpu_seconds)
        scores = []
        failed = None
        for row, (text, expected, expected_labels, predicted, predicted_labels) in enumerate(asked["rows"]):
            try:
                scores.append(
                    number(score(text, Answer(expected, expected_labels), Answer(predicted, predicted_labels)))
                )
            except BaseException as error:
                failed = {"error": told(error, name), "row": row}
                break
        answer(failed or {"scores": scores})


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
