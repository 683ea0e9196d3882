import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from winnow_classifier.attention import dot_product_attention
from winnow_classifier.cpu import multiplies_bfloat16
from winnow_classifier.dropout import Dropout, dropout, replace_dropout


@given(
    p=st.floats(0.0, 0.99),
    shape=st.lists(st.integers(1, 40), min_size=1, max_size=3),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
)
def test_each_element_is_dropped_or_scaled_so_that_the_mean_stays(p, shape, dtype):
    states = torch.ones(shape, dtype=dtype, requires_grad=True)
    out = dropout(states, p)
    out.sum().backward()
    kept = out != 0
    assert out.shape == states.shape and out.dtype == dtype
    torch.testing.assert_close(out[kept].float(), torch.full_like(out[kept].float(), 1 / (1 - p)), rtol=1e-2, atol=1e-3)
    assert states.grad is not None
    assert torch.equal(states.grad, out.detach()), "the gradient passes where the state passed, and nowhere else"


@pytest.mark.parametrize("p", [0.0, 0.05, 0.1, 0.5, 0.9])
def test_the_share_of_dropped_elements_is_p(p):
    torch.manual_seed(0)
    dropped = float((dropout(torch.ones(1_000_000), p) == 0).float().mean())
    assert dropped == pytest.approx(p, abs=4 * (max(p * (1 - p), 1e-12) / 1_000_000) ** 0.5 + 1 / 65_536)


def test_neighbours_are_dropped_independently():
    torch.manual_seed(1)
    kept = dropout(torch.ones(400_000), 0.5).view(-1, 4) != 0
    patterns = torch.bincount((kept * torch.tensor([1, 2, 4, 8])).sum(dim=1), minlength=16)
    chi_square = float(((patterns - 6_250) ** 2 / 6_250).sum())
    assert chi_square < 37.7  # 15 degrees of freedom, one chance in a thousand


def test_the_same_seed_gives_the_same_drops():
    torch.manual_seed(5)
    first, second = dropout(torch.ones(100), 0.5), dropout(torch.ones(100), 0.5)
    torch.manual_seed(5)
    assert torch.equal(dropout(torch.ones(100), 0.5), first)
    assert not torch.equal(first, second)


def test_a_network_keeps_its_names_and_is_untouched_when_it_is_read():
    network = nn.Sequential(nn.Linear(3, 3), nn.Sequential(nn.Dropout(0.3)), nn.Dropout(1.0))
    before = list(network.state_dict())
    replace_dropout(network)
    assert list(network.state_dict()) == before
    assert [type(module).__name__ for module in network.modules()].count("Dropout") == 2
    assert isinstance(network[2], Dropout) and network[1][0].p == 0.3
    states = torch.randn(4, 3)
    assert torch.equal(network[1:].eval()(states), states)
    assert not network[2].train()(states).any()


@pytest.mark.parametrize("key_heads", [1, 2, 4])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("scale", [None, 0.3])
def test_attention_with_dropout_is_attention_in_the_mean(key_heads, causal, masked, scale):
    if causal and masked:
        pytest.skip("a causal bucket has no mask of its own")
    torch.manual_seed(2)
    query, key, value = torch.randn(2, 4, 5, 8), torch.randn(2, key_heads, 5, 8), torch.randn(2, key_heads, 5, 8)
    mask = None
    if masked:
        mask = torch.ones(2, 1, 1, 5, dtype=torch.bool)
        mask[0, ..., 3:] = False
    exact = dot_product_attention(query, key, value, mask, scale, 0.0, causal)
    barely = dot_product_attention(query, key, value, mask, scale, 1e-6, causal)  # too small a chance to drop any
    torch.testing.assert_close(barely, exact, rtol=1e-5, atol=1e-5)
    many = [None if one is None else one.repeat(2_000, 1, 1, 1) for one in (query, key, value, mask)]
    draws = dot_product_attention(*many, scale, 0.2, causal).view(2_000, *exact.shape)
    torch.testing.assert_close(draws.mean(dim=0), exact, rtol=0, atol=0.1)
    assert float(draws.std(dim=0).max()) > 0.05


@pytest.mark.parametrize(
    ("flags", "native"),
    [
        ("flags\t\t: fpu avx2 avx512f avx512_bf16\n", True),
        ("flags\t\t: fpu amx_bf16 amx_tile\n", True),
        ("flags\t\t: fpu avx2 avx512f\n", False),
        ("Features\t: fp asimd\n", False),
    ],
)
def test_whether_a_cpu_multiplies_bfloat16_is_read_from_its_flags(tmp_path, flags, native):
    (tmp_path / "cpuinfo").write_text("processor\t: 0\n" + flags)
    assert multiplies_bfloat16(tmp_path / "cpuinfo") is native
    assert not multiplies_bfloat16(tmp_path / "missing")
