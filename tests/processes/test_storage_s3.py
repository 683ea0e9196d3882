"""Storage in a bucket of a real S3 server, by the command lines that pods run: import, train, killed and resumed, served."""

from __future__ import annotations

import io
import ipaddress
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import tiny_models
from minio import Minio
from s3_server import KEYS, Server, running

from winnow_classifier import bucket as bucket_module
from winnow_classifier.bucket import Bucket, Credentials, Refused
from winnow_classifier.dataset import load_dataset
from winnow_classifier.errors import CheckpointError
from winnow_classifier.mirror import opened
from winnow_trainer import deciding
from winnow_trainer.recorder import Recorder
from winnow_trainer.refit import refit_checkpoint
from winnow_trainer.tensorboard import EventFile

SECONDS = 180
EPOCHS = 30
HERE = ("--allow-network", "127.0.0.0/8")
ROWS = "".join(
    json.dumps({"prompt": text, "completion": int(spam)}) + "\n"
    for text, spam in zip(*tiny_models.texts(40, 1), strict=True)
)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    (tmp_path / "s3" / "bucket").mkdir(parents=True)
    with running(tmp_path / "s3") as server:
        yield server


@dataclass(frozen=True)
class Laptop:
    """A folder with rows, a base model and a job, and what the programs are told by the environment."""

    folder: Path
    server: Server
    uri: str = "s3://bucket/team/mail"

    @property
    def bucket(self) -> Path:
        """As the server keeps it."""
        return self.server.folder / self.uri.removeprefix("s3://")

    def environ(self, **more: str) -> dict[str, str]:
        return {**os.environ, **KEYS, "AWS_ENDPOINT_URL_S3": self.server.endpoint, **more}

    def run(self, *arguments: Any, **more: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", *map(str, arguments)]
        env = self.environ(**more)
        return subprocess.run(command, env=env, cwd=self.folder, capture_output=True, text=True, timeout=SECONDS)

    def imported(
        self, *more: Any, storage: str | Path | None = None, **environ: str
    ) -> subprocess.CompletedProcess[str]:
        given = ("import", "--file", "rows.jsonl", "--storage", storage or self.uri, "--json", *HERE, *more)
        return self.run("winnow_trainer", *given, **environ)

    def train(self, storage: str | Path | None = None) -> list[Any]:
        return ["winnow_trainer", "train", "--job", "job.yaml", "--storage", storage or self.uri, *HERE]


@pytest.fixture
def laptop(tmp_path: Path, server: Server) -> Laptop:
    folder = tmp_path / "laptop"
    folder.mkdir()
    (folder / "rows.jsonl").write_text(ROWS)
    tiny_models.base_model(folder / "base", "bert")
    return Laptop(folder, server)


def write_job(
    folder: Path, dataset: str, name: str = "v1", base: Any = "base", method: str = "Full", epochs: int = EPOCHS
) -> None:
    parameters = {"numTrainEpochs": epochs, "learningRate": 0.001, "perDeviceTrainBatchSize": 2, "maxSeqLength": 16}
    spec = {"trainingDataset": dataset, "testSplit": {"percent": 20}, "baseModel": base, "method": method}
    job = {"kind": "TrainingJob", "metadata": {"name": name}, "spec": {**spec, "parameters": parameters}}
    (folder / "job.yaml").write_text(json.dumps(job))


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def wait_for(there: Callable[[], bool]) -> None:
    end = time.monotonic() + SECONDS
    while not there():
        assert time.monotonic() < end
        time.sleep(0.01)


def weights(checkpoint: Path) -> Mapping[str, Any]:
    return {
        name: entry["sha256"]
        for name, entry in json.loads((checkpoint / "checkpoint.json").read_text())["files"].items()
    }


def test_a_bucket_holds_everything_and_a_killed_training_goes_on_from_it(laptop: Laptop) -> None:
    said = laptop.imported()
    assert said.returncode == 0, said.stderr
    stored = json.loads(said.stdout)
    dataset = laptop.bucket / "datasets" / stored["digest"].removeprefix("sha256:")
    assert stored["path"] == f"{laptop.uri}/datasets/{dataset.name}"
    assert names(dataset) == {"dataset.json", "rows.parquet", "profile.json", "profile.png"}

    write_job(laptop.folder, stored["path"])
    run = laptop.bucket / "runs" / "v1"
    command = [sys.executable, "-m", *map(str, laptop.train())]
    log = laptop.folder / "killed.log"
    with log.open("wb") as out:
        training = subprocess.Popen(command, env=laptop.environ(), cwd=laptop.folder, stdout=out, stderr=out)
        wait_for(lambda: (run / "checkpoints" / "epoch-3" / "checkpoint.json").exists() or training.poll() is not None)
        training.send_signal(signal.SIGKILL)
        training.wait()
    assert not (run / "result.json").exists(), log.read_text()
    before = {path: path.read_bytes() for path in sorted(run.glob("checkpoints/*/*"))}
    assert list(run.glob("resume/*/point.json"))

    said = laptop.run(*laptop.train())
    assert said.returncode == 0, said.stderr
    assert "Resumed" in said.stderr
    assert f"{laptop.uri}/runs/v1/checkpoints/epoch-{EPOCHS}" in said.stdout
    checkpoints = {path.name for path in (run / "checkpoints").iterdir()}
    assert checkpoints == {f"epoch-{number}" for number in range(1, EPOCHS + 1)}
    assert json.loads((run / "result.json").read_text())["state"] == "Complete"
    assert not list(run.glob("resume/**/*.*"))
    published = [path for path in before if (path.parent / "checkpoint.json") in before]
    assert published
    assert all(path.read_bytes() == before[path] for path in published)

    # The same bits as from one straight run on a disk.
    straight = laptop.folder / "straight"
    assert laptop.imported(storage=straight).returncode == 0
    write_job(laptop.folder, stored["digest"])
    assert laptop.run(*laptop.train(straight)).returncode == 0
    last = f"checkpoints/epoch-{EPOCHS}"
    assert weights(run / last) == weights(straight / "runs" / "v1" / last)

    assert "finished before" in laptop.run(*laptop.train()).stdout
    compared_from(laptop, last)
    classified_from(laptop, f"{laptop.uri}/runs/v1/{last}")


def bucket_lost_in_the_middle(laptop: Laptop) -> tuple[subprocess.Popen[bytes], Path, Path]:
    """A training of 12 epochs whose bucket's server was killed after the second; its run in the bucket, and its log."""
    said = laptop.imported()
    assert said.returncode == 0, said.stderr
    write_job(laptop.folder, json.loads(said.stdout)["path"], epochs=12)
    run = laptop.bucket / "runs" / "v1"
    command = [sys.executable, "-m", *map(str, laptop.train())]
    log = laptop.folder / "log"
    with log.open("wb") as out:
        training = subprocess.Popen(command, env=laptop.environ(), cwd=laptop.folder, stdout=out, stderr=out)
    wait_for(lambda: (run / "checkpoints" / "epoch-2" / "checkpoint.json").exists() or training.poll() is not None)
    laptop.server.process.kill()
    laptop.server.process.wait()
    return training, run, log


def test_a_bucket_that_is_away_for_a_while_does_not_end_a_training(laptop: Laptop) -> None:
    training, run, log = bucket_lost_in_the_middle(laptop)
    wait_for(lambda: "Waiting for the bucket" in log.read_text() or training.poll() is not None)
    with running(laptop.server.folder, int(laptop.server.endpoint.rpartition(":")[2])):
        assert training.wait(SECONDS) == 0, log.read_text()
    assert json.loads((run / "result.json").read_text())["state"] == "Complete"
    stored = [path.parent.name for path in run.glob("checkpoints/*/checkpoint.json")]
    assert sorted(stored) == sorted(f"epoch-{number}" for number in range(1, 13))
    assert not list(run.glob("resume/**/*.*"))
    assert "Traceback" not in log.read_text()


def test_a_training_whose_keys_are_replaced_goes_on_with_the_new_ones(laptop: Laptop) -> None:
    training, run, log = bucket_lost_in_the_middle(laptop)
    new = {"AWS_ACCESS_KEY_ID": "winnow-tests-2", "AWS_SECRET_ACCESS_KEY": secrets.token_hex(20)}
    with running(laptop.server.folder, int(laptop.server.endpoint.rpartition(":")[2]), new):
        assert training.wait(SECONDS) == 20, log.read_text()
        assert "the server does not know the AWS_ACCESS_KEY_ID" in log.read_text()
        refused = laptop.run(*laptop.train())
        assert refused.returncode == 10, refused.stderr
        said = laptop.run(*laptop.train(), **new)
    assert said.returncode == 0, said.stderr
    assert "Resumed" in said.stderr
    assert json.loads((run / "result.json").read_text())["state"] == "Complete"


def test_curves_are_stored_again_once_the_bucket_answers(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bucket_module, "TRIES", 1)
    monkeypatch.setattr(bucket_module, "QUICK_TRIES", 1)
    networks = [ipaddress.ip_network("127.0.0.0/8")]
    with opened("s3://bucket/a", tmp_path, networks, {**KEYS, "AWS_ENDPOINT_URL_S3": server.endpoint}) as (
        root,
        mirror,
    ):
        file = EventFile(root / "tensorboard", 0, mirror)
        recorder = Recorder(1, 2, [file])
        server.process.kill()
        server.process.wait()
        recorder.epoch(1, 0.5, {})
        with running(server.folder, int(server.endpoint.rpartition(":")[2])):
            recorder.epoch(2, 0.25, {})
            stored = server.folder / "bucket" / "a" / "tensorboard" / file.path.name
            assert stored.read_bytes() == file.path.read_bytes()
            recorder.close("Complete")


def compared_from(laptop: Laptop, last: str) -> None:
    """Without fetching any weights."""
    mirror = laptop.folder / "mirror"
    given = ("--storage", laptop.uri, "--mirror", mirror, *HERE, "--value", "f1_macro", "--json")
    both = ("--candidate", f"runs/v1/{last}", "--live", "runs/v1/checkpoints/epoch-1")
    said = laptop.run("winnow_trainer", "compare", *given, *both)
    assert said.returncode == 0, said.stderr
    told = json.loads(said.stdout)
    assert (told["measuredOn"], told["comparison"]["rows"]) == ("Test", told["rows"])
    read = {"checkpoint.json", "metrics.json", "predictions.jsonl", "logits.safetensors", "decision.json"}
    assert {Path(name).name for name in names(mirror)} <= read


def test_a_decision_is_fitted_anew_in_the_bucket_and_a_checkpoint_goes_from_there(laptop: Laptop) -> None:
    parameters = {"numTrainEpochs": 2, "learningRate": 0.001, "maxSeqLength": 16}
    spec = {"trainingDataset": "rows.jsonl", "validationSplit": {"percent": 40}, "baseModel": "base", "method": "Full"}
    job = {"kind": "TrainingJob", "metadata": {"name": "v1"}, "spec": {**spec, "parameters": parameters}}
    (laptop.folder / "job.yaml").write_text(json.dumps(job))
    said = laptop.run(*laptop.train())
    assert said.returncode == 0, said.stderr
    checkpoint = laptop.bucket / "runs" / "v1" / "checkpoints" / "epoch-2"
    before, untouched = json.loads((checkpoint / "decision.json").read_text()), weights(checkpoint)
    assert before["calibration"]["method"] == "Temperature"
    assert "asked" not in before

    where = ("--storage", laptop.uri, *HERE)
    with serving(laptop, f"{laptop.uri}/runs/v1/checkpoints/epoch-2", program=QUICK_LOOKS) as server:
        assert server.decision() == before["digest"]
        said = laptop.run(
            *("winnow_trainer", "refit", *where, "--run", "v1", "--checkpoint", "epoch-2"),
            *("--objective", "RecallAtLeast", "--value", "1"),
        )
        assert said.returncode == 0, said.stderr
        assert f"stored {laptop.uri}/runs/v1/checkpoints/epoch-2/decision.json" in said.stdout
        after = json.loads((checkpoint / "decision.json").read_text())
        assert after["asked"] == {"objective": "RecallAtLeast", "value": 1.0}
        assert after["calibration"] == before["calibration"]
        assert weights(checkpoint) == untouched
        wait_for(lambda: server.decision() == after["digest"])
        assert server.classify()["thresholds"] == pytest.approx(after["thresholds"])
        keeps_what_it_has(laptop, server, checkpoint / "decision.json", before, after)

    # A gate measures with the new decision, from what it fetches.
    mirror = laptop.folder / "mirror"
    given = ("--candidate", "runs/v1/checkpoints/epoch-2", "--mirror", mirror, "--value", "recall_macro", "--json")
    said = laptop.run("winnow_trainer", "compare", *where, *given)
    assert said.returncode == 0, said.stderr
    measured = {"measuredOn": "Validation", "values": [{"value": after["measured"]["after"]["recall_macro"]}]}
    assert json.loads(said.stdout).items() >= measured.items()
    assert {Path(name).name for name in names(mirror)} == {
        *("checkpoint.json", "metrics.json", "logits.safetensors", "decision.json")
    }

    said = laptop.run("winnow_trainer", "collect", *where, "--remove-checkpoint", "v1/epoch-1")
    assert said.stdout.startswith("1 checkpoint removed"), said.stderr
    assert {path.name for path in checkpoint.parent.iterdir() if list(path.glob("*"))} == {"epoch-2"}


def test_an_adapter_goes_on_from_a_checkpoint_in_the_bucket_and_is_served_on_it(laptop: Laptop) -> None:
    stored = json.loads(laptop.imported().stdout)["path"]
    write_job(laptop.folder, stored, epochs=1)
    assert laptop.run(*laptop.train()).returncode == 0
    for name, before in (("v2", "v1"), ("v3", "v2")):
        write_job(laptop.folder, stored, name, {"checkpoint": {"trainingJob": before}}, "LoRA", 1)
        said = laptop.run(*laptop.train())
        assert said.returncode == 0, said.stderr
    manifest = json.loads((laptop.bucket / "runs/v3/checkpoints/epoch-1/checkpoint.json").read_text())
    # The second adapter is the first one trained on, so both stand on what the first job left.
    assert manifest["baseModel"]["reference"] == f"{laptop.uri}/runs/v1/checkpoints/epoch-1"
    assert manifest["continuedFrom"]["trainingJob"] == "v2"
    classified_from(laptop, f"{laptop.uri}/runs/v3/checkpoints/epoch-1")


def keeps_what_it_has(
    laptop: Laptop, server: Serving, file: Path, before: Mapping[str, Any], after: Mapping[str, Any]
) -> None:
    """Whatever becomes of the bucket; and takes the next decision once there is one."""
    key, client = str(file.relative_to(laptop.server.folder / "bucket")), s3_client(laptop)

    def put(content: bytes) -> None:
        client.put_object("bucket", key, io.BytesIO(content), len(content))

    whole = file.read_bytes()
    put(whole.replace(b'"RecallAtLeast"', b'"F1"'))
    wait_for(lambda: "Decision cannot be used" in server.log())
    assert "does not have the digest that it names" in server.log()
    (laptop.server.folder / "bucket").rename(laptop.folder / "away")
    wait_for(lambda: "Storage cannot be looked at" in server.log())
    assert "NoSuchBucket" in server.log()
    assert server.decision() == after["digest"]
    assert server.classify()["thresholds"] == pytest.approx(after["thresholds"])
    (laptop.folder / "away").rename(laptop.server.folder / "bucket")
    wait_for(lambda: "Storage can be looked at again" in server.log())
    put(json.dumps(before).encode())
    wait_for(lambda: server.decision() == before["digest"])
    client.remove_object("bucket", key)
    wait_for(lambda: server.decision() is None)
    put(whole)
    wait_for(lambda: server.decision() == after["digest"])
    assert server.log().count("Storage cannot be looked at") == 1


def test_a_checkpoint_that_goes_from_the_bucket_meanwhile_does_not_come_back(
    laptop: Laptop, monkeypatch: pytest.MonkeyPatch
) -> None:
    parameters = {"numTrainEpochs": 1, "maxSeqLength": 16}
    spec = {
        "trainingDataset": "rows.jsonl",
        "validationSplit": {"percent": 40},
        "baseModel": "base",
        "method": "HeadOnly",
    }
    job = {"kind": "TrainingJob", "metadata": {"name": "v1"}, "spec": {**spec, "parameters": parameters}}
    (laptop.folder / "job.yaml").write_text(json.dumps(job))
    said = laptop.run(*laptop.train())
    assert said.returncode == 0, said.stderr
    fit, name = deciding.fit, "runs/v1/checkpoints/epoch-1"

    def while_it_is_collected(*given: Any, **options: Any) -> Any:
        for file in (laptop.bucket / name).iterdir():
            s3_client(laptop).remove_object("bucket", str(file.relative_to(laptop.server.folder / "bucket")))
        return fit(*given, **options)

    monkeypatch.setattr(deciding, "fit", while_it_is_collected)
    networks = [ipaddress.ip_network("127.0.0.0/8")]
    with opened(laptop.uri, None, networks, laptop.environ()) as (folder, mirror):
        with pytest.raises(CheckpointError, match="was removed while its decision was fitted"):
            refit_checkpoint(folder / name, None, mirror)
        assert not mirror.sizes(folder / name)


def s3_client(laptop: Laptop) -> Minio:
    key_id, secret = KEYS.values()
    return Minio(laptop.server.endpoint.removeprefix("http://"), key_id, secret, secure=False, region="us-east-1")


def classified_from(laptop: Laptop, checkpoint: str | Path, *more: str | Path, **environ: str) -> None:
    with serving(laptop, checkpoint, *more, **environ) as server:
        assert len(server.classify()["data"]) == 1


QUICK_LOOKS = """
from winnow_server import mirrored
from winnow_server.__main__ import main
mirrored.LOOK_SECONDS = 0.2
raise SystemExit(main())
"""


@dataclass(frozen=True)
class Serving:
    url: str
    file: Path

    def log(self) -> str:
        return self.file.read_text()

    def classify(self) -> dict[str, Any]:
        body = json.dumps({"input": ["hello"]}).encode()
        request = urllib.request.Request(f"{self.url}/v1/classify", body, {"content-type": "application/json"})
        return answer(request)

    def decision(self) -> str | None:
        """The digest of the decision.json in force."""
        found: str | None = answer(f"{self.url}/v1/model")["decision"]
        return found


def answer(request: urllib.request.Request | str) -> dict[str, Any]:
    with urllib.request.urlopen(request, timeout=10) as response:
        found: dict[str, Any] = json.load(response)
        return found


@contextmanager
def serving(
    laptop: Laptop, checkpoint: str | Path, *more: str | Path, program: str | None = None, **environ: str
) -> Iterator[Serving]:
    """The server as a process of its own, until a clean stop. `program`: Python instead of `-m winnow_server`."""
    command = [sys.executable, *(("-c", program) if program else ("-m", "winnow_server"))]
    command += ["--checkpoint", str(checkpoint), "--host", "127.0.0.1", "--port", "0", *HERE, *map(str, more)]
    log = laptop.folder / "server.log"
    with log.open("wb") as out:
        server = subprocess.Popen(command, env=laptop.environ(**environ), cwd=laptop.folder, stdout=out, stderr=out)
    try:
        wait_for(lambda: '"Ready"' in log.read_text() or server.poll() is not None)
        lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
        port = next(line["port"] for line in lines if "port" in line)
        yield Serving(f"http://127.0.0.1:{port}", log)
    finally:
        server.terminate()
        assert server.wait(60) == 0, log.read_text()


MODEL = "s3://bucket/models/tiny"
BASE = ("--base-keys", "BASE_")
NO_KEYS = {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}


def filled(laptop: Laptop, **changes: Any) -> dict[str, str]:
    """The bucket has a base model, by the client that people have; what the programs are told of it as in a pod."""
    model = tiny_models.base_model(laptop.folder / "model", "bert", **changes)
    for file in model.iterdir():
        s3_client(laptop).fput_object("bucket", f"models/tiny/{file.name}", str(file))
    return {f"BASE_{name}": value for name, value in {**KEYS, "AWS_ENDPOINT_URL_S3": laptop.server.endpoint}.items()}


def trained_on_the_bucket(laptop: Laptop, storage: str | Path, *more: str, **environ: str) -> str:
    """The reference in the checkpoint of an adapter."""
    said = laptop.imported("--base-model", MODEL, *more, storage=storage, **environ)
    assert said.returncode == 0, said.stderr
    assert json.loads(said.stdout)["tokens"]["max"] > 0
    write_job(laptop.folder, json.loads(said.stdout)["path"], base=MODEL, method="LoRA", epochs=1)
    said = laptop.run(*laptop.train(storage), *more, **environ)
    assert said.returncode == 0, said.stderr
    runs = laptop.bucket if storage == laptop.uri else Path(storage)
    manifest = json.loads((runs / "runs/v1/checkpoints/epoch-1/checkpoint.json").read_text())
    reference: str = manifest["baseModel"]["reference"]
    return reference


def test_a_base_model_comes_from_a_bucket_once_into_a_folder(laptop: Laptop) -> None:
    filled(laptop)
    storage = laptop.folder / "storage"
    reference = trained_on_the_bucket(laptop, storage)
    (version,) = (
        path.name for path in (storage / "models/s3/bucket/models/tiny").glob("[!.]*") if path.suffix != ".tokenizer"
    )
    assert reference == f"{MODEL}@{version}"

    # Whatever becomes of the bucket, the adapter is served on what it was trained on, and its training says so.
    filled(laptop, intermediate_size=40)
    last = storage / "runs/v1/checkpoints/epoch-1"
    classified_from(laptop, last, "--storage", storage, "--base-model", MODEL, **NO_KEYS)
    write_job(laptop.folder, "rows.jsonl", "v2", {"checkpoint": {"trainingJob": "v1"}}, "LoRA", 1)
    said = laptop.run(*laptop.train(storage), **NO_KEYS)
    assert said.returncode == 0, said.stderr
    continued = json.loads((storage / "runs/v2/checkpoints/epoch-1/checkpoint.json").read_text())
    assert continued["baseModel"]["reference"] == reference

    # A new training takes what is there now.
    write_job(laptop.folder, "rows.jsonl", "v3", MODEL, "Full", 1)
    assert laptop.run(*laptop.train(storage)).returncode == 0
    versions = (storage / "models/s3/bucket/models/tiny").glob("[!.]*")
    assert len([path for path in versions if path.suffix != ".tokenizer"]) == 2


def test_a_base_model_and_storage_lie_in_buckets_with_keys_of_their_own(laptop: Laptop) -> None:
    base = filled(laptop)
    reference = trained_on_the_bucket(laptop, laptop.uri, *BASE, **base)
    checkpoint = f"{laptop.uri}/runs/v1/checkpoints/epoch-1"
    assert not (laptop.bucket / "models").exists()
    classified_from(laptop, checkpoint, *BASE, "--base-model", MODEL, **base)

    filled(laptop, intermediate_size=40)
    said = laptop.run("winnow_server", "--checkpoint", checkpoint, "--port", "0", *HERE, *BASE, **base)
    assert said.returncode == 10
    assert f"{MODEL} holds another model now: version {reference.partition('@')[2]} is wanted" in said.stderr


@pytest.mark.parametrize(
    ("base", "environ", "code", "says"),
    [
        pytest.param(MODEL, NO_KEYS, 10, "it was asked without keys", id="no keys"),
        pytest.param(MODEL, {"AWS_SECRET_ACCESS_KEY": "wrong"}, 10, "does not belong to its key id", id="secret"),
        pytest.param("s3://bucket", {}, 10, f"there is one in {MODEL}", id="above the model"),
        pytest.param("s3://nothing/there", {}, 10, "check baseModel.s3.uri", id="no such bucket"),
        pytest.param(MODEL, {"AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9"}, 20, "Connection refused", id="down"),
    ],
)
def test_what_keeps_a_base_model_in_its_bucket_is_said(
    laptop: Laptop, base: str, environ: dict[str, str], code: int, says: str
) -> None:
    filled(laptop)
    write_job(laptop.folder, "rows.jsonl", base=base, epochs=1)
    said = laptop.run(*laptop.train("storage"), **environ)
    assert (said.returncode, "Traceback" in said.stderr) == (code, False), said.stderr
    assert says in said.stderr
    # Rows are good without it.
    said = laptop.imported("--base-model", base, storage="storage", **environ)
    assert said.returncode == 0, said.stderr
    (warning,) = [each for each in json.loads(said.stdout)["warnings"] if each["code"] == "NoTokenLengths"]
    assert says in warning["message"]


def test_a_checkpoint_that_was_changed_in_the_bucket_is_not_served(laptop: Laptop) -> None:
    storage = laptop.folder / "storage"
    assert laptop.imported(storage=storage).returncode == 0
    write_job(laptop.folder, "rows.jsonl")
    job = (laptop.folder / "job.yaml").read_text().replace(f'"numTrainEpochs": {EPOCHS}', '"numTrainEpochs": 1')
    (laptop.folder / "job.yaml").write_text(job)
    assert laptop.run(*laptop.train(storage)).returncode == 0
    shutil.copytree(storage / "runs", laptop.bucket / "runs")
    file = laptop.bucket / "runs" / "v1" / "checkpoints" / "epoch-1" / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    checkpoint = f"{laptop.uri}/runs/v1/checkpoints/epoch-1"
    said = laptop.run("winnow_server", "--checkpoint", checkpoint, "--port", "0", *HERE)
    assert said.returncode == 10
    assert "model.safetensors was changed" in said.stderr
    said = laptop.run("winnow_server", "--checkpoint", f"{checkpoint}0", "--port", "0", *HERE)
    assert said.returncode == 10
    assert f"There is no checkpoint in {checkpoint}0" in said.stderr


def test_rows_are_stored_once_and_damaged_ones_again(laptop: Laptop) -> None:
    first = json.loads(laptop.imported().stdout)
    rows = laptop.bucket / "datasets" / first["digest"].removeprefix("sha256:") / "rows.parquet"
    written = rows.stat().st_mtime_ns
    assert json.loads(laptop.imported().stdout)["digest"] == first["digest"]
    assert rows.stat().st_mtime_ns == written
    content = rows.read_bytes()
    rows.write_bytes(content[:-100] + bytes(100))
    assert laptop.imported().returncode == 0
    assert rows.read_bytes() == content
    (rows.parent / "dataset.json").unlink()
    assert laptop.imported().returncode == 0
    assert names(rows.parent) == {"dataset.json", "rows.parquet", "profile.json", "profile.png"}


def test_rows_that_nobody_needs_are_removed_unless_an_import_found_them_again(laptop: Laptop) -> None:
    digest = json.loads(laptop.imported().stdout)["digest"]
    folder = laptop.bucket / "datasets" / digest.removeprefix("sha256:")
    remove = ("winnow_trainer", "collect", "--storage", laptop.uri, "--remove", digest, "--json", *HERE)
    between = datetime.now(UTC).replace(microsecond=0).isoformat()
    time.sleep(1.1)  # the server's times have whole seconds
    assert laptop.imported().returncode == 0
    said = laptop.run(*remove, "--before", between)
    assert json.loads(said.stdout)["kept"] == [digest], said.stderr
    assert names(folder) == {"dataset.json", "rows.parquet", "profile.json", "profile.png"}
    time.sleep(1.1)
    said = laptop.run(*remove)
    assert json.loads(said.stdout)["removed"] == 1, said.stderr
    assert not list(laptop.bucket.glob("datasets/**/*.*"))
    assert json.loads(laptop.run(*remove).stdout)["absent"] == 1


def test_two_imports_of_the_same_rows_at_once_do_no_harm(laptop: Laptop) -> None:
    with ThreadPoolExecutor() as pool:
        both = [said.result() for said in [pool.submit(laptop.imported) for _ in range(2)]]
    assert [said.returncode for said in both] == [0, 0]
    (folder,) = (laptop.bucket / "datasets").iterdir()
    assert load_dataset(folder).digest == f"sha256:{folder.name}"


def test_all_problems_go_to_the_bucket_and_go_when_the_rows_are_mended(laptop: Laptop) -> None:
    manifest = laptop.folder / "dataset.yaml"
    manifest.write_text(json.dumps({"kind": "Dataset", "metadata": {"name": "mail"}, "spec": {}}))
    (laptop.folder / "rows.jsonl").write_text(ROWS + "{broken\n")
    assert laptop.imported("--dataset", manifest).returncode == 11
    problems = laptop.bucket / "imports" / "mail" / "problems.jsonl"
    assert len(problems.read_text().splitlines()) == 1
    assert not (laptop.bucket / "datasets").exists()
    (laptop.folder / "rows.jsonl").write_text(ROWS)
    assert laptop.imported("--dataset", manifest).returncode == 0
    assert not problems.exists()


@pytest.mark.parametrize(
    ("storage", "environ", "code", "says"),
    [
        pytest.param("s3://no-such-bucket/a", {}, 10, "there is no such bucket", id="no such bucket"),
        pytest.param("s3://bucket/a b", {}, 10, "is not s3://bucket or s3://bucket/prefix", id="no such prefix"),
        pytest.param(
            "s3://bucket/a", {"AWS_ACCESS_KEY_ID": "nobody"}, 10, "does not know the AWS_ACCESS_KEY_ID", id="key"
        ),
        pytest.param(
            "s3://bucket/a", {"AWS_SECRET_ACCESS_KEY": "wrong"}, 10, "does not belong to its key id", id="secret"
        ),
        pytest.param("s3://bucket/a", {"AWS_SECRET_ACCESS_KEY": ""}, 10, "are not both there", id="no secret"),
        pytest.param(
            "s3://bucket/a", {"AWS_ENDPOINT_URL_S3": "ftp://x"}, 10, "not the URL of an S3 server", id="endpoint"
        ),
        pytest.param(
            "s3://bucket/a", {"AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9"}, 20, "Connection refused", id="down"
        ),
        pytest.param(
            "s3://bucket/a", {"AWS_ENDPOINT_URL_S3": "http://169.254.169.254"}, 10, "which is not public", id="metadata"
        ),
    ],
)
def test_what_keeps_a_bucket_from_being_used_is_said(
    laptop: Laptop, storage: str, environ: dict[str, str], code: int, says: str
) -> None:
    said = laptop.imported(storage=storage, **environ)
    assert said.returncode == code
    assert says in said.stderr
    assert json.loads(said.stdout)["reason"] in ("StorageUnavailable", "InvalidConfiguration")
    assert KEYS["AWS_SECRET_ACCESS_KEY"] not in said.stderr
    assert "Traceback" not in said.stderr


def test_files_of_many_parts_and_those_that_are_gone(server: Server, tmp_path: Path) -> None:
    bucket = Bucket(
        "bucket",
        "a/b",
        endpoint=server.endpoint,
        region="us-east-1",
        credentials=Credentials.of(KEYS),
        networks=[ipaddress.ip_network("127.0.0.0/8")],
    )
    large, back = tmp_path / "large", tmp_path / "back"
    large.write_bytes(secrets.token_bytes(40 * 1024 * 1024))
    bucket.put("c/large", large)
    assert bucket.sizes("c") == {"large": large.stat().st_size}
    assert bucket.get("c/large", back)
    assert back.read_bytes() == large.read_bytes()
    bucket.remove(["c/large", "c/large"])
    assert not bucket.get("c/large", back)
    assert not back.exists()
    assert bucket.sizes("") == {}
    with pytest.raises(Refused, match="NoSuchBucket"):
        Bucket("other", "", endpoint=server.endpoint, region="us-east-1", credentials=Credentials.of(KEYS),
               networks=[ipaddress.ip_network("127.0.0.0/8")]).sizes("")  # fmt: skip
