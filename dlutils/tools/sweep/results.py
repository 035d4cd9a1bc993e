"""The results of a sweep: load them, average them, draw them."""

import json
from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

Row = dict[str, object]


def load(path: str | Path) -> list[Row]:
    """Read a results file: one row a run, its latest if there are several.

    Args:
        path: What a job wrote, JSON lines; a half-written last line does not count.

    Raises:
        ValueError: If a line is not a result; the error names it.
    """
    rows = {}
    text = Path(path).read_text(encoding="utf-8", errors="replace")
    for number, line in enumerate(text[: text.rfind("\n") + 1].splitlines(), start=1):
        try:
            row = json.loads(line)
            rows.pop(row["run"], None)
            rows[row["run"]] = row
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise ValueError(f"{path}, line {number}: not a result: {line[:60]!r}") from error
    return list(rows.values())


def summarize(rows: Sequence[Row], by: Sequence[str], values: Sequence[str]) -> list[Row]:
    """Means and standard errors over the runs that agree in some keys.

    Args:
        rows: From `load`; failed runs only count in `failed`.
        by: Keys to group by, in this order.
        values: Results to average; those no row has are left out.

    Returns:
        One row a group: the keys, `runs`, `failed`, and for each value the mean and, as
        "value ±", its standard error (None for one run).

    Raises:
        ValueError: If no row has a key.
    """
    if missing := [key for key in by if not any(key in row for row in rows)]:
        raise ValueError(f"no row has {', '.join(missing)}")
    values = [value for value in values if any(row.get(value) is not None for row in rows)]
    groups: dict[tuple, list[Row]] = {}
    for row in rows:
        group = [row.get(key) for key in by]
        names = tuple(str(name) if isinstance(name, list) else name for name in group)
        groups.setdefault(names, []).append(row)
    table = []
    for names, members in groups.items():
        done = [row for row in members if row["status"] == "done"]
        line = dict(zip(by, names, strict=True))
        line |= {"runs": len(done), "failed": len(members) - len(done)}
        for value in values:
            found = np.array([row[value] for row in done if row.get(value) is not None], float)
            n = len(found)
            line[value] = float(found.mean()) if n else None
            line[f"{value} ±"] = float(found.std(ddof=1) / n**0.5) if n > 1 else None
        table.append(line)
    return table


def plot(rows: Sequence[Row], x: str, y: str = "normalized_kl", by: str | None = None) -> Axes:
    """Draw means and standard errors against one key of the grid, a line for each of another.

    Args:
        rows: From `load`.
        x: A key; numbers get a logarithmic axis, names are spread out evenly.
        y: A result.
        by: The key that tells lines apart, if any.

    Raises:
        ValueError: If no row has a key, or the result: of files there is `test`, and no distance.
    """
    table = summarize(rows, [x] if by is None else [by, x], [y])
    table = [row for row in table if row.get(y) is not None]
    if not table:
        raise ValueError(f"no row has {y}: of files there is test, and no distance from a truth")
    names = dict.fromkeys(row.get(by) for row in table)
    numeric = all(isinstance(row[x], int | float) for row in table)
    if numeric:
        table.sort(key=lambda row: row[x])
    _, ax = plt.subplots()
    for name in names:
        line = [row for row in table if row.get(by) == name]
        places = [row[x] if numeric else str(row[x]) for row in line]
        means, errors = [row[y] for row in line], [row[f"{y} ±"] or 0 for row in line]
        ax.errorbar(places, means, errors, fmt="o-", ms=3, capsize=2, label=name)
    if numeric and table[0][x] > 0:
        ax.set_xscale("log")
    ax.set(xlabel=x.replace("_", " "), ylabel=y.replace("_", " "))
    if by is not None:
        ax.legend(title=by.replace("_", " "))
    return ax
