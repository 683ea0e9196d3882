"""The commands of `cluster/cluster`."""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from winnow_cluster import api_server
from winnow_cluster.errors import ClusterError
from winnow_cluster.paths import Paths
from winnow_cluster.tools import API_SERVER_TOOLS, Toolbox


def build(_: argparse.Namespace) -> None:
    Toolbox(Paths.of_this_clone()).build()


def api_server_up(arguments: argparse.Namespace) -> None:
    toolbox = Toolbox(Paths.of_this_clone())
    if toolbox.missing(API_SERVER_TOOLS):
        toolbox.build(API_SERVER_TOOLS)
    started = time.monotonic()
    config = api_server.up(arguments.folder, toolbox.program)
    print(f"API server up in {time.monotonic() - started:.1f} s", file=sys.stderr)
    print(config)


def api_server_down(arguments: argparse.Namespace) -> None:
    api_server.down(arguments.folder)


def parser() -> argparse.ArgumentParser:
    root = argparse.ArgumentParser(prog="cluster/cluster", description="A real Kubernetes on this machine.")
    commands = root.add_subparsers(required=True, metavar="COMMAND")

    commands.add_parser("build", help="build the Go programs the cache lacks").set_defaults(run=build)
    for name, run, text in (
        ("apiserver-up", api_server_up, "etcd, kube-apiserver and controllers on free ports; prints the kubeconfig"),
        ("apiserver-down", api_server_down, "end what apiserver-up started there, and remove its files"),
    ):
        command = commands.add_parser(name, help=text)
        command.add_argument("folder", metavar="DIR", type=Path)
        command.set_defaults(run=run)
    return root


def main(argv: Sequence[str]) -> int:
    root = parser()
    if not argv or argv[0] == "help":
        root.print_help()
        return 0
    arguments = root.parse_args(argv)
    try:
        arguments.run(arguments)
    except ClusterError as problem:
        print(f"cluster: {problem}", file=sys.stderr)
        return 1
    return 0
