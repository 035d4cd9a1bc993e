"""Read a table from a file: pandas reads, and each row knows in which line it stands."""

import bz2
import gzip
import io
import lzma
import re
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

SUFFIXES = ".csv", ".tsv", ".txt", ".dat", ".npy", ".xlsx", ".parquet"
UNPACK = {".gz": gzip.decompress, ".bz2": bz2.decompress, ".xz": lzma.decompress}
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


@dataclass(frozen=True)
class Table:
    """Cells as they stand in a file.

    Attributes:
        cells: Strings or numbers, a row for a row.
        lines: In which line each row begins, from 1.
        names: Of the columns; None if they have none, or their names may be in the first row.
        headed: Whether they have names; None if that is to be found out.
        separator: Between the cells of a text.
        note: What else a user should know about the reading.
    """

    cells: pd.DataFrame
    lines: Sequence[int]
    names: list[str] | None = None
    headed: bool | None = None
    separator: str = ""
    note: str = ""


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


def read_table(path: Path, encoding: str | None, decimal: str | None) -> Table:
    """The cells of a file.

    Args:
        path: A file as `split_source` gives it.
        encoding: Of a text; None for UTF-8, UTF-16 if so marked, and Latin-1 for the rest.
        decimal: If it is ",", one between digits is no separator.

    Raises:
        ValueError: If it cannot be read; the message names the file, and the line of a text.
    """
    match = SOURCE.fullmatch(str(path))
    suffix, packed, data = match["suffix"].lower(), match["packed"], path.read_bytes()
    try:
        if packed and packed.lower() == ".zip":
            with zipfile.ZipFile(io.BytesIO(data)) as folder:
                (member,) = folder.namelist()
                data = folder.read(member)
        elif packed:
            data = UNPACK[packed.lower()](data)
    except (ValueError, OSError, EOFError, lzma.LZMAError, zlib.error, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} cannot be unpacked as one file: {error}") from error
    if suffix not in (".npy", ".xlsx", ".parquet"):
        return _read_text(path, data, encoding, decimal)
    try:
        if suffix == ".parquet":
            cells = pd.read_parquet(io.BytesIO(data))
            return Table(cells, range(1, len(cells) + 1), [str(name) for name in cells], True)
        if suffix == ".xlsx":
            cells = pd.read_excel(io.BytesIO(data), header=None, dtype=object, na_filter=False)
            full = np.flatnonzero((cells.map(str) != "").any(axis=1))
            if len(full) == 0:
                raise ValueError("its first sheet is empty")
            rows = full if cells.shape[1] > 1 else np.arange(full[0], full[-1] + 1)
            return Table(cells.iloc[rows], list(rows + 1))
        values = np.load(io.BytesIO(data), allow_pickle=False)
    except ImportError as error:
        raise ValueError(f"{path} needs a package that is not there: {error}") from error
    except (ValueError, OSError, EOFError, LookupError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is not a file of numbers: {error}") from error
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "iuf":
        raise ValueError(f"{path} does not hold an array of real numbers")
    if values.ndim not in (1, 2) or values.size == 0:
        raise ValueError(f"{path} holds an array of shape {values.shape}, not one column")
    return Table(pd.DataFrame(values), range(1, len(values) + 1), None, False)


def _read_text(path: Path, data: bytes, encoding: str | None, decimal: str | None) -> Table:
    """The cells of a text, as strings; a record has the number of its first line."""
    marked = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else None
    note = ""
    try:
        text = data.decode(encoding or marked or "utf-8")
    except (UnicodeError, LookupError) as error:
        if encoding or marked:
            raise ValueError(
                f"{path} is not text: {error}; encoding=... may name another"
            ) from error
        text, note = data.decode("latin-1"), "read as Latin-1"
    if "\0" in text:
        raise ValueError(f"{path} is not text: it has zero bytes; encoding=... may name another")
    text = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    records, separator = _records(text, "\t;, ")
    if not records:
        raise ValueError(f"{path} is empty")
    separator = separator or _separator(*(r[1] for r in records if r[1].strip()), decimal=decimal)
    separator = r"\s+" if separator == " " else separator
    records, _ = _records(text, "\t " if separator == r"\s+" else re.escape(separator))
    mark = None if separator == r"\s+" else separator
    is_full = lambda record: record[1].strip(" " if mark == "\t" else None)
    while not is_full(records[-1]):
        records.pop()
    width = len(records[0][1].split(mark))
    if width > 1:
        records = list(filter(is_full, records))
    number, line, raw = records[0]
    shorter = all(len(record[1].split()) == width + 1 for record in records[1:] if is_full(record))
    if mark is None and shorter and line[0] in " _" and records[1:]:  # no name above an index
        records[0], width = (number, f"_ {line}", f'"" {raw}'), width + 1
    for record in filter(is_full, records):
        if (found := len(record[1].split(mark))) != width:
            hint = COMMAS if separator == "," and decimal is None else ""
            raise ValueError(f"{path}, line {record[0]}: {found} cells, not {width}{hint}")
    try:
        cells = pd.read_csv(
            io.StringIO("\n".join(r[2] if is_full(r) else '""' for r in records)),
            sep=separator,
            header=None,
            names=range(width),
            dtype=object,
            na_filter=False,
            skipinitialspace=True,
        )
    except pd.errors.ParserError:
        cells = None
    if cells is None or len(cells) != len(records) or not isinstance(cells.index, pd.RangeIndex):
        open_quote = re.compile(rf'(^|[{mark or " "}]) *"')
        number, _, raw = next((r for r in records if open_quote.search(r[1])), records[0])
        raise ValueError(f"{path}, line {number}: its quotes do not match: {raw[:40]!r}")
    return Table(cells, [number for number, *_ in records], None, None, separator, note)


def _records(text: str, marks: str) -> tuple[list[tuple[int, str, str]], str | None]:
    """The line, the bare text (quoted cells blotted out) and the text of each record.

    Blank records between others are kept. A first line `sep=;`, as Excel writes, is none, and says
    what the separator is.
    """
    quoted = re.compile(rf'(^[ \t]*#(?:[ \t].*)?$)|((?:^|[{marks}]) *)"(?:[^"]|"")*"', re.MULTILINE)
    blot = lambda m: m[0] if m[1] else m[2] + "_" * (m.end() - m.end(2))  # comments stay
    bare = quoted.sub(blot, text) if '"' in text else text
    records, separator, number, start = [], None, 1, 0
    for line in bare.split("\n"):
        raw = text[start : start + len(line)]
        if number == 1 and (told := re.fullmatch(r'"?sep=(.)"?', raw.strip(" "))):
            separator = told[1]
        elif not _is_comment(line, bool(records)) and (line.strip() or records):
            records.append((number, line, raw))
        number, start = number + raw.count("\n") + 1, start + len(line) + 1
    return records, separator


def _is_comment(line: str, begun: bool) -> bool:
    """Whether a line is none of the data: by `#` before these, by `#` and a blank among them."""
    line = line.lstrip(" \t")
    if begun or re.split(r"[\t;, ]", line)[0].lower() in MISSING:
        return line == "#" or line.startswith(("# ", "#\t"))
    return line.startswith("#")


def _separator(first: str, *below: str, decimal: str | None) -> str:
    """Between the cells of these lines: of the marks in the first that which best fits the others.

    If there are no marks in the others, there is one column, or blanks stand between the cells: a
    name may have blanks and marks, too.
    """
    if decimal == ",":
        first = re.sub(r"(?<=\d),(?=\d)", ".", first)
    fits = {m: sum(n.count(m) == first.count(m) for n in below) for m in "\t;," if m in first}
    if fits and (not below or max(fits.values()) or any(m in n for n in below for m in fits)):
        return max(fits, key=fits.get)
    blanks = [" " in line.strip() for line in below or (first,)]
    return r"\s+" if sum(blanks) > len(blanks) / 2 else "\x1f"
