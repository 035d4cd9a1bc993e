"""What the commands have in common: their words, their notebooks, and errors in one line."""

import argparse
import sys
import tomllib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from dlutils.notebook import read_cells


def parser_of(command: str, main: Callable) -> argparse.ArgumentParser:
    """For `python -m COMMAND`, which does what the docstring of main says.

    What the screen cannot print, as "±" in some of the world's encodings, becomes a question mark
    from here on.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # not in a notebook
            stream.reconfigure(errors="replace")
    return argparse.ArgumentParser(prog=f"python -m {command}", description=main.__doc__)


def parser_of_notebooks(module: str, main: Callable) -> argparse.ArgumentParser:
    """For `python -m dlutils.tools.MODULE`: takes notebooks, by default all of this folder."""
    parser = parser_of(f"dlutils.tools.{module}", main)
    here = sorted(Path().glob("*.ipynb"))
    parser.add_argument(
        "notebooks", nargs="*", type=Path, default=here, help="default: all in this folder"
    )
    return parser


def parse(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options of a command on notebooks, each of which has been found to be one."""
    options = parser.parse_args(arguments)
    with told(parser):
        if not options.notebooks:
            raise ValueError("there is no notebook in this folder")
        for path in options.notebooks:
            read_cells(path)
    return options


@contextmanager
def told(parser: argparse.ArgumentParser) -> Iterator[None]:
    """End the command with one line where what it was given cannot be read, written or used."""
    try:
        yield
    except (ValueError, OSError) as error:
        parser.error(str(error))


def read_toml(path: Path) -> dict[str, object]:
    """The content of a TOML file.

    Raises:
        ValueError: If it cannot be read, or is no TOML in UTF-8.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError as error:
        raise ValueError(f"there is no file {path}") from error
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8, as TOML must be: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path} is not TOML: {error}") from error
