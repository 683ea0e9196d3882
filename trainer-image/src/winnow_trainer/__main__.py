"""python -m winnow_trainer"""

import os
import sys

from winnow_classifier.cpu import spin_briefly
from winnow_trainer import group
from winnow_trainer.cli import main

if __name__ == "__main__":
    spin_briefly(os.environ)
    exit_code = main()
    if exit_code and group.launched():
        # Taking the connections to the others down in order would wait for processes that are gone.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(exit_code)
    sys.exit(exit_code)
