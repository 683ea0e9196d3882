import pytest
from in_this_process import own_logging, pictures  # noqa: F401

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
