"""Which builds the cache may be trusted for, and what the command line understands."""

import re
from pathlib import Path

import pytest

from winnow_cluster import cli
from winnow_cluster.errors import ClusterError
from winnow_cluster.tools import TOOLS, Tool, content_hash

TOOL = Tool("etcd", ("etcd",))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "go.mod").write_text("module x")
    (tmp_path / "go.sum").write_text("a h1:…")
    return tmp_path


def test_the_same_pins_are_the_same_build(folder: Path) -> None:
    assert content_hash(TOOL, folder, "go1.26") == content_hash(TOOL, folder, "go1.26")


def test_other_pins_flags_or_compilers_are_another_build(folder: Path) -> None:
    first = content_hash(TOOL, folder, "go1.26")
    others = {content_hash(TOOL, folder, "go1.27"), content_hash(Tool("etcd", ("etcd",), ("x.y=1",)), folder, "go1.26")}
    (folder / "go.sum").write_text("b h1:…")
    others.add(content_hash(TOOL, folder, "go1.26"))
    assert len(others) == 3
    assert first not in others


def test_every_tool_has_its_pinned_modules_and_no_program_comes_twice() -> None:
    sources = Path(cli.__file__).parents[1] / "tools"
    assert {tool.name for tool in TOOLS} == {folder.name for folder in sources.iterdir()}
    assert all((sources / tool.name / "go.mod").is_file() for tool in TOOLS)
    programs = [name for tool in TOOLS for name in tool.programs]
    assert len(programs) == len(set(programs))


def test_helm_calls_itself_and_judges_clusters_by_what_it_is_built_of() -> None:
    pins = (Path(cli.__file__).parents[1] / "tools" / "helm" / "go.mod").read_text()
    (helm,) = (tool for tool in TOOLS if tool.name == "helm")
    version = re.search(r"helm.sh/helm/v3 (v\S+)", pins)
    client = re.search(r"k8s.io/client-go v0\.(\d+)\.", pins)
    assert version and client
    assert f"-X helm.sh/helm/v3/internal/version.version={version[1]}" in helm.ldflags
    for package in ("pkg/chartutil", "pkg/lint/rules"):
        assert f"-X helm.sh/helm/v3/{package}.k8sVersionMajor=1 " in f"{helm.ldflags} "
        assert f"-X helm.sh/helm/v3/{package}.k8sVersionMinor={client[1]} " in f"{helm.ldflags} "


def test_values_of_name_value_options_may_hold_equal_signs() -> None:
    image = ["image", "--name", "x", "--context", "."]
    parsed = cli.parser().parse_args([*image, "--build-arg", "A=1=2", "--build-arg", "B="])
    assert cli.pairs(parsed.build_arg) == {"A": "1=2", "B": ""}


def test_a_value_without_a_name_is_refused_in_words() -> None:
    with pytest.raises(ClusterError, match="expected NAME=VALUE, found 'A'"):
        cli.pairs(["A"])


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["help"]) == 0
    said = capsys.readouterr().out
    assert all(name in said for name in ("deps", "build", "up", "down", "status", "image", "apiserver-up", "kubectl"))


def test_some_tools_can_be_built_without_the_others(capsys: pytest.CaptureFixture[str]) -> None:
    assert [tool.name for tool in cli.parser().parse_args(["build", "versitygw", "helm"]).tools] == [
        "versitygw",
        "helm",
    ]
    assert cli.parser().parse_args(["build"]).tools == []  # all of them
    assert cli.main(["build", "minio"]) == 1
    assert "there is no tool 'minio': there are etcd, kubernetes, " in capsys.readouterr().err
