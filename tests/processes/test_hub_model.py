"""Base models of the Hugging Face Hub: fetched by its own client from a small Hub on this machine, by the training's command line."""

import csv
import json
import os
import subprocess
import sys
import tempfile

import pytest
import tiny_models
import yaml
from small_disks import can_mount, small_disk
from tiny_hub import TinyHub

BASE = "owner/encoder"
TOKEN = "hf_secretsecretsecret"


@pytest.fixture
def hub():
    with TinyHub().running() as hub:
        yield hub


@pytest.fixture
def files(tmp_path):
    base = tiny_models.base_model(tmp_path / "base")
    return {file.name: file.read_bytes() for file in base.iterdir()}


@pytest.fixture
def train(tmp_path):
    def train(reference, endpoint, token=None, storage=None, **more):
        texts, spam = tiny_models.texts(24)
        with (tmp_path / "rows.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("prompt", "completion"), *zip(texts, spam, strict=True)])
        spec = {"trainingDataset": "rows.csv", "testDataset": "rows.csv", "baseModel": reference, "method": "Full"}
        spec["parameters"] = {"numTrainEpochs": 1, "maxSeqLength": 16}
        (tmp_path / "job.yaml").write_text(
            yaml.safe_dump({"kind": "TrainingJob", "metadata": {"name": "job"}, "spec": spec})
        )
        # A home that cannot be written to, as in a container.
        environment = {
            **os.environ,
            "HF_ENDPOINT": endpoint,
            "HOME": "/proc/none",
            "HF_HOME": str(tmp_path / "home"),
            **more,
        }
        environment.pop("HF_TOKEN", None)
        if token:
            environment["HF_TOKEN"] = token
        command = [sys.executable, "-m", "winnow_trainer", "train", "--job", tmp_path / "job.yaml"]
        done = subprocess.run(
            [*command, "--storage", storage or tmp_path / "storage"], env=environment, capture_output=True, text=True
        )
        said = done.stdout + done.stderr
        assert TOKEN not in said
        assert "X-Amz-Signature" not in said, "who has it may fetch the file"
        assert "This is a bug" not in said and "Traceback" not in said, said
        return done.returncode, said

    return train


def test_a_training_goes_on_from_a_model_of_the_hub_and_fetches_it_once(hub, files, train, tmp_path):
    ignored = {"README.md": b"# Encoder\n", "pytorch_model.bin": b"pickled", "onnx/model.onnx": b"\0" * 9}
    ignored |= {"consolidated.safetensors": b"as Mistral has them", "half/model.safetensors": b"\0" * 9}
    commit = hub.repository(BASE, kind="models").commit({**files, **ignored})
    code, said = train(f"hf://{BASE}@main", hub.url)
    assert code == 0, said
    found = tmp_path / "storage" / "models" / "owner--encoder" / commit
    kept = {path.name: path.read_bytes() for path in found.iterdir() if path.name != ".complete"}
    assert kept == {name: files[name] for name in kept} and {"config.json", "model.safetensors"} <= kept.keys()
    manifest = json.loads((tmp_path / "storage/runs/job/checkpoints/epoch-1/checkpoint.json").read_bytes())
    assert f"hf://{BASE}@{commit}" in json.dumps(manifest)
    assert not any(path.endswith(f"/{name}") for path, _ in hub.requests for name in ignored)
    hub.requests.clear()
    code, said = train(f"hf://{BASE}@{commit}", "http://127.0.0.1:9")
    assert code == 0 and not hub.requests, said


@pytest.fixture
def measure(tmp_path):
    """Imports two rows: their tokens (None: not known), and all that is said. Quicker than a training: it needs no torch."""

    def measure(endpoint, *, token=None, **more):
        (tmp_path / "rows.csv").write_text("prompt,completion\nwin a prize,1\nsee you,0\n")
        command = [sys.executable, "-m", "winnow_trainer", "import", "--file", tmp_path / "rows.csv", "--json"]
        environment = {**os.environ, "HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path / "home"), **more}
        environment.pop("HF_TOKEN", None)
        if token:
            environment["HF_TOKEN"] = token
        with tempfile.TemporaryDirectory(dir=tmp_path) as storage:
            done = subprocess.run(
                [*command, "--base-model", f"hf://{BASE}", "--storage", storage],
                env=environment,
                capture_output=True,
                text=True,
            )
        assert done.returncode == 0 and TOKEN not in done.stdout + done.stderr, done.stderr
        return json.loads(done.stdout).get("tokens"), done.stdout + done.stderr, done.stderr

    return measure


def test_an_import_that_fetches_the_tokenizer_logs_lines_of_json_alone(hub, files, measure):
    """No progress bar, and not each request, whose addresses may be signed."""
    hub.repository(BASE, kind="models").commit(files)
    tokens, said, log = measure(hub.url)
    assert tokens and hub.cdn_requests, said
    messages = [json.loads(line)["message"] for line in log.splitlines()]
    assert not any("HTTP Request" in message for message in messages), messages


def test_a_repository_behind_a_token(hub, files, train):
    hub.repository(BASE, kind="models", tokens=(TOKEN,), gated=True).commit(files)
    code, said = train(f"hf://{BASE}", hub.url)
    assert code == 10 and f"hf://{BASE}@main does not exist, or this token may not read it" in said, (code, said)
    code, said = train(f"hf://{BASE}", hub.url, token=TOKEN)
    assert code == 0, said


@pytest.mark.parametrize(
    ("given", "is_one"),
    [
        pytest.param(f"{TOKEN}\n", True, id="as kubectl create secret --from-file leaves it"),
        pytest.param(f"token: {TOKEN}", False, id="words"),
        pytest.param(f"{TOKEN}\n{TOKEN}", False, id="lines"),
    ],
)
def test_what_is_no_token_is_not_told(hub, files, measure, given, is_one):
    hub.repository(BASE, kind="models", tokens=(TOKEN,)).commit(files)
    tokens, said, _ = measure(hub.url, token=given)
    assert (tokens is not None) == is_one, said
    assert ("the token of tokenSecretRef (HF_TOKEN) is none" in said) != is_one


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        (f"hf://{BASE}@gone", f"hf://{BASE}@gone does not exist"),
        (f"hf://{BASE}@{'0' * 40}", f"hf://{BASE}@{'0' * 40} does not exist"),
        ("hf://owner/none", "hf://owner/none@main does not exist"),
        ("hf://owner/my--model", "hf://owner/my--model@main can be no repository of the Hub: Cannot have -- or .."),
        ("hf://owner/weightless", "hf://owner/weightless has no model.safetensors"),
    ],
)
def test_what_the_hub_does_not_have_is_named(hub, files, train, reference, words):
    hub.repository(BASE, kind="models").commit(files)
    hub.repository("owner/weightless", kind="models").commit({"config.json": files["config.json"]})
    code, said = train(reference, hub.url)
    assert code != 0 and words in said


@pytest.mark.parametrize("revision", ["main", "0" * 40])
def test_a_hub_that_cannot_be_reached_is_said_with_its_address(train, revision):
    """As on a cluster without a way out."""
    code, said = train(f"hf://{BASE}@{revision}", "http://127.0.0.1:9")
    assert code == 20
    assert f"hf://{BASE}@{revision} could not be downloaded from http://127.0.0.1:9: " in said


def test_a_store_of_large_files_that_cannot_be_reached_is_said_with_what_to_do(hub, files, train):
    """As behind a proxy that lets the Hub through and nothing else."""
    hub.repository(BASE, kind="models").commit(files)
    hub.xet = "http://127.0.0.1:9"
    code, said = train(f"hf://{BASE}", hub.url, HF_XET_CLIENT_RETRY_MAX_ATTEMPTS="0")
    assert code == 20 and "http://127.0.0.1:9/" in said and "HF_HUB_DISABLE_XET=1" in said
    code, said = train(f"hf://{BASE}", hub.url, HF_HUB_DISABLE_XET="1")
    assert code == 0, said


@pytest.mark.skipif(not can_mount(), reason="needs a disk of its own")
def test_a_disk_that_fills_up_meanwhile_is_said(hub, files, train, tmp_path):
    hub.repository(BASE, kind="models").commit({**files, "tokenizer.model": os.urandom(4 << 20)})
    with small_disk(tmp_path / "small", 3 << 20) as storage:
        code, said = train(f"hf://{BASE}", hub.url, storage=storage)
        assert code == 20 and "No space left on device" in said and "it needs more room" in said
        assert not list((storage / "models" / "owner--encoder").glob(".tmp-*"))
