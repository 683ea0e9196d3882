"""The plugin's executable as a process: its completion, what it loads, and that it needs no more than is locked."""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent


def completed(*words):
    """What kubectl is told when a user presses Tab after these."""
    done = subprocess.run([BIN / "kubectl_complete-winnow", *words], capture_output=True, text=True, check=True)
    return [line.split("\t")[0] for line in done.stdout.splitlines()]


def test_kubectl_completes_commands_and_options():
    assert completed("") == ["validate", "upload", "datasets", "artifacts", "refit", "status", "version", ":0"]
    assert completed("st") == ["status", ":0"]
    assert completed("status", "--name") == ["--namespace", ":0"]
    assert completed("datasets", "-o", "") == ["table", "json", "yaml", "name", ":0"]


def test_an_installed_shell_completes_the_executable():
    given = {**os.environ, "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}  # else a shell has to run this
    command = [BIN / "kubectl-winnow", "--show-completion", "bash"]
    script = subprocess.run(command, capture_output=True, text=True, check=True, env=given).stdout
    assert "kubectl-winnow" in script


LOADED = "import sys; from winnow_plugin.cli import app; app(sys.argv[1:], standalone_mode=False); "


PRINT = "print(*sorted({name.split('.')[0] for name in sys.modules}))"


def loaded(*arguments):
    """The packages that are in memory once a command has run."""
    done = subprocess.run([sys.executable, "-c", LOADED + PRINT, *arguments], capture_output=True, text=True)
    return set(done.stdout.splitlines()[-1].split())


def test_validate_loads_neither_torch_nor_a_cluster_client(tmp_path):
    (tmp_path / "rows").write_text('{"prompt": "a", "completion": 1}\n')
    packages = loaded("validate", str(tmp_path / "rows"))
    assert {"numpy", "orjson", "winnow_classifier"} <= packages
    assert not {"torch", "transformers", "tokenizers", "sklearn", "kubernetes", "aiohttp"} & packages


def test_a_look_at_a_cluster_loads_no_readers_of_rows(tmp_path):
    packages = loaded("status", "--kubeconfig", str(tmp_path / "nowhere"))
    assert "kubernetes" in packages
    assert not {"torch", "pyarrow", "numpy"} & packages
    packages = loaded("refit", "v1", "--same", "--kubeconfig", str(tmp_path / "nowhere"))
    assert "kubernetes" in packages
    assert not {"torch", "pyarrow", "transformers"} & packages


ALONE = """
import sys
from importlib.metadata import packages_distributions

OWNERS, INSTALLED = packages_distributions(), set(sys.argv.pop(1).split())

class Absent:
    def find_spec(self, name, path=None, target=None):
        owners = {owner.lower().replace("_", "-").replace(".", "-") for owner in OWNERS.get(name.split(".")[0], ())}
        if owners and not owners & INSTALLED:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
from winnow_plugin.cli import main
main()
"""


def alone(*arguments):
    """A command where only what is locked is installed: the packages of this environment that are not are hidden."""
    installed = " ".join(locked() | {"kubectl-winnow", "winnow-classifier"})
    return subprocess.run([sys.executable, "-c", ALONE, installed, *arguments], capture_output=True, text=True)


def test_what_is_locked_is_all_that_it_takes(tmp_path):
    (tmp_path / "rows").write_text('{"prompt": "a", "completion": 1}\n')
    done = alone("validate", str(tmp_path / "rows"))
    assert (done.returncode, done.stderr) == (0, "")
    assert "1 row · Binary" in done.stdout
    for command in (["status"], ["refit", "v1", "--same"]):
        done = alone(*command, "--kubeconfig", str(tmp_path / "nowhere"))
        said = f"error: there is no kubeconfig at {tmp_path / 'nowhere'}"
        assert (done.returncode, done.stderr.splitlines()[0]) == (10, said)


def locked():
    text = (ROOT / "requirements" / "plugin.txt").read_text()
    return {re.sub(r"[-_.]+", "-", name).lower() for name in re.findall(r"^([\w.-]+)==", text, re.MULTILINE)}


def test_a_full_disk_below_the_output_is_told_in_words(tmp_path):
    (tmp_path / "rows").write_text('{"prompt": "a", "completion": 1}\n')
    with Path("/dev/full").open("w") as full:
        command = [BIN / "kubectl-winnow", "validate", str(tmp_path / "rows")]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (20, "error: the output cannot be written: No space left on device\n")


def test_an_output_that_the_shell_has_closed_is_no_error(tmp_path):
    (tmp_path / "rows").write_text('{"prompt": "a", "completion": 1}\n')
    command = f"exec '{BIN / 'kubectl-winnow'}' validate '{tmp_path / 'rows'}' >&-"
    done = subprocess.run(["sh", "-c", command], stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (0, "")
