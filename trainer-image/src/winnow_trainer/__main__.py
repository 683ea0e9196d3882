"""python -m winnow_trainer"""

import sys

from winnow_trainer.cli import main

if __name__ == "__main__":
    sys.exit(main())
