"""Pages and slides: nothing from a network, nothing deformed, nothing that leads nowhere."""

import re
from urllib.parse import unquote

import nbformat
import pytest
from bs4 import BeautifulSoup
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from conftest import ROOT
from dlutils.tools import publish

COMMITTED = sorted(path.stem for path in ROOT.glob("*.ipynb"))
PIXEL = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJg"
    "gg=="
)


def read(text):
    return BeautifulSoup(text, "html.parser")


def from_network(page):
    """Addresses that a browser would fetch on its own; links are followed by people."""
    found = [tag.get("src") or tag.get("href") for tag in page.select("[src], link[href]")]
    for style in page.select("style"):
        found += re.findall(r"(?:@import|url\()\s*[\"']?([^\"')\s;]*)", style.get_text())
    for script in page.select("script"):
        found += re.findall(r"(?:import|require)\w*\s*\(?\s*[\"'\[]+([^\"']*)", script.get_text())
    return [address for address in found if not address.startswith(("data:", "#"))]


@pytest.fixture(scope="module")
def pages():
    """The committed notebooks, exported."""
    notebooks = {name: nbformat.read(ROOT / f"{name}.ipynb", 4) for name in COMMITTED}
    return {name: read(publish.page(notebooks[name], ROOT, name)) for name in COMMITTED}


@pytest.fixture
def small(tmp_path):
    """A notebook with one of everything."""
    figure = new_output(
        "display_data",
        {"image/png": PIXEL + "\n", "text/plain": "<Figure>"},
        metadata={"alt": 'Of "T"', "caption": "Of $T=10$.", "name": "ODE_small"},
    )
    slide = {"slideshow": {"slide_type": "slide"}}
    goes_on = {"slideshow": {"slide_type": "-"}}
    return new_notebook(
        cells=[
            new_markdown_cell("# Title\n\nsee [there](#The-next), [ODE](ODE.ipynb#Data)"),
            new_markdown_cell(
                "## The next\n\n| given | set |\n|---|---|\n"
                "| $p(y_1\\mid x_1)$ | $\\{x_1,x_2\\}$, |\n\ncosts \\$5 to \\$6, `$a_b$`"
            ),
            new_code_cell("secret = 1", metadata={"tags": ["remove-input"]}),
            new_markdown_cell("**An answer.**", metadata=slide),
            new_code_cell("draw()", outputs=[figure], metadata=goes_on),
            new_code_cell("def f():\n    pass", metadata=goes_on),
        ]
    )


@pytest.mark.parametrize("name", COMMITTED)
def test_a_page_needs_no_network_and_has_every_formula_drawn(name, pages):
    page = pages[name]
    assert not page.select("script")
    assert from_network(page) == []
    notebook = nbformat.read(ROOT / f"{name}.ipynb", 4)
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    dollars = len(re.findall(r"\$\$|\$", text))
    assert len(page.select("main .formula svg")) >= dollars / 2 > 50
    shown = page.select_one("main").get_text()
    code = "".join(tag.get_text() for tag in page.select("main :is(pre, code)"))
    assert shown.count("$") == code.count("$")


def test_contents_list_every_heading(pages):
    for page in pages.values():
        listed = [link.get_text() for link in page.select("#contents a")]
        headings = page.select("main h2, main h3")
        assert len(listed) == len(headings) > 10
        assert all(h.get_text().startswith(text) for h, text in zip(headings, listed, strict=True))


def test_links_lead_somewhere(pages):
    ids = {name: {tag["id"] for tag in page.select("[id]")} for name, page in pages.items()}
    links = [(name, link["href"]) for name in pages for link in pages[name].select("a[href]")]
    for place, link in links:
        target, _, anchor = link.partition("#")
        name = target.removesuffix(".html") or place
        if anchor and name in pages:
            assert unquote(anchor) in ids[name], f"{place}: {link}"


def test_small_page(small, tmp_path):
    page = read(publish.page(small, tmp_path, "small"))
    assert [len(row.select("td, th")) for row in page.select("tr")] == [2, 2]
    assert [tag["aria-label"] for tag in page.select("td .formula svg")] == [
        r"p(y_1\mid x_1)", r"\{x_1,x_2\}",
    ]  # fmt: skip
    assert page.select("td .formula")[1].get_text() == ",", "it does not begin a line"
    assert page.select_one("h2")["id"] == "The-next"
    assert "costs $5 to $6" in page.get_text()
    assert "$a_b$" in page.select_one("code").get_text()
    assert "secret" not in page.get_text()
    assert page.select_one('a[href="ODE.html#Data"]')
    assert page.select_one("figure img")["alt"] == 'Of "T"'
    assert page.select_one("figcaption .formula svg")["aria-label"] == "T=10"
    assert page.select_one("figure img")["src"] == f"data:image/png;base64,{PIXEL}"


@pytest.mark.parametrize("tex", [r"\nosuchthing x", r"\frac{1"])
def test_a_formula_that_cannot_be_drawn_is_named(tex):
    with pytest.raises(ValueError, match=re.escape(f"${tex}$ cannot be drawn")):
        publish.formula(tex)


def test_formula_stands_on_the_line():
    high, low = publish.formula("x"), publish.formula(r"\sum_{i=1}^nx_i", display=True)
    below = [float(re.search(r"vertical-align:(\S+?)em", text)[1]) for text in (high, low)]
    assert below[1] < below[0] < 0
    assert "display" in low


@pytest.fixture
def reveal(tmp_path, monkeypatch):
    """What is read of reveal.js."""
    folder = tmp_path / "dist"
    (folder / "theme").mkdir(parents=True)
    (folder / "reveal.js").write_text("var Reveal;")
    (folder / "reveal.css").write_text(".reveal {}")
    (folder / "theme" / "white.css").write_text("@import url(./fonts/x.css);\n.theme {}")
    monkeypatch.setattr(publish, "_reveal", lambda: folder)


@pytest.mark.usefixtures("reveal")
def test_slides(small, tmp_path):
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "ODE_small.png").write_bytes(b"finer")
    page = read(publish.slides(small, tmp_path, "small"))
    assert from_network(page) == []
    text = page.select_one(".slides").get_text()
    assert "An answer." in text
    assert "def f" in text, "code without output"
    assert "draw()" not in text, "its output is there"
    assert "Title" not in text, "no slide"
    assert page.select_one(".slides section h2")["id"] == "The-next", "its section"
    styles = "".join(style.get_text() for style in page.select("style"))
    assert ".theme" in styles
    assert "var Reveal;" in page.select("script")[-2].get_text()
    finer = "data:image/png;base64,ZmluZXI="
    assert page.select_one("figure img")["src"] == finer, "as for print"


def test_slides_say_what_is_missing(small, tmp_path, monkeypatch):
    monkeypatch.setattr(publish, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="make slides"):
        publish.slides(small, tmp_path, "small")


def test_command_writes_pages(small, tmp_path, capsys):
    nbformat.write(small, tmp_path / "ODE.ipynb")
    arguments = [str(tmp_path / "ODE.ipynb"), "--output", str(tmp_path / "build")]
    assert publish.main(arguments) == 0
    assert "ODE.html" in capsys.readouterr().out
    assert "Title" in (tmp_path / "build" / "ODE.html").read_text(encoding="utf-8")
    nbformat.write(new_notebook(), tmp_path / "ODE.ipynb")
    with pytest.raises(SystemExit):
        publish.main([*arguments, "--slides"])
    assert "ODE: no cell has a slide_type" in capsys.readouterr().err
