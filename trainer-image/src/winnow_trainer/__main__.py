"""python -m winnow_trainer"""

import os
import sys

from winnow_trainer import group
from winnow_trainer.cli import main

if __name__ == "__main__":
    # Read when torch is imported, which the commands do. A thread that waits for the others sleeps: spinning, it takes
    # the core from the one it waits for as soon as anything else runs there (18 tokens/s instead of 1,500 were seen).
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    exit_code = main()
    if exit_code and group.launched():
        # Taking the connections to the others down in order would wait for processes that are gone.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(exit_code)
    sys.exit(exit_code)
