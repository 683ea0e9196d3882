"""`python -m winnow_trainer import`, by its front door: files in, exit code, words and a stored dataset out."""

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from winnow_classifier import row_files
from winnow_classifier.dataset import load_dataset
from winnow_trainer import picture
from winnow_trainer.cli import main

ROWS = '{"prompt": "hello you", "completion": 0}\n{"prompt": "win a big prize", "completion": 1}\n' * 20


@pytest.fixture
def run(tmp_path, capsys):
    """Runs the import in this process: (exit code, stdout, stderr, termination message)."""

    def import_(rows, *options, name="rows.jsonl"):
        (tmp_path / name).write_bytes(rows if isinstance(rows, bytes) else rows.encode())
        log = tmp_path / "termination"
        command = ["import", "--file", str(tmp_path / name), "--storage", str(tmp_path / "storage")]
        code = main([*command, "--termination-log", str(log), *map(str, options)])
        said = capsys.readouterr()
        return code, said.out, said.err, json.loads(log.read_bytes()) if log.exists() else None

    return import_


def test_of_many_labels_the_first_are_listed_and_the_others_counted(run):
    def summed_up(labels):
        return run("".join(f'{{"text": "text {n}", "label": "label {n}"}}\n' for n in range(labels)))[1]

    assert "… and 1 more label\n" in summed_up(31)
    assert "… and 2 more labels\n" in summed_up(32)


def test_good_rows_are_stored_and_summed_up(run, tmp_path):
    code, out, _, message = run(ROWS, "--labels", "ham,spam")
    assert code == 0
    assert "40 rows · Binary · 2 labels · 38 duplicates · 0 conflicts" in out
    assert "ham           20  50.0%" in out
    stored = load_dataset(tmp_path / "storage" / "datasets" / message["digest"].removeprefix("sha256:"))
    assert stored.schema.labels == ("ham", "spam")
    assert str(stored.path) in out
    assert message == {
        "kind": "import",
        "state": "Ready",
        "reason": "Verified",
        "message": "40 rows, Binary, 2 labels",
        "digest": stored.digest,
        "format": "JSON",
        "taskDetail": "Binary",
        "rows": 40,
        "labelCount": 2,
        "labels": [["ham", 20], ["spam", 20]],
        "tokens": None,
        "duplicates": 38,
        "conflicts": 0,
        "nearDuplicates": 0,
        "skippedRows": 0,
        "warnings": [],
        "problems": [],
        "problemCount": 0,
    }


def test_wrong_rows_are_named_as_compilers_name_lines(run, tmp_path):
    code, out, err, message = run(ROWS + '{"prompt": "x", "completion": 2}\n')
    assert code == 11
    assert out == ""
    assert f"{tmp_path / 'rows.jsonl'}:41:31: completion must be 0 or 1, found 2\n" in err
    assert "error: 1 of 41 rows cannot be read" in err
    assert "hint: correct the rows, or set onInvalidRows: Skip" in err
    assert (message["state"], message["reason"], message["problemCount"]) == ("Failed", "InvalidRows", 1)
    assert message["problems"] == [{"line": 41, "column": 31, "message": "completion must be 0 or 1, found 2"}]
    assert [path.name for path in (tmp_path / "storage").iterdir()] == ["imports"]


def test_all_problems_are_kept_beside_the_dataset(run, tmp_path):
    problems = tmp_path / "storage" / "imports" / "rows" / "problems.jsonl"
    assert run("{broken\n" * 1_000 + ROWS)[0] == 11
    lines = [json.loads(line) for line in problems.read_text().splitlines()]
    assert [line["line"] for line in lines] == list(range(1, 1_001))
    assert lines[0] == {"line": 1, "column": 2, "message": lines[0]["message"]}
    assert run("{broken\n" + ROWS, "--on-invalid-rows", "Skip")[0] == 0
    assert len(problems.read_text().splitlines()) == 1
    assert run(ROWS)[0] == 0
    assert list(problems.parent.iterdir()) == []


@pytest.mark.parametrize(("path", "name"), [("mails/older/..", "mails"), ("mails/..csv", "rows")])
def test_problems_stay_below_imports_whatever_the_path(tmp_path, path, name):
    (tmp_path / "mails" / "older").mkdir(parents=True)
    (tmp_path / "mails" / "..csv").write_text("text,label\na,7\n")
    (tmp_path / "mails" / "rows.csv").write_text("text,label\na,7\n")
    assert main(["import", "--file", str(tmp_path / path), "--storage", str(tmp_path / "storage")]) == 11
    assert [str(file.relative_to(tmp_path / "storage")) for file in (tmp_path / "storage").rglob("*.jsonl")] == [
        f"imports/{name}/problems.jsonl"
    ]


def test_a_profile_stands_beside_the_rows(run, tmp_path):
    rows = [{"text": f"text number {n}", "labels": ["a", "b"] if n % 3 else ["c"]} for n in range(40)]
    code, _, _, message = run("".join(json.dumps(row) + "\n" for row in rows))
    assert code == 0
    folder = tmp_path / "storage" / "datasets" / message["digest"].removeprefix("sha256:")
    found = json.loads((folder / "profile.json").read_text())
    assert (found["rows"], found["duplicates"], found["conflicts"]) == (40, 0, 0)
    assert found["labels"][0] == {"name": "a", "positives": 26, "share": 0.65}
    assert found["coOccurrence"] == [{"labels": ["a", "b"], "rows": 26}]
    assert found["characters"]["max"] == len("text number 39")
    assert found["oddities"] == {"controlCharacters": 0, "withoutWords": 0, "onlyDigits": 0}
    assert found["histogram"]["of"] == "characters"
    assert sum(found["histogram"]["rows"]) == 40


@pytest.mark.pictures
def test_a_picture_of_the_profile_stands_beside_it(run):
    code, out, _, _ = run(ROWS)
    assert code == 0
    picture = Path(out.splitlines()[-1].removeprefix("picture "))
    assert picture.name == "profile.png"
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_a_picture_that_cannot_be_drawn_does_not_fail_the_import(run, monkeypatch):
    monkeypatch.setattr(picture, "draw", lambda *_: 1 / 0)
    code, out, err, message = run(ROWS)
    assert (code, message["state"]) == (0, "Ready")
    assert "profile.png" not in out
    assert "The picture of the profile was not drawn" in err


def test_a_header_that_is_no_utf_8_is_told_everywhere(run):
    code, _, err, message = run("größe,wert\na,1\n".encode("latin-1"), name="rows.csv")
    assert code == 11
    assert "the header has no field" in err
    assert message["reason"] == "InvalidRows"
    assert "\\udcf6" in message["problems"][0]["message"]


def test_skipped_rows_are_counted_and_shown(run):
    code, out, _, message = run(ROWS + "{broken\n" * 25, "--on-invalid-rows", "skip")
    assert code == 0
    assert "25 rows were skipped:\n  line 41:2: not valid JSON" in out
    assert "… and 5 more" in out
    assert (message["rows"], message["skippedRows"], message["problemCount"]) == (40, 25, 25)
    assert len(message["problems"]) == 20


@pytest.mark.parametrize(
    ("rows", "options", "code", "reason"),
    [
        pytest.param("", (), 11, "EmptyDataset", id="an empty file"),
        pytest.param("{broken\n", ("--on-invalid-rows", "Skip"), 11, "EmptyDataset", id="nothing left"),
        pytest.param("input,expected_output\na,7\n", (), 11, "InvalidRows", id="a seven"),
        pytest.param(ROWS, ("--labels", "a,a"), 10, "InvalidConfiguration", id="a label twice"),
        pytest.param(ROWS, ("--file", "nowhere.csv"), 10, "SourceUnreachable", id="no such file"),
        pytest.param(ROWS, ("--storage", "/proc/no"), 20, "StorageUnavailable", id="storage that cannot be written"),
    ],
)
def test_what_goes_wrong_has_its_exit_code_and_reason(run, rows, options, code, reason):
    found, _, err, message = run(rows, *options)
    assert (found, message["reason"]) == (code, reason)
    assert "error: " in err


def test_wrong_options_say_what_is_allowed(run):
    code, _, err, _ = run(ROWS, "--format", "XML")
    assert code == 10
    assert "error: --format: 'XML' is none of Auto, JSONL, JSON, CSV, Parquet" in err


def test_json_is_for_programs(run, tmp_path):
    code, out, _, message = run(ROWS, "--json")
    assert code == 0
    found = json.loads(out)
    folder = tmp_path / "storage" / "datasets" / message["digest"].removeprefix("sha256:")
    assert (found.pop("path"), found.pop("picture")) == (str(folder), str(folder / "profile.png"))
    assert found == message
    code, out, _, message = run("{broken", "--json")
    assert json.loads(out) == message


def test_a_dataset_manifest_says_how_to_read(run, tmp_path):
    manifest = tmp_path / "dataset.yaml"
    manifest.write_text(
        """
        apiVersion: winnow.dev/v1alpha1
        kind: Dataset
        metadata: {name: mails, namespace: demo}
        spec:
          modelService: spam
          format: CSV
          taskDetail: Auto
          labels: [ham, spam]
          columns: {text: mail, target: junk}
          onInvalidRows: Skip
        """
    )
    code, _, _, message = run("mail,junk\nhello,0\nwin,1\nodd,9\n", "--dataset", manifest)
    assert code == 0
    assert (message["labels"], message["skippedRows"]) == ([["ham", 1], ["spam", 1]], 1)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(
            "kind: Dataset\nspec: {formt: CSV}", "spec.formt: there is no such field; did you mean format?", id="a typo"
        ),
        pytest.param(
            "kind: Dataset\nspec: {format: XML}", "spec.format: Input should be 'Auto', 'JSONL'", id="a value"
        ),
        pytest.param("kind: Pod\nspec: {}", "kind: Input should be 'Dataset', found 'Pod'", id="another kind"),
        pytest.param("kind: [", "is not YAML", id="no YAML"),
        pytest.param("kind: 2024-13-45", "is not YAML: month must be in 1..12", id="a date that is none"),
        pytest.param("words", "holds no mapping", id="no mapping"),
    ],
)
def test_a_manifest_that_is_wrong_names_the_field(run, tmp_path, content, message):
    (tmp_path / "dataset.yaml").write_text(content)
    code, _, err, told = run(ROWS, "--dataset", tmp_path / "dataset.yaml")
    assert code == 10
    assert message in err
    assert told["reason"] == "InvalidConfiguration"


def test_options_beside_a_manifest_are_refused(run, tmp_path):
    code, _, err, _ = run(ROWS, "--dataset", tmp_path / "dataset.yaml", "--labels", "a,b")
    assert code == 10
    assert "--labels stands in the manifest of --dataset already" in err


@pytest.fixture
def base_model(tmp_path):
    """The files that a base model must have; only the tokenizer is read."""
    folder = tmp_path / "base"
    folder.mkdir()
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.enable_truncation(2)  # as sentence encoders bring it; lengths are those before any truncation
    tokenizer.save(str(folder / "tokenizer.json"))
    for name in ("config.json", "model.safetensors", "tokenizer_config.json"):
        (folder / name).write_text("{}")
    return folder


def test_lengths_are_those_of_the_base_models_tokens(run, base_model):
    code, out, _, message = run(ROWS, "--base-model", base_model)
    assert code == 0
    assert message["tokens"] == {"mean": 3.0, "p50": 2, "p95": 4, "p99": 4, "max": 4}
    assert "tokens a row: mean 3, p50 2, p95 4, p99 4, max 4" in out


@pytest.mark.parametrize("damage", ["missing", "broken"])
def test_rows_are_stored_though_the_base_model_is_not_there(run, base_model, damage):
    if damage == "missing":
        (base_model / "tokenizer.json").unlink()
    else:
        (base_model / "tokenizer.json").write_text("{}")
    code, out, _, message = run(ROWS, "--base-model", base_model)
    assert code == 0
    assert message["tokens"] is None
    assert [warning["code"] for warning in message["warnings"]] == ["NoTokenLengths"]
    assert "tokenizer.json" in out


def test_a_bug_is_told_as_one(run, monkeypatch):
    def broken(*_):
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr(row_files, "_detect", broken)
    code, _, err, message = run(ROWS)
    assert code == 1
    assert (message["state"], message["reason"]) == ("Failed", "InternalError")
    assert "ZeroDivisionError: division by zero; this is a bug" in message["message"]
    assert "Traceback" in err
