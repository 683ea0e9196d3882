"""Base models: found, complete, identified."""

import json
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import tiny_models
from peft import LoraConfig

from winnow_classifier import base_model
from winnow_classifier.base_hub import HuggingFaceHub, _hub_errors
from winnow_classifier.base_model import digest, pinned, resolve
from winnow_classifier.errors import BaseModelError, StorageError, StorageFull

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def model(tmp_path):
    return tiny_models.base_model(tmp_path / "model")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_missing_file_is_named(model, name):
    (model / name).unlink()
    with pytest.raises(BaseModelError, match=f"has no {name}"):
        resolve(str(model), None)


@pytest.mark.parametrize(
    ("name", "missing", "told"),
    [
        pytest.param("adapter_config.json", "config.json", "name the model that it was made for", id="an adapter"),
        pytest.param("adapter_config.json", "model.safetensors", "the model that it was made for", id="with a config"),
        pytest.param(
            "tiny-Q4_K_M.gguf", "model.safetensors", "tiny-Q4_K_M.gguf is of a form that is not trained", id="GGUF"
        ),
        pytest.param("model.onnx", "model.safetensors", "name the model that it was made of", id="ONNX"),
    ],
)
def test_what_is_no_model_to_train_says_what_to_take(model, name, missing, told):
    (model / missing).rename(model / name)
    with pytest.raises(BaseModelError, match=f"has no {missing}") as caught:
        resolve(str(model), None)
    assert told in caught.value.hint


def test_a_model_with_an_adapter_beside_its_weights_is_refused(model):
    LoraConfig(target_modules=["query"]).save_pretrained(model)
    with pytest.raises(BaseModelError, match="has an adapter beside its weights"):
        resolve(str(model), None)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(BaseModelError, match=r"no folder .*nothing"):
        resolve(str(tmp_path / "nothing"), None)


def test_a_missing_shard_is_named(model):
    (model / "model.safetensors").rename(model / "model-00001-of-00002.safetensors")
    shards = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
    with pytest.raises(BaseModelError, match="has no model-00002-of-00002"):
        resolve(str(model), None)


def test_the_digest_follows_the_weights_and_not_the_place(model, tmp_path):
    copy = shutil.copytree(model, tmp_path / "copy")
    assert digest(copy) == digest(model)
    content = bytearray((copy / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (copy / "model.safetensors").write_bytes(content)
    assert digest(copy) != digest(model)


class StandIn:
    """A Hub with one repository, whose branch names COMMIT."""

    def __init__(self, folder):
        self.folder = folder
        self.downloads = []

    def commit(self, repository, revision):
        assert (repository, revision) == ("owner/name", "main")
        return COMMIT

    def files(self, repository, commit):
        return {path.name: path.stat().st_size for path in self.folder.iterdir()}

    def download(self, repository, commit, directory, names):
        self.downloads.append((repository, commit))
        time.sleep(0.05)
        for name in names:
            shutil.copy(self.folder / name, directory)


def test_a_repository_is_downloaded_once_for_a_commit(model, tmp_path):
    hub, storage = StandIn(model), tmp_path / "storage"
    first = resolve("hf://owner/name@main", storage, hub)
    again = resolve(f"hf://owner/name@{COMMIT}", storage, hub)
    assert first == again == resolve("hf://owner/name", storage, hub) == storage / "models" / "owner--name" / COMMIT
    assert hub.downloads == [("owner/name", COMMIT)]
    assert pinned("hf://owner/name@main", first) == pinned("hf://owner/name", first) == f"hf://owner/name@{COMMIT}"
    assert pinned("/models/minilm", model) == "/models/minilm"


def test_imports_that_begin_together_download_once(model, tmp_path):
    hub = StandIn(model)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: resolve("hf://owner/name", tmp_path / "storage", hub), range(4)))
    assert set(found) == {tmp_path / "storage" / "models" / "owner--name" / COMMIT}
    assert len(hub.downloads) == 1


def test_who_reads_texts_alone_downloads_no_weights(model, tmp_path):
    hub, storage = StandIn(model), tmp_path / "storage"
    tokenizer = base_model.resolve_tokenizer("hf://owner/name", storage, hub)
    assert {path.name for path in tokenizer.iterdir()} == {
        ".complete",
        "config.json",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    assert base_model.resolve_tokenizer(f"hf://owner/name@{COMMIT}", storage, hub) == tokenizer
    assert len(hub.downloads) == 1
    whole = resolve("hf://owner/name", storage, hub)
    assert (whole / "model.safetensors").is_file()
    assert base_model.resolve_tokenizer("hf://owner/name", storage, hub) == whole


def test_who_waits_for_a_download_is_told_how_far_it_is(model, tmp_path):
    said = []
    (model / "model.safetensors").write_bytes(b"0" * (3 << 20))
    resolve("hf://owner/name", tmp_path, StandIn(model), told=said.append)
    assert said[0] == "base model hf://owner/name is downloaded"
    assert said[1].startswith(f"{said[0]}: 0.0 MiB of 3.") and said[1].endswith(" MiB")
    assert said[-1] is None
    said.clear()
    resolve("hf://owner/name", tmp_path, StandIn(model), told=said.append)
    assert said == []


def test_a_model_that_has_no_room_is_not_begun(model, tmp_path):
    hub = StandIn(model)
    hub.files = lambda *_: {path.name: 1 << 60 for path in model.iterdir()}
    with pytest.raises(StorageFull, match=r"hf://owner/name has \d+\.0 GiB, and \d+\.\d [GM]iB are free"):
        resolve("hf://owner/name", tmp_path, hub)
    assert hub.downloads == []
    assert [path.name for path in (tmp_path / "models" / "owner--name").iterdir()] == [".lock"]


def test_what_was_downloaded_is_found_in_a_storage_that_can_only_be_read(model, tmp_path, monkeypatch):
    hub, storage = StandIn(model), tmp_path / "storage"
    resolve("hf://owner/name", storage, hub)

    def refuse(*_, **__):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "mkdir", refuse)
    assert resolve(f"hf://owner/name@{COMMIT}", storage, hub).name == COMMIT


def test_a_download_that_breaks_leaves_nothing_behind(tmp_path):
    files = tmp_path / "files"
    files.mkdir()
    (files / "config.json").write_text("{}")
    with pytest.raises(BaseModelError, match=r"has no model\.safetensors"):
        resolve("hf://owner/name@main", tmp_path, StandIn(files))
    assert [path.name for path in (tmp_path / "models" / "owner--name").iterdir()] == [".lock"]


@pytest.mark.parametrize(
    ("reference", "storage", "said"),
    [
        pytest.param("hf://owner/name", None, "storage folder", id="nowhere to put it"),
        pytest.param("hf://../x@main", "s", "is not hf://owner/name", id="a path out of the storage"),
    ],
)
def test_a_reference_that_cannot_be_followed_is_refused(reference, storage, said, tmp_path):
    with pytest.raises(BaseModelError, match=said):
        resolve(reference, tmp_path / storage if storage else None, HuggingFaceHub(None))


def test_what_the_client_of_xet_raises_is_said_with_what_to_do():
    """Its store stands behind addresses that only the Hub itself names; behind proxies it is rarely reached."""
    said = pytest.raises(StorageError, match=r"\(Xet\): Client error")
    with said as raised, _hub_errors("hf://owner/name@main"):
        raise RuntimeError("Client error: error sending request")
    assert "HF_HUB_DISABLE_XET=1" in raised.value.hint
