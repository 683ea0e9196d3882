"""What the parts of the cluster are told, and what is judged before they start."""

import base64
import json
import tomllib
from pathlib import Path

import pytest
import yaml

from winnow_cluster import control_plane, keda, kubeconfig, leftovers, machine, network, node
from winnow_cluster.certificates import KeyPair, subject_names
from winnow_cluster.control_plane import Endpoint, Keys
from winnow_cluster.errors import ClusterError
from winnow_cluster.paths import Paths

ENDPOINT = Endpoint("127.0.0.1", 6443, 2379, "10.0.0.0/16", "10.0.0.1")
PAIR = KeyPair(Path("/pki/x.crt"), Path("/pki/x.key"))
KEYS = Keys(
    Path("/pki/ca.crt"),
    server=PAIR,
    admin=PAIR,
    controller_manager=PAIR,
    scheduler=PAIR,
    tokens=PAIR,
    front_proxy=PAIR,
)


def program(name: str) -> Path:
    return Path("/bin", name)


def test_the_api_server_calls_kubelets_only_where_there_are_any() -> None:
    alone = control_plane.api_server(program, ENDPOINT, KEYS, with_nodes=False)
    whole = control_plane.api_server(program, ENDPOINT, KEYS, with_nodes=True)
    assert "--endpoint-reconciler-type=none" in alone
    assert not any(argument.startswith("--kubelet-") for argument in alone)
    assert "--advertise-address=127.0.0.1" in whole
    assert "--kubelet-preferred-address-types=InternalIP" in whole


def test_the_api_server_finds_kedas_metrics_where_its_adapter_listens() -> None:
    command = keda.adapter(program, Path("/kubeconfig"), Path("/certificates"))
    file = Path(keda.__file__).parents[1] / "manifests" / "keda.yaml"
    (slice_,) = [one for one in yaml.safe_load_all(file.read_text()) if one["kind"] == "EndpointSlice"]
    assert f"--bind-address={slice_['endpoints'][0]['addresses'][0]}" in command
    assert f"--secure-port={slice_['ports'][0]['port']}" in command


def test_containerd_reads_its_configuration_as_meant() -> None:
    config = tomllib.loads(node.containerd_config(Path("/cache/containerd"), Path("/state/cni"), "/usr/sbin/runc"))
    runtime = config["plugins"]["io.containerd.cri.v1.runtime"]
    assert config["version"] == 3
    assert config["root"] == "/cache/containerd"
    assert runtime["netns_mounts_under_state_dir"] is True
    assert runtime["containerd"]["runtimes"]["runc"]["options"]["BinaryName"] == "/usr/sbin/runc"
    assert config["plugins"]["io.containerd.cri.v1.images"]["pinned_images"] == {"sandbox": node.PAUSE_IMAGE}


def test_buildkit_builds_into_the_images_that_pods_use() -> None:
    worker = tomllib.loads(node.buildkit_config(Path("/cache/buildkit")))["worker"]
    assert worker["oci"] == {"enabled": False}
    assert worker["containerd"]["namespace"] == node.IMAGE_NAMESPACE
    assert worker["containerd"]["address"] == str(node.CONTAINERD_SOCKET)


def test_the_kubelet_never_deletes_images_on_its_own() -> None:
    config = json.loads(node.kubelet_config(Path("/state"), Path("/pki/ca.crt"), PAIR, Path("/etc/resolv.conf")))
    assert config["imageGCHighThresholdPercent"] == 100
    assert config["authentication"]["anonymous"] == {"enabled": False}


def test_dns_forwards_only_where_this_machine_has_a_name_server() -> None:
    assert "forward . /etc/resolv.conf" in node.corefile(Path("/k"), has_upstream=True)
    assert "forward" not in node.corefile(Path("/k"), has_upstream=False)


def test_pods_get_addresses_of_the_range_that_the_bridge_routes() -> None:
    plugin = json.loads(network.cni_config(Path("/state"), mtu=1400))["plugins"][0]
    addresses = plugin["ipam"]["ranges"][0][0]
    assert (plugin["bridge"], plugin["mtu"]) == (network.BRIDGE, 1400)
    assert addresses == {"subnet": network.POD_RANGE, "gateway": network.NODE_ADDRESS}


@pytest.mark.parametrize(
    ("route", "meets"),
    [
        pytest.param({"dst": "default", "dev": "eth0"}, False, id="the default route is everywhere"),
        pytest.param({"dst": "192.168.1.0/24", "dev": "eth0"}, False, id="another range"),
        pytest.param({"dst": "10.0.0.0/8", "dev": "tun0"}, True, id="a VPN around ours"),
        pytest.param({"dst": "10.202.7.7", "dev": "eth0"}, True, id="a host inside the Service range"),
        pytest.param({"dst": "10.201.0.0/24", "dev": network.BRIDGE}, False, id="our own bridge, from an earlier run"),
    ],
)
def test_a_route_that_meets_the_clusters_addresses_is_named(route: dict[str, str], meets: bool) -> None:
    assert network.overlapping([route]) == ([f"{route['dst']} dev {route['dev']}"] if meets else [])


def test_mounts_are_undone_from_the_inside_out_and_only_below_the_folders() -> None:
    mountinfo = """\
22 1 0:20 / / rw - ext4 /dev/vda rw
30 22 0:31 / /run/winnow/containerd/rootfs rw - overlay overlay rw
31 30 0:32 / /run/winnow/containerd/rootfs/proc rw - proc proc rw
32 22 0:33 / /run/winnower rw - tmpfs tmpfs rw
33 22 0:34 / /srv/my\\040clone/.local/cluster/kubelet rw - tmpfs tmpfs rw
"""
    assert leftovers.mounts_below(mountinfo, [Path("/run/winnow"), Path("/srv/my clone/.local/cluster")]) == [
        "/srv/my clone/.local/cluster/kubelet",
        "/run/winnow/containerd/rootfs/proc",
        "/run/winnow/containerd/rootfs",
    ]


def test_a_kubeconfig_holds_everything_it_needs() -> None:
    config = json.loads(kubeconfig.render("https://127.0.0.1:1", b"authority", b"certificate", b"key"))
    user = config["users"][0]["user"]
    assert config["clusters"][0]["cluster"]["server"] == "https://127.0.0.1:1"
    assert base64.b64decode(user["client-key-data"]) == b"key"
    assert config["contexts"][0]["name"] == config["current-context"]


def test_addresses_stand_in_certificates_as_addresses() -> None:
    assert subject_names(["10.0.0.1"], ["localhost"]) == "IP:10.0.0.1,DNS:localhost"


def test_a_clone_whose_path_no_socket_can_hold_is_refused_with_advice() -> None:
    with pytest.raises(ClusterError, match="move it"):
        machine.check(Paths(clone=Path("/" + "long/" * 20), cache=Path("/cache")))
