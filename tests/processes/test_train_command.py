"""`python -m winnow_trainer train`, by its front door, on a model small enough for a second of training."""

import json
import logging
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from threading import Thread
from urllib.request import urlopen

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

from winnow_trainer import cli
from winnow_trainer.cli import main

WORDS = ["hello", "you", "win", "a", "big", "prize", "see", "at", "lunch"]
HAM, SPAM = {"prompt": "see you at lunch", "completion": 0}, {"prompt": "win a big prize", "completion": 1}


@pytest.fixture
def folder(tmp_path):
    """A manifest, rows and a base model side by side, as on a laptop."""
    vocabulary = {word: n for n, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    ).save_pretrained(tmp_path / "base")
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = BertConfig(vocab_size=len(vocabulary), max_position_embeddings=32, **sizes)
    BertForSequenceClassification(config).save_pretrained(tmp_path / "base")
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [HAM, SPAM] * 8))
    (tmp_path / "test.csv").write_text("input,expected_output\nwin a prize,1\nsee you,0\n")
    write_job(tmp_path)
    return tmp_path


def write_job(folder, **spec):
    job = {
        "apiVersion": "winnow.dev/v1alpha1",
        "kind": "TrainingJob",
        "metadata": {"name": "spam-v1"},
        "spec": {
            "trainingDataset": "rows.jsonl",
            "testDataset": "test.csv",
            "baseModel": "base",
            "method": "Full",
            "parameters": {"numTrainEpochs": 2, "maxSeqLength": 16, "learningRate": 0.01},
            **spec,
        },
    }
    (folder / "job.yaml").write_text(json.dumps(job))  # JSON is YAML


@pytest.fixture
def train(folder, capsys):
    """Runs in this process: (exit code, stdout, stderr, termination message)."""

    def run(*options):
        command = ["train", "--job", folder / "job.yaml", "--storage", folder / "storage", *options]
        code = main([*map(str, command), "--termination-log", str(folder / "told")])
        said = capsys.readouterr()
        return code, said.out, said.err, json.loads((folder / "told").read_bytes())

    return run


def test_a_manifest_with_row_files_is_trained_to_its_checkpoints(train, folder):
    code, out, _, message = train("--progress-port", 0)
    assert code == 0
    assert (message["kind"], message["state"], message["primaryMetric"]) == ("train", "Complete", "f1")
    assert [epoch["epoch"] for epoch in message["epochs"]] == [1, 2]
    best = message["bestCheckpoint"]
    assert f"{best}  {folder / 'storage' / 'runs' / 'spam-v1' / 'checkpoints' / best}  best" in out
    assert (folder / "storage" / "runs" / "spam-v1" / "checkpoints" / best / "checkpoint.json").is_file()


@pytest.mark.parametrize(
    ("epochs", "reads", "waits"),
    [
        pytest.param(14, "never", True, id="nobody has read it"),
        pytest.param(14, "as it trains", False, id="it was read before"),
        pytest.param(14, "the end", True, id="read at the end"),
    ],
)
def test_metrics_without_room_in_the_final_word_wait_for_a_reader(train, folder, monkeypatch, epochs, reads, waits):
    monkeypatch.setattr(cli, "LAST_READ_SECONDS", 60.0 if reads == "the end" else 0.1)
    parameters = {"numTrainEpochs": epochs, "maxSeqLength": 16, "learningRate": 0.01}
    write_job(folder, method="HeadOnly", parameters=parameters)
    waiting, ports, said = "Waiting until /progress is read once more", [], []

    class Reader(logging.Filter):
        def filter(self, record):
            said.append(record.getMessage())
            ports.extend([record.port] if hasattr(record, "port") else [])
            if said[-1] == {"as it trains": "Checkpoint published", "the end": waiting}.get(reads):
                read = Thread(target=lambda: urlopen(f"http://127.0.0.1:{ports[0]}/progress").read())
                read.start()
                if reads == "as it trains":
                    read.join()
            return True

    for module in ("train", "cli", "progress_server"):
        monkeypatch.setattr(logging.getLogger(f"winnow_trainer.{module}"), "filters", [Reader()])
    began = time.monotonic()
    assert train("--progress-port", 0)[0] == 0
    assert (waiting in said) is waits
    assert time.monotonic() - began < 50


@pytest.mark.parametrize(
    ("spec", "code", "reason", "message"),
    [
        pytest.param({"method": "Half"}, 10, "InvalidConfiguration", "spec.method", id="no such method"),
        pytest.param({"trainingDataset": "gone"}, 10, "InvalidConfiguration", "trainingDataset: gone", id="no rows"),
        pytest.param({"baseModel": "gone"}, 10, "BaseModelInvalid", "gone", id="no base model"),
        pytest.param({"metrics": {"primary": "f2"}}, 10, "InvalidConfiguration", '"f2"', id="no such metric"),
    ],
)
def test_what_is_wrong_is_said_in_words(train, folder, spec, code, reason, message):
    write_job(folder, **spec)
    found, _, err, told = train()
    assert (found, told["kind"], told["state"], told["reason"]) == (code, "train", "Failed", reason)
    assert message in told["message"]
    assert "error: " in err


def test_a_gpu_that_has_to_be_there_and_is_not_seen_is_said_to_be_missing(train, folder):
    """For another try: the next node may be in order."""
    code, _, err, told = train("--require-gpu")
    assert (code, told["reason"]) == (20, "GpuNotSeen")
    assert told["message"].startswith("This is to run on a GPU, and torch sees none: ")
    assert "take the GPU out of resources.limits" in err
    assert not (folder / "storage" / "runs").exists()


@pytest.mark.parametrize("name", ["rows.jsonl", "test.csv"])
def test_wrong_rows_name_their_file_and_line(train, folder, name):
    (folder / name).write_text(json.dumps(HAM) + "\n{broken\n")
    write_job(folder, testDataset=name)
    code, _, err, told = train()
    assert (code, told["reason"]) == (11, "InvalidRows")
    assert told["message"].startswith(f"{folder / name}: 1 of 2 rows cannot be read; ")
    assert "line 2, column 2" in told["message"]
    assert "2:2: not valid JSON" in err
    assert f"--file {folder / name} --on-invalid-rows Skip" in err


class SigtermAfterTheFirstCheckpoint(logging.Filter):
    def filter(self, record):
        if record.getMessage() == "Checkpoint published" and record.checkpoint == "epoch-1":
            signal.raise_signal(signal.SIGTERM)
        return True


def test_sigterm_stops_at_a_resume_point_and_the_next_start_finishes(train):
    evicting, log = SigtermAfterTheFirstCheckpoint(), logging.getLogger("winnow_trainer.train")
    log.addFilter(evicting)
    code, _, _, told = train()
    log.removeFilter(evicting)
    assert (code, told["state"], told["reason"]) == (143, "Stopped", "Stopped")
    assert [checkpoint["name"] for checkpoint in told["checkpoints"]] == ["epoch-1"]
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL

    code, _, _, told = train()
    assert (code, told["state"]) == (0, "Complete")
    assert [checkpoint["name"] for checkpoint in told["checkpoints"]] == ["epoch-1", "epoch-2"]


def test_help_names_the_exit_codes(capsys):
    with pytest.raises(SystemExit) as left:
        main(["--help"])
    assert left.value.code == 0
    said = capsys.readouterr().out.partition("exit codes:")[2]
    assert "11 bad rows" in said
    documented = (Path(__file__).parents[2] / "docs" / "without-kubernetes.md").read_text()
    codes = re.findall(r"^\| (\d+) \|", documented, re.MULTILINE)
    assert {"1", "130"} < set(codes)
    assert re.findall(r"(?<= {2})\d+(?= )", said) == codes


def test_the_package_runs_as_a_module():
    found = subprocess.run(
        [sys.executable, "-m", "winnow_trainer", "import"], capture_output=True, text=True, cwd=Path("/"), check=False
    )
    assert found.returncode == 10
    assert "error: the following arguments are required: --storage" in found.stderr


def test_each_line_of_the_log_is_json_whatever_libraries_say(folder):
    write_job(folder, method="LoRA")
    command = ("train", "--job", folder / "job.yaml", "--storage", folder / "storage")
    found = subprocess.run(
        [sys.executable, "-m", "winnow_trainer", *command], capture_output=True, text=True, check=True
    )
    lines = [json.loads(line) for line in found.stderr.splitlines()]
    assert {"Memory", "Training"} <= {line["message"] for line in lines}
    of_libraries = [line for line in lines if line["level"] == "warning" and "code" not in line]
    assert of_libraries == []


def test_a_training_does_not_wait_for_libraries_that_it_has_no_use_for(folder):
    command = ("train", "--job", folder / "job.yaml", "--storage", folder / "storage")
    found = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "winnow_trainer", *command],
        capture_output=True,
        text=True,
        check=True,
    )
    assert re.findall(r"\| +(peft|bitsandbytes)$", found.stderr, re.MULTILINE) == []


@pytest.mark.parametrize(
    ("name", "change"),
    [
        pytest.param("rows.parquet", lambda content: flipped(content, len(content) // 3), id="a byte of the rows"),
        pytest.param("rows.parquet", lambda content: content[:-10], id="rows cut off"),
        pytest.param("dataset.json", lambda content: content.replace(b'"ham"', b'"hum"'), id="a label"),
        pytest.param("dataset.json", lambda content: content.replace(b'"rows": 16', b'"rows": 17'), id="a count"),
        pytest.param("dataset.json", lambda content: flipped(content, content.index(b"sha256:") + 10), id="a digest"),
        pytest.param("dataset.json", lambda content: content.replace(b"\n", b" ", 1), id="a space"),
    ],
)
def test_bytes_that_changed_after_the_import_fail_the_training_that_reads_them(train, folder, capsys, name, change):
    storage = folder / "storage"
    imports = ["import", "--file", str(folder / "rows.jsonl"), "--labels", "ham,spam", "--storage", str(storage)]
    assert main([*imports, "--json"]) == 0
    stored = Path(json.loads(capsys.readouterr().out)["path"])
    write_job(folder, trainingDataset=f"sha256:{stored.name}")
    content = (stored / name).read_bytes()
    assert change(content) != content
    (stored / name).write_bytes(change(content))
    code, _, err, message = train()
    assert code == 11
    assert (message["state"], message["reason"]) == ("Failed", "DataInvalid")
    assert stored.name in message["message"]
    assert stored.name in err
    assert not (storage / "runs" / "spam-v1" / "checkpoints").exists()
    assert main(imports) == 0  # the next import replaces what was damaged
    code, _, _, message = train()
    assert (code, message["state"]) == (0, "Complete")


def flipped(content, at):
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]
