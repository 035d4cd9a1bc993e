"""Fill the tables of README.md and of the pages of docs/ from benchmarks/results/.

A marker names a benchmark, a table of it, its columns, and what a column must be to be shown:

    <!-- table: ode_iteration | One step | contender; ms | method = rk4 -->
    <!-- end -->

`python -m benchmarks.tables` renews the tables of all pages. With names of benchmarks it first
takes their last whole runs from build/benchmarks/ over into benchmarks/results/.
"""

import csv
import re
import shutil
from contextlib import suppress
from pathlib import Path

from benchmarks.common import FOLDER, Row, markdown_table, write_csv
from dlutils.tools.commands import parser_of

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
        with suppress(ValueError):
            return kind(text)
    return text


def read_csv(path: Path) -> list[Row]:
    """The rows of a file, numbers as numbers; of an empty cell nothing."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = [{key: number(text) for key, text in row.items()} for row in csv.DictReader(file)]
    return [{key: value for key, value in row.items() if value != ""} for row in rows]


def fill(page: str, folder: Path) -> str:
    """The page with every table renewed and followed by its machine, date and command.

    Raises:
        ValueError: If a benchmark, a table, a column or a row is not there.
    """

    def renew(match: re.Match) -> str:
        name, caption, key = match["name"], match["table"], match["key"]
        path, columns = folder / f"{name}.csv", match["columns"].split("; ")
        if not path.exists():
            raise ValueError(f"there is no {path}: run python -m benchmarks.{name} first")
        rows = [row for row in read_csv(path) if row["table"] == caption]
        rows = [row for row in rows if not key or str(row.get(key)) == match["value"]]
        if set(columns) - {column for row in rows for column in row}:
            raise ValueError(f"{path} has no table {caption!r} with the columns {columns}")
        table = markdown_table([{c: row.get(c, "–") for c in columns} for row in rows])
        (source,) = (row for row in read_csv(folder / SOURCES) if row["benchmark"] == name)
        where = f"`python -m benchmarks.{name}` on {source['machine']}; {source['date']}."
        return f"{match['head']}{table}\n\n{where}\n{match['end']}"

    return MARKER.sub(renew, page)


def take(name: str, runs: Path, folder: Path) -> None:
    """Copy the tables of a benchmark's last whole run, and note its machine and date."""
    report = (runs / f"{name}.md").read_text(encoding="utf-8")
    machine, date = (
        re.search(pattern, report, re.MULTILINE)[1]
        for pattern in (r"^Machine: ([^;]*)", "^Date: (.*)")
    )
    shutil.copy(runs / f"{name}.csv", folder)
    if (raw := runs / f"{name}_fits.csv").exists():
        shutil.copy(raw, folder)
    sources = {row["benchmark"]: row for row in read_csv(folder / SOURCES)}
    sources[name] = {"benchmark": name, "machine": machine, "date": date}
    write_csv(folder / SOURCES, list(sources.values()))


def main(arguments: list[str] | None = None) -> int:
    """Renew the tables of README.md and docs/*.md, of all or none, from benchmarks/results/."""
    parser = parser_of("benchmarks.tables", main)
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
    raise SystemExit(main())
