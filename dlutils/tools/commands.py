"""What the commands on notebooks have in common."""

import argparse
from collections.abc import Callable
from pathlib import Path


def parser_of_notebooks(module: str, main: Callable) -> argparse.ArgumentParser:
    """For `python -m dlutils.tools.MODULE`: takes notebooks, by default all of this folder."""
    parser = argparse.ArgumentParser(
        prog=f"python -m dlutils.tools.{module}", description=main.__doc__
    )
    here = sorted(Path().glob("*.ipynb"))
    parser.add_argument(
        "notebooks", nargs="*", type=Path, default=here, help="default: all in this folder"
    )
    return parser
