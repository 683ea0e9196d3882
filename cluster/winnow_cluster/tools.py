"""The Go programs the cluster is made of: which, from which module, and how they are built into the cache."""

import hashlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from winnow_cluster.errors import ClusterError
from winnow_cluster.paths import Paths

KUBERNETES_VERSION = "1.36.3"
HELM_VERSION = "3.22.0"
HELM_KUBERNETES = ("1", "37")  # of the client-go that it is built with, as its own Makefile has it


@dataclass(frozen=True)
class Tool:
    """One go.mod folder below cluster/tools and the programs it yields, under the names they are called by."""

    name: str
    programs: tuple[str, ...]
    stamps: tuple[str, ...] = ()  # variables the linker sets
    renames: tuple[tuple[str, str], ...] = ()  # what `go build` calls it → what we call it
    module: str = ""  # whose `files` are kept beside the programs
    files: tuple[str, ...] = ()

    @property
    def ldflags(self) -> str:
        return " ".join(["-s", "-w", *(f"-X {stamp}" for stamp in self.stamps)])


def _version_stamps(version: str) -> tuple[str, ...]:
    """Without these kubectl and the node call themselves v0.0.0-master, and clients judge features by it."""
    major, minor, _ = version.split(".")
    package = "k8s.io/component-base/version"
    return (f"{package}.gitVersion=v{version}", f"{package}.gitMajor={major}", f"{package}.gitMinor={minor}")


def _helm_stamps() -> tuple[str, ...]:
    """Without these helm takes a cluster that it is not told of for 1.20, which the chart refuses."""
    module, (major, minor) = "helm.sh/helm/v3", HELM_KUBERNETES
    kubernetes = (
        stamp
        for package in ("pkg/chartutil", "pkg/lint/rules")
        for stamp in (f"{module}/{package}.k8sVersionMajor={major}", f"{module}/{package}.k8sVersionMinor={minor}")
    )
    return (f"{module}/internal/version.version=v{HELM_VERSION}", *kubernetes)


CLUSTER_TOOLS = (
    Tool("etcd", ("etcd",), renames=(("server", "etcd"),)),
    Tool(
        "kubernetes",
        ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "kubectl"),
        stamps=_version_stamps(KUBERNETES_VERSION),
    ),
    Tool("containerd", ("containerd", "containerd-shim-runc-v2", "ctr")),
    Tool("buildkit", ("buildkitd", "buildctl")),
    Tool("coredns", ("coredns",)),
    Tool("local-path-provisioner", ("local-path-provisioner",)),
    Tool("helm", ("helm",), stamps=_helm_stamps()),
    Tool("pause", ("pause",)),
)
KEDA = Tool(
    "keda",
    ("keda-operator", "keda-adapter"),
    renames=(("operator", "keda-operator"), ("adapter", "keda-adapter")),
    module="github.com/kedacore/keda/v2",
    # Its operator ends unless all its kinds are there.
    files=tuple(
        f"config/crd/bases/{name}.yaml"
        for name in (
            "keda.sh_scaledobjects",
            "keda.sh_scaledjobs",
            "keda.sh_triggerauthentications",
            "keda.sh_clustertriggerauthentications",
            "eventing.keda.sh_cloudeventsources",
            "eventing.keda.sh_clustercloudeventsources",
        )
    ),
)
# Beside the cluster: an S3 server for tests that fetch rows from it, and an autoscaler.
TOOLS = (*CLUSTER_TOOLS, Tool("versitygw", ("versitygw",)), KEDA)
API_SERVER_TOOLS = tuple(tool for tool in CLUSTER_TOOLS if tool.name in ("etcd", "kubernetes"))


def content_hash(tool: Tool, folder: Path, go_version: str) -> str:
    """Changes when anything does that the binaries depend on: the pinned modules, our own sources, flags, compiler."""
    digest = hashlib.sha256(f"{go_version}\n{tool.ldflags}\n{tool.renames}\n{''.join(tool.files)}".encode())
    for file in sorted(folder.iterdir()):
        digest.update(f"{file.name}\n".encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


class Toolbox:
    """Finds a program in the cache, and builds what is missing."""

    def __init__(self, paths: Paths) -> None:
        self._paths = paths
        self._go_version = _go_version()

    def folder(self, tool: Tool) -> Path:
        key = content_hash(tool, self._paths.sources / "tools" / tool.name, self._go_version)
        return self._paths.cache / "tools" / f"{tool.name}-{key}"

    def missing(self, tools: Iterable[Tool] = TOOLS) -> list[Tool]:
        return [tool for tool in tools if not self.folder(tool).is_dir()]

    def program(self, name: str) -> Path:
        tool = next(tool for tool in TOOLS if name in tool.programs)
        program = self.folder(tool) / name
        if not program.exists():
            raise ClusterError(f"{name} is not built yet: run `cluster/cluster build`")
        return program

    def files(self, tool: Tool) -> list[Path]:
        return [self.folder(tool) / Path(file).name for file in tool.files]

    def build(self, tools: Iterable[Tool] = TOOLS) -> None:
        """Build what the cache lacks, one tool at a time, each published by a rename."""
        for tool in tools:
            folder = self.folder(tool)
            if folder.is_dir():
                print(f"  {tool.name}: in the cache", flush=True)
                continue
            started = time.monotonic()
            print(f"  {tool.name}: building …", flush=True)
            self._build_one(tool, folder)
            print(f"  {tool.name}: built in {time.monotonic() - started:.0f} s", flush=True)
        self.link()

    def link(self) -> None:
        """Put the built programs into .local/bin, so that one PATH entry serves kubectl, helm and ctr."""
        self._paths.bin.mkdir(parents=True, exist_ok=True)
        for tool in TOOLS:
            for name in tool.programs:
                program, link = self.folder(tool) / name, self._paths.bin / name
                if program.exists() and not (link.is_symlink() and link.readlink() == program):
                    link.unlink(missing_ok=True)
                    link.symlink_to(program)

    def _build_one(self, tool: Tool, folder: Path) -> None:
        folder.parent.mkdir(parents=True, exist_ok=True)
        for left in folder.parent.glob(f".{folder.name}.*"):
            if not Path("/proc", left.suffix[1:]).exists():  # of a build that was killed
                shutil.rmtree(left, ignore_errors=True)
        unfinished = folder.with_name(f".{folder.name}.{os.getpid()}")
        unfinished.mkdir()
        # `tool` stands for every `tool` directive of that go.mod; cgo off: static programs, for any image.
        command = [
            "go",
            "build",
            "-trimpath",
            "-buildvcs=false",
            "-ldflags",
            tool.ldflags,
            "-o",
            f"{unfinished}/",
            "tool",
        ]
        try:
            self._go(tool, command)
            for built, wanted in tool.renames:
                (unfinished / built).rename(unfinished / wanted)
            if tool.files:
                module = Path(self._go(tool, ["go", "list", "-m", "-f", "{{.Dir}}", tool.module]))
                for file in tool.files:
                    shutil.copyfile(module / file, unfinished / Path(file).name)
        except BaseException:
            shutil.rmtree(unfinished)
            raise
        try:
            unfinished.rename(folder)
        except OSError:  # another clone built the same at the same time
            shutil.rmtree(unfinished)

    def _go(self, tool: Tool, command: list[str]) -> str:
        done = subprocess.run(
            command,
            cwd=self._paths.sources / "tools" / tool.name,
            env={**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly", "GOWORK": "off"},
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise ClusterError(f"building {tool.name} failed:\n{done.stderr[-3000:]}")
        return done.stdout.strip()


def _go_version() -> str:
    if shutil.which("go") is None:
        raise ClusterError("`go` is not on the PATH: install Go 1.26 or newer, the cluster is built from Go modules")
    done = subprocess.run(["go", "env", "GOVERSION"], capture_output=True, text=True)
    return done.stdout.strip()
