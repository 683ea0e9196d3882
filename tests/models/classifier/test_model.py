"""Heads, LoRA and what is refused."""

import json
import re

import pytest
import tiny_models
import torch
from safetensors.torch import load_file, save_file

from winnow_classifier.architectures import longest_text
from winnow_classifier.errors import BaseModelError, ConfigError
from winnow_classifier.labels import LabelSchema, TaskDetail
from winnow_classifier.model import (
    Classifier,
    Lora,
    add_lora,
    classifier_config,
    freeze_body,
    load_network,
    read_config,
)
from winnow_classifier.packing import pack
from winnow_classifier.tokens import load_tokenizer

SCHEMA = LabelSchema(TaskDetail.MULTILABEL, ("red", "green", "blue"))
PAD = 0


def classifier(folder, model_type="bert"):
    tiny_models.base_model(folder, model_type)
    return Classifier(load_network(folder, classifier_config(folder, SCHEMA, PAD)))


def test_labels_stand_in_the_config_where_the_ecosystem_reads_them(tmp_path):
    config = classifier(tmp_path, "llama").base.config
    assert (config.num_labels, config.problem_type, config.pad_token_id) == (3, "multi_label_classification", PAD)
    assert config.id2label == {0: "red", 1: "green", 2: "blue"}


@pytest.mark.parametrize("model_type", ["gemma3", "qwen3_5"])
def test_labels_stand_in_the_part_of_the_config_that_is_of_texts_too(tmp_path, model_type):
    text = classifier(tmp_path, model_type).base.config.text_config
    assert (text.num_labels, text.pad_token_id) == (3, PAD)


@pytest.mark.parametrize(
    ("model_type", "expected"),
    [
        pytest.param("bert", {"bert.pooler.dense", "classifier"}, id="pooler and classifier"),
        pytest.param("roberta", {"classifier.dense", "classifier.out_proj"}, id="both layers of RoBERTa's"),
        pytest.param("llama", {"score"}, id="one layer"),
    ],
)
def test_only_the_head_trains_with_a_frozen_body(tmp_path, model_type, expected):
    model = classifier(tmp_path, model_type)
    freeze_body(model)
    trained = {name.rpartition(".")[0] for name, value in model.base.named_parameters() if value.requires_grad}
    assert trained == expected


def test_logits_are_float32_from_a_half_precision_body(tmp_path):
    model = classifier(tmp_path, "llama")
    model.body.to(torch.bfloat16)
    assert model(pack([[5, 6, 7]])).dtype == torch.float32


@pytest.mark.parametrize("model_type", ["bert", "llama", "gpt2"])
def test_lora_stands_beside_every_linear_layer_of_the_body_and_none_of_the_head(tmp_path, model_type):
    model = add_lora(classifier(tmp_path, model_type), Lora(4, 8, 0.0, ["all-linear"]))
    adapted = {name.partition(".lora_A")[0] for name, _ in model.base.named_parameters() if "lora_A" in name}
    per_layer = {"bert": 6, "llama": 7, "gpt2": 4}[model_type]
    assert len(adapted) == per_layer * tiny_models.SIZES["num_hidden_layers"]
    assert not any("pooler" in name or "score" in name or "classifier" in name for name in adapted)
    trained = {name for name, parameter in model.base.named_parameters() if parameter.requires_grad}
    assert {name.partition(".")[0] for name in trained - {n for n in trained if "lora_" in n}} == {
        name.partition(".")[0] for name in model.architecture.head
    }


@pytest.mark.parametrize("model_type", ["gemma3", "qwen3_5"])
@pytest.mark.parametrize("targets", [["all-linear"], ["q_proj", "down_proj"]])
def test_lora_leaves_out_the_layers_that_only_pictures_pass_through(tmp_path, model_type, targets):
    model = add_lora(classifier(tmp_path, model_type), Lora(4, 8, 0.0, targets))
    adapted = {name for name, _ in model.base.named_parameters() if "lora_A" in name}
    assert {name.split(".")[1] for name in adapted} == {"language_model"}


def test_lora_leaves_experts_as_they_are(tmp_path):
    model = add_lora(classifier(tmp_path, "qwen3_next"), Lora(4, 8, 0.05, ["all-linear"]))
    adapted = {
        name.partition(".lora_A")[0].split(".")[4] for name, _ in model.base.named_parameters() if "lora_A" in name
    }
    assert adapted == {
        "q_proj",
        "k_proj",
        "v_proj",
        "o_proj",
        "in_proj_qkvz",
        "in_proj_ba",
        "out_proj",
        "shared_expert_gate",
    }


def test_lora_leaves_routers_of_experts_as_they_are(tmp_path):
    model = add_lora(classifier(tmp_path, "phimoe"), Lora(4, 8, 0.05, ["all-linear"]))
    assert torch.isfinite(model(pack([[5, 6, 7]]))).all()


def test_the_end_of_a_lora_target_is_that_of_no_module_that_is_not_linear(tmp_path):
    # Its layers are 0 and 1 of a list, as the linear layers of a block are 0 and 2 of theirs.
    model = add_lora(classifier(tmp_path, "ctrl"), Lora(4, 8, 0.05, ["all-linear"]))
    assert sum("lora_A" in name for name, _ in model.base.named_parameters()) == 12


@pytest.mark.parametrize("target", ["down_proj", "shared_expert.gate_proj"])
def test_a_lora_target_that_would_mean_experts_is_answered_with_those_there_are(tmp_path, target):
    with pytest.raises(ConfigError, match=f"qwen3_next, {target} would mean its experts.* adapts: in_proj_ba"):
        add_lora(classifier(tmp_path, "qwen3_next"), Lora(4, 8, 0.0, [target]))


def test_an_unknown_lora_target_is_answered_with_those_there_are(tmp_path):
    with pytest.raises(ConfigError, match=r"loraTargetModules: q_proj not found.*key, output\.dense, query, value"):
        add_lora(classifier(tmp_path), Lora(4, 8, 0.0, ["query", "q_proj"]))


@pytest.mark.parametrize(
    ("end", "count"),
    [
        pytest.param("attention.self.query", 2, id="a longer end"),
        pytest.param("layer.1.attention.self.query", 1, id="of one layer"),
        pytest.param("bert.encoder.layer.1.output.dense", 1, id="a whole name"),
        pytest.param("dense", None, id="the head has it too"),
        pytest.param("ense", None, id="not at a dot"),
    ],
)
def test_a_lora_target_is_any_end_of_the_name_of_a_layer_of_the_body_alone(tmp_path, end, count):
    if count is None:
        with pytest.raises(ConfigError, match=f"loraTargetModules: {end} not found"):
            add_lora(classifier(tmp_path), Lora(4, 8, 0.0, [end]))
        return
    model = add_lora(classifier(tmp_path), Lora(4, 8, 0.0, [end]))
    assert sum("lora_A" in name for name, _ in model.base.named_parameters()) == count


def test_a_body_without_linear_layers_gets_no_lora(tmp_path):
    model = classifier(tmp_path, "llama")
    for name, module in list(model.body.named_modules()):
        if isinstance(module, torch.nn.Linear):
            model.body.set_submodule(name, torch.nn.Identity())
    with pytest.raises(ConfigError, match=r"no linear layer below its head .*; use method Full or HeadOnly"):
        add_lora(model, Lora(4, 8, 0.0, ["all-linear"]))


def test_a_model_type_without_a_classifier_is_refused_with_those_there_are(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "mamba"}))
    with pytest.raises(
        BaseModelError, match=r"'mamba' are not supported: .* run without padding: arcee, bert, camembert, gemma"
    ):
        classifier_config(tmp_path, SCHEMA, PAD)


def test_a_model_type_that_transformers_does_not_know_is_refused_likewise(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "made-up"}))
    with pytest.raises(BaseModelError, match="'made-up' are not supported"):
        read_config(tmp_path)


@pytest.mark.parametrize(
    ("of", "read", "what"),
    [("AutoConfig", read_config, "config.json"), ("AutoTokenizer", load_tokenizer, "The tokenizer in")],
)
def test_code_that_comes_with_a_model_is_never_run_whatever_is_answered(tmp_path, monkeypatch, of, read, what):
    monkeypatch.setattr("builtins.input", lambda question: "y")  # what transformers asks on a terminal
    folder = tiny_models.with_own_code(tmp_path, of)
    with pytest.raises(BaseModelError, match=f"{what}.* needs Python code .* never run"):
        read(folder)
    assert not (folder / "ran").exists()


@pytest.mark.parametrize(
    ("model_type", "change", "told"),
    [
        pytest.param(
            "bert",
            lambda config: config | {"num_hidden_layers": config["num_hidden_layers"] + 1},
            r"16 of the body's .* bert\.encoder\.layer\.\d\.attention.*\(missing\)",
            id="a layer more",
        ),
        pytest.param(
            "llama",
            lambda config: config | {"vocab_size": 2 * config["vocab_size"]},
            r"1 of the body's .* model\.embed_tokens\.weight \(\[\d+, \d+\] instead of \[\d+, \d+\]\)",
            id="twice the tokens",
        ),
        pytest.param(
            "gemma3",
            lambda config: config["text_config"] | {"model_type": "gemma3_text"},
            r"of the body's tensors would start at random",
            id="a part of the config",
        ),
    ],
)
def test_weights_of_another_model_than_the_config_are_refused(tmp_path, model_type, change, told):
    tiny_models.base_model(tmp_path, model_type)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(BaseModelError, match=told):
        load_network(tmp_path, classifier_config(tmp_path, SCHEMA, PAD))


def with_tensors(folder, model_type, names, **config):
    """A base model whose file holds further tensors of these names, as published ones do."""
    tiny_models.base_model(folder, model_type)
    path = folder / "model.safetensors"
    save_file(load_file(path) | {name: torch.ones(2) for name in names}, path, {"format": "pt"})
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | config))
    return folder


@pytest.mark.parametrize(
    ("model_type", "name"),
    [
        pytest.param("bert", "encoder.layer.1.attention.self.distance_embedding.weight", id="relative positions"),
        pytest.param("llama", "layers.0.self_attn.q_proj.bias", id="a bias that the config does not tell of"),
        pytest.param("llama", "model.layers.0.self_attn.q_proj.bias", id="the same with a prefix"),
        pytest.param("llama", "model.layers.0.mlp.up_proj.weight_scale", id="quantised"),
    ],
)
def test_weights_of_the_body_that_would_be_left_out_are_refused(tmp_path, model_type, name):
    with_tensors(tmp_path, model_type, [name])
    with pytest.raises(BaseModelError, match=rf"no place for 1 of the body's tensors, the first {re.escape(name)}"):
        load_network(tmp_path, classifier_config(tmp_path, SCHEMA, PAD))


@pytest.mark.parametrize(
    ("model_type", "names", "config"),
    [
        pytest.param("bert", ["cls.predictions.transform.dense.weight", "cls.seq_relationship.bias"], {}, id="a head"),
        pytest.param("bert", ["encoder.layer.1.output.dense.new"], {"num_hidden_layers": 1}, id="layers left out"),
        pytest.param("roberta", ["roberta.embeddings.position_ids", "roberta.pooler.dense.weight"], {}, id="a pooler"),
        pytest.param("llama", ["model.layers.0.self_attn.rotary_emb.inv_freq", "lm_head.weight"], {}, id="frequencies"),
        pytest.param(
            "gpt_neo", ["h.0.attn.attention.bias", "transformer.h.0.attn.attention.masked_bias"], {}, id="masks"
        ),
    ],
)
def test_what_published_models_hold_beside_their_body_is_left_out(tmp_path, model_type, names, config):
    with_tensors(tmp_path, model_type, names, **config)
    load_network(tmp_path, classifier_config(tmp_path, SCHEMA, PAD))


def test_weights_that_fit_a_models_own_code_only_say_so(tmp_path):
    auto_map = {"AutoModel": "owner/own-bert--modeling_bert.OwnBertModel"}
    with_tensors(tmp_path, "bert", ["encoder.layer.0.mlp.wo.weight"], auto_map=auto_map, num_hidden_layers=3)
    with pytest.raises(BaseModelError, match="would start at random") as refused:
        load_network(tmp_path, classifier_config(tmp_path, SCHEMA, PAD))
    assert "Python code that came with the model (auto_map)" in refused.value.hint


def test_a_base_that_is_a_classifier_of_other_labels_gets_a_new_head(tmp_path):
    classifier(tmp_path / "base").base.save_pretrained(tmp_path / "other")
    two = LabelSchema(TaskDetail.BINARY, ("no", "yes"))
    model = Classifier(load_network(tmp_path / "other", classifier_config(tmp_path / "other", two, PAD)))
    assert model(pack([[5, 6]])).shape == (1, 2)


def test_roberta_has_positions_for_fewer_tokens_than_its_table():
    assert longest_text(tiny_models.config("roberta")) == 63
    assert longest_text(tiny_models.config("bert")) == 64


def test_the_positions_of_a_model_that_reads_pictures_too_are_those_for_its_text():
    assert longest_text(tiny_models.config("gemma3")) == 64
