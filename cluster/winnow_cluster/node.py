"""The node's configuration: containerd, kubelet, kube-proxy, CoreDNS, BuildKit and the volume provisioner. Pure."""

import json
from pathlib import Path

from winnow_cluster.certificates import KeyPair
from winnow_cluster.control_plane import DOMAIN, Program
from winnow_cluster.network import NODE_ADDRESS, POD_RANGE
from winnow_cluster.paths import RUNTIME

NODE = "winnow"
CONTAINERD_SOCKET = RUNTIME / "containerd.sock"
BUILDKIT_SOCKET = RUNTIME / "buildkitd.sock"
IMAGE_NAMESPACE = "k8s.io"  # the one that Kubernetes looks in
PAUSE_IMAGE = "docker.io/winnow/pause:1"
BUSYBOX_IMAGE = "docker.io/winnow/busybox:1"
POD_CGROUP = "kubepods"  # the kubelet's own word
BUILD_CGROUP = "winnow-builds"
DNS_READY_PORT = 8181
PROXY_HEALTH_PORT = 10256
KUBELET_HEALTH_PORT = 10248


def containerd_config(root: Path, cni: Path, runc: str) -> str:
    return f"""\
version = 3
root = "{root}"
state = "{RUNTIME}/containerd"
# Snapshotters that probe for file systems we do not use, and a plugin that makes /opt/containerd.
disabled_plugins = [
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs",
  "io.containerd.snapshotter.v1.blockfile", "io.containerd.snapshotter.v1.erofs", "io.containerd.nri.v1.nri",
  "io.containerd.internal.v1.opt",
]

[grpc]
  address = "{CONTAINERD_SOCKET}"

[plugins.'io.containerd.cri.v1.runtime']
  restrict_oom_score_adj = true        # the machine may not let us lower it
  disable_apparmor = true
  netns_mounts_under_state_dir = true  # so that `down` finds every network namespace of ours
  [plugins.'io.containerd.cri.v1.runtime'.cni]
    bin_dirs = ["/usr/lib/cni"]
    conf_dir = "{cni}"
  [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
      BinaryName = "{runc}"
      SystemdCgroup = false

[plugins.'io.containerd.cri.v1.images'.pinned_images]
  sandbox = "{PAUSE_IMAGE}"            # the usual one would have to be pulled
"""


def kubelet_config(state: Path, authority: Path, server: KeyPair, resolv_conf: Path) -> str:
    config = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": NODE_ADDRESS,
        "healthzBindAddress": NODE_ADDRESS,
        "healthzPort": KUBELET_HEALTH_PORT,
        "authentication": {
            "anonymous": {"enabled": False},
            "x509": {"clientCAFile": str(authority)},
            "webhook": {"enabled": True},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(server.certificate),
        "tlsPrivateKeyFile": str(server.key),
        "containerRuntimeEndpoint": f"unix://{CONTAINERD_SOCKET}",
        "clusterDNS": [NODE_ADDRESS],
        "clusterDomain": DOMAIN,
        "resolvConf": str(resolv_conf),
        "podLogsDir": str(state / "pod-logs"),
        "volumePluginDir": str(state / "volume-plugins"),
        # Containers and virtual machines often have controllers in cgroup v1 only, and no systemd.
        "failCgroupV1": False,
        "cgroupDriver": "cgroupfs",
        # Root without CAP_SYS_RESOURCE may not lower oom_score_adj or set some kernel parameters: do not die of that.
        "featureGates": {"KubeletInUserNamespace": True},
        "oomScoreAdj": 0,
        "failSwapOn": False,
        "makeIPTablesUtilChains": False,  # kube-proxy speaks nftables; these chains would only be left behind
        # A developer's disk may be nearly full; images are ours to prune, not the kubelet's to delete.
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "serializeImagePulls": False,
    }
    return json.dumps(config, indent=1)


def kubelet(program: Program, state: Path, config: Path, kubeconfig: Path) -> list[str]:
    return [
        str(program("kubelet")),
        f"--config={config}",
        f"--kubeconfig={kubeconfig}",
        f"--root-dir={state / 'kubelet'}",
        f"--hostname-override={NODE}",
        f"--node-ip={NODE_ADDRESS}",
    ]


def kube_proxy(program: Program, kubeconfig: Path) -> list[str]:
    return [
        str(program("kube-proxy")),
        f"--kubeconfig={kubeconfig}",
        f"--hostname-override={NODE}",
        "--proxy-mode=nftables",
        f"--cluster-cidr={POD_RANGE}",
        f"--healthz-bind-address={NODE_ADDRESS}:{PROXY_HEALTH_PORT}",
        f"--metrics-bind-address={NODE_ADDRESS}:10249",
        # Leave the kernel's connection tracking as it is: a container's root may not set it.
        "--conntrack-max-per-core=0",
        "--conntrack-tcp-timeout-established=0",
        "--conntrack-tcp-timeout-close-wait=0",
    ]


def corefile(kubeconfig: Path, has_upstream: bool) -> str:
    """Service names from the API, everything else from this machine's own resolvers, where it has any."""
    upstream = "forward . /etc/resolv.conf\n  " if has_upstream else ""
    return f"""\
. {{
  bind {NODE_ADDRESS}
  errors
  ready {NODE_ADDRESS}:{DNS_READY_PORT}
  kubernetes {DOMAIN} in-addr.arpa {{
    kubeconfig {kubeconfig}
    fallthrough in-addr.arpa
  }}
  {upstream}cache 30 {{
    # A Service made a moment ago is there at the next question.
    disable success {DOMAIN}
    disable denial {DOMAIN}
  }}
}}
"""


def buildkit_config(root: Path) -> str:
    return f"""\
root = "{root}"
[grpc]
  address = ["unix://{BUILDKIT_SOCKET}"]
[worker.oci]
  enabled = false
[worker.containerd]
  enabled = true
  address = "{CONTAINERD_SOCKET}"
  namespace = "{IMAGE_NAMESPACE}"
  networkMode = "host"
  defaultCgroupParent = "{BUILD_CGROUP}"
  gc = true
  maxUsedSpace = "30GB"
"""


def provisioner(program: Program, config: Path, helper_pod: Path, kubeconfig: Path) -> list[str]:
    return [
        str(program("local-path-provisioner")),
        "start",
        f"--config={config}",
        f"--kubeconfig={kubeconfig}",
        f"--helper-pod-file={helper_pod}",
        f"--helper-image={BUSYBOX_IMAGE}",
        "--namespace=local-path-storage",
        "--service-account-name=default",
        "--configmap-name=local-path-config",
        # A claim whose pod comes minutes later must still be served.
        "--provisioning-retry-count=0",
        "--deletion-retry-count=0",
    ]


def provisioner_config(volumes: Path) -> str:
    """Where volumes lie; the scripts run in the helper pod."""
    paths = [{"node": "DEFAULT_PATH_FOR_NON_LISTED_NODES", "paths": [str(volumes)]}]
    return json.dumps({"nodePathMap": paths})
