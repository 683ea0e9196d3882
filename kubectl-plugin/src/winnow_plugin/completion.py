"""`kubectl_complete-winnow`: what may follow on a line that begins with `kubectl winnow`, in the form that kubectl reads."""

from __future__ import annotations

import os
import shlex
import sys

# kubectl hands this to the shell: 0 means that, besides what is listed, files may follow.
FILES_TOO = ":0"


def main() -> None:
    """The words so far are the arguments, the last one being the one that is typed. Typer's form for fish, a value and its
    help with a tab between, is kubectl's own."""
    line = shlex.join(["kubectl-winnow", *sys.argv[1:-1]]) + " " + (sys.argv[-1] if len(sys.argv) > 1 else "")
    os.environ.update(
        _KUBECTL_WINNOW_COMPLETE="complete_fish",
        _TYPER_COMPLETE_ARGS=line,
        _TYPER_COMPLETE_FISH_ACTION="get-args",
        COLUMNS="1000",  # so that no help is broken into lines, each of which would be taken for a word
    )
    from winnow_plugin.cli import main as plugin

    try:
        plugin()
    except SystemExit:
        print(FILES_TOO)
