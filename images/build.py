"""Build every image of Winnow that is missing or whose inputs changed: into the local cluster, or to a registry.

`build.py local` builds with the cluster's BuildKit straight into its containerd. `build.py push --registry R --tag T`
builds the three images of the product with docker, podman or buildah and pushes them: R/operator:T and so on.
`build.py mark NAME` prints a word that changes with what the image is made of, for a pod template to carry.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "winnow" / "images"
CLUSTER = str(ROOT / "cluster" / "cluster")


@dataclass(frozen=True, slots=True)
class Image:
    name: str
    dockerfile: Path
    inputs: tuple[Path, ...]  # what the image is made of: a change here builds it again
    prepare: Path | None = None  # a program that writes the build context, where it is not the repository


def product(name: str, folder: str, requirements: tuple[str, ...], sources: tuple[str, ...]) -> Image:
    inputs = [ROOT / folder / "Dockerfile", *(ROOT / "requirements" / f"{part}.txt" for part in requirements)]
    packages = [ROOT / source / part for source in sources for part in ("pyproject.toml", "src")]
    return Image(name, ROOT / folder / "Dockerfile", (*inputs, *packages))


def content(name: str) -> Image:
    dockerfile, prepare = ROOT / "images" / "Dockerfile", ROOT / "images" / name / "prepare.py"
    return Image(name, dockerfile, (dockerfile, prepare), prepare)


PRODUCT = (
    product("operator", "operator", ("operator",), ("operator",)),
    product("trainer", "trainer-image", ("classifier", "trainer"), ("classifier", "trainer-image")),
    product("server", "server-image", ("classifier", "server"), ("classifier", "server-image")),
)
CONTENT = (content("base-minilm"), content("base-tiny-llama"), content("email-spam-rows"))


def files(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
    else:
        skipped = ("__pycache__", ".egg-info")
        found = (file for file in sorted(path.rglob("*")) if file.is_file())
        yield from (file for file in found if not any(part.endswith(skipped) for part in file.parts))


def fingerprint(image: Image) -> str:
    digest = hashlib.sha256()
    for path in image.inputs:
        for file in files(path):
            digest.update(f"{file.relative_to(ROOT)}\0".encode() + hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def in_containerd() -> set[str]:
    """Names of the images that the local cluster has."""
    done = subprocess.run([CLUSTER, "image-list"], stdout=subprocess.PIPE, text=True, check=True)
    return set(done.stdout.split())


def context(image: Image, mark: str) -> Path:
    """The folder an image is built from: the repository, or what its program prepares, kept in the cache by content."""
    if image.prepare is None:
        return ROOT
    folder = CACHE / f"{image.name}-{mark[:12]}"
    if not folder.is_dir():
        fresh = folder.with_name(f"{folder.name}.new")
        shutil.rmtree(fresh, ignore_errors=True)
        subprocess.run([sys.executable, str(image.prepare), str(fresh)], check=True)
        fresh.rename(folder)
    return folder


def build_local() -> None:
    have = in_containerd()
    CACHE.mkdir(parents=True, exist_ok=True)
    for image in (*CONTENT, *PRODUCT):
        name, mark, stamp = f"docker.io/winnow/{image.name}:dev", fingerprint(image), CACHE / f"{image.name}.built"
        if name in have and stamp.exists() and stamp.read_text() == mark:
            print(f"  {name} is there")
            continue
        started = time.monotonic()
        command = [CLUSTER, "image", "--name", name, "--context", str(context(image, mark))]
        subprocess.run([*command, "--file", str(image.dockerfile)], check=True)
        stamp.write_text(mark)
        print(f"  {name} built in {time.monotonic() - started:.0f} s", flush=True)


def push(registry: str, tag: str, builder: str) -> None:
    if shutil.which(builder) is None:
        sys.exit(
            f"images: there is no {builder} here; --builder (with make: BUILDER=…) takes docker, podman or buildah"
        )
    # The certificates of a proxy that inspects TLS, where the machine says that it has some: see the Dockerfiles.
    certificates = os.environ.get("SSL_CERT_FILE")
    secret = ["--secret", f"id=ca,src={certificates}"] if certificates else []
    for image in PRODUCT:
        name = f"{registry}/{image.name}:{tag}"
        subprocess.run([builder, "build", *secret, "-f", str(image.dockerfile), "-t", name, str(ROOT)], check=True)
        subprocess.run([builder, "push", name], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("local")
    to_registry = commands.add_parser("push")
    mark = commands.add_parser("mark", help="print what changes when an image of the product is built anew")
    mark.add_argument("name", choices=[image.name for image in PRODUCT])
    to_registry.add_argument("--registry", required=True, help="for example registry.example.com/team/winnow")
    to_registry.add_argument("--tag", default="dev")
    to_registry.add_argument("--builder", default="docker", help="docker, podman or buildah")
    arguments = parser.parse_args()
    if arguments.command == "local":
        build_local()
    elif arguments.command == "mark":
        print(next(fingerprint(image)[:16] for image in PRODUCT if image.name == arguments.name))
    else:
        push(arguments.registry, arguments.tag, arguments.builder)


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as err:
        sys.exit(f"images: `{' '.join(map(str, err.cmd))}` ended with {err.returncode}; its output above says why")
