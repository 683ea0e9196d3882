"""A Deployment with everything around its pods, under Kubernetes' own controllers: an autoscaler that scales, a budget that holds, a path that leads in."""

from __future__ import annotations

import json

import pytest
from e2e_support import (
    Cluster,
    condition,
    dataset,
    deployment,
    model_service,
    short_rows,
    training_job,
)

LINUX = {"matchExpressions": [{"key": "kubernetes.io/os", "operator": "In", "values": ["linux"]}]}
PLACED = {
    "affinity": {
        "nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [LINUX]}},
        "podAntiAffinity": {
            "preferredDuringSchedulingIgnoredDuringExecution": [
                {
                    "weight": 1,
                    "podAffinityTerm": {"labelSelector": {"matchLabels": {"a": "b"}}, "topologyKey": "zone"},
                }
            ]
        },
    },
    "serviceAccountName": "runner",
    "env": [
        {"name": "TEAM", "value": "ml"},
        {"name": "PASSWORD", "valueFrom": {"secretKeyRef": {"name": "settings", "key": "password"}}},
    ],
}
AROUND = {
    "autoscaling": {"minReplicas": 2, "maxReplicas": 3},
    "disruptionBudget": {"minAvailable": 2},
    "networkPolicy": {"from": [{"ipBlock": {"cidr": "0.0.0.0/0"}}]},
    "ingress": {"host": "ml.example", "path": "/mail"},
    "monitoring": {"serviceMonitor": {}},
    "topologySpreadConstraints": [
        {"maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway"}
    ],
}


def test_a_deployment_with_everything_around_it(cluster: Cluster) -> None:
    quick = {"numTrainEpochs": 1, "maxSeqLength": 64, "perDeviceTrainBatchSize": 16, "gradientAccumulationSteps": 1}
    served = deployment("mail", "mail", "v1", "epoch-1")
    served["spec"] |= AROUND | PLACED
    cluster.run("create", "serviceaccount", "runner")
    cluster.run("create", "secret", "generic", "settings", "--from-literal=password=canary")
    cluster.apply(
        model_service("mail"),
        dataset("train", "mail", short_rows(64)),
        dataset("test", "mail", short_rows(16, start=1000)),
        training_job("v1", "mail", method="HeadOnly", parameters=quick, **PLACED),
        served,
    )
    # The real controller of HorizontalPodAutoscalers raises our kind to its least, through the scale subresource.
    cluster.until("a second replica", lambda: cluster.get("wdep", "mail")["spec"]["replicas"] == 2, seconds=300)
    cluster.until("two pods", lambda: cluster.get("wdep", "mail")["status"].get("readyReplicas") == 2, seconds=180)
    cluster.says("wdep", "mail", "Ready", status="True", reason="Live")
    # This cluster has no metrics beyond that, and no Prometheus operator: both are said, and neither keeps it from serving.
    told = cluster.says("wdep", "mail", "Autoscaled", status="False", reason="MetricUnavailable")
    assert "clf_queue_tokens" in told["message"]
    assert cluster.says("wdep", "mail", "Monitored", status="False")["reason"] == "KindNotInstalled"
    assert "http://ml.example/mail/" in cluster.says("wdep", "mail", "Exposed", status="True")["message"]

    pods = cluster.list("pods", "winnow.dev/kind=Deployment,winnow.dev/name=mail")
    assert {pod["spec"]["serviceAccountName"] for pod in pods} == {"runner"}
    assert all("nodeAffinity" in pod["spec"]["affinity"] for pod in pods)

    cluster.until("the budget", lambda: cluster.get("pdb", "mail").get("status", {}).get("currentHealthy") == 2)
    name = pods[0]["metadata"]["name"]
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}}
    path = f"/api/v1/namespaces/{cluster.namespace}/pods/{name}/eviction"
    with pytest.raises(AssertionError, match="disruption budget"):
        cluster.run("create", "--raw", path, "-f", "-", stdin=json.dumps(eviction))

    # As an Ingress hands it on: the page and the API answer below the path and at the root.
    proxy = f"/api/v1/namespaces/{cluster.namespace}/services/mail:80/proxy"
    assert "<title>" in cluster.run("get", "--raw", f"{proxy}/mail/ui/")
    for prefix in ("", "/mail"):
        model = json.loads(cluster.run("get", "--raw", f"{proxy}{prefix}/v1/model"))
        assert "epoch-1" in json.dumps(model)

    for field in ("autoscaling", "networkPolicy", "disruptionBudget", "ingress", "monitoring"):
        patch = [{"op": "remove", "path": f"/spec/{field}"}]
        cluster.run("patch", "wdep", "mail", "--type=json", "-p", json.dumps(patch))
    around = "hpa,networkpolicy,pdb,ingress"
    cluster.until("all of it to go", lambda: not cluster.list(around, "winnow.dev/name=mail"))
    web = cluster.get("wdep", "mail")
    assert web["spec"]["replicas"] == 2  # the last word of the autoscaler stays
    cluster.until("no word of it", lambda: not condition(cluster.get("wdep", "mail"), "Autoscaled"))
