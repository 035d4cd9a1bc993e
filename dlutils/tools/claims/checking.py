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
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from decimal import Decimal
from itertools import groupby
from pathlib import Path

import pandas as pd

from dlutils.tools.commands import read_toml

CLAIMS = Path("tests", "claims.toml")
FIGURES = Path("figures")
NUMBER = r"(?<![\w.])[-+]?(?:\d{1,3}(?:\ \d{3})+|\d+(?:\.\d+)?(?:e[-+]?\d+)?)(?!\.?\w)"
EXPRESSION = re.compile(
    rf"""(?:\b(?P<no>not?\ )?(?:
        (?P<below>below|under|less\ than|fewer\ than|at\ most|up\ to)
        |(?P<above>above|over|more\ than|at\ least)
        |(?P<about>about|some|around|roughly)
        |(?P<within>within)
        |(?P<between>between))\ )?
    (?P<low>{NUMBER})
    (?:(?:\ ?%)?\ ?(?(between)and|(?:–|to\b))\ ?(?P<high>{NUMBER}))?""",
    re.VERBOSE | re.IGNORECASE,
)


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
    value: float  # in the phrase's units, to nine digits; nan if there is none
    low: float  # the least that lets the phrase be true; in an order it has to lie above
    high: float
    reason: str = ""  # why there is no value

    @property
    def holds(self) -> bool:
        """Whether the phrase is true for this value."""
        if self.claim.order:
            return self.value > self.low
        return self.low <= self.value <= self.high


def load(path: Path = CLAIMS) -> tuple[list[Claim], set[str]]:
    """The claims of a file, and the decimal numbers that are given and not found.

    Args:
        path: TOML with tables `[[claims]]`, whose keys are the attributes of `Claim`, and a list
            `given` of numbers that are settings or definitions, and may stand anywhere.

    Raises:
        ValueError: If there is no such file, or it has other keys, or a phrase without a range.
    """
    content = read_toml(path)
    if unknown := sorted(content.keys() - {"claims", "given"}):
        raise ValueError(f"{path} has {unknown[0]!r}; choose from claims, given")
    claims = []
    for entry in content.get("claims", []):
        for key in entry.keys() & {"of", "order"}:
            entry[key] = (entry[key],) if isinstance(entry[key], str) else tuple(entry[key])
        try:
            claims.append(Claim(**entry))
        except TypeError as error:
            raise ValueError(f"a claim with a wrong or missing key, {entry}: {error}") from error
    return claims, set(content.get("given", []))


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
    found = list(EXPRESSION.finditer(re.sub(r"\s+", " ", text)))
    if len(found) != 1:
        n = len(found) or "no"
        raise ValueError(f"{phrase!r} has {n} numbers; a claim has one number or one range")
    words = found[0]
    if words["no"]:
        raise ValueError(f"{phrase!r} denies what follows: say at most, or at least")
    low, high = (Decimal((words[end] or words["low"]).replace(" ", "")) for end in ("low", "high"))
    if low > high:
        raise ValueError(f"the range in {phrase!r} runs backwards")
    if words["high"] is None:
        if words["below"]:
            return -math.inf, float(low)
        if words["above"]:
            return float(low), math.inf
        if words["within"]:
            return -float(abs(low)), float(abs(low))
        if words["about"]:
            return float(low - abs(low) / 4), float(low + abs(low) / 4)
    half_a_unit = lambda x: Decimal((0, (5,), x.as_tuple().exponent - 1))
    return float(low - half_a_unit(low)), float(high + half_a_unit(high))


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
        name, conditions, column = parts[0], {"name": parts[1]}, "value"
        paths = [folder / f"{name}_{kind}.csv" for kind in ("numbers", "measured")]
    elif len(parts) == 3:
        name, conditions, column = parts[0], _conditions(parts[1]), parts[2]
        paths = [folder / f"{name}.csv"]
    else:
        raise ValueError(
            f"{ref!r} is neither 'NOTEBOOK | name' nor 'TABLE | column=value | column'"
        )
    tables = [
        pd.read_csv(path, dtype=str, keep_default_na=False) for path in paths if path.exists()
    ]
    if not tables:
        choices = ", ".join(sorted(path.stem for path in folder.glob("*.csv"))) or "none"
        raise ValueError(f"there is no table {paths[0]}; choose from {choices}")
    table = pd.concat(tables)
    for title in [column, *conditions]:
        if title not in table:
            raise ValueError(f"{name} has no column {title!r}; choose from {', '.join(table)}")
    for title, value in conditions.items():
        choices = ", ".join(table[title].unique())
        table = table[table[title] == value]
        if table.empty:
            raise ValueError(f"{name} has no {title} {value!r}; choose from {choices}")
    if len(table) != 1:
        raise ValueError(f"{len(table)} rows of {name} have {parts[1]}; it takes one")
    cell = table[column].iloc[0]
    if not (number := re.match(NUMBER, cell.replace("−", "-"))):
        raise ValueError(f"{cell!r} does not begin with a number")
    return float(number[0])


def _conditions(text: str) -> dict[str, str]:
    """Values by column; a comma inside a value is one that no column=value follows."""
    pairs = [part.partition("=") for part in re.split(r",\s*(?=[^,=]+=)", text)]
    if wrong := [title for title, equals, _ in pairs if not equals]:
        raise ValueError(f"{wrong[0]!r} is not column=value")
    return {title.strip(): value.strip() for title, _, value in pairs}


def check(claims: Iterable[Claim], folder: Path = FIGURES) -> list[Finding]:
    """What each claim's values are, and whether its phrase is true for them."""
    findings = []
    for claim in claims:
        low, high = range_of(claim.says) if claim.of else (-math.inf, math.inf)
        for ref in claim.refs:
            try:
                value, reason = float(f"{claim.scale * value_of(ref, folder):.9g}"), ""
            except ValueError as error:
                value, reason = math.nan, str(error)
            findings.append(Finding(claim, ref, value, low, high, reason))
            if claim.order and not reason:
                low = value
    return findings


def messages(findings: Iterable[Finding]) -> list[str]:
    """A line for each claim that does not hold."""
    lines = []
    for claim, group in groupby(findings, key=lambda finding: finding.claim):
        wrong = []
        for finding in group:
            which = f" ({finding.ref})" if len(claim.refs) > 1 else ""
            above = f", not above {finding.low:.6g}" if claim.order else ""
            if not finding.holds:
                wrong.append(finding.reason or f"here {finding.value:.6g}{which}{above}")
        if wrong:
            lines.append(f'{claim.question} says "{claim.says}"; {"; ".join(wrong)}')
    return lines


def about(claims: Iterable[Claim], notebooks: Collection[str]) -> list[Claim]:
    """The claims all of whose values come from some notebooks, named without ending."""
    begins = tuple(name + end for name in notebooks for end in "_ |")
    return [claim for claim in claims if all(ref.startswith(begins) for ref in claim.refs)]
