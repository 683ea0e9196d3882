"""QLoRA's four bits: the rounding that training, evaluation and serving share, and what keeps the head whole."""

import sys
from itertools import pairwise

import pytest
import tiny_models
import torch
from bitsandbytes.functional import dequantize_4bit, quantize_4bit
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from transformers.pytorch_utils import Conv1D

from winnow_classifier.errors import BaseModelError, ConfigError
from winnow_classifier.four_bit import BLOCK, NF4, check_head, quantisation, round_body, rounded
from winnow_classifier.labels import LabelSchema, TaskDetail
from winnow_classifier.model import Classifier, classifier_config, load_network

SCHEMA = LabelSchema(TaskDetail.BINARY, ("no", "yes"))


@given(st.integers(0, 2**31), st.sampled_from([(1, 64), (3, 128), (96, 64)]), st.floats(1e-3, 10))
def test_weights_are_rounded_as_bitsandbytes_does(seed, shape, size):
    weights = size * torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    packed, state = quantize_4bit(weights, blocksize=BLOCK, quant_type="nf4")
    assert torch.equal(rounded(weights), dequantize_4bit(packed, state))


@given(st.integers(0, 2**31), st.sampled_from([(1, 1), (3, 64), (5, 50), (64, 2)]))
def test_rounding_keeps_the_largest_of_a_block_and_is_done_once(seed, shape):
    weights = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    once = rounded(weights)
    assert torch.equal(rounded(once), once)
    assert once.shape == weights.shape
    gap = max(after - before for before, after in pairwise(NF4)) / 2
    assert (once - weights).abs().max() <= gap * weights.abs().max() * (1 + 1e-6)
    largest = weights.flatten()[:64].abs().argmax()
    assert once.flatten()[largest] == weights.flatten()[largest]


def test_zeros_stay():
    assert torch.equal(rounded(torch.zeros(3, 70)), torch.zeros(3, 70))


@pytest.mark.parametrize("model_type", ["bert", "roberta", "llama", "deberta-v2", "gpt2"])
def test_the_body_is_rounded_and_the_head_is_not(tmp_path, model_type):
    base = tiny_models.base_model(tmp_path, model_type)
    model = Classifier(load_network(base, classifier_config(base, SCHEMA, 0)))
    before = {name: weight.clone() for name, weight in model.base.named_parameters()}
    round_body(model.base, model.architecture.head)
    changed = {name for name, weight in model.base.named_parameters() if not torch.equal(weight, before[name])}
    linear = {f"{name}.weight" for name, layer in model.base.named_modules() if isinstance(layer, nn.Linear | Conv1D)}
    assert changed == {name for name in linear if not name.startswith(model.architecture.head)}


def test_without_bitsandbytes_qlora_is_refused_in_words(monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(
        ConfigError, match="method QLoRA needs the package bitsandbytes, which is not in this image"
    ) as said:
        quantisation(tiny_models.config("bert"))
    assert "method LoRA" in said.value.hint


def test_a_head_that_was_quantised_is_found_out():
    class Linear4bit(nn.Linear):
        pass

    check_head([nn.Sequential(nn.Linear(2, 2))])
    with pytest.raises(BaseModelError, match="head has a Linear4bit"):
        check_head([nn.Sequential(Linear4bit(2, 2))])
