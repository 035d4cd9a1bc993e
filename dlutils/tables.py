"""Tables of results for people to read."""

from collections.abc import Mapping, Sequence

from torch import Tensor


def markdown_table(rows: Sequence[Mapping[str, object]]) -> str:
    """Write rows as a Markdown table; numbers to the right, text to the left.

    Args:
        rows: One mapping a row, from column title to a number or text. All have the same titles.

    Raises:
        ValueError: If there are no rows, or their titles differ.
    """
    if not rows:
        raise ValueError("a table needs at least one row")
    titles = list(rows[0])
    for row in rows:
        if list(row) != titles:
            raise ValueError(f"every row must have the columns {titles}, not {list(row)}")
    rule = ["---" if isinstance(rows[0][title], str) else "---:" for title in titles]
    lines = [titles, rule, *([cell(row[title]) for title in titles] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def cell(value: object) -> str:
    """A value as text: four significant digits for a float, everything else as it is."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def plus_minus(values: Tensor, sign: str = "+", digits: int = 4) -> str:
    """The mean of independent values, `(n,)`, and its standard error; "+" shows a plus sign."""
    return f"{values.mean():{sign}.{digits}f} ± {values.std() / len(values) ** 0.5:.{digits}f}"
