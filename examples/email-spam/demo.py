"""`make demo`: a real local Kubernetes, Winnow on it, and real e-mail from rows to two classified messages.

Each step says what it does and the time it took; what is already there is found and kept.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

ROOT = Path(__file__).resolve().parents[2]
NAMESPACE = "demo"
MANIFEST = Path(__file__).with_name("winnow.yaml")
KUBECTL = [str(ROOT / "cluster" / "cluster"), "kubectl"]
TRAINING_SECONDS = 1800
Result = TypeVar("Result")


class DemoError(Exception):
    """A step failed; the message says what and where to look."""


def step(title: str, action: Callable[[], Result]) -> Result:
    print(f"== {title}", flush=True)
    started = time.monotonic()
    result = action()
    print(f"   {time.monotonic() - started:.0f} s", flush=True)
    return result


def make(target: str, *done_already: str) -> None:
    skip = [f"--old-file={target}" for target in done_already]
    done = subprocess.run(["make", "--no-print-directory", *skip, target], cwd=ROOT, check=False)
    if done.returncode:
        raise DemoError(f"`make {target}` failed; its output above says why")


def kubectl(*arguments: str, check: bool = True) -> str:
    done = subprocess.run([*KUBECTL, "-n", NAMESPACE, *arguments], capture_output=True, text=True, check=False)
    if check and done.returncode:
        raise DemoError(f"kubectl {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout


def read(resource: str, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(kubectl("get", resource, name, "-o", "json"))
    return found


def condition(obj: dict[str, Any], kind: str) -> dict[str, str]:
    conditions: list[dict[str, str]] = obj.get("status", {}).get("conditions", [])
    return next((found for found in conditions if found["type"] == kind), {})


def apply() -> None:
    namespaces = kubectl("get", "namespaces", "-o", "name").split()
    if f"namespace/{NAMESPACE}" not in namespaces:
        kubectl("create", "namespace", NAMESPACE)
    for line in kubectl("apply", "-f", str(MANIFEST)).splitlines():
        print(f"   {line}")


def follow(resource: str, name: str, done: str, seconds: float) -> dict[str, Any]:
    """The object once `done` is True, its summary told at each change; fails with the condition that says it cannot be."""
    told, deadline = "", time.monotonic() + seconds
    while True:
        obj = read(resource, name)
        summary = obj.get("status", {}).get("summary", "waiting for the operator")
        progress = obj.get("status", {}).get("progress") or {}
        if progress.get("eta") and condition(obj, done).get("status") != "True":
            summary += f", {progress.get('percent', 0):.0f} %, {progress['eta']} to go"
        if summary != told:
            print(f"   {name}: {summary}", flush=True)
            told = summary
        if condition(obj, done).get("status") == "True":
            return obj
        for bad in ("Failed", "Stalled"):
            said = condition(obj, bad)
            if said.get("status") == "True":
                raise DemoError(f"{resource} {name}: {said['reason']}: {said['message']}")
        if time.monotonic() > deadline:
            raise DemoError(
                f"{resource} {name} is not {done} after {seconds:.0f} s: kubectl -n {NAMESPACE} describe {resource} {name}"
            )
        time.sleep(2)


def test_rows() -> list[dict[str, Any]]:
    """The demo's test rows, as the image with the rows was built from them."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "winnow" / "images"
    newest = max(cache.glob("email-spam-rows-*/rows/test.jsonl"), key=lambda path: path.stat().st_mtime)
    return [json.loads(line) for line in newest.read_text(encoding="utf-8").splitlines()]


def classify(address: str) -> None:
    """One spam and one ham e-mail that the model has not seen, over HTTP through the Service."""
    rows = test_rows()
    for completion in (1, 0):
        text = next(
            row["prompt"] for row in rows if row["completion"] == completion and 200 < len(row["prompt"]) < 2000
        )
        request = urllib.request.Request(
            f"{address}/v1/classify", json.dumps({"input": text}).encode(), {"content-type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                answer = json.load(response)
        except OSError as err:
            raise DemoError(f"{address}/v1/classify: {err}; kubectl -n {NAMESPACE} logs deployment/email") from err
        row = answer["data"][0]
        probabilities = ", ".join(f"{label} {p:.4f}" for label, p in zip(answer["labels"], row["probs"], strict=True))
        subject = text.splitlines()[0][:70]
        print(f"   “{subject}” (labelled {'spam' if completion else 'ham'})\n      → {row['label']}: {probabilities}")


def demo() -> None:
    started = time.monotonic()
    step("Local Kubernetes", lambda: make("cluster-up"))
    step("Images and chart", lambda: make("install", "cluster-up"))
    step(f"Four manifests into namespace {NAMESPACE}: {MANIFEST.relative_to(ROOT)}", apply)
    step(
        "Datasets: every row judged",
        lambda: [follow("datasets.winnow.dev", name, "Ready", 300) for name in ("email-train", "email-test")],
    )
    job = step(
        "Training, evaluated at each epoch",
        lambda: follow("trainingjobs.winnow.dev", "email-v1", "Complete", TRAINING_SECONDS),
    )
    for epoch in job["status"]["epochs"]:
        print(
            f"   {epoch['checkpoint']}: F1 (spam) {epoch['metrics']['f1']:.4f}, training loss {epoch['trainLoss']:.4f}"
        )
    step("The best checkpoint, served", lambda: follow("deployments.winnow.dev", "email", "Ready", 300))
    address = f"http://{read('service', 'email')['spec']['clusterIP']}"
    step("Two e-mails of the test set, through the Service", lambda: classify(address))
    print(kubectl("get", "winnow"))
    print(f"Done in {time.monotonic() - started:.0f} s.")
    print(f"Test page, from this machine:  {address}/ui/")
    print(
        f"          from anywhere else:  {KUBECTL[0]} kubectl -n {NAMESPACE} port-forward service/email 8000:80  →  http://localhost:8000/ui/"
    )
    print(f"kubectl: export KUBECONFIG={ROOT}/.local/kubeconfig    End it all: make cluster-down")


if __name__ == "__main__":
    try:
        demo()
    except DemoError as err:
        sys.exit(f"make demo: {err}")
    except KeyboardInterrupt:
        sys.exit("\nmake demo: stopped; run it again and it goes on from here")
