"""The commands of `cluster/cluster`."""

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from winnow_cluster import api_server, images, keda, lifecycle, machine
from winnow_cluster.errors import ClusterError
from winnow_cluster.lifecycle import Cluster
from winnow_cluster.paths import Paths
from winnow_cluster.tools import API_SERVER_TOOLS, TOOLS, Tool, Toolbox

Run = Callable[[argparse.Namespace], None]


def _cluster(paths: Paths | None = None) -> Cluster:
    paths = paths or Paths.of_this_clone()
    return Cluster(paths, Toolbox(paths))


def deps(_: argparse.Namespace) -> None:
    machine.check(Paths.of_this_clone())
    added = machine.install_packages()
    print(f"  installed {', '.join(added)}" if added else "  every package is there")


def build(arguments: argparse.Namespace) -> None:
    _cluster().toolbox.build(arguments.tools or TOOLS)


def tool(name: str) -> Tool:
    """Raises ClusterError for one that does not exist."""
    found = next((tool for tool in TOOLS if tool.name == name), None)
    if found is None:
        raise ClusterError(f"there is no tool {name!r}: there are {', '.join(tool.name for tool in TOOLS)}")
    return found


def up(_: argparse.Namespace) -> None:
    _cluster().up()


def down(arguments: argparse.Namespace) -> None:
    owner, here = lifecycle.current_owner(), Paths.of_this_clone()
    machine.check(here)
    if arguments.of is not None and (owner is None or owner.clone != arguments.of):
        raise ClusterError(f"this machine does not run the cluster of {arguments.of}")
    if arguments.of is None and owner is not None and owner.clone != here.clone:
        raise ClusterError(
            f"the cluster is that of {owner.clone}; end it with `cluster/cluster down --of {owner.clone}`"
        )
    paths = owner or here
    lifecycle.Cluster(paths, Toolbox(here)).down()
    print(f"The cluster is gone, with its objects and volumes; images and programs stay in {paths.cache}.")


def status(_: argparse.Namespace) -> None:
    owner = lifecycle.current_owner()
    if owner is None:
        raise ClusterError("no cluster runs on this machine; `cluster/cluster up` starts one")
    cluster = _cluster(owner)
    running = cluster.running()
    print(f"clone {owner.clone}, KUBECONFIG {owner.kubeconfig}")
    for name in sorted(lifecycle.COMPONENTS):
        print(
            f"  {name:<24} {f'pid {running[name]}' if name in running else f'DEAD, log: {cluster.process(name).log}'}"
        )
    if len(running) < len(lifecycle.COMPONENTS):
        raise ClusterError("some parts have ended; `cluster/cluster up` starts them again")


def keda_up(_: argparse.Namespace) -> None:
    keda.up(_cluster())
    print("KEDA runs in the cluster; `cluster/cluster keda-down` takes it away.")


def keda_down(_: argparse.Namespace) -> None:
    keda.down(_cluster())


def image(arguments: argparse.Namespace) -> None:
    cluster = _cluster()
    cluster.ready_to_build()
    context = arguments.context.resolve()
    request = images.Build(
        name=arguments.name,
        context=context,
        file=(arguments.file or context / "Dockerfile").resolve(),
        contexts={
            name: where if "://" in where else str(Path(where).resolve())
            for name, where in pairs(arguments.build_context).items()
        },
        arguments=pairs(arguments.build_arg),
        target=arguments.target,
    )
    images.build(cluster.paths, cluster.toolbox.program, request)


def image_prune(_: argparse.Namespace) -> None:
    cluster = _cluster()
    cluster.ready_to_build()
    images.prune(cluster.toolbox.program)


def image_list(_: argparse.Namespace) -> None:
    print("\n".join(sorted(images.present(_cluster().toolbox.program))))


def env(_: argparse.Namespace) -> None:
    paths = Paths.of_this_clone()
    print(f"export KUBECONFIG={paths.kubeconfig}\nexport PATH={paths.bin}:$PATH")


def api_server_up(arguments: argparse.Namespace) -> None:
    toolbox = _cluster().toolbox
    if toolbox.missing(API_SERVER_TOOLS):
        toolbox.build(API_SERVER_TOOLS)
    started = time.monotonic()
    config = api_server.up(arguments.folder, toolbox.program)
    print(f"API server up in {time.monotonic() - started:.1f} s", file=sys.stderr)
    print(config)


def api_server_down(arguments: argparse.Namespace) -> None:
    api_server.down(arguments.folder)


def pairs(values: Sequence[str]) -> dict[str, str]:
    """NAME=VALUE, as docker's options have it."""
    wrong = [value for value in values if "=" not in value]
    if wrong:
        raise ClusterError(f"expected NAME=VALUE, found {wrong[0]!r}")
    return {name: value for name, _, value in (value.partition("=") for value in values)}


def _run_tool(name: str, arguments: Sequence[str]) -> None:
    """Become kubectl, helm or ctr, with this cluster's address."""
    paths = Paths.of_this_clone()
    program = str(Toolbox(paths).program(name))
    os.execve(program, [program, *arguments], {**os.environ, "KUBECONFIG": str(paths.kubeconfig)})


def parser() -> argparse.ArgumentParser:
    root = argparse.ArgumentParser(prog="cluster/cluster", description="A real Kubernetes on this machine.")
    commands = root.add_subparsers(required=True, metavar="COMMAND")
    plain: tuple[tuple[str, Run, str], ...] = (
        ("deps", deps, "install the Debian packages that are missing"),
        ("up", up, "start the cluster, or what is missing of it"),
        ("status", status, "which parts run"),
        ("keda-up", keda_up, "install KEDA, which scales by metrics"),
        ("keda-down", keda_down, "take KEDA away, and every object of its kinds"),
        ("image-list", image_list, "names of the images that pods can use"),
        ("image-prune", image_prune, "remove replaced images and the build cache"),
        ("env", env, 'print the exports for a shell: eval "$(cluster/cluster env)"'),
    )
    for name, run, text in plain:
        commands.add_parser(name, help=text).set_defaults(run=run)

    command = commands.add_parser("build", help="build the Go programs the cache lacks, or those of some tools only")
    command.add_argument("tools", nargs="*", type=tool, metavar="TOOL", help=", ".join(tool.name for tool in TOOLS))
    command.set_defaults(run=build)

    command = commands.add_parser("down", help="end the cluster and remove what it left, but images")
    command.add_argument("--of", metavar="CLONE", type=Path, help="of another clone on this machine")
    command.set_defaults(run=down)

    command = commands.add_parser("image", help="build an image into the cluster")
    command.add_argument("--name", required=True, help="with the registry part: docker.io/winnow/x:dev")
    command.add_argument("--context", type=Path, required=True, metavar="DIR")
    command.add_argument("--file", type=Path, help="default: DIR/Dockerfile")
    command.add_argument("--build-context", action="append", default=[], metavar="NAME=DIR")
    command.add_argument("--build-arg", action="append", default=[], metavar="NAME=VALUE")
    command.add_argument("--target")
    command.set_defaults(run=image)

    for name, run, text in (
        ("apiserver-up", api_server_up, "etcd, kube-apiserver and controllers on free ports; prints the kubeconfig"),
        ("apiserver-down", api_server_down, "end what apiserver-up started there, and remove its files"),
    ):
        command = commands.add_parser(name, help=text)
        command.add_argument("folder", metavar="DIR", type=Path)
        command.set_defaults(run=run)
    for name in ("kubectl", "helm"):  # listed for the help; main() hands their arguments on untouched
        commands.add_parser(name, help=f"{name} with this cluster's address", add_help=False)
    return root


def main(argv: Sequence[str]) -> int:
    # A root shell made by plain `su` has no sbin, where ip, nft and runc are.
    os.environ["PATH"] = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    root = parser()
    if not argv or argv[0] == "help":
        root.print_help()
        return 0
    try:
        if argv[0] in ("kubectl", "helm"):
            _run_tool(argv[0], argv[1:])
        arguments = root.parse_args(argv)
        arguments.run(arguments)
    except ClusterError as problem:
        print(f"cluster: {problem}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("cluster: interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    return 0
