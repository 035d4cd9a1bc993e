"""The package as a command: `python -m dlutils fit data.csv:height`."""

import sys

from dlutils.density.command import main

if __name__ == "__main__":
    sys.exit(main())
