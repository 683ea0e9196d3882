"""How many requests fail while a Deployment rolls over, is rolled back and is scaled? Bar: none in 100,000, all of them answered.

In the cluster that KUBECONFIG names (`make install` first), a load pod sends requests to the Service, one connection each, while checkpoints take turns:
promotion through a gate, back by hand, two replicas, a rollover of two, one replica again, one that does not come up and is taken back, and from the start. Makes a namespace
of its own and removes it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bars import verdict

ROOT = Path(__file__).resolve().parents[1]
KUBECTL = next((str(own) for own in [ROOT / ".local" / "bin" / "kubectl"] if own.exists()), "kubectl")
NAMESPACE = "rollover-benchmark"
BASE = {"image": {"reference": "docker.io/winnow/base-minilm:dev", "path": "/model"}}
PARAMETERS = {"numTrainEpochs": 2, "maxSeqLength": 64, "perDeviceTrainBatchSize": 16, "gradientAccumulationSteps": 1}
Manifest = Mapping[str, Any]


def kubectl(*args: str, stdin: str | None = None, check: bool = True) -> str:
    env = {**os.environ, "KUBECONFIG": os.environ.get("KUBECONFIG", str(ROOT / ".local" / "kubeconfig"))}
    command = [KUBECTL, "-n", NAMESPACE, *args]
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, env=env, check=False)
    if check and done.returncode != 0:
        raise SystemExit(f"kubectl {' '.join(args)}: {done.stderr.strip()}")
    return done.stdout


def apply(*manifests: Manifest) -> None:
    kubectl("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": manifests}))


def ours(kind: str, name: str, **spec: Any) -> Manifest:
    return {"apiVersion": "winnow.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}


def rows(count: int, start: int = 0) -> Manifest:
    texts = ("Please send the minutes of meeting {} to the team", "You won a free prize, claim cash reward {} now")
    lines = (json.dumps({"prompt": texts[n % 2].format(n), "completion": n % 2}) for n in range(start, start + count))
    return {"inline": "\n".join(lines) + "\n"}


def deployment(step: Step) -> Manifest:
    gate = {"floors": [{"metric": "accuracy", "atLeast": 0}], "notWorseThanLive": True, "tolerance": 1}
    return ours(
        "Deployment",
        "mail",
        modelService="mail",
        checkpoint={"trainingJob": "v1", "name": step.asked},
        gate=gate,
        rollout={"watchSeconds": 0},
        replicas=step.replicas,
        env=step.env,
    )


def load_pod(requests: int, clients: int) -> Manifest:
    program = (ROOT / "benchmarks" / "rollover_load.py").read_text()
    security = {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
        "runAsNonRoot": True,
        "runAsUser": 65532,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    container = {
        "name": "load",
        "image": "docker.io/winnow/server:dev",
        "imagePullPolicy": "IfNotPresent",
        "command": ["python3", "-c", program, "mail", str(requests), str(clients), "0"],
        "securityContext": security,
    }
    spec = {"restartPolicy": "Never", "automountServiceAccountToken": False, "containers": [container]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "load"}, "spec": spec}


def until(what: str, check: Callable[[], Any], seconds: float = 300) -> Any:
    deadline = time.monotonic() + seconds
    while not (answer := check()):
        if time.monotonic() > deadline:
            raise SystemExit(f"waited {seconds:.0f} s for {what}: {kubectl('get', 'winnow,pods', check=False)}")
        time.sleep(0.5)
    return answer


def serves(checkpoint: str, replicas: int, condition: str, reason: str) -> bool:
    found = json.loads(kubectl("get", "wdep", "mail", "-o", "json"))
    status = found.get("status", {})
    reasons = {each["type"]: each["reason"] for each in status.get("conditions", [])}
    current = status.get("observedGeneration") == found["metadata"]["generation"]
    counts = (status.get("live", {}).get("checkpoint"), status.get("readyReplicas"), status.get("replicas"))
    return bool(current and reasons.get(condition) == reason and counts == (checkpoint, replicas, replicas))


def seen() -> dict[str, Any]:
    last = kubectl("logs", "load", "--tail=1", check=False).strip()
    found: dict[str, Any] = json.loads(last) if last.startswith("{") else {"requests": 0}
    return found


class Step(NamedTuple):
    name: str
    asked: str
    replicas: int
    live: str  # in the end
    env: Sequence[Manifest] = ()

    def done(self) -> bool:
        if self.live != self.asked:
            return serves(self.live, self.replicas, "Promoted", "RolledBack")
        return serves(self.live, self.replicas, "Ready", "Live")


START = Step("start", "epoch-1", 1, "epoch-1")
STEPS = (
    Step("promotion", "epoch-2", 1, "epoch-2"),
    Step("back by hand", "epoch-1", 1, "epoch-1"),
    Step("two replicas", "epoch-1", 2, "epoch-1"),
    Step("rollover of two", "epoch-2", 2, "epoch-2"),
    Step("back by hand, two", "epoch-1", 2, "epoch-1"),
    # Its server ends before it has begun.
    Step("taken back, two", "epoch-2", 2, "epoch-1", env=[{"name": "PYTHONHOME", "value": "/nowhere"}]),
    Step("one replica", "epoch-1", 1, "epoch-1"),
)


def below(found: Mapping[str, Any], done: Mapping[str, int]) -> list[str]:
    """The bars that were missed, in words."""
    failed, never = found["failed"], [step.name for step in STEPS if step.name not in done]
    missed = [f"{failed} of {found['requests']} requests failed, such as {found['failures']}"] if failed else []
    return missed + ([f"the requests ended before these steps: {'; '.join(never)}"] if never else [])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--clients", type=int, default=8)
    arguments = parser.parse_args()
    kubectl("create", "namespace", NAMESPACE)
    try:
        apply(
            ours("ModelService", "mail", baseModel=BASE, storage={"persistentVolumeClaim": {"size": "2Gi"}}),
            ours("Dataset", "train", modelService="mail", source=rows(64)),
            ours("Dataset", "test", modelService="mail", source=rows(16, start=1_000)),
            ours(
                "TrainingJob",
                "v1",
                modelService="mail",
                trainingDataset="train",
                testDataset="test",
                method="HeadOnly",
                parameters=PARAMETERS,
            ),
            deployment(START),
        )
        until("the first checkpoint to be live", START.done, seconds=600)
        apply(load_pod(arguments.requests, arguments.clients))
        until("the first requests", lambda: seen()["requests"])
        done: dict[str, int] = {}
        while seen()["requests"] < arguments.requests:
            for step in STEPS:
                started = time.monotonic()
                apply(deployment(step))
                until(step.name, step.done)
                done[step.name] = done.get(step.name, 0) + 1
                found = seen()
                print(
                    f"{step.name:18} {time.monotonic() - started:5.1f} s  {found['requests']:7} requests, {found.get('failed')} failed",
                    flush=True,
                )
                if found["requests"] >= arguments.requests:
                    break
        found = seen()
        print(json.dumps({**found, "steps": done}, indent=2))
    finally:
        kubectl("delete", "namespace", NAMESPACE, "--wait=false", check=False)
    return verdict(below(found, done))


if __name__ == "__main__":
    sys.exit(main())
