"""The local cluster itself: what Winnow needs of a Kubernetes, tried with pods that do nothing else."""

from __future__ import annotations

import subprocess
import urllib.request
from typing import Any

import pytest
from e2e_support import ROOT, Cluster, Manifest

BUSYBOX = "docker.io/winnow/busybox:1"
NON_ROOT = {"runAsUser": 65532, "runAsGroup": 65532, "fsGroup": 65532, "runAsNonRoot": True}


def pod(name: str, script: str, **spec: Any) -> dict[str, Any]:
    """A pod that runs a shell script; keyword arguments go into its spec, `mounts` and `memory` into its container."""
    container: dict[str, Any] = {
        "name": "main",
        "image": BUSYBOX,
        "imagePullPolicy": "Never",
        "command": ["sh", "-euc", script],
        "volumeMounts": spec.pop("mounts", []),
    }
    if memory := spec.pop("memory", None):
        container["resources"] = {"limits": {"memory": memory}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"restartPolicy": "Never", "terminationGracePeriodSeconds": 0, "containers": [container], **spec},
    }


def service(name: str) -> Manifest:
    ports = [{"port": 80, "targetPort": 8080}]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"selector": {"app": name}, "ports": ports},
    }


def fetch(url: str) -> str:
    """From this machine, past any proxy of the environment."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=10) as response:
        return str(response.read().decode())


@pytest.fixture
def web(cluster: Cluster) -> dict[str, Any]:
    """A web server behind a Service, both named web; returns the ready pod."""
    cluster.apply(pod("web", "mkdir /www; echo hello > /www/index.html; exec httpd -f -p 8080 -h /www"), service("web"))
    cluster.run("wait", "--for=condition=Ready", "pod/web", "--timeout=60s", timeout=90)
    return cluster.get("pod", "web")


def test_a_job_completes_and_its_log_can_be_read(cluster: Cluster) -> None:
    template = {"spec": pod("ask", "echo done")["spec"]}
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "ask"}, "spec": {"template": template}}
    cluster.apply(job)
    cluster.run("wait", "--for=condition=Complete", "job/ask", "--timeout=60s", timeout=90)
    assert cluster.run("logs", "job/ask") == "done\n"


def test_a_service_answers_by_name_to_pods_and_by_address_to_this_machine(
    cluster: Cluster, web: dict[str, Any]
) -> None:
    address = cluster.get("service", "web")["spec"]["clusterIP"]
    cluster.apply(pod("ask", f"wget -qO- http://web; wget -qO- http://web.{cluster.namespace}.svc.cluster.local"))
    assert cluster.finished_pod("ask") == "hello\nhello"
    assert fetch(f"http://{address}/") == "hello\n"
    assert fetch(f"http://{web['status']['podIP']}:8080/") == "hello\n"


def test_a_pod_reaches_itself_through_its_own_service(cluster: Cluster, web: dict[str, Any]) -> None:
    address = cluster.get("service", "web")["spec"]["clusterIP"]
    assert cluster.run("exec", "web", "--", "wget", "-qO-", f"http://{address}/") == "hello\n"


def test_a_pod_reaches_the_api_server_by_name(cluster: Cluster) -> None:
    # Busybox cannot speak the API server's TLS; that it asks for TLS shows who answers.
    request = "printf 'GET / HTTP/1.0\\r\\n\\r\\n'"
    cluster.apply(pod("ask", f"{request} | nc kubernetes.default.svc.cluster.local 443"))
    assert "Client sent an HTTP request to an HTTPS server" in cluster.finished_pod("ask")


def test_exec_and_port_forward_reach_a_pod(cluster: Cluster, web: dict[str, Any]) -> None:
    assert cluster.run("exec", "web", "--", "cat", "/www/index.html") == "hello\n"
    command = ["kubectl", "-n", cluster.namespace, "port-forward", "pod/web", ":8080"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=cluster.env) as forward:
        assert forward.stdout is not None
        said = forward.stdout.readline()  # Forwarding from 127.0.0.1:41234 -> 8080
        try:
            assert fetch(f"http://{said.split()[2]}/") == "hello\n"
        finally:
            forward.terminate()


def test_a_volume_of_the_default_class_is_writable_for_a_pod_that_is_not_root(cluster: Cluster) -> None:
    claim: Manifest = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    }
    volume = {"name": "data", "persistentVolumeClaim": {"claimName": "data"}}
    shared: dict[str, Any] = {
        "securityContext": NON_ROOT,
        "volumes": [volume],
        "mounts": [{"name": "data", "mountPath": "/data"}],
    }
    cluster.apply(claim, pod("write", "id -u; mkdir /data/runs; echo kept > /data/runs/file", **shared))
    assert cluster.finished_pod("write") == "65532"
    cluster.apply(pod("read", "cat /data/runs/file", **shared))
    assert cluster.finished_pod("read") == "kept"


def test_an_image_mounts_as_a_volume(cluster: Cluster) -> None:
    image = {"name": "model", "image": {"reference": "docker.io/winnow/pause:1", "pullPolicy": "Never"}}
    cluster.apply(pod("look", "ls /model", volumes=[image], mounts=[{"name": "model", "mountPath": "/model"}]))
    assert cluster.finished_pod("look") == "pause"


def test_a_container_above_its_memory_limit_is_killed_and_says_so(cluster: Cluster) -> None:
    cluster.apply(pod("hog", "head -c 200m /dev/zero | tail", memory="32Mi"))
    cluster.run("wait", "--for=jsonpath={.status.phase}=Failed", "pod/hog", "--timeout=60s", timeout=90)
    state = cluster.get("pod", "hog")["status"]["containerStatuses"][0]["state"]
    assert (state["terminated"]["reason"], state["terminated"]["exitCode"]) == ("OOMKilled", 137)


def test_an_image_that_cannot_be_pulled_says_so_in_words(cluster: Cluster) -> None:
    absent = pod("absent", "true")
    absent["spec"]["containers"][0] |= {"image": "docker.io/winnow/absent:1", "imagePullPolicy": "IfNotPresent"}
    cluster.apply(absent)
    path = "jsonpath={.status.containerStatuses[0].state.waiting.message}"
    cluster.run("wait", f"--for={path}", "pod/absent", "--timeout=60s", timeout=90)
    assert "docker.io/winnow/absent:1" in cluster.run("get", "pod", "absent", "-o", path)


def test_up_again_finds_everything_running_and_restarts_nothing(cluster: Cluster, web: dict[str, Any]) -> None:
    before = subprocess.run([ROOT / "cluster" / "cluster", "status"], capture_output=True, text=True, check=True).stdout
    subprocess.run([ROOT / "cluster" / "cluster", "up"], capture_output=True, check=True, timeout=30)
    after = subprocess.run([ROOT / "cluster" / "cluster", "status"], capture_output=True, text=True, check=True).stdout
    assert after == before
    assert cluster.get("pod", "web")["status"]["containerStatuses"][0]["restartCount"] == 0
