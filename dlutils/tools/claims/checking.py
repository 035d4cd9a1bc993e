r"""Sentences with numbers, held to what the notebooks compute.

A claim is one phrase of a sentence with a number in it, and the values that it is about. The range
in which it is true follows from its words: "1.002 to 1.003", "below 0.001", "about 12". The file
`tests/claims.toml` lists them; the values are read from the tables in figures/.

`python -m dlutils.tools.claims` says which sentences do not hold for the tables as they are;
`python -m dlutils.tools.claims --seeds 5` runs the notebooks with five seeds and writes
`docs/claims.md`.
"""

import math
import re
import tomllib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import groupby
from pathlib import Path

import pandas as pd

CLAIMS = Path("tests", "claims.toml")
FIGURES = Path("figures")
BELOW = ("below", "under", "less than", "fewer than", "at most", "up to")
ABOVE = ("above", "over", "more than", "at least")
ABOUT = ("about", "some", "around", "roughly")
WITHIN = ("within",)
KEYWORD = re.compile(
    rf"\b(?P<no>(?:no|not)\s+)?(?P<word>{'|'.join(BELOW + ABOVE + ABOUT + WITHIN)})\s*$",
    re.IGNORECASE,
)
NUMBER = re.compile(r"(?<![\w.])(?:(?<!\w)[-+])?\d+(?:\.\d+)?(?:e[-+]?\d+)?(?!\.?\w)")
LEADING = re.compile(r"\s*[-+−]?\d+(?:\.\d+)?(?:e[-+]?\d+)?")


@dataclass(frozen=True)
class Claim:
    """A phrase and the values that it is about.

    Attributes:
        question: Number of the question that it answers, such as "1.3".
        says: The phrase, word for word as it stands in the text.
        of: References to the values, see `value_of`; all have to lie in the phrase's range.
        order: Or references to values that have to increase, each above the one before.
        scale: What a value is multiplied by, 100 for percent.
        measured: Whether it is about times or memory, which another machine may change: it is
            checked and printed, and no test fails by it.
    """

    question: str
    says: str
    of: tuple[str, ...] = ()
    order: tuple[str, ...] = ()
    scale: float = 1.0
    measured: bool = False

    def __post_init__(self) -> None:
        if bool(self.of) == bool(self.order):
            raise ValueError(f"{self.says!r} needs either of = [...] or order = [...]")
        if len(self.order) == 1:
            raise ValueError(f"{self.says!r} orders one value; an order needs two or more")
        if self.of:
            range_of(self.says)

    @property
    def refs(self) -> tuple[str, ...]:
        """The references, of either kind."""
        return self.of or self.order


@dataclass(frozen=True)
class Finding:
    """What one of a claim's values is, beside what it should be."""

    claim: Claim
    ref: str
    value: float  # in the phrase's units; nan if there is none
    low: float  # the least that lets the phrase be true
    high: float
    holds: bool
    reason: str = ""  # why there is no value


def load(path: Path = CLAIMS) -> tuple[list[Claim], set[str]]:
    """The claims of a file, and the decimal numbers that are given and not found.

    Args:
        path: TOML with tables `[[claims]]`, whose keys are the attributes of `Claim`, and a list
            `given` of numbers that are settings or definitions, and may stand anywhere.

    Raises:
        ValueError: If there is no such file, or it has other keys, or a phrase without a range.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ValueError(f"there is no file {path} with claims") from error
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path} is not TOML: {error}") from error
    if unknown := sorted(set(content) - {"claims", "given"}):
        raise ValueError(f"{path} has {unknown[0]!r}; choose from claims, given")
    return [_claim(entry) for entry in content.get("claims", [])], set(content.get("given", []))


def _claim(entry: dict[str, object]) -> Claim:
    """One table of the file."""
    lists = {key: _list(entry[key]) for key in ("of", "order") if key in entry}
    try:
        return Claim(**entry | lists)
    except TypeError as error:
        raise ValueError(f"a claim with a wrong or missing key, {entry}: {error}") from error


def _list(value: str | Sequence[str]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)


def range_of(phrase: str) -> tuple[float, float]:
    """The smallest and the largest value for which a phrase with a number is true.

    | words | range |
    |---|---|
    | A to B, A–B, between A and B | from A to B, and half a unit of the last digit more |
    | below, under, less than, fewer than, at most, up to X | up to X |
    | above, over, more than, at least X | from X |
    | about, some, around, roughly X | X and a quarter of it more or less |
    | within X | from −X to X |
    | X | X and half a unit of its last digit more or less |

    Mathematics, $x$, and code are not looked at. Thousands may be written 10 000.

    Raises:
        ValueError: If there is no such expression in it, or more than one.
    """
    text = re.sub(r"`[^`]*`|\$[^$]*\$", " ", phrase).replace("−", "-")
    text = re.sub(r"(?<![\d.])\d{1,3}(?:\s\d{3})+(?!\d)", _without_spaces, text)
    found = list(NUMBER.finditer(text))
    numbers = [Decimal(number[0]) for number in found]
    if len(found) == 2 and _is_range(text[: found[0].start()], text[found[0].end() :]):
        if numbers[0] > numbers[1]:
            raise ValueError(f"the range in {phrase!r} runs backwards")
        return float(numbers[0] - _half(numbers[0])), float(numbers[1] + _half(numbers[1]))
    if len(found) != 1:
        raise ValueError(
            f"{phrase!r} has {len(found) or 'no'} numbers; a claim has one number or one range"
        )
    return _around(numbers[0], KEYWORD.search(text[: found[0].start()]), phrase)


def _is_range(before: str, after: str) -> bool:
    """Whether the two numbers of a phrase are the ends of a range."""
    link = re.match(r"\s*%?\s*(–|to\b|and\b)\s*[-+]?\d", after)
    return bool(link) and (link[1] != "and" or bool(re.search(r"\bbetween\s*$", before, re.I)))


def _around(x: Decimal, keyword: re.Match[str] | None, phrase: str) -> tuple[float, float]:
    """The range of one number, by the word before it."""
    if keyword and keyword["no"]:
        raise ValueError(f"{phrase!r} denies {keyword['word']!r}: say at most, or at least")
    word = keyword["word"].lower() if keyword else ""
    if word in BELOW:
        return -math.inf, float(x)
    if word in ABOVE:
        return float(x), math.inf
    if word in WITHIN:
        return -abs(float(x)), abs(float(x))
    half = abs(x) / 4 if word in ABOUT else _half(x)
    return float(x - half), float(x + half)


def _half(x: Decimal) -> Decimal:
    """Half a unit of the last digit."""
    return Decimal((0, (5,), x.as_tuple().exponent - 1))


def _without_spaces(match: re.Match[str]) -> str:
    return re.sub(r"\s", "", match[0])


def value_of(ref: str, folder: Path = FIGURES) -> float:
    """The value that a reference names.

    Args:
        ref: "ODE | mass" for a number that the notebook has handed to `report.numbers`, or
            "ODE_table_drifts | model=mlp, T=100 | KL" for the cell of a table, in the row where
            each of these columns is so. Of a cell it is the number that it begins with.
        folder: Where the tables lie.

    Raises:
        ValueError: If there is no such table, row or column, or the cell has no number.
    """
    parts = [part.strip() for part in ref.split("|")]
    if len(parts) == 2:
        return _named(*parts, folder)
    if len(parts) != 3:
        raise ValueError(
            f"{ref!r} is neither 'NOTEBOOK | name' nor 'TABLE | column=value | column'"
        )
    name, conditions, column = parts
    table = _table(name, folder)
    for title in [column, *(title for title, _ in _conditions(conditions))]:
        if title not in table:
            raise ValueError(f"{name} has no column {title!r}; choose from {', '.join(table)}")
    for title, value in _conditions(conditions):
        table = table[[_same(cell, value) for cell in table[title]]]
    if len(table) != 1:
        raise ValueError(f"{len(table) or 'no'} rows of {name} have {conditions}; it takes one")
    return _leading(table[column].iloc[0])


def _named(notebook: str, name: str, folder: Path) -> float:
    """A value that a notebook has handed over by its name."""
    found = {}
    for kind in ("measured", "numbers"):
        if (folder / f"{notebook}_{kind}.csv").exists():
            table = _table(f"{notebook}_{kind}", folder)
            found |= dict(zip(table["name"], table["value"], strict=True))
    if not found:
        raise ValueError(f"there is no {folder / f'{notebook}_numbers.csv'}")
    if name not in found:
        raise ValueError(f"{notebook} has no number {name!r}; choose from {', '.join(found)}")
    return _leading(found[name])


def _table(name: str, folder: Path) -> pd.DataFrame:
    """A table as text."""
    path = folder / f"{name}.csv"
    if not path.exists():
        choices = ", ".join(sorted(path.stem for path in folder.glob("*.csv"))) or "none"
        raise ValueError(f"there is no table {path}; choose from {choices}")
    return pd.read_csv(path, dtype=str, keep_default_na=False)


def _conditions(text: str) -> list[tuple[str, str]]:
    """Column and value of each; a comma inside a value is one that no column=value follows."""
    pairs = [part.partition("=") for part in re.split(r",\s*(?=[^,=]+=)", text)]
    if wrong := [title for title, equals, _ in pairs if not equals]:
        raise ValueError(f"{wrong[0]!r} is not column=value")
    return [(title.strip(), value.strip()) for title, _, value in pairs]


def _same(cell: str, value: str) -> bool:
    """Whether two texts are the same, or the same number."""
    try:
        return cell.strip() == value or math.isclose(_float(cell), _float(value))
    except ValueError:
        return False


def _leading(text: str) -> float:
    """The number that a text begins with."""
    if not (number := LEADING.match(text)):
        raise ValueError(f"{text!r} does not begin with a number")
    return _float(number[0])


def _float(text: str) -> float:
    return float(text.replace("−", "-"))


def check(claims: Iterable[Claim], folder: Path = FIGURES) -> list[Finding]:
    """What each claim's values are, and whether its phrase is true for them."""
    return [finding for claim in claims for finding in _findings(claim, folder)]


def _findings(claim: Claim, folder: Path) -> list[Finding]:
    """Of one claim, by value; of an order each has to lie above the one before."""
    low, high = range_of(claim.says) if claim.of else (-math.inf, math.inf)
    findings = []
    for ref in claim.refs:
        try:
            value = claim.scale * value_of(ref, folder)
        except ValueError as error:
            findings.append(Finding(claim, ref, math.nan, low, high, False, str(error)))
            continue
        holds = value > low if claim.order else _at_most(low, value) and _at_most(value, high)
        findings.append(Finding(claim, ref, value, low, high, holds))
        if claim.order:
            low = value
    return findings


def _at_most(a: float, b: float) -> bool:
    """Whether a <= b, but for rounding."""
    return a <= b or math.isclose(a, b, rel_tol=1e-9)


def messages(findings: Iterable[Finding]) -> list[str]:
    """A line for each claim that does not hold."""
    return [
        f'{claim.question} says "{claim.says}"; {"; ".join(map(_here, wrong))}'
        for claim, group in groupby(findings, key=lambda finding: finding.claim)
        if (wrong := [finding for finding in group if not finding.holds])
    ]


def _here(finding: Finding) -> str:
    """What was found in place of what is said."""
    if finding.reason:
        return finding.reason
    which = f" ({finding.ref})" if len(finding.claim.refs) > 1 else ""
    above = f", not above {finding.low:.6g}" if finding.claim.order else ""
    return f"here {finding.value:.6g}{which}{above}"


def about(claims: Iterable[Claim], notebooks: Collection[str]) -> list[Claim]:
    """The claims all of whose values come from some notebooks, named without ending."""
    from_one = lambda ref: any(_is_of(ref.split("|")[0].strip(), name) for name in notebooks)
    return [claim for claim in claims if all(map(from_one, claim.refs))]


def _is_of(table: str, notebook: str) -> bool:
    return table == notebook or table.startswith(f"{notebook}_")
