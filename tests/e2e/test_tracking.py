"""A training told to Weights & Biases: its client in the real image, with a read-only root, and the key out of a Secret."""

from __future__ import annotations

import json
import secrets
from typing import Any

from e2e_support import ROOT, Cluster, allowed, dataset, model_service, restricted_pod, short_rows, training_job

KEY = secrets.token_hex(20)
SERVER = f"""{(ROOT / "tests" / "processes" / "wandb_server.py").read_text()}
import sys, time
server = Server()
with served(server, "0.0.0.0", 8080):
    server.url = sys.argv[1]
    while True:
        time.sleep(0.5)
        print(json.dumps({{"keys": sorted(server.keys), "runs": server.runs}}), flush=True)
"""


def wandb_server(url: str) -> list[dict[str, Any]]:
    """A pod, and its Service on port 80."""
    probe = {"tcpSocket": {"port": 8080}, "periodSeconds": 1}
    ports = [{"port": 80, "targetPort": 8080}]
    return [
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "wandb"}, "stringData": {"WANDB_API_KEY": KEY}},
        restricted_pod("wandb", ["python3", "-c", SERVER, url], readinessProbe=probe),
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "wandb"},
            "spec": {"selector": {"app": "wandb"}, "ports": ports},
        },
    ]


def test_weights_and_biases_is_told_with_the_key_of_a_secret(cluster: Cluster) -> None:
    url = f"http://wandb.{cluster.namespace}.svc"
    cluster.apply(*wandb_server(url))
    cluster.wait("pod", "wandb", "Ready")
    tracking = {"wandb": {"project": "spam", "baseUrl": url, "secretRef": {"name": "wandb"}}}
    parameters = {"numTrainEpochs": 2, "maxSeqLength": 64, "loggingSteps": 1}
    with allowed(cluster, cluster.get("service", "wandb")["spec"]["clusterIP"]):
        cluster.apply(
            model_service("mail"),
            dataset("train", "mail", short_rows(64)),
            dataset("test", "mail", short_rows(16, start=1000)),
            training_job("v1", "mail", method="HeadOnly", parameters=parameters, tracking=tracking),
        )
        done = cluster.wait("trainingjob", "v1", "Complete", seconds=300)
    told = json.loads(cluster.run("logs", "wandb", "--tail=1"))
    assert told["keys"] == [KEY]
    (run,) = told["runs"].values()
    assert run["name"].startswith("v1-")
    f1 = [row["test/f1"] for row in run["history"] if "test/f1" in row]
    assert [round(value, 6) for value in f1] == [epoch["metrics"]["f1"] for epoch in done["status"]["epochs"]]
    assert [word["exitcode"] for word in run["words"] if word.get("complete")] == [0]
    assert KEY not in cluster.run("logs", "-l", "winnow.dev/name=v1", "--tail=-1")
