"""What a cell of a table holds: a number, nothing, or words; and how its numbers are written."""

import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import cache
from typing import NamedTuple

import numpy as np
import pandas as pd

MISSING = {  # in small letters: of pandas, of Excel, of databases, of statisticians
    *("", "na", "n/a", "nan", "-nan", "+nan", "null", "none", "<na>", "#na", "#n/a", "#n/a n/a"),
    *("1.#ind", "1.#qnan", "-1.#ind", "-1.#qnan"),
    *("#div/0!", "#null!", "#num!", "#ref!", "#value!", "#name?", "#spill!", "#calc!"),
    *("#nv", "#wert!", "#zahl!", "#bezug!", "#valeur!", "#nombre!", "n.a.", r"\n"),
    *("-", "--", "---", ".", "..", "...", "…", "?", ":", "*"),
}
MINUS = str.maketrans(dict.fromkeys("\u2212\u2010\u2011\u2012\u2013\u2014\ufe63\uff0d", "-"))
BLANK = "[ \u00a0\u2007\u2009\u202f]"
GROUPING = {",": ",", ".": r"\.", " ": BLANK, "'": "['’]"}  # what may stand between thousands
IN_WORDS = {",": "','", ".": "'.'", " ": "' '", "'": '"\'"'}
NEARLY = re.compile(r"[+-]?[.,]?\d")
SYMBOL = (
    r"(?:da|[YZEPTGMkhdcmunpfµμ])?(?:mol|cd|Hz|Pa|ohm|Ω|eV|bar|Bq|Sv|cal|Wh|[mgsAKNJWCVFTlL])"
    r"|[%‰$€£]|°[CFK]?|deg(?:_?[CFK])?|pp[mbt]|dB|[hd]|min|hrs?|days?|yrs?|in|ft|mi|mph|kn|kt|lbs?|oz"
)
FACTOR = rf"(?:{SYMBOL}|1)(?:(?:\*\*|\^)?[-−]?\d|[²³])?"
UNIT = re.compile(rf"[(\[].*[^\W\d].*[)\]]|(?![A-Z1]$)(?:{FACTOR})(?:[ */·.](?:{FACTOR}))*|K")


class Marks(NamedTuple):
    """How numbers are written: what stands between thousands, if anything, and before decimals."""

    thousands: str = ""
    decimal: str = "."

    def __str__(self) -> str:
        """The option that says so."""
        if self.thousands:
            return f"thousands={IN_WORDS[self.thousands]}"
        return f"decimal={IN_WORDS[self.decimal]}"


PLAIN = Marks()
ALL_MARKS = (PLAIN, Marks("", ","), *(Marks(t, d) for t in GROUPING for d in ".," if t != d))


def number(cell: object, marks: Marks = PLAIN) -> float | None:
    """The value of a cell, NaN for a missing one, None for what is not a number."""
    if isinstance(cell, str):
        if marks is PLAIN and "_" not in cell:  # most cells, at once
            with suppress(ValueError):
                return float(cell)
        text = cell.strip().translate(MINUS)
        if text.lower() in MISSING:
            return float("nan")
        if "_" in text or (marks != PLAIN and not _pattern(marks).fullmatch(text)):
            return None
        if marks.thousands:
            text = re.sub(GROUPING[marks.thousands], "", text)
        cell = text.replace(marks.decimal, ".")
    elif isinstance(cell, (bool, np.bool_)):
        return None
    elif cell is None or cell is pd.NA:
        return float("nan")
    try:
        return float(cell)
    except (TypeError, ValueError, OverflowError):
        return None


def is_missing(cell: object) -> bool:
    """Whether a cell holds nothing, or what stands for nothing."""
    return (value := number(cell)) is not None and value != value


def is_number(cell: object) -> bool:
    """Whether a cell holds a number, however written."""
    values = (number(cell, marks) for marks in ALL_MARKS)
    return any(value is not None and value == value for value in values)


def is_word(cell: object) -> bool:
    """Whether a cell holds something that is no number, does not begin like one, nor is missing."""
    return isinstance(cell, str) and not NEARLY.match(cell.strip()) and number(cell) is None


@cache
def _pattern(marks: Marks) -> re.Pattern:
    """Of a number: thousands in groups of three, or as in India of two and a last one of three."""
    d, t = re.escape(marks.decimal), GROUPING.get(marks.thousands, "(?!)")  # that never matches
    groups = rf"[1-9]\d{{0,2}}(?:{t}\d{{3}})+|[1-9]\d?(?:{t}\d\d)+{t}\d{{3}}"
    plain = rf"(?:\d+(?:{d}\d*)?|{d}\d+)(?:[eE][+-]?\d+)?"
    return re.compile(rf"[+-]?(?:(?:{groups})(?:{d}\d*)?|{plain})")


def readings(
    cells: Iterable[object], thousands: str | None = None, decimal: str | None = None
) -> list[Marks]:
    """In which ways all numbers of a column can be read, each way with other values.

    What is no number in any way does not count. There is no way if the marks contradict each other.

    Args:
        cells: Of one column.
        thousands: Only ways with that between thousands; None for any.
        decimal: Only ways with that before decimals; None for any.
    """
    texts = {cell for cell in cells if isinstance(cell, str) and re.search(r"\d\D+\d|[,.]", cell)}
    together = "\n".join(texts)
    there = {mark for mark, pattern in GROUPING.items() if re.search(pattern, together)}
    ways = [
        marks
        for marks in ALL_MARKS
        if (marks.thousands in ("", *there) if thousands is None else marks.thousands == thousands)
        and decimal in (None, marks.decimal)
    ]
    odd = {text for text in texts if PLAIN not in ways or number(text) is None}
    marked = {text for text in odd if any(number(text, marks) is not None for marks in ways)}
    told = [*(texts - odd), *marked]
    reads_all = lambda marks: all(number(text, marks) is not None for text in told)
    ways = [way for way in ways if (not marked if way == PLAIN else reads_all(way))]
    if len(ways) < 2:
        return ways
    columns = (tuple(str(number(text, marks)) for text in told) for marks in ways)
    found = dict(zip(reversed([*columns]), reversed(ways), strict=True))  # the first of equal ones
    return [marks for marks in ways if marks in found.values()]


def differ(cells: Sequence[object], one: Marks, other: Marks) -> int:
    """The index of the first cell that two ways read as different numbers."""
    values = ([number(cell, marks) for cell in cells] for marks in (one, other))
    return next(k for k, (a, b) in enumerate(zip(*values, strict=True)) if a != b and a == a)
