"""Images, straight into the containerd that runs the pods: two tiny ones of ours, and those BuildKit builds."""

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from winnow_cluster import oci
from winnow_cluster.control_plane import Program
from winnow_cluster.errors import ClusterError
from winnow_cluster.node import BUILDKIT_SOCKET, BUSYBOX_IMAGE, CONTAINERD_SOCKET, IMAGE_NAMESPACE, PAUSE_IMAGE
from winnow_cluster.paths import Paths

BASE_RELEASE = "trixie"
BASE_NAME = f"debian:{BASE_RELEASE}-slim"
# What the -slim images of Debian leave out: nobody reads manuals in a container.
UNREAD = ("usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/info", "var/cache/apt", "var/lib/apt/lists")
# The usual places of the certificates that this machine trusts, a TLS-inspecting proxy's among them.
CA_BUNDLES = ("SSL_CERT_FILE", "/etc/ssl/certs/ca-certificates.crt")


def ctr(program: Program, *arguments: str) -> list[str]:
    return [str(program("ctr")), f"--address={CONTAINERD_SOCKET}", f"--namespace={IMAGE_NAMESPACE}", *arguments]


def present(program: Program) -> dict[str, str]:
    """The images containerd has: name → digest."""
    done = subprocess.run(ctr(program, "images", "list"), capture_output=True, text=True)
    if done.returncode:
        raise ClusterError(f"containerd does not answer: {done.stderr.strip()}; is the cluster up?")
    rows = (line.split() for line in done.stdout.splitlines()[1:])
    return {row[0]: row[2] for row in rows}


def import_own(program: Program) -> None:
    """The sandbox image of every pod, and the one with a shell that makes and removes volume folders."""
    have = present(program)
    if PAUSE_IMAGE not in have:
        _import(program, PAUSE_IMAGE, oci.layer_of({"pause": program("pause")}), ["/pause"])
    if BUSYBOX_IMAGE not in have:
        busybox = Path("/usr/bin/busybox")
        applets = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True).stdout.split()
        links = {f"bin/{applet}": "busybox" for applet in applets if applet != "busybox"}
        _import(program, BUSYBOX_IMAGE, oci.layer_of({"bin/busybox": busybox}, links), ["sh"])


def _import(program: Program, name: str, layer: bytes, command: Sequence[str]) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "layer").write_bytes(layer)
        oci.write_layout(folder / "image", folder / "layer", command, name)
        oci.archive(folder / "image", folder / "image.tar")
        done = subprocess.run(
            ctr(program, "images", "import", str(folder / "image.tar")), capture_output=True, text=True
        )
    if done.returncode:
        raise ClusterError(f"containerd does not take the image {name}: {done.stderr.strip()}")


def base_layout(paths: Paths) -> Path:
    """Debian's minimal root file system as an OCI layout, made once by debootstrap."""
    layout = paths.cache / "base" / BASE_RELEASE
    if layout.is_dir():
        return layout
    print(f"  {BASE_NAME}: debootstrap …", flush=True)
    started = time.monotonic()
    layout.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=layout.parent, prefix=".new-") as temporary:
        folder, root = Path(temporary), Path(temporary, "root")
        log = folder / "log"
        with log.open("wb") as output:
            # No mirror is named: debootstrap asks Debian's own.
            done = subprocess.run(
                ["debootstrap", "--variant=minbase", BASE_RELEASE, str(root)], stdout=output, stderr=output
            )
        if done.returncode:
            raise ClusterError(f"debootstrap failed:\n{log.read_text(errors='replace')[-2000:]}")
        for name in UNREAD:
            for entry in (root / name).iterdir():
                shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
        subprocess.run(["tar", "--numeric-owner", "--sort=name", "-C", root, "-cf", folder / "layer", "."], check=True)
        oci.write_layout(folder / "image", folder / "layer", ["bash"])
        # Another build may have made it meanwhile; a layout in place is as good as ours.
        with contextlib.suppress(OSError):
            (folder / "image").rename(layout)
    print(f"  {BASE_NAME}: made in {time.monotonic() - started:.0f} s", flush=True)
    return layout


@dataclass(frozen=True)
class Build:
    """One image to build, as `docker build` would be asked."""

    name: str
    context: Path
    file: Path
    contexts: Mapping[str, str] = field(default_factory=dict)  # --build-context NAME=FOLDER or NAME=docker-image://…
    arguments: Mapping[str, str] = field(default_factory=dict)  # --build-arg
    target: str | None = None


def build_command(program: Program, build: Build, layout: Path, digest: str, ca_bundle: Path | None) -> list[str]:
    command = [
        str(program("buildctl")), f"--addr=unix://{BUILDKIT_SOCKET}", "build", "--progress=plain",
        "--frontend=dockerfile.v0",
        f"--local=context={build.context}",
        f"--local=dockerfile={build.file.parent}",
        f"--opt=filename={build.file.name}",
        f"--oci-layout=base={layout}",
        # The Dockerfile says `FROM debian:trixie-slim`, which cannot be pulled here; anywhere else it can.
        f"--opt=context:{BASE_NAME}=oci-layout://base@{digest}",
        f"--opt=context:docker.io/library/{BASE_NAME}=oci-layout://base@{digest}",
        "--opt=image-resolve-mode=local",
    ]  # fmt: skip
    for number, (name, where) in enumerate(build.contexts.items()):
        if "://" in where:
            command.append(f"--opt=context:{name}={where}")
        else:
            command += [f"--local=context-{number}={where}", f"--opt=context:{name}=local:context-{number}"]
    command += [f"--opt=build-arg:{name}={value}" for name, value in build.arguments.items()]
    if build.target:
        command.append(f"--opt=target={build.target}")
    if ca_bundle:
        command.append(f"--secret=id=ca,src={ca_bundle}")
    # Compressing 4 GB of torch takes longer than everything else, and nothing is sent anywhere.
    output = f"type=image,name={build.name},compression=uncompressed,force-compression=true,unpack=true"
    return [*command, f"--output={output}"]


def ca_bundle() -> Path | None:
    for place in CA_BUNDLES:
        path = Path(place if place.startswith("/") else os.environ.get(place, ""))
        if path.is_file():
            return path
    return None


def build(paths: Paths, program: Program, request: Build) -> None:
    layout = base_layout(paths)
    digest = oci.image_digest(layout)
    started = time.monotonic()
    command = build_command(program, request, layout, digest, ca_bundle())
    log = paths.state / "log" / f"image-{request.name.replace('/', '-').replace(':', '-')}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        done = subprocess.run(command, stdout=output, stderr=subprocess.STDOUT)
    if done.returncode:
        text = log.read_text(errors="replace").splitlines()
        raise ClusterError("\n".join([f"building {request.name} failed; log: {log}", *text[-40:]]))
    remove_replaced(program)
    print(f"  {request.name}: built in {time.monotonic() - started:.1f} s", flush=True)


def unnamed(images: Mapping[str, str]) -> list[str]:
    """The names containerd's Kubernetes side gave to images that have been built anew since."""
    named = {digest for name, digest in images.items() if not name.startswith("sha256:")}
    return sorted(name for name, digest in images.items() if name.startswith("sha256:") and digest not in named)


def remove_replaced(program: Program) -> int:
    """Forget images that were built anew; without this every rebuild of a torch layer costs 10 GB of disk."""
    old = unnamed(present(program))
    if old:
        # One that another build removes at the same moment is no failure.
        subprocess.run(ctr(program, "images", "remove", *old), capture_output=True)
    return len(old)


def prune(program: Program) -> None:
    """Remove replaced images and BuildKit's cache; what a tag names stays."""
    removed = remove_replaced(program)
    command = [str(program("buildctl")), f"--addr=unix://{BUILDKIT_SOCKET}", "prune", "--all"]
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    print(f"  removed {removed} replaced images and the build cache")
