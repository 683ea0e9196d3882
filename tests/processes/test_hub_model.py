"""Base models of the Hugging Face Hub: fetched by its own client from a small Hub on this machine, by the training's command line."""

import contextlib
import csv
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.request import urlopen

import pytest
import tiny_models
import torch
import yaml
from old_models import old_model
from small_disks import can_mount, small_disk
from tiny_hub import TinyHub
from tiny_server import free_port
from transformers import AutoTokenizer

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
    def train(reference, endpoint, token=None, storage=None, method="Full", arguments=(), **more):
        texts, spam = tiny_models.texts(24)
        with (tmp_path / "rows.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("prompt", "completion"), *zip(texts, spam, strict=True)])
        spec = {"trainingDataset": "rows.csv", "testDataset": "rows.csv", "baseModel": reference, "method": method}
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
        command += ["--storage", storage or tmp_path / "storage", "--allow-network", "127.0.0.0/8", *arguments]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
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


def test_a_model_of_before_safetensors(hub, train, tmp_path):
    """As DeBERTa-v3 lies there, with the same weights for other libraries beside it."""
    old = old_model(tmp_path / "old", "deberta-v2")
    files = {file.name: file.read_bytes() for file in old.iterdir()}
    hub.repository(BASE, kind="models").commit({**files, "tf_model.h5": b"h5", "rust_model.ot": b"ot"})
    code, said = train(f"hf://{BASE}", hub.url)
    assert code == 0, said
    fetched = {path.rpartition("/")[2] for path, _ in hub.requests if "/resolve/" in path}
    assert fetched == {"config.json", "pytorch_model.bin", "spm.model", "tokenizer_config.json"}
    checkpoint = tmp_path / "storage/runs/job/checkpoints/epoch-1"
    assert (
        AutoTokenizer.from_pretrained(checkpoint)("see you")["input_ids"]
        == AutoTokenizer.from_pretrained(old)("see you")["input_ids"]
    )


@pytest.fixture
def measure(tmp_path):
    """Imports two rows: their tokens (None: not known), and all that is said. Quicker than a training: it needs no torch."""

    def measure(endpoint, *, token=None, networks=("127.0.0.0/8",), **more):
        (tmp_path / "rows.csv").write_text("prompt,completion\nwin a prize,1\nsee you,0\n")
        command = [sys.executable, "-m", "winnow_trainer", "import", "--file", tmp_path / "rows.csv", "--json"]
        environment = {**os.environ, "HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path / "home"), **more}
        environment.pop("HF_TOKEN", None)
        if token:
            environment["HF_TOKEN"] = token
        command += [part for network in networks for part in ("--allow-network", network)]
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
    assert tokens["max"] > 0, said
    weights = [path for path, _ in hub.cdn_requests if "safetensors" in path]
    assert not weights, "they are gigabytes, and rows can be judged without them"
    messages = [json.loads(line)["message"] for line in log.splitlines()]
    assert not any("HTTP Request" in message for message in messages), messages


def test_a_training_tells_how_far_the_download_is(hub, files, train):
    hub.repository(BASE, kind="models").commit(files)
    hub.held.clear()
    port = free_port()
    told = []

    def ask():
        while not told:
            with contextlib.suppress(OSError), urlopen(f"http://127.0.0.1:{port}/progress") as answer:
                told.extend([words] if "MiB" in (words := json.loads(answer.read()).get("message", "")) else [])
        hub.held.set()

    with ThreadPoolExecutor() as pool:
        asked = pool.submit(ask)
        code, said = train(f"hf://{BASE}", hub.url, arguments=["--progress-port", str(port)])
        asked.result()
    assert code == 0, said
    assert re.fullmatch(rf"base model hf://{BASE} is downloaded: \d\.\d MiB of \d\.\d MiB", told[0])


def test_a_repository_behind_a_token(hub, files, train):
    hub.repository(BASE, kind="models", tokens=(TOKEN,), gated=True).commit(files)
    code, said = train(f"hf://{BASE}", hub.url)
    assert code == 10 and f"hf://{BASE}@main does not exist at {hub.url}, or this token may not read it" in said, said
    code, said = train(f"hf://{BASE}", hub.url, token=TOKEN)
    assert code == 0, said


@pytest.mark.parametrize("xet", [None, "http://127.0.0.1:9"], ids=["by a redirect", "which is in another store too"])
def test_the_token_goes_to_the_endpoint_and_not_to_where_it_redirects(hub, files, measure, xet):
    """Nor is the other store asked, whose client connects as an answer says."""
    hub.repository(BASE, kind="models", tokens=(TOKEN,)).commit(files)
    hub.xet = xet
    tokens, said, _ = measure(hub.url, token=TOKEN, HF_HUB_DISABLE_XET="0")
    assert tokens, said
    assert {headers.get("authorization") for _, headers in hub.requests} == {f"Bearer {TOKEN}"}
    assert [headers.get("authorization") for _, headers in hub.cdn_requests] == [None]


NOT_PUBLIC = "which is not public, and base models are fetched from public addresses only; an administrator may allow"


def test_an_endpoint_within_the_network_has_to_be_allowed(hub, files, measure):
    hub.repository(BASE, kind="models").commit(files)
    tokens, said, _ = measure(hub.url, networks=())
    assert tokens is None and f"hf://{BASE}@main: the address 127.0.0.1, {NOT_PUBLIC}" in said, said
    assert not hub.requests


def test_a_redirect_to_an_address_within_the_network_is_refused(hub, files, measure):
    hub.repository(BASE, kind="models").commit(files)
    hub.cdn = hub.cdn.replace("localhost", "127.0.0.2")
    tokens, said, _ = measure(hub.url, networks=("127.0.0.1/32",))
    assert tokens is None and f"the address 127.0.0.2, {NOT_PUBLIC}" in said, said
    assert not hub.cdn_requests


def test_a_proxy_of_the_environment_takes_names_that_it_alone_knows(hub, files, measure):
    """Without a proxy, as NO_PROXY says, and where the name leads within the network, addresses are checked as ever."""
    hub.repository(BASE, kind="models").commit(files)
    proxies = {"HTTP_PROXY": hub.url, "NO_PROXY": "localhost"}
    tokens, said, _ = measure("http://hub.invalid", **proxies)
    assert tokens and hub.requests[0][0].startswith("http://hub.invalid/api/models/"), said
    asked = len(hub.cdn_requests)
    tokens, said, _ = measure("http://hub.invalid", networks=(), **proxies)
    assert tokens is None and f"localhost has the address 127.0.0.1, {NOT_PUBLIC}" in said, said
    tokens, said, _ = measure("http://10.1.2.3", **proxies)
    assert tokens is None and f"the address 10.1.2.3, {NOT_PUBLIC}" in said, said
    assert len(hub.cdn_requests) == asked and not any("10.1.2.3" in path for path, _ in hub.requests)


@pytest.mark.parametrize(
    ("endpoint", "answer", "words"),
    [
        pytest.param(None, b"<html>Log in</html>", "does not answer as the Hub does", id="a page"),
        pytest.param(None, b"[]", "does not answer as the Hub does", id="other JSON"),
        pytest.param(None, b'{"id": "a", "sha": "../../runs"}', "does not answer as the Hub does", id="a path"),
        pytest.param("http://[::1", b"", "HF_ENDPOINT is no URL", id="an address that does not end"),
        pytest.param("http://hub..example", b"", "does not answer as the Hub does", id="a name that can be none"),
    ],
)
def test_an_endpoint_that_is_no_hub_is_told(measure, endpoint, answer, words):
    with server_of(answer) as url:
        tokens, said, _ = measure(endpoint or url)
    assert tokens is None and words in said and "check huggingFace.endpoint" in said, said
    assert "Traceback" not in said


@contextlib.contextmanager
def server_of(answer):
    """A web server with this to say, whatever it is asked."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_server_fetches_the_base_of_its_adapter_by_the_same_rules(hub, files, train, tmp_path):
    hub.repository(BASE, kind="models", tokens=(TOKEN,)).commit(files)
    code, said = train(f"hf://{BASE}", hub.url, token=TOKEN, method="LoRA")
    assert code == 0, said
    hub.requests.clear()
    environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN, "HF_HOME": str(tmp_path / "home")}
    command = [sys.executable, "-m", "winnow_server", "--host", "127.0.0.1", "--port", "0"]
    command += ["--checkpoint", tmp_path / "storage/runs/job/checkpoints/epoch-1", "--storage", tmp_path / "servers"]
    refused = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert refused.returncode == 10 and f"the address 127.0.0.1, {NOT_PUBLIC}" in refused.stderr, refused.stderr
    assert not hub.requests
    command += ["--allow-network", "127.0.0.0/8"]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as server:
        ready = next((line for line in server.stderr if '"Ready"' in line), None)
        server.terminate()
        server.communicate()
    assert ready and {headers["authorization"] for _, headers in hub.requests} == {f"Bearer {TOKEN}"}


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
    assert ("what tokenSecretRef (HF_TOKEN) holds is no token" in said) != is_one


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        (f"hf://{BASE}@gone", f"hf://{BASE}@gone does not exist at http://127.0.0.1:"),
        (f"hf://{BASE}@{'0' * 40}", f"hf://{BASE}@{'0' * 40} does not exist"),
        ("hf://owner/none", "hf://owner/none@main does not exist"),
        ("hf://owner/weightless", " has no model.safetensors."),
        ("hf://owner/adapter", "it is an adapter: name the model that it was made for"),
        ("hf://owner/my--model", "hf://owner/my--model@main can be no repository of the Hub: Cannot have -- or .."),
    ],
)
def test_what_the_hub_does_not_have_is_named(hub, files, train, reference, words):
    hub.repository(BASE, kind="models").commit(files)
    hub.repository("owner/weightless", kind="models").commit(
        {"config.json": files["config.json"], "tf_model.h5": b"h5"}
    )
    hub.repository("owner/adapter", kind="models").commit(
        {"adapter_config.json": b"{}", "adapter_model.safetensors": b""}
    )
    code, said = train(reference, hub.url)
    assert code != 0 and words in said


@pytest.mark.parametrize("revision", ["main", "0" * 40])
def test_a_hub_that_cannot_be_reached_is_said_with_its_address(train, revision):
    """As on a cluster without a way out."""
    code, said = train(f"hf://{BASE}@{revision}", "http://127.0.0.1:9")
    assert code == 20
    assert f"hf://{BASE}@{revision} could not be downloaded from http://127.0.0.1:9: " in said


@pytest.mark.skipif(not can_mount(), reason="needs a disk of its own")
def test_a_disk_that_is_too_small_is_said(hub, files, train, tmp_path):
    hub.repository(BASE, kind="models").commit({**files, "tokenizer.model": os.urandom(4 << 20)})
    old = {file.name: file.read_bytes() for file in old_model(tmp_path / "old").iterdir()}
    torch.save({"one.weight": torch.ones(1 << 19)}, tmp_path / "two.bin")  # there is room for one form of it
    hub.repository("owner/old", kind="models").commit({**old, "pytorch_model.bin": (tmp_path / "two.bin").read_bytes()})
    with small_disk(tmp_path / "small", 3 << 20) as storage:
        code, said = train(f"hf://{BASE}", hub.url, storage=storage)
        assert code == 20 and f"hf://{BASE} has 4." in said and " MiB are free" in said and "it needs more room" in said
        code, said = train("hf://owner/old", hub.url, storage=storage)
        assert code == 20 and "No space left on device, while hf://owner/old was downloaded" in said
        assert "it needs more room" in said
        assert not list((storage / "models").glob("*/.tmp-*"))
