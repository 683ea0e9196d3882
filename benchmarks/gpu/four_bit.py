"""QLoRA's rounding as the server repeats it, against bitsandbytes' own kernels: weights to the bit, and whole models."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification, BertConfig, LlamaConfig, RobertaConfig

from winnow_classifier.four_bit import BLOCK, check_head, round_body, rounded
from winnow_classifier.model import Classifier, load_network
from winnow_classifier.packing import pack

MODELS: dict[str, Any] = {"bert": BertConfig, "roberta": RobertaConfig, "llama": LlamaConfig}
SIZES: dict[str, Any] = {
    "vocab_size": 500,
    "hidden_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 256,
    "max_position_embeddings": 128,
}
BOUND = {"cuda": 5e-2, "cpu": 1e-2}  # the kernels compute in bfloat16, on a CPU in part


def same_weights(device: torch.device) -> bool:
    from bitsandbytes import functional

    generator = torch.Generator().manual_seed(0)
    weights = (torch.randn(96, 128, generator=generator) * 0.05).to(device)
    packed, state = functional.quantize_4bit(weights, blocksize=BLOCK, quant_type="nf4")
    return torch.equal(functional.dequantize_4bit(packed, state), rounded(weights))


def model_off(name: str, device: torch.device) -> float:
    with tempfile.TemporaryDirectory() as folder:
        config = MODELS[name](**SIZES, pad_token_id=0, bos_token_id=2, eos_token_id=3)
        torch.manual_seed(0)
        AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
        dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
        four_bit = Classifier(load_network(Path(folder), config, dtype, four_bit=True)).to(device).eval()
        served = Classifier(load_network(Path(folder), config)).to(device).eval()
    check_head([four_bit.base.get_submodule(name) for name in four_bit.architecture.head])
    for parameter in four_bit.head_parameters():
        parameter.data = parameter.data.float()
    round_body(served.base, served.architecture.head)
    batch = pack([[5, 6, 7], [9] * 40, [8, 11]], served.position_start).to(device)
    with torch.no_grad():
        expected = served(batch)
        return float((four_bit(batch) - expected).abs().max() / expected.abs().max())


def run(device: torch.device, tiny: bool) -> dict[str, Any]:
    same = same_weights(device)
    models = {name: model_off(name, device) for name in MODELS}
    print(f"  weights {'equal to the bit' if same else 'DIFFER'}; logits off by {models}")
    return {"passed": same and max(models.values()) <= BOUND[device.type], "sameWeights": same, "models": models}
