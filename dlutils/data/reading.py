"""The rows of a file that holds a table, and in which line each of them begins."""

import bz2
import csv
import gzip
import io
import lzma
import re
import warnings
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from dlutils.data.cells import MISSING
from dlutils.data.layout import Row, Table, begin, is_index_without_name, lay_out

SUFFIXES = ".csv", ".tsv", ".txt", ".dat", ".npy", ".xlsx", ".parquet"
SOURCE = re.compile(
    rf"(?P<file>.+?(?:(?P<suffix>{'|'.join(map(re.escape, SUFFIXES))})"
    r"(?P<packed>\.(gz|bz2|xz|zip))?|(?P<folder>\.zip)))(?::(?P<column>.+))?",
    re.IGNORECASE | re.DOTALL,
)
NO_SEPARATOR = "\x1f"
APART = (
    "; if there are several, tabs, semicolons, bars, commas or blanks are to be between them, or "
    "what a first line names: sep=^"
)
CLUTTER = re.compile(r"/$|(^|/)(__MACOSX/|\.|Thumbs\.db$|desktop\.ini$)", re.IGNORECASE)
LOOKS = {  # how files begin that are no text
    b"PK\x03\x04": "a .zip or .xlsx file: name it so",
    b"\x1f\x8b": "a .gz file: name it so",
    b"BZh": "a .bz2 file: name it so",
    b"\xfd7zXZ": "an .xz file: name it so",
    b"PAR1": "a .parquet file: name it so",
    b"\x93NUMPY": "a .npy file: name it so",
    b"\xd0\xcf\x11\xe0": "an Excel file, old or locked: save it anew, without a password",
    b"%PDF": "a PDF, which holds no table",
}
MARKED = {b"\xff\xfe\0\0": "utf-32", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}


class Reading(NamedTuple):
    """How a file is to be read; None is to find out.

    Attributes:
        encoding: Of a text: None for UTF-8, UTF-16 if so marked, and Latin-1 for the rest.
        decimal: "." or ",".
        thousands: ",", ".", a blank or "'" between thousands.
        skip_rows: So many lines at the head are left out, 0 for none.
    """

    encoding: str | None = None
    decimal: str | None = None
    thousands: str | None = None
    skip_rows: int | None = None


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


def read_table(source: str | Path, weights: str | None, how: Reading) -> tuple[Table, list]:
    """What a file holds, and which columns are asked for: of the values, and of the weights.

    Raises:
        ValueError: If it cannot be read; the message names a text's line.
    """
    path, column = split_source(source)
    column = column and column.strip()
    match = SOURCE.fullmatch(str(path))
    suffix = (match["suffix"] or "").lower()
    packed = (match["packed"] or match["folder"] or "").lower()
    asked = [column] if weights is None else [column, weights]
    try:
        data = path.read_bytes()
        if packed == ".zip":
            data, suffix = _unzip(data, suffix)
        else:
            data = UNPACK[packed](data)
        looks = next((kind for mark, kind in LOOKS.items() if data.startswith(mark)), None)
        if looks and suffix not in looks:
            raise ValueError(f"it looks like {looks}")
        if suffix == ".xlsx":
            rows, notes, elsewhere, asked = _read_excel(io.BytesIO(data), asked)
            separator = ""
        elif suffix in READERS:
            if how.skip_rows:
                raise ValueError("skip_rows is for texts and sheets")
            return READERS[suffix](io.BytesIO(data)), asked
    except ImportError as error:
        raise ValueError(f"it needs a package that is not there: {error}") from error
    except (ValueError, *BROKEN) as error:
        raise ValueError(f"it is not a {suffix}{packed} file of numbers: {error}") from error
    if suffix != ".xlsx":
        rows, notes, separator = _read_text(data, how, asked)
        elsewhere = APART if separator == NO_SEPARATOR else ""
    table = lay_out(rows, asked, separator, how.skip_rows)
    return table._replace(notes=notes + table.notes, elsewhere=elsewhere), asked


def _unzip(data: bytes, suffix: str) -> tuple[bytes, str]:
    """The one file in a folder that is no clutter, and its suffix."""
    with zipfile.ZipFile(io.BytesIO(data)) as folder:
        files = [name for name in folder.namelist() if not CLUTTER.search(name)]
        names = [name for name in files if name.lower().endswith(suffix or SUFFIXES)]
        names = names or files if suffix else names
        if len(names) != 1:
            ends = f"no file that ends in {', '.join(SUFFIXES)}"
            held = f"{len(names)} files, {', '.join(names[:5])}" if names else ends
            raise ValueError(f"it holds {held}: pack one alone")
        try:
            data = folder.read(names[0])
        except NotImplementedError as error:
            kind = folder.getinfo(names[0]).compress_type
            method = zipfile.compressor_names.get(kind, f"method {kind}")
            raise ValueError(
                f"{names[0]} is packed by {method}, which Python cannot unpack: unpack it "
                "elsewhere, and give the file itself"
            ) from error
        except RuntimeError as error:
            raise ValueError(f"{error}: unpack it, and give the file itself") from error
    return data, suffix or Path(names[0].lower()).suffix


def _read_parquet(file: io.BytesIO) -> Table:
    """The columns; an index that has a name of its own stands behind them."""
    cells = pd.read_parquet(file)
    names = [name for name in cells.index.names if name is not None and name not in cells]
    levels = [pd.Series(cells.index.get_level_values(name), name=name) for name in names]
    cells = pd.concat([cells.reset_index(drop=True), *levels], axis=1).rename(columns=str)
    return Table(cells.set_axis(cells.index + 1), [], len(names))


def _read_excel(
    file: io.BytesIO, asked: list[str | None]
) -> tuple[list[Row], list[str], str, list[str | None]]:
    """The rows of a sheet, notes, where others are, and what is asked for, without its name.

    It is the sheet that is asked for, as `sheet!column`, or the first with something in it that is
    not hidden.
    """
    from openpyxl import load_workbook

    with warnings.catch_warnings(action="ignore"):  # on what it cannot draw
        book = load_workbook(file, data_only=True)
    sheets = {sheet.title: sheet for sheet in book.worksheets}
    shown = [sheet for sheet in sheets.values() if sheet.sheet_state == "visible"]
    name, _, column = (asked[0] or "").rpartition("!")
    if name in sheets:
        shown, asked = [sheets[name]], [column or None, *asked[1:]]
    for sheet in shown or sheets.values():
        values = (["" if cell is None else cell for cell in row] for row in sheet.values)
        rows = [Row(k, row if any(map(str, row)) else []) for k, row in enumerate(values, start=1)]
        if any(row.cells for row in rows):
            break
    else:
        raise ValueError("nothing is in its sheets")
    notes, elsewhere = [], ""
    if others := [name for name in book.sheetnames if name != sheet.title]:
        hidden = (" (hidden)" * (book[name].sheet_state != "visible") for name in others)
        others = [f"{name!r}{state}" for name, state in zip(others, hidden, strict=True)]
        state = "" if sheet.sheet_state == "visible" else "hidden "
        notes.append(f"{state}sheet {sheet.title!r}, not {', '.join(others)}")
        elsewhere = f"; this is of {notes[0]}; of another: ':sheet!column'"
    hidden = {k for k, row in sheet.row_dimensions.items() if row.hidden}
    if n := sum(row.line in hidden for row in rows if row.cells):
        notes.append(f"{n} hidden or filtered row{'s' * (n > 1)} with the others")
    if letters := [key for key, column in sheet.column_dimensions.items() if column.hidden]:
        notes.append(f"hidden columns from {', '.join(letters)} on")
    return rows, notes, elsewhere, asked


def _read_npy(file: io.BytesIO) -> Table:
    values = np.load(file, allow_pickle=False)
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "iuf":
        raise ValueError("it does not hold an array of real numbers")
    if values.ndim not in (1, 2) or values.size == 0:
        raise ValueError(f"an array of shape {values.shape} is not one column")
    cells = pd.DataFrame(values.astype(float))
    return Table(cells.set_axis(cells.index + 1), [])


UNPACK = {"": bytes, ".gz": gzip.decompress, ".bz2": bz2.decompress, ".xz": lzma.decompress}
READERS = {".parquet": _read_parquet, ".npy": _read_npy}
BROKEN = OSError, EOFError, LookupError, lzma.LZMAError, zlib.error, zipfile.BadZipFile


def _read_text(
    data: bytes, how: Reading, asked: list[str | None]
) -> tuple[list[Row], list[str], str]:
    """The rows of a text, what to say about its encoding, and what stands between its cells."""
    text, notes = _decode(data, how.encoding)
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    skip = how.skip_rows or 0
    lines[:skip] = [""] * min(skip, len(lines))
    told = re.fullmatch(r'"?sep=(.)"?', lines[0].strip(" "))  # as Excel has it
    lines[0] = "" if told else lines[0]
    separator = told[1] if told else _separator(lines, how, asked)
    if separator == " ":
        lines = [line.replace("\t", " ") for line in lines]
    return list(_rows(lines, separator)), notes, separator


def _decode(data: bytes, encoding: str | None) -> tuple[str, list[str]]:
    """The text, and a note if it had to be guessed."""
    marked = next((name for mark, name in MARKED.items() if data.startswith(mark)), None)
    if not (encoding or marked) and b"\0" in data[:1000]:
        raise ValueError(
            "it is not text: it has zeros in it; if it is, encoding='utf-16-le' may read it (in a "
            "notebook: ENCODING)"
        )
    try:
        return data.decode(str(encoding or marked or "utf-8-sig")), []
    except (UnicodeError, LookupError) as error:
        if encoding or marked:
            raise ValueError(
                f"it is not text: {error}; encoding=... may name another (in a notebook: ENCODING)"
            ) from error
    return data.decode("latin-1"), ["read as Latin-1"]


def _rows(lines: Iterable[str], separator: str) -> Iterator[Row]:
    """The rows of a text; blank lines before the first are none."""
    begins = n_rows = 0
    start = ""
    blanks = " " if separator == "\t" else " \t"

    def without_comments() -> Iterator[str]:
        nonlocal begins, start
        for number, line in enumerate(lines, start=1):
            if begins == 0:
                start, line = line[:1], line.strip(blanks)
                if _is_comment(line, n_rows > 0) or not (line or n_rows):
                    continue
                begins = number
            yield line + "\n"

    reader = csv.reader(without_comments(), delimiter=separator, skipinitialspace=True, strict=True)
    try:
        for cells in reader:
            yield Row(begins, cells, start)
            begins, n_rows = 0, n_rows + 1
    except csv.Error as error:
        raise ValueError(f"line {begins}: do its quotes match? {error}") from error


def _is_comment(line: str, begun: bool) -> bool:
    """Whether a line is none of the data: by `#` before these, by `#` and a blank among them.

    Nor is a line that is drawn.
    """
    if re.fullmatch(r"[-=+|: ]*[-=]{3}[-=+|: ]*", line) and re.search(r"[+|=]|-{4}", line):
        return True
    if begun or re.split(r"[\t;|, ]", line)[0].lower() in MISSING:
        return re.match(r"#(\s|$)", line) is not None
    return line.startswith("#")


def _separator(lines: list[str], how: Reading, asked: list[str | None]) -> str:
    """Of tab, semicolon, bar and comma that which makes most rows below the first equally wide.

    If the first row alone has such a mark, it belongs to a name. Then blanks stand between the
    cells, if most rows below have some inside, or there is one column.
    """
    if how.decimal == "," or how.thousands == ",":
        lines = [re.sub(r"(?<=\d),(?=\d)", ".", line) for line in lines]
    fits = {}
    for mark in "\t;|, ":
        rows = []
        with suppress(ValueError):  # the quotes of another separator
            begun = (line.replace("\t", " ") for line in lines) if mark == " " else lines
            rows += islice(_rows(begun, mark), 1000)
        widths = [len(row.cells) for row in rows if row.cells] or [1]
        below = widths[1:] or widths
        usual = max(set(below), key=lambda width: (below.count(width), width))
        is_most = mark != " " or 2 * below.count(usual) > len(below)
        if usual > 1 and is_most and _begins(rows, usual, mark, asked):
            quotes = sum('"' in cell for row in rows for cell in row.cells)
            fits[mark] = mark != " ", below.count(usual), -quotes
    return max(fits, key=fits.get, default=NO_SEPARATOR)


def _begins(rows: list[Row], usual: int, mark: str, asked: list[str | None]) -> bool:
    """Whether the first row, or one further down, may be the first of a table as wide as usual."""
    first = len(rows[0].cells)
    is_head = first == usual or (mark != " " and first > 1)
    return is_head or is_index_without_name(rows[0], rows[1:], mark) or begin(rows, asked) > 0
