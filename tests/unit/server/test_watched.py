"""Files that change while the server runs: what cannot be read is read again, and holds up nothing else."""

import asyncio
import logging
import os

import pytest

from winnow_server import watched
from winnow_server.watched import Watched


class Reader:
    """Reads a file as often as it is asked to, and fails while it is told to."""

    def __init__(self):
        self.fails = None
        self.read = []

    def __call__(self, path):
        self.read.append(path.read_text())
        if self.fails is not None:
            raise self.fails


@pytest.fixture
def file(tmp_path):
    (tmp_path / "file").write_text("one")
    return tmp_path / "file"


def test_a_file_is_read_first_and_whenever_it_changes(file):
    reader = Reader()
    watch = Watched(file, reader)
    watch.look_again()
    watch.look_again()
    file.write_text("other")
    watch.look_again()
    assert reader.read == ["one", "other"]


def test_a_file_that_changes_in_nothing_but_its_bytes_is_read_again(file):
    reader = Reader()
    watch = Watched(file, reader)
    watch.look_again()
    before = file.stat()
    file.write_text("two")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    watch.look_again()
    assert reader.read == ["one", "two"]


def test_a_file_that_could_not_be_read_is_read_again_though_it_did_not_change(file, caplog):
    reader = Reader()
    watch = Watched(file, reader)
    for fails in (OSError("away"), OSError("away"), TypeError("odd"), OSError("away"), None):
        reader.fails = fails
        watch.look_again()
    assert len(reader.read) == 5
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert [str(record.exc_info[1]) for record in errors] == ["away", "odd", "away"]  # once while it stays the same
    watch.look_again()
    assert len(reader.read) == 5


async def test_one_file_that_cannot_be_used_holds_up_no_other(file, monkeypatch):
    monkeypatch.setattr(watched, "LOOK_SECONDS", 0.001)
    broken, read = Reader(), asyncio.Queue()
    broken.fails = TypeError("pop expected at most 1 argument, got 2")
    fine = Watched(file, lambda path: read.put_nowait(path.read_text()))
    looking = asyncio.create_task(watched.look_on([Watched(file, broken), fine]))
    assert await asyncio.wait_for(read.get(), 10) == "one"
    file.write_text("two")
    assert await asyncio.wait_for(read.get(), 10) == "two"
    looking.cancel()
