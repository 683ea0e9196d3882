"""Metric functions of the user's, as they are and as they go wrong. Every one runs in a real process."""

import os
import textwrap
import time
from threading import Event, Timer

import numpy as np
import pytest

from winnow_classifier.errors import ConfigError
from winnow_classifier.labels import LabelSchema, TaskDetail
from winnow_trainer import metric_functions
from winnow_trainer.job import CustomMetric
from winnow_trainer.metric_functions import MetricFunctions
from winnow_trainer.stopping import Stopped

SCHEMA = LabelSchema(TaskDetail.MULTICLASS, ("bill", "card", "other"))
TEXTS = ["pay", "block it", "hello"]
TARGETS = np.eye(3, dtype=np.int8)
PROBABILITIES = np.array([[0.8, 0.1, 0.1], [0.3, 0.6, 0.1], [0.5, 0.25, 0.25]])


@pytest.fixture
def functions(tmp_path):
    made = []

    def make(stop=None, seconds=5, memory_bytes=2 << 30, **sources):
        custom = []
        for name, source in sources.items():
            file = tmp_path / f"{name}.py"
            file.write_bytes(source if isinstance(source, bytes) else textwrap.dedent(source).encode())
            custom.append(CustomMetric(name=name, file=str(file)))
        made.append(MetricFunctions(custom, stop or Event(), seconds, memory_bytes))
        return made[-1]

    yield make
    for each in made:
        each.__exit__()


def score(functions, rows=1):
    return functions.score(TEXTS * rows, np.tile(TARGETS, (rows, 1)), np.tile(PROBABILITIES, (rows, 1)), SCHEMA)


def test_a_sum_over_a_set_of_labels_ends_in_the_same_bits_in_each_process(functions):
    source = """
    WEIGHTS = {"bill": 0.1, "card": 0.7, "other": 1 / 3}
    def score(input_text, expected, predicted):
        return sum(WEIGHTS[label] * predicted[label] for label in set(expected) | set(predicted))
    """
    several = score(functions(**{f"cost_{number}": source for number in range(8)}))
    assert len({each.scores.tobytes() for each in several}) == 1


def test_several_functions_score_each_row(functions):
    cost, length = score(
        functions(
            cost="""
            import numpy as np
            print("noise on stdout")
            def score(input_text, expected, predicted):
                (right,) = expected.labels
                return np.float32(0 if predicted.labels == [right] else 5) + expected["bill"]
            """,
            length="def score(input_text, expected, predicted): return len(input_text) * predicted['card']",
        )
    )
    assert (cost.name, cost.scores.tolist(), cost.value) == ("cost", [1.0, 0.0, 5.0], 2.0)
    assert length.scores.tolist() == pytest.approx([0.3, 4.8, 1.25])
    assert (cost.error, length.error) == (None, None)


@pytest.mark.parametrize(
    "begin",
    [pytest.param(b"\xef\xbb\xbf", id="a mark of UTF-8"), pytest.param(b"# coding: latin-1\n", id="a declared one")],
)
def test_a_function_may_be_written_in_any_encoding_that_python_reads(functions, begin):
    source = begin + (b"text = '\xe9'\n" if b"latin" in begin else b"text = 'e'\n")
    (found,) = score(functions(length=source + b"def score(a, b, c): return len(text)"))
    assert (found.error, found.value) == (None, 1.0)


def test_a_process_is_used_again_and_for_many_rows(functions):
    counting = functions(count="n = 0\ndef score(a, b, c):\n    global n\n    n += 1\n    return n")
    (first,) = score(counting, rows=1_000)
    (second,) = score(counting)
    assert (len(first.scores), first.scores[-1], second.scores.tolist()) == (3_000, 3_000, [3_001, 3_002, 3_003])


@pytest.mark.parametrize(
    ("source", "error", "row"),
    [
        pytest.param(
            "def score(a, b, c):\n    return 1 / (a != 'hello')",
            "ZeroDivisionError: division by zero (line 2 of broken.py)",
            3,
            id="raises",
        ),
        pytest.param(
            "import nothing_of_this_name", "ModuleNotFoundError: No module named", None, id="cannot be loaded"
        ),
        pytest.param("x = 1", "there is no function score", None, id="no function"),
        pytest.param("def score(a, b): return 1", "TypeError: score() takes 2 positional arguments", 1, id="arguments"),
        pytest.param("def score(a, b, c): return 'good'", "must return a number, and returned 'good'", 1, id="a word"),
        pytest.param("def score(a, b, c): return float('nan')", "a finite number, and returned nan", 1, id="nan"),
        pytest.param("def score(a, b, c): return None", "must return a number", 1, id="nothing"),
        pytest.param("def score(a, b, c): raise SystemExit(3)", "SystemExit: 3", 1, id="exits"),
        pytest.param("import os\ndef score(a, b, c): os._exit(3)", "its process ended with 3", None, id="ends"),
        pytest.param("import time\ndef score(a, b, c): time.sleep(60)", "longer than 1 seconds", None, id="sleeps"),
        pytest.param("def score(a, b, c):\n    while True: pass", "1 seconds", None, id="spins"),
        pytest.param("def score(a, b, c): return len('x' * (1 << 31))", "MemoryError", 1, id="takes memory"),
        pytest.param("def score(a, b, c): return 1.7e308", "they are too large", None, id="a mean that is none"),
        pytest.param(
            "def score(a, b, c): raise ValueError(b'\\xff'.decode('utf-8', 'surrogateescape'))",
            r"ValueError: \udcff (line 1 of broken.py)",
            1,
            id="says what is no text",
        ),
        pytest.param("import os\ndef score(a, b, c): return len(os.fork() and 1)", "Error", 1, id="forks"),
    ],
)
def test_what_a_function_does_wrong_is_told_and_costs_its_own_score_only(functions, source, error, row):
    broken, fine = score(functions(seconds=1, memory_bytes=1 << 30, broken=source, fine="def score(a, b, c): return 1"))
    assert error in broken.error
    assert (broken.row, broken.scores, broken.value) == (row, None, None)
    broken.error.encode()  # it goes into files, messages and Kubernetes
    assert fine.value == 1


def test_a_function_that_closes_its_processs_output_costs_its_own_score_only(functions, monkeypatch):
    monkeypatch.setattr(metric_functions, "END_SECONDS", 0.1)
    closes = "import os, time\ndef score(a, b, c):\n    os.closerange(3, 50)\n    time.sleep(60)"
    broken, fine = score(functions(broken=closes, fine="def score(a, b, c): return 1"))
    assert (broken.error, broken.value) == ("the function closed its process's own output", None)
    assert fine.value == 1


def test_a_file_may_have_dataclasses_and_annotations_of_later_pythons(functions):
    (found,) = score(
        functions(
            cost="""
            from __future__ import annotations
            from dataclasses import dataclass
            @dataclass
            class Costs:
                missed: float = 5
            def score(input_text, expected, predicted):
                return Costs().missed * (predicted.labels != expected.labels)
            """
        )
    )
    assert (found.error, found.scores.tolist()) == (None, [0.0, 0.0, 5.0])


def test_a_function_that_failed_is_tried_again_at_the_next_evaluation(functions):
    failing = functions(moody="def score(a, b, c): return 1 / (a != 'hello')")
    assert score(failing)[0].error
    (found,) = failing.score(TEXTS[:2], TARGETS[:2], PROBABILITIES[:2], SCHEMA)
    assert found.value == 1


def test_no_key_of_the_trainer_reaches_a_function(functions, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hidden")
    (found,) = score(
        functions(
            look="""
            import os
            def score(a, b, c):
                return sum("SECRET" in name or "hidden" in value for name, value in os.environ.items())
            """
        )
    )
    assert found.value == 0
    assert "AWS_SECRET_ACCESS_KEY" in os.environ


def test_a_stop_does_not_wait_for_a_function(functions):
    stop = Event()
    slow = functions(stop, slow="import time\ndef score(a, b, c): time.sleep(60)", seconds=60)
    Timer(0.3, stop.set).start()
    began = time.monotonic()
    with pytest.raises(Stopped):
        score(slow)
    assert time.monotonic() - began < 10


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"def score(:", "line 1 is not Python: "), (b"\0", "is not Python"), (None, "cannot be read: No such file")],
)
def test_a_file_that_is_no_python_is_refused_before_training(tmp_path, content, message):
    file = tmp_path / "cost.py"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigError, match=message) as refused:
        MetricFunctions([CustomMetric(name="cost", file=str(file))], Event())
    assert "metrics.custom: cost" in str(refused.value)
