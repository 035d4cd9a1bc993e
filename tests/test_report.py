import re

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from dlutils import report

ROWS = [{"net": "mlp_2", "KL, %": 0.12345678, "n": 12345}, {"net": "a & b", "KL, %": 2, "n": 4.5}]


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(report, "_entries", {})
    monkeypatch.setattr(report, "_numbers", {})
    yield tmp_path / "figures"
    plt.close("all")


def test_files_list_and_latex(folder):
    report.figure(plt.figure(), "A_three", "", "Overwritten.")
    report.figure(plt.figure(figsize=(3.4, 2)), "A_one", "1.3", "A density, $p_t$ & more.")
    shown = report.table(ROWS, "A_two", "1.4", "A table | of two rows.", show=ROWS[:1]).data
    report.figure(plt.figure(figsize=(7, 2)), "A_three", "", "Wide.")
    report.figure(plt.figure(), "B_other", "2.3", "Another notebook's.")
    assert "| mlp_2 | 0.1235 | 12345 |" in shown
    assert "a & b" not in shown
    listed = report.contents("A").data.splitlines()[2:]
    assert listed == [
        '| 1.3 | <img src="figures/A_one.png" alt="A_one" width="140"> | `figures/A_one` .pdf, png '
        "| A density, $p_t$ & more. |",
        r"| 1.4 | table | `figures/A_two` .tex, md, csv | A table \| of two rows. |",
        '|  | <img src="figures/A_three.png" alt="A_three" width="140"> | `figures/A_three` .pdf, '
        "png | Wide. |",
    ], "a cell that ran again has its figure once, at the end"
    latex = (folder / "A.tex").read_text(encoding="utf-8")
    assert latex.index("A_one") < latex.index("A_two") < latex.index("A_three")
    assert r"\caption{Task 1.3. A density, $p_t$ \& more.}" in latex
    assert r"\includegraphics[width=\columnwidth]{\figures/A_one.pdf}" in latex
    assert "\\begin{figure*}" in latex
    assert r"\caption{Wide.}" in latex
    assert sorted(path.name for path in folder.glob("A*")) == [
        "A.tex", "A_one.pdf", "A_one.png", "A_three.pdf", "A_three.png",
        "A_two.csv", "A_two.md", "A_two.tex",
    ]  # fmt: skip
    assert (folder / "A_two.csv").read_text() == 'net,"KL, %",n\nmlp_2,0.1235,12345\na & b,2,4.5\n'
    assert (folder / "A_two.tex").read_text().splitlines() == [
        r"\begin{tabular}{lrr}",
        r"\toprule",
        r"net & KL, \% & n \\",
        r"\midrule",
        r"mlp\_2 & 0.1235 & 12345 \\",
        r"a \& b & 2 & 4.5 \\",
        r"\bottomrule",
        r"\end{tabular}",
    ]


def test_a_folder_that_cannot_be_written_to_is_reported(folder, capsys):
    folder.write_text("in the way")
    report.figure(plt.figure(), "A_one", "1.3", "A density.")
    assert "| 1 |" in report.table([{"n": 1}], "A_table", "1", "One row.").data
    assert "A density." in report.contents("A").data
    report.numbers("A", {"mass": 1.0})
    output = capsys.readouterr().out
    for name in ("A_one", "A_table", "A", "A_numbers"):
        assert re.search(rf"^{name} is not in figures/: ", output, re.MULTILINE)


@pytest.mark.parametrize(
    ("text", "latex"),
    [
        (r"A\$_\$b: rk4, $T=100$.", r"A\$\_\$b: rk4, $T=100$."),
        (r"50 % & #1 of \$5", r"50 \% \& \#1 of \$5"),
        (r"$\sigma_*$ and \$", r"$\sigma_*$ and \$"),
    ],
)
def test_dollars_of_a_name_are_no_mathematics(text, latex):
    assert report.escape(text) == latex


def test_numbers_are_collected_and_overwritten_by_name(folder):
    report.numbers("A", {"mass": 1.00241234, "steps": 3})
    report.numbers("A", {"KL (SDE)": torch.tensor(0.5), "mass": np.float64(2), "n": np.int64(4)})
    report.numbers("A", {"ms": 1.23456789}, measured=True)
    report.numbers("B", {"mass": 7})
    assert {path.name: path.read_text() for path in folder.iterdir()} == {
        "A_numbers.csv": "name,value\nmass,2\nsteps,3\nKL (SDE),0.5\nn,4\n",
        "A_measured.csv": "name,value\nms,1.23457\n",
        "B_numbers.csv": "name,value\nmass,7\n",
    }


@pytest.mark.parametrize("values", [{"a | b": 1}, {"mass": None}, {"mass": torch.ones(2)}])
def test_what_is_no_named_number_is_refused(values, folder):
    with pytest.raises(AssertionError, match=re.escape(repr(*values))):
        report.numbers("A", values)
    assert not folder.exists()
