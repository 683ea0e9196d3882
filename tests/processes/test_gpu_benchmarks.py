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
        known = {{*sys.stdlib_module_names, *{GIVEN}, "gpu", "bars", "winnow_classifier", "winnow_server"}}
        if frame.f_code.co_filename.startswith({str(ROOT)!r} + "/") and "/.venv/" not in frame.f_code.co_filename and package not in known:
            raise ModuleNotFoundError(f"{{frame.f_code.co_filename}} imports {{name}}")

sys.meta_path.insert(0, OnlyThose())
sys.argv = ["gpu", "--tiny", "--only", "attention,equality,llama,serving,overhead,four_bit", "--json", sys.argv[1]]
runpy.run_path({str(ROOT / "benchmarks" / "gpu")!r}, run_name="__main__")
"""


def test_one_command_with_these_libraries_checks_and_measures(tmp_path: Path) -> None:
    found = tmp_path / "report.json"
    done = subprocess.run([sys.executable, "-c", ONLY_THOSE, found], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    report = json.loads(found.read_text())
    assert all(report[part]["passed"] for part in ("attention", "equality", "llama", "serving", "overhead", "four_bit"))
    assert {round["textTokens"] for round in report["serving"]["rounds"]} == {16, 32}
    assert report["overhead"]["through"] == "queue and engine"
    assert [round["textTokens"] for round in report["overhead"]["rounds"]] == [16, 32]
    assert all(round["requestSeconds"] > 0 for round in report["overhead"]["rounds"])
    assert len(report["attention"]["cases"]) == 24
    assert {round["rowTokens"] for round in report["llama"]["rounds"]} == {32, 64}
    assert all(
        round[name]["tokensPerSecond"] > 0 for round in report["llama"]["rounds"] for name in ("winnow", "trainer")
    )


def test_what_a_request_costs_is_measured_over_http_where_the_server_is_installed(tmp_path: Path) -> None:
    found = tmp_path / "report.json"
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu"), "--tiny", "--only", "overhead", "--json", str(found)]
    subprocess.run(command, check=True, timeout=300)
    overhead = json.loads(found.read_text())["overhead"]
    assert overhead["through"] == "HTTP"
    assert [round["textTokens"] for round in overhead["rounds"]] == [16, 32]
