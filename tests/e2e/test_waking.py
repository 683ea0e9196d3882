"""A Deployment that sleeps at zero pods and wakes on a request, on a real network: scaled by hand, as anything may that knows the scale subresource, and by KEDA."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import httpx
import pytest
from e2e_support import (
    Cluster,
    dataset,
    deployment,
    local_cluster,
    model_service,
    short_rows,
    training_job,
)

KEY = {"X-API-Key": "k-3f9a81c2"}
WAKER, SERVER = "winnow.dev/kind=DeploymentWaker", "winnow.dev/kind=Deployment"


class Sleeper:
    """The Deployment, as clients and KEDA see it."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.url = f"{cluster.service_address('mail')}/v1/classify"
        self.threads = ThreadPoolExecutor(8)

    def ask(self, texts: int = 1) -> httpx.Response:
        """On a connection of its own: a kept one would hide where the Service leads."""
        return httpx.post(self.url, json={"input": ["You won a free prize"] * texts}, headers=KEY, timeout=150)

    def ask_without_key(self) -> httpx.Response | None:
        """None where nothing answers."""
        try:
            return httpx.post(self.url, json={"input": "x"}, timeout=10)
        except httpx.ConnectError:
            return None

    def asks(self) -> Future[httpx.Response]:
        return self.threads.submit(self.ask)

    def metric(self, name: str) -> float:
        """Summed over the pods behind the Service, each asked for itself, as KEDA's trigger does."""
        total = 0.0
        for slice_ in self.cluster.list("endpointslices", "kubernetes.io/service-name=mail"):
            for endpoint in slice_.get("endpoints") or []:
                with httpx.Client(timeout=10) as client:
                    text = client.get(f"http://{endpoint['addresses'][0]}:8080/metrics").text
                lines = [line for line in text.splitlines() if line.startswith(f'{name}{{model_name="mail"')]
                total += sum(float(line.rpartition(" ")[2]) for line in lines)
        return total

    def scale(self, replicas: int) -> None:
        self.cluster.run("scale", "deployments.winnow.dev/mail", f"--replicas={replicas}")

    def leads_to(self, kind: str) -> None:
        """Waits until the Service leads to ready pods of this kind only."""

        def there() -> bool:
            ready = {
                pod["status"].get("podIP")
                for pod in self.cluster.list("pods", kind)
                if any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions", []))
            }
            slices = self.cluster.list("endpointslices", "kubernetes.io/service-name=mail")
            led = {address for one in slices for each in one.get("endpoints") or [] for address in each["addresses"]}
            return bool(led) and led <= ready

        self.cluster.until(f"the Service to lead to {kind}", there, seconds=120)

    def held_so_far(self) -> float:
        """Answers that came by way of the waker."""
        (pod,) = self.cluster.list("pods", WAKER)
        text = httpx.get(f"http://{pod['status']['podIP']}:8080/metrics", timeout=10).text
        (line,) = [
            line for line in text.splitlines() if line.startswith("clf_held_requests_total") and "answered" in line
        ]
        return float(line.rpartition(" ")[2])

    @contextmanager
    def under_load(self, clients: int = 2, texts: int = 1) -> Iterator[list[str]]:
        """Clients that ask all the time; what failed."""
        stop = threading.Event()
        failed: list[str] = []

        def client() -> None:
            while not stop.is_set():
                try:
                    answer = self.ask(texts)
                    if answer.status_code != 200:
                        failed.append(f"{answer.status_code} {answer.text}")
                except httpx.TransportError as err:
                    failed.append(repr(err))
                time.sleep(0.05)

        running = [self.threads.submit(client) for _ in range(clients)]
        try:
            yield failed
        finally:
            stop.set()
        for one in running:
            one.result(180)


@pytest.fixture
def keda() -> Iterator[None]:
    local_cluster("keda-up")
    yield
    local_cluster("keda-down")


@pytest.fixture
def sleeper(cluster: Cluster) -> Iterator[Sleeper]:
    quick = {"numTrainEpochs": 1, "maxSeqLength": 64, "perDeviceTrainBatchSize": 16, "gradientAccumulationSteps": 1}
    cluster.run("create", "secret", "generic", "keys", f"--from-literal=alice={KEY['X-API-Key']}")
    cluster.apply(
        model_service("mail"),
        dataset("train", "mail", short_rows(64)),
        dataset("test", "mail", short_rows(16, start=1000)),
        training_job("v1", "mail", method="HeadOnly", parameters=quick),
        deployment(
            "mail",
            "mail",
            "v1",
            "epoch-1",
            replicas=0,
            autoscaling={"minReplicas": 0, "maxReplicas": 2, "wakeOnRequest": True},
            access={"apiKeysSecretRef": {"name": "keys"}},
            networkPolicy={"from": [{"ipBlock": {"cidr": "0.0.0.0/0"}}]},
        ),
    )
    cluster.says("wdep", "mail", "Ready", seconds=300, status="True", reason="Asleep")
    sleeper = Sleeper(cluster)
    yield sleeper
    sleeper.threads.shutdown()


def test_a_request_wakes_what_sleeps_and_none_is_lost_either_way(cluster: Cluster, sleeper: Sleeper) -> None:
    sleeper.leads_to(WAKER)
    assert not cluster.list("pods", SERVER)
    # This cluster has no KEDA, which is said.
    assert "wakeOnRequest" in cluster.says("wdep", "mail", "Autoscaled", reason="KindNotInstalled")["message"]
    assert "Asleep" in cluster.run("get", "wdep", "mail", "-o", "wide")

    refused = cluster.until("kube-proxy to follow the endpoints", sleeper.ask_without_key, seconds=30)
    assert refused.status_code == 401
    assert sleeper.metric("clf_recently_used") == 0
    held = sleeper.asks()
    cluster.until("a held request", lambda: sleeper.metric("clf_queue_tokens") > 0, seconds=30)
    assert sleeper.metric("clf_recently_used") == 1
    sleeper.scale(1)
    answer = held.result(150)
    assert answer.status_code == 200, answer.text
    assert abs(sum(answer.json()["data"][0]["probs"]) - 1) < 1e-5
    assert answer.json()["model_version"].startswith("v1/epoch-1@")

    # From now on the waker is not in the way.
    sleeper.leads_to(SERVER)
    cluster.says("wdep", "mail", "Ready", status="True", reason="Live")

    def passes_by_the_waker() -> bool:
        before = sleeper.held_so_far()
        assert [sleeper.ask().status_code for _ in range(5)] == [200] * 5
        return sleeper.held_so_far() == before

    cluster.until("kube-proxy to follow the endpoints", passes_by_the_waker, seconds=30)
    assert sleeper.metric("clf_recently_used") == 1

    # To sleep and awake again under load: whoever asks meanwhile waits, and nobody is refused.
    before = sleeper.held_so_far()
    with sleeper.under_load() as failed:
        time.sleep(2)
        sleeper.scale(0)
        cluster.until("the server's pod to go", lambda: not cluster.list("pods", SERVER))
        cluster.until("held requests", lambda: sleeper.metric("clf_queue_size") == 2, seconds=30)
        cluster.says("wdep", "mail", "Ready", status="True", reason="Asleep")
        sleeper.scale(1)
        sleeper.leads_to(SERVER)
        time.sleep(2)
    assert failed == []
    assert sleeper.held_so_far() > before

    patch = [{"op": "remove", "path": "/spec/autoscaling"}]
    cluster.run("patch", "wdep", "mail", "--type=json", "-p", json.dumps(patch))
    cluster.until("the waker to go", lambda: not cluster.list("deployments.apps,services", WAKER))
    assert sleeper.ask().status_code == 200


@pytest.mark.usefixtures("keda")
def test_keda_wakes_it_adds_a_pod_under_load_and_lets_it_sleep_again(cluster: Cluster, sleeper: Sleeper) -> None:
    said = cluster.says("wdep", "mail", "Autoscaled", status="True", reason="Autoscaling")
    assert said["message"].startswith("ScaledObject mail chooses from 0 to 2 replicas")
    sleeper.leads_to(WAKER)
    held = sleeper.asks()
    answer = held.result(150)
    assert answer.status_code == 200, answer.text
    sleeper.leads_to(SERVER)
    cluster.says("wdep", "mail", "Ready", status="True", reason="Live")
    time.sleep(2)

    patch = {"spec": {"autoscaling": {"targetQueuedTokens": 1, "scaleDownStabilizationSeconds": 5}}}
    cluster.run("patch", "wdep", "mail", "--type=merge", "-p", json.dumps(patch))
    with sleeper.under_load(clients=8, texts=64) as failed:
        cluster.until("a second pod", lambda: len(cluster.list("pods", SERVER)) == 2, seconds=180)
    assert failed == []
    # A minute after the last request nobody needs it; then KEDA looks every 15 s.
    cluster.says("wdep", "mail", "Ready", seconds=300, status="True", reason="Asleep")
    cluster.until("the pods to go", lambda: not cluster.list("pods", SERVER))
    sleeper.leads_to(WAKER)
    cluster.until("kube-proxy to follow the endpoints", sleeper.ask_without_key, seconds=30)
    assert sleeper.ask().status_code == 200
