"""A packed batch gives the numbers of plain transformers, text by text: forward and backward, for each model type."""

import pytest
import tiny_models
import torch
from pretended_gpu import reference_varlen
from torch.testing import assert_close
from transformers import AutoModelForSequenceClassification

from winnow_classifier import attention
from winnow_classifier.architectures import ARCHITECTURES
from winnow_classifier.attention import bucketed, varlen
from winnow_classifier.labels import LabelSchema, TaskDetail
from winnow_classifier.model import Classifier, classifier_config, load_network
from winnow_classifier.packing import pack

SCHEMA = LabelSchema(TaskDetail.MULTICLASS, ("a", "b", "c"))
LENGTHS = (3, 17, 9, 9, 1, 30, 16, 2)
VOCABULARY = len(tiny_models.WORDS) + 4
PAD = 0


def sequences():
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(4, VOCABULARY, (length,), generator=generator).tolist() for length in LENGTHS]


@pytest.fixture(scope="module", params=sorted(ARCHITECTURES))
def pair(request, tmp_path_factory):
    """The same weights as our classifier and in plain transformers, eager attention, dropout off."""
    folder = tmp_path_factory.mktemp(request.param)
    config = tiny_models.config(request.param)
    config.num_labels = 3
    torch.manual_seed(3)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    tiny_models.tokenizer(request.param).save_pretrained(folder)
    packed = Classifier(load_network(folder, classifier_config(folder, SCHEMA, PAD))).eval()
    plain = AutoModelForSequenceClassification.from_pretrained(folder, attn_implementation="eager").eval()
    return packed, plain


def one_by_one(plain, texts):
    return torch.cat([plain(input_ids=torch.tensor([ids])).logits for ids in texts])


def padded(plain, texts, side):
    longest = max(map(len, texts))
    gaps = [[PAD] * (longest - len(ids)) for ids in texts]
    rows = [ids + gap if side == "right" else gap + ids for ids, gap in zip(texts, gaps, strict=True)]
    mask = (torch.tensor(rows) != PAD).long()
    counted = (mask.cumsum(1) - 1).clamp(min=0)
    own_count = plain.config.model_type in (
        "roberta",
        "xlm-roberta",
        "camembert",
    )  # it counts from its padding token, and does so itself
    return plain(torch.tensor(rows), attention_mask=mask, position_ids=None if own_count else counted).logits


def gradients(classifier, logits):
    weights = torch.linspace(-1, 1, logits.numel()).view_as(logits)
    (logits * weights).sum().backward()
    found = {name: parameter.grad for name, parameter in classifier.named_parameters() if parameter.grad is not None}
    classifier.zero_grad()
    return found


def expect_the_same(found, expected):
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        assert_close(found[name], gradient, rtol=1e-4, atol=1e-6, msg=lambda text, name=name: f"{name}: {text}")


def test_packed_texts_get_the_logits_of_each_text_alone(pair):
    packed, plain = pair
    with torch.no_grad():
        logits = packed(pack(sequences(), packed.position_start))
        assert_close(logits, one_by_one(plain, sequences()), rtol=1e-5, atol=1e-6)


def test_packed_texts_get_the_logits_of_a_padded_batch(pair):
    packed, plain = pair
    # An encoder is read at its first token, which stands behind the padding where that is on the left.
    sides = ["right"] if packed.architecture.pooling == "cls" else ["right", "left"]
    with torch.no_grad():
        logits = packed(pack(sequences(), packed.position_start))
        for side in sides:
            assert_close(logits, padded(plain, sequences(), side), rtol=1e-5, atol=1e-6)


def test_packed_texts_give_the_gradients_of_each_text_alone(pair):
    packed, plain = pair
    ours = gradients(packed.base, packed(pack(sequences(), packed.position_start)))
    expect_the_same(ours, gradients(plain, one_by_one(plain, sequences())))


@pytest.mark.parametrize(
    ("pair", "side"), [("bert", "right"), ("llama", "right"), ("llama", "left")], indirect=["pair"]
)
def test_packed_texts_give_the_gradients_of_a_padded_batch(pair, side):
    packed, plain = pair
    ours = gradients(packed.base, packed(pack(sequences(), packed.position_start)))
    expect_the_same(ours, gradients(plain, padded(plain, sequences(), side)))


def test_a_text_is_not_touched_by_its_neighbours(pair):
    packed, _ = pair
    text, others = sequences()[1], sequences()[2:5]
    with torch.no_grad():
        alone = packed(pack([text], packed.position_start))
        among = packed(pack([*others, text, *others], packed.position_start))[3:4]
    assert_close(among, alone, rtol=1e-5, atol=1e-6)


def test_dropout_works_in_a_packed_batch(pair):
    packed, _ = pair
    packed.train()
    try:
        logits = packed(pack(sequences(), packed.position_start))
        assert torch.isfinite(logits).all()
        logits.sum().backward()
    finally:
        packed.zero_grad()
        packed.eval()


@pytest.mark.parametrize("causal", [True, False], ids=["causal", "bidirectional"])
@pytest.mark.parametrize("window", [None, 4], ids=["whole", "window"])
@pytest.mark.parametrize("key_heads", [4, 2], ids=["all heads", "grouped heads"])
def test_the_flash_call_means_the_same_as_bucketed_attention(monkeypatch, causal, window, key_heads):
    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", reference_varlen)
    batch = pack(sequences())
    tokens = len(batch.input_ids)
    q, k, v = torch.randn(tokens, 4, 8), torch.randn(tokens, key_heads, 8), torch.randn(tokens, key_heads, 8)
    expected = bucketed(q, k, v, batch, 0.3, 0.0, causal, window)
    assert_close(varlen(q, k, v, batch, 0.3, causal, window), expected, rtol=1e-4, atol=1e-5)


def test_the_flash_call_for_first_tokens_means_the_same_as_bucketed_attention(monkeypatch):
    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", reference_varlen)
    batch = pack(sequences())
    tokens = len(batch.input_ids)
    q, k, v = torch.randn(len(LENGTHS), 4, 8), torch.randn(tokens, 4, 8), torch.randn(tokens, 4, 8)
    expected = attention.one_query_attention(q, k, v, batch, 0.3, 0.0)
    assert_close(attention.one_query_varlen(q, k, v, batch, 0.3), expected, rtol=1e-4, atol=1e-5)


def test_only_half_precision_without_dropout_on_cuda_takes_the_flash_kernels():
    half = torch.empty(1, 1, 1, dtype=torch.bfloat16, device="meta")
    assert not attention.can_use_varlen(half, 0.0)


def test_a_model_called_without_a_pack_says_how_to_run_it(pair):
    packed, _ = pair
    with pytest.raises(ValueError, match="use Classifier"):
        packed.base(input_ids=torch.tensor([[5, 6]]))
