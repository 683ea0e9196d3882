"""The program that a kubeconfig names to log in with, run as kubectl runs it: what it asks and says is seen, and can be answered."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from winnow_classifier.errors import ConfigError

# Of a cluster in a kubeconfig, under the same names in the ExecCredential; `config` comes beside them.
CLUSTER = ("server", "tls-server-name", "insecure-skip-tls-verify", "certificate-authority-data", "proxy-url")
CONFIG = "client.authentication.k8s.io/exec"


async def credentials(program: Mapping[str, Any], cluster: Mapping[str, Any], folder: Path) -> dict[str, str]:
    """What the program gives, as fields of a kubeconfig's user; `folder` is that of the kubeconfig. Raises ConfigError."""
    name = str(program["command"])
    mode = program.get("interactiveMode", "IfAvailable")
    interactive = mode != "Never" and sys.stdin.isatty()
    if mode == "Always" and not interactive:
        raise _failed(name, "it wants to ask you, and standard input is not a terminal")
    spec: dict[str, Any] = {"interactive": interactive}
    if program.get("provideClusterInfo"):
        spec["cluster"] = _told(cluster, folder)
    asked = {"apiVersion": program["apiVersion"], "kind": "ExecCredential", "spec": spec}
    process = await _start(program, name, folder, json.dumps(asked), interactive)
    said, _ = await process.communicate()
    if process.returncode:
        raise _failed(name, f"exit code {process.returncode}")
    return _read(name, said)


async def _start(
    program: Mapping[str, Any], name: str, folder: Path, asked: str, interactive: bool
) -> asyncio.subprocess.Process:
    given = {str(item["name"]): str(item["value"]) for item in program.get("env") or ()}
    try:
        return await asyncio.create_subprocess_exec(
            _executable(name, folder),
            *map(str, program.get("args") or ()),
            env={**os.environ, **given, "KUBERNETES_EXEC_INFO": asked},
            stdin=None if interactive else subprocess.DEVNULL,
            stdout=subprocess.PIPE,  # its stderr is ours: there it asks to open a page, and says why it fails
        )
    except OSError as err:
        raise _failed(name, err.strerror or str(err), str(program.get("installHint") or "").strip()) from err


def _executable(name: str, folder: Path) -> str:
    """A bare name is looked up on the PATH, any other one beside the kubeconfig."""
    return str((folder / name).absolute()) if Path(name).name != name else name


def _read(name: str, said: bytes) -> dict[str, str]:
    try:
        status = json.loads(said)["status"]
        certificate = {
            f"client-{field}-data": base64.b64encode(status[f"client{field.title()}Data"].encode()).decode()
            for field in ("certificate", "key")
            if status.get(f"client{field.title()}Data")
        }
        found = {**({"token": str(status["token"])} if status.get("token") else {}), **certificate}
    except (ValueError, LookupError, TypeError, AttributeError):
        raise _failed(name, "what it prints is no ExecCredential") from None
    if not found or len(certificate) == 1:
        raise _failed(name, "its ExecCredential has no token, nor a certificate with its key")
    return found


def _told(cluster: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    told = {field: cluster[field] for field in CLUSTER if field in cluster}
    if (file := cluster.get("certificate-authority")) and "certificate-authority-data" not in told:
        told["certificate-authority-data"] = base64.b64encode((folder / file).read_bytes()).decode()
    for extension in cluster.get("extensions") or ():
        if extension["name"] == CONFIG:
            told["config"] = extension["extension"]
    return told


def _failed(name: str, why: str, hint: str = "") -> ConfigError:
    return ConfigError(
        f"{name}, which the kubeconfig names to log in with, failed: {why}",
        hint=hint or "log in anew, as with kubectl, which runs the same program",
    )
