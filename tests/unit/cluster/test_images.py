"""Images written by hand, the build command, and which images nobody names any more."""

import hashlib
import io
import json
import tarfile
from pathlib import Path

from winnow_cluster import images, oci

LAYOUT, DIGEST = Path("/cache/base/trixie"), "sha256:feed"


def program(name: str) -> Path:
    return Path("/bin", name)


def build(**fields: object) -> list[str]:
    request = images.Build(**{"name": "docker.io/winnow/x:dev", "context": Path("/c"), "file": Path("/d/F"), **fields})  # type: ignore[arg-type]
    return images.build_command(program, request, LAYOUT, DIGEST, ca_bundle=None)


def test_a_layout_names_every_blob_by_its_digest(tmp_path: Path) -> None:
    (tmp_path / "layer").write_bytes(b"layer")
    digest = oci.write_layout(tmp_path / "image", tmp_path / "layer", ["/pause"], name="docker.io/winnow/pause:1")
    blobs = {blob.name: blob.read_bytes() for blob in (tmp_path / "image/blobs/sha256").iterdir()}
    assert all(hashlib.sha256(data).hexdigest() == name for name, data in blobs.items())
    manifest = json.loads(blobs[digest.removeprefix("sha256:")])
    config = json.loads(blobs[manifest["config"]["digest"].removeprefix("sha256:")])
    assert config["rootfs"]["diff_ids"] == [layer["digest"] for layer in manifest["layers"]]
    assert config["config"]["Cmd"] == ["/pause"]
    assert oci.image_digest(tmp_path / "image") == digest


def test_a_layer_holds_programs_and_links_and_is_the_same_every_time(tmp_path: Path) -> None:
    (tmp_path / "busybox").write_text("program")
    layer = oci.layer_of({"bin/busybox": tmp_path / "busybox"}, {"bin/sh": "busybox", "bin/ls": "busybox"})
    with tarfile.open(fileobj=io.BytesIO(layer)) as tar:
        entries = {entry.name: (entry.mode & 0o111 > 0, entry.linkname) for entry in tar}
    assert entries["bin/busybox"] == (True, "")
    assert entries["bin/sh"][1] == "busybox"
    assert layer == oci.layer_of({"bin/busybox": tmp_path / "busybox"}, {"bin/ls": "busybox", "bin/sh": "busybox"})


def test_a_build_takes_the_base_image_from_the_cache_and_the_dockerfile_as_it_is() -> None:
    command = build()
    assert f"--oci-layout=base={LAYOUT}" in command
    assert f"--opt=context:debian:trixie-slim=oci-layout://base@{DIGEST}" in command
    assert {"--local=context=/c", "--local=dockerfile=/d", "--opt=filename=F"} <= set(command)
    assert not any(argument.startswith("--secret") for argument in command)


def test_folders_and_images_can_be_named_as_further_contexts() -> None:
    command = build(contexts={"model": "/models/minilm", "python": "docker-image://docker.io/winnow/python:dev"})
    assert {"--local=context-0=/models/minilm", "--opt=context:model=local:context-0"} <= set(command)
    assert "--opt=context:python=docker-image://docker.io/winnow/python:dev" in command


def test_arguments_and_target_reach_the_dockerfile() -> None:
    assert {"--opt=build-arg:TORCH=cpu", "--opt=target=test"} <= set(build(arguments={"TORCH": "cpu"}, target="test"))


def test_only_images_that_no_tag_names_any_more_are_pruned() -> None:
    found = {
        "docker.io/winnow/trainer:dev": "sha256:new",
        "sha256:config-of-new": "sha256:new",
        "sha256:config-of-old": "sha256:old",
    }
    assert images.unnamed(found) == ["sha256:config-of-old"]
