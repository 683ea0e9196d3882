"""python -m winnow_trainer"""

import os
import sys

from winnow_classifier.cpu import spin_briefly
from winnow_trainer import group
from winnow_trainer.cli import main

if __name__ == "__main__":
    spin_briefly(os.environ)
    exit_code = main()
    if group.launched():
        group.leave(exit_code)
    sys.exit(exit_code)
