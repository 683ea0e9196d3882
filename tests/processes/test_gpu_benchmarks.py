"""The scripts for GPUs run on a CPU in small, with no more than the libraries that they name."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
GIVEN = ["torch", "transformers", "peft", "accelerate", "tokenizers", "safetensors", "numpy", "bitsandbytes"]
# Our own code may import those, the standard library and itself. Libraries may use what else they find.
ONLY_THOSE = f"""
import runpy, sys

class OnlyThose:
    def find_spec(self, name, path=None, target=None):
        frame = sys._getframe(1)
        while "importlib" in frame.f_code.co_filename:
            frame = frame.f_back
        package = name.partition(".")[0]
        known = {{*sys.stdlib_module_names, *{GIVEN}, "gpu", "winnow_classifier"}}
        if frame.f_code.co_filename.startswith({str(ROOT)!r} + "/") and "/.venv/" not in frame.f_code.co_filename and package not in known:
            raise ModuleNotFoundError(f"{{frame.f_code.co_filename}} imports {{name}}")

sys.meta_path.insert(0, OnlyThose())
sys.argv = ["gpu", "--tiny", "--only", "attention,equality,llama,serving,four_bit", "--json", sys.argv[1]]
runpy.run_path({str(ROOT / "benchmarks" / "gpu")!r}, run_name="__main__")
"""


def test_one_command_with_these_libraries_checks_and_measures(tmp_path: Path) -> None:
    found = tmp_path / "report.json"
    done = subprocess.run([sys.executable, "-c", ONLY_THOSE, found], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    report = json.loads(found.read_text())
    assert all(report[part]["passed"] for part in ("attention", "equality", "llama", "serving", "four_bit"))
    assert {round["textTokens"] for round in report["serving"]["rounds"]} == {16, 32}
    assert len(report["attention"]["cases"]) == 24
    assert {round["rowTokens"] for round in report["llama"]["rounds"]} == {32, 64}
    assert all(
        round[name]["tokensPerSecond"] > 0 for round in report["llama"]["rounds"] for name in ("winnow", "trainer")
    )
