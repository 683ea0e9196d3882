"""A peer of benchmarks/serving.py: onnxruntime alone behind FastAPI, a text a call, as exported models are often served.

MODEL names a folder with model.onnx and tokenizer.json. No transformers, no torch.
"""

import os
from pathlib import Path

import numpy as np
import onnxruntime  # type: ignore[import-not-found]  # in an environment of its own
from fastapi import FastAPI
from pydantic import BaseModel
from tokenizers import Tokenizer

FOLDER = Path(os.environ["MODEL"])
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = len(os.sched_getaffinity(0))
session = onnxruntime.InferenceSession(str(FOLDER / "model.onnx"), options, providers=["CPUExecutionProvider"])
tokenizer = Tokenizer.from_file(str(FOLDER / "tokenizer.json"))
tokenizer.enable_truncation(128)
tokenizer.no_padding()
app = FastAPI()


class Request(BaseModel):
    input: str


@app.post("/classify")
def classify(request: Request) -> dict[str, list[float]]:
    encoded = tokenizer.encode(request.input)
    feeds = {
        "input_ids": np.array([encoded.ids], dtype=np.int64),
        "attention_mask": np.array([encoded.attention_mask], dtype=np.int64),
    }
    (logits,) = session.run(["logits"], feeds)
    shares = np.exp(logits[0] - logits[0].max())
    return {"scores": (shares / shares.sum()).tolist()}


@app.get("/health")
def health() -> dict[str, bool]:
    return {"ok": True}
