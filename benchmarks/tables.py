"""Copy tables from build/benchmarks into the pages of docs/ and README.md, between their markers.

A marker names a benchmark, a table of it and its columns:

    <!-- table: ode_iteration | One step | method; contender; ms -->
    <!-- end -->

`python -m benchmarks.tables` runs after `make bench`.
"""

import argparse
import csv
import re
import sys
from pathlib import Path

from benchmarks.common import markdown_table

MARKER = re.compile(
    r"(<!-- table: (?P<name>\w+) \| (?P<table>[^|]+) \| (?P<columns>[^>]+) -->\n).*?(<!-- end -->)",
    re.DOTALL,
)


def number(text: str) -> str | int | float:
    """The value that a CSV cell was written from."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text


def fill(page: str, folder: Path) -> str:
    """The page with every table renewed and followed by its machine, date and command.

    Raises:
        ValueError: If a benchmark, a table or a column is not there.
    """

    def renew(match: re.Match) -> str:
        name, caption = match["name"], match["table"]
        path = folder / f"{name}.csv"
        if not path.exists():
            raise ValueError(f"there is no {path}: run python -m benchmarks.{name} first")
        with path.open(newline="", encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if row["table"] == caption]
        columns = [column.strip() for column in match["columns"].split(";")]
        if not rows or any(column not in rows[0] for column in columns):
            raise ValueError(f"{path} has no table {caption!r} with the columns {columns}")
        cells = [{column: number(row[column]) for column in columns} for row in rows]
        lines = path.with_suffix(".md").read_text(encoding="utf-8").splitlines()
        date = next(line for line in lines if line.startswith("Date: ")).removeprefix("Date: ")
        machine = next(line for line in lines if line.startswith("Machine: "))
        machine = machine.removeprefix("Machine: ").partition(";")[0]
        source = f"`python -m benchmarks.{name}` on {machine}; {date}."
        return f"{match[1]}{markdown_table(cells)}\n\n{source}\n{match[5]}"

    return MARKER.sub(renew, page)


def main(arguments: list[str] | None = None) -> int:
    """Renew the tables of all pages, or of none, from the results of the benchmarks."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tables", description=main.__doc__)
    parser.add_argument("pages", nargs="*", type=Path, help="default: README.md and docs/*.md")
    parser.add_argument("--results", type=Path, default=Path("build/benchmarks"))
    options = parser.parse_args(arguments)
    pages = options.pages or [Path("README.md"), *sorted(Path("docs").glob("*.md"))]
    try:
        texts = [fill(page.read_text(encoding="utf-8"), options.results) for page in pages]
    except (OSError, ValueError) as error:
        parser.error(str(error))
    for page, text in zip(pages, texts, strict=True):
        page.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
