"""What a server says when it cannot start: the exit code, the words, and the termination message."""

import json
import socket
from pathlib import Path

import pytest
import tiny_server

from winnow_classifier.errors import CheckpointError, ConfigError, StorageError
from winnow_server import settings
from winnow_server.__main__ import run, write_termination_message
from winnow_server.process import listen
from winnow_server.serve import serve
from winnow_server.waking import wake


def test_a_checkpoint_whose_bytes_changed_is_not_served(tmp_path, capsys):
    folder = tiny_server.publish(tmp_path)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x00")
    wanted = ["--checkpoint", folder, "--port", 0, "--termination-log", tmp_path / "termination-log"]
    assert run(settings.parse([str(argument) for argument in wanted])) == 10
    assert "model.safetensors" in capsys.readouterr().err
    message = json.loads((tmp_path / "termination-log").read_text())
    assert (message["kind"], message["state"], message["reason"]) == ("serve", "Failed", "CheckpointInvalid")
    assert "model.safetensors" in message["message"]


def test_what_is_wrong_and_what_helps_are_one_sentence(tmp_path, monkeypatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID", raising=False)
    wanted = ["--checkpoint", "s3://bucket/spam", "--termination-log", str(tmp_path / "termination-log")]
    assert run(settings.parse(wanted)) == 10
    message = json.loads((tmp_path / "termination-log").read_text())["message"]
    assert "AWS_SECRET_ACCESS_KEY are not both there; give the Secret of spec.storage.s3.secretRef both keys" in message


def test_a_gpu_that_has_to_be_there_and_is_not_seen_is_said_to_be_missing(checkpoint_folder, tmp_path):
    log = tmp_path / "termination-log"
    wanted = ["--checkpoint", str(checkpoint_folder), "--require-gpu", "--termination-log", str(log)]
    assert run(settings.parse(wanted)) == 20
    message = json.loads(log.read_text())
    assert message["reason"] == "GpuNotSeen"
    assert message["message"].startswith("This is to run on a GPU, and torch sees none: ")


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="there is no IPv6 here")
@pytest.mark.parametrize(
    "host",
    [
        pytest.param(settings.parse(["--checkpoint", "x"]).host, id="server"),
        pytest.param(wake.parse(["--name", "web", "--upstream", "http://x"]).host, id="waker"),
    ],
)
def test_it_is_reached_by_ipv4_and_ipv6_alike(host):
    """A pod of a cluster of IPv6 alone has no other address, and its probes no other way."""
    with listen(host, 0) as listener:
        for address in ("127.0.0.1", "::1"):
            socket.create_connection((address, listener.getsockname()[1])).close()


def test_an_address_that_is_taken_is_named_once():
    with listen("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"^Cannot listen on 127.0.0.1:{port}: Address already in use\.$"):
            listen("127.0.0.1", port)


def test_a_key_that_cannot_be_read_is_said_so(checkpoint_folder, tmp_path, capsys):
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "alice").symlink_to("/proc/self/mem")  # is there, and reading it fails, for root too
    keys = ["--api-keys", tmp_path / "keys"]
    wanted = ["--checkpoint", checkpoint_folder, "--port", 0, "--termination-log", tmp_path / "termination-log", *keys]
    assert run(settings.parse([str(argument) for argument in wanted])) == 20
    assert f"{keys[1]} cannot be read: Input/output error" in capsys.readouterr().err
    assert json.loads((tmp_path / "termination-log").read_text())["reason"] == "StorageUnavailable"
    with pytest.raises(StorageError, match="cannot be read"):
        wake.wake(wake.parse(["--name", "web", "--upstream", "http://127.0.0.1:9", "--port", "0", *map(str, keys)]))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "There is no file"),
        ('{"spam": 0.9,}', "must hold an object of numbers from 0 to 1 by label: Invalid JSON"),
        ('{"spam": true}', "by label: spam: Input should be a valid number"),
        ('{"spam": "0.9"}', "by label: spam: Input should be a valid number"),
        ('{"spam": 90}', "by label: spam: Input should be less than or equal to 1"),
    ],
)
def test_thresholds_that_cannot_be_used_are_said_so(checkpoint_folder, tmp_path, capsys, content, words):
    """Not served by: nobody would see that the file that was named decides nothing."""
    file = tmp_path / "thresholds.json"
    if content is not None:
        file.write_text(content)
    wanted = ["--checkpoint", checkpoint_folder, "--port", 0, "--thresholds", file]
    assert run(settings.parse([str(argument) for argument in wanted])) == 10
    said = capsys.readouterr().err
    assert str(file) in said
    assert words in said


def test_another_checkpoint_than_the_one_asked_for_is_not_served(checkpoint_folder):
    wanted = settings.parse(["--checkpoint", str(checkpoint_folder), "--digest", "sha256:" + "0" * 64])
    with pytest.raises(CheckpointError, match="digest"):
        serve(wanted)


def test_a_folder_without_a_checkpoint_is_said_so(tmp_path):
    with pytest.raises(CheckpointError, match=r"checkpoint\.json is missing"):
        serve(settings.parse(["--checkpoint", str(tmp_path)]))


def test_a_port_that_is_taken_is_said_so(checkpoint_folder, server):
    port = server.url.rpartition(":")[2]
    with pytest.raises(ConfigError, match=port):
        serve(settings.parse(["--checkpoint", str(checkpoint_folder), "--host", "127.0.0.1", "--port", port]))


@pytest.mark.parametrize("port", ["99999", "-1", "http"])
def test_a_port_that_is_none_is_said_so(port, capsys):
    with pytest.raises(SystemExit, match="10"):
        settings.parse(["--checkpoint", "somewhere", "--port", port])
    with pytest.raises(SystemExit, match="10"):
        wake.parse(["--name", "web", "--upstream", "http://web-pods", "--port", port])
    assert capsys.readouterr().err.count("--port: ") == 2


@pytest.mark.parametrize("option", ["--drain-seconds", "--max-request-seconds"])
@pytest.mark.parametrize("seconds", ["nan", "inf", "-1", "soon"])
def test_seconds_that_are_none_are_said_so(option, seconds, capsys):
    with pytest.raises(SystemExit, match="10"):
        settings.parse(["--checkpoint", "somewhere", option, seconds])
    assert f"{option}: " in capsys.readouterr().err


def test_help_tells_the_defaults_that_hold(capsys):
    with pytest.raises(SystemExit, match="0"):
        settings.parse(["--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert f"(default: {settings.CPU_BATCH_TOKENS}, GPU {settings.GPU_BATCH_TOKENS})" in said
    assert f"(default: {settings.QUEUED_BATCHES} batches)" in said
    documented = (Path(__file__).parents[3] / "docs" / "serving.md").read_text()
    assert f"({settings.CPU_BATCH_TOKENS} on a CPU" in documented
    assert f"{settings.GPU_BATCH_TOKENS:,} on a GPU)" in documented
    assert f"({settings.QUEUED_BATCHES} batches)" in documented


def test_a_termination_message_fits_where_the_kubelet_cuts(tmp_path):
    write_termination_message(tmp_path / "log", "CheckpointInvalid", "ä" * 9_000)
    written = (tmp_path / "log").read_bytes()
    assert len(written) <= 4_096
    assert json.loads(written)["message"].startswith("ää")
