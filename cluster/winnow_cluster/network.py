"""The node's network: a bridge with the node's address, the way out for pods, and what `down` takes away again."""

import ipaddress
import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from winnow_cluster.errors import ClusterError

BRIDGE = "winnow0"
POD_RANGE = "10.201.0.0/24"  # the kubelet's default of 110 pods fits
NODE_ADDRESS = "10.201.0.1"  # the bridge's; the API server, the kubelet and DNS listen there, and nowhere else
SERVICE_RANGE = "10.202.0.0/16"
SERVICE_ADDRESS = "10.202.0.1"  # `kubernetes.default`
NFT_TABLE = "winnow"
# kube-proxy makes these in nftables mode and leaves them when it ends.
KUBE_PROXY_TABLES = (("ip", "kube-proxy"), ("ip6", "kube-proxy"))

# One rule of ours instead of the bridge plugin's ipMasq, which adds an iptables chain for each pod and leaves them
# behind when a pod is not torn down in order.
MASQUERADE = f"""
table ip {NFT_TABLE} {{
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr {POD_RANGE} ip daddr != {POD_RANGE} masquerade
  }}
}}
"""


def cni_config(state: Path, mtu: int) -> str:
    """Every pod gets an address of the bridge's range; hairpin lets a pod reach itself through its own Service."""
    bridge = {
        "type": "bridge",
        "bridge": BRIDGE,
        "isGateway": True,
        "hairpinMode": True,
        "mtu": mtu,
        "ipam": {
            "type": "host-local",
            "dataDir": str(state / "cni-addresses"),
            "ranges": [[{"subnet": POD_RANGE, "gateway": NODE_ADDRESS}]],
            "routes": [{"dst": "0.0.0.0/0"}],
        },
    }
    return json.dumps({"cniVersion": "1.0.0", "name": "winnow", "plugins": [bridge]}, indent=1)


def overlapping(routes: Sequence[dict[str, Any]]) -> list[str]:
    """Routes of this machine that meet our ranges; `routes` as `ip -json route` prints them."""
    ours = [ipaddress.ip_network(POD_RANGE), ipaddress.ip_network(SERVICE_RANGE)]
    found = []
    for route in routes:
        if route["dst"] == "default" or route.get("dev") == BRIDGE:
            continue
        if any(ipaddress.ip_network(route["dst"]).overlaps(network) for network in ours):
            found.append(f"{route['dst']} dev {route.get('dev')}")
    return found


def mtu() -> int:
    """The smallest of the ways out, so that no pod sends packets that this machine cannot pass on."""
    ways_out = json.loads(_run("ip", "-4", "-json", "route", "show", "default") or "[]")
    sizes = [int(Path("/sys/class/net", route["dev"], "mtu").read_text()) for route in ways_out]
    return min(sizes, default=1500)


def up() -> None:
    taken = overlapping(json.loads(_run("ip", "-4", "-json", "route") or "[]"))
    if taken:
        raise ClusterError(
            f"the cluster's addresses {POD_RANGE} and {SERVICE_RANGE} meet a route here: {', '.join(taken)}"
        )
    # For bridged packets to pass the Service rules; part of the kernel or absent, the cluster's own check comes later.
    subprocess.run(["modprobe", "-a", "br_netfilter", "overlay"], capture_output=True)
    if not Path(f"/sys/class/net/{BRIDGE}").exists():
        _run("ip", "link", "add", BRIDGE, "type", "bridge")
    _run("ip", "address", "replace", f"{NODE_ADDRESS}/{ipaddress.ip_network(POD_RANGE).prefixlen}", "dev", BRIDGE)
    _run("ip", "link", "set", BRIDGE, "up")
    # So that this machine reaches Services even where it has no default route.
    _run("ip", "route", "replace", SERVICE_RANGE, "dev", BRIDGE)
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    _remove_table("ip", NFT_TABLE)
    subprocess.run(["nft", "-f", "-"], input=MASQUERADE, text=True, check=True)


def down() -> None:
    for family, table in (("ip", NFT_TABLE), *KUBE_PROXY_TABLES):
        _remove_table(family, table)
    if Path(f"/sys/class/net/{BRIDGE}").exists():
        _run("ip", "link", "delete", BRIDGE)


def _remove_table(family: str, table: str) -> None:
    subprocess.run(["nft", "delete", "table", family, table], capture_output=True)


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise ClusterError(f"`{' '.join(command)}` failed: {done.stderr.strip()}")
    return done.stdout
