"""LongRoPE: each text is read with the factors of its own length, in whatever company."""

import pytest
import tiny_models
import torch
from torch.testing import assert_close
from transformers import AutoModelForSequenceClassification

from winnow_classifier.labels import LabelSchema, TaskDetail
from winnow_classifier.model import Classifier, classifier_config, load_network
from winnow_classifier.packing import pack

SCHEMA = LabelSchema(TaskDetail.MULTICLASS, ("a", "b", "c"))
TEXTS = [
    [2, *range(4, 4 + length)] for length in (4, 29, 7, 8, 1, 15)
]  # with the first token, eight and nine among them


@pytest.fixture(scope="module", params=["phi3", "llama", pytest.param("phimoe", id="a type that does not pack")])
def pair(request, tmp_path_factory):
    """The same weights as our classifier and in plain transformers."""
    folder = tmp_path_factory.mktemp(request.param)
    base = tiny_models.base_model(folder / "base", request.param, **tiny_models.LONGROPE)
    torch.manual_seed(3)
    ours = Classifier(load_network(base, classifier_config(base, SCHEMA, 0))).eval()
    ours.base.save_pretrained(folder)
    return ours, AutoModelForSequenceClassification.from_pretrained(folder, attn_implementation="eager").eval()


def each_alone(plain):
    return torch.cat([plain(torch.tensor([text])).logits for text in TEXTS])


def gradients(network, logits):
    (logits * torch.linspace(-1, 1, logits.numel()).view_as(logits)).sum().backward()
    found = {name: weight.grad for name, weight in network.named_parameters() if weight.grad is not None}
    network.zero_grad()
    return found


def test_a_text_has_the_logits_and_gradients_of_plain_transformers_run_on_it_alone(pair):
    ours, plain = pair
    logits, alone = ours(pack(TEXTS)), each_alone(plain)
    assert_close(logits, alone, rtol=1e-5, atol=1e-6)
    expected, found = gradients(plain, alone), gradients(ours.base, logits)
    for name, gradient in expected.items():
        assert_close(found[name], gradient, rtol=1e-4, atol=1e-6, msg=lambda text, name=name: f"{name}: {text}")
