"""KEDA on a running cluster: its kinds, its operator and its API of metrics. Apart from `up`, since most work needs neither."""

import shutil
from pathlib import Path

from winnow_cluster.certificates import Authority
from winnow_cluster.control_plane import Program
from winnow_cluster.lifecycle import Cluster
from winnow_cluster.network import NODE_ADDRESS
from winnow_cluster.tools import KEDA
from winnow_cluster.waiting import answers_plain, wait_until

OPERATOR, ADAPTER = KEDA.programs
HEALTH_PORT, METRICS_PORT = 18081, 19666
API_PORT = 6444  # as in manifests/keda.yaml
API_SERVICE = "v1beta1.external.metrics.k8s.io"


def operator(program: Program, kubeconfig: Path, certificates: Path) -> list[str]:
    return [
        *_everywhere(program(OPERATOR)),
        f"--kubeconfig={kubeconfig}",
        f"--cert-dir={certificates}",
        f"--metrics-service-bind-address={NODE_ADDRESS}:{METRICS_PORT}",
        f"--health-probe-bind-address={NODE_ADDRESS}:{HEALTH_PORT}",
        "--metrics-bind-address=0",
    ]


def adapter(program: Program, kubeconfig: Path, certificates: Path) -> list[str]:
    return [
        *_everywhere(program(ADAPTER)),
        *(f"--{purpose}kubeconfig={kubeconfig}" for purpose in ("", "authentication-", "authorization-", "lister-")),
        f"--cert-dir={certificates}",
        f"--tls-cert-file={certificates / 'tls.crt'}",
        f"--tls-private-key-file={certificates / 'tls.key'}",
        f"--bind-address={NODE_ADDRESS}",
        f"--secure-port={API_PORT}",
        f"--metrics-service-address={NODE_ADDRESS}:{METRICS_PORT}",
        "--port=0",  # its own metrics, which nobody reads: any port that is free
    ]


def _everywhere(program: Path) -> list[str]:
    """All namespaces are watched; the rest names the one where KEDA's own objects are."""
    return ["env", "WATCH_NAMESPACE=", "POD_NAMESPACE=keda", "KEDA_CLUSTER_OBJECT_NAMESPACE=keda", str(program)]


def up(cluster: Cluster) -> None:
    cluster.expect_up()
    cluster.toolbox.build([KEDA])
    cluster.kubectl("apply", "--server-side", "--force-conflicts", *_kinds(cluster))
    cluster.kubectl("wait", "--for=condition=Established", "--timeout=30s", *_kinds(cluster))
    cluster.kubectl("apply", "--server-side", "--force-conflicts", _services(cluster))
    program, kubeconfig, certificates = cluster.toolbox.program, cluster.paths.kubeconfig, _certificates(cluster)
    running = cluster.process(OPERATOR)
    running.start(operator(program, kubeconfig, certificates))
    health = f"http://{NODE_ADDRESS}:{HEALTH_PORT}/healthz"
    wait_until(lambda: answers_plain(health), "KEDA ready", running)
    running = cluster.process(ADAPTER)
    running.start(adapter(program, kubeconfig, certificates))
    available = "jsonpath={.status.conditions[?(@.type=='Available')].status}"
    wait_until(
        lambda: cluster.kubectl("get", "apiservice", API_SERVICE, f"--output={available}") == "True",
        "KEDA's metrics API ready", running,
    )  # fmt: skip


def down(cluster: Cluster) -> None:
    """What is scaled keeps its replicas."""
    cluster.expect_up()
    cluster.toolbox.build([KEDA])  # it has the files that name the kinds
    # First the objects, while KEDA is there to take its finalizers off.
    cluster.kubectl("delete", "--ignore-not-found", "--timeout=60s", *_kinds(cluster))
    cluster.kubectl("delete", "--ignore-not-found", "--timeout=60s", _services(cluster))
    for name in (ADAPTER, OPERATOR):
        cluster.process(name).stop(grace_seconds=3)


def _kinds(cluster: Cluster) -> list[str]:
    return [f"--filename={file}" for file in cluster.toolbox.files(KEDA)]


def _services(cluster: Cluster) -> str:
    return f"--filename={cluster.paths.sources / 'manifests' / 'keda.yaml'}"


def _certificates(cluster: Cluster) -> Path:
    """A folder in which they have the names that KEDA looks for. The two programs trust each other by them."""
    folder, authority = cluster.paths.state / "keda", Authority(cluster.paths.state / "pki")
    folder.mkdir(exist_ok=True, mode=0o700)
    pair = authority.sign("keda", "keda", addresses=[NODE_ADDRESS])
    for name, file in (("tls.crt", pair.certificate), ("tls.key", pair.key), ("ca.crt", authority.certificate)):
        shutil.copyfile(file, folder / name)
    return folder
