"""The process in which Weights & Biases' client runs: python -P -m winnow_trainer.wandb_process, with its key in WANDB_API_KEY.

On stdin a line of JSON that says which run, then one for each step's values, then one that says how the run ended. On stdout
{"begun": true} once the server knows the run, or {"error": "…", "final": …} before it ends with 1. It ends with its stdin.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from winnow_trainer.fetch import MAY_PASS

PR_SET_PDEATHSIG = 1
BEGIN_SECONDS = 60.0  # the client tries again within them
END_SECONDS = 12.0  # less than the training waits for this process
STEP = "train/global_step"  # as transformers' own callback calls it, so that runs of both stand in one chart
EXIT_CODES = {"Complete": 0, "Stopped": 143, "Failed": 1}


def main() -> int:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    with os.fdopen(os.dup(1), "w") as out:
        os.dup2(2, 1)  # the client may print

        def say(**words: Any) -> None:
            print(json.dumps(words), file=out, flush=True)

        import wandb

        try:
            run = begin(json.loads(sys.stdin.readline()))
            say(begun=True)
            tell(run)
        except wandb.errors.CommError as error:
            final = isinstance(error, wandb.errors.AuthenticationError) or refused(str(error))
            say(error=str(error), final=final)
        except TimeoutError:
            say(error=f"the end of the run was not told within {END_SECONDS:.0f} s", final=True)
        except Exception as error:  # whatever goes wrong in the client is told where people look
            say(error=f"{type(error).__name__}: {error}", final=True)
        else:
            return 0
    return 1


def begin(wanted: Mapping[str, Any]) -> Any:
    """Nothing but the given values is told: no console output, no code, no host, no environment."""
    import wandb

    settings = wandb.Settings(
        base_url=wanted["baseUrl"],
        mode="online",
        root_dir=str(Path.cwd()),
        init_timeout=BEGIN_SECONDS,
        finish_timeout=END_SECONDS,
        finish_timeout_raises=True,
        console="off",
        silent=True,
        save_code=False,
        disable_code=True,
        disable_git=True,
        disable_job_creation=True,
        x_disable_meta=True,
        x_disable_stats=True,
        x_disable_machine_info=True,
        x_disable_viewer=True,
        x_save_requirements=False,
    )
    run = wandb.init(
        project=wanted["project"],
        entity=wanted.get("entity"),
        id=wanted["id"],
        name=wanted["name"],
        config=wanted["config"],
        resume="allow",
        settings=settings,
    )
    run.define_metric("*", step_metric=STEP)
    return run


def tell(run: Any) -> None:
    end = "Failed"
    for line in sys.stdin:
        told = json.loads(line)
        if "end" in told:
            end = told["end"]
            break
        # The client's own steps can only grow, so steps that a training repeats after a restart would be left out.
        run.log({**told["values"], STEP: told["step"], "_timestamp": told["at"]})
    if end == "Stopped":
        run.mark_preempting()
    run.finish(exit_code=EXIT_CODES[end])


def refused(error: str) -> bool:
    """Whether the client's words are of an answer that stays what it is."""
    return any(f"error {status}" in error for status in range(400, 500) if status not in MAY_PASS)


if __name__ == "__main__":
    code = main()
    os._exit(code)  # what the client would do at the exit may wait for a server that is gone
