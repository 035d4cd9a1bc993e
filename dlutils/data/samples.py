"""A user's own sample: one column of a file, with errors that name the file, line and value."""

import re
from collections.abc import Iterable, Sized
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from dlutils.data.reading import COMMAS, MISSING, read_table, split_source

CODES = {-1.0} | {sign * (10.0**k - 1) for sign in (-1, 1) for k in range(1, 10)}
NEARLY = re.compile(r"[+-]?[.,]?\d")
COMMA = re.compile(r"[+-]?\d*,\d+(?:[eE][+-]?\d+)?")
THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2}(?:,\d{3})+")


class Sample(NamedTuple):
    """What was read.

    Attributes:
        values: The numbers, float64, shape `(n,)`.
        weights: What each counts, float64, positive, shape `(n,)`; None if no column was named.
        description: How many rows, under which header, and what was left out, in one line.
    """

    values: np.ndarray
    weights: np.ndarray | None
    description: str


def load_sample(
    source: str | Path,
    *,
    drop_missing: bool = False,
    weights: str | int | None = None,
    encoding: str | None = None,
    decimal: str | None = None,
) -> Sample:
    """Read one column of numbers, and one of weights if it is named.

    The first row is a header if a name asked for stands in it, if it is what pandas writes for
    columns without names (0, 1, 2, with or without an empty cell before), or if no cell of it is a
    number, begins like one, or is missing. Lines that begin with `#` before the first row, and
    with `#` and a blank anywhere, are comments.

    Args:
        source: A .csv, .tsv, .txt or .dat file, cells apart by tabs, semicolons, commas or blanks;
            or .npy, .xlsx (the first sheet), .parquet; each may be packed. Of several columns
            `file.csv:name` takes one by its name, `file.csv:2` the second.
        drop_missing: Whether to leave out rows in which something is missing.
        weights: The name or number of a column with what each row counts; a row that counts
            nothing is left out.
        encoding: Of a text; None for UTF-8, UTF-16 if so marked, and Latin-1 for the rest.
        decimal: "." or ","; None for a comma where it can be nothing else.

    Raises:
        ValueError: If there is no such file or column, there are several columns and none was
            named, a cell is not a finite number, a weight is negative, or values are missing and
            are not to be dropped.
    """
    path, column = split_source(source)
    if decimal not in (None, ".", ","):
        raise ValueError(f"decimal must be '.' or ',', not {decimal!r}")
    if not path.is_file():
        raise ValueError(f"there is no file {str(path)!r}")
    asked = [column] if weights is None else [column, str(weights)]
    try:
        cells, note = read_table(path, encoding, decimal)
        cells = _with_names(cells, asked)
        where = _choose(cells, asked)
        marks = [decimal or _decimal(cells, k) for k in where]
        columns = [_numbers(cells, k, mark) for k, mark in zip(where, marks, strict=True)]
        missing = np.isnan(columns).any(axis=0)
        if missing.any() and not drop_missing:
            raise ValueError(
                f"{missing.sum()} of {len(missing)} values are missing or NaN, the first in line "
                f"{cells.index[missing.argmax()]}; drop_missing=True (in a notebook: "
                "DROP_MISSING) leaves them out"
            )
        values, counts = columns[0], np.ones(len(missing)) if weights is None else columns[1]
        wrong = np.isinf(values) | np.isinf(counts) | (counts < 0)
        if wrong.any():
            k = wrong.argmax()
            raise ValueError(
                f"line {cells.index[k]}: a value must be finite, and a weight not negative, not "
                f"{values[k]:g} with weight {counts[k]:g}"
            )
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    zero = ~missing & (counts == 0)
    values, counts = values[~missing & ~zero], counts[~missing & ~zero]
    headed, rows = _has_names(cells), f"{len(values)} row{'s' if len(values) != 1 else ''}"
    header = f"under the header {cells.columns[where[0]]!r}" if headed else "without a header"
    if not headed and cells.shape[1] > 1:
        header = f"of column {where[0] + 1}, {header}"
    parts = [
        f"{rows} {header}",
        note,
        "decimal comma" if decimal is None and "," in marks else "",
        f"{missing.sum()} missing left out" if missing.any() else "",
        f"{zero.sum()} of weight zero left out" if zero.any() else "",
        _code(values),
    ]
    return Sample(values, None if weights is None else counts, ", ".join(filter(None, parts)))


def _has_names(cells: pd.DataFrame) -> bool:
    return isinstance(cells.columns[0], str)


def _with_names(cells: pd.DataFrame, asked: list[str | None]) -> pd.DataFrame:
    """The cells, the first row taken for the columns' names if it looks like that: `load_sample`.

    What is asked for is the number of a column, not a name, if there are as many columns. A "0" at
    the head of a single column may be either.
    """
    if not _has_names(cells):
        first = [str(cell).strip() for cell in cells.iloc[0]]
        numbers, is_one = _counted(first, 1), len(first) == 1
        names = first[1:] if first[0] == "" and not is_one else first  # none over an index
        is_asked = any(name in first and name not in numbers for name in asked)
        if first == ["0"] and "1" not in asked and not is_asked:
            if any(re.fullmatch(r"[+-]?\d+", str(cell).strip()) for cell in cells.iloc[1:, 0]):
                raise ValueError(
                    "'0' in the first row may be a name, as pandas writes it, or a number: with "
                    "':0' behind the file's name it is a name, with ':1' a number"
                )
            is_asked = True
        counted = names == _counted(names, 0) and not is_one
        words = not any(NEARLY.match(cell) or _number(cell) is not None for cell in names)
        if is_asked or counted or words:
            cells = cells.iloc[1:].set_axis(first, axis=1)
    if cells.empty:
        raise ValueError("it has no numbers under its names")
    return cells


def _choose(cells: pd.DataFrame, asked: list[str | None]) -> list[int]:
    """The indices of the columns asked for by name or number; for None the only one left."""
    numbers = _counted(cells.columns, 1)
    names, hint = (list(cells), "") if _has_names(cells) else (numbers, COMMAS)
    where = {}
    for name in filter(None, asked):
        if names.count(name) > 1:
            raise ValueError(f"there are several columns {name!r}: take one by its number")
        if name not in names + numbers:
            raise ValueError(f"there is no column {name!r}; choose from {', '.join(names)}{hint}")
        where[name] = names.index(name) if name in names else numbers.index(name)
    if None in asked:
        is_index = names[0] == "" and _counts_up(cells.iloc[:, 0])
        left = [k for k in range(is_index, len(names)) if k not in where.values()]
        if len(left) != 1:
            k = (left or [0])[-1]
            example = names[k] if names.count(names[k]) == 1 else numbers[k]
            raise ValueError(
                f"there are {len(left)} columns; say which, as by ':{example}' behind the file's "
                f"name: {', '.join(names[k] for k in left)}{hint}"
            )
        where[None] = left[0]
    return [where[name] for name in asked]


def _decimal(cells: pd.DataFrame, k: int) -> str | None:
    """A comma if it can be nothing but a decimal mark: no thousands, no cells, no row numbers."""
    alone = cells.shape[1] == 1
    texts = [cell.strip() for cell in cells.iloc[:, k] if isinstance(cell, str)]
    commas = [text for text in texts if "," in text]
    points = [text for text in texts if "." in text and text.lower() not in MISSING]
    if (
        (alone and not _has_names(cells))
        or not all(map(COMMA.fullmatch, commas))
        or all(map(THOUSANDS.fullmatch, commas))
        or any(map(_number, points))
        or (alone and _counts_up(text.split(",")[0] for text in commas))
    ):
        return None
    return ","


def _numbers(cells: pd.DataFrame, k: int, decimal: str | None) -> np.ndarray:
    """One column, NaN for what is missing."""
    values = [_number(cell, decimal) for cell in cells.iloc[:, k]]
    if None in values:
        row = values.index(None)
        cell, hint = str(cells.iloc[row, k]), ""
        if COMMA.fullmatch(cell.strip()):
            hint = COMMAS
        elif row == 0 and not _has_names(cells):
            hint = f"; if it is the name of the column, ask for it: ':{cell[:40]}'"
        cell = cell if len(cell) < 50 else f"{cell[:40]}..."
        raise ValueError(f"line {cells.index[row]}: {cell!r} is not a number{hint}")
    return np.array(values, dtype=float)


def _number(cell: object, decimal: str | None = None) -> float | None:
    """The value of a cell, NaN for a missing one, None for what is not a number."""
    if isinstance(cell, str):
        cell = "nan" if cell.strip().lower() in MISSING else cell.strip()
        if "_" in cell or (decimal == "," and "." in cell):
            return None
        cell = cell.replace(",", ".") if decimal == "," else cell
    elif isinstance(cell, (bool, np.bool_)):
        return None
    elif cell is None or cell is pd.NA:
        return float("nan")
    try:
        return float(cell)
    except (TypeError, ValueError, OverflowError):
        return None


def _counted(columns: Sized, first: int) -> list[str]:
    """As many numbers, from the first."""
    return [str(k) for k in range(first, first + len(columns))]


def _counts_up(cells: Iterable[object]) -> bool:
    """Whether these are 0, 1, 2, ... or 1, 2, 3, ..."""
    cells = [str(cell).strip() for cell in cells]
    return cells in (_counted(cells, 0), _counted(cells, 1))


def _code(values: np.ndarray) -> str:
    """A word on the smallest or largest value if it looks like a code for what is missing.

    It is -1 or of nines, is there at least three times, and is farther from the next value than
    the others from each other.
    """
    numbers, counts = np.unique(values, return_counts=True)
    half = numbers / 2  # of which no difference overflows
    for k, rest in ((0, half[1:]), (-1, half[:-1])):
        apart = len(rest) > 1 and np.abs(rest - half[k]).min() > np.ptp(rest)
        if apart and counts[k] >= 3 and numbers[k] in CODES:
            return f"{numbers[k]:g} is there {counts[k]} times, far from the rest: is it missing?"
    return ""
