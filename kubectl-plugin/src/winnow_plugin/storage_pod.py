"""The pod by which a user gets at a checkpoint in storage: like the one that trained, but for its command. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal, cast

from winnow_plugin.errors import ClusterError
from winnow_plugin.objects import Object, name_of

LIVES_SECONDS = 3_600  # where this program is killed, the pod ends by itself
MANAGED_BY = "kubectl-winnow"  # not winnow's: the operator need not know it
STORAGE_ARGUMENTS = ("--storage", "--mirror", "--allow-network")
CONTAINER = "storage"
Purpose = Literal["artifacts", "refit"]
MEMORY: dict[Purpose, str] = {"artifacts": "128Mi", "refit": "1Gi"}  # a fit imports torch, which takes 0.9 GiB


def run_of(training_job: Object) -> str:
    """The folder of its run in storage."""
    return f"{name_of(training_job)}-{training_job['metadata']['uid'][:8]}"


def arguments(batch_job: Object) -> list[str]:
    """How storage was told to the trainer."""
    command = cast(list[str], _trainer(batch_job)["command"])
    pairs = pairwise(command)
    return [part for name, value in pairs if name in STORAGE_ARGUMENTS for part in (name, value)]


def pod(training_job: Object, batch_job: Object, purpose: Purpose) -> Object:
    """A volume is writable for a refit only."""
    template, trainer = batch_job["spec"]["template"]["spec"], _trainer(batch_job)
    volume = next(dict(each) for each in template["volumes"] if each["name"] == "storage")
    mount = next(dict(each) for each in trainer["volumeMounts"] if each["name"] == "storage")
    if "persistentVolumeClaim" in volume and purpose != "refit":
        volume["persistentVolumeClaim"] = {**volume["persistentVolumeClaim"], "readOnly": True}
        mount["readOnly"] = True
    env = [each for each in trainer.get("env") or [] if each["name"].startswith("AWS_")]
    # The account may hold the Secret that the image is pulled with.
    placed = ("nodeSelector", "tolerations", "imagePullSecrets", "serviceAccountName")
    placement = {key: template[key] for key in placed if key in template}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "generateName": f"{name_of(training_job)[:40]}-{purpose}-",
            "labels": {
                "app.kubernetes.io/managed-by": MANAGED_BY,
                f"winnow.dev/{purpose}-of": name_of(training_job),
            },
            "ownerReferences": [
                {
                    "apiVersion": training_job["apiVersion"],
                    "kind": training_job["kind"],
                    "name": name_of(training_job),
                    "uid": training_job["metadata"]["uid"],
                }
            ],
        },
        "spec": {
            "restartPolicy": "Never",
            "activeDeadlineSeconds": LIVES_SECONDS,
            "terminationGracePeriodSeconds": 0,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "securityContext": template["securityContext"],
            **placement,
            "containers": [
                {
                    "name": CONTAINER,
                    "image": trainer["image"],
                    "command": ["python", "-c", f"import time; time.sleep({LIVES_SECONDS})"],
                    "env": [{"name": "HOME", "value": "/tmp"}, *env],
                    "resources": {"requests": {"cpu": "50m", "memory": MEMORY[purpose]}},
                    "securityContext": trainer["securityContext"],
                    "volumeMounts": [mount, {"name": "tmp", "mountPath": "/tmp"}],
                }
            ],
            "volumes": [volume, {"name": "tmp", "emptyDir": {}}],
        },
    }


def command(
    training_job: Object, batch_job: Object, purpose: Purpose, checkpoint: str, options: Sequence[str]
) -> list[str]:
    """What is run in it."""
    asked = ["--run", run_of(training_job), "--checkpoint", checkpoint, *options]
    return ["python", "-m", "winnow_trainer", purpose, *arguments(batch_job), *asked]


def in_bucket(batch_job: Object) -> bool:
    return any(part.startswith("s3://") for part in arguments(batch_job))


def _trainer(batch_job: Object) -> dict[str, Any]:
    containers = cast(list[dict[str, Any]], batch_job["spec"]["template"]["spec"]["containers"])
    for container in containers:
        if container["name"] == "trainer":
            return container
    raise ClusterError(f"the Job {name_of(batch_job)} has no trainer", hint="was it made by another version of Winnow?")
