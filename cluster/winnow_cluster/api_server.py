"""An API server alone, for integration tests: etcd, kube-apiserver and the controllers, in a folder of its own."""

import random
import shutil
import socket
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from winnow_cluster import control_plane, kubeconfig
from winnow_cluster.certificates import Authority
from winnow_cluster.control_plane import LOOPBACK, Endpoint, Keys, Program
from winnow_cluster.errors import ClusterError
from winnow_cluster.processes import Process
from winnow_cluster.waiting import answers, wait_until

# Below the range the kernel hands out for outgoing connections, so that none of those takes a port between our choice
# and the start of the program it is for.
PORTS = range(20_000, 32_000)
OUR_FILES = ("etcd", "pki", "log", "pids", "kubeconfig", "controller-manager.kubeconfig", "volume-plugins")


def free_ports(count: int) -> list[int]:
    found: list[int] = []
    for port in random.sample(PORTS, k=len(PORTS)):
        with socket.socket() as probe:
            try:
                probe.bind((LOOPBACK, port))
            except OSError:
                continue
        found.append(port)
        if len(found) == count:
            return found
    raise ClusterError(f"no {count} free ports between {PORTS.start} and {PORTS.stop}")


def process(name: str, folder: Path) -> Process:
    return Process(name, pids=folder / "pids", logs=folder / "log")


def up(folder: Path, program: Program) -> Path:
    """Start the three, or find them running; returns the kubeconfig of an administrator."""
    folder = folder.resolve()
    names = ("etcd", "kube-apiserver", "kube-controller-manager")
    if all(process(name, folder).pid() for name in names):
        return folder / "kubeconfig"
    down(folder)
    folder.mkdir(parents=True, exist_ok=True)
    port, etcd_port, peer_port, controller_port = free_ports(4)
    endpoint = Endpoint(LOOPBACK, port, etcd_port, service_range="10.0.0.0/16", service_address="10.0.0.1")
    etcd, server, controllers = (process(name, folder) for name in names)
    try:
        etcd.start(control_plane.etcd(program, endpoint, peer_port, folder / "etcd"))
        keys = Keys.create(Authority(folder / "pki"), endpoint)
        admin = kubeconfig.write(folder / "kubeconfig", endpoint.url, keys.authority, keys.admin)
        server.start(control_plane.api_server(program, endpoint, keys, with_nodes=False))
        wait_until(lambda: answers(f"{endpoint.url}/readyz", keys.authority), "API server ready", server)
        config = kubeconfig.write(
            folder / "controller-manager.kubeconfig", endpoint.url, keys.authority, keys.controller_manager
        )
        command = control_plane.controller_manager(program, endpoint, keys, config, controller_port)
        controllers.start([*command, "--horizontal-pod-autoscaler-sync-period=2s"])  # 15 s, which a test would wait for
        # The first thing pods need, and the sign that the controllers have begun their work.
        wait_until(lambda: has_default_service_account(program, admin), "controllers at work", controllers)
    except BaseException:
        stop(folder)
        raise
    return admin


def has_default_service_account(program: Program, config: Path) -> bool:
    command = [str(program("kubectl")), f"--kubeconfig={config}", "get", "serviceaccount", "default", "-n", "default"]
    return subprocess.run(command, capture_output=True).returncode == 0


def stop(folder: Path) -> None:
    """End the three together: each would only complain while another goes."""
    with ThreadPoolExecutor() as pool:
        for name in ("kube-controller-manager", "kube-apiserver", "etcd"):
            # Nothing is kept, so nothing is gained by a graceful end: the API server's takes seconds.
            pool.submit(process(name, folder).stop, grace_seconds=0)


def down(folder: Path) -> None:
    """End the three and remove what they wrote, whatever state they are in."""
    folder = folder.resolve()
    stop(folder)
    for name in OUR_FILES:
        path = folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
