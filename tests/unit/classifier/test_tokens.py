"""Text to token ids: the template, the cut, the padding token."""

import json

import pytest
import tiny_models
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from winnow_classifier.errors import BaseModelError, ConfigError
from winnow_classifier.tokens import Encoder, class_that_reads_otherwise, load_tokenizer, part_padding


def encoder(template="{text}", limit=8, model_type="bert"):
    return Encoder(tiny_models.tokenizer(model_type), template, limit)


def words(encoder, ids):
    return encoder.tokenizer.convert_ids_to_tokens(ids)


def test_a_short_text_is_rendered_and_kept_whole():
    classify = encoder("a {text} now")
    (encoded,) = classify.encode(["free money"])
    assert words(classify, encoded.input_ids) == ["[CLS]", "a", "free", "money", "now", "[SEP]"]
    assert (encoded.original_tokens, encoded.truncated) == (6, False)


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        pytest.param("{text}", ["[CLS]", "win", "win", "win", "[SEP]"], id="as transformers cuts"),
        pytest.param("a {text}", ["[CLS]", "a", "win", "win", "[SEP]"], id="what stands before is kept"),
        pytest.param("{text} now", ["[CLS]", "win", "win", "now", "[SEP]"], id="what stands behind is kept"),
    ],
)
def test_a_long_text_loses_its_end_and_never_a_part_of_the_template(template, expected):
    classify = encoder(template, limit=5)
    (encoded,) = classify.encode(["win " * 20])
    assert words(classify, encoded.input_ids) == expected
    assert encoded.truncated
    assert encoded.original_tokens > 20


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        pytest.param("{text}", ["[CLS]", "win", "win", "now", "[SEP]"], id="its beginning goes"),
        pytest.param("a {text}", ["[CLS]", "a", "win", "now", "[SEP]"], id="what stands before is kept"),
        pytest.param("{text} see", ["[CLS]", "win", "now", "see", "[SEP]"], id="what stands behind is kept"),
    ],
)
def test_a_long_text_loses_its_beginning_where_that_is_asked_for(template, expected):
    classify = encoder(template, limit=5)
    text = "win " * 20 + "now"
    left, right, short = classify.encode([text, text, "win now"], ["left", "right", "left"])
    assert words(classify, left.input_ids) == expected
    assert left.truncated
    assert right == classify.encode([text])[0]
    assert short == classify.encode(["win now"])[0]


def test_a_text_may_have_a_limit_of_its_own():
    classify = encoder("a {text} now", limit=8)
    own, models = classify.encode(["win " * 20] * 2, limits=[6, 8])
    assert words(classify, own.input_ids) == ["[CLS]", "a", "win", "win", "now", "[SEP]"]
    assert models == classify.encode(["win " * 20])[0]
    assert classify.template_tokens == 4


def test_an_empty_text_still_has_the_special_tokens():
    classify = encoder()
    assert words(classify, classify.encode([""])[0].input_ids) == ["[CLS]", "[SEP]"]


def test_braces_in_a_text_are_text():
    classify = encoder("a {text} now", limit=32)
    assert classify.render("{text} {0}") == "a {text} {0} now"


def test_a_template_without_a_place_for_the_text_is_refused():
    with pytest.raises(ConfigError, match=r"must contain \{text\}"):
        encoder("classify this")


def test_a_template_that_leaves_no_room_is_refused():
    with pytest.raises(ConfigError, match="takes 5 of maxSeqLength 5"):
        encoder("see you at {text}", limit=5)


def test_cutting_and_padding_baked_into_a_tokenizer_file_are_switched_off(tmp_path):
    baked = tiny_models.tokenizer("bert")
    baked.backend_tokenizer.enable_truncation(4)
    baked.backend_tokenizer.enable_padding(length=4)
    baked.save_pretrained(tmp_path)
    classify = Encoder(load_tokenizer(tmp_path), "{text}", 32)
    lengths = [len(encoded.input_ids) for encoded in classify.encode(["win", "win " * 10])]
    assert lengths == [3, 12]


READ = ["ECOLE École e\u0301cole", " see  you", "1234 at 12:34", "x  1\n\ty"]
BYTES = pre_tokenizers.ByteLevel(add_prefix_space=False)
SPACES = normalizers.Replace(" ", "\u2581")


def published(model, normalizer, pre_tokenizer, trainer):
    """A tokenizer of these rules, its vocabulary learned from the texts that are read."""
    tokenizer = Tokenizer(model)
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, pre_tokenizer
    tokenizer.train_from_iterator(READ * 4, trainer)
    return tokenizer


def word_pieces(lowercase):
    trainer = trainers.WordPieceTrainer(special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]"], show_progress=False)
    normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer = published(models.WordPiece(unk_token="[UNK]"), normalizer, pre_tokenizers.BertPreTokenizer(), trainer)
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return tokenizer


def byte_pairs(normalizer, pre_tokenizer):
    trainer = trainers.BpeTrainer(special_tokens=["<unk>", "<s>", "</s>", "<pad>"], show_progress=False)
    return published(models.BPE(unk_token="<unk>"), normalizer, pre_tokenizer, trainer)


@pytest.mark.parametrize(
    ("model_type", "tokenizer", "settings"),
    [
        pytest.param("bert", word_pieces(False), {"model_max_length": 512}, id="a cased BERT that does not say so"),
        pytest.param("bert", word_pieces(True), {"do_lower_case": True}, id="an uncased BERT that does"),
        pytest.param(
            "llama",
            byte_pairs(None, pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), BYTES])),
            {"tokenizer_class": "GPT2Tokenizer"},
            id="digits one by one, as SmolLM2",
        ),
        pytest.param(
            "llama",
            byte_pairs(SPACES, None),
            {"tokenizer_class": "LlamaTokenizer", "add_bos_token": False},
            id="no space before a text, as Yi",
        ),
    ],
)
def test_texts_are_read_as_the_tokenizer_file_says_and_so_they_are_by_plain_transformers(
    tmp_path, model_type, tokenizer, settings
):
    base = tiny_models.base_model(tmp_path / "base", model_type)
    tokenizer.save(str(base / "tokenizer.json"))
    (base / "tokenizer_config.json").write_text(json.dumps(settings))
    expected = [tokenizer.encode(text).ids for text in READ]
    found = load_tokenizer(base)
    assert found.pad_token in ("[PAD]", "<pad>")
    assert [one.input_ids for one in Encoder(found, "{text}", 99).encode(READ)] == expected
    assert class_that_reads_otherwise(found, model_type) is None
    found.save_pretrained(base)
    assert AutoTokenizer.from_pretrained(base)(READ)["input_ids"] == expected
    assert [one.input_ids for one in Encoder(load_tokenizer(base), "{text}", 99).encode(READ)] == expected


def test_a_class_that_plain_transformers_takes_for_the_type_and_reads_otherwise_is_named(tmp_path):
    tiny_models.base_model(tmp_path, "qwen2")
    assert class_that_reads_otherwise(load_tokenizer(tmp_path), "qwen2") == "Qwen2Tokenizer"


def loaded(folder, model_type, pad_token):
    tokenizer = tiny_models.tokenizer(model_type)
    tokenizer.pad_token = pad_token
    tokenizer.save_pretrained(folder)
    return load_tokenizer(folder)


def test_a_decoder_without_a_padding_token_gets_a_spare_one_of_its_vocabulary(tmp_path):
    tokenizer = loaded(tmp_path, "llama", None)
    assert tokenizer.pad_token == "[PAD]"
    assert len(tokenizer) == len(tiny_models.WORDS) + 4


def test_a_padding_token_that_ends_each_text_is_replaced(tmp_path):
    # transformers pools at the last token that is not padding: here it would pool one token too early.
    assert loaded(tmp_path, "bert", "[SEP]").pad_token == "[PAD]"


def test_a_padding_token_that_ends_each_text_is_replaced_by_any_special_one_that_no_text_has(tmp_path):
    ends = Tokenizer(models.WordLevel({"a": 0, "<|endoftext|>": 1, "<|im_start|>": 2}, unk_token="a"))  # as gte-Qwen2
    ends.add_special_tokens(["<|endoftext|>", "<|im_start|>"])
    ends.post_processor = processors.TemplateProcessing(
        single="$A <|endoftext|>", special_tokens=[("<|endoftext|>", 1)]
    )
    told = {"pad_token": "<|endoftext|>", "eos_token": "<|endoftext|>"}
    PreTrainedTokenizerFast(tokenizer_object=ends, **told).save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    assert load_tokenizer(tmp_path).pad_token == "<|im_start|>"


def test_a_tokenizer_with_no_token_to_pad_with_is_refused(tmp_path):
    loaded(tmp_path, "bert", "[SEP]")
    file = tmp_path / "tokenizer.json"
    file.write_text(file.read_text().replace("[PAD]", "[OTHER]").replace('"special": true', '"special": false'))
    file = tmp_path / "tokenizer_config.json"
    file.write_text(json.dumps({"pad_token": "[SEP]", "cls_token": "[CLS]"}))
    with pytest.raises(BaseModelError, match="no padding token, and no spare token"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize(("embeddings", "expected"), [(35, "<pad>"), (34, "[PAD]")])
def test_a_spare_padding_token_is_one_that_the_model_has_an_embedding_for(tmp_path, embeddings, expected):
    tokenizer = loaded(tmp_path, "llama", "[SEP]")
    tokenizer.add_tokens(["<pad>"])
    assert part_padding(Encoder(tokenizer, "{text} [SEP]", 8, embeddings))
    assert tokenizer.pad_token == expected


def test_a_folder_without_a_tokenizer_is_named(tmp_path):
    with pytest.raises(BaseModelError, match=str(tmp_path)):
        load_tokenizer(tmp_path)
