"""A column of a file is read as it is meant, or refused with file, line and value."""

import bz2
import gzip
import lzma
import sys
import zipfile

import numpy as np
import pandas as pd
import pytest
from pandas._libs.parsers import STR_NA_VALUES

from dlutils.data.reading import MISSING, is_source, split_source
from dlutils.data.samples import load_sample


@pytest.fixture
def load(tmp_path):
    """A text, or bytes, written to my.csv and read; `column` is what stands after the name."""

    def write_and_load(text, column="", **options):
        data = text if isinstance(text, bytes) else text.encode()
        (tmp_path / "my.csv").write_bytes(data)
        return load_sample(f"{tmp_path}/my.csv{column}", **options)

    return write_and_load


NAMES_OR_DATA = [
    ("a;b\n7;1\n8;2.5 \n9;-3e-1\n", ":b", [1, 2.5, -0.3], "3 rows under the header 'b'"),
    ("7;1\n8;2.5 \n9;-3e-1\n", ":2", [1, 2.5, -0.3], "3 rows of column 2, without a header"),
    ("0\n1.5\n2.5\n", "", [1.5, 2.5], "2 rows under the header '0'"),
    ("0\n3\n2\n", ":0", [3, 2], "2 rows under the header '0'"),
    ("0\n3\n2\n", ":1", [0, 3, 2], "3 rows without a header"),
    ("0,1\n1.5,3\n2.5,5\n", ":1", [3, 5], "2 rows under the header '1'"),
    (",x\n0,1.5\n1,2.5\n", "", [1.5, 2.5], "2 rows under the header 'x'"),
    ('"x"\n"1" 1.5\n"2" 2.5\n', "", [1.5, 2.5], "2 rows under the header 'x'"),
    ("2019,2020\n5.1,6.2\n5.3,6.4\n", ":2020", [6.2, 6.4], "2 rows under the header '2020'"),
    ("2019,2020\n5.1,6.2\n5.3,6.4\n", ":2", [2020, 6.2, 6.4], "3 rows of column 2, without a"),
    ("5.1,a\n4.9,b\n", ":1", [5.1, 4.9], "2 rows of column 1, without a header"),
    ("2nd\n1.5\n2.5\n", ":2nd", [1.5, 2.5], "2 rows under the header '2nd'"),
    ("x,NA\n1,2\n", ":NA", [2], "1 row under the header 'NA'"),
    ("waiting time\n1.5\n2.5\n3.0\n", "", [1.5, 2.5, 3], "3 rows under the header 'waiting time'"),
]
CELLS = [  # quotes, separators, comments, decimal commas
    ('x,y\r\n"a\r\nb, ""c""",1\r\nc,2\r\n', ":y", [1, 2], ""),
    ('"h; cm",w\n1.5,2\n', ":h; cm", [1.5], ""),
    ('1,"a;b"\n2,"c;d"\n', ":1", [1, 2], ""),
    ("sep=;\nx, cm\n1\n3\n", "", [1, 3], ""),
    ("a;b\n1,5;2\n2,25;3\n", ":a", [1.5, 2.25], "2 rows under the header 'a', decimal comma"),
    ('a,b\n"1,5",2\n"2,25",3\n', ":a", [1.5, 2.25], ""),
    ("x\n1,5\n-0,25\n4\n", "", [1.5, -0.25, 4], ""),
    ('5" pipe,1\n6" pipe,2\n', ":2", [1, 2], ""),
    ('a "b,1\nc "d e",2\n', ":2", [1, 2], ""),
    ('"a, b" x\n"c\nd" 2\n', ":x", [2], ""),
    ("length; width\n1\n2\n", "", [1, 2], ""),
    ("a;b,c\n1,2\n3,4\n", ":c", [2, 4], ""),
    ("  7  1\n 8 \t 2\n", ":2", [1, 2], ""),
    ('#one\n\n# two "\nx\n1\n# three, four\n#\n2\n', "", [1, 2], ""),
    ("x,y\n\n1,10\n#N/A,20\n3,30\n", ":y", [10, 20, 30], ""),
    ("x|y\n1|2\n3|4\n", ":y", [2, 4], "2 rows under the header 'y'"),
    ("1,5|2,7\n3,1|4,2\n", ":2", [2.7, 4.2], "2 rows of column 2, without a header, decimal comma"),
    ("| x | y |\n|---|---|\n| 1 | 2 |\n", ":y", [2], "1 row under the header 'y'"),
    (" x | y \n---+---\n 1 | 2 \n", ":x", [1], ""),
    ("sep=^\nx^y\n1^2\n", ":y", [2], ""),
    ("a,b,c\n1,4,7,\n2,5,8,\n", ":b", [4, 5], "2 rows under the header 'b'"),
    ("a,b,\n1,4,\n2,5,\n", ":b", [4, 5], ""),
    ("a;b;;\n1;4\n2;;\n3;6;;\n", ":a", [1, 2, 3], ""),
    ("1\t2\t\n3\t4\t\n", ":2", [2, 4], ""),
    ("a\tb\nr1\t1\t2\nr2\t3\t4\n", ":b", [2, 4], ""),  # of R, without quotes
    (" 0\n0 1.5\n1 2.5\n2 3.5\n", ":0", [1.5, 2.5, 3.5], "3 rows under the header '0'"),
    ('"a","b"\n"r1",1,2\n"r2",3,4\n', ":a", [1, 3], ""),
    ("x\n−1.5\n–2.5\n3\n", "", [-1.5, -2.5, 3], ""),
]
TWELVE = ",".join(map(str, range(1, 13)))
NUMBERS_AS_NAMES = [
    (
        f"year,{TWELVE}\n1990,{TWELVE}\n1991,{TWELVE}\n",
        ":7",
        [7, 7],
        "2 rows under the header '7', 7",
    ),
    (
        '"","1","2"\n"1",5,6\n"2",7,8\n',
        ":2",
        [6, 8],
        "2 rows under the header '2', 2 taken for a name",
    ),
    (
        '"","1","2"\n"a",5,6\n"b",7,8\n',
        ":1",
        [5, 7],
        "2 rows under the header '1', 1 taken for a name",
    ),
    (",1990,1991\na,5,6\nb,7,8\n", ":1991", [6, 8], ""),
    ("name;1;2\nbob;5;6\nann;7;8\n", ":2", [6, 8], "2 rows under the header '2'"),
    ("3,1,2\n0.5,0.6,0.7\n1.5,1.6,1.7\n", ":1", [0.6, 1.6], "2 rows under the header '1', 1 taken"),
    ("1,2,3\n5,6,7\n", ":2", [6], "1 row under the header '2', 2 taken for a name"),
    ("1,2\n5,6\n", ":2", [2, 6], "2 rows of column 2, without a header, 2 taken for the number"),
    (
        "7;1\n8;2\n9;4\n",
        ":1",
        [7, 8, 9],
        "3 rows of column 1, without a header, 1 taken for the number",
    ),
    ("1,2\n2,3\n3,4\n", ":1", [1, 2, 3], "3 rows of column 1, without a header, 1 taken for the"),
    ("year,2019,2020\n1,5.1,6.2\n", ":2", [5.1], "1 row under the header '2019'"),
    ("1\n2\n1\n", ":1", [1, 2, 1], "3 rows without a header"),
]
THOUSANDS = [
    ('x;y\n"1.234,5";1\n987;2\n', ":x", [1234.5, 987], "points between thousands, decimal comma"),
    ("x;y\n1.234;1\n1.234.567;2\n", ":x", [1234, 1234567], "points between thousands"),
    ('x,y\n"1,234.5",1\n950,2\n', ":x", [1234.5, 950], "commas between thousands"),
    ('x,y\n"12,34,567",1\n950,2\n', ":x", [1234567, 950], "commas between thousands"),
    ("x;y\n1 234,5;1\n-950;2\n", ":x", [1234.5, -950], "blanks between thousands, decimal comma"),
    ("x;y\n1\u202f234;1\n950;2\n", ":x", [1234, 950], "blanks between thousands"),
    ("x;y\n1'234.5;1\n950;2\n", ":x", [1234.5, 950], "apostrophes between thousands"),
    ("x;y\n3.599;1\n655;2\n", ":x", [3.599, 655], "3.599 read with a decimal point"),
    ("x;y\n3.5;1\n655;2\n", ":x", [3.5, 655], "header 'x'"),
]
HEADS = [  # titles above the names, units below them
    ("Report of 2024\n\nx,y\n1,2\n3,4\n", ":x", [1, 3], "line 3 left out ('Report of 2024')"),
    ("Report, all\n\nx,y\n1,2\n3,4\n", ":x", [1, 3], "above line 3 left out ('Report')"),
    ("Report, all\nx,y\n1,2\n3,4\n", ":x", [1, 3], "above line 2 left out ('Report')"),
    ("Report;;\nof 2024;;\nx;y;z\n1;2;3\n4;5;6\n", ":z", [3, 6], "above line 3"),
    ("Report of 2024\nyear,1990,1991\n1,5,6\n2,7,8\n", ":1991", [6, 8], "above line 2"),
    ("Report of 2024\n\nx y\n1 2\n3 4\n", ":y", [2, 4], "above line 3"),
    ("Report\n\nx\n1\n2\n", "", [1, 2], "2 rows under the header 'x', what stands above line 3"),
    ("3\nx,y\n1,2\n3,4\n5,6\n", ":y", [2, 4, 6], "above line 2 left out ('3')"),
    ("t,r,m\ns,1,kg\n0,0.5,3\n1,0.7,4\n", ":r", [0.5, 0.7], "line 2 left out: units (s, kg)"),
    ("mass\nkg\n3\n4\n", "", [3, 4], "line 2 left out: units (kg)"),
    ("day,v\n,m s-1\nMonday,3\nTuesday,4\n", ":v", [3, 4], "line 2 left out: units (m s-1)"),
    ("a,b\nNewtons,metres\n3,1\n4,2\n", ":b", [1, 2], "line 2 left out: units (Newtons, metres)"),
]


@pytest.mark.parametrize(
    ("text", "column", "values", "about"), NAMES_OR_DATA + CELLS + NUMBERS_AS_NAMES
)
def test_what_is_meant_is_read(load, text, column, values, about):
    sample = load(text, column)
    assert sample.values.tolist() == values
    assert sample.description.startswith(about)


@pytest.mark.parametrize(("text", "column", "values", "about"), THOUSANDS + HEADS)
def test_what_may_surprise_is_said(load, text, column, values, about):
    sample = load(text, column)
    assert sample.values.tolist() == values
    assert about in sample.description


@pytest.mark.parametrize(
    ("text", "column", "message"),
    [
        ("1\n2\nabc\n", "", "line 3: 'abc' is not a number"),
        ("x\n1\n#three\n2\n", "", "line 3: '#three' is not a number"),
        ("x,y\n1,1_000\n", ":y", "line 2: '1_000' is not a number"),
        ("x,y\n1," + "a" * 1000 + "\n", ":y", r"line 2: 'a{40}\.\.\.' is not a number$"),
        ('x,y\n"a\n\nb",1\nc,d\n', ":y", "line 5: 'd' is not a number"),
        ("sep=;\nx;y\n1;d\n", ":y", "line 3: 'd' is not a number"),
        ("1.2O\n2.5\n", "", "line 1: '1.2O' is not a number; if it is the name .* ':1.2O'"),
        ("a,b\n1,2\n3\n", ":1", "line 3: 1 cells, not 2"),
        ('x,y\n"a b",1\na "b, c",2\n', ":y", "line 3: 3 cells, not 2"),
        ('x,y\n1,2\n"a,3\n4,5\n', ":y", "line 3: do its quotes match"),
        ("1\ninf\n", "", "line 2: a value must be finite, .* not inf"),
        ("# nothing\n", "", "it is empty"),
        ("height\n", "", "it has no numbers under its names"),
        ("0\n3\n2\n", "", "'0' in the first row may be a name, .* with ':1' a number"),
        ("1,?\n2,3.0\n3,4.0\n", ":2", "1 of 3 values are missing or NaN, the first in line 1"),
        ("1,2\n3,4\n", "", "there are 2 columns; .* ':2' .*: 1, 2; if commas are decimal marks"),
        (",a,b\n0,1,2\n1,3,4\n", "", "there are 2 columns; say which, as by ':b' .*: a, b$"),
        ("x,x\n1,2\n", ":x", "there are several columns 'x': take one by its number"),
        ("a;b\n1;2\n", ":c", "there is no column 'c'; choose from a, b$"),
        ("1,5\n2\n3,75\n", "", "line 2: 1 cells, not 2; if commas are decimal marks: decimal=','"),
        (
            "a;b\n1,500;2\n2,250;3\n",
            ":a",
            "line 2: '1,500' may be 1.5 or 1500: say decimal=',' or thousands=',' ",
        ),
        ("x\n1,5\n2,7\n3,9\n", "", "line 2: '1,5' is not a number; if commas"),  # row numbers
        ('a,n\nx,"1,234"\ny,950\n', ":n", "line 2: '1,234' may be 1.234 or 1234: say decimal=','"),
        ("a;b\n3.599;1,5\n7;2,5\n", ":a", "line 2: '3.599' may be 3.599 or 3599: say decimal='.'"),
        (
            "a;b\n1.234;1\n1,234;2\n",
            ":a",
            "line 2: '1.234' may be 1.234 or 1234: say thousands=','",
        ),
        (
            "mass\n3.5 kg\n4 kg\n",
            "",
            "line 2: '3.5 kg' is not a number: strike out 'kg' in the file",
        ),
        ("body mass\n3.5 kg\n4\n", "", "line 2: '3.5 kg' is not a number: strike out 'kg' in the"),
        ("x\n5%\n", "", "line 2: '5%' is not a number: strike out '%'"),
        ("x\n$ 5\n", "", r"line 2: '\$ 5' is not a number: strike out '\$'"),
        ("x\n(1.5)\n2\n", "", r"line 2: '\(1.5\)' is not a number"),
        ("x\nabc\n1\n", "", "line 2: 'abc' is not a number; if the table begins .*: skip_rows=2"),
        (
            "Title\n1,2\n3,4\n5,6\n",
            ":2",
            "there is no column '2'; .*; if there are several, ",
        ),
        (
            "a~b\n1~2\n",
            ":b",
            "there is no column 'b'; choose from a~b; if .* sep=",
        ),
        ("x,y\n1,2,3\n4,5\n6,7\n", ":y", "line 2: 3 cells, not 2"),
    ],
)
def test_what_is_wrong_is_named(load, text, column, message):
    with pytest.raises(ValueError, match=rf"my\.csv: {message}"):
        load(text, column)


@pytest.mark.parametrize(
    ("text", "values", "count", "line"),
    [
        ("x\n1.0\n#N/A\n2.0\n#DIV/0!\n3.0\n", [1, 2, 3], "2 of 5", 3),
        ("#N/A\n1.0\n2.0\n", [1, 2], "1 of 3", 1),
        ("1\n\n2\n \n3\n\n\n", [1, 2, 3], "2 of 5", 2),
        ('x\n1\n""\n2\n', [1, 2], "1 of 3", 3),
        ("1\n<NA>\n-\n.\n?\n2\n", [1, 2], "4 of 6", 2),
    ],
)
def test_missing_is_missing(load, text, values, count, line):
    with pytest.raises(ValueError, match=f"{count} values are .* the first in line {line}; drop_"):
        load(text)
    sample = load(text, drop_missing=True)
    assert sample.values.tolist() == values
    assert f", {count.split()[0]} missing left out" in sample.description


def test_what_pandas_takes_for_missing_is_missing():
    assert {mark.lower() for mark in STR_NA_VALUES} <= MISSING


@pytest.mark.parametrize(
    ("values", "code"),
    [
        ([-999, -999, -999, 1, 2, 2.5], "-999"),
        ([99, 99, 99, 1, 2, 2.5], "99"),
        ([-999, -999, 1, 2, 2.5, 3], None),
        ([-999, -999, -999, -900, 2, 2.5], None),
        ([-998, -998, -998, 1, 2, 2.5], None),
        ([9, 9, 9, 8, 7, 6], None),
        ([-1, -1, -1, 0, 5, 7], None),
        ([999.9, 999.9, 999.9, 1, 2, 2.5], "999.9"),
        ([-999.25, -999.25, -999.25, 1, 2, 2.5], "-999.25"),
        ([-32768, -32768, -32768, 1, 2, 2.5], "-32768"),
        ([9.96921e36, 9.96921e36, 9.96921e36, 1, 2, 2.5], "9.96921e+36"),
        ([-1e20, -1e20, -1e20, 1, 2, 2.5], "-1e+20"),
        ([9.999e20, 9.999e20, 9.999e20, 1, 2, 2.5], "9.999e+20"),
        ([7777, 7777, 7777, 1, 2, 2.5], "7777"),
        ([0.999, 0.999, 0.999, 0.1, 0.2, 0.25], None),
    ],
)
def test_a_code_for_missing_is_mentioned(load, values, code):
    sample = load("\n".join(map(str, values)), ":1")
    assert sample.values.tolist() == values
    told = f", {code} is there 3 times, far from the rest: is it missing?"
    assert sample.description == "6 rows without a header" + (told if code else "")


def test_several_codes_and_such_as_are_below_zero(load):
    told = load("x\n" + "-999\n9999\n" * 3 + "1\n2\n2.5\n").description
    assert "9999 is there 3 times, far from the rest: is it missing?" in told
    assert "-999 is there 3 times" in told
    told = load("x\n" + "-999\n" * 3 + "1\n7000\n20\n").description
    assert load("x\n" + "-8\n-9\n" * 3 + "1\n70\n2\n").description.count("is it missing?") == 2
    assert (
        load("x\n" + "-9\n-1.5\n" * 3 + "1\n70\n2\n").description == "9 rows under the header 'x'"
    )
    assert told.endswith("-999 is there 3 times, where others are above zero: is it missing?")


def test_decimal_marks_that_are_told(load):
    assert load("1,5\n2,25\n3,75\n", decimal=",").values.tolist() == [1.5, 2.25, 3.75]
    assert load("x y\n1,5 2\n2,25 3\n", ":x", decimal=",").values.tolist() == [1.5, 2.25]
    assert load('x,y\n"1,500",2\n', ":x", decimal=",").values.tolist() == [1.5]
    with pytest.raises(ValueError, match=r"line 2: '1.5' is not a number"):
        load("x\n1.5\n", decimal=",")
    with pytest.raises(ValueError, match=r"decimal must be one of '.', ',', not ';'"):
        load("x\n1.5\n", decimal=";")
    assert load("x;y\n3.599;1,5\n7;2,5\n", ":x", thousands=".").values.tolist() == [3599, 7]
    assert load("x;y\n3.599;1,5\n7;2,5\n", ":x", decimal=".").values.tolist() == [3.599, 7]
    assert load("x\n1,234\n950\n", thousands=",").values.tolist() == [1234, 950]
    assert load('x,y\n"1.500",2\n', ":x", decimal=",").values.tolist() == [1500]
    with pytest.raises(ValueError, match=r"line 2: '1,5' is not a number"):
        load("x;y\n1,5;2\n", ":x", thousands=",")
    with pytest.raises(ValueError, match=r"thousands must be one of ',', '.', ' ', .*, not 'x'"):
        load("x\n1.5\n", thousands="x")
    with pytest.raises(ValueError, match=r"decimal and thousands cannot both be ','"):
        load("x\n1.5\n", thousands=",", decimal=",")


def test_lines_to_skip(load, tmp_path):
    text = "a,b\nc,d\n1,2\n3,4\n"
    assert load(text, ":2", skip_rows=2).values.tolist() == [2, 4]
    assert load(text, ":d", skip_rows=1).values.tolist() == [2, 4]
    with pytest.raises(ValueError, match="nothing is below line 9"):
        load(text, ":b", skip_rows=9)
    with pytest.raises(ValueError, match="skip_rows must be an integer of at least 0, not '2'"):
        load(text, skip_rows="2")
    np.save(tmp_path / "my.npy", [1.0, 2.0])
    with pytest.raises(ValueError, match="skip_rows is for texts and sheets"):
        load_sample(tmp_path / "my.npy", skip_rows=1)


def test_encodings(load):
    latin = "höhe\n1\n2\n".encode("latin-1")
    for data, encoding, about in (
        ("höhe\n1\n2\n".encode("utf-16"), None, "'höhe'"),
        ("höhe\n1\n2\n".encode("utf-8-sig"), None, "'höhe'"),
        (latin, None, "'höhe', read as Latin-1"),
        (latin, "latin-1", "'höhe'"),
        ("рост\n1\n2\n".encode("cp1251"), "cp1251", "'рост'"),
    ):
        assert load(data, encoding=encoding).description == f"2 rows under the header {about}"
    assert load("x\n1\n2\n".encode("utf-32")).values.tolist() == [1, 2]
    for data, message in (
        ("x\n1\n".encode("utf-16-le"), "it has zeros in it; .*encoding='utf-16-le' may .*ENCODING"),
    ):
        with pytest.raises(ValueError, match=f"my.csv: it is not text.*{message}"):
            load(data)
    for data, message in (
        (gzip.compress(b"x\n1\n"), "it looks like a .gz file: name it so"),
        (b"PK\x03\x04", "it looks like a .zip or .xlsx file: name it so"),
    ):
        with pytest.raises(
            ValueError, match=f"my.csv: it is not a .csv file of numbers: {message}"
        ):
            load(data)
    for data, encoding in ((latin, "utf-8"), (latin, "utf-99"), (b"\xff\xfe\x00", None)):
        with pytest.raises(ValueError, match=r"my.csv: it is not text: .*; encoding=... may name"):
            load(data, encoding=encoding)


def test_packed_files(tmp_path):
    def zipped(data):
        with zipfile.ZipFile(tmp_path / "packed", "w") as folder:
            folder.writestr("my.txt", data)
        return (tmp_path / "packed").read_bytes()

    packs = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress, "zip": zipped}
    for suffix, pack in packs.items():
        path = tmp_path / f"my.csv.{suffix}"
        path.write_bytes(pack(b"x,y\n1,2\n3,4\n"))
        assert load_sample(f"{path}:y").values.tolist() == [2, 4]
        path.write_bytes(b"no")
        with pytest.raises(ValueError, match=rf"my.csv.{suffix}: it is not a .csv.{suffix} file"):
            load_sample(path)


def test_folders_of_others(tmp_path):
    def packed(*names, name="my.csv.zip"):
        with zipfile.ZipFile(tmp_path / name, "w") as folder:
            for member in names:
                folder.writestr(member, "x\n1\n2\n")
        return tmp_path / name

    def mark(path, local, central, value):
        data = bytearray(path.read_bytes())
        for signature, offset in ((b"PK\3\4", local), (b"PK\1\2", central)):
            data[data.find(signature) + offset] = value
        path.write_bytes(data)

    for names in (
        ["my.csv", "__MACOSX/._my.csv"],
        ["data/", "data/my.csv", "data/.DS_Store"],
        ["my.csv", "README.md"],
    ):
        assert load_sample(packed(*names)).values.tolist() == [1, 2]
    assert load_sample(packed("a/my.tsv", "__MACOSX/a/._my.tsv", name="my.zip")).values[1] == 2
    for names, message in (
        (["a.csv", "b.csv"], "it holds 2 files, a.csv, b.csv: pack one alone"),
        (["data/"], "it holds no file that ends in .*: pack one alone"),
    ):
        with pytest.raises(ValueError, match=message):
            load_sample(packed(*names))
    mark(packed("my.csv"), 6, 8, 1)
    with pytest.raises(ValueError, match=r"'my.csv' is encrypted, password .*: unpack it"):
        load_sample(tmp_path / "my.csv.zip")
    mark(packed("my.csv"), 8, 10, 9)
    with pytest.raises(ValueError, match=r"my.csv is packed by deflate64, which Python cannot"):
        load_sample(tmp_path / "my.csv.zip")


def test_sheets(tmp_path):
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    lists, data = book.active, book.create_sheet("Data")
    lists.title, lists.sheet_state = "lists", "hidden"
    for k in range(20):
        lists.append([k if k else "x"])
        data.append([None, 100 + k, k] if k else ["Report of 2024"])
        if k == 0:
            data.append([None, "x", "y"])
    book.save(tmp_path / "my.xlsx")
    sample = load_sample(f"{tmp_path}/my.xlsx:x")
    assert sample.values.tolist() == [*range(101, 120)]
    assert (
        "under the header 'x', sheet 'Data', not 'lists' (hidden), what stands"
        in sample.description
    )
    assert sample.description.endswith("above line 2 left out ('Report of 2024')")
    for column in ("lists!x", "lists!"):
        assert load_sample(f"{tmp_path}/my.xlsx:{column}").values.tolist() == [*range(1, 20)]
    with pytest.raises(ValueError, match=r"no column 'z'; .* of sheet 'Data', .*sheet!column"):
        load_sample(f"{tmp_path}/my.xlsx:z")
    data.auto_filter.ref, data.row_dimensions[4].hidden = "B2:C20", True
    data.column_dimensions["C"].hidden = True
    book.save(tmp_path / "my.xlsx")
    told = load_sample(f"{tmp_path}/my.xlsx:x").description
    assert "1 hidden or filtered row with the others, hidden columns from C on" in told
    (tmp_path / "my.xlsx").write_bytes(b"\xd0\xcf\x11\xe0")
    with pytest.raises(ValueError, match="it looks like an Excel file, old or locked"):
        load_sample(tmp_path / "my.xlsx")


def test_an_index_is_taken_by_its_name(tmp_path):
    pytest.importorskip("pyarrow")
    table = pd.DataFrame({"a": [1.0, 2.0], "b": [3.0, 4.0], "c": [5.0, 6.0]})
    table.set_index("a")[["b"]].to_parquet(tmp_path / "my.parquet")
    for column, values in (("", [3, 4]), (":b", [3, 4]), (":1", [3, 4]), (":a", [1, 2])):
        assert load_sample(f"{tmp_path}/my.parquet{column}").values.tolist() == values
    table.rename_axis("a").to_parquet(tmp_path / "my.parquet")  # a column has that name, too
    assert load_sample(f"{tmp_path}/my.parquet:a").values.tolist() == [1, 2]
    table.set_index(["a", "b"]).to_parquet(tmp_path / "my.parquet")
    assert load_sample(f"{tmp_path}/my.parquet:b", weights="a").values.tolist() == [3, 4]


@pytest.mark.parametrize(
    ("array", "column", "found"),
    [
        (np.array([1.0, 2.0]), "", [1, 2]),
        (np.array([[1, 5], [2, 6]]), ":2", [5, 6]),
        (np.zeros((2, 2, 2)), "", r"an array of shape \(2, 2, 2\) is not one column"),
        (np.array(["a"]), "", "does not hold an array of real numbers"),
        (np.array([1.0, np.nan]), "", "1 of 2 values are missing or NaN, the first in line 2"),
        (np.array([None]), "", "is not a .npy file of numbers"),
    ],
)
def test_numpy_files(tmp_path, array, column, found):
    np.save(tmp_path / "my.npy", array, allow_pickle=True)
    if isinstance(found, list):
        assert load_sample(f"{tmp_path}/my.npy{column}").values.tolist() == found
    else:
        with pytest.raises(ValueError, match=found):
            load_sample(tmp_path / "my.npy")


def test_excel_and_parquet(tmp_path, monkeypatch):
    pytest.importorskip("openpyxl")
    pytest.importorskip("pyarrow")
    table = pd.DataFrame({"name": ["a", "b", "c"], "x": [1.5, None, 2.0], "n": [1, 2, 3]})
    table.to_parquet(tmp_path / "my.parquet")
    table.to_excel(tmp_path / "my.xlsx", index=False)
    for name, line, engine in (("my.parquet", 2, "pyarrow"), ("my.xlsx", 3, "openpyxl")):
        sample = load_sample(f"{tmp_path}/{name}:x", drop_missing=True)
        assert sample.values.tolist() == [1.5, 2]
        assert sample.description == "2 rows under the header 'x', 1 missing left out"
        assert load_sample(f"{tmp_path}/{name}:3").values.tolist() == [1, 2, 3]
        for column, message in (
            (":x", f"1 of 3 values .* the first in line {line};"),
            (":name", f"line {line - 1}: 'a' is not a number"),
            ("", "there are 3 columns; say which, as by ':n' .*: name, x, n"),
        ):
            with pytest.raises(ValueError, match=f"{name}: {message}"):
                load_sample(f"{tmp_path}/{name}{column}")
        with monkeypatch.context() as without:
            without.setitem(sys.modules, engine, None)
            with pytest.raises(ValueError, match=f"it needs a package .* not there: .*{engine}"):
                load_sample(f"{tmp_path}/{name}:x")


def test_weights(load, tmp_path):
    sample = load("x,w\n1,2\n2,0\n3,\n4,0.5\n", weights="w", drop_missing=True)
    assert (sample.values.tolist(), sample.weights.tolist()) == ([1, 4], [2, 0.5])
    about = "2 rows under the header 'x', 1 missing left out, 1 of weight zero left out"
    assert sample.description == about
    sample = load_sample(f"{tmp_path}/my.csv:w", weights=1, drop_missing=True)
    assert (sample.values.tolist(), sample.weights.tolist()) == ([2, 0, 0.5], [1, 2, 4])
    assert load("x\n1\n2\n").weights is None
    for wrong, message in (
        ("x,w\n1,2\n2,-1\n", "line 3: .* not 2 with weight -1"),
        ("x,w\n1,2\n2,inf\n", "line 3: .* with weight inf"),
        ("x,w\n1,2\n2,b\n", "line 3: 'b' is not a number"),
        ("x,w\n1,2\n2,\n", "1 of 2 values are missing or NaN, the first in line 3"),
        ("x,y,w\n1,2,3\n", "there are 2 columns; say which, as by ':y' .*: x, y"),
        ("w\n1\n", "there are 0 columns; say which"),
        ("x,v\n1,2\n", "there is no column 'w'; choose from x, v"),
    ):
        with pytest.raises(ValueError, match=message):
            load(wrong, weights="w")


def test_names_of_files(tmp_path):
    with pytest.raises(ValueError, match=r"there is no file '.*none.csv'"):
        load_sample(tmp_path / "none.csv")
    with pytest.raises(ValueError, match=r"'my.xls' is not a .csv, .* .xlsx or .parquet file, or"):
        load_sample("my.xls")
    assert is_source(r"C:\a\b.CSV:height")
    assert not is_source("laplace_mixture")
    assert [str(part) for part in split_source("a.dat.GZ:x.csv")] == ["a.dat.GZ", "x.csv"]
