"""Fill the tables of README.md and of the pages of docs/ from benchmarks/results/.

A marker names a benchmark, a table of it, its columns, and what a column must be to be shown:

    <!-- table: ode_iteration | One step | contender; ms | method = rk4 -->
    <!-- end -->

`python -m benchmarks.tables` renews the tables of all pages. With names of benchmarks it first
takes their last whole runs from build/benchmarks/ over into benchmarks/results/.
"""

import argparse
import csv
import re
import shutil
import sys
from pathlib import Path

from benchmarks.common import FOLDER, Row, Tables, markdown_table, write_csv

RESULTS = Path("benchmarks/results")
SOURCES = "sources.csv"  # the machine and the date of each benchmark
THEMSELVES = {"parameterizations", "notebook_times"}  # write rows and pages of their own
MARKER = re.compile(
    r"(?P<head><!-- table: (?P<name>\w+) \| (?P<table>[^|]+) \| (?P<columns>[^|>]+?)"
    r"(?: \| (?P<key>[^|>=]+) = (?P<value>[^|>=]+))? -->\n).*?(?P<end><!-- end -->)",
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


def read_csv(path: Path) -> list[Row]:
    """The rows of a file, numbers as numbers."""
    with path.open(newline="", encoding="utf-8") as file:
        return [{key: number(text) for key, text in row.items()} for row in csv.DictReader(file)]


def read_tables(path: Path) -> Tables:
    """Rows by caption; a table has the columns that are not empty in all of its rows."""
    tables: Tables = {}
    for row in read_csv(path):
        tables.setdefault(row.pop("table"), []).append(row)
    for caption, rows in tables.items():
        columns = [key for key in rows[0] if any(row[key] != "" for row in rows)]
        tables[caption] = [{key: row[key] for key in columns} for row in rows]
    return tables


def fill(page: str, folder: Path) -> str:
    """The page with every table renewed and followed by its machine, date and command.

    Raises:
        ValueError: If a benchmark, a table, a column or a row is not there.
    """

    def renew(match: re.Match) -> str:
        name, caption, key = match["name"], match["table"], match["key"]
        path = folder / f"{name}.csv"
        if not path.exists():
            raise ValueError(f"there is no {path}: run python -m benchmarks.{name} first")
        rows = read_tables(path).get(caption, [])
        if key:
            rows = [row for row in rows if str(row[key]) == match["value"]]
        columns = [column.strip() for column in match["columns"].split(";")]
        if not rows or any(column not in rows[0] for column in columns):
            raise ValueError(f"{path} has no table {caption!r} with the columns {columns}")
        table = markdown_table([{column: row[column] for column in columns} for row in rows])
        (source,) = (row for row in read_csv(folder / SOURCES) if row["benchmark"] == name)
        where = f"`python -m benchmarks.{name}` on {source['machine']}; {source['date']}."
        return f"{match['head']}{table}\n\n{where}\n{match['end']}"

    return MARKER.sub(renew, page)


def take(name: str, runs: Path, folder: Path) -> None:
    """Copy the tables of a benchmark's last whole run, and note its machine and date."""
    lines = (runs / f"{name}.md").read_text(encoding="utf-8").splitlines()
    after = lambda start: next(x for x in lines if x.startswith(start)).removeprefix(start)
    machine, date = after("Machine: ").partition(";")[0], after("Date: ")
    shutil.copy(runs / f"{name}.csv", folder)
    sources = {row["benchmark"]: row for row in read_csv(folder / SOURCES)}
    sources[name] = {"benchmark": name, "machine": machine, "date": date}
    write_csv(folder / SOURCES, list(sources.values()))


def main(arguments: list[str] | None = None) -> int:
    """Renew the tables of README.md and docs/*.md, of all or none, from benchmarks/results/."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tables", description=main.__doc__)
    parser.add_argument("names", nargs="*", help="benchmarks to take from build/benchmarks/ first")
    options = parser.parse_args(arguments)
    if own := THEMSELVES & set(options.names):
        parser.error(f"{', '.join(own)} writes its page and its rows itself")
    pages = [Path("README.md"), *sorted(Path("docs").glob("*.md"))]
    try:
        for name in options.names:
            take(name, FOLDER, RESULTS)
        texts = [fill(page.read_text(encoding="utf-8"), RESULTS) for page in pages]
    except (OSError, ValueError) as error:
        parser.error(str(error))
    for page, text in zip(pages, texts, strict=True):
        page.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
