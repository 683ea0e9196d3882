"""The Dockerfiles: trainer and server share the layer with torch, and every image runs without rights."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("operator", "trainer-image", "server-image")


def instructions(folder: str) -> list[str]:
    """Each instruction of a Dockerfile on one line, without comments."""
    lines = (ROOT / folder / "Dockerfile").read_text(encoding="utf-8").splitlines()
    text = "\n".join(line for line in lines if line and not line.startswith("#"))
    return text.replace("\\\n", "").splitlines()


def test_trainer_and_server_share_the_layers_up_to_torch() -> None:
    """A builder finds the second image's layer in its cache only when every instruction up to it is the same."""
    trainer, server = instructions("trainer-image"), instructions("server-image")
    torch = next(number for number, line in enumerate(trainer) if "classifier.txt" in line)
    assert trainer[: torch + 1] == server[: torch + 1]
    assert len(trainer) > torch + 1


@pytest.mark.parametrize("folder", FOLDERS)
def test_an_image_runs_as_the_user_that_our_pods_name(folder: str) -> None:
    assert "USER 65532:65532" in instructions(folder)


@pytest.mark.parametrize("folder", FOLDERS)
def test_an_image_installs_only_what_is_pinned_by_hash(folder: str) -> None:
    installs = [line for line in instructions(folder) if "-r /requirements/" in line]
    assert installs
    assert all("--require-hashes" in line for line in installs)


@pytest.mark.parametrize("folder", FOLDERS)
def test_an_install_is_done_again_only_when_its_own_lock_changes(folder: str) -> None:
    """A builder compares all that an instruction mounts: with the folder of locks, any of them would renew torch."""
    for line in instructions(folder):
        read = re.findall(r"-r /(requirements/\w+\.txt)", line)
        mounted = re.findall(r"--mount=type=bind,source=(requirements\S*),target=/(\S+)", line)
        assert mounted == [(lock, lock) for lock in read]


@pytest.mark.parametrize("name", ["classifier", "trainer", "server", "operator", "plugin", "dev"])
def test_a_lock_has_hashes_and_names_no_registry(name: str) -> None:
    text = (ROOT / "requirements" / f"{name}.txt").read_text(encoding="utf-8")
    assert "--hash=sha256:" in text
    assert "://" not in text


@pytest.mark.parametrize("name", ["classifier", "trainer", "server", "operator", "plugin"])
def test_an_image_has_the_versions_that_the_tests_ran_with(name: str) -> None:
    def pins(lock: str) -> set[str]:
        lines = (ROOT / "requirements" / f"{lock}.txt").read_text(encoding="utf-8").splitlines()
        return {line.split(";")[0].strip(" \\") for line in lines if "==" in line and not line.startswith((" ", "#"))}

    assert pins(name) <= pins("dev")


@pytest.mark.parametrize("folder", ["trainer-image", "server-image"])
def test_images_fetch_by_the_hubs_own_address(folder: str) -> None:
    assert any(" HF_HUB_DISABLE_XET=1" in line for line in instructions(folder) if line.startswith("ENV"))


def test_a_builder_that_is_not_there_is_said_to_be_missing() -> None:
    command = [sys.executable, "images/build.py", "push", "--registry", "r.example", "--builder", "no-such"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("images: there is no no-such here; ")
