"""A user's own sample: one column of a file, with errors that name the file, line and value."""

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from dlutils.data.cells import GROUPING, PLAIN, UNIT, Marks, differ, is_number, number, readings
from dlutils.data.layout import COMMAS, SKIP, Table, counted, counts_up
from dlutils.data.reading import Reading, read_table, split_source
from dlutils.settings import check_count, check_flag

CODE = re.compile(
    r"1|[789](\.9+e\+\d+)?|([789])\2+(\.(\2+|[27]5))?(e\+\d+)?|1e\+\d+"
)  # 999.25: of well logs
FILLS = [2.0**k - least for k in (15, 16, 31, 32, 63) for least in (0, 1)]
FILLS += [9.96921e36, 1.70141e38, 3.40282e38, 1.79769e308]  # of NetCDF, Surfer, the largest numbers
WITH_UNIT = re.compile(r"(?P<before>[^\w.,+-]*)[+-]?[.,]?\d[\d.,]*(?P<after>\D*)")


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
    thousands: str | None = None,
    skip_rows: int | None = None,
) -> Sample:
    """Read one column of numbers, and one of weights if it is named.

    Titles above the names and units below them are left out. Lines that begin with `#` before the
    first row, and with `#` and a blank anywhere, are comments. When the first row is a header says
    `dlutils.data.layout`; a name that is a number, and could be that of a column, is a name if it
    is in the header.

    Args:
        source: A .csv, .tsv, .txt or .dat file, cells apart by tabs, semicolons, bars, commas or
            blanks; or .npy, .xlsx, .parquet; each may be packed, a .zip may hold any. Of several
            columns `file.csv:name` takes one by its name, `file.csv:2` the second; of several
            sheets `file.xlsx:sheet!name`, else the first that is not hidden nor empty.
        drop_missing: Whether to leave out rows in which something is missing.
        weights: The name or number of a column with what each row counts; a row that counts
            nothing is left out.
        encoding: Of a text; None for UTF-8, UTF-16 if so marked, and Latin-1 for the rest.
        decimal: "." or ","; None for a comma where it can be nothing else.
        thousands: What is between thousands: ",", ".", " " or "'"; None where it can be
            nothing else.
        skip_rows: How many lines stand above the table; None to find out.

    Raises:
        ValueError: If there is no such file or column, there are several columns and none was
            named, a cell is not a finite number, or may be either of two, a weight is negative, or
            values are missing and are not to be dropped.
    """
    path, _ = split_source(source)
    check_flag("drop_missing", drop_missing)
    for name, mark, marks in (("decimal", decimal, ".,"), ("thousands", thousands, GROUPING)):
        if mark is not None and mark not in [*marks]:
            choices = ", ".join(map(repr, marks))
            raise ValueError(f"{name} must be one of {choices}, not {mark!r}")
    if decimal is not None and decimal == thousands:
        raise ValueError(f"decimal and thousands cannot both be {decimal!r}")
    if skip_rows is not None:
        check_count("skip_rows", skip_rows, least=0)
    if not path.is_file():
        raise ValueError(f"there is no file {str(path)!r}")
    how = Reading(encoding, decimal, thousands, skip_rows)
    try:
        table, asked = read_table(source, None if weights is None else str(weights), how)
        cells, notes = table.cells, list(table.notes)
        where = _choose(table, asked, notes)
        marks = [_marks(cells, k, how, notes) for k in where]
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
    rows = f"{len(values)} row{'s' if len(values) != 1 else ''}"
    header = (
        "without a header" if cells.shape[1] == 1 else f"of column {where[0] + 1}, without a header"
    )
    if table.has_names:
        header = f"under the header {cells.columns[where[0]]!r}"
    parts = [
        f"{rows} {header}",
        *dict.fromkeys(notes),
        f"{missing.sum()} missing left out" if missing.any() else "",
        f"{zero.sum()} of weight zero left out" if zero.any() else "",
        *_codes(values),
    ]
    return Sample(values, None if weights is None else counts, ", ".join(filter(None, parts)))


def _choose(table: Table, asked: list[str | None], notes: list[str]) -> list[int]:
    """The indices of the columns asked for by name or number; for None the only one left.

    If a number could be either, a note says which was taken.
    """
    cells = table.cells
    numbers = counted(cells.columns, 1)
    names = list(cells) if table.has_names else numbers
    hint = "" if table.has_names else COMMAS
    where = {}
    for name in filter(None, asked):
        if names.count(name) > 1:
            raise ValueError(f"there are several columns {name!r}: take one by its number")
        if name not in names + numbers:
            hint = table.elsewhere or hint
            raise ValueError(f"there is no column {name!r}; choose from {', '.join(names)}{hint}")
        where[name] = names.index(name) if name in names else numbers.index(name)
        if table.has_names and name in names and name in numbers:
            notes.append(f"{name} taken for a name, not for the number of a column")
        elif not table.has_names and name in map(str, cells.iloc[0]) and len(names) > 1:
            notes.append(f"{name} taken for the number of a column, not for a name")
    if None in asked:
        left = range(len(names) - table.n_index)
        is_index = names[0] == "" and counts_up(cells.iloc[:, 0])
        left = [k for k in left[is_index:] if k not in where.values()]
        full = [k for k in left if names[k] or any(map(is_number, cells.iloc[:, k]))]
        if len(full) != 1:
            k = (full or [0])[-1]
            example = names[k] if names.count(names[k]) == 1 else numbers[k]
            raise ValueError(
                f"there are {len(full)} columns; say which, as by ':{example}' behind the file's "
                f"name: {', '.join(names[k] for k in full)}{hint}"
            )
        where[None] = full[0]
    return [where[name] for name in asked]


def _marks(cells: pd.DataFrame, k: int, how: Reading, notes: list[str]) -> Marks:
    """How the numbers of a column are written: as they are read, or as it can only be.

    If the marks of a column may be those of either, what is told or what the other columns have
    decides, or nobody: then that is an error. In a single column, commas may be between cells.
    """
    column = cells.iloc[:, k]
    ways = readings(column, how.thousands, how.decimal)
    told = how.thousands is not None or how.decimal is not None
    if not ways:
        return Marks(how.thousands or "", how.decimal or ".") if told else PLAIN
    if "," in "".join(ways[0]) and cells.shape[1] == 1 and not told:
        whole = [str(cell).split(",")[0] for cell in column if "," in str(cell)]
        if not isinstance(cells.columns[0], str) or counts_up(whole):
            return PLAIN
    if len(ways) > 1 and not told and (ways[0] != PLAIN or _has_commas(cells, k)):
        first = differ(column, *ways[:2])
        text = str(column.iloc[first]).strip()
        one, other = (f"{number(text, way):.15g}" for way in ways[:2])
        raise ValueError(
            f"line {cells.index[first]}: {text!r} may be {one} or {other}: say {ways[0]} or "
            f"{ways[1]} (in a notebook: DECIMAL, THOUSANDS)"
        )
    if len(ways) > 1 and not told and any(str(cell).strip().isdecimal() for cell in column):
        first = differ(column, *ways[:2])
        notes.append(f"{column.iloc[first]} read with a decimal point")
    if not told and ways[0].thousands:
        kind = {",": "commas", ".": "points", " ": "blanks", "'": "apostrophes"}
        notes.append(f"{kind[ways[0].thousands]} between thousands")
    if how.decimal is None and ways[0].decimal == ",":
        notes.append("decimal comma")
    return ways[0]


def _has_commas(cells: pd.DataFrame, k: int) -> bool:
    """Whether another column than this has decimal commas that can be nothing else."""
    others = (readings(cells.iloc[:1000, j]) for j in range(cells.shape[1]) if j != k)
    return any(ways and all(way.decimal == "," for way in ways) for ways in others)


def _numbers(cells: pd.DataFrame, k: int, marks: Marks) -> np.ndarray:
    """One column, NaN for what is missing."""
    values = [number(cell, marks) for cell in cells.iloc[:, k]]
    if None in values:
        row = values.index(None)
        cell = str(cells.iloc[row, k])
        beside = WITH_UNIT.fullmatch(cell.strip())
        hint = ""
        if is_number(cell):
            hint = COMMAS
        elif beside and (beside["before"] or UNIT.fullmatch(beside["after"].strip())):
            hint = f": strike out {(beside['before'] or beside['after']).strip()!r} in the file"
        elif row == 0 and not isinstance(cells.columns[0], str):
            hint = f"; if it is the name of the column, ask for it: ':{cell[:40]}'"
        elif row == 0 and not any(map(is_number, cells.iloc[0])):
            hint = SKIP.format(cells.index[0])
        cell = cell if len(cell) < 50 else f"{cell[:40]}..."
        raise ValueError(f"line {cells.index[row]}: {cell!r} is not a number{hint}")
    return np.array(values, dtype=float)


def _codes(values: np.ndarray) -> list[str]:
    """A few words on each value at an end of the data that looks like a code for what is missing.

    It is a number that is often used so, and is there at least three times. It is farther from the
    next value than the others are from each other, or all that are negative are such.
    """
    numbers, counts = np.unique(values, return_counts=True)
    found = []
    while len(numbers) > 2:
        half = numbers / 2  # of which no difference overflows
        for k, rest in ((0, half[1:]), (-1, half[:-1])):
            far = np.abs(rest - half[k]).min() > np.ptp(rest)
            alone = numbers[k] < -1 and all(map(_is_code, numbers[numbers < 0]))
            if counts[k] >= 3 and _is_code(numbers[k]) and (far or alone):
                where = "far from the rest" if far else "where others are above zero"
                found.append(
                    f"{numbers[k]:.12g} is there {counts[k]} times, {where}: is it missing?"
                )
                numbers, counts = (np.delete(array, k) for array in (numbers, counts))
                break
        else:
            break
    return found


def _is_code(value: float) -> bool:
    """Whether a number is often used for what is missing: of nines, an end of a type's range."""
    size = abs(value)
    is_fill = any(abs(size / fill - 1) < 1e-5 for fill in FILLS)
    return is_fill or CODE.fullmatch(f"{size:.12g}") is not None
