"""Base models in a bucket: downloaded once for a version, never taken for another."""

import ipaddress
import shutil
from pathlib import Path

import pytest
import tiny_bucket
import tiny_models

from winnow_classifier import base_model, bucket
from winnow_classifier.base_bucket import BaseBucket
from winnow_classifier.errors import BaseModelError, StorageError, StorageFull

LOOPBACK = [ipaddress.ip_network("127.0.0.0/8")]
URI = "s3://bucket/models/tiny"
FILES = {"config.json", "model.safetensors", "tokenizer.json"}
KEYS = {"AWS_ACCESS_KEY_ID": "of-storage", "AWS_SECRET_ACCESS_KEY": "a"}
BASE_KEYS = {"BASE_AWS_ACCESS_KEY_ID": "of-base", "BASE_AWS_SECRET_ACCESS_KEY": "b"}


@pytest.fixture
def s3(tmp_path):
    model = tiny_models.base_model(tmp_path / "s3" / "models" / "tiny")
    for beside in ("README.md", "pytorch_model.bin", "onnx/model.safetensors"):
        (model / beside).parent.mkdir(exist_ok=True)
        (model / beside).write_text("not of the model")
    with tiny_bucket.served(tmp_path / "s3") as served:
        yield served


@pytest.fixture
def storage(tmp_path):
    return tmp_path / "storage"


def resolve(s3, reference, storage):
    return base_model.resolve(reference, storage, bucket=BaseBucket(LOOPBACK, s3.environ))


def change(s3, byte=1):
    file = s3.folder / "models" / "tiny" / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= byte
    file.write_bytes(content)


def test_a_model_is_downloaded_once_for_a_version_and_without_what_is_beside_it(s3, storage):
    first = resolve(s3, URI, storage)
    assert {path.name for path in first.iterdir()} >= FILES
    assert not {path.name for path in first.iterdir()} & {"README.md", "pytorch_model.bin", "onnx"}
    assert first.parent == storage / "models" / "s3" / "bucket" / "models" / "tiny"
    assert base_model.digest(first) == base_model.digest(s3.folder / "models" / "tiny")
    s3.asked.clear()
    assert resolve(s3, f"{URI}/", storage) == first
    assert s3.asked == ["LIST"]
    assert base_model.pinned(f"{URI}/", first) == base_model.pinned(URI, first) == f"{URI}@{first.name}"


def test_who_reads_texts_alone_downloads_no_weights(s3, storage):
    tokenizer = base_model.resolve_tokenizer(URI, storage, bucket=BaseBucket(LOOPBACK, s3.environ))
    names = {path.name for path in tokenizer.iterdir()}
    assert names == {".complete", "config.json", "tokenizer.json", "tokenizer_config.json"}
    assert not any(key.endswith(".safetensors") for key in s3.asked)


def test_what_was_pinned_is_used_whatever_lies_in_the_bucket_now(s3, storage):
    first = resolve(s3, URI, storage)
    change(s3)
    s3.asked.clear()
    assert resolve(s3, f"{URI}@{first.name}", storage) == first
    assert s3.asked == []
    assert resolve(s3, URI, storage) not in (first, s3.folder)
    assert len([path for path in first.parent.iterdir() if not path.name.startswith(".")]) == 2


def test_another_model_never_comes_in_the_place_of_a_pinned_one(s3, storage, tmp_path):
    pinned = base_model.pinned(URI, resolve(s3, URI, storage))
    elsewhere = tmp_path / "of another pod"
    assert resolve(s3, pinned, elsewhere).name == pinned.partition("@")[2]
    change(s3)
    shutil.rmtree(elsewhere)
    with pytest.raises(BaseModelError, match=f"{URI} holds another model now") as said:
        resolve(s3, pinned, elsewhere)
    assert "put the objects back" in said.value.hint
    change(s3)  # back
    assert resolve(s3, pinned, elsewhere).name == pinned.partition("@")[2]


def test_objects_that_change_while_they_are_downloaded_are_no_model(s3, storage):
    answer = s3.answer

    def changing(path, query):
        found = answer(path, query)
        if path.endswith("tokenizer.json"):
            change(s3)
        return found

    s3.answer = changing
    with pytest.raises(StorageError, match="was changed while it was downloaded"):
        resolve(s3, URI, storage)
    assert [path.name for path in (storage / "models" / "s3" / "bucket" / "models" / "tiny").iterdir()] == [".lock"]


@pytest.mark.parametrize(
    ("uri", "says", "hint"),
    [
        pytest.param("s3://bucket", "has no config.json", "there is one in s3://bucket/models/tiny", id="above it"),
        pytest.param(f"{URI}/nothing", "has no config.json", "names the model's folder", id="nothing"),
        pytest.param(
            "s3://bucket/weightless",
            r"has no model\.safetensors",
            "tf_model.h5 is of a form that is not trained",
            id="no weights",
        ),
    ],
)
def test_what_is_no_model_is_said_before_anything_is_downloaded(s3, storage, uri, says, hint):
    weightless = tiny_models.base_model(s3.folder / "weightless")
    (weightless / "model.safetensors").rename(weightless / "tf_model.h5")
    if not uri.endswith("weightless"):
        (weightless / "config.json").unlink()
    with pytest.raises(BaseModelError, match=says) as said:
        resolve(s3, uri, storage)
    assert hint in said.value.hint
    assert s3.asked == ["LIST"]


@pytest.mark.parametrize(
    ("keys", "environ", "signed_by"),
    [
        pytest.param("", KEYS, "of-storage", id="the usual names on a laptop"),
        pytest.param("BASE_", KEYS | BASE_KEYS, "of-base", id="its own names in a pod"),
        pytest.param("BASE_", KEYS, None, id="never the storage's keys in their place"),
    ],
)
def test_the_server_gets_the_base_models_keys_and_no_others(s3, storage, keys, environ, signed_by):
    environ = {**environ, f"{keys}AWS_ENDPOINT_URL_S3": s3.endpoint}
    base_model.resolve(URI, storage, bucket=BaseBucket(LOOPBACK, environ, keys))
    if signed_by:
        assert all(f"Credential={signed_by}/" in header for header in s3.signed_by)
    else:
        assert set(s3.signed_by) == {""}


@pytest.mark.parametrize(
    ("refusal", "environ", "says"),
    [
        pytest.param((403, "AccessDenied"), {}, "it was asked without keys", id="no Secret"),
        pytest.param((403, "AccessDenied"), KEYS, "need s3:ListBucket", id="keys that may not"),
        pytest.param((403, "InvalidAccessKeyId"), KEYS, "ID of baseModel.s3.secretRef", id="unknown keys"),
        pytest.param((200, "page"), KEYS, "check baseModel.s3.endpoint", id="a console of people"),
        pytest.param((404, "NoSuchBucket"), KEYS, "check baseModel.s3.uri and endpoint", id="no bucket"),
    ],
)
def test_a_refusal_says_what_to_change(s3, storage, refusal, environ, says):
    s3.refusal = refusal
    with pytest.raises(BaseModelError, match=f"{URI}: {s3.endpoint} answers ") as said:
        base_model.resolve(URI, storage, bucket=BaseBucket(LOOPBACK, {**environ, **s3.environ}))
    assert str(said.value).endswith(f"{refusal[0]} {refusal[1]}" if refusal[0] != 200 else "not as an S3 server")
    assert says in said.value.hint


def test_addresses_within_the_cluster_need_to_be_allowed(s3, storage):
    with pytest.raises(BaseModelError, match="which is not public") as said:
        base_model.resolve(URI, storage, bucket=BaseBucket((), s3.environ))
    assert "fetch.allowedNetworks" in said.value.hint
    assert s3.asked == []


def test_a_server_in_trouble_is_worth_another_try(s3, storage, monkeypatch):
    monkeypatch.setattr(bucket, "PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(bucket, "QUICK_TRIES", 1)
    s3.refusal = (503, "SlowDown")
    with pytest.raises(StorageError, match="does not answer as it should"):
        resolve(s3, URI, storage)


@pytest.mark.parametrize(
    ("errno", "error"),
    [
        pytest.param(28, StorageFull, id="No space left on device"),
        pytest.param(30, StorageError, id="Read-only file system"),
    ],
)
def test_a_storage_that_takes_no_model_is_said(s3, storage, monkeypatch, errno, error):
    def refuse(*_, **__):
        raise OSError(errno, "cannot")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(error, match=f"cannot, while {URI} was downloaded"):
        resolve(s3, URI, storage)


@pytest.mark.parametrize(
    "reference",
    [
        pytest.param("s3://bucket/../other", id="a path out of the storage"),
        pytest.param(f"s3://bucket/../other@{'0' * 64}", id="the same with a version"),
        pytest.param("s3://bucket/a b", id="no prefix"),
        pytest.param(f"{URI}@main", id="no version"),
        pytest.param(f"{URI}@", id="an empty version"),
    ],
)
def test_a_reference_that_cannot_be_followed_is_refused(s3, storage, reference):
    with pytest.raises(BaseModelError, match="is not s3://bucket"):
        resolve(s3, reference, storage)
    assert s3.asked == []


def test_a_model_needs_a_place_to_be_kept(s3):
    with pytest.raises(BaseModelError, match="storage folder"):
        resolve(s3, URI, None)
