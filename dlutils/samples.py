"""A user's own sample, read from a file, with errors that name the file, the line and the value."""

import csv
import re
from pathlib import Path

import numpy as np

MISSING = ("", "na", "n/a", "nan", "null", "none")
SOURCE = re.compile(r"(?P<file>.+\.(?:csv|tsv|txt|dat|npy))(?::(?P<column>.+))?", re.IGNORECASE)


def is_source(name: str) -> bool:
    """Whether a name is one of a file with numbers, `file.csv` or `file.csv:column`."""
    return SOURCE.fullmatch(name) is not None


def split_source(source: str | Path) -> tuple[Path, str | None]:
    """The file and the column of `file.csv:column`; None where no column is named.

    Raises:
        ValueError: If it is not the name of such a file.
    """
    match = SOURCE.fullmatch(str(source))
    if match is None:
        raise ValueError(f"{str(source)!r} is not a .csv, .tsv, .txt, .dat or .npy file")
    return Path(match["file"]), match["column"]


def read_sample(source: str | Path, *, drop_missing: bool = False) -> np.ndarray:
    """Read one column of numbers.

    Args:
        source: A .csv, .tsv, .txt or .dat file, numbers apart by commas, semicolons, tabs or
            blanks, with or without a line of names, `#` before comments; or a .npy file. Of
            several columns `file.csv:name` takes one by its name, `file.csv:2` the second.
        drop_missing: Whether to leave out NaN and empty cells.

    Returns:
        The numbers, float64, shape `(n,)`.

    Raises:
        ValueError: If there is no such file or column, there are several columns and none was
            named, a cell is not a finite number, or values are missing and are not to be dropped.
    """
    path, column = split_source(source)
    if not path.is_file():
        raise ValueError(f"there is no file {str(path)!r}")
    lines, values = _read_npy(path, column) if path.suffix.lower() == ".npy" else _read_text(
        path, column
    )  # fmt: skip
    missing = np.isnan(values)
    if missing.any() and not drop_missing:
        raise ValueError(
            f"{path}: {missing.sum()} of {len(values)} values are missing or NaN, the first in "
            f"line {lines[missing.argmax()]}; drop_missing=True (in a notebook: DROP_MISSING) "
            "leaves them out"
        )
    infinite = np.isinf(values)
    if infinite.any():
        raise ValueError(f"{path}, line {lines[infinite.argmax()]}: a value is infinite")
    return values[~missing]


def _read_npy(path: Path, column: str | None) -> tuple[np.ndarray, np.ndarray]:
    """Line numbers (positions from 1) and values of a NumPy file."""
    try:
        values = np.load(path, allow_pickle=False)
    except ValueError as error:
        raise ValueError(f"{path} is not a file of numbers: {error}") from error
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "biuf":
        raise ValueError(f"{path} does not hold an array of real numbers")
    if values.ndim == 2:
        names = [str(k) for k in range(1, values.shape[1] + 1)]
        values = values[:, _choose(path, names, column)]
    elif values.ndim != 1 or column is not None:
        raise ValueError(f"{path} holds an array of shape {values.shape}, not one column")
    return np.arange(1, len(values) + 1), values.astype(float)


def _read_text(path: Path, column: str | None) -> tuple[np.ndarray, np.ndarray]:
    """Line numbers and values of a text file."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not text: {error}") from error
    rows = [
        (number, line)
        for number, line in enumerate(text.splitlines(), start=1)
        if line.strip() and not line.lstrip().startswith("#")
    ]
    if not rows:
        raise ValueError(f"{path} is empty")
    blank = " " if " " in rows[-1][1].strip() else "\x1f"  # the name of one column may have blanks
    separator = next((mark for mark in ("\t", ";", ",") if mark in rows[0][1]), blank)
    cells = [(number, _split(line, separator)) for number, line in rows]
    names = [str(k) for k in range(1, len(cells[0][1]) + 1)]
    if any(_number(cell) is None for cell in cells[0][1]):
        names = cells.pop(0)[1]
    if not cells:
        raise ValueError(f"{path} has no numbers under its names")
    where = _choose(path, names, column)
    values = []
    for number, row in cells:
        if len(row) != len(names):
            raise ValueError(f"{path}, line {number}: {len(row)} cells, not {len(names)}")
        value = _number(row[where])
        if value is None:
            raise ValueError(f"{path}, line {number}: {row[where]!r} is not a number")
        values.append(value)
    return np.array([number for number, _ in cells]), np.array(values)


def _split(line: str, separator: str) -> list[str]:
    reader = csv.reader([line.strip(" ")], delimiter=separator, skipinitialspace=True)
    return [cell.strip() for cell in next(reader)]


def _number(cell: str) -> float | None:
    """The value of a cell, NaN for a missing one, None for what is not a number."""
    if cell.lower() in MISSING:
        return float("nan")
    try:
        return float(cell)
    except ValueError:
        return None


def _choose(path: Path, names: list[str], column: str | None) -> int:
    """The index of the column asked for, or of the only one."""
    if column is None:
        if len(names) == 1:
            return 0
        raise ValueError(
            f"{path} has {len(names)} columns; say which, as in '{path.name}:{names[-1]}': "
            f"{', '.join(names)}"
        )
    if column in names:
        return names.index(column)
    if column.isdigit() and 1 <= int(column) <= len(names):
        return int(column) - 1
    raise ValueError(f"{path} has no column {column!r}; choose from {', '.join(names)}")
