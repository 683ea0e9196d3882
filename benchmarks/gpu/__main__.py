"""Everything that needs a GPU to be seen, by one command and with nothing but torch, transformers, peft and accelerate.

    python benchmarks/gpu [--only attention,equality,llama,serving,overhead] [--json FILE] [--tiny]

attention   torch's variable-length flash kernels as packed attention calls them, in bfloat16, against float32 softmax: causal
            and not, grouped heads, sliding windows, head sizes 64, 128 and 256, forward and backward
equality    packed batches against each text alone, in bfloat16, through whole models
llama       Llama-3.1-8B's public shape with random weights, LoRA of rank 16 on all linear layers: tokens a second, peak memory
            and model FLOP utilisation, beside transformers' Trainer with its best attention. Goal: 55 % of the GPU
serving     the same shape answering packed batches of 4,096 tokens, texts of 128 and of 512, beside transformers' classifier.
            Goal: 65 % of the GPU (2 x 6.98e9 FLOP a token)
overhead    the same shape, a text at a time: what a request takes longer than the model alone, over HTTP where winnow_server is
            installed, else by its queue and engine. Goal: 2 ms
four_bit    (where bitsandbytes is installed) the rounding of QLoRA's weights, as the server repeats it, against bitsandbytes

Exit code 1 where a check fails or a goal is missed, which is said. --tiny runs the same programs on small shapes, on a CPU where there is
no GPU: it shows that they work, and measures nothing.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / part) for part in ("benchmarks", "classifier/src", "server-image/src")]

import torch  # noqa: E402
import transformers  # noqa: E402

from bars import verdict  # noqa: E402
from gpu import attention, equality, four_bit, llama, overhead, serving  # noqa: E402

PARTS = {
    "attention": attention.run,
    "equality": equality.run,
    "llama": llama.run,
    "serving": serving.run,
    "overhead": overhead.run,
    "four_bit": four_bit.run,
}
DEFAULT = [part for part in PARTS if part != "four_bit" or importlib.util.find_spec("bitsandbytes")]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(DEFAULT), help="which parts, by comma (default: all)")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args()
    if not torch.cuda.is_available() and not options.tiny:
        parser.error("torch sees no GPU; --tiny runs without one")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    name = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    report: dict[str, Any] = {
        "device": name,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "tiny": options.tiny,
    }
    print(f"{name}, torch {torch.__version__}, transformers {transformers.__version__}")
    missed: list[str] = []
    for part in options.only.split(","):
        report[part] = found = PARTS[part](device, options.tiny)
        print(f"{part}: {'passed' if found['passed'] else 'FAILED'}")
        missed += [f"{part}: {words}" for words in ([] if found["passed"] else found.get("missed", ["a check failed"]))]
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")
    return verdict(missed)


if __name__ == "__main__":
    sys.exit(main())
