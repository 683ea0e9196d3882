"""python -m winnow_server, and python -m winnow_server wake: exit 0 after a clean stop, otherwise the code of the error, said
on stderr."""

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from winnow_classifier.cpu import spin_briefly
from winnow_classifier.errors import WinnowError
from winnow_server import logs, settings

TERMINATION_MESSAGE_BYTES = 4_096  # the kubelet cuts here


def main() -> int:
    if sys.argv[1:2] == ["wake"]:
        return wake(sys.argv[2:])
    wanted = settings.parse()
    logs.set_up(wanted.log_level)
    spin_briefly(os.environ)
    # The tokenizer's own threads would fight the model's for the same cores.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    return run(wanted)


def run(wanted: settings.Settings) -> int:
    """Serves until it is stopped; the exit code."""
    from winnow_server.serve import serve  # brings torch along, which --help does not need

    try:
        serve(wanted)
    except WinnowError as err:
        sentence = f"{str(err).rstrip('.')}; {err.hint}" if err.hint else str(err)
        print(f"winnow_server: {sentence}", file=sys.stderr)
        if wanted.termination_log is not None:
            write_termination_message(wanted.termination_log, err.reason, sentence)
        return err.exit_code
    return 0


def wake(arguments: Sequence[str]) -> int:
    """Holds requests until it is stopped; the exit code."""
    from winnow_server.waking import wake as waking  # not what a server needs

    wanted = waking.parse(arguments)
    logs.set_up(wanted.log_level)
    try:
        waking.wake(wanted)
    except WinnowError as err:
        print(f"winnow_server: {err}", file=sys.stderr)
        return err.exit_code
    return 0


def write_termination_message(path: Path, reason: str, message: str) -> None:
    content = {"kind": "serve", "state": "Failed", "reason": reason, "message": message}
    while len(encoded := json.dumps(content, ensure_ascii=False).encode()) > TERMINATION_MESSAGE_BYTES:
        content["message"] = content["message"][: len(content["message"]) * 3 // 4]
    path.write_bytes(encoded)


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    # Not sys.exit: a thread that still loads the model is inside of torch, and an interpreter that goes under it ends in
    # SIGABRT or SIGSEGV, which looks like a checkpoint that crashes its server.
    os._exit(code)
