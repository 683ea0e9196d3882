"""A file that arrives over real HTTP, in whatever pieces, and the import that waits for it."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st
from small_disks import can_mount, small_disk
from tiny_server import free_port

from winnow_classifier.errors import DataError, NoRoomForUpload, StorageError, StorageFull, UploadAbandoned
from winnow_trainer import reception
from winnow_trainer.cli import main as trainer
from winnow_trainer.receiver import received, served
from winnow_trainer.reception import Reception, Refused, remove_stale

ROWS = "".join(f'{{"prompt": "text number {n}", "completion": {n % 2}}}\n' for n in range(200)).encode()


def arriving(folder: Path, content: bytes = ROWS, **more) -> Reception:
    return Reception(folder / "rows-0a1b2c3d", len(content), hashlib.sha256(content).hexdigest(), **more)


class Sender:
    def __init__(self, port: int) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)

    def put(self, offset: object, body: bytes) -> tuple[int, Any]:
        return self._said("PUT", body, {} if offset is None else {"Upload-Offset": str(offset)})

    def ask(self) -> Any:
        return self._said("GET")[1]

    def _said(self, method: str, body: Any = None, headers: Any = None, path: str = "/upload") -> tuple[int, Any]:
        self.connection.request(method, path, body, headers or {})
        response = self.connection.getresponse()
        return response.status, json.loads(response.read())


@contextmanager
def receiving(reception: Reception):
    with served(reception) as port:
        yield Sender(port)


def test_a_file_in_one_request(tmp_path):
    reception = arriving(tmp_path)
    with receiving(reception) as sender:
        assert sender.ask() == {
            "receivedBytes": 0,
            "sizeBytes": len(ROWS),
            "sha256": hashlib.sha256(ROWS).hexdigest(),
            "complete": False,
        }
        status, said = sender.put(0, ROWS)
    assert (status, said["complete"]) == (200, True)
    assert reception.wait().read_bytes() == ROWS


def test_head_says_where_it_goes_on(tmp_path):
    with receiving(arriving(tmp_path)) as sender:
        sender.put(0, ROWS[:11])
        sender.connection.request("HEAD", "/upload")
        response = sender.connection.getresponse()
        assert (response.read(), response.headers["Upload-Offset"]) == (b"", "11")


def test_it_goes_on_at_every_offset_also_in_the_next_process(tmp_path):
    content = ROWS[:60]
    for cut in range(1, len(content)):
        folder = tmp_path / str(cut)
        with receiving(arriving(folder, content)) as sender:
            assert sender.put(0, content[:cut])[0] == 200
        again = arriving(folder, content)
        with receiving(again) as sender:
            assert sender.ask()["receivedBytes"] == cut
            assert sender.put(cut, content[cut:])[0] == 200
        assert again.wait().read_bytes() == content


def test_a_whole_file_is_whole_in_the_next_process(tmp_path):
    with receiving(arriving(tmp_path)) as sender:
        sender.put(0, ROWS)
    assert arriving(tmp_path).wait(0.0).read_bytes() == ROWS


def test_a_process_that_died_before_it_looked_at_the_last_byte(tmp_path):
    folder = arriving(tmp_path)._folder
    (folder / reception.PART).write_bytes(ROWS)
    assert arriving(tmp_path).wait(0.0).read_bytes() == ROWS


def test_a_process_that_died_before_it_looked_at_the_last_byte_of_another_file(tmp_path):
    folder = arriving(tmp_path)._folder
    (folder / reception.PART).write_bytes(ROWS[::-1])
    again = arriving(tmp_path)
    with receiving(again) as sender:
        assert (sender.ask()["receivedBytes"], sender.ask()["complete"]) == (0, False)
        assert sender.put(0, ROWS)[0] == 200
    assert again.wait(0.0).read_bytes() == ROWS


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 130), st.integers(0, 130)), max_size=30))
@example([(0, 100)])
def test_whatever_is_sent_what_is_there_begins_the_file(tmp_path_factory, pieces):
    """Any pieces at any offsets: those that fit are taken, no others; then the rest makes it whole."""
    content = random.Random(1).randbytes(100)
    reception = arriving(tmp_path_factory.mktemp("pieces"), content)
    for offset, length in pieces:
        stream = iter([content[offset : offset + length].ljust(length, b"?")])
        before = reception.received_bytes
        fits = offset == before and offset + length <= 100 and not reception.complete
        try:
            reception.append(offset, length, lambda view, parts=stream: _fill(view, next(parts, b"")))
        except Refused as refused:
            assert not fits
            assert refused.status in (409, 413)
        assert reception.received_bytes == before + (length if fits else 0)
        name = reception.file if reception.complete else reception._part
        assert name.read_bytes() == content[: reception.received_bytes]
    if not reception.complete:
        rest = iter([content[reception.received_bytes :]])
        reception.append(reception.received_bytes, 100 - reception.received_bytes, lambda v: _fill(v, next(rest, b"")))
    reception.announce()
    assert reception.wait(0.0).read_bytes() == content


def _fill(view: memoryview, part: bytes) -> int:
    view[: len(part)] = part
    return len(part)


@pytest.mark.parametrize(
    ("offset", "body", "status", "says"),
    [
        pytest.param(0, b"ab", 409, "10 bytes are here, and these begin at byte 0", id="an old offset"),
        pytest.param(11, b"ab", 409, "10 bytes are here, and these begin at byte 11", id="a gap"),
        pytest.param(10, ROWS, 413, f"the file has {len(ROWS):,} bytes", id="too long"),
        pytest.param(None, b"ab", 400, "Upload-Offset is needed", id="no offset"),
        pytest.param("-1", b"ab", 400, "Upload-Offset is needed", id="an offset that is none"),
        pytest.param("1e1", b"ab", 400, "Upload-Offset is needed", id="an offset that is no whole number"),
    ],
)
def test_what_does_not_fit_is_refused_in_words_and_harms_nothing(tmp_path, offset, body, status, says):
    reception = arriving(tmp_path)
    with receiving(reception) as sender:
        sender.put(0, ROWS[:10])
        refused, said = sender.put(offset, body)
        assert (refused, said["receivedBytes"]) == (status, 10)
        assert says in said["message"]
        assert sender.put(10, ROWS[10:])[0] == 200
    assert reception.wait().read_bytes() == ROWS


def test_other_paths_are_not_there(tmp_path):
    with receiving(arriving(tmp_path)) as sender:
        assert sender._said("GET", path="/etc/passwd")[0] == 404
        assert sender._said("PUT", b"a", {"Upload-Offset": "0"}, path="/other")[0] == 404


def test_another_file_is_thrown_away_and_the_right_one_may_follow(tmp_path):
    reception = arriving(tmp_path)
    with receiving(reception) as sender:
        status, said = sender.put(0, ROWS[::-1])
        assert (status, said["receivedBytes"], said["complete"]) == (422, 0, False)
        assert f"and {hashlib.sha256(ROWS).hexdigest()} is wanted" in said["message"]
        assert sender.put(0, ROWS)[0] == 200
    assert reception.wait().read_bytes() == ROWS


def test_what_came_before_a_connection_broke_is_kept(tmp_path):
    with served(arriving(tmp_path)) as port:
        with socket.create_connection(("127.0.0.1", port)) as broken:
            broken.sendall(f"PUT /upload HTTP/1.1\r\nUpload-Offset: 0\r\nContent-Length: {len(ROWS)}\r\n\r\n".encode())
            broken.sendall(ROWS[:77])
        sender = Sender(port)
        _until(lambda: sender.ask()["receivedBytes"] == 77)
        _until(lambda: sender.put(77, ROWS[77:])[0] == 200)


def test_a_second_sender_is_refused_while_the_first_sends(tmp_path):
    with served(arriving(tmp_path)) as port, socket.create_connection(("127.0.0.1", port)) as first:
        first.sendall(f"PUT /upload HTTP/1.1\r\nUpload-Offset: 0\r\nContent-Length: {len(ROWS)}\r\n\r\n".encode())
        first.sendall(ROWS[:10])
        _until(lambda: Sender(port).ask()["receivedBytes"] == 10)
        status, said = Sender(port).put(10, ROWS[10:])
        assert (status, said["message"]) == (423, "another connection is sending this file now")
        first.sendall(ROWS[10:])
        assert first.recv(100).startswith(b"HTTP/1.1 200")


def test_only_the_loopback_is_listened_on(tmp_path):
    with served(arriving(tmp_path)) as port:
        table = Path("/proc/net/tcp").read_text() + Path("/proc/net/tcp6").read_text()
        listening = [line.split()[1] for line in table.splitlines() if f":{port:04X} " in line and " 0A " in line]
    assert listening == [f"0100007F:{port:04X}"]


def test_no_byte_for_long_gives_up_and_leaves_nothing(tmp_path):
    reception = arriving(tmp_path)
    reception.append(0, 10, lambda view: _fill(view, ROWS[: len(view)]))
    with pytest.raises(UploadAbandoned, match=r"no byte of the file came for 0\.05 seconds"):
        reception.wait(0.05)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(Refused, match="no byte of the file came"):
        reception.append(10, 1, lambda view: 0)


def test_bytes_put_the_end_off(tmp_path):
    now, looks = 0.0, 0

    def clock():
        nonlocal looks
        looks += 1
        return now

    reception = arriving(tmp_path, clock=clock)
    ended: list[object] = []
    waiting = threading.Thread(target=lambda: ended.append(reception.wait(0.05)))
    waiting.start()
    for offset in range(8):
        now += 0.04
        _until(lambda before=looks: looks > before)
        reception.append(offset, 1, lambda view, byte=ROWS[offset : offset + 1]: _fill(view, byte))
    rest = iter([ROWS[8:]])
    reception.append(8, len(ROWS) - 8, lambda view: _fill(view, next(rest, b"")))
    reception.announce()
    waiting.join()
    assert ended == [reception.file]


# A disk that is full


@pytest.fixture
def disk(tmp_path):
    if not can_mount():
        pytest.skip("a small disk can be mounted by root only")
    with small_disk(tmp_path / "small", 256 << 10) as folder:
        yield folder


def test_a_file_larger_than_the_disk_is_refused_before_its_first_byte(disk):
    with pytest.raises(NoRoomForUpload, match="the file has 1,000,000 bytes, and the volume has room for 262,144 more"):
        arriving(disk, b"a" * 1_000_000)
    assert list(disk.iterdir()) == []


def test_a_disk_that_fills_up_meanwhile_is_told_to_both_ends_and_leaves_nothing(disk):
    content = os.urandom(200_000)
    reception = arriving(disk, content)
    (disk / "others").write_bytes(bytes(150_000))
    with receiving(reception) as sender:
        status, said = sender.put(0, content)
        assert status == 507
        assert "no room is left for the file after" in said["message"]
        with pytest.raises(NoRoomForUpload) as full:
            reception.wait()
    assert (full.value.exit_code, full.value.reason) == (10, "StorageFull")
    assert [path.name for path in disk.iterdir()] == ["others"]


# Around the import


def complete(folder: Path) -> Reception:
    reception = arriving(folder)
    rest = iter([ROWS])
    reception.append(0, len(ROWS), lambda view: _fill(view, next(rest, b"")))
    reception.announce()
    return reception


@pytest.mark.parametrize("error", [DataError("a row"), MemoryError()], ids=["wrong rows", "memory"])
def test_a_file_whose_import_fails_for_good_is_gone(tmp_path, error):
    reception = complete(tmp_path)
    with pytest.raises(type(error)), received(reception, 0, 10):
        raise error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [StorageError("a hiccup"), KeyboardInterrupt()], ids=["storage", "stopped"])
def test_a_file_whose_import_is_tried_again_stays(tmp_path, error):
    reception = complete(tmp_path)
    with pytest.raises(type(error)), received(reception, 0, 10):
        raise error
    assert arriving(tmp_path).wait(0.0).read_bytes() == ROWS


def test_no_room_for_the_rows_themselves_removes_the_file_and_is_final(tmp_path):
    reception = complete(tmp_path)
    with pytest.raises(NoRoomForUpload, match="no space is left") as full, received(reception, 0, 10):
        raise StorageFull("no space is left")
    assert full.value.exit_code == 10
    assert list(tmp_path.iterdir()) == []


def test_uploads_that_nobody_goes_on_with_are_removed_after_a_day(tmp_path):
    for name, hours in (("new", 1), ("old", 25)):
        (tmp_path / name).mkdir()
        (tmp_path / name / reception.PART).write_bytes(b"a")
        then = time.time() - hours * 3_600
        os.utime(tmp_path / name / reception.PART, (then, then))
        os.utime(tmp_path / name, (then, then))
    remove_stale(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["new"]
    remove_stale(tmp_path / "nowhere")


# The command


def manifest(folder: Path, content: bytes = ROWS, **spec) -> Path:
    upload = {"sizeBytes": len(content), "sha256": hashlib.sha256(content).hexdigest(), "fileName": "mail.jsonl"}
    file = folder / "dataset.yaml"
    file.write_text(yaml.safe_dump({"kind": "Dataset", "spec": {"source": {"upload": upload}, **spec}}))
    return file


@contextmanager
def import_process(tmp_path: Path, port: int):
    """The program of the import pod."""
    storage = tmp_path / "storage"
    command: list[str | Path] = [
        sys.executable,
        "-m",
        "winnow_trainer",
        "import",
        "--dataset",
        manifest(tmp_path),
        "--storage",
        storage,
    ]
    command += ["--receive", storage / "uploads" / "rows-1", "--receive-port", str(port), "--json"]
    process = subprocess.Popen([*command, "--termination-log", tmp_path / "log"], stdout=subprocess.PIPE)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        if process.stdout:
            process.stdout.close()


def test_an_import_waits_for_its_file_over_two_pods_and_cleans_up(tmp_path):
    port = free_port()
    with import_process(tmp_path, port) as first:
        _until(lambda: Sender(port).put(0, ROWS[:1000])[0] == 200)
        first.send_signal(signal.SIGTERM)
        assert first.wait(20) == 143
    with import_process(tmp_path, port) as second:
        _until(lambda: Sender(port).ask()["receivedBytes"] == 1000)
        assert Sender(port).put(1000, ROWS[1000:])[1]["complete"]
        said = json.loads(second.communicate(timeout=60)[0])
        assert (second.returncode, said["rows"]) == (0, 200)
    assert json.loads((tmp_path / "log").read_text())["digest"] == said["digest"]
    assert list((tmp_path / "storage" / "uploads").iterdir()) == []


def test_an_import_that_nobody_sends_anything_says_so(tmp_path, capsys):
    log = tmp_path / "log"
    command = ["import", "--dataset", manifest(tmp_path), "--storage", tmp_path / "storage", "--termination-log", log]
    command += ["--receive", tmp_path / "storage" / "uploads" / "rows-1", "--receive-port", "0"]
    assert trainer([*map(str, command), "--receive-idle-seconds", "0.05"]) == 10
    said = json.loads(log.read_text())
    assert (said["reason"], said["state"]) == ("UploadAbandoned", "Failed")
    assert "no byte of the file came" in capsys.readouterr().err


def test_without_a_cluster_an_upload_is_a_file(tmp_path, capsys):
    assert trainer(["import", "--dataset", str(manifest(tmp_path)), "--storage", str(tmp_path / "storage")]) == 10
    assert "upload can be read in a cluster only" in capsys.readouterr().err


def test_receiving_needs_to_be_told_what(tmp_path, capsys):
    file = tmp_path / "dataset.yaml"
    file.write_text("kind: Dataset\nspec: {source: {inline: a}}\n")
    command = ["import", "--dataset", file, "--storage", tmp_path / "storage", "--receive", tmp_path / "uploads"]
    assert trainer([*map(str, command)]) == 10
    assert "spec.source of the manifest is no upload" in capsys.readouterr().err


def _until(check, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if check():
                return
        except OSError:
            pass
        time.sleep(0.05)
    raise AssertionError("it did not come about in time")
