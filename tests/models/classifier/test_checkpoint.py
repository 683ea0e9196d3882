"""Checkpoints: published whole, verified, and read again as they were."""

import json
from pathlib import Path

import pytest
import tiny_models
import torch
from tiny_checkpoint import LABELS, TEXTS, publish
from torch.testing import assert_close

from winnow_classifier import checkpoint
from winnow_classifier.errors import CheckpointError
from winnow_classifier.files import MANIFEST
from winnow_classifier.model import merge_lora
from winnow_classifier.packing import pack


@pytest.fixture
def base(tmp_path):
    return tiny_models.base_model(tmp_path / "base")


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "runs" / "spam-v1" / "checkpoints" / "epoch-2"


@pytest.mark.parametrize("model_type", ["bert", "roberta", "llama"])
@pytest.mark.parametrize("method", ["Full", "LoRA"])
def test_a_loaded_checkpoint_answers_as_the_trained_model(tmp_path, folder, model_type, method):
    published, model = publish(folder, tiny_models.base_model(tmp_path / "base", model_type), LABELS[77], method)
    loaded = checkpoint.load(folder, digest=published.digest)
    assert (loaded.schema, loaded.digest) == (LABELS[77], published.digest)
    with torch.no_grad():
        batch = pack([encoded.input_ids for encoded in loaded.encoder.encode(TEXTS)], model.position_start)
        # The adapter is merged into the weights: the same sums in another order.
        assert_close(loaded.model(batch), model(batch), rtol=1e-5, atol=1e-5)


def test_weights_are_the_files_pages_mapped_into_memory_not_a_copy(base, folder):
    publish(folder, base)
    loaded = checkpoint.load(folder)
    mapped = [line for line in Path("/proc/self/maps").read_text().splitlines() if str(folder) in line]
    places = [range(*(int(end, 16) for end in line.split()[0].split("-"))) for line in mapped]
    assert all(any(parameter.data_ptr() in each for each in places) for parameter in loaded.model.parameters())


def test_the_manifest_names_every_file_and_is_named_by_its_own_digest(base, folder):
    published, _ = publish(folder, base)
    content = json.loads((folder / "checkpoint.json").read_bytes())
    assert set(content["files"]) | {"checkpoint.json"} == {path.name for path in folder.iterdir()}
    assert (content["formatVersion"], content["labels"], content["problemType"]) == (
        1,
        ["ham", "spam"],
        "single_label_classification",
    )
    assert published.size_bytes == sum(path.stat().st_size for path in folder.iterdir())
    assert checkpoint.inspect(folder, published.digest) == published


def test_vllm_finds_what_it_needs_in_the_config(base, folder):
    publish(folder, base, LABELS[3], "LoRA")
    config = json.loads((folder / "config.json").read_bytes())
    assert config["architectures"] == ["BertForSequenceClassification"]
    assert config["id2label"] == {"0": "z", "1": "y", "2": "x"}
    assert (config["problem_type"], config["pad_token_id"]) == ("multi_label_classification", 0)


def test_the_same_adapter_has_the_same_bytes_in_every_process(base, folder):
    publish(folder, base, LABELS[3], "LoRA")
    names = json.loads((folder / "adapter_config.json").read_bytes())["target_modules"]
    assert len(names) > 4
    assert names == sorted(names)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json", "metrics.json"])
def test_a_changed_file_is_named(base, folder, name):
    publish(folder, base)
    (folder / name).write_bytes((folder / name).read_bytes() + b" ")
    with pytest.raises(CheckpointError, match=f"{name} was changed"):
        checkpoint.load(folder)


def test_a_lost_file_is_named(base, folder):
    publish(folder, base)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match=r"lost tokenizer\.json"):
        checkpoint.inspect(folder)


def test_another_manifest_than_the_promised_one_is_refused(base, folder):
    published, _ = publish(folder, base)
    path = folder / "checkpoint.json"
    path.write_text(path.read_text().replace('"maxSeqLength": 16', '"maxSeqLength": 8'))
    with pytest.raises(CheckpointError, match="was changed"):
        checkpoint.inspect(folder, published.digest)


def test_a_folder_without_a_manifest_is_no_checkpoint(tmp_path):
    with pytest.raises(CheckpointError, match=r"checkpoint\.json is missing"):
        checkpoint.inspect(tmp_path)


def test_a_manifest_of_another_format_is_refused(base, folder):
    publish(folder, base)
    path = folder / "checkpoint.json"
    path.write_text(path.read_text().replace('"formatVersion": 1', '"formatVersion": 2'))
    with pytest.raises(CheckpointError, match="not a checkpoint of format 1"):
        checkpoint.inspect(folder)


def test_an_adapter_is_not_put_on_another_base(tmp_path, base, folder):
    publish(folder, base, method="LoRA")
    other = tiny_models.base_model(tmp_path / "other", intermediate_size=40)
    with pytest.raises(CheckpointError, match="not the one this adapter was trained on"):
        checkpoint.load(folder, base_model=str(other))


def test_an_adapter_that_merging_changes_is_not_served(base, folder, monkeypatch):
    publish(folder, base, method="LoRA")

    def off(network):
        merged = merge_lora(network)
        with torch.no_grad():
            merged.bert.encoder.layer[0].output.dense.weight.mul_(2)
        return merged

    monkeypatch.setattr(checkpoint, "merge_lora", off)
    with pytest.raises(CheckpointError, match="the adapter changes a logit by"):
        checkpoint.load(folder)


def test_an_adapter_follows_its_base_to_another_place(tmp_path, base, folder):
    publish(folder, base, method="LoRA")
    moved = base.rename(tmp_path / "moved")
    assert checkpoint.load(folder, base_model=str(moved)).manifest.method == "LoRA"


@pytest.mark.parametrize("given", [None, "hf://owner/name@main", "hf://owner/name"])
def test_an_adapter_is_served_on_the_commit_of_its_training_wherever_the_branch_is_now(tmp_path, given):
    serve_on_the_version_of_its_training(tmp_path, "hf://owner/name", "owner--name", "01234567" * 5, given)


@pytest.mark.parametrize("given", [None, "s3://bucket/models/tiny", "s3://bucket/models/tiny/"])
def test_an_adapter_is_served_on_the_objects_of_its_training_whatever_is_in_the_bucket_now(tmp_path, given):
    uri = "s3://bucket/models/tiny"
    serve_on_the_version_of_its_training(tmp_path, uri, "s3/bucket/models/tiny", "01234567" * 8, given)


def serve_on_the_version_of_its_training(tmp_path, place, folder, version, given):
    """It is there already, so nobody is asked."""
    base = tiny_models.base_model(tmp_path / "storage" / "models" / folder / version)
    (base / ".complete").write_text(version)
    publish(tmp_path / "epoch-2", base, method="LoRA")
    path = tmp_path / "epoch-2" / MANIFEST
    manifest = json.loads(path.read_bytes())
    manifest["baseModel"]["reference"] = f"{place}@{version}"
    path.write_text(json.dumps(manifest))
    loaded = checkpoint.load(tmp_path / "epoch-2", base_model=given, storage=tmp_path / "storage")
    assert loaded.manifest.method == "LoRA"


def test_a_half_written_checkpoint_is_never_met(base, folder, monkeypatch):
    def disk_full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "sync", disk_full)
    with pytest.raises(OSError, match="No space left"):
        publish(folder, base)
    assert not folder.exists()
    monkeypatch.undo()
    publish(folder, base)
    assert [path.name for path in folder.parent.iterdir()] == ["epoch-2"]
