"""Read a table from a file, and in which line each of its rows begins."""

import bz2
import csv
import gzip
import io
import lzma
import re
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd

SUFFIXES = ".csv", ".tsv", ".txt", ".dat", ".npy", ".xlsx", ".parquet"
SOURCE = re.compile(
    rf"(?P<file>.+?(?P<suffix>{'|'.join(map(re.escape, SUFFIXES))})(?P<packed>\.(gz|bz2|xz|zip))?)"
    r"(?::(?P<column>.+))?",
    re.IGNORECASE | re.DOTALL,
)
MISSING = {  # in small letters: of pandas, of Excel, of statisticians
    *("", "na", "n/a", "nan", "-nan", "+nan", "null", "none", "<na>", "#na", "#n/a", "#n/a n/a"),
    *("1.#ind", "1.#qnan", "-1.#ind", "-1.#qnan"),
    *("#div/0!", "#null!", "#num!", "#ref!", "#value!", "#name?", "#spill!", "#calc!"),
    *("-", "--", ".", "?"),
}
COMMAS = "; if commas are decimal marks: decimal=','"
NO_SEPARATOR = "\x1f"


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
        kinds = f"{', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}"
        raise ValueError(
            f"{str(source)!r} is not a {kinds} file, or one packed by gz, bz2, xz, zip"
        )
    return Path(match["file"]), match["column"]


def read_table(path: Path, encoding: str | None, decimal: str | None) -> tuple[pd.DataFrame, str]:
    """The cells of a file and a note on its encoding; or a `ValueError` that names a text's line.

    The index says in which line a row begins, from 1. The columns have names, or numbers if names
    may stand in the first row.
    """
    match = SOURCE.fullmatch(str(path))
    suffix, packed = match["suffix"].lower(), (match["packed"] or "").lower()
    try:
        data = UNPACK[packed](path.read_bytes())
        if suffix in READERS:
            cells = READERS[suffix](io.BytesIO(data))
            return cells.set_axis(cells.index + 1), ""
    except ImportError as error:
        raise ValueError(f"it needs a package that is not there: {error}") from error
    except (ValueError, *BROKEN) as error:
        raise ValueError(f"it is not a {suffix}{packed} file of numbers: {error}") from error
    return _read_text(data, encoding, decimal)


def _unzip(data: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(data)) as folder:
        (member,) = folder.namelist()
        return folder.read(member)


def _read_parquet(file: io.BytesIO) -> pd.DataFrame:
    return pd.read_parquet(file).rename(columns=str).reset_index(drop=True)


def _read_excel(file: io.BytesIO) -> pd.DataFrame:
    cells = pd.read_excel(file, header=None, dtype=object, na_filter=False)
    full = np.flatnonzero((cells.map(str) != "").any(axis=1))
    if len(full) == 0:
        raise ValueError("its first sheet is empty")
    return cells.iloc[full if cells.shape[1] > 1 else slice(full[0], full[-1] + 1)]


def _read_npy(file: io.BytesIO) -> pd.DataFrame:
    values = np.load(file, allow_pickle=False)
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "iuf":
        raise ValueError("it does not hold an array of real numbers")
    if values.ndim not in (1, 2) or values.size == 0:
        raise ValueError(f"an array of shape {values.shape} is not one column")
    return pd.DataFrame(values.astype(float))


UNPACK = {"": bytes, ".gz": gzip.decompress, ".bz2": bz2.decompress}
UNPACK |= {".xz": lzma.decompress, ".zip": _unzip}
READERS = {".parquet": _read_parquet, ".xlsx": _read_excel, ".npy": _read_npy}
BROKEN = OSError, EOFError, LookupError, lzma.LZMAError, zlib.error, zipfile.BadZipFile


def _read_text(data: bytes, encoding: str | None, decimal: str | None) -> tuple[pd.DataFrame, str]:
    is_utf16 = data[:2] in (b"\xff\xfe", b"\xfe\xff")
    note = ""
    try:
        text = data.decode(encoding or ("utf-16" if is_utf16 else "utf-8-sig"))
    except (UnicodeError, LookupError) as error:
        if encoding or is_utf16:
            raise ValueError(f"it is not text: {error}; encoding=... may name another") from error
        text, note = data.decode("latin-1"), "read as Latin-1"
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    told = re.fullmatch(r'"?sep=(.)"?', lines[0].strip(" "))  # as Excel has it
    lines[0] = "" if told else lines[0]
    separator = told[1] if told else _separator(lines, decimal)
    if separator == " ":
        lines = [line.replace("\t", " ") for line in lines]
    records = list(_records(lines, separator))
    while records and not records[-1][1]:
        records.pop()
    if not records:
        raise ValueError("it is empty")
    number, first = records[0]
    full = [(line, cells) for line, cells in records if cells]
    widths = {len(cells) for _, cells in full[1:]}
    if separator == " " and lines[number - 1][0] in ' "' and widths == {len(first) + 1}:
        first.insert(0, "")  # R and pandas write no name above an index
    if len(first) > 1:
        records = full
    for line, cells in records:
        if cells and len(cells) != len(first):
            hint = COMMAS if separator == "," and decimal is None else ""
            raise ValueError(f"line {line}: {len(cells)} cells, not {len(first)}{hint}")
    begins, cells = zip(*((line, cells or [""]) for line, cells in records), strict=True)
    return pd.DataFrame(cells, begins, dtype=object), note


def _records(lines: list[str], separator: str) -> Iterator[tuple[int, list[str]]]:
    """The line that each record begins in, and its cells; a blank line between others has none."""
    begins = n_records = 0
    blanks = " " if separator == "\t" else " \t"

    def without_comments() -> Iterator[str]:
        nonlocal begins
        for number, line in enumerate(lines, start=1):
            if begins == 0:
                line = line.strip(blanks)
                if _is_comment(line, n_records > 0) or not (line or n_records):
                    continue
                begins = number
            yield line + "\n"

    reader = csv.reader(without_comments(), delimiter=separator, skipinitialspace=True, strict=True)
    try:
        for cells in reader:
            yield begins, cells
            begins, n_records = 0, n_records + 1
    except csv.Error as error:
        raise ValueError(f"line {begins}: do its quotes match? {error}") from error


def _is_comment(line: str, begun: bool) -> bool:
    """Whether a line is none of the data: by `#` before these, by `#` and a blank among them."""
    if begun or re.split(r"[\t;, ]", line)[0].lower() in MISSING:
        return re.match(r"#(\s|$)", line) is not None
    return line.startswith("#")


def _separator(lines: list[str], decimal: str | None) -> str:
    """Of tab, semicolon and comma that which makes most rows below the first equally wide.

    If the first row alone has such a mark, it belongs to a name. Then blanks stand between the
    cells, if most rows below have some inside, or there is one column.
    """
    if decimal == ",":
        lines = [re.sub(r"(?<=\d),(?=\d)", ".", line) for line in lines]
    fits = {}
    for mark in "\t;, ":
        rows = []
        with suppress(ValueError):  # the quotes of another separator
            for _, cells in islice(_records(lines, mark), 1000):
                rows += [cells] if cells else []
        widths = [len(cells) for cells in rows] or [1]
        below = widths[1:] or widths
        usual = max(set(below), key=lambda width: (below.count(width), width))
        if usual > 1 and (widths[0] > 1 or mark == " "):
            quotes = sum('"' in cell for cells in rows for cell in cells)
            fits[mark] = mark != " ", below.count(usual), -quotes
    return max(fits, key=fits.get, default=NO_SEPARATOR)
