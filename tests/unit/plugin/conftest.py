import logging

import pytest

from winnow_plugin.cli import main


@pytest.fixture
def plugin(monkeypatch, capsys):
    """Runs `kubectl winnow …` in this process: (exit code, stdout, stderr)."""

    def run(*arguments):
        monkeypatch.setattr("sys.argv", ["kubectl-winnow", *map(str, arguments)])
        monkeypatch.setenv("COLUMNS", "200")
        with pytest.raises(SystemExit) as end:
            main()
        said = capsys.readouterr()
        return end.value.code or 0, said.out, said.err

    return run


@pytest.fixture(autouse=True)
def own_logging():
    """The trainer's command sets logging up for its process, which here is that of all tests."""
    root = logging.getLogger()
    before = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = before
