"""What the machine must have: the right kind, Debian packages, and kernel settings that are put back at the end."""

import json
import os
import platform
import shutil
import subprocess
from pathlib import Path

from winnow_cluster.errors import ClusterError
from winnow_cluster.paths import Paths

# A program or file that shows that a package is there, and the package. dpkg is not asked: a runc that came with Docker
# is as good as Debian's, and the two packages exclude each other.
PACKAGES = {
    "runc": "runc",
    "/usr/lib/cni/bridge": "containernetworking-plugins",
    "nft": "nftables",
    "conntrack": "conntrack",
    "debootstrap": "debootstrap",
    "/usr/share/keyrings/debian-archive-keyring.gpg": "debian-archive-keyring",  # debootstrap on Ubuntu
    "/usr/bin/busybox": "busybox-static",
    "ip": "iproute2",
    "openssl": "openssl",
    "modprobe": "kmod",
    "/etc/ssl/certs/ca-certificates.crt": "ca-certificates",
}
# Paths that are built into these programs, whatever they are told: removed at the end where they were not there before.
BUILT_IN_FOLDERS = (
    "/var/lib/kubelet",  # the kubelet's device manager
    "/var/log/containers",  # the kubelet's links to logs
    "/var/lib/cni",  # libcni's cache
    "/run/containerd",  # the shims' sockets
    "/run/buildkit",
)
# The kubelet, kube-proxy and we set these.
KERNEL_SETTINGS = (
    "net/ipv4/ip_forward",
    "net/ipv4/conf/all/route_localnet",
    "vm/overcommit_memory",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
)
# <state>/kubelet/pod-resources/kubelet.sock must fit into the 108 bytes of a Unix socket's address.
LONGEST_CLONE_PATH = 60


def check(paths: Paths) -> None:
    """Refuse in words what cannot work."""
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        raise ClusterError(f"needs Linux on x86-64, this is {platform.system()} on {platform.machine()}")
    if os.geteuid() != 0:
        raise ClusterError("needs root: it makes network interfaces, mounts and containers")
    if shutil.which("apt-get") is None:
        raise ClusterError("needs Debian or Ubuntu: there is no apt-get here")
    if len(str(paths.clone)) > LONGEST_CLONE_PATH:
        raise ClusterError(
            f"the path of this clone is too long for the kubelet's sockets ({len(str(paths.clone))} characters, at most "
            f"{LONGEST_CLONE_PATH}): move it, for example to /srv/winnow"
        )


def missing_packages() -> list[str]:
    return [package for sign, package in PACKAGES.items() if not _present(sign)]


def _present(sign: str) -> bool:
    return Path(sign).exists() if sign.startswith("/") else shutil.which(sign) is not None


def install_packages() -> list[str]:
    """Install what is missing and say what that was; asks the network only where something is."""
    missing = missing_packages()
    if missing:
        _apt("update", "-qq")
        _apt("install", "-y", "-qq", "--no-install-recommends", "--no-remove", *missing)
    still = missing_packages()
    if still:
        raise ClusterError(f"apt-get installed {', '.join(still)}, but their files are not where they are expected")
    return missing


def _apt(*arguments: str) -> None:
    done = subprocess.run(
        ["apt-get", *arguments],
        env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode:
        raise ClusterError(f"`apt-get {' '.join(arguments)}` failed:\n{done.stdout[-2000:]}")


def remember(file: Path) -> None:
    """Write down once how the machine was, so that `restore` can put it back."""
    if file.exists():
        return
    settings = {
        name: path.read_text().strip() for name in KERNEL_SETTINGS if (path := Path("/proc/sys", name)).exists()
    }
    file.write_text(
        json.dumps({"kernel": settings, "folders": [name for name in BUILT_IN_FOLDERS if Path(name).exists()]})
    )


def restore(file: Path) -> None:
    if not file.exists():
        return
    before = json.loads(file.read_text())
    for name, value in before["kernel"].items():
        path = Path("/proc/sys", name)
        if path.read_text().strip() != value:
            path.write_text(value)
    for name in BUILT_IN_FOLDERS:
        if name not in before["folders"]:
            shutil.rmtree(name, ignore_errors=True)
