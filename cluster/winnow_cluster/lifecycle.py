"""The cluster's life: up, from whatever state; down, to nothing; and what runs now."""

import json
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from winnow_cluster import control_plane, images, kubeconfig, leftovers, machine, network, node
from winnow_cluster.certificates import Authority, KeyPair
from winnow_cluster.control_plane import Endpoint, Keys
from winnow_cluster.errors import ClusterError
from winnow_cluster.paths import RUNTIME, Paths
from winnow_cluster.processes import Process
from winnow_cluster.tools import CLUSTER_TOOLS, KEDA, Toolbox
from winnow_cluster.waiting import answers, answers_plain, wait_until

ENDPOINT = Endpoint(
    network.NODE_ADDRESS, 6443, 12379, service_range=network.SERVICE_RANGE, service_address=network.SERVICE_ADDRESS
)
ETCD_PEER_PORT = 12380
CONTROLLER_MANAGER_PORT = 10257
SCHEDULER_PORT = 10259
OWNER = RUNTIME / "owner.json"
BEFORE = RUNTIME / "before.json"
# In the order they are ended: who would start things anew goes first, who is needed to clean up goes last.
COMPONENTS = (
    "local-path-provisioner", "kube-scheduler", "kube-controller-manager", "kubelet", "kube-proxy", "coredns",
    "kube-apiserver", "etcd", "buildkitd", "containerd",
)  # fmt: skip


@contextmanager
def step(what: str) -> Iterator[None]:
    """A line for each step and the time it took."""
    started = time.monotonic()
    yield
    print(f"  {what}: {time.monotonic() - started:.1f} s", flush=True)


@dataclass(frozen=True)
class Cluster:
    paths: Paths
    toolbox: Toolbox

    def process(self, name: str) -> Process:
        return Process(name, pids=RUNTIME / "pids", logs=self.paths.state / "log")

    def running(self) -> dict[str, int]:
        pids = {name: self.process(name).pid() for name in COMPONENTS}
        return {name: pid for name, pid in pids.items() if pid is not None}

    def up(self) -> None:
        machine.check(self.paths)
        _refuse_other(self.paths)
        if added := machine.missing_packages():
            with step(f"installed {', '.join(added)}"):
                machine.install_packages()
        if self.toolbox.missing(CLUSTER_TOOLS):
            self.toolbox.build(CLUSTER_TOOLS)
        self.toolbox.link()
        if self.running() and not (self.paths.state / "pki").exists():
            print("  the state of the running cluster was deleted: it starts anew", flush=True)
            self.down()
        RUNTIME.mkdir(parents=True, exist_ok=True, mode=0o711)
        OWNER.write_text(json.dumps({"clone": str(self.paths.clone), "cache": str(self.paths.cache)}))
        machine.remember(BEFORE)
        self.paths.state.mkdir(parents=True, exist_ok=True)
        network.up()
        with ThreadPoolExecutor() as pool:
            runtime = pool.submit(self._container_runtime)
            keys = self._control_plane()
            runtime.result()
        self._node(keys)
        print(f"The cluster is up. Use it with\n\n  export KUBECONFIG={self.paths.kubeconfig}")

    def _control_plane(self) -> Keys:
        program, state = self.toolbox.program, self.paths.state
        with step("etcd and API server ready"):
            self.process("etcd").start(control_plane.etcd(program, ENDPOINT, ETCD_PEER_PORT, state / "etcd"))
            keys = Keys.create(Authority(state / "pki"), ENDPOINT)
            server = self.process("kube-apiserver")
            server.start(control_plane.api_server(program, ENDPOINT, keys, with_nodes=True))
            wait_until(lambda: answers(f"{ENDPOINT.url}/readyz", keys.authority), "API server ready", server)
        kubeconfig.write(self.paths.kubeconfig, ENDPOINT.url, keys.authority, keys.admin)
        config = self._kubeconfig("controller-manager", keys.authority, keys.controller_manager)
        self.process("kube-controller-manager").start(
            control_plane.controller_manager(program, ENDPOINT, keys, config, CONTROLLER_MANAGER_PORT)
        )
        config = self._kubeconfig("scheduler", keys.authority, keys.scheduler)
        self.process("kube-scheduler").start(control_plane.scheduler(program, ENDPOINT, config, SCHEDULER_PORT))
        return keys

    def _container_runtime(self) -> None:
        program, state = self.toolbox.program, self.paths.state
        with step("containerd ready"):
            cni = state / "cni"
            cni.mkdir(exist_ok=True)
            (cni / "10-winnow.conflist").write_text(network.cni_config(state, network.mtu()))
            config = state / "containerd.toml"
            runc = shutil.which("runc") or "runc"
            config.write_text(node.containerd_config(self.paths.containerd_root, cni, runc))
            containerd = self.process("containerd")
            containerd.start([str(program("containerd")), f"--config={config}"])
            wait_until(self._containerd_answers, "containerd ready", containerd)
            images.import_own(program)
            config = state / "buildkitd.toml"
            config.write_text(node.buildkit_config(self.paths.buildkit_root))
            # Not waited for: only `image` needs it.
            self.process("buildkitd").start([str(program("buildkitd")), f"--config={config}"])

    def _containerd_answers(self) -> bool:
        return subprocess.run(images.ctr(self.toolbox.program, "version"), capture_output=True).returncode == 0

    def _node(self, keys: Keys) -> None:
        program, state, authority = self.toolbox.program, self.paths.state, Authority(self.paths.state / "pki")
        resolv_conf = Path("/etc/resolv.conf")
        with step("node ready"):
            serving = authority.sign("kubelet-server", node.NODE, addresses=[network.NODE_ADDRESS], names=[node.NODE])
            client = authority.sign("kubelet", f"system:node:{node.NODE}", group="system:nodes")
            config = state / "kubelet.json"
            config.write_text(node.kubelet_config(state, keys.authority, serving, resolv_conf))
            kubelet = self.process("kubelet")
            kubelet.start(
                node.kubelet(program, state, config, self._kubeconfig("kubelet", keys.authority, client)),
            )
            client = authority.sign("kube-proxy", "system:kube-proxy")
            proxy = self.process("kube-proxy")
            proxy.start(node.kube_proxy(program, self._kubeconfig("kube-proxy", keys.authority, client)))
            dns = self.process("coredns")
            (state / "Corefile").write_text(node.corefile(self.paths.kubeconfig, _has_nameserver(resolv_conf)))
            dns.start([str(program("coredns")), f"-conf={state / 'Corefile'}"])
            self._volumes()
            health = f"http://{network.NODE_ADDRESS}"
            # First the kubelet itself: after a crash the Node object still says Ready for a while.
            wait_until(lambda: answers_plain(f"{health}:{node.KUBELET_HEALTH_PORT}/healthz"), "kubelet ready", kubelet)
            wait_until(self._node_is_ready, "node ready", kubelet)
            wait_until(lambda: answers_plain(f"{health}:{node.DNS_READY_PORT}/ready"), "CoreDNS ready", dns)
            wait_until(lambda: answers_plain(f"{health}:{node.PROXY_HEALTH_PORT}/healthz"), "kube-proxy ready", proxy)
            wait_until(
                lambda: bool(self.kubectl("get", "serviceaccount", "default", "-n", "default", check=False)),
                "controllers at work", self.process("kube-controller-manager"),
            )  # fmt: skip
            for name in COMPONENTS:
                self.process(name).expect_alive()

    def _volumes(self) -> None:
        """The default StorageClass, and the provisioner behind it."""
        folder, sources = self.paths.state, self.paths.sources / "manifests"
        volumes = folder / "volumes"
        volumes.mkdir(exist_ok=True, mode=0o755)
        self.kubectl("apply", "--server-side", "--force-conflicts", f"--filename={sources / 'storage.yaml'}")
        config = folder / "volumes.json"
        config.write_text(node.provisioner_config(volumes))
        self.process("local-path-provisioner").start(
            node.provisioner(self.toolbox.program, config, sources / "helper-pod.yaml", self.paths.kubeconfig)
        )

    def _kubeconfig(self, name: str, authority: Path, client: KeyPair) -> Path:
        return kubeconfig.write(self.paths.state / f"{name}.kubeconfig", ENDPOINT.url, authority, client)

    def _node_is_ready(self) -> bool:
        path = "jsonpath={.status.conditions[?(@.type=='Ready')].status}"
        return self.kubectl("get", "node", node.NODE, f"--output={path}", check=False) == "True"

    def kubectl(self, *arguments: str, check: bool = True) -> str:
        command = [str(self.toolbox.program("kubectl")), f"--kubeconfig={self.paths.kubeconfig}", *arguments]
        done = subprocess.run(command, capture_output=True, text=True)
        if check and done.returncode:
            raise ClusterError(f"`kubectl {' '.join(arguments)}` failed: {done.stderr.strip()}")
        return done.stdout.strip()

    def expect_up(self) -> None:
        if self.process("kube-apiserver").pid() is None:
            raise ClusterError("no cluster of this clone runs: run `cluster/cluster up` first")

    def ready_to_build(self) -> None:
        buildkitd = self.process("buildkitd")
        if self.process("containerd").pid() is None or buildkitd.pid() is None:
            raise ClusterError("images are built by the running cluster: run `cluster/cluster up` first")
        command = [str(self.toolbox.program("buildctl")), f"--addr=unix://{node.BUILDKIT_SOCKET}", "debug", "workers"]
        wait_until(lambda: subprocess.run(command, capture_output=True).returncode == 0, "BuildKit ready", buildkitd)

    def down(self) -> None:
        """End everything; images stay in the cache, objects and volumes do not."""
        *others, containerd = COMPONENTS
        self._stop([*KEDA.programs, *others])
        if self.process(containerd).pid() is None and (config := self.paths.state / "containerd.toml").exists():
            # Killed by someone: it is needed once more, to forget the containers that its store still names.
            self.process(containerd).start([str(self.toolbox.program("containerd")), f"--config={config}"])
            wait_until(self._containerd_answers, "containerd ready", self.process(containerd))
        if self.process(containerd).pid() is not None:
            leftovers.remove_containers(self.toolbox.program)
        self._stop([containerd])
        leftovers.kill_shims()
        leftovers.unmount(RUNTIME, self.paths.state)
        network.down()
        leftovers.remove_cgroups()
        machine.restore(BEFORE)
        shutil.rmtree(self.paths.state, ignore_errors=True)
        self.paths.kubeconfig.unlink(missing_ok=True)
        shutil.rmtree(RUNTIME, ignore_errors=True)

    def _stop(self, names: Sequence[str]) -> None:
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda name: self.process(name).stop(grace_seconds=3), names))


def current_owner() -> Paths | None:
    """The clone whose cluster this machine runs, or ran last without ending it."""
    if not OWNER.exists():
        return None
    owner = json.loads(OWNER.read_text())
    return Paths(clone=Path(owner["clone"]), cache=Path(owner["cache"]))


def _refuse_other(paths: Paths) -> None:
    owner = current_owner()
    if owner is None and leftovers.has_pods():
        # `down` ends every process in the pods' cgroup, so a stranger's must never be there.
        raise ClusterError("pods of another Kubernetes run on this machine (cgroup kubepods); end it first")
    if owner is not None and owner.clone != paths.clone:
        raise ClusterError(
            f"this machine already runs the cluster of {owner.clone}; end it with `cluster/cluster down --of {owner.clone}`"
        )


def _has_nameserver(resolv_conf: Path) -> bool:
    return resolv_conf.exists() and any(line.startswith("nameserver") for line in resolv_conf.read_text().splitlines())
