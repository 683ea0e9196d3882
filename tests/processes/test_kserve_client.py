"""KServe's own client, unchanged, against the server: both protocols, tensors in JSON and as bytes."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import tiny_server

PYTHON = Path(__file__).resolve().parents[2] / ".local" / "kserve" / "venv" / "bin" / "python"  # make .local/kserve
TEXTS = ["win free money now", "meeting", "see you at the team lunch on monday"]

CLIENT = """
import asyncio, json, sys
import numpy as np
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig

URL, TEXTS = sys.argv[1], json.loads(sys.argv[2])

async def main():
    one = InferenceRESTClient(RESTConfig(protocol="v1"))
    first = await one.infer(URL, {"instances": TEXTS}, model_name="spam-detector")
    two = InferenceRESTClient(RESTConfig(protocol="v2"))
    tensors = {}
    for binary in (False, True):
        tensor = InferInput("input-0", [len(TEXTS)], "BYTES")
        tensor.set_data_from_numpy(np.array(TEXTS, dtype=object), binary_data=binary)
        request = InferRequest(model_name="spam-detector", infer_inputs=[tensor])
        answer = await two.infer(URL, request, model_name="spam-detector")
        tensors[str(binary)] = {one.name: [value.decode() if isinstance(value, bytes) else value
                                           for value in one.as_numpy().tolist()] for one in answer.outputs}
    refusal = ""
    try:
        await one.infer(URL, {"instances": [""]}, model_name="spam-detector")
    except Exception as err:
        refusal = f"{type(err).__name__}: {err}"
    print(json.dumps({
        "v1": first, "v2": tensors, "refusal": refusal,
        "live": [await one.is_server_live(URL), await two.is_server_live(URL)],
        "ready": [await client.is_model_ready(URL, "spam-detector") for client in (one, two)],
        "server ready": await two.is_server_ready(URL),
    }))

asyncio.run(main())
"""


def test_kserves_client(tmp_path: Path) -> None:
    with tiny_server.running(tiny_server.publish(tmp_path)) as server:
        expected = server.classify(TEXTS)["data"]
        command = [str(PYTHON), "-c", CLIENT, server.url, json.dumps(TEXTS)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    for prediction, wanted in zip(found["v1"]["predictions"], expected, strict=True):
        assert prediction["predicted_labels"] == wanted["predicted_labels"]
        assert list(prediction["scores"].values()) == pytest.approx(wanted["probs"], abs=1e-5)
    for tensors in found["v2"].values():
        for row, wanted in zip(tensors["probabilities"], expected, strict=True):
            assert row == pytest.approx(wanted["probs"], abs=1e-5)
        assert tensors["label"] == [wanted["label"] for wanted in expected]
    assert "422" in found["refusal"]
    assert found["live"] == found["ready"] == [True, True]
    assert found["server ready"] is True
