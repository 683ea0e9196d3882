"""Base models as they were published before safetensors and tokenizer.json."""

import ipaddress
import json
import shutil

import old_models
import pytest
import tiny_bucket
import tiny_models
import torch
from old_models import old_model
from safetensors import safe_open
from safetensors.torch import load_file
from sentencepiece import SentencePieceProcessor
from transformers import AutoModel, AutoTokenizer

from winnow_classifier import base_model
from winnow_classifier.base_bucket import BaseBucket
from winnow_classifier.errors import BaseModelError
from winnow_classifier.tokens import load_tokenizer

LOOPBACK = [ipaddress.ip_network("127.0.0.0/8")]


@pytest.fixture
def s3(tmp_path):
    (tmp_path / "s3" / "models").mkdir(parents=True)
    with tiny_bucket.served(tmp_path / "s3") as served:
        yield served


@pytest.fixture
def models(s3):
    return s3.folder / "models"


@pytest.fixture
def resolve(s3, tmp_path):
    def resolve(folder, storage="storage"):
        bucket = BaseBucket(LOOPBACK, s3.environ)
        return base_model.resolve(f"s3://bucket/models/{folder.name}", tmp_path / storage, bucket=bucket)

    return resolve


@pytest.mark.parametrize("model_type", old_models.VOCABULARIES)
def test_it_reads_and_answers_as_what_was_old_model(models, resolve, model_type):
    old = old_model(models / "old", model_type)
    new = resolve(old)
    kept = {path.name for path in new.iterdir()}
    assert kept == {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", ".complete"}
    before, after = AutoTokenizer.from_pretrained(old), load_tokenizer(new)
    assert [before(text)["input_ids"] for text in old_models.SAID] == [
        after(text)["input_ids"] for text in old_models.SAID
    ]
    assert after.model_max_length == before.model_max_length
    read = torch.load(old / "pytorch_model.bin", weights_only=True)
    written = load_file(new / "model.safetensors")
    assert written.keys() == read.keys()
    assert all(torch.equal(tensor, written[name]) for name, tensor in read.items())
    ids = torch.tensor([after("see you at noon")["input_ids"]])
    answers = [AutoModel.from_pretrained(folder).eval()(ids).last_hidden_state for folder in (old, new)]
    assert torch.equal(*answers)


def test_sentence_pieces_are_read_as_by_the_library_that_made_them(models, resolve):
    """transformers' class for DeBERTa-v2 forgets which characters mean the same."""
    old = old_model(models / "old", "deberta-v2")
    made = SentencePieceProcessor(model_file=str(old / "spm.model"))
    texts = [*old_models.SAID, "\uff34\uff48\uff45 quick\u3000\ufb01x", "tabs\tand\nlines", "  outer spaces "]
    read = load_tokenizer(resolve(old))
    for text in texts:
        ids = read(text, add_special_tokens=False)["input_ids"]
        assert read.convert_ids_to_tokens(ids) == made.encode(text, out_type=str)


@pytest.mark.parametrize("model_type", ["llama", "gemma"])
def test_a_vocabulary_that_transformers_reads_otherwise_is_refused(models, resolve, model_type):
    """Without tokenizer.json it forgets the mark before the first word."""
    old = old_model(models / "old", "deberta-v2")
    (old / "spm.model").rename(old / "tokenizer.model")
    config = json.loads((old / "config.json").read_bytes())
    (old / "config.json").write_text(json.dumps(config | {"model_type": model_type}))
    with pytest.raises(BaseModelError, match=r"transformers reads texts otherwise than tokenizer\.model has them read"):
        resolve(old)


def test_the_same_model_is_known_again_where_it_is_converted_again(models, resolve):
    old = old_model(models / "old")
    assert base_model.digest(resolve(old, "one")) == base_model.digest(resolve(old, "another"))


def test_a_pickle_of_before_torch_1_6(models, resolve):
    old = old_model(models / "old", _use_new_zipfile_serialization=False)
    read = torch.load(old / "pytorch_model.bin", weights_only=True)
    written = load_file(resolve(old) / "model.safetensors")
    assert all(torch.equal(tensor, written[name]) for name, tensor in read.items())


def test_pickled_shards(models, resolve):
    old = old_model(models / "old")
    weights = torch.load(old / "pytorch_model.bin", weights_only=True)
    (old / "pytorch_model.bin").unlink()
    names = sorted(weights)
    shards = {f"pytorch_model-0000{part}-of-00002.bin": names[part - 1 :: 2] for part in (1, 2)}
    for file, these in shards.items():
        torch.save({name: weights[name] for name in these}, old / file)
    places = {name: file for file, these in shards.items() for name in these}
    (old / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    new = resolve(old)
    assert not list(new.glob("*.bin*"))
    index = json.loads((new / "model.safetensors.index.json").read_bytes())["weight_map"]
    assert index.keys() == weights.keys()
    for name, file in index.items():
        with safe_open(new / file, "pt") as shard:
            assert torch.equal(shard.get_tensor(name), weights[name])
    parameters = [dict(AutoModel.from_pretrained(folder).named_parameters()) for folder in (old, new)]
    assert all(torch.equal(parameter, parameters[1][name]) for name, parameter in parameters[0].items())


def test_what_has_today_s_form_comes_in_it_alone(models, resolve):
    new = tiny_models.base_model(models / "new")
    (new / "pytorch_model.bin").write_bytes(b"never read")
    (new / "merges.txt").write_bytes(b"never read")
    assert not {path.name for path in resolve(new).iterdir()} & {"pytorch_model.bin", "merges.txt"}


class Ran:
    def __reduce__(self):
        return print, ("code of a model ran",)


def code(file):
    torch.save({"embeddings.weight": torch.ones(3), "more": Ran()}, file)


def numbers(file):
    torch.save({"embeddings.weight": 3}, file)


def cut(file):
    file.write_bytes(file.read_bytes()[:-100])


def pointer(file):
    """What a clone without Git LFS leaves."""
    file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 90868376\n")


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (code, "holds something other than tensors, which is not read: Unsupported global: GLOBAL print"),
        (numbers, "is not one tensor for each name"),
        (cut, "cannot be read: PytorchStreamReader failed"),
        (pointer, "holds something other than tensors, which is not read"),
    ],
)
def test_a_pickle_that_is_not_weights_is_refused_and_no_code_of_it_runs(
    models, resolve, tmp_path, capsys, damage, says
):
    old = old_model(models / "old")
    damage(old / "pytorch_model.bin")
    with pytest.raises(BaseModelError) as said:
        resolve(old)
    assert str(said.value).startswith("Base model s3://bucket/models/old: pytorch_model.bin ") and says in str(
        said.value
    )
    assert "code of a model ran" not in capsys.readouterr().out
    assert [path.name for path in (tmp_path / "storage/models/s3/bucket/models/old").iterdir()] == [".lock"]


def test_an_index_that_leads_out_of_the_folder_is_refused(models, resolve, tmp_path):
    kept = tmp_path / "storage" / "kept.bin"
    kept.parent.mkdir()
    torch.save({}, kept)
    old = old_model(models / "old")
    (old / "pytorch_model.bin").unlink()
    index = {"weight_map": {"a": "../../../../../../kept.bin"}}
    (old / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    with pytest.raises(BaseModelError, match="which is no file beside it"):
        resolve(old)
    assert kept.exists()


@pytest.mark.parametrize(
    ("model_type", "gone", "says"),
    [("roberta", "merges.txt", "(vocab.json, added_tokens.json)"), ("deberta-v2", "spm.model", "wants spm.model")],
)
def test_half_a_vocabulary_is_none(models, resolve, model_type, gone, says):
    old = old_model(models / "old", model_type)
    (old / gone).unlink()
    (old / "added_tokens.json").write_text("{}")  # beside what is missing
    with pytest.raises(BaseModelError, match=r"old has no tokenizer\.json, and none can be made of its files") as said:
        resolve(old)
    assert says in str(said.value)


@pytest.mark.parametrize("lost", ["weights", "tokenizer"])
def test_a_folder_of_one_s_own_is_left_as_it_is_and_what_to_do_is_said(tmp_path, lost):
    folder = old_model(tmp_path / "old")
    if lost == "tokenizer":
        today = tiny_models.base_model(tmp_path / "today")
        shutil.copy(today / "model.safetensors", folder)
        (folder / "pytorch_model.bin").unlink()
    before = {path.name for path in folder.iterdir()}
    with pytest.raises(BaseModelError, match=r"has no (model\.safetensors|tokenizer\.json)") as said:
        base_model.resolve(str(folder), tmp_path)
    assert "save_pretrained" in said.value.hint
    assert {path.name for path in folder.iterdir()} == before
