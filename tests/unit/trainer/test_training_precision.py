"""What a training computes in: bfloat16 where the machine multiplies it, float32 elsewhere, never fp16."""

import pytest
import torch

from winnow_trainer import train


@pytest.mark.parametrize(
    ("capability", "expected"),
    [
        pytest.param((7, 5), "no", id="Turing emulates bfloat16"),
        pytest.param((8, 0), "bf16", id="Ampere"),
        pytest.param((9, 0), "bf16", id="Hopper"),
    ],
)
def test_a_gpu_computes_in_bfloat16_where_it_is_not_emulated(monkeypatch, capability, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_, **__: True)  # of emulation too
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: capability)
    monkeypatch.setattr(train, "multiplies_bfloat16", lambda: expected == "no")  # what the CPU can do does not matter
    made = train.make_accelerator()
    assert (made.device.type, made.mixed_precision) == ("cuda", expected)


@pytest.mark.parametrize(("multiplies", "expected"), [(True, "bf16"), (False, "no")])
def test_a_cpu_computes_in_bfloat16_where_it_has_instructions_for_it(monkeypatch, multiplies, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(train, "multiplies_bfloat16", lambda: multiplies)
    made = train.make_accelerator()
    assert (made.device.type, made.mixed_precision) == ("cpu", expected)
