r"""What a notebook's answers rest on: the settings it comes with, and the numbers that they quote.

Answers are prose about the settings as they come. A `Lesson` knows whether those are in force; the
assertions above an answer hold its sentences and numbers to what was computed, and let every result
pass once a setting was changed. `python -m dlutils.lesson` counts what makes a notebook readable:
lines of code, the longest cell and line, cells before the first question.
"""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

from dlutils.reading import is_source
from dlutils.tables import markdown_table

if TYPE_CHECKING:  # slow to import, and a notebook's `Lesson` does without
    from nbformat import NotebookNode

DEFAULTS: dict[str, dict[str, object]] = {
    "ODE": {
        "DATASET": "gaussian",
        "DROP_MISSING": False,
        "SUPPORT": None,
        "ROUNDING": None,
        "WEIGHTS": None,
        "DRIFT": "mlp",
        "METHOD": "euler",
        "N_STEPS": 100,
        "LOGDET": "trace",
        "GRADIENT": "adjoint",
        "STANDARDIZE": False,
        "N_BINS": 32,
        "DEVICE": "cpu",
        "N_ITERATIONS": 350,
        "LEARNING_RATE": 0.02,
        "SEED": 0,
        "MIXTURE": "laplace_mixture",
        "COMPLEXITY_STEPS": (10, 30, 100, 300, 1000),
    },
    "SDE": {
        "DATASET": "gaussian",
        "DROP_MISSING": False,
        "SUPPORT": None,
        "ROUNDING": None,
        "WEIGHTS": None,
        "PATH": "linear",
        "DIFFUSION": "learned_in_t",
        "DRIFT": "preconditioned",
        "T_SAMPLER": "lattice",
        "DELTA": 0.01,
        "DEVICE": "cpu",
        "BATCH_SIZE": 1024,
        "N_ITERATIONS": 1000,
        "LEARNING_RATE": 0.02,
        "SEED": 0,
        "MIXTURE": "laplace_mixture",
        "TABLE_ITERATIONS": 300,
        "TABLE_STEPS": 200,
        "COMPLEXITY_STEPS": (10, 100, 1000),
    },
}


class Lesson:
    """Whether a notebook runs as it comes, and assertions about what it then finds.

    Args:
        notebook: One of `DEFAULTS`.
        settings: The notebook's variables, `globals()`.

    Attributes:
        changed: The settings that differ from those that the notebook comes with.
        dataset: What the data are: a name, or a file of the user's own.
        own: The settings about such a file, as `load_dataset` takes them.

    Raises:
        ValueError: If the notebook is unknown, or one of its settings is missing.
    """

    def __init__(self, notebook: str, settings: Mapping[str, object]) -> None:
        if notebook not in DEFAULTS:
            raise ValueError(f"unknown notebook {notebook!r}; choose from {', '.join(DEFAULTS)}")
        for name in DEFAULTS[notebook]:
            if name not in settings:
                raise ValueError(f"the setting {name} is missing from the configuration cell")
        self.changed = {
            name: settings[name]
            for name, value in DEFAULTS[notebook].items()
            if _plain(settings[name]) != value
        }
        own = ("DROP_MISSING", "SUPPORT", "ROUNDING", "WEIGHTS")
        self.dataset = settings["DATASET"]
        self.own = {name.lower(): _plain(settings[name]) for name in own}
        words = ", ".join(f"{name} = {value!r}" for name, value in self.changed.items())
        print(
            f"Changed: {words}. The answers are about the settings as they come."
            if self.changed
            else "The settings are those that the notebook comes with: its answers apply."
        )

    def holds(self, *claims: bool) -> bool:
        """Whether all claims hold, where the settings are as they come; True where they are not."""
        return bool(self.changed) or _all_hold(claims)

    def always(self, *claims: bool) -> bool:
        """Whether all claims hold, whatever the settings; True where the data are a user's own.

        Of those nobody has bounded the errors of grids and steps: what does not hold is printed.
        """
        return _all_hold(claims) or is_source(str(self.dataset))

    def on_this_machine(self, *claims: bool) -> None:
        """Print which claims about times hold; a busy machine is no reason to stop.

        Nothing where the settings are not as they come.
        """
        if not self.changed and _all_hold(claims):
            print(f"All {len(claims)} claims about times hold on this machine.")

    def quotes(
        self,
        numbers: Mapping[str, object] | Callable[[], Mapping[str, object]],
        within: float = 0.0,
    ) -> bool:
        """Whether an answer's numbers are what was computed; True where the settings were changed.

        Args:
            numbers: From a number as the answer prints it, such as "0.0024", to what was computed:
                a value, the cell of a table that begins with one, or a list of these. One unit of
                the last digit is allowed, for other processors. Or a function that returns these,
                where some are there only with the settings as they come.
            within: Relative tolerance, where other machines need more or less.
        """
        if self.changed:
            return True
        right = True
        for text, found in (numbers() if callable(numbers) else numbers).items():
            quoted = Decimal(text.replace("−", "-").replace(" ", ""))
            unit = 1.000001 * 10.0 ** quoted.as_tuple().exponent
            for value in found if isinstance(found, list) else [found]:
                value = float(value.split()[0] if isinstance(value, str) else value)
                if abs(value - float(quoted)) > max(unit, within * abs(float(quoted))):
                    right = False
                    print(f"an answer quotes {text}, and {value:.4g} was computed")
        return right


def structure(notebook: "NotebookNode") -> dict[str, int]:
    """Counts that say how readable a notebook is.

    Returns:
        Lines of code without blank lines and comments; of the longest cell; characters of the
        longest line; code cells before the first question; and how often the code asks whether the
        settings are unchanged or the true density known.
    """
    code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    lines = [line for source in code for line in _lines(source)]
    first = next(
        (k for k, c in enumerate(notebook.cells) if c.source.startswith(("## 1.1", "## 2.1"))),
        len(notebook.cells),
    )
    asked = sum(line.count("lesson.changed") + line.count(".is_known") for line in lines)
    return {
        "lines of code": len(lines),
        "longest cell": max(len(_lines(source)) for source in code),
        "longest line": max(len(line) for source in code for line in source.splitlines()),
        "cells before the first question": sum(
            cell.cell_type == "code" for cell in notebook.cells[:first]
        ),
        "asks what is known or unchanged": asked,
    }


def main() -> int:
    """Count lines and cells of the notebooks in this folder."""
    import nbformat

    parser = argparse.ArgumentParser(prog="python -m dlutils.lesson", description=main.__doc__)
    parser.add_argument("notebooks", nargs="*", type=Path, help="default: all in this folder")
    paths = parser.parse_args().notebooks or sorted(Path().glob("*.ipynb"))
    rows = [{"notebook": path.name, **structure(nbformat.read(path, 4))} for path in paths]
    print(markdown_table(rows))
    return 0


def _lines(source: str) -> list[str]:
    """The lines that are neither blank nor a comment."""
    return [line for line in source.splitlines() if line.strip() and line.lstrip()[0] != "#"]


def _all_hold(claims: Sequence[bool]) -> bool:
    """Whether they do; those that do not are printed."""
    wrong = [k for k, claim in enumerate(claims, start=1) if not claim]
    if wrong:
        print(f"of {len(claims)} claims these do not hold, in their order: {wrong}")
    return not wrong


def _plain(value: object) -> object:
    """A list, as papermill passes one, as the tuple that it stands for."""
    return tuple(value) if isinstance(value, list) else value


if __name__ == "__main__":
    sys.exit(main())
