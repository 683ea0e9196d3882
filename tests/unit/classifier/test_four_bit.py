"""QLoRA's four bits: the rounding that training, evaluation and serving share, and what keeps the head whole."""

from itertools import pairwise

import pytest
import tiny_models
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.testing import assert_close

from winnow_classifier.errors import BaseModelError, ConfigError
from winnow_classifier.four_bit import NF4, check_head, quantisation, round_body, rounded
from winnow_classifier.labels import LabelSchema, TaskDetail
from winnow_classifier.model import Classifier, classifier_config, load_network

SCHEMA = LabelSchema(TaskDetail.BINARY, ("no", "yes"))
# bitsandbytes 0.50.2: dequantize_4bit(*quantize_4bit(WEIGHTS, blocksize=64, quant_type="nf4"))
WEIGHTS = torch.linspace(-0.7, 0.9, 64) ** 3
BITSANDBYTES = """
-0.38277819752693176 -0.2878948152065277 -0.2878948152065277 -0.2073577493429184 -0.2073577493429184
-0.2073577493429184 -0.13469982147216797 -0.13469982147216797 -0.13469982147216797 -0.13469982147216797
-0.06637547165155411 -0.06637547165155411 -0.06637547165155411 -0.06637547165155411 -0.06637547165155411 0.0
0.0 0.0 0.0 0.0 0.0 0.0 0.0 0.0 0.0 0.0 0.0 0.0 0.0 0.0 0.0 0.0 0.0 0.0 0.0 0.0 0.0 0.0 0.0 0.0
0.05801403149962425 0.05801403149962425 0.05801403149962425 0.05801403149962425 0.05801403149962425
0.05801403149962425 0.11731810122728348 0.11731810122728348 0.11731810122728348 0.17941585183143616
0.17941585183143616 0.17941585183143616 0.24634018540382385 0.24634018540382385 0.3212774395942688
0.3212774395942688 0.4101477563381195 0.4101477563381195 0.4101477563381195 0.5270354747772217
0.5270354747772217 0.5270354747772217 0.7289999127388 0.7289999127388
"""


def test_weights_are_rounded_as_bitsandbytes_does():
    expected = torch.tensor([float(value) for value in BITSANDBYTES.split()])
    assert_close(rounded(WEIGHTS), expected, rtol=0, atol=0)


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


@pytest.mark.parametrize("model_type", ["bert", "roberta", "llama", "deberta-v2"])
def test_the_body_is_rounded_and_the_head_is_not(tmp_path, model_type):
    base = tiny_models.base_model(tmp_path, model_type)
    model = Classifier(load_network(base, classifier_config(base, SCHEMA, 0)))
    before = {name: weight.clone() for name, weight in model.base.named_parameters()}
    round_body(model.base, model.architecture.head)
    changed = {name for name, weight in model.base.named_parameters() if not torch.equal(weight, before[name])}
    linear = {f"{name}.weight" for name, layer in model.base.named_modules() if isinstance(layer, nn.Linear)}
    assert changed == {name for name in linear if not name.startswith(model.architecture.head)}


def test_without_bitsandbytes_qlora_is_refused_in_words():
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
