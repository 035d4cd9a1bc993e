import numpy as np
import pytest

from dlutils.datasets import Dataset
from dlutils.samples import is_source, read_sample

TEXTS = {
    "one column": "1\n2.5\n-3e-1\n",
    "a name": "height\n1\n2.5\n-0.3\n",
    "comments and blank lines": "# cm\n\n1\n2.5 \n# more\n-0.3\n",
    "byte order mark": "\ufeff1\n2.5\n-0.3\n",
    "quoted": '"height"\n"1"\n"2.5"\n"-0.3"\n',
}
TABLES = {
    "commas": "a,b\n7,1\n8,2.5\n9,-0.3\n",
    "semicolons": "a;b\n7;1\n8;2.5\n9;-0.3\n",
    "tabs": "a\tb\n7\t1\n8\t2.5\n9\t-0.3\n",
    "blanks": "a b\n7 1\n8  2.5\n9 -0.3\n",
    "no names": "7,1\n8,2.5\n9,-0.3\n",
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_one_column(tmp_path, text):
    (tmp_path / "my.csv").write_text(text, encoding="utf-8")
    assert read_sample(tmp_path / "my.csv").tolist() == [1, 2.5, -0.3]


@pytest.mark.parametrize("text", TABLES.values(), ids=TABLES)
def test_one_of_several_columns(tmp_path, text):
    (tmp_path / "my.txt").write_text(text, encoding="utf-8")
    assert read_sample(f"{tmp_path}/my.txt:2").tolist() == [1, 2.5, -0.3]
    if text.startswith("a"):
        assert read_sample(f"{tmp_path}/my.txt:b").tolist() == [1, 2.5, -0.3]
    with pytest.raises(ValueError, match=r"my.txt has 2 columns; say which, as in 'my.txt:[b2]'"):
        read_sample(tmp_path / "my.txt")
    with pytest.raises(ValueError, match=r"has no column 'c'; choose from [a1], [b2]"):
        read_sample(f"{tmp_path}/my.txt:c")


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
def test_what_is_wrong_is_named(tmp_path, text, message):
    (tmp_path / "my.csv").write_text(text, encoding="utf-8")
    source = tmp_path / "my.csv" if "," not in text else f"{tmp_path}/my.csv:1"
    with pytest.raises(ValueError, match=message):
        read_sample(source)


def test_missing_values_are_dropped_when_told_to(tmp_path):
    (tmp_path / "my.csv").write_text("1\nnan\nNA\n2\n")
    assert read_sample(tmp_path / "my.csv", drop_missing=True).tolist() == [1, 2]


def test_numpy_files(tmp_path):
    np.save(tmp_path / "my.npy", np.array([1.0, 2.0]))
    assert read_sample(tmp_path / "my.npy").tolist() == [1, 2]
    np.save(tmp_path / "my.npy", np.array([[1, 5], [2, 6]]))
    assert read_sample(f"{tmp_path}/my.npy:2").tolist() == [5, 6]
    for wrong, message in (
        (np.zeros((2, 2, 2)), r"shape \(2, 2, 2\), not one column"),
        (np.array(["a"]), "does not hold an array of real numbers"),
        (np.array([1.0, np.nan]), "1 of 2 values are missing or NaN, the first in line 2"),
        (np.array([None]), "is not a file of numbers"),
    ):
        np.save(tmp_path / "my.npy", wrong, allow_pickle=True)
        with pytest.raises(ValueError, match=message):
            read_sample(tmp_path / "my.npy")


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(ValueError, match=r"there is no file '.*none.csv'"):
        read_sample(tmp_path / "none.csv")
    with pytest.raises(ValueError, match=r"'my.xlsx' is not a .csv, .tsv, .txt, .dat or .npy file"):
        read_sample("my.xlsx")
    (tmp_path / "my.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="is not text"):
        read_sample(tmp_path / "my.csv")
    assert is_source("a/b.csv")
    assert is_source(r"C:\a\b.CSV:height")
    assert not is_source("laplace_mixture")


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
def test_the_name_of_one_column_may_have_blanks(tmp_path, name):
    (tmp_path / "a.csv").write_text("waiting time\n1.5\n2.5\n3.0\n")
    assert list(read_sample(f"{tmp_path / 'a.csv'}{name}")) == [1.5, 2.5, 3.0]
