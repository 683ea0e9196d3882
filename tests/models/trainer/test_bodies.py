"""Models that cannot be packed, and where a text is read: trained and served with the numbers of plain transformers."""

import json
from typing import Any

import pytest
import tiny_models
import torch
from tiny_learner import learner
from tiny_training import Trainer
from torch.testing import assert_close
from transformers import AutoModelForSequenceClassification, NystromformerConfig, XmodConfig

from winnow_classifier.architectures import longest_text
from winnow_classifier.errors import BaseModelError, ConfigError
from winnow_classifier.labels import LabelSchema, TaskDetail
from winnow_classifier.model import Classifier, classifier_config, load_network
from winnow_classifier.packing import pack
from winnow_classifier.padded import check_company

SCHEMA = LabelSchema(TaskDetail.MULTICLASS, ("a", "b", "c"))
TEXTS = [[2, 5, 3], [2, *range(4, 30), 3], [2, 9, 8, 3], [2, 3], [2, *range(6, 20), 3]]


def classifier(folder, model_type, pooling=None, **changes):
    base = tiny_models.base_model(folder / model_type, model_type, **changes)
    torch.manual_seed(2)
    return Classifier(load_network(base, classifier_config(base, SCHEMA, 0, pooling)), pooling).eval()


def gradients(network, logits):
    (logits * torch.linspace(-1, 1, logits.numel()).view_as(logits)).sum().backward()
    found = {name: weight.grad for name, weight in network.named_parameters() if weight.grad is not None}
    network.zero_grad()
    return found


PADDED = (
    "albert",
    "big_bird",
    "bloom",
    "deberta-v2",
    "distilbert",
    "electra",
    "falcon",
    "gemma3",
    "gpt2",
    "gpt_neo",
    "gpt_neox",
    "mpnet",
    "opt",
    "qwen3_5",
)


@pytest.mark.parametrize("model_type", PADDED)
def test_a_type_that_does_not_pack_gives_the_logits_and_gradients_of_each_text_alone(tmp_path, model_type):
    model = classifier(tmp_path, model_type)
    plain = AutoModelForSequenceClassification.from_config(model.base.config, attn_implementation="eager").eval()
    plain.load_state_dict(model.base.state_dict())
    alone = torch.cat([plain(torch.tensor([text])).logits for text in TEXTS])
    ours = model(pack(TEXTS))
    assert not model.architecture.packs
    assert_close(ours, alone, rtol=1e-5, atol=1e-6)
    expected, found = gradients(plain, alone), gradients(model.base, ours)
    for name, gradient in expected.items():
        assert_close(found[name], gradient, rtol=1e-4, atol=1e-6, msg=lambda text, name=name: f"{name}: {text}")


def test_what_no_text_passes_through_is_not_trained(tmp_path):
    learning = learner(tmp_path, "Full", "gemma3").trainable
    assert {name.split(".")[2] for name in learning if ".model." in name} == {"language_model"}


def test_a_model_that_sees_its_padding_is_refused(tmp_path):
    model = classifier(tmp_path, "deberta-v2")
    forward = model.base.forward
    model.base.forward = lambda input_ids, attention_mask: forward(input_ids=input_ids)
    with pytest.raises(BaseModelError, match="other logits in a padded batch than alone"):
        check_company(model.base, 34, 0)


SMALL: dict[str, Any] = {
    "vocab_size": 34,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
}


@pytest.mark.parametrize(
    ("config", "why"),
    [
        pytest.param(
            XmodConfig(**SMALL), "XmodForSequenceClassification cannot read a text alone: .*language", id="X-MOD"
        ),
        pytest.param(
            NystromformerConfig(**SMALL, num_landmarks=8, segment_means_seq_len=64),
            "NystromformerForSequenceClassification cannot read a text alone: shape",
            id="lengths of whole segments",
        ),
    ],
)
def test_a_model_that_wants_more_than_a_text_is_refused(config, why):
    model = AutoModelForSequenceClassification.from_config(config)
    with pytest.raises(BaseModelError, match=why):
        check_company(model, 34, 1)


def test_an_encoder_decoder_is_refused_with_what_to_take(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "t5"}))
    with pytest.raises(BaseModelError, match="have an encoder and a decoder"):
        classifier_config(tmp_path, SCHEMA, 0)


def test_weights_that_are_quantised_already_are_refused(tmp_path):
    config = tiny_models.config("llama").to_dict() | {"quantization_config": {"quant_method": "gptq", "bits": 4}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(BaseModelError, match="quantised already"):
        classifier_config(tmp_path, SCHEMA, 0)


def test_types_that_count_from_their_padding_have_fewer_places():
    config = tiny_models.config("bert")
    config.model_type = "mpnet"
    config.pad_token_id = 1
    assert longest_text(config) == 62


@pytest.mark.parametrize("pooling", ["cls", "last", "mean"])
@pytest.mark.parametrize("model_type", ["bert", "roberta", "modernbert", "llama"])
def test_each_pooling_reads_the_states_of_each_text_alone(tmp_path, model_type, pooling):
    model = classifier(tmp_path, model_type, pooling)
    batch = pack(TEXTS, model.position_start)
    plain = type(model.body).from_pretrained(tmp_path / model_type, attn_implementation="eager").eval()
    states = [plain(torch.tensor([text])).last_hidden_state[0] for text in TEXTS]
    read = {"cls": lambda s: s[0], "last": lambda s: s[-1], "mean": lambda s: s.mean(dim=0)}[pooling]
    expected = torch.stack([read(state) for state in states])
    found = model.features(batch)
    assert_close(found, expected, rtol=1e-4, atol=1e-5)
    ours, theirs = gradients(model.body, found), gradients(plain, expected)
    for name in theirs:
        if name in ours:
            assert_close(ours[name], theirs[name], rtol=1e-3, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize(
    ("model_type", "parameters", "words"),
    [
        pytest.param("llama", {"pooling": "CLS"}, "first token of a decoder sees no other", id="CLS of a decoder"),
        pytest.param("deberta-v2", {"pooling": "Mean"}, "pooled by its own head; use Auto", id="its own head"),
        pytest.param("deberta-v2", {"headInit": "Ridge"}, "headInit is Ridge, and a model of type", id="no features"),
        pytest.param("mpnet", {"gradientCheckpointing": True}, "mpnet keeps all states", id="states of its layers"),
        pytest.param("bert", {"optim": "adamw_8bit"}, "runs on a GPU only", id="8 bits without a GPU"),
    ],
)
def test_what_a_model_or_machine_cannot_do_is_refused(tmp_path, model_type, parameters, words):
    trainer = Trainer(tmp_path, model_type)
    with pytest.raises(ConfigError, match=words):
        trainer.run(trainer.job("Full", **parameters))
