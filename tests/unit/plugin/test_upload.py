"""`kubectl winnow upload`: what it refuses before anything is made, and its transfer against the real receiver."""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from winnow_classifier.errors import ConfigError
from winnow_plugin import transfer
from winnow_plugin.cluster import Place
from winnow_plugin.errors import ClusterError, Unreachable, UploadRefused
from winnow_plugin.forward import forwarded
from winnow_plugin.meter import Meter
from winnow_plugin.transfer import send
from winnow_plugin.upload_request import upload_request
from winnow_plugin.upload_spec import LocalFile, Stage, Wanted, agree, stage
from winnow_trainer.receiver import served
from winnow_trainer.reception import Reception

NOTHING = dict.fromkeys(("format", "task_detail", "labels", "text_column", "target_column", "on_invalid_rows"))
NEEDED = ("--model-service", "mail", "--name", "rows")


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "mail.jsonl"
    path.write_bytes(os.urandom(3_000_000))
    return LocalFile(path, 3_000_000, hashlib.sha256(path.read_bytes()).hexdigest())


def arriving(file: LocalFile, folder: Path) -> Reception:
    return Reception(folder / "storage", file.size_bytes, file.sha256)


# Refused at once


@pytest.fixture
def with_kubectl(tmp_path, monkeypatch):
    """A kubectl on the PATH that says what a script says."""

    def make(script: str = "exit 1") -> Path:
        program: Path = tmp_path / "bin" / "kubectl"
        program.parent.mkdir(exist_ok=True)
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
        return program

    return make


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        pytest.param(["-", *NEEDED], "standard input cannot be uploaded", id="stdin"),
        pytest.param(["/nowhere", *NEEDED], "there is no file /nowhere", id="no file"),
        pytest.param(["/tmp", *NEEDED], "/tmp is no file", id="a folder"),
        pytest.param(["/dev/null", *NEEDED], "/dev/null is no file", id="a device"),
        pytest.param(["a", "--name", "rows"], "--model-service is needed", id="no ModelService"),
        pytest.param(["a", "--model-service", "mail"], "--name is needed", id="no name"),
        pytest.param(
            ["a", "--model-service", "mail", "--name", "a.b"], "'a.b' must be small letters", id="no name as such"
        ),
        pytest.param(["a", *NEEDED, "--format", "xml"], "--format: 'xml' is none of", id="no format"),
    ],
)
def test_wrong_usage_is_told_before_any_cluster_is_asked(plugin, with_kubectl, arguments, says):
    with_kubectl()
    code, out, err = plugin("upload", *arguments)
    assert (code, out) == (10, "")
    assert says in err


def test_an_empty_file_is_refused(plugin, with_kubectl, tmp_path):
    with_kubectl()
    (tmp_path / "rows").touch()
    code, _, err = plugin("upload", tmp_path / "rows", *NEEDED)
    assert (code, "is empty" in err) == (10, True)


def test_without_kubectl_it_says_what_to_install(plugin, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    code, _, err = plugin("upload", "a", *NEEDED)
    assert (code, err.splitlines()[0]) == (10, "error: kubectl is not on the PATH")


# What is asked for

MANIFEST = """
kind: Dataset
metadata: {name: mails}
spec: {modelService: mail, labels: [ham, spam], columns: {text: mail}}
"""


def test_only_the_options_that_are_given_must_be_those_of_a_dataset_that_is_there(file):
    request = upload_request(file.path, "mail", "rows", {**NOTHING, "labels": "ham, spam"}, None, None)
    assert request.wanted == Wanted("rows", "mail", {"labels": ["ham", "spam"]})
    assert request.wanted.manifest(file)["spec"] == {
        "modelService": "mail",
        "labels": ["ham", "spam"],
        "source": {"upload": {"sha256": file.sha256, "sizeBytes": 3_000_000, "fileName": "mail.jsonl"}},
    }


def test_a_manifest_says_everything(tmp_path, file):
    (tmp_path / "dataset.yaml").write_text(MANIFEST)
    request = upload_request(file.path, None, None, NOTHING, tmp_path / "dataset.yaml", None)
    assert (request.wanted.name, request.wanted.model_service) == ("mails", "mail")
    spec = request.wanted.manifest(file)["spec"]
    assert (spec["labels"], spec["columns"], spec["format"]) == (["ham", "spam"], {"text": "mail"}, "Auto")


@pytest.mark.parametrize(
    ("manifest", "service", "says"),
    [
        (MANIFEST, "other", "--model-service is other, and the manifest says mail"),
        (MANIFEST.replace("columns", "source: {inline: a}, columns"), None, "spec.source is inline"),
    ],
)
def test_a_manifest_that_says_otherwise_is_refused(tmp_path, file, manifest, service, says):
    (tmp_path / "dataset.yaml").write_text(manifest)
    with pytest.raises(ConfigError, match=says):
        upload_request(file.path, service, None, NOTHING, tmp_path / "dataset.yaml", None)


def there(file: LocalFile, **spec: Any) -> dict[str, Any]:
    defaults = {"modelService": "mail", "format": "Auto", "taskDetail": "Auto", "onInvalidRows": "Fail"}
    return {"metadata": {"name": "rows", "namespace": "demo"}, "spec": {**defaults, "source": file.source(), **spec}}


@pytest.mark.parametrize(
    ("spec", "rows"),
    [
        pytest.param({}, {}, id="nothing said"),
        pytest.param({"labels": ["a", "b"]}, {}, id="labels, and nothing said of them"),
        pytest.param({"labels": ["a", "b"]}, {"labels": ["a", "b"]}, id="the same labels"),
        pytest.param({}, {"format": "Auto", "labels": None}, id="what is by default"),
    ],
)
def test_the_same_upload_goes_on(file, spec, rows):
    agree(there(file, **spec), Wanted("rows", "mail", rows), file)
    other_name = LocalFile(Path("/elsewhere/other"), file.size_bytes, file.sha256)
    agree(there(file, **spec), Wanted("rows", "mail", rows), other_name)


@pytest.mark.parametrize(
    ("spec", "rows", "says"),
    [
        pytest.param({"source": {"inline": "a"}}, {}, "takes its rows from inline", id="another source"),
        pytest.param(
            {"source": {"upload": {"sizeBytes": 1, "sha256": "1" * 64}}},
            {},
            "is for another file, of 1 bytes",
            id="file",
        ),
        pytest.param({"modelService": "other"}, {}, "belongs to the ModelService other", id="ModelService"),
        pytest.param(
            {"labels": ["a", "b"]}, {"labels": ["b", "a"]}, "has labels: a, b, and b, a is asked for", id="labels"
        ),
        pytest.param({"labels": ["a"]}, {"labels": None}, "has labels: a, and none is asked for", id="no labels"),
        pytest.param({}, {"format": "CSV"}, "has format: Auto, and CSV is asked for", id="format"),
    ],
)
def test_another_dataset_of_that_name_is_refused(file, spec, rows, says):
    with pytest.raises(ConfigError, match=says) as refused:
        agree(there(file, **spec), Wanted("rows", "mail", rows), file)
    assert "kubectl delete wds rows -n demo" in refused.value.hint


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ([], Stage.WORKING),
        ([("Ready", "True", "Verified")], Stage.READY),
        ([("Ready", "False", "AwaitingUpload"), ("Reconciling", "True", "AwaitingUpload")], Stage.AWAITING),
        ([("Ready", "False", "Importing")], Stage.WORKING),
        ([("Ready", "False", "InvalidRows"), ("Stalled", "True", "InvalidRows")], Stage.FAILED),
    ],
)
def test_where_an_upload_stands(conditions, expected):
    found = [{"type": type_, "status": status, "reason": reason} for type_, status, reason in conditions]
    assert stage({"status": {"conditions": found}}) is expected


# The transfer


def test_a_file_is_sent_in_requests_and_told_of(file, tmp_path, monkeypatch):
    monkeypatch.setattr(transfer, "REQUEST_BYTES", 1_000_000)
    reception, told, began = arriving(file, tmp_path), [], []
    with served(reception) as port:
        send(port, file, told.append, began.append)
    assert reception.wait().read_bytes() == file.path.read_bytes()
    assert (began, told[-1], told) == ([0], 3_000_000, sorted(told))


def test_it_goes_on_where_the_receiver_stands(file, tmp_path):
    reception, began = arriving(file, tmp_path), []
    reception._part.write_bytes(file.path.read_bytes()[:1_234_567])
    reception = arriving(file, tmp_path)
    with served(reception) as port:
        send(port, file, lambda _: None, began.append)
    assert began == [1_234_567]
    assert reception.wait().read_bytes() == file.path.read_bytes()


def test_what_is_there_already_is_not_sent_again(file, tmp_path):
    reception = arriving(file, tmp_path)
    with served(reception) as port:
        send(port, file, lambda _: None)
        send(port, file, lambda _: pytest.fail("sent again"))


def test_a_broken_connection_is_worth_another_try(file, tmp_path):
    """Cut in the middle by what stands between, as often as it takes."""
    reception = arriving(file, tmp_path)
    broken = 0
    with served(reception) as port:
        while not reception.complete:
            try:
                with cut_after(700_000, port) as local:
                    send(local, file, lambda _: None)
            except Unreachable as err:
                assert "the connection to the pod broke" in str(err)
                broken += 1
    assert broken >= 2
    assert reception.wait().read_bytes() == file.path.read_bytes()


class cut_after:  # noqa: N801 - reads as a sentence
    """A port that passes so many bytes on, and then breaks."""

    def __init__(self, size: int, port: int) -> None:
        self._left, self._port = size, port

    def __enter__(self) -> int:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._pass_on, daemon=True)
        self._thread.start()
        return int(self._listening.getsockname()[1])

    def __exit__(self, *_: object) -> None:
        self._listening.close()
        self._thread.join(10)

    def _pass_on(self) -> None:
        here, _ = self._listening.accept()
        with here, socket.create_connection(("127.0.0.1", self._port)) as there:
            back = threading.Thread(target=self._copy, args=(there, here, 1 << 30), daemon=True)
            back.start()
            self._copy(here, there, self._left)

    @staticmethod
    def _copy(source: socket.socket, target: socket.socket, left: int) -> None:
        with contextlib.suppress(OSError):
            while left > 0 and (part := source.recv(65_536)):
                target.sendall(part)
                left -= len(part)
        for end in (source, target):  # both: an end that is left open keeps its peer waiting for the rest
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


def test_a_file_that_changed_meanwhile_is_refused_in_words(file, tmp_path):
    file.path.write_bytes(bytes(3_000_000))
    with served(arriving(file, tmp_path)) as port, pytest.raises(UploadRefused, match="did not arrive as it is") as err:
        send(port, file, lambda _: None)
    assert "changed while it was sent" in err.value.hint


def test_a_file_that_became_shorter_is_refused_in_words(file, tmp_path):
    file.path.write_bytes(b"short")
    with served(arriving(file, tmp_path)) as port, pytest.raises(UploadRefused, match="became shorter"):
        send(port, file, lambda _: None)


def test_a_pod_that_awaits_another_file_gets_none(file, tmp_path):
    other = Reception(tmp_path / "storage", 10, "0" * 64)
    with served(other) as port, pytest.raises(UploadRefused, match="the pod awaits another file"):
        send(port, file, lambda _: None)


# kubectl port-forward


def test_the_port_that_kubectl_names_is_taken_and_kubectl_ends_with_the_block(with_kubectl, tmp_path):
    script = f'echo $$ > {tmp_path}/pid; echo "$@" > {tmp_path}/said; echo "Forwarding from 127.0.0.1:4711 -> 8082"; exec sleep 60'
    place = Place(kubeconfig=Path("/config"), context="there")
    with forwarded(with_kubectl(script), place, "demo", "rows-1", 8082) as port:
        assert port == 4711
        pid = int((tmp_path / "pid").read_text())
    assert not Path(f"/proc/{pid}").exists()
    assert (tmp_path / "said").read_text().split() == [
        *("port-forward", "-n", "demo", "--address", "127.0.0.1", "pod/rows-1", ":8082"),
        *("--kubeconfig", "/config", "--context", "there"),
    ]


def test_a_missing_right_is_named(with_kubectl):
    said = (
        'Error from server (Forbidden): pods "rows-1" is forbidden: User "me" cannot create resource "pods/portforward"'
    )
    program = with_kubectl(f"echo '{said}' >&2; exit 1")
    words = "you may not forward ports of pods in the namespace demo"
    with pytest.raises(ClusterError, match=words) as refused, forwarded(program, Place(), "demo", "rows-1", 8082):
        pass
    assert "get and create pods/portforward are needed" in refused.value.hint


def test_any_other_trouble_of_kubectl_is_worth_another_try(with_kubectl):
    program = with_kubectl("echo 'error: unable to forward port because pod is not running' >&2; exit 1")
    words = "kubectl port-forward to pod rows-1: error: unable to forward port"
    with pytest.raises(Unreachable, match=words), forwarded(program, Place(), "demo", "rows-1", 8082):
        pass


def test_without_a_terminal_progress_is_a_line_now_and_then(capsys):
    times = iter([0.0, 0.0, 5.0, 12.0, 13.0])
    with Meter("sending mail.jsonl", 1_000, clock=lambda: next(times)) as meter:
        meter.begin(200)
        meter.at(300)
        meter.at(800)
        meter.at(900)
        meter.say("The file is there\x1b[2J")
    assert capsys.readouterr().err.splitlines() == [
        "sending mail.jsonl: 80% of 1.0 kB, 50 bytes/s, 4 s left",
        "The file is there�[2J",
    ]
