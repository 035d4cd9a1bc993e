"""Where among the rows of a file a table begins, how wide it is, and whether columns have names.

Titles may stand above the names, units below them, and lines may end with a separator.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import pandas as pd

from dlutils.data.cells import UNIT, is_missing, is_number, is_word

MANY = 1000  # rows that tell what is in a column
HIGHEST = 100  # rows among which a table begins
COMMAS = (
    "; if commas are decimal marks: decimal=',', if they are between thousands: thousands=',' "
    "(in a notebook: DECIMAL, THOUSANDS)"
)
SKIP = "; if the table begins further down: skip_rows={} (in a notebook: SKIP_ROWS)"
Asked = Sequence[str | None]


class Row(NamedTuple):
    """A row: in which line it begins, from 1, and its cells, none if it is blank."""

    line: int
    cells: list[object]
    start: str = ""  # the first character of its line


class Table(NamedTuple):
    """A table, and what is to be said about how it was read.

    Attributes:
        cells: The index says in which line a row begins. The columns have names, or numbers.
        notes: A few words each.
        n_index: How many of the last columns are an index: taken only if named.
        elsewhere: Where else a column might be that is not there.
    """

    cells: pd.DataFrame
    notes: list[str]
    n_index: int = 0
    elsewhere: str = ""

    @property
    def has_names(self) -> bool:
        """Whether the columns have names."""
        return isinstance(self.cells.columns[0], str)


def lay_out(
    rows: Sequence[Row], asked: Asked, separator: str = "", skip_rows: int | None = None
) -> Table:
    """The table that some rows hold.

    Args:
        rows: All rows of a file.
        asked: Names or numbers of columns; None where there is to be one.
        separator: What stands between the cells.
        skip_rows: How many lines are above the table; None to find out (`begin`).

    Raises:
        ValueError: If there is nothing, or a row has more or fewer cells than the first.
    """
    kept = [row for row in rows if row.line > (skip_rows or 0)]
    full = [k for k, row in enumerate(kept) if row.cells]
    if not full:
        raise ValueError("it is empty" if not skip_rows else f"nothing is below line {skip_rows}")
    kept = kept[full[0] : full[-1] + 1]
    is_told = skip_rows is not None or is_index_without_name(kept[0], kept[1:], separator)
    k = 0 if is_told else begin(kept, asked)
    above, (first, *below) = [row for row in kept[:k] if row.cells], kept[k:]
    if is_index_without_name(first, below, separator):
        first = first._replace(cells=["", *first.cells])
    most = max((_filled(row) for row in below), default=0)
    width = len(first.cells) if most > len(first.cells) else max(_filled(first), most, 1)
    table = [row for row in (first, *below) if row.cells or width == 1]
    for row in table:
        if row.cells and (len(row.cells) < width or _filled(row) > width):
            hint = COMMAS if separator == "," else ""
            if Counter(len(row.cells) for row in below).most_common(1)[0][0] != width:
                hint += SKIP.format(first.line)
            raise ValueError(f"line {row.line}: {len(row.cells)} cells, not {width}{hint}")
    lines = [row.line for row in table]
    cells = pd.DataFrame([row.cells[:width] or [""] for row in table], lines, dtype=object)
    notes = []
    if above:
        notes.append(f"what stands above line {first.line} left out ({_shown(above[0].cells)})")
    return _without_units(_with_names(cells, asked), notes)


def begin(rows: Sequence[Row], asked: Asked = ()) -> int:
    """The index of the row in which a table begins, among rows of which the first is not blank.

    It is as wide as most rows. It has in it all the names that are asked for; or stands above the
    first number, after a blank line if there is one, and of such rows is the first that has fewest
    empty cells.
    """
    usual = Counter(len(row.cells) for row in rows[:MANY] if row.cells)
    width = max(usual, key=lambda width: (usual[width], width))
    wide = [
        k
        for k, row in enumerate(rows[:HIGHEST])
        if len(row.cells) == width or 1 < len(row.cells) == width - 1
    ]
    names = {name for name in asked if name and not name.isdecimal()}
    for k in wide:
        if names and names <= {*_texts(rows[k])} and not any(map(is_number, rows[k].cells)):
            return k
    numbers = [k for k in wide if any(map(is_number, rows[k].cells))]
    n = numbers[0] if numbers else 0
    below = [row.cells for row in rows[n + 1 : n + MANY] if len(row.cells) == len(rows[n].cells)]
    if n and _is_above_numbers(_texts(rows[n]), pd.DataFrame(below, dtype=object)):
        n += 1
    blank = max((k for k in range(n) if not rows[k].cells), default=-1)
    above = [k for k in wide if k < n]
    above = [k for k in above if k > blank] or above
    return max(above, key=lambda k: sum(text != "" for text in _texts(rows[k])), default=0)


def is_index_without_name(first: Row, below: Sequence[Row], separator: str) -> bool:
    """Whether all rows have one cell more than the first: R and pandas name no index.

    The first row then begins with a quote, or with a blank between blanks, or has but words between
    other separators than commas.
    """
    widths = {len(row.cells) for row in below if row.cells}
    more = widths == {len(first.cells) + 1} and any(_filled(row) in widths for row in below)
    begins_so = first.start == '"' or (first.start == " " and separator == " ")
    other = separator in ("\t", ";", "|") and all(map(is_word, first.cells))
    return more and (begins_so or other)


def counted(columns: Iterable[object], first: int) -> list[str]:
    """As many numbers, from the first."""
    return [str(k) for k, _ in enumerate(columns, start=first)]


def counts_up(cells: Iterable[object]) -> bool:
    """Whether these are 0, 1, 2, ... or 1, 2, 3, ..."""
    cells = [str(cell).strip() for cell in cells]
    return cells in (counted(cells, 0), counted(cells, 1))


def _texts(row: Row) -> list[str]:
    return [str(cell).strip() for cell in row.cells]


def _filled(row: Row) -> int:
    """How many cells there are up to the last that is not empty."""
    n = len(row.cells)
    while n and not str(row.cells[n - 1]).strip():
        n -= 1
    return n


def _shown(cells: Iterable[object]) -> str:
    """The first cell with something in it, cut."""
    text = next((str(cell).strip() for cell in cells if str(cell).strip()), "")
    return repr(text if len(text) < 30 else f"{text[:27]}...")


def _with_names(cells: pd.DataFrame, asked: Asked) -> pd.DataFrame:
    """The cells, the first row taken for the columns' names if it looks like that."""
    first = [str(cell).strip() for cell in cells.iloc[0]]
    if _are_names(first, cells.iloc[1:MANY], asked):
        cells = cells.iloc[1:].set_axis(first, axis=1)
    if cells.empty:
        raise ValueError("it has no numbers under its names")
    return cells


def _are_names(first: list[str], below: pd.DataFrame, asked: Asked) -> bool:
    """Whether the first row holds names.

    They do if one is asked for; if all are words, or one is above a column of numbers; if they are
    what pandas and R write for columns without names (0, 1, 2, or beside an empty cell 1, 2, 3), or
    an empty cell is above an index. A number that is asked for is a name if the first row are
    whole numbers, after a word or not, that increase or have others below.
    """
    numbers, is_one = counted(first, 1), len(first) == 1
    corner = first[0] == "" and not is_one  # names above an index
    names = first[corner:]
    columns = [below[k] for k in below]
    if any(name in first and name not in numbers for name in asked):
        return True
    if first == ["0"] and "1" not in asked:
        if any(str(cell).strip().lstrip("+-").isdecimal() for cell in columns[0]):
            raise ValueError(
                "'0' in the first row may be a name, as pandas writes it, or a number: with "
                "':0' behind the file's name it is a name, with ':1' a number"
            )
        return True
    if is_one or not columns:
        return all(map(is_word, first))
    return (
        all(map(is_word, names))
        or names in [counted(names, 0)] + [counted(names, 1)] * corner
        or _is_above_numbers(first, below)
        or (corner and all(names) and _is_index(columns[0]))
        or (any(name in first for name in asked) and _are_numbered(first, columns))
    )


def _are_numbered(first: list[str], columns: list[pd.Series]) -> bool:
    """Whether names may be numbers: whole ones, after words increasing, else above no whole ones.

    Or they are 1, 2, 3, ...; but they go on in no column.
    """
    n_words = next((k for k, name in enumerate(first) if name and not is_word(name)), len(first))
    names = first[n_words:]
    if not all(name.isdecimal() for name in names) or len({*names}) < len(names):
        return False
    below = [[str(cell).strip() for cell in column] for column in columns[n_words:]]
    goes_on = any(
        [name, *cells] == counted([name, *cells], int(name))
        for name, cells in zip(names, below, strict=True)
    )
    increase = [int(name) for name in names] == sorted(map(int, names))
    counts = len(names) > 2 and names == counted(names, 1)
    whole = any(all(cell.lstrip("+-").isdecimal() for cell in cells) for cells in below)
    return not goes_on and (counts or (increase and n_words > 0) or not whole)


def _is_above_numbers(names: list[str], below: pd.DataFrame) -> bool:
    """Whether a word is above a column of numbers."""
    pairs = zip(names, below, strict=False)
    return any(is_word(name) and _are_numbers(below[k]) for name, k in pairs)


def _is_index(cells: pd.Series) -> bool:
    return len(cells) > 0 and (counts_up(cells) or all(map(is_word, cells)))


def _are_numbers(cells: Iterable[object]) -> bool:
    """Whether there are numbers, and nothing else but what is missing."""
    cells = [cell for cell in cells if not is_missing(cell)]
    return cells != [] and all(map(is_number, cells))


def _without_units(cells: pd.DataFrame, notes: list[str]) -> Table:
    """The cells without a row of units below the names: none a number but 1, all above numbers."""
    if isinstance(cells.columns[0], str) and len(cells) > 1:
        first = [str(cell).strip() for cell in cells.iloc[0]]
        rest = cells.iloc[1:MANY]
        words = [
            k for k, text in enumerate(first) if is_word(text) and _are_numbers(rest.iloc[:, k])
        ]
        numbers = [text for text in first if is_number(text) and text != "1"]
        if words and not numbers and (len(words) > 1 or UNIT.fullmatch(first[words[0]])):
            units = ", ".join(first[k] for k in words[:5])
            notes = [*notes, f"line {cells.index[0]} left out: units ({units})"]
            cells = cells.iloc[1:]
    return Table(cells, notes)
