"""The peer of benchmarks/serving.py: what people write first, a FastAPI app around transformers' text-classification pipeline.

MODEL names the folder. /classify is a plain function, which FastAPI runs on its thread pool; /classify-async calls the pipeline on the event loop, one text after the other.
"""

import os
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel
from transformers import pipeline

classifier = pipeline("text-classification", model=os.environ["MODEL"], top_k=None, truncation=True, max_length=128)
app = FastAPI()


class Request(BaseModel):
    input: str


@app.post("/classify")
def classify(request: Request) -> dict[str, Any]:
    return {"scores": classifier([request.input])[0]}


@app.post("/classify-async")
async def classify_async(request: Request) -> dict[str, Any]:
    return {"scores": classifier([request.input])[0]}


@app.get("/health")
def health() -> dict[str, bool]:
    return {"ok": True}
