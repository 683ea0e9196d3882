"""Log lines, as a cluster collects them and as a person reads them."""

import json
import logging

from winnow_trainer.logs import JsonFormatter, PlainFormatter


def record(message="Rows imported", exc_info=None, **facts):
    made = logging.LogRecord("winnow", logging.INFO, __file__, 1, message, None, exc_info)
    made.created = 1_700_000_000.25
    vars(made).update(facts)
    return made


def test_a_cluster_gets_one_json_object_a_line():
    line = JsonFormatter().format(record(rows=4_460, file="a\nb"))
    assert "\n" not in line
    assert json.loads(line) == {
        "time": "2023-11-14T22:13:20.250+00:00",
        "level": "info",
        "message": "Rows imported",
        "rows": 4_460,
        "file": "a\nb",
    }


def test_a_terminal_gets_words_that_erase_the_progress_line():
    line = PlainFormatter().format(record(rows=4_460, resumed=True))
    assert line.startswith("\r\x1b[K")
    assert line.endswith(" Rows imported  rows=4,460  resumed=True")


def test_tracebacks_stand_in_both():
    error = ValueError("odd")
    failed = record("Failed", exc_info=(ValueError, error, None))
    assert "ValueError: odd" in json.loads(JsonFormatter().format(failed))["traceback"]
    assert PlainFormatter().format(failed).endswith("\nValueError: odd")
