"""What README and the pages of docs/ say: commands run as they stand, links lead there, numbers."""

import importlib.util
import re
import shutil
import subprocess
import sys
import tomllib
from urllib.parse import quote

import nbformat
import numpy as np
import pytest

from conftest import ROOT

PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
}
NOTEBOOKS = {path.name: nbformat.read(path, 4).cells for path in ROOT.glob("*.ipynb")}
MARKDOWN = PAGES | {
    name: "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    for name, cells in NOTEBOOKS.items()
}
README, TEXT = PAGES["README.md"], "\n".join(PAGES.values())
NUMBER = re.compile(r"(?<![\w.])[-−]?\d+(?:\.\d+)?(?:e-?\d+)?(?![\w])")


def blocks(page, language=""):
    found = re.findall(r"^```(\w*)\n(.*?)^```$", PAGES[page], flags=re.DOTALL | re.MULTILINE)
    return [text for name, text in found if name == language]


def run(folder, monkeypatch, *arguments):
    """Python in a folder that has a notebook and finds the package, warnings as errors."""
    (folder / "ODE.ipynb").write_bytes((ROOT / "ODE.ipynb").read_bytes())
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("MPLBACKEND", "Agg")
    command = [sys.executable, "-W", "error", *arguments]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout


def test_own_data_examples_run(tmp_path, monkeypatch):
    np.savetxt(tmp_path / "my_data.csv", np.random.default_rng(0).gamma(4, size=300))
    printed = run(tmp_path, monkeypatch, "-c", "\n".join(blocks("docs/own-data.md", "python")))
    assert "nats before" in printed
    assert (tmp_path / "my_density.png").exists()
    (median,) = re.findall(r"^\d\.\d+$", printed, flags=re.MULTILINE)
    assert abs(float(median) - 2 * np.log(2)) < 0.4, "four standard errors"
    assert (tmp_path / "figures" / "my_density.pdf").exists()


def test_readme_example_runs(tmp_path, monkeypatch):
    (code,) = blocks("README.md", "python")
    heights = np.random.default_rng(0).normal(170, 8, size=300)
    np.savetxt(tmp_path / "data.csv", heights, header="height", comments="")
    assert "data, height: 300" in run(tmp_path, monkeypatch, "-c", code)


def test_sweep_example_runs(tmp_path, monkeypatch):
    (text,), (code,) = blocks("docs/sweeps.md", "toml"), blocks("docs/sweeps.md", "python")
    small = text.replace("n_iterations = 300", "n_iterations = 1\nn_train = 50\nn_test = 10")
    small = small.replace("[0, 1, 2]", "0").replace("[10, 100]", "[1, 2]")
    small = small.replace('["gaussian", "laplace_mixture"]', '"gaussian"')
    assert small.count("\n") == text.count("\n") + 2
    (tmp_path / "grid.toml").write_text(small, encoding="utf-8")
    assert "`python -m dlutils.tools.sweep grid.toml` runs the 48" in PAGES["docs/sweeps.md"]
    done = run(tmp_path, monkeypatch, "-m", "dlutils.tools.sweep", "grid.toml")
    assert "8 runs, 0 failed: grid.jsonl" in done
    run(tmp_path, monkeypatch, "-c", code)


def test_likelihood_example_runs(tmp_path, monkeypatch):
    page = "docs/check-a-likelihood.md"
    (code,) = blocks(page, "python")
    printed = run(tmp_path, monkeypatch, "-c", code)
    (mass,) = re.findall(r"PROBLEM: The mass is (\S+), not 1", printed)
    assert f"the mass is {mass}, and that is the standard deviation" in PAGES[page]
    assert printed.count("PROBLEM") == 2


def colab_cell(folder, answer, times=1):
    """Run README's cell, all but the installation, so often in one session that begins there."""
    (cell,) = (block for block in blocks("README.md") if "git clone" in block)
    *lines, install = cell.splitlines()
    assert install == "%pip install -r requirements.txt"
    run = f"get_ipython().run_cell({chr(10).join(lines)!r}).raise_error()\n" * times
    where = "import importlib.util; print(importlib.util.find_spec('dlutils').origin)"
    command = [sys.executable, "-m", "IPython", "--colors=NoColor", "-c", run + where]
    return subprocess.run(command, cwd=folder, input=answer, capture_output=True, text=True)


def test_colab_cell_finds_the_package(tmp_path):
    """A notebook opened elsewhere imports what stands in the clone, however often it is run."""
    address, here = tmp_path / "address", tmp_path / "here"
    here.mkdir()
    shutil.copytree(ROOT / "dlutils", address / "dlutils")
    shutil.copy(ROOT / "requirements.txt", address)
    git = ["git", "-C", str(address), "-c", "user.name=a", "-c", "user.email=a@example.org"]
    for command in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "--message", "All"]):
        subprocess.run([*git, *command], check=True)
    found = str(here / "densities" / "dlutils")
    for answer, times in ((f"{address}\n", 2), ("", 1)):  # asks once, and not after a restart
        done = colab_cell(here, answer, times)
        assert found in done.stdout, done.stderr
    assert not (here / "densities" / "densities").exists()
    assert (here / "densities" / "requirements.txt").exists()


@pytest.mark.parametrize(
    ("answer", "message"),
    [(" \n", "No address: run this"), ("/nowhere\n", "No such file.*densities")],
)
def test_colab_cell_stops_without_a_clone(answer, message, tmp_path):
    done = colab_cell(tmp_path, answer)
    assert done.returncode
    assert re.search(message, done.stdout + done.stderr)


def test_every_example_has_a_test():
    """Those of extend.md are run by tests of their own."""
    tested = {"README.md", "docs/own-data.md", "docs/sweeps.md", "docs/extend.md"}
    tested |= {"docs/check-a-likelihood.md"}
    assert {page for page in PAGES if blocks(page, "python")} <= tested
    assert README.count("papermill ODE.ipynb") == 1, "run by test_configurations.py"


def test_commands_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for command in re.findall(r"(?:`|^)make (?:-C \w+ )?([a-z][a-z-]*)", TEXT, flags=re.MULTILINE):
        assert re.search(rf"^{command}:", makefile, flags=re.MULTILINE), command
    for module in re.findall(r"python -m ((?:dlutils|benchmarks)[\w.]*)", TEXT):
        assert importlib.util.find_spec(module), module
    for file in re.findall(r"pip install -r (\S+)", TEXT):
        assert (ROOT / file).exists(), file
    for figure in re.findall(r"\\includegraphics\S*{(.*?)}", TEXT):
        assert (ROOT / f"{figure}.pdf").exists(), figure


def anchors(name):
    """The names that Jupyter gives the headings of a notebook, and GitHub those of a page."""
    text = re.sub(r"^```.*?^```$", "", MARKDOWN[name], flags=re.DOTALL | re.MULTILINE)
    found = re.sub(r"[`*]", "", "\n".join(re.findall(r"^#+ +(.*?) *$", text, re.MULTILINE)))
    if name in NOTEBOOKS:
        return {quote(h.replace(" ", "-"), safe="?/:@!$&'()*+,;=") for h in found.splitlines()}
    return set(re.sub(r"[^\w\- \n]", "", found.lower()).replace(" ", "-").splitlines())


@pytest.mark.parametrize("page", MARKDOWN)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", MARKDOWN[page]):
        if target.startswith("https://"):
            continue
        file, _, anchor = target.partition("#")
        path = ((ROOT / page).parent / file).resolve() if file else ROOT / page
        assert path.exists(), target
        if anchor and path.suffix != ".html":  # what stands there is the page's state: test_page.py
            assert anchor in anchors(path.relative_to(ROOT).as_posix()), target


def questions():
    """Number, notebook, anchor and answer of each question in README's table."""
    row = r"^\| \[(\d\.\d)\]\((\w+\.ipynb)#(\S+)\) \|[^|]*\| (.*) \|$"
    return re.findall(row, README, flags=re.MULTILINE)


def section(notebook, number):
    """What a reader sees of a question: its Markdown cells and the text of its outputs."""
    text, inside = [], False
    for cell in NOTEBOOKS[notebook]:
        if cell.cell_type == "markdown" and (found := re.search(r"^## (\S*)", cell.source, re.M)):
            inside = found[1] == number
        if inside:
            text += [cell.source] if cell.cell_type == "markdown" else []
            for output in cell.get("outputs", []):
                text.append(output.get("text") or output.get("data", {}).get("text/markdown", ""))
    return "\n".join(text)


def missing(quoted, source):
    """The numbers of a text, outside formulas, that no number of another comes near.

    Near is within a unit of the last digit; zeros that end an integer are no digits.
    """
    known = [float(n.replace("−", "-")) for n in NUMBER.findall(source)]
    wrong = []
    for text in NUMBER.findall(re.sub(r"\$.*?\$", "", quoted)):
        number = text.replace("−", "-")
        digits = number.partition(".")[2]
        zeros = 0 if digits else len(number) - len(number.rstrip("0"))
        unit = 10.0 ** (zeros - len(digits))
        if not any(abs(value - float(number)) <= unit for value in known):
            wrong.append(text)
    return wrong


def test_every_answer_quotes_the_notebook():
    numbers = [f"1.{k}" for k in range(1, 6)] + [f"2.{k}" for k in range(1, 7)]
    assert [row[0] for row in questions()] == numbers
    for number, notebook, anchor, answer in questions():
        assert anchor.startswith(f"{number}-")
        assert notebook == {"1": "ODE.ipynb", "2": "SDE.ipynb"}[number[0]]
        assert len(answer) > 40
        assert not missing(answer, section(notebook, number)), number


def test_readme_quotes_the_benchmarks():
    (text,) = re.findall(r"^## Benchmarks\n(.*?)^!\[", README, flags=re.DOTALL | re.MULTILINE)
    assert not missing(text, PAGES["docs/benchmarks.md"].replace(",", ""))


def test_a_wrong_number_is_missing():
    source = "| euler | 1.0029 | 657 | -0.7270 |"
    assert not missing("mass 1.003, −0.727, 660 ms, $T=5$", source)
    assert missing("mass 1.0041, −0.73, 700 ms, 0.7270", source) == ["1.0041", "0.7270"]


def test_licence_and_citation_agree_with_the_package():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    said = dict(re.findall(r"^([\w-]+): (.+)$", citation, flags=re.MULTILINE))
    assert (said["version"], said["license"]) == (project["version"], project["license"])
    assert README.startswith(f"# {said['title']}\n")
    licence = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert licence.startswith("MIT License\n")
    (authors,) = re.findall(r"^Copyright \(c\) \d{4} (.+)$", licence, flags=re.MULTILINE)
    assert f"- name: {authors}\n" in citation
    assert "[CITATION.cff](CITATION.cff)" in README
