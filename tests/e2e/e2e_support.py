"""What the end-to-end tests share: kubectl on the running cluster, a namespace for each test, waiting with a bound."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
Manifest = Mapping[str, Any]
# The local cluster's own: a machine may have none, or one of another year.
KUBECTL = next((str(own) for own in [ROOT / ".local" / "bin" / "kubectl"] if own.exists()), "kubectl")

BASE_MINILM = {"image": {"reference": "docker.io/winnow/base-minilm:dev", "path": "/model"}}
BASE_TINY_LLAMA = {"image": {"reference": "docker.io/winnow/base-tiny-llama:dev", "path": "/model"}}
S3_IMAGE = "docker.io/winnow/versitygw:dev"  # made by the fixture s3_image

CHART = ("winnow", str(ROOT / "helm" / "winnow"), "--namespace", "winnow-system")


class Cluster:
    """kubectl against one namespace of the cluster that KUBECONFIG (or .local/kubeconfig) names."""

    def __init__(self, namespace: str) -> None:
        self.namespace = namespace
        self.env = {**os.environ, "KUBECONFIG": os.environ.get("KUBECONFIG", str(ROOT / ".local" / "kubeconfig"))}

    def run(self, *args: str, stdin: str | None = None, check: bool = True, timeout: float = 60) -> str:
        command = [KUBECTL, "-n", self.namespace, *args]
        done = subprocess.run(
            command, input=stdin, capture_output=True, text=True, env=self.env, timeout=timeout, check=False
        )
        if check and done.returncode != 0:
            raise AssertionError(f"kubectl {' '.join(args)} ended with {done.returncode}: {done.stderr.strip()}")
        return done.stdout

    def apply(self, *manifests: Manifest) -> None:
        everything = {"apiVersion": "v1", "kind": "List", "items": list(manifests)}
        self.run("apply", "-f", "-", stdin=json.dumps(everything))

    def get(self, resource: str, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.run("get", resource, name, "-o", "json"))
        return found

    def list(self, resource: str, selector: str = "") -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = json.loads(self.run("get", resource, "-l", selector, "-o", "json"))["items"]
        return items

    def wait(self, resource: str, name: str, condition: str, seconds: int = 180) -> dict[str, Any]:
        """The object once the condition is True; fails with the object's conditions when it does not come."""
        try:
            self.run(
                "wait",
                f"--for=condition={condition}",
                f"{resource}/{name}",
                f"--timeout={seconds}s",
                timeout=seconds + 30,
            )
        except AssertionError as err:
            raise AssertionError(f"{resource}/{name} did not become {condition}: {self.story(resource, name)}") from err
        return self.get(resource, name)

    def story(self, resource: str, name: str) -> str:
        """The conditions of an object and the pods of its namespace, for the message of a failed wait."""
        conditions = self.get(resource, name).get("status", {}).get("conditions", [])
        said = [f"{c['type']}={c['status']} {c['reason']}: {c.get('message', '')}" for c in conditions]
        return "\n".join([*said, self.run("get", "pods", "-o", "wide", check=False)])

    def until(self, what: str, check: Callable[[], Any], seconds: float = 120) -> Any:
        """The first true answer of check, asked twice a second; fails with what was waited for."""
        deadline = time.monotonic() + seconds
        while True:
            answer = check()
            if answer:
                return answer
            if time.monotonic() > deadline:
                raise AssertionError(
                    f"waited {seconds:.0f} s for {what}\n{self.run('get', 'winnow,pods', '-o', 'wide', check=False)}"
                )
            time.sleep(0.5)

    def says(self, resource: str, name: str, kind: str, seconds: float = 120, **wanted: str) -> dict[str, str]:
        """The condition of this kind once it has these fields (status="False", reason="NameConflict", …)."""

        def said() -> dict[str, str] | None:
            found: dict[str, str] = condition(self.get(resource, name), kind)
            return found if found and all(found.get(key) == value for key, value in wanted.items()) else None

        found: dict[str, str] = self.until(f"{resource}/{name} to say {kind} {wanted}", said, seconds)
        return found

    def live(self, name: str) -> dict[str, Any]:
        """What a Deployment serves now."""
        live: dict[str, Any] = self.get("deployments.winnow.dev", name).get("status", {}).get("live", {})
        return live

    def finished_pod(self, name: str, seconds: float = 120) -> str:
        """The log of a pod that ran to its end."""

        def phase() -> str:
            return str(self.get("pod", name)["status"].get("phase"))

        self.until(f"pod {name} to end", lambda: phase() in {"Succeeded", "Failed"}, seconds)
        log = self.run("logs", name)
        assert phase() == "Succeeded", log
        return log.strip()

    def service_address(self, name: str) -> str:
        """http://<cluster IP> of a Service: this machine reaches it through kube-proxy."""
        return f"http://{self.get('service', name)['spec']['clusterIP']}"


def local_cluster(*args: str, env: Mapping[str, str] | None = None, timeout: float | None = None) -> str:
    """cluster/cluster, as a user calls it; what it says."""
    command = [str(ROOT / "cluster" / "cluster"), *args]
    done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=timeout, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def helm(cluster: Cluster, *args: str) -> str:
    return local_cluster("helm", *args, env=cluster.env, timeout=180)


@contextmanager
def allowed(cluster: Cluster, *addresses: str) -> Iterator[None]:
    """The chart lets pods fetch from these addresses too, which are not public."""
    networks = json.dumps([f"{address}/32" for address in addresses])
    upgrade = ("upgrade", *CHART, "--reuse-values", "--wait", "--set-json")
    try:
        helm(cluster, *upgrade, f"fetch.allowedNetworks={networks}")
        yield
    finally:
        helm(cluster, *upgrade, "fetch.allowedNetworks=[]")


def condition(obj: Manifest, kind: str) -> dict[str, Any]:
    """One condition of an object, or an empty one."""
    return next((c for c in obj.get("status", {}).get("conditions", []) if c["type"] == kind), {})


def manifest(kind: str, name: str, spec: Mapping[str, Any]) -> dict[str, Any]:
    return {"apiVersion": "winnow.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": dict(spec)}


def model_service(name: str, base_model: Mapping[str, Any] = BASE_MINILM) -> dict[str, Any]:
    storage = {"persistentVolumeClaim": {"size": "2Gi"}}
    return manifest("ModelService", name, {"baseModel": base_model, "storage": storage})


def dataset(name: str, model: str, rows: Sequence[Mapping[str, Any]] | str, **spec: Any) -> dict[str, Any]:
    inline = rows if isinstance(rows, str) else "".join(json.dumps(row) + "\n" for row in rows)
    return manifest("Dataset", name, {"modelService": model, "source": {"inline": inline}, **spec})


def training_job(name: str, model: str, **spec: Any) -> dict[str, Any]:
    """A job on the Datasets train and test; a field given as None is left out."""
    wanted = {"modelService": model, "outputModelName": name, "trainingDataset": "train", "testDataset": "test", **spec}
    return manifest("TrainingJob", name, {field: value for field, value in wanted.items() if value is not None})


def deployment(name: str, model: str, job: str, checkpoint: str = "best", **spec: Any) -> dict[str, Any]:
    chosen = {"trainingJob": job, "name": checkpoint}
    return manifest("Deployment", name, {"modelService": model, "checkpoint": chosen, **spec})


def restricted_pod(name: str, command: Sequence[str], **fields: Any) -> dict[str, Any]:
    """A pod with Python that may do nothing of what a namespace can forbid; `fields` go into its container."""
    security = {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
        "runAsNonRoot": True,
        "runAsUser": 65532,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    container = {
        "name": name,
        "image": "docker.io/winnow/server:dev",
        "imagePullPolicy": "IfNotPresent",
        "command": command,
        "securityContext": security,
        **fields,
    }
    spec = {"restartPolicy": "Never", "automountServiceAccountToken": False, "containers": [container]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}}, "spec": spec}


def short_rows(count: int, start: int = 0) -> list[dict[str, Any]]:
    """Made-up rows that a classifier separates with ease: prizes are spam, meetings are not."""
    spam = "You won a free prize, claim your cash reward number {} now at our site"
    ham = "Please send the minutes of meeting {} to the project team before lunch"
    texts = ((i % 2, (spam if i % 2 else ham).format(i)) for i in range(start, start + count))
    return [{"prompt": text, "completion": completion} for completion, text in texts]
