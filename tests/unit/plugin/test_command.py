"""The executable itself: its help, its completion, what it loads and what it is installed with."""

import re
import subprocess
import sys
from importlib.metadata import requires
from pathlib import Path

import pytest

from winnow_classifier.labels import TaskDetail
from winnow_classifier.row_files import FileFormat
from winnow_classifier.rows import OnInvalidRows

ROOT = Path(__file__).resolve().parents[3]
BIN = Path(sys.executable).parent


def test_help_tells_commands_and_exit_codes(plugin):
    code, out, _ = plugin("--help")
    assert code == 0
    assert "Usage: kubectl winnow" in out
    assert all(
        f" {command} " in out
        for command in ("validate", "upload", "datasets", "artifacts", "refit", "status", "version")
    )
    assert "11 wrong rows" in out


def test_help_of_validate_names_every_value_that_is_taken(plugin):
    code, out, _ = plugin("validate", "--help")
    assert code == 0
    assert not [value for value in (*FileFormat, *TaskDetail, *OnInvalidRows) if str(value) not in out]


def test_version_is_that_of_the_package(plugin):
    assert plugin("version") == (0, "kubectl-winnow 0.1.0, winnow.dev/v1alpha1\n", "")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        pytest.param(["no-such-command"], "No such command", id="a command that is none"),
        pytest.param(["validate"], "Missing argument 'FILE…'", id="no file"),
        pytest.param(["datasets", "-o", "xml"], "'xml' is not one of", id="an output that is none"),
        pytest.param(["datasets", "one", "-A"], "one dataset stands in one namespace", id="one of all"),
        pytest.param(["status", "--kubeconfig", "/nowhere"], "there is no kubeconfig at /nowhere", id="no kubeconfig"),
    ],
)
def test_wrong_usage_has_the_trainers_exit_code(plugin, arguments, says):
    code, out, err = plugin(*arguments)
    assert (code, out) == (10, "")
    assert says in err


def test_a_kubeconfig_that_is_none_is_named(plugin, tmp_path):
    (tmp_path / "config").write_text("apiVersion: v1\nkind: Config\n")
    code, _, err = plugin("status", "--kubeconfig", tmp_path / "config")
    assert code == 10
    assert f"the kubeconfig {tmp_path / 'config'} cannot be used" in err


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
    script = subprocess.run(
        [BIN / "kubectl-winnow", "--show-completion", "bash"], capture_output=True, text=True, check=True
    ).stdout
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
    assert "1 rows · Binary" in done.stdout
    for command in (["status"], ["refit", "v1", "--same"]):
        done = alone(*command, "--kubeconfig", str(tmp_path / "nowhere"))
        assert (done.returncode, done.stderr.splitlines()[0]) == (
            10,
            f"error: there is no kubeconfig at {tmp_path / 'nowhere'}",
        )


def locked():
    text = (ROOT / "requirements" / "plugin.txt").read_text()
    return {normal(name) for name in re.findall(r"^([\w.-]+)==", text, re.MULTILINE)}


def normal(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def test_what_it_is_installed_with_is_what_is_locked_and_the_clones_own_classifier():
    declared = requires("kubectl-winnow")
    (classifier,) = [line for line in declared if line.startswith("winnow-classifier")]
    assert classifier == f"winnow-classifier @ {(ROOT / 'classifier').as_uri()}"
    names = {normal(re.match(r"[\w.-]+", line)[0]) for line in declared} - {"winnow-classifier"}
    pinned = (ROOT / "requirements" / "plugin.in").read_text().splitlines()
    assert names == {normal(re.match(r"[\w.-]+", line)[0]) for line in pinned if not line.startswith("#")}
