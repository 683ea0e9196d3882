"""What the batch Job of a training has beside that of one process: pods with numbers, a place where they meet, room to share."""

from __future__ import annotations

from winnow_operator import api
from winnow_operator.build import common
from winnow_operator.pods import INDEX
from winnow_operator.resources import Object

RENDEZVOUS_PORT = 29_400
SHARED_MEMORY = "1Gi"


def meeting_place(job: api.TrainingJob) -> Object | None:
    """A headless Service whose name is the address of the first pod, before that is ready; None for one pod."""
    if job.spec.nodes == 1:
        return None
    return common.named_by_content(
        {
            "apiVersion": "v1",
            "kind": "Service",
            # A Service's name starts with a letter, which a TrainingJob's need not.
            "metadata": common.metadata(job, f"tj-{job.metadata.name}"),
            "spec": {
                "clusterIP": "None",
                "publishNotReadyAddresses": True,
                "selector": {**common.selector(job), INDEX: "0"},
                "ports": [{"name": "rendezvous", "port": RENDEZVOUS_PORT, "protocol": "TCP"}],
            },
        }
    )


def arguments(job: api.TrainingJob) -> list[str]:
    """Of the trainer, so that it finds the others."""
    place = meeting_place(job)
    if place is None:
        return []
    rendezvous = f"{place['metadata']['name']}:{RENDEZVOUS_PORT}"
    return ["--node-rank", common.POD_NUMBER, "--rendezvous", rendezvous]


def job_fields(job: api.TrainingJob) -> Object:
    """All pods at once, each with a number. The first one writes the result: when it is done, the job is."""
    if job.spec.nodes == 1:
        return {}
    return {
        "completionMode": "Indexed",
        "completions": job.spec.nodes,
        "parallelism": job.spec.nodes,
        "successPolicy": {"rules": [{"succeededIndexes": "0"}]},
    }


def shared_memory(job: api.TrainingJob) -> tuple[list[Object], list[Object]]:
    """Volumes and mounts: NCCL passes tensors between the processes of a pod by shared memory, of which a container has 64 MiB."""
    if job.spec.processes_per_node == 1:
        return [], []
    volume: Object = {"name": "shared-memory", "emptyDir": {"medium": "Memory", "sizeLimit": SHARED_MEMORY}}
    return [volume], [{"name": "shared-memory", "mountPath": "/dev/shm"}]
