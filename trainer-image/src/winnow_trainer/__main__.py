"""python -m winnow_trainer"""

import os
import sys

from winnow_trainer.cli import main

if __name__ == "__main__":
    # Read when torch is imported, which the commands do. A thread that waits for the others sleeps: spinning, it takes
    # the core from the one it waits for as soon as anything else runs there (18 tokens/s instead of 1,500 were seen).
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    sys.exit(main())
