"""BERT-type layers that compute their own gradients, beside transformers' own layers and beside finite differences."""

import pytest
import tiny_models
import torch
from tiny_learner import ALL, learner
from torch.testing import assert_close

from winnow_classifier.dropout import replace_dropout
from winnow_classifier.encoder import all_token_states, first_token_states
from winnow_classifier.labels import LabelSchema, TaskDetail
from winnow_classifier.model import Classifier, classifier_config, load_network
from winnow_classifier.packing import pack
from winnow_trainer.bert_layers import OwnGradients, can_differentiate

SCHEMA = LabelSchema(TaskDetail.MULTICLASS, ("a", "b", "c"))
SEVERAL = [[2, 5, 3], [2, *range(4, 30), 3], [2, 9, 8, 3], [2, 3], [2, *range(6, 20), 3]]
TEXTS = {
    "of several lengths": SEVERAL,
    "of one length": [[2, 5, 7, 3], [2, 8, 9, 3]],
    "one token each": [[2], [3]],
    "in order of their places": [[2, *range(4, 11)], [2, *range(5, 12)], [2, *range(6, 9)]],
}
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


def trained(folder, model_type="bert", **changes):
    base = tiny_models.base_model(folder / model_type, model_type, **changes)
    torch.manual_seed(2)
    model = Classifier(load_network(base, classifier_config(base, SCHEMA, 0)))
    with torch.no_grad():  # biases and norms start as zeros and ones, which would hide one that is left out
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight) * 0.1)
    replace_dropout(model)
    return model.double().train()


def run(model, texts=SEVERAL, bfloat16=False, read=all_token_states):
    """States and gradients, all of the same draws of dropout."""
    torch.manual_seed(7)
    model.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        states = read(model.body, pack(texts, model.position_start))
    weighed(states).backward()
    return states.detach(), {n: w.grad.clone() for n, w in model.named_parameters() if w.grad is not None}


def weighed(states):
    return (states * torch.linspace(-1, 1, states.numel(), dtype=torch.float64).view_as(states)).sum()


@pytest.mark.parametrize("texts", TEXTS.values(), ids=TEXTS)
@pytest.mark.parametrize("read", [all_token_states, first_token_states])
@pytest.mark.parametrize(
    ("model_type", "activation"), [("bert", "gelu"), ("bert", "gelu_new"), ("roberta", "gelu_pytorch_tanh")]
)
def test_outputs_and_gradients_are_those_of_transformers_layers(tmp_path, model_type, activation, read, texts):
    model = trained(tmp_path, model_type, hidden_act=activation, **NO_DROPOUT)
    names = list(model.state_dict())
    states, gradients = run(model, texts, read=read)
    own = OwnGradients(model)
    own.install()
    assert_close(run(model, texts, read=read), (states, gradients), rtol=1e-9, atol=1e-12)
    assert list(model.state_dict()) == names
    own.restore()
    assert torch.equal(run(model, texts, read=read)[0], states), "the layers are as they were"


def test_gradients_under_dropout_are_the_slopes_of_what_was_computed(tmp_path):
    model = trained(tmp_path, hidden_dropout_prob=0.2, attention_probs_dropout_prob=0.4)
    OwnGradients(model).install()
    _, gradients = run(model)
    for name, weight in model.body.encoder.named_parameters():
        step = torch.randn_like(weight) * 1e-6
        ends = []
        for sign in (1, -1):
            with torch.no_grad():
                weight.add_(sign * step)
            ends.append(weighed(run(model)[0]))
            with torch.no_grad():
                weight.sub_(sign * step)
        slope = (gradients[f"network.bert.encoder.{name}"] * step).sum()
        assert_close(
            (ends[0] - ends[1]) / 2e-6, slope / 1e-6, rtol=1e-4, atol=1e-6, msg=lambda words, n=name: f"{n}: {words}"
        )


def test_attention_and_states_are_dropped_by_rates_of_their_own(tmp_path):
    """A rate that is left out, or taken for another, would leave the draws of the generator as they were."""
    exact = run(trained(tmp_path / "none", **NO_DROPOUT))[0]
    for name in NO_DROPOUT:
        model = trained(tmp_path / name, **{**NO_DROPOUT, name: 0.5})
        OwnGradients(model).install()
        assert not torch.allclose(run(model)[0], exact)
        assert_close(run(model.eval())[0], exact)


def test_in_bfloat16_gradients_are_as_near_as_autograds(tmp_path):
    model = trained(tmp_path, **NO_DROPOUT)
    _, exact = run(model)
    model.float()
    _, by_autograd = run(model, bfloat16=True)
    OwnGradients(model).install()
    states, found = run(model, bfloat16=True)
    assert states.dtype == torch.float32
    assert not torch.equal(states, run(model)[0]), "products were rounded"

    def distance(gradients):
        return float(torch.cat([(gradients[name] - exact[name]).flatten() for name in exact]).norm())

    assert 0 < distance(found) < 1.2 * distance(by_autograd)
    assert {gradient.dtype for gradient in found.values()} == {torch.float32}


def test_layers_that_keep_less_draw_the_same_dropout_again(tmp_path):
    kept, less = (learner(tmp_path, dropout=True, gradient_checkpointing=flag) for flag in (False, True))
    assert kept.layers is not None and less.layers is not None
    for each in (kept, less):
        torch.manual_seed(3)
        each.learn()
        each.step(ALL, 0.1)
        each.read()
    for name, weight in kept.trainable.items():
        assert torch.equal(weight, less.trainable[name]), name


@pytest.mark.parametrize(
    ("options", "takes"),
    [
        ({}, True),
        ({"model_type": "roberta"}, True),
        ({"method": "LoRA"}, False),
        ({"method": "HeadOnly"}, False),
        ({"model_type": "llama"}, False),
        ({"model_type": "modernbert"}, False),
    ],
)
def test_only_whole_bert_types_are_run_so(tmp_path, options, takes):
    assert (learner(tmp_path, **options).layers is not None) is takes


def test_an_activation_without_a_slope_here_is_left_to_autograd(tmp_path):
    assert not can_differentiate(trained(tmp_path, hidden_act="silu"))
