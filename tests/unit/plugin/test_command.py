"""The executable itself: its help, and what it is installed with."""

import re
from importlib.metadata import requires
from pathlib import Path

import pytest

from winnow_classifier.labels import TaskDetail
from winnow_classifier.row_files import FileFormat
from winnow_classifier.rows import OnInvalidRows

ROOT = Path(__file__).resolve().parents[3]


def test_help_tells_commands_and_exit_codes(plugin):
    code, out, _ = plugin("--help")
    assert code == 0
    assert "Usage: kubectl winnow" in out
    assert all(
        f" {command} " in out
        for command in ("validate", "upload", "datasets", "artifacts", "refit", "status", "version")
    )
    documented = re.findall(r"^\| (\d+) \| ", (ROOT / "docs" / "kubectl-winnow.md").read_text(), re.MULTILINE)
    told = out.partition("Exit codes:")[2]
    assert re.findall(r"\d+", told) == documented


def test_help_of_validate_names_every_value_that_is_taken(plugin):
    code, out, _ = plugin("validate", "--help")
    assert code == 0
    assert not [value for value in (*FileFormat, *TaskDetail, *OnInvalidRows) if str(value) not in out]


@pytest.mark.parametrize(
    "command, usage", [("artifacts", "[CHECKPOINT]"), ("refit", "[CHECKPOINT]"), ("datasets", "[NAME]")]
)
def test_usage_puts_what_may_be_left_out_into_brackets_once(plugin, command, usage):
    _, out, _ = plugin(command, "--help")
    assert re.search(r"Usage: .* (\S+)", out)[1] == usage


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


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("apiVersion: v1\nkind: Config\n", id="without contexts"),
        pytest.param("", id="empty, as /dev/null"),
        pytest.param("[]\n", id="a list"),
        pytest.param("clusters: [a]\n", id="names for clusters"),
    ],
)
def test_a_kubeconfig_that_is_none_is_named(plugin, tmp_path, text):
    (tmp_path / "config").write_text(text)
    code, _, err = plugin("status", "--kubeconfig", tmp_path / "config")
    assert code == 10
    assert f"the kubeconfig {tmp_path / 'config'} cannot be used" in err


def test_a_kubeconfig_that_is_a_folder_is_named(plugin, tmp_path):
    code, _, err = plugin("status", "--kubeconfig", tmp_path)
    assert (code, f"the kubeconfig {tmp_path} cannot be read: Is a directory" in err) == (10, True), err
    assert "Errno" not in err


def normal(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def test_what_it_is_installed_with_is_what_is_locked_and_the_clones_own_classifier():
    declared = requires("kubectl-winnow")
    (classifier,) = [line for line in declared if line.startswith("winnow-classifier")]
    assert classifier == f"winnow-classifier @ {(ROOT / 'classifier').as_uri()}"
    names = {normal(re.match(r"[\w.-]+", line)[0]) for line in declared} - {"winnow-classifier"}
    pinned = (ROOT / "requirements" / "plugin.in").read_text().splitlines()
    assert names == {normal(re.match(r"[\w.-]+", line)[0]) for line in pinned if not line.startswith("#")}
