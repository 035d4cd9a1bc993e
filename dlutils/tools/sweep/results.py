"""The results of a sweep: load them, average them, draw them."""

import json
from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

Row = dict[str, object]
VALUES = ("normalized_kl", "kl", "mass", "bound_kl", "seconds", "test", "val", "train")


def load(path: str | Path) -> list[Row]:
    """Read a results file: one row a run, its latest if there are several.

    Args:
        path: What a job wrote, JSON lines; a half-written last line does not count.

    Raises:
        ValueError: If a line is not a result; the error names it.
    """
    rows = {}
    text = Path(path).read_text(encoding="utf-8")
    for number, line in enumerate(text[: text.rfind("\n") + 1].splitlines(), start=1):
        try:
            row = json.loads(line)
            rows.pop(row["run"], None)
            rows[row["run"]] = row
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise ValueError(f"{path}, line {number}: not a result: {line[:60]!r}") from error
    return list(rows.values())


def summarize(rows: Sequence[Row], by: Sequence[str], values: Sequence[str] = VALUES) -> list[Row]:
    """Means and standard errors over the runs that agree in some keys.

    Args:
        rows: From `load`; failed runs only count in `failed`.
        by: Keys to group by, in this order.
        values: Results to average; those no row has are left out.

    Returns:
        One row a group: the keys, `runs`, `failed`, and for each value the mean and, as
        "value ±", its standard error (None for one run).
    """
    if missing := [key for key in by if not any(key in row for row in rows)]:
        raise ValueError(f"no row has {', '.join(missing)}")
    groups: dict[tuple, list[Row]] = {}
    for row in rows:
        group = (row.get(key) for key in by)
        names = tuple(str(value) if isinstance(value, list) else value for value in group)
        groups.setdefault(names, []).append(row)
    values = [value for value in values if any(row.get(value) is not None for row in rows)]
    table = []
    for group, members in groups.items():
        done = [row for row in members if row["status"] == "done"]
        line = dict(zip(by, group, strict=True))
        line |= {"runs": len(done), "failed": len(members) - len(done)}
        for value in values:
            found = np.array([row[value] for row in done if row.get(value) is not None], float)
            line[value] = float(found.mean()) if len(found) else None
            error = float(found.std(ddof=1) / len(found) ** 0.5) if len(found) > 1 else None
            line[f"{value} ±"] = error
        table.append(line)
    return table


def plot(
    rows: Sequence[Row],
    x: str,
    y: str = "normalized_kl",
    by: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw means and standard errors against one key of the grid, a line for each of another.

    Args:
        rows: From `load`.
        x: A key; numbers get a logarithmic axis, names are spread out evenly.
        y: A result.
        by: The key that tells lines apart, if any.
        ax: Where to draw; None for a new figure.

    Raises:
        ValueError: If no row has a key, or the result: of files there is `test`, and no distance.
    """
    table = summarize(rows, [x] if by is None else [by, x], [y])
    if y not in table[0]:
        raise ValueError(f"no row has {y}: of files there is test, and no distance from a truth")
    ax = plt.subplots()[1] if ax is None else ax
    for name in dict.fromkeys(row.get(by) for row in table):
        line = [row for row in table if row.get(by) == name and row[y] is not None]
        if not line:
            continue
        numeric = all(isinstance(row[x], int | float) for row in line)
        line = sorted(line, key=lambda row: row[x]) if numeric else line
        errors = [row[f"{y} ±"] or 0 for row in line]
        places = [row[x] if numeric else str(row[x]) for row in line]
        ax.errorbar(places, [row[y] for row in line], errors, fmt="o-", ms=3, capsize=2, label=name)
        if numeric and min(places) > 0:
            ax.set_xscale("log")
    ax.set(xlabel=x.replace("_", " "), ylabel=y.replace("_", " "))
    if by is not None:
        ax.legend(title=by.replace("_", " "))
    return ax
