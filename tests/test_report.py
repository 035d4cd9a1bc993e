import re

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from IPython.display import Markdown

from dlutils import report

ROWS = [{"net": "mlp_2", "KL, %": 0.12345678, "n": 3}, {"net": "a & b", "KL, %": 2.0, "n": 4}]


@pytest.fixture(autouse=True)
def empty(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(report, "_entries", {})
    monkeypatch.setattr(report, "_numbers", {})
    yield
    plt.close("all")


def test_files_list_and_latex(tmp_path):
    report.figure(plt.figure(figsize=(3.4, 2)), "A_one", "1.3", "A density, $p_t$ & more.")
    shown = report.table(ROWS, "A_table_two", "1.4", "A table | of two rows.")
    report.figure(plt.figure(figsize=(7, 2)), "A_three", "", "Wide.")
    report.figure(plt.figure(), "B_other", "2.3", "Another notebook's.")
    assert isinstance(shown, Markdown)
    assert "| mlp_2 | 0.1235 | 3 |" in shown.data
    written = sorted(path.name for path in (tmp_path / "figures").iterdir())
    assert [name for name in written if name.startswith("A_")] == [
        "A_one.pdf", "A_one.png", "A_table_two.csv", "A_table_two.md", "A_table_two.tex",
        "A_three.pdf", "A_three.png",
    ]  # fmt: skip
    listed = report.contents("A").data
    assert (
        '| 1.3 | <img src="figures/A_one.png" alt="A_one" width="140"> | `figures/A_one` .pdf'
        in listed
    )
    assert (
        r"| 1.4 | table | `figures/A_table_two` .tex, md, csv | A table \| of two rows." in listed
    )
    assert "B_other" not in listed
    latex = (tmp_path / "figures" / "A.tex").read_text(encoding="utf-8")
    assert latex.index("A_one") < latex.index("A_table_two") < latex.index("A_three")
    assert r"\caption{Task 1.3. A density, $p_t$ \& more.}" in latex
    assert r"\includegraphics[width=\columnwidth]{\figures/A_one.pdf}" in latex
    assert "\\begin{figure*}" in latex
    assert r"\caption{Wide.}" in latex


def test_table_as_latex_and_csv(tmp_path):
    report.table(ROWS, "A_table", "1", "Two rows.")
    assert (tmp_path / "figures" / "A_table.csv").read_text() == (
        'net,"KL, %",n\nmlp_2,0.1235,3\na & b,2,4\n'
    )
    assert report.latex_table(ROWS).splitlines() == [
        r"\begin{tabular}{lrr}",
        r"\toprule",
        r"net & KL, \% & n \\",
        r"\midrule",
        r"mlp\_2 & 0.1235 & 3 \\",
        r"a \& b & 2 & 4 \\",
        r"\bottomrule",
        r"\end{tabular}",
    ]


def test_the_files_have_all_rows_and_the_display_a_few(tmp_path):
    shown = report.table(ROWS, "A_table", "1", "Two rows.", show=ROWS[1:])
    assert "a & b" in shown.data
    assert "mlp_2" not in shown.data
    assert (tmp_path / "figures" / "A_table.csv").read_text().count("\n") == 3


def test_a_cell_that_runs_again_lists_its_figure_once():
    for caption in ("First.", "Second."):
        report.figure(plt.figure(), "A_one", "1.3", caption)
    listed = report.contents("A").data
    assert "First." not in listed
    assert listed.count("Second.") == 1


def test_a_folder_that_cannot_be_written_to_is_reported(tmp_path, capsys):
    (tmp_path / "figures").write_text("in the way")
    report.figure(plt.figure(), "A_one", "1.3", "A density.")
    assert "| 1 |" in report.table([{"n": 1}], "A_table", "1", "One row.").data
    assert "A density." in report.contents("A").data
    report.numbers("A", {"mass": 1.0})
    output = capsys.readouterr().out
    assert "A_numbers is not in figures/: " in output
    assert "A_one is not in figures/: " in output
    assert "A_table is not in figures/: " in output


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


def test_numbers_are_collected_and_overwritten_by_name(tmp_path):
    path = tmp_path / "figures" / "A_numbers.csv"
    report.numbers("A", {"mass": 1.00241234, "steps": 3})
    assert path.read_text() == "name,value\nmass,1.00241\nsteps,3\n"
    report.numbers("A", {"KL (SDE)": torch.tensor(0.5), "mass": np.float64(2), "n": np.int64(4)})
    assert path.read_text() == "name,value\nmass,2\nsteps,3\nKL (SDE),0.5\nn,4\n"
    report.numbers("A", {"ms": 1.5}, measured=True)
    report.numbers("B", {"mass": 7})
    assert path.read_text().count("\n") == 5
    assert (tmp_path / "figures" / "A_measured.csv").read_text() == "name,value\nms,1.5\n"
    assert (tmp_path / "figures" / "B_numbers.csv").read_text() == "name,value\nmass,7\n"


@pytest.mark.parametrize("values", [{"a | b": 1}, {"mass": None}, {"mass": torch.ones(2)}])
def test_what_is_no_named_number_is_refused(values, tmp_path):
    with pytest.raises(AssertionError, match=re.escape(repr(*values))):
        report.numbers("A", values)
    assert not (tmp_path / "figures").exists()
