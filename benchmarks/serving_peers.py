"""The peers of benchmarks/serving.py that need an environment of their own, in .local/benchmarks: made once, a few GB.

    python benchmarks/serving_peers.py

infinity-emb asks for numpy 1 and an older transformers; onnxruntime is no part of Winnow.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / ".local" / "benchmarks"
UV = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"), "winnow", "uv", "bin", "uv")

# transformers 4.48 is the last that infinity's classifier runs with; the others are what that and numpy 1 allow.
INFINITY = (
    "infinity-emb[server,torch,optimum]==0.0.76",
    "transformers<4.49",
    "optimum<1.24",
    "click<8.2",
    "pyarrow<21",
    "datasets<4",
)
ONNX = ("onnxruntime==1.32.0", "tokenizers", "fastapi", "uvicorn[standard]", "numpy")
ENVIRONMENTS = {"infinity": INFINITY, "onnx": ONNX}


def python_of(name: str) -> Path:
    return FOLDER / name / "bin" / "python"


def made(name: str) -> bool:
    return (FOLDER / name / "made").exists()


def make(name: str) -> None:
    subprocess.run([str(UV), "venv", "-q", "--clear", "--python", sys.executable, str(FOLDER / name)], check=True)
    command = [str(UV), "pip", "install", "-q", "--python", str(python_of(name))]
    subprocess.run([*command, *ENVIRONMENTS[name]], check=True)
    (FOLDER / name / "made").touch()


if __name__ == "__main__":
    for wanted in ENVIRONMENTS:
        if not made(wanted):
            print(f"== {wanted}", file=sys.stderr)
            make(wanted)
