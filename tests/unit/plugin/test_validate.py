"""`kubectl winnow validate`, by its front door, held against the import whose judgement it foretells."""

import json

import pytest

from winnow_trainer.cli import main as trainer

GOOD = '{"prompt": "hello you", "completion": 0}\n{"prompt": "win a big prize", "completion": 1}\n' * 20
MAPS = '{"prompt": "a", "completion": {"x": 1, "y": 0}}\n{"prompt": "b", "completion": {"x": 1, "y": 1}}\n'
CSV = 'input,expected_output\n"a, b",1\nc,0\n'

FILES = [
    pytest.param(GOOD, (), 0, id="JSONL"),
    pytest.param(GOOD, ("--labels", "ham,spam"), 0, id="named labels"),
    pytest.param(CSV, (), 0, id="CSV"),
    pytest.param(MAPS, ("--task-detail", "multilabel"), 0, id="label maps, the option in lower case"),
    pytest.param(CSV.replace("input", "mail"), ("--text-column", "mail"), 0, id="a column of another name"),
    pytest.param(GOOD + "{broken\n" * 25, ("--on-invalid-rows", "Skip"), 0, id="wrong rows that are skipped"),
    pytest.param(GOOD + '{"prompt": "x", "completion": 2}\n', (), 11, id="a two"),
    pytest.param("{broken\n" * 25, (), 11, id="more wrong rows than are shown"),
    pytest.param("{broken\n", ("--on-invalid-rows", "Skip"), 11, id="nothing left"),
    pytest.param("", (), 11, id="an empty file"),
    pytest.param(b"\xff\xfea\x00", (), 11, id="UTF-16"),
    pytest.param(CSV, ("--text-column", "nowhere"), 11, id="no such column"),
    pytest.param(GOOD, ("--labels", "a,a"), 10, id="a label twice"),
    pytest.param(GOOD, ("--format", "XML"), 10, id="no such format"),
    pytest.param(None, (), 10, id="no such file"),
]


@pytest.fixture
def both(plugin, tmp_path, capsys):
    """Runs the plugin and the import on the same rows: what each gave."""

    def run(rows, *options):
        file = tmp_path / "rows"
        if rows is not None:
            file.write_bytes(rows if isinstance(rows, bytes) else rows.encode())
        judged = plugin("validate", file, *options)
        code = trainer(["import", "--file", str(file), "--storage", str(tmp_path / "storage"), *options])
        said = capsys.readouterr()
        return judged, (code, said.out, said.err)

    return run


@pytest.mark.parametrize(("rows", "options", "code"), FILES)
def test_the_words_are_those_of_the_import(both, rows, options, code):
    judged, imported = both(rows, *options)
    assert judged[0] == imported[0] == code
    told = [line for line in imported[1].splitlines() if not line.startswith(("stored  ", "picture "))]
    assert judged[1].splitlines() == told
    assert judged[2] == imported[2]
    assert bool(judged[1]) == (code == 0)
    assert ("error: " in judged[2]) == (code != 0)


@pytest.mark.parametrize(("rows", "options", "code"), [file for file in FILES if file.values[2] != 10])
def test_programs_are_told_what_the_import_tells_them(both, tmp_path, rows, options, code):
    judged, imported = both(rows, "--json", *options)
    mine, theirs = json.loads(judged[1]), json.loads(imported[1])
    assert mine.pop("kind") == "validate"
    assert theirs.pop("kind") == "import"
    assert mine.pop("file") == str(tmp_path / "rows")
    theirs.pop("path", None)
    theirs.pop("picture", None)
    assert mine == theirs
    assert (mine["state"] == "Ready") == (code == 0)


def test_nothing_is_written(plugin, tmp_path):
    (tmp_path / "rows").write_text(GOOD)
    assert plugin("validate", tmp_path / "rows")[0] == 0
    assert [path.name for path in tmp_path.iterdir()] == ["rows"]


def test_of_several_files_each_is_judged_and_the_worst_decides(plugin, tmp_path):
    for name, rows in (("bad.csv", CSV.replace("0", "7")), ("good.jsonl", GOOD)):
        (tmp_path / name).write_text(rows)
    code, out, err = plugin("validate", tmp_path / "bad.csv", tmp_path / "good.jsonl")
    assert code == 11
    assert f'{tmp_path / "bad.csv"}:3:3: expected_output must be 0 or 1, found "7"' in err
    assert f"== {tmp_path / 'good.jsonl'}\n40 rows · Binary" in out
    code, out, _ = plugin("validate", "--json", tmp_path / "bad.csv", tmp_path / "good.jsonl")
    first, second = out.split("\n}\n")[:2]
    assert json.loads(first + "}")["problemCount"] == 1
    assert json.loads(second + "}")["digest"].startswith("sha256:")


def test_a_folder_or_a_glob_is_one_set_of_rows(plugin, tmp_path):
    for number in range(2):
        (tmp_path / f"{number}.jsonl").write_text(GOOD.replace("text", f"text {number}"))
    (tmp_path / "notes.md").write_text("none of the rows")
    code, out, _ = plugin("validate", tmp_path / "*.jsonl")
    assert (code, out.splitlines()[0].split(" · ")[0]) == (0, "80 rows")
    (tmp_path / "1.jsonl").write_text(GOOD + "{broken\n")
    code, _, err = plugin("validate", tmp_path / "*.jsonl")
    assert (code, err.startswith(f"{tmp_path / '1.jsonl'}:41:2: not valid JSON")) == (11, True)
    code, _, err = plugin("validate", tmp_path / "*.csv")
    assert code == 10
    assert "*.csv means no file" in err
    assert "0.jsonl, 1.jsonl, notes.md" in err


MANIFEST = """
apiVersion: winnow.dev/v1alpha1
kind: Dataset
metadata: {name: mails}
spec:
  modelService: spam
  labels: [ham, spam]
  columns: {text: mail, target: junk}
  source: {persistentVolumeClaim: {claimName: rows, path: mails.csv}}
"""


def test_a_dataset_manifest_says_how_to_read(plugin, tmp_path):
    (tmp_path / "rows.csv").write_text("mail,junk\na,1\nb,0\n")
    (tmp_path / "dataset.yaml").write_text(MANIFEST)
    code, out, _ = plugin("validate", tmp_path / "rows.csv", "--dataset", tmp_path / "dataset.yaml", "--json")
    assert (code, json.loads(out)["labels"]) == (0, [["ham", 1], ["spam", 1]])


@pytest.mark.parametrize(
    ("manifest", "more", "says"),
    [
        pytest.param(MANIFEST, ("--labels", "a,b"), "--labels stands in the manifest of --dataset", id="both"),
        pytest.param(MANIFEST.replace("labels", "lables"), (), "spec.lables", id="a field that is none"),
        pytest.param("kind: Dataset", (), "spec: Field required", id="no spec"),
        pytest.param("{", (), "is not YAML", id="no YAML"),
        pytest.param(None, (), "cannot be read: No such file", id="no file"),
    ],
)
def test_a_manifest_that_cannot_be_used_is_wrong_usage(plugin, tmp_path, manifest, more, says):
    (tmp_path / "rows.csv").write_text("mail,junk\na,1\n")
    if manifest is not None:
        (tmp_path / "dataset.yaml").write_text(manifest)
    code, out, err = plugin("validate", tmp_path / "rows.csv", "--dataset", tmp_path / "dataset.yaml", *more)
    assert (code, out) == (10, "")
    assert says in err
