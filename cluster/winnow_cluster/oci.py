"""OCI images written by hand: a layer, a config and a manifest in a folder, without pulling or building anything."""

import hashlib
import io
import json
import shutil
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

LAYER = "application/vnd.oci.image.layer.v1.tar"
CONFIG = "application/vnd.oci.image.config.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"


def layer_of(files: Mapping[str, Path], links: Mapping[str, str] | None = None) -> bytes:
    """A tar with executables (path in the image → file here) and symbolic links (path → target)."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, source in sorted(files.items()):
            data = source.read_bytes()
            entry = tarfile.TarInfo(name)
            entry.mode, entry.size = 0o755, len(data)
            tar.addfile(entry, io.BytesIO(data))
        for name, target in sorted((links or {}).items()):
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = tarfile.SYMTYPE, target
            tar.addfile(entry)
    return buffer.getvalue()


def image_config(layer_digest: str, command: Sequence[str]) -> dict[str, Any]:
    return {
        "architecture": "amd64",
        "os": "linux",
        "config": {
            "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
            "Cmd": list(command),
            "WorkingDir": "/",
        },
        # Uncompressed, so the digest of the layer is that of its content too.
        "rootfs": {"type": "layers", "diff_ids": [layer_digest]},
    }


def write_layout(folder: Path, layer: Path, command: Sequence[str], name: str | None = None) -> str:
    """Make an OCI layout with one image of one layer, which is moved in; returns the manifest's digest."""
    blobs = folder / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    with layer.open("rb") as file:
        layer_hex = hashlib.file_digest(file, "sha256").hexdigest()
    layer_size = layer.stat().st_size
    shutil.move(layer, blobs / layer_hex)

    def blob(value: dict[str, Any], media_type: str) -> dict[str, Any]:
        data = json.dumps(value, sort_keys=True).encode()
        digest = hashlib.sha256(data).hexdigest()
        (blobs / digest).write_bytes(data)
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}

    config = blob(image_config(f"sha256:{layer_hex}", command), CONFIG)
    layers = [{"mediaType": LAYER, "digest": f"sha256:{layer_hex}", "size": layer_size}]
    manifest = blob({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers}, MANIFEST)
    if name:
        manifest["annotations"] = {"io.containerd.image.name": name}
    index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [manifest]}
    (folder / "index.json").write_text(json.dumps(index))
    (folder / "oci-layout").write_text(json.dumps({"imageLayoutVersion": "1.0.0"}))
    return str(manifest["digest"])


def archive(layout: Path, target: Path) -> None:
    """Pack a layout into the tar that `ctr images import` reads."""
    with tarfile.open(target, "w") as tar:
        for entry in sorted(layout.iterdir()):
            tar.add(entry, arcname=entry.name)


def image_digest(layout: Path) -> str:
    """The digest of the one image of a layout."""
    index = json.loads((layout / "index.json").read_text())
    return str(index["manifests"][0]["digest"])
