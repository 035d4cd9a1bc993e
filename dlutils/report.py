r"""Figures and tables for a report: written as files, by task, with a list of them at the end.

A notebook hands over each figure and table with the task it answers and a caption. `contents` lists
them, and writes `figures/NOTEBOOK.tex`, which puts every one into a LaTeX document with
`\input`. A folder that cannot be written to costs the files, not the notebook.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from IPython.display import Markdown, display
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from dlutils.plotting import COLUMN, animate_flow, save_figure
from dlutils.tables import cell, markdown_table

FOLDER = Path("figures")
LATEX = {
    **{mark: rf"\{mark}" for mark in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "×": r"$\times$",
    "−": "$-$",
    "–": "--",
    "σ": r"$\sigma$",
}
CSV = {"index": False, "lineterminator": "\n"}
HEAD = r"""% \usepackage{graphicx,booktabs}; \figures is where the files lie
\providecommand{\figures}{figures}
"""
_entries: dict[str, "Entry"] = {}
_numbers: dict[str, dict[str, object]] = {}  # by file, what has been handed over so far


@dataclass(frozen=True)
class Entry:
    """One figure or table."""

    name: str  # of its files, without ending
    task: str  # number of the task it answers, such as "1.3"; "" beyond the assignment
    caption: str  # one sentence; may have $mathematics$ in it
    wide: bool  # whether it needs the width of the page
    is_figure: bool


def figure(fig: Figure, name: str, task: str, caption: str) -> None:
    """Write a figure as PDF and PNG (`dlutils.plotting.save_figure`) and note it for the list.

    In a notebook it is shown as well, with its caption and an alternative text in the output's
    metadata, from which `dlutils.tools.publish` takes them.
    """
    _note(Entry(name, task, caption, fig.get_figwidth() > 1.2 * COLUMN, is_figure=True))
    with _may_fail(name):
        save_figure(fig, name, FOLDER)
    if "inline" in plt.get_backend():
        alt = re.sub(r"[$\\]", "", caption)
        display(fig, metadata={"alt": alt, "caption": caption, "name": name})
        plt.close(fig)  # or it would be shown once more, without them


def animation(
    times: ArrayLike, x: ArrayLike, p: ArrayLike, paths: ArrayLike, name: str
) -> Markdown:
    """Write `figures/name.gif` (`dlutils.plotting.animate_flow`); return a link to it."""
    path = FOLDER / f"{name}.gif"
    with _may_fail(name):
        animate_flow(path, times, x, p, paths)
    return Markdown(f"![The flow in motion]({path.as_posix()})")


def table(
    rows: Sequence[Mapping[str, object]],
    name: str,
    task: str,
    caption: str,
    only_here: Sequence[str] = (),
    show: Sequence[Mapping[str, object]] | None = None,
) -> Markdown:
    """Write a table as LaTeX (booktabs), Markdown and CSV and note it; return it for display.

    Args:
        rows: See `dlutils.tables.markdown_table`.
        name: Of the files, without ending.
        task: See `Entry`.
        caption: See `Entry`.
        only_here: Columns that are displayed and not written: times, which differ in every run.
        show: The rows to display, where all are too many; the files have them all.
    """
    shown = Markdown(markdown_table(rows if show is None else show))
    rows = [{key: value for key, value in row.items() if key not in only_here} for row in rows]
    _note(Entry(name, task, caption, len(rows[0]) > 4, is_figure=False))
    with _may_fail(name):
        _write(f"{name}.md", markdown_table(rows) + "\n")
        _write(f"{name}.tex", latex_table(rows))
        _write(f"{name}.csv", pd.DataFrame(rows, dtype=object).map(cell).to_csv(**CSV))
    return shown


def numbers(notebook: str, values: Mapping[str, object], *, measured: bool = False) -> None:
    """Write named values to `figures/NOTEBOOK_numbers.csv`, beside those handed over before.

    Sentences about them are checked there (`dlutils.tools.claims`). A name that comes again is
    overwritten. Floats have six digits: the last ones differ from machine to machine.

    Args:
        notebook: Its name, "ODE" or "SDE".
        values: From a name, without pipes, to a number or a tensor of one number.
        measured: Whether they are times or memory, which differ from run to run: these go to
            `figures/NOTEBOOK_measured.csv`.
    """
    stem = f"{notebook}_{'measured' if measured else 'numbers'}"
    known = _numbers.setdefault(stem, {})
    for name, value in values.items():
        number = value.item() if getattr(value, "ndim", None) == 0 else value
        assert isinstance(number, float | int), f"{name!r} is a single number, not {number!r}"
        assert "|" not in name, f"{name!r}: a reference is divided by pipes"
        known[name] = f"{number:.6g}" if isinstance(number, float) else number
    with _may_fail(stem):
        _write(f"{stem}.csv", pd.DataFrame(known.items(), columns=["name", "value"]).to_csv(**CSV))


def show(rows: Sequence[Mapping[str, object]]) -> Markdown:
    """A table for display alone: one of measured times."""
    return Markdown(markdown_table(rows))


def latex_table(rows: Sequence[Mapping[str, object]]) -> str:
    """The rows as a LaTeX tabular with booktabs' rules; text to the left, numbers to the right."""
    titles = list(rows[0])
    sides = "".join("l" if isinstance(rows[0][title], str) else "r" for title in titles)
    lines = [" & ".join(escape(cell(row[title])) for title in titles) + r" \\" for row in rows]
    head = " & ".join(escape(title) for title in titles) + r" \\"
    parts = [rf"\begin{{tabular}}{{{sides}}}", r"\toprule", head, r"\midrule", *lines]
    return "\n".join([*parts, r"\bottomrule", r"\end{tabular}", ""])


def escape(text: str) -> str:
    r"""Text for LaTeX; what stands between dollar signs is mathematics and stays, \$ is one."""
    parts = re.split(r"((?<!\\)\$(?:\\.|[^$\\])+\$|\\\$)", text)
    return "".join(
        part if k % 2 else "".join(LATEX.get(mark, mark) for mark in part)
        for k, part in enumerate(parts)
    )


def contents(notebook: str) -> Markdown:
    """List what the notebook wrote, with thumbnails; write `figures/NOTEBOOK.tex` for a report.

    Args:
        notebook: Its name, "ODE" or "SDE": what its figures' and tables' names begin with.
    """
    entries = [entry for name, entry in _entries.items() if name.startswith(f"{notebook}_")]
    lines = ["| task | | file | caption |", "| --- | --- | --- | --- |"]
    for entry in entries:
        path = (FOLDER / entry.name).as_posix()
        image, endings = "table", "tex, md, csv"
        if entry.is_figure:
            image = f'<img src="{path}.png" alt="{entry.name}" width="140">'
            endings = "pdf, png"
        caption = entry.caption.replace("|", r"\|")
        lines.append(f"| {entry.task} | {image} | `{path}` .{endings} | {caption} |")
    with _may_fail(notebook):
        _write(f"{notebook}.tex", "\n".join([HEAD, *map(_latex, entries)]))
    return Markdown("\n".join(lines))


def _latex(entry: Entry) -> str:
    r"""A floating figure or table that finds its file in the folder \figures."""
    star, width = ("*", r"\textwidth") if entry.wide else ("", r"\columnwidth")
    kind = "figure" if entry.is_figure else "table"
    body = (
        rf"\includegraphics[width={width}]{{\figures/{entry.name}.pdf}}"
        if entry.is_figure
        else rf"\resizebox{{{width}}}{{!}}{{\input{{\figures/{entry.name}.tex}}}}"
    )
    task = f"Task {entry.task}. " if entry.task else ""
    return (
        f"\\begin{{{kind}{star}}}\n  \\centering\n  {body}\n"
        f"  \\caption{{{task}{escape(entry.caption)}}}\n  \\label{{{entry.name}}}\n"
        f"\\end{{{kind}{star}}}\n"
    )


def _note(entry: Entry) -> None:
    _entries.pop(entry.name, None)  # a cell that runs again moves it to the end, as on the page
    _entries[entry.name] = entry


def _write(file: str, text: str) -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / file).write_text(text, encoding="utf-8", newline="\n")


@contextmanager
def _may_fail(name: str) -> Iterator[None]:
    """A full disk or a folder without permission is reported and does not stop."""
    try:
        yield
    except OSError as error:
        print(f"{name} is not in {FOLDER}/: {error.strerror}")
