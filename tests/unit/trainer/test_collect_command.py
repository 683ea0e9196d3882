"""`python -m winnow_trainer collect`: what is asked for goes, whole; what is wanted stays; nothing else is touched."""

import json
import os
import shutil
import signal
import time
from datetime import UTC, datetime, timedelta

import pytest

from winnow_classifier.dataset import load_dataset
from winnow_trainer import collect as module
from winnow_trainer.cli import main

NOBODY = f"sha256:{'0' * 64}"


@pytest.fixture
def run(tmp_path, capsys):
    """Runs a command in this process: (exit code, stdout, stderr, termination message)."""

    def command(*arguments):
        log = tmp_path / "termination"
        log.unlink(missing_ok=True)
        storage = ("--storage", str(tmp_path / "storage"))
        code = main([str(arguments[0]), *storage, *map(str, arguments[1:]), "--termination-log", str(log)])
        said = capsys.readouterr()
        return code, said.out, said.err, json.loads(log.read_bytes()) if log.exists() else None

    return command


@pytest.fixture
def stored(run, tmp_path):
    """Imports rows under a name: their folder, an hour old."""

    def store(name="mails", text="hello"):
        (tmp_path / f"{name}.jsonl").write_text(
            f'{{"prompt": "{text}", "completion": 0}}\n{{"prompt": "win", "completion": 1}}\n{{broken\n'
        )
        code, _, _, message = run("import", "--file", tmp_path / f"{name}.jsonl", "--on-invalid-rows", "Skip")
        assert code == 0
        folder = tmp_path / "storage" / "datasets" / message["digest"].removeprefix("sha256:")
        aged(folder, hours=1)
        return folder

    return store


def aged(folder, hours):
    then = time.time() - hours * 3_600
    for path in (*folder.rglob("*"), folder):
        os.utime(path, (then, then))


def digest_of(folder):
    return f"sha256:{folder.name}"


def test_rows_go_by_their_digest_and_others_stay(run, stored):
    gone, stays = stored(), stored("others", text="bye")
    size = sum(path.stat().st_size for path in gone.iterdir())
    code, out, _, message = run("collect", "--remove", digest_of(gone), "--remove", NOBODY)
    assert code == 0
    assert out == f"1 dataset removed, {size:,} bytes freed; 1 not there\n"
    assert not gone.exists()
    assert load_dataset(stays).digest == digest_of(stays)
    assert [path.name for path in gone.parent.iterdir()] == [stays.name]
    assert message == {
        "kind": "collect",
        "state": "Done",
        "message": out.strip(),
        "removed": 1,
        "checkpoints": 0,
        "absent": 1,
        "problems": 0,
        "leftovers": 0,
        "freedBytes": size,
        "kept": [],
    }


def test_a_second_time_nothing_is_there(run, stored):
    folder = stored()
    assert run("collect", "--remove", digest_of(folder))[0] == 0
    code, out, _, _ = run("collect", "--remove", digest_of(folder))
    assert (code, out) == (0, "1 not there\n")


def test_rows_that_an_import_found_again_stay(run, stored):
    folder = stored()
    before = (datetime.now(UTC) - timedelta(minutes=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    stored_again = stored("again")  # the same rows under another name: found, and not written
    assert stored_again == folder
    os.utime(folder / "dataset.json")  # `stored` made it an hour old
    code, out, _, message = run("collect", "--remove", digest_of(folder), "--before", before)
    assert (code, message["kept"]) == (0, [digest_of(folder)])
    assert f"1 kept, because an import has found the rows again since {before}" in out
    assert load_dataset(folder).digest == digest_of(folder)
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_an_import_of_rows_that_are_stored_says_so_by_the_time_of_their_description(run, stored, tmp_path):
    folder = stored()
    before = time.time()
    assert run("import", "--file", tmp_path / "mails.jsonl", "--on-invalid-rows", "Skip")[0] == 0
    assert (folder / "dataset.json").stat().st_mtime >= before - 1
    assert (folder / "rows.parquet").stat().st_mtime < before - 3_000


def test_an_import_that_stored_them_anew_meanwhile_wins(run, stored, monkeypatch):
    """Between the rename and the look at its time: the import met no folder, so it published its own."""
    folder = stored()
    look = module._last_wanted

    def slowly(path):
        if path != folder:
            shutil.copytree(path, folder)
        return look(path)

    monkeypatch.setattr(module, "_last_wanted", slowly)
    assert run("collect", "--remove", digest_of(folder))[0] == 0
    assert load_dataset(folder).digest == digest_of(folder)
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_a_stop_between_the_rename_and_the_second_look_puts_rows_back(run, stored, monkeypatch):
    folder = stored()
    look = module._last_wanted

    def stopped(path):
        if path != folder:
            signal.raise_signal(signal.SIGTERM)
        return look(path)

    monkeypatch.setattr(module, "_last_wanted", stopped)
    assert run("collect", "--remove", digest_of(folder))[0] == 143
    assert load_dataset(folder).digest == digest_of(folder)
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_problems_go_by_the_name_of_their_dataset(run, stored, tmp_path):
    stored(), stored("others")
    code, out, _, message = run("collect", "--remove-problems-of", "mails", "--remove-problems-of", "unknown")
    assert (code, message["problems"]) == (0, 1)
    assert out == f"1 problem file removed, {message['freedBytes']:,} bytes freed\n"
    assert [path.name for path in (tmp_path / "storage" / "imports").iterdir()] == ["others"]


def test_what_killed_imports_left_goes_after_a_day(run, stored, tmp_path):
    storage, folder = tmp_path / "storage", stored()
    for name, hours in (("old", 25), ("young", 1), ("writes", 25)):
        left = folder.parent / f".tmp-{name}" / "new"
        left.mkdir(parents=True)
        (left / "rows.parquet").write_bytes(b"PAR1")
        aged(left.parent, hours)
    os.utime(folder.parent / ".tmp-writes" / "new" / "rows.parquet")  # a very long import is still at it
    for name, hours in (("old", 25), ("young", 1)):
        left = storage / "imports" / "mails" / f".tmp-{name}"
        left.write_text("{")
        os.utime(left, (time.time() - hours * 3_600,) * 2)
    code, out, _, message = run("collect")
    assert (code, message["leftovers"]) == (0, 2)
    assert "2 leftovers of killed imports removed" in out
    assert sorted(path.name for path in folder.parent.glob(".*")) == [".tmp-writes", ".tmp-young"]
    assert [path.name for path in (storage / "imports" / "mails").glob(".*")] == [".tmp-young"]
    assert folder.exists()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        pytest.param(("--remove", "rows"), "--remove: 'rows' is no digest", id="no digest"),
        pytest.param(("--remove", "sha256:../../runs"), "is no digest", id="a way out"),
        pytest.param(("--remove-problems-of", "../datasets"), "is no name of a dataset", id="another way out"),
        pytest.param(("--remove-problems-of", ".."), "is no name of a dataset", id="upwards"),
        pytest.param(("--before", "soon"), "is no time such as", id="no time"),
    ],
)
def test_what_is_wrong_is_refused_before_anything_goes(run, stored, options, says):
    folder = stored()
    code, _, err, _ = run("collect", "--remove", digest_of(folder), *options)
    assert code == 10
    assert says in err
    assert folder.exists()


def test_a_storage_that_is_not_there_is_named(run):
    code, _, err, message = run("collect", "--remove", NOBODY)
    assert (code, message["reason"]) == (10, "InvalidConfiguration")
    assert "--storage: there is no folder" in err


def test_json_is_for_programs(run, stored):
    _, out, _, message = run("collect", "--remove", digest_of(stored()), "--json")
    assert json.loads(out) == message


def checkpoint(tmp_path, name="epoch-1", run="spam-v1"):
    folder = tmp_path / "storage" / "runs" / run / "checkpoints" / name
    folder.mkdir(parents=True)
    (folder / "checkpoint.json").write_text("{}")
    return folder


def test_checkpoints_go_by_their_run_and_name(run, tmp_path):
    gone, stays, other = checkpoint(tmp_path), checkpoint(tmp_path, "epoch-2"), checkpoint(tmp_path, run="spam-v2")
    (gone.with_name(".removed-epoch-1")).mkdir()  # of one that was killed
    code, out, _, message = run("collect", "--remove-checkpoint", "spam-v1/epoch-1")
    assert (code, out) == (0, "1 checkpoint removed, 2 bytes freed\n")
    assert (message["checkpoints"], message["freedBytes"]) == (1, 2)
    assert [path.name for path in gone.parent.iterdir()] == ["epoch-2"]
    assert stays.is_dir()
    assert other.is_dir()
    again = run("collect", "--remove-checkpoint", "spam-v1/epoch-1")
    assert again[:2] == (0, "1 not there\n")
    assert (again[3]["checkpoints"], again[3]["absent"]) == (0, 1)


@pytest.mark.parametrize("name", ["epoch-1", "../x", "spam-v1/..", "spam-v1/a/b", "/etc", "spam-v1/.tmp-epoch-1", "a/"])
def test_a_name_that_leads_elsewhere_is_refused(run, tmp_path, name):
    stays = checkpoint(tmp_path)
    code, _, err, _ = run("collect", "--remove-checkpoint", name)
    assert code == 10
    assert "is no name of a checkpoint" in err
    assert stays.is_dir()
