"""A user's own sample: one column of a file, with errors that name the file, line and value."""

import re
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from dlutils.data.reading import COMMAS, MISSING, Table, read_table, split_source

CODES = {-1.0} | {sign * (10.0**k - 1) for sign in (-1, 1) for k in range(1, 10)}
NEARLY = re.compile(r"[+-]?[.,]?\d")
COMMA = re.compile(r"[+-]?\d*,\d+(?:[eE][+-]?\d+)?")
THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2}(?:,\d{3})+")


@dataclass(frozen=True)
class Sample:
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
    table = _with_names(path, read_table(path, encoding, decimal), asked)
    where = _choose(path, table, asked)
    columns, notes = zip(*(_numbers(path, table, k, decimal) for k in where), strict=True)
    missing = np.isnan(columns).any(axis=0)
    if missing.any() and not drop_missing:
        raise ValueError(
            f"{path}: {missing.sum()} of {len(missing)} values are missing or NaN, the first in "
            f"line {table.lines[missing.argmax()]}; drop_missing=True (in a notebook: "
            "DROP_MISSING) leaves them out"
        )
    for what, numbers in zip(("value", "weight"), columns, strict=False):
        for wrong, how in ((np.isinf(numbers), "infinite"), (numbers < 0, "negative")):
            if wrong.any() and (what == "weight" or how == "infinite"):
                raise ValueError(f"{path}, line {table.lines[wrong.argmax()]}: a {what} is {how}")
    zero = ~missing & (columns[-1] == 0) & (weights is not None)
    values, *counts = (numbers[~missing & ~zero] for numbers in columns)
    header = f"under the header {table.names[where[0]]!r}" if table.headed else "without a header"
    if not table.headed and len(table.names) > 1:
        header = f"of column {where[0] + 1}, {header}"
    left_out = ((missing, "missing left out"), (zero, "of weight zero left out"))
    notes = [table.note, *dict.fromkeys(notes), *(f"{n.sum()} {w}" for n, w in left_out if n.any())]
    parts = [f"{len(values)} row{'s'[: len(values) != 1]} {header}", *notes, _code(values)]
    return Sample(values, counts[0] if counts else None, ", ".join(filter(None, parts)))


def _with_names(path: Path, table: Table, asked: list[str | None]) -> Table:
    """The table, its first row taken off if they are names; else they are numbers from 1."""
    if table.headed is None:
        first = [str(cell).strip() for cell in table.cells.iloc[0]]
        if _is_header(path, first, table.cells.iloc[1:, 0], asked):
            table = replace(
                table, cells=table.cells.iloc[1:], lines=table.lines[1:], names=first, headed=True
            )
    if table.cells.empty:
        raise ValueError(f"{path} has no numbers under its names")
    return replace(table, names=table.names or [str(k + 1) for k in range(table.cells.shape[1])])


def _is_header(path: Path, first: list[str], below: pd.Series, asked: list[str | None]) -> bool:
    """Whether the first row are names: see `load_sample`; that of one column, "0", may be either.

    What is asked for is the number of a column, not a name, if there are as many columns.
    """
    if any(name in first and name not in _numbered(first) for name in asked):
        return True
    if first == ["0"] and "1" not in asked:
        if not any(re.fullmatch(r"[+-]?\d+", str(cell).strip()) for cell in below):
            return True
        raise ValueError(
            f"{path}: '0' in the first row may be a name, as pandas writes it, or a number: "
            f"'{path.name}:0' takes it as a name, '{path.name}:1' as a number"
        )
    names = first[1:] if len(first) > 1 and first[0] == "" else first
    if len(first) > 1 and names == [str(k) for k in range(len(names))]:
        return True
    names = first if "1" in asked else names
    return not any(NEARLY.match(cell) or _number(cell) is not None for cell in names)


def _choose(path: Path, table: Table, asked: list[str | None]) -> list[int]:
    """The indices of the columns asked for by name or number; for None the only one left."""
    names, taken = table.names, []
    if table.headed and names[0] == "" and _counts_up(table.cells.iloc[:, 0]):
        taken.append(0)  # an index
    where = {}
    for name in sorted(asked, key=lambda name: name is None):  # what is left comes last
        left = [k for k in range(len(names)) if k not in taken]
        if name is None and len(left) == 1:
            k = left[0]
        elif names.count(name) > 1:
            raise ValueError(f"{path} has several columns {name!r}: take one by its number")
        elif name in names:
            k = names.index(name)
        elif name is not None and name in _numbered(names):
            k = int(name) - 1
        else:
            what = f"no column {name!r}; choose from {', '.join(names)}"
            if name is None:
                example = names[left[-1]] if names.count(names[left[-1]]) == 1 else left[-1] + 1
                what = f"{len(left)} columns; say which, as in '{path.name}:{example}': "
                what += ", ".join(names[k] for k in left)
            hint = COMMAS if table.separator == "," and not table.headed else ""
            raise ValueError(f"{path} has {what}{hint}")
        where[name] = k
        taken.append(k)
    return [where[name] for name in asked]


def _numbers(path: Path, table: Table, where: int, decimal: str | None) -> tuple[np.ndarray, str]:
    """One column, NaN for what is missing, and a word on its decimal mark if that was found out."""
    cells = table.cells.iloc[:, where]
    if isinstance(cells.dtype, np.dtype) and cells.dtype.kind in "iuf":
        return cells.to_numpy(float), ""
    found = decimal is None and (table.headed or len(table.names) > 1)
    found = found and _has_decimal_commas(cells, alone=len(table.names) == 1)
    values = [_number(cell, "," if found else decimal) for cell in cells]
    if None in values:
        k = values.index(None)
        cell, hint = str(cells.iloc[k]), ""
        if COMMA.fullmatch(cell.strip()):
            hint = COMMAS
        elif k == 0 and not table.headed:
            hint = f"; if it is the name of the column, ask for it: '{path.name}:{cell[:40]}'"
        cell = cell if len(cell) < 50 else f"{cell[:40]}..."
        raise ValueError(f"{path}, line {table.lines[k]}: {cell!r} is not a number{hint}")
    return np.array(values, dtype=float), "decimal comma" if found else ""


def _number(cell: object, decimal: str | None = None) -> float | None:
    """The value of a cell, NaN for a missing one, None for what is not a number."""
    if cell is None or cell is pd.NA:
        return float("nan")
    if isinstance(cell, str):
        cell = cell.strip()
        if cell.lower() in MISSING:
            return float("nan")
        if "_" in cell or (decimal == "," and "." in cell):
            return None
        cell = cell.replace(",", ".") if decimal == "," else cell
    try:
        return None if isinstance(cell, (bool, np.bool_)) else float(cell)
    except (TypeError, ValueError, OverflowError):
        return None


def _has_decimal_commas(cells: pd.Series, alone: bool) -> bool:
    """Whether commas can be nothing but decimal marks: no thousands, no cells, no row numbers."""
    texts = [cell.strip() for cell in cells if isinstance(cell, str)]
    commas = [text for text in texts if "," in text]
    points = [text for text in texts if "." in text and text.lower() not in MISSING]
    if not commas or not all(map(COMMA.fullmatch, commas)) or any(map(_number, points)):
        return False
    whole = pd.Series([text.split(",")[0] for text in commas])
    return not all(map(THOUSANDS.fullmatch, commas)) and not (alone and _counts_up(whole))


def _counts_up(cells: pd.Series) -> bool:
    """Whether these are 0, 1, 2, ... or 1, 2, 3, ..."""
    cells = [str(cell).strip() for cell in cells]
    return any(cells == [str(k + first) for k in range(len(cells))] for first in (0, 1))


def _numbered(names: list[str]) -> list[str]:
    return [str(k + 1) for k in range(len(names))]


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
