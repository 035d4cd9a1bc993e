import bz2
import gzip
import lzma
import sys
import zipfile

import numpy as np
import pandas as pd
import pytest
from pandas._libs.parsers import STR_NA_VALUES

from dlutils.data.datasets import Dataset
from dlutils.data.reading import MISSING, is_source, split_source
from dlutils.data.samples import load_sample


def values_of(source):
    return load_sample(source).values.tolist()


@pytest.fixture
def load(tmp_path):
    """A text, or bytes, written to my.csv and read; `column` is what stands after the name."""

    def write_and_load(text, column="", **options):
        data = text if isinstance(text, bytes) else text.encode()
        (tmp_path / "my.csv").write_bytes(data)
        return load_sample(f"{tmp_path}/my.csv{column}", **options)

    return write_and_load


@pytest.mark.parametrize(("names", "one", "two"), [("a;b\n", "a", "b"), ("", "1", "2")])
def test_one_of_several_columns(load, names, one, two):
    text = f"{names}7;1\n8;2.5 \n9;-3e-1\n"
    assert (
        load(text, f":{two}").values.tolist() == load(text, ":2").values.tolist() == [1, 2.5, -0.3]
    )
    with pytest.raises(ValueError, match=rf"2 columns; say which, as in 'my.csv:{two}': {one}, "):
        load(text)
    with pytest.raises(ValueError, match=rf"has no column 'c'; choose from {one}, {two}"):
        load(text, ":c")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1\n2\nabc\n", r"my.csv, line 3: 'abc' is not a number"),
        ("x\n1\n\n2\nabc\n", r"my.csv, line 5: 'abc' is not a number"),
        ("a,b\n1,2\n3\n", r"my.csv, line 3: 1 cells, not 2"),
        ("1\ninf\n", r"my.csv, line 2: a value is infinite"),
        ("1\nnan\nNA\n2\n", r"my.csv: 2 of 4 values are missing or NaN, the first in line 2; drop"),
        ("# nothing\n", r"my.csv is empty"),
        ("height\n", r"my.csv has no numbers under its names"),
    ],
)
def test_what_is_wrong_is_named(load, text, message):
    with pytest.raises(ValueError, match=message):
        load(text, ":1" if "," in text else "")


def test_numpy_files(tmp_path):
    np.save(tmp_path / "my.npy", np.array([1.0, 2.0]))
    assert values_of(tmp_path / "my.npy") == [1, 2]
    np.save(tmp_path / "my.npy", np.array([[1, 5], [2, 6]]))
    assert values_of(f"{tmp_path}/my.npy:2") == [5, 6]
    for wrong, message in (
        (np.zeros((2, 2, 2)), r"shape \(2, 2, 2\), not one column"),
        (np.array(["a"]), "does not hold an array of real numbers"),
        (np.array([1.0, np.nan]), "1 of 2 values are missing or NaN, the first in line 2"),
        (np.array([None]), "is not a file of numbers"),
    ):
        np.save(tmp_path / "my.npy", wrong, allow_pickle=True)
        with pytest.raises(ValueError, match=message):
            load_sample(tmp_path / "my.npy")


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(ValueError, match=r"there is no file '.*none.csv'"):
        load_sample(tmp_path / "none.csv")
    with pytest.raises(ValueError, match=r"'my.xls' is not a .csv, .* .xlsx or .parquet file, or"):
        load_sample("my.xls")
    (tmp_path / "my.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="is not text"):
        load_sample(tmp_path / "my.csv")
    assert is_source("a/b.csv")
    assert is_source(r"C:\a\b.CSV:height")
    assert not is_source("laplace_mixture")
    assert is_source("a.parquet")
    assert [str(part) for part in split_source("a.dat.GZ:x.csv")] == ["a.dat.GZ", "x.csv"]


def test_dataset_from_file(tmp_path):
    y = np.random.default_rng(0).gamma(2, size=100)
    np.savetxt(tmp_path / "waits.csv", y)
    dataset = Dataset.from_file(tmp_path / "waits.csv", seed=1)
    assert dataset.name == "waits"
    assert len(dataset.train) + len(dataset.val) + len(dataset.test) == 100
    same = Dataset.from_samples(y, "waits", seed=1)
    assert dataset.train.tolist() == same.train.tolist()
    (tmp_path / "two.csv").write_text("a,b\n" + "\n".join(f"1,{value}" for value in y))
    assert Dataset.from_file(f"{tmp_path}/two.csv:b").name == "two, b"


@pytest.mark.parametrize("name", ["", ":waiting time", ":1"])
def test_the_name_of_one_column_may_have_blanks(load, name):
    assert load("waiting time\n1.5\n2.5\n3.0\n", name).values.tolist() == [1.5, 2.5, 3.0]


@pytest.mark.parametrize(
    ("text", "column", "values", "about"),
    [
        (",0\n0,1.5\n1,2.5\n", "", [1.5, 2.5], "2 rows under the header '0'"),
        ("0\n1.5\n2.5\n", "", [1.5, 2.5], "2 rows under the header '0'"),
        ("0\n3\n2\n", ":0", [3, 2], "2 rows under the header '0'"),
        ("0\n3\n2\n", ":1", [0, 3, 2], "3 rows without a header"),
        ("0,1\n1.5,3\n2.5,5\n", ":0", [1.5, 2.5], "2 rows under the header '0'"),
        ("0,1\n1.5,3\n2.5,5\n", ":1", [3, 5], "2 rows under the header '1'"),
        (",x\n0,1.5\n1,2.5\n", "", [1.5, 2.5], "2 rows under the header 'x'"),
        (",x\n7,1.5\n9,2.5\n", ":2", [1.5, 2.5], "2 rows under the header 'x'"),
        (" x\n0 1.5\n1 2.5\n", "", [1.5, 2.5], "2 rows under the header 'x'"),
        ('"x"\n"1" 1.5\n"2" 2.5\n', "", [1.5, 2.5], "2 rows under the header 'x'"),
        ("2019,2020\n5.1,6.2\n5.3,6.4\n", ":2020", [6.2, 6.4], "2 rows under the header '2020'"),
        ("2019,2020\n5.1,6.2\n5.3,6.4\n", ":2", [2020, 6.2, 6.4], "3 rows of column 2, without a"),
        ("1,2\n3,4\n", ":2", [2, 4], "2 rows of column 2, without a header"),
        ("5.1,a\n4.9,b\n", ":1", [5.1, 4.9], "2 rows of column 1, without a header"),
        ("2nd\n1.5\n2.5\n", ":2nd", [1.5, 2.5], "2 rows under the header '2nd'"),
        ("x,NA\n1,2\n", ":NA", [2], "1 row under the header 'NA'"),
    ],
)
def test_names_or_data(load, text, column, values, about):
    sample = load(text, column)
    assert sample.values.tolist() == values
    assert sample.description.startswith(about)


@pytest.mark.parametrize(
    ("text", "column", "message"),
    [
        ("1.2O\n2.5\n3.5\n", "", r"my.csv, line 1: '1.2O' is not .* ask for it: 'my.csv:1.2O'"),
        ("a,1.2O\nb,2.5\n", ":2", r"my.csv, line 1: '1.2O' is not a number; if it is the name"),
        ("0\n3\n2\n", "", r"my.csv: '0' in the first row may be a name, .* 'my.csv:1' as a number"),
        ("1,?\n2,3.0\n3,4.0\n", ":2", r"1 of 3 values are missing or NaN, the first in line 1"),
        (",a\n5.1,b\n", ":1", r"1 of 2 values are missing or NaN, the first in line 1"),
        (",a,b\n0,1,2\n1,3,4\n", "", r"has 2 columns; say which, as in 'my.csv:b': a, b$"),
        ("x,x\n1,2\n", ":x", r"my.csv has several columns 'x': take one by its number"),
        ("x,x\n1,2\n", "", r"has 2 columns; say which, as in 'my.csv:2': x, x"),
    ],
)
def test_no_row_vanishes_as_names(load, text, column, message):
    with pytest.raises(ValueError, match=message):
        load(text, column)


@pytest.mark.parametrize(
    ("text", "column", "values", "count", "line"),
    [
        ("x\n1.0\n#N/A\n2.0\n#DIV/0!\n3.0\n", "", [1, 2, 3], "2 of 5", 3),
        ("#N/A\n1.0\n2.0\n", "", [1, 2], "1 of 3", 1),
        ("1\n\n2\n \n3\n\n\n", "", [1, 2, 3], "2 of 5", 2),
        ('x\n1\n""\n2\n', "", [1, 2], "1 of 3", 3),
        ("x,y\n1,10\n#N/A,20\n3,30\n", ":x", [1, 3], "1 of 3", 3),
        ("1\n<NA>\n-\n.\n?\n2\n", "", [1, 2], "4 of 6", 2),
    ],
)
def test_missing_is_missing(load, text, column, values, count, line):
    with pytest.raises(ValueError, match=f"{count} values are .* the first in line {line}; drop_"):
        load(text, column)
    sample = load(text, column, drop_missing=True)
    assert sample.values.tolist() == values
    assert f", {count.split()[0]} missing left out" in sample.description


def test_missing_in_another_column_does_not_matter(load):
    assert load("x,y\n1,10\n#N/A,20\n3,30\n", ":y").values.tolist() == [10, 20, 30]
    assert load("x,y\n\n1,10\n\n3,30\n", ":y").values.tolist() == [10, 30]


def test_what_pandas_takes_for_missing_is_missing():
    assert {mark.lower() for mark in STR_NA_VALUES} <= MISSING


def test_comments(load):
    text = '#one\n\n# two "\nx\n1\n# three, four\n#\n2\n'
    assert load(text).values.tolist() == [1, 2]
    with pytest.raises(ValueError, match=r"my.csv, line 3: '#three' is not a number"):
        load("x\n1\n#three\n2\n")


@pytest.mark.parametrize(
    ("values", "code"),
    [
        ([-999, -999, -999, 1, 2, 2.5], "-999 is there 3 times, far from the rest: is it missing?"),
        ([99, 99, 99, 1, 2, 2.5], "99 is there 3 times, far from the rest: is it missing?"),
        ([-999, -999, 1, 2, 2.5, 3], ""),
        ([-999, -999, -999, -900, 2, 2.5], ""),
        ([-998, -998, -998, 1, 2, 2.5], ""),
        ([9, 9, 9, 8, 7, 6], ""),
        ([-1, -1, -1, 0, 5, 7], ""),
    ],
)
def test_a_code_for_missing_is_mentioned(load, values, code):
    sample = load("\n".join(map(str, values)), ":1")
    assert sample.values.tolist() == values
    assert sample.description == "6 rows without a header" + (f", {code}" if code else "")


@pytest.mark.parametrize(
    ("text", "column", "values"),
    [
        ('x,y\n"a\nb",1\nc,2\n', ":y", [1, 2]),
        ('x,y\r\n"a\r\nb, ""c""",1\r\nc,2\r\n', ":y", [1, 2]),
        ("x,y\na\u2028b,1\nc\x85,2\n", ":y", [1, 2]),
        ('"h; cm",w\n1.5,2\n', ":h; cm", [1.5]),
        ('"a\nb",w\n1.5,2\n', ":a\nb", [1.5]),
        ("x,y\n" + "a" * 140_000 + ",1\nb,2\n", ":y", [1, 2]),
        ("sep=;\nx;y\n1;2\n3;4\n", ":y", [2, 4]),
        ("sep=;\nx, cm\n1\n3\n", "", [1, 3]),
        ("a;b\n1,5;2\n2,25;3\n", ":a", [1.5, 2.25]),
        ("1,5\t2\n2,25\t3\n", ":1", [1.5, 2.25]),
        ('a,b\n"1,5",2\n"2,25",3\n', ":a", [1.5, 2.25]),
        ("x\n1,5\n-0,25\n4\n", "", [1.5, -0.25, 4]),
        ("x\r1\r2\r", "", [1, 2]),
        ('5" pipe,1\n6" pipe,2\n', ":2", [1, 2]),
        ('a "b,1\nc "d e",2\n', ":2", [1, 2]),
        ('"a, b" x\n"c\nd" 2\n', ":x", [2]),
        ("length; width\n1\n2\n", "", [1, 2]),
        ("a;b,c\n1,2\n3,4\n", ":c", [2, 4]),
        ("  7  1\n 8 \t 2\n", ":2", [1, 2]),
    ],
)
def test_valid_files_are_read(load, text, column, values):
    assert load(text, column).values.tolist() == values


def test_decimal_commas(load):
    with pytest.raises(
        ValueError, match=r"has 2 columns; .* if commas are decimal marks: decimal="
    ):
        load("1,5\n2,25\n3,75\n")
    with pytest.raises(ValueError, match=r"line 2: 1 cells, not 2; if commas are .* decimal=','"):
        load("1,5\n2\n3,75\n")
    assert load("1,5\n2,25\n3,75\n", decimal=",").values.tolist() == [1.5, 2.25, 3.75]
    assert load("x y\n1,5 2\n2,25 3\n", ":x", decimal=",").values.tolist() == [1.5, 2.25]
    for unclear in ("a;b\n1,500;2\n2,250;3\n", "a;b\n1,500;2\n2.5;3\n"):
        with pytest.raises(ValueError, match=r"line 2: '1,500' is not a number; if commas are dec"):
            load(unclear, ":a")
    with pytest.raises(
        ValueError, match=r"line 2: '1,5' is not a number; if commas"
    ):  # row numbers
        load("x\n1,5\n2,7\n3,9\n")
    with pytest.raises(ValueError, match=r"line 2: '1.5' is not a number"):
        load("x\n1.5\n", decimal=",")
    with pytest.raises(ValueError, match=r"decimal must be '.' or ',', not ';'"):
        load("x\n1.5\n", decimal=";")
    assert "decimal comma" in load("a;b\n1,5;2\n2,25;3\n", ":a").description


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('x,y\n"a\n\nb",1\nc,d\n', r"my.csv, line 5: 'd' is not a number"),
        ("# a\n\nx,y\na\u2028b,1\nc,d\n", r"my.csv, line 5: 'd' is not a number"),
        ("sep=;\nx;y\n1;d\n", r"my.csv, line 3: 'd' is not a number"),
        ('x,y\n1,2\n"a,3\n4,5\n', r"my.csv, line 3: its quotes do not match: '\"a,3'"),
        ('x,y\n"a b",1\na "b, c",2\n', r"my.csv, line 3: 3 cells, not 2"),
        ("x,y\n1," + "a" * 1000 + "\n", r"line 2: 'a{40}\.\.\.' is not a number$"),
        ("a b\n1.5\n5 cm\n", r"has no column 'y'; choose from a b"),
        ("x,y\n1,1_000\n", r"line 2: '1_000' is not a number"),
    ],
)
def test_lines_are_those_of_an_editor(load, text, message):
    with pytest.raises(ValueError, match=message):
        load(text, ":y")


def test_encodings(load):
    assert load("höhe\n1\n2\n".encode("utf-16")).description == "2 rows under the header 'höhe'"
    latin = "höhe\n1\n2\n".encode("latin-1")
    assert load(latin).description == "2 rows under the header 'höhe', read as Latin-1"
    assert load(latin, encoding="latin-1").description == "2 rows under the header 'höhe'"
    cyrillic = "рост\n1\n2\n".encode("cp1251")
    assert "'рост'" in load(cyrillic, encoding="cp1251").description
    for encoding in ("utf-8", "utf-99"):
        with pytest.raises(ValueError, match=r"my.csv is not text: .*; encoding=... may name"):
            load(latin, encoding=encoding)
    with pytest.raises(ValueError, match=r"my.csv is not text: it has zero bytes; encoding=..."):
        load("1\n2\n".encode("utf-16-le"))


def test_packed_files(tmp_path):
    packs = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}
    for suffix, pack in packs.items():
        path = tmp_path / f"my.csv.{suffix}"
        path.write_bytes(pack(b"x,y\n1,2\n3,4\n"))
        assert values_of(f"{path}:y") == [2, 4]
        path.write_bytes(b"no")
        with pytest.raises(ValueError, match=rf"my.csv.{suffix} cannot be unpacked as one file"):
            load_sample(path)
    with zipfile.ZipFile(tmp_path / "my.txt.zip", "w") as folder:
        folder.writestr("my.txt", "1 2\n3 4\n")
    assert values_of(f"{tmp_path}/my.txt.zip:2") == [2, 4]


def test_excel_and_parquet(tmp_path, monkeypatch):
    pytest.importorskip("openpyxl")
    pytest.importorskip("pyarrow")
    table = pd.DataFrame({"name": ["a", "b", "c"], "x": [1.5, None, 2.0], "n": [1, 2, 3]})
    table.to_parquet(tmp_path / "my.parquet")
    table.to_excel(tmp_path / "my.xlsx", index=False)
    for path, line in ((tmp_path / "my.parquet", 2), (tmp_path / "my.xlsx", 3)):
        sample = load_sample(f"{path}:x", drop_missing=True)
        assert sample.values.tolist() == [1.5, 2]
        assert sample.description == "2 rows under the header 'x', 1 missing left out"
        assert values_of(f"{path}:3") == [1, 2, 3]
        with pytest.raises(ValueError, match=f"1 of 3 values .* the first in line {line};"):
            load_sample(f"{path}:x")
        with pytest.raises(ValueError, match=f"line {line - 1}: 'a' is not a number"):
            load_sample(f"{path}:name")
        with pytest.raises(
            ValueError, match=r"has 3 columns; say which, as in 'my.*:n': name, x, n"
        ):
            load_sample(path)
    pd.DataFrame().to_excel(tmp_path / "none.xlsx")
    with pytest.raises(ValueError, match=r"none.xlsx is not .*: its first sheet is empty"):
        load_sample(tmp_path / "none.xlsx")
    for engine, path in (("openpyxl", "my.xlsx"), ("pyarrow", "my.parquet")):
        monkeypatch.setitem(sys.modules, engine, None)
        with pytest.raises(
            ValueError, match=f"{path} needs a package that is not there: .*{engine}"
        ):
            load_sample(f"{tmp_path / path}:x")


def test_weights(load, tmp_path):
    sample = load("x,w\n1,2\n2,0\n3,\n4,0.5\n", weights="w", drop_missing=True)
    assert (sample.values.tolist(), sample.weights.tolist()) == ([1, 4], [2, 0.5])
    about = "2 rows under the header 'x', 1 missing left out, 1 of weight zero left out"
    assert sample.description == about
    sample = load_sample(f"{tmp_path}/my.csv:w", weights=1, drop_missing=True)
    assert (sample.values.tolist(), sample.weights.tolist()) == ([2, 0, 0.5], [1, 2, 4])
    assert load("x\n1\n2\n").weights is None
    for wrong, message in (
        ("x,w\n1,2\n2,-1\n", "line 3: a weight is negative"),
        ("x,w\n1,2\n2,inf\n", "line 3: a weight is infinite"),
        ("x,w\n1,2\n2,b\n", "line 3: 'b' is not a number"),
        ("x,w\n1,2\n2,\n", "1 of 2 values are missing or NaN, the first in line 3"),
        ("x,y,w\n1,2,3\n", "has 2 columns; say which, as in 'my.csv:y': x, y"),
        ("x,v\n1,2\n", "has no column 'w'; choose from x, v"),
    ):
        with pytest.raises(ValueError, match=message):
            load(wrong, weights="w")
