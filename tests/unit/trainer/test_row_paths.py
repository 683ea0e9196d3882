"""Which files a path means, by the front door of the import where that matters."""

import json
import os
from pathlib import Path

import pytest

from winnow_classifier.errors import SourceError
from winnow_classifier.row_paths import chosen, find_files
from winnow_trainer.cli import main

FILES = (
    "a.jsonl",
    "b.csv",
    "_SUCCESS",
    ".hidden.jsonl",
    "shards/1.jsonl",
    "shards/2.jsonl",
    "shards/_temporary/3.jsonl",
    "shards/deep/4.jsonl",
)


@pytest.fixture
def folder(tmp_path):
    for number, name in enumerate(FILES):
        path = tmp_path / "rows" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f'{{"prompt": "text {number}", "completion": {number % 2}}}\n')
    return tmp_path / "rows"


@pytest.mark.parametrize(
    ("path", "means"),
    [
        pytest.param("a.jsonl", ["a.jsonl"], id="a file"),
        pytest.param("_SUCCESS", ["_SUCCESS"], id="a file that is named is taken, whatever its name"),
        pytest.param(
            ".", ["a.jsonl", "b.csv", "shards/1.jsonl", "shards/2.jsonl", "shards/deep/4.jsonl"], id="a folder"
        ),
        pytest.param("shards/_temporary", ["shards/_temporary/3.jsonl"], id="a folder that is named"),
        pytest.param("*.jsonl", ["a.jsonl"], id="a star stays in its folder"),
        pytest.param("*/?.jsonl", ["shards/1.jsonl", "shards/2.jsonl"], id="a folder of any name"),
        pytest.param(
            "**/*.jsonl",
            ["a.jsonl", "shards/1.jsonl", "shards/2.jsonl", "shards/deep/4.jsonl"],
            id="two stars are any number of folders, also none",
        ),
        pytest.param(
            "shards/**", ["shards/1.jsonl", "shards/2.jsonl", "shards/deep/4.jsonl"], id="two stars at the end"
        ),
        pytest.param("shards/[2-9].jsonl", ["shards/2.jsonl"], id="one of several characters"),
        pytest.param("shards/[!2].jsonl", ["shards/1.jsonl"], id="none of several characters"),
    ],
)
def test_a_path_means_these_files(folder, path, means):
    assert [str(file.relative_to(folder)) for file in find_files([folder / path])] == means


@pytest.mark.parametrize(
    ("link", "target", "more"),
    [
        pytest.param("linked", "../elsewhere", ["linked/5.jsonl", "linked/deep/6.jsonl"], id="out of the folder"),
        pytest.param("linked", "shards/_temporary", ["linked/3.jsonl"], id="to what is hidden, as a ConfigMap has it"),
        pytest.param("linked", "shards", [], id="to a folder beside it, which is read anyway"),
        pytest.param("shards/linked", "..", [], id="in a circle"),
        pytest.param("linked", "../..", [], id="around the folder itself"),
        pytest.param("_linked", "../elsewhere", [], id="hidden itself"),
        pytest.param("linked", "nowhere", [], id="to nothing"),
        pytest.param("more/linked", "../../elsewhere/deep", ["more/linked/6.jsonl"], id="from a folder within"),
    ],
)
def test_links_to_folders_are_followed_to_what_is_not_read_anyway(folder, tmp_path, link, target, more):
    (tmp_path / "elsewhere" / "deep").mkdir(parents=True)
    for name in ("5.jsonl", "deep/6.jsonl"):
        (tmp_path / "elsewhere" / name).write_text("")
    (tmp_path / "elsewhere" / "again").symlink_to(tmp_path / "elsewhere")
    without = find_files([folder])
    (folder / link).parent.mkdir(exist_ok=True)
    (folder / link).symlink_to(target)
    assert find_files([folder]) == sorted([*without, *(folder / name for name in more)])


@pytest.mark.parametrize(
    "links",
    [
        pytest.param({"a": "sub", "b": ""}, id="a part first, then the whole"),
        pytest.param({"a": "", "b": "sub"}, id="the whole first, then a part"),
        pytest.param({"a": ""}, id="one that holds a link to its own part"),
    ],
)
def test_no_row_is_read_twice_through_links_to_folders_within_each_other(folder, tmp_path, links):
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "sub").mkdir(parents=True)
    (elsewhere / "latest").symlink_to("sub")
    (elsewhere / "sub" / "7.jsonl").write_text("")
    for link, target in links.items():
        (folder / link).symlink_to(elsewhere / target)
    found = [path for path in find_files([folder]) if path.name == "7.jsonl"]
    assert len(found) == 1


def test_a_glob_looks_no_deeper_than_it_can_match(folder, monkeypatch):
    walked = []
    real = os.walk

    def walk(top, **kwargs):
        for parent, folders, files in real(top, **kwargs):
            walked.append(Path(parent))
            yield parent, folders, files

    monkeypatch.setattr(os, "walk", walk)
    find_files([folder / "*.jsonl"])
    assert walked == [folder]


def test_a_file_whose_name_looks_like_a_glob_is_a_file(folder):
    (folder / "rows[1].jsonl").write_text("")
    assert find_files([folder / "rows[1].jsonl"]) == [folder / "rows[1].jsonl"]


@pytest.mark.parametrize(
    ("path", "says"),
    [
        pytest.param("c.jsonl", "c.jsonl does not exist: ", id="no file"),
        pytest.param("*.parquet", r"\*.parquet means no file: .*rows holds .*, a.jsonl, b.csv, shards/", id="no match"),
        pytest.param("nowhere/*.csv", "nowhere/\\*.csv does not exist: .*rows holds .*a.jsonl", id="no folder"),
        pytest.param(
            "shards/_temporary/[.jsonl", "means no file: .*holds 3.jsonl", id="a bracket that is never closed"
        ),
        pytest.param("[z-a].jsonl", r"\[z-a\].jsonl is no glob", id="a range backwards"),
        pytest.param("[!].jsonl", r"\[!\].jsonl is no glob", id="a bracket without a character"),
    ],
)
def test_where_nothing_matches_it_is_said_what_there_is(folder, path, says):
    with pytest.raises(SourceError, match=says):
        find_files([folder / path])


def test_the_kubelets_own_folders_are_not_told(tmp_path):
    (tmp_path / "..2026_11_30").mkdir()
    (tmp_path / "..data").symlink_to("..2026_11_30")
    with pytest.raises(SourceError, match=r"does not exist: .* holds nothing that could be read"):
        find_files([tmp_path / "rows"])


def test_an_empty_folder_is_no_rows(tmp_path):
    with pytest.raises(SourceError, match="holds nothing that could be read"):
        find_files([tmp_path])


@pytest.mark.parametrize(
    ("pattern", "name", "fits"),
    [
        pytest.param("a.b", "axb", False, id="a dot is a dot"),
        pytest.param("**/x/*.csv", "a/b/x/1.csv", True, id="folders before"),
        pytest.param("**/x/*.csv", "ax/1.csv", False, id="whole folders only"),
        pytest.param("a**b", "a/c/b", True, id="two stars within a name"),
        pytest.param("[]]", "]", True, id="a bracket in brackets"),
        pytest.param("a+(b)", "a+(b)", True, id="nothing else is special"),
    ],
)
def test_globs(pattern, name, fits):
    assert chosen([name], pattern) == ([name] if fits else [])


def test_several_paths_are_one_dataset_and_problems_name_the_file(folder, tmp_path):
    (folder / "shards" / "2.jsonl").write_text('{"prompt": "x", "completion": 7}\n')
    command = ["import", "--storage", str(tmp_path / "storage"), "--termination-log", str(tmp_path / "said")]
    files = ["--file", str(folder / "a.jsonl"), str(folder / "b.csv"), "--file", str(folder / "shards")]
    assert main([*command, *files]) == 11
    said = json.loads((tmp_path / "said").read_bytes())
    assert [problem["file"] for problem in said["problems"]] == ["shards/2.jsonl"]
    assert "shards/2.jsonl, line 1" in said["message"]
    (folder / "shards" / "2.jsonl").unlink()
    assert main([*command, *files]) == 0
    assert json.loads((tmp_path / "said").read_bytes())["rows"] == 4


def test_problems_of_several_files_are_named_as_compilers_do(folder, tmp_path, capsys, monkeypatch):
    (folder / "shards" / "1.jsonl").write_text('{"prompt": "x", "completion": {"a": 1}}\n')
    command = ["import", "--storage", str(tmp_path / "storage")]
    assert main([*command, "--file", str(folder)]) == 11
    second = "1.jsonl:1:31: completion must be 0 or 1 as in line 1 of a.jsonl, found an object\n"
    assert f"{folder}/shards/{second}" in capsys.readouterr().err
    monkeypatch.chdir(tmp_path)
    assert main([*command, "--file", "rows/shards/*.jsonl", "rows/a.jsonl"]) == 11
    said = capsys.readouterr().err
    assert (
        "rows/shards/2.jsonl:1:36: completion must be a map of labels to 0 or 1 as in line 1 of shards/1.jsonl" in said
    )
    assert main([*command, "--file", "rows", "--on-invalid-rows", "Skip"]) == 0
    assert f"1 row was skipped:\n  shards/{second}" in capsys.readouterr().out


def test_a_label_that_another_files_map_has_names_the_file(folder, tmp_path, capsys):
    (folder / "a.jsonl").write_text('{"prompt": "x", "completion": {"a": 1, "b": 0}}\n')
    (folder / "b.csv").write_text('{"prompt": "x", "completion": {"a": 1}}\n')
    files = [str(folder / "a.jsonl"), str(folder / "b.csv")]
    assert main(["import", "--storage", str(tmp_path / "storage"), "--file", *files]) == 11
    assert 'without the label "b", which line 1 of a.jsonl has; every row' in capsys.readouterr().err


@pytest.mark.parametrize("rows", [b'{"prompt": "x", "completion": 7}\n', b"\xff\xfe"], ids=["a problem", "no rows"])
def test_a_name_that_is_no_utf_8_is_told_as_it_is(folder, tmp_path, rows):
    (Path(os.fsdecode(os.fsencode(folder) + b"/caf\xe9.jsonl"))).write_bytes(rows)
    command = ["import", "--storage", str(tmp_path / "storage"), "--termination-log", str(tmp_path / "said")]
    assert main([*command, "--file", str(folder), "--json"]) == 11
    assert "caf\\udce9.jsonl" in json.loads((tmp_path / "said").read_bytes())["message"]
