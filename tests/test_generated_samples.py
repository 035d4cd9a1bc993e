"""Generated files are read as pandas reads them, or refused for a reason named; seeds are fixed."""

import csv
import io
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlutils.data.samples import load_sample

MARKS = ["", "NA", "#N/A", "<NA>", "-", ".", "?", "#DIV/0!", "nan", "NULL"]
WRONG = ["1.2O", "abc", "1_0", "5 cm", "1.2.3", "#7"]
NAMES = st.text("abä;,\"' -#.1", min_size=1, max_size=6).filter(
    lambda name: name == name.strip() and not name[0].isdigit() and name[0] != "#"
)
TEXTS = st.text("ab;,\"' \n\u2028.1é", max_size=6)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-99, 99).map(float)


@st.composite
def files(draw):
    """A table of numbers, one column of text, and how it is written: as keywords of pandas."""
    n, k = draw(st.integers(2, 8)), draw(st.integers(1, 3))
    rows = st.lists(NUMBERS | st.none() if draw(st.booleans()) else NUMBERS, min_size=n, max_size=n)
    columns = [draw(rows) for _ in range(k)]
    where = draw(st.integers(0, k - 1))
    if draw(st.booleans()):
        columns.append(draw(st.lists(TEXTS, min_size=n, max_size=n)))
    named = draw(st.sampled_from(["names", "pandas", "none"]))
    size = len(columns)
    names = draw(st.lists(NAMES, min_size=size, max_size=size, unique=True))
    table = pd.DataFrame(dict(enumerate(columns)), dtype=object)
    if named == "names":
        table.columns = names
    how = {
        "sep": draw(st.sampled_from(",;|\t ")),
        "index": named != "none" and draw(st.booleans()),
        "header": named != "none",
        "quoting": draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL])),
        "na_rep": draw(st.sampled_from(MARKS)),
        "lineterminator": draw(st.sampled_from(["\n", "\r\n", "\r"])),
    }
    if how["lineterminator"] == "\r" or (how["sep"] == " " and size > k):
        how["quoting"] = csv.QUOTE_ALL  # or other line ends, and nothing between blanks, are bare
    if how["na_rep"] == "" and (
        how["sep"] == " " or not how["header"]
    ):  # a first row that is blank
        how["na_rep"] = "NA"
    wrong = draw(st.none() | st.tuples(st.integers(0, n - 1), st.sampled_from(WRONG)))
    if named == "none" and wrong and wrong[0] == 0:  # else it may be a name
        wrong = 0, WRONG[0]
    if wrong is not None:
        table.iloc[wrong[0], where] = wrong[1]
    how["decimal"] = draw(st.sampled_from(".,")) if how["sep"] in ";|\t" else "."
    if how["decimal"] == "," and size == 1:  # else it may be two columns
        how["quoting"] = csv.QUOTE_ALL
    if how["decimal"] == ",":  # of objects pandas writes the points
        table.iloc[:, :k] = table.iloc[:, :k].map(
            lambda cell: repr(cell).replace(".", ",") if isinstance(cell, float) else cell
        )
    comments = draw(st.lists(st.sampled_from(["# a, b", '# "c', "#", "#\td"]), max_size=2))
    before = draw(st.lists(st.sampled_from(["#e", "", *comments]), max_size=3))
    encoding = draw(st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "latin-1"]))
    return table, where, how, before, comments, draw(st.integers(0, n - 1)), wrong, encoding


def write(table, how, before, comments, after, encoding):
    """The bytes, and the line in which each row begins; comments after some row."""
    end = how["lineterminator"]
    starts = [len(table[:k].to_csv(**how)) for k in range(len(table))]
    text = table.to_csv(**how)
    lines = [
        len(before)
        + len(re.findall("\r\n|\r|\n", text[:start]))
        + (len(comments) if row >= after else 0)
        + 1
        for row, start in enumerate(starts)
    ]
    middle = "".join(line + end for line in comments)
    whole = "".join(line + end for line in before) + text[: starts[after]] + middle
    whole += text[starts[after] :]
    return whole.encode(encoding, "replace"), lines


def read(source, **options):
    """The sample, or why there is none."""
    try:
        return load_sample(source, drop_missing=True, **options), ""
    except ValueError as error:
        return None, str(error)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("generated") / "my.csv"


@settings(derandomize=True, deadline=None)
@given(file=files())
def test_files_are_read_as_pandas_reads_them(path: Path, file):
    table, where, how, before, comments, after, wrong, encoding = file
    if not how["header"] and after == 0:
        comments = []  # they would stand before the first row
    data, lines = write(table, how, before, comments, after, encoding)
    path.write_bytes(data)
    column = table.columns[where] if how["header"] else where + 1
    reference = pd.read_csv(
        io.StringIO(table.to_csv(**how)),
        sep=how["sep"],
        header=0 if how["header"] else None,
        index_col=0 if how["index"] else False,
        decimal=how["decimal"],
        na_values=MARKS,
        skip_blank_lines=False,
    ).iloc[:, where]
    source = f"{path}:{column}"
    sample, refusal = read(source)
    if how["decimal"] == "," and "if commas are decimal marks" in refusal:  # or of thousands
        assert re.search(r"my\.csv: line \d+: '.*,.*' is not a number", refusal)
        sample, refusal = read(source, decimal=",")
    if wrong is not None:
        assert f"my.csv: line {lines[wrong[0]]}: {wrong[1]!r} is not a number" in refusal, data
        return
    assert not refusal, data
    expected = reference.to_numpy(float)
    missing = np.isnan(expected)
    np.testing.assert_array_equal(sample.values, expected[~missing], err_msg=str(data))
    header = f"under the header {str(column)!r}" if how["header"] else "without a header"
    assert header in sample.description
    if missing.any():
        count = f"{missing.sum()} of {len(missing)} values are missing"
        with pytest.raises(ValueError, match=rf"{count} .* in line {lines[missing.argmax()]};"):
            load_sample(source, decimal=how["decimal"])
