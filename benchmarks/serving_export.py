"""model.onnx of a folder in transformers' form, for benchmarks/serving_peer_onnx.py. Runs in infinity's environment, which has onnx.

python benchmarks/serving_export.py FOLDER
"""

import sys
from pathlib import Path

import torch
from transformers import AutoModelForSequenceClassification

folder = Path(sys.argv[1])
network = AutoModelForSequenceClassification.from_pretrained(folder, attn_implementation="eager").eval()
ids = torch.ones(2, 8, dtype=torch.int64)
axes = {0: "texts", 1: "tokens"}
torch.onnx.export(
    network,
    (ids, torch.ones_like(ids)),
    str(folder / "model.onnx"),
    input_names=["input_ids", "attention_mask"],
    output_names=["logits"],
    dynamic_axes={"input_ids": axes, "attention_mask": axes},
    dynamo=False,
    opset_version=17,
)
