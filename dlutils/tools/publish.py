r"""Notebooks as pages and slides that need no network: everything stands inside one HTML file.

Formulas are drawn when the page is written, so that it needs neither a script nor a font.
`python -m dlutils.tools.publish` writes a page for each notebook of this folder, with `--slides` a
slide show (reveal.js) of the cells that have `slideshow` metadata.
"""

import base64
import html
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import nbformat
import ziamath
from bs4 import BeautifulSoup
from jinja2 import pass_context
from nbconvert import HTMLExporter, SlidesExporter
from nbformat.v4 import new_markdown_cell
from traitlets.config import Config
from ziamath.tex import tex2mml

from dlutils.tools.commands import parser_of_notebooks

# What Markdown leaves alone (fenced and inline code, escaped dollars), and two kinds of formula.
FORMULA = re.compile(
    r"```.*?```|(?P<ticks>`+).*?(?<!`)(?P=ticks)(?!`)|\\\$"
    r"|\$\$(?P<display>.+?)\$\$|\$(?P<inline>[^$]+?)\$",
    re.DOTALL,
)
# What stands for a formula while Markdown is read, and the mark after it, which stays beside it.
MARK = re.compile("qformula([0-9]+)q([.,;:)?]*)")
GLYPH = re.compile(r'<symbol id="(\S+?)".*?</symbol>', re.DOTALL)
SPELLING = {  # of TeX, so that it is drawn as TeX would
    r"\\mathbb\s*(\w)": r"\\mathbb{\1}",
    r"\\epsilon(?![A-Za-z])": "\U0001d716",
    r"\\phi(?![A-Za-z])": "\U0001d719",
    r"\\sim(?![A-Za-z])": r"\\,\\sim\\,",
    r"\\log\s*\\math": r"\\log\\,\\math",
}
FONT_SIZE = 18  # of a formula, in its drawing's own units
EM = 1.12  # the same, in ems of the text around it: its letters are smaller for their size

STYLE = """
.jp-RenderedHTMLCommon table { display: block; max-width: 100%; overflow-x: auto; }
.jp-RenderedHTMLCommon :is(td, th) { text-align: left; }
.together { white-space: nowrap; }
.formula svg { overflow: visible; }
.formula.display { display: block; text-align: center; overflow: auto hidden; padding: 0.5em 0; }
figure { margin: 0.5em 0 1em; }
figure img { max-width: 100%; }
figcaption { max-width: 45em; font: 13px/1.4 sans-serif; color: #444; }
figcaption p { margin: 0.2em 0; }
"""
PAGE_STYLE = """
#contents { font: 13px/1.35 sans-serif; padding: 0.8em; background: #f5f5f5; }
#contents summary { cursor: pointer; font-weight: bold; }
#contents ul { list-style: none; margin: 0; padding: 0; }
#contents li { margin: 0.25em 0; }
#contents .h3 { padding-left: 0.9em; }
#contents a { color: #00527a; text-decoration: none; }
@media screen and (min-width: 1000px) {
  body.jp-Notebook { padding-left: 15rem; }
  #contents { position: fixed; inset: 0 auto 0 0; width: 14rem; overflow-y: auto; }
}
"""
SLIDE_STYLE = """
.reveal :is(h1, h2, h3) { text-transform: none; margin: 0 0 0.5em; }
.reveal h1 { font-size: 1.8em; }
.reveal figure { text-align: center; margin: 0; }
.reveal figure img { height: 500px; max-width: 100%; object-fit: contain; margin: 0; }
.reveal figcaption { max-width: none; font-size: 20px; }
.reveal .jp-RenderedHTMLCommon { font-size: 26px; }
.reveal .jp-RenderedHTMLCommon table { font-size: 21px; }
.reveal .jp-OutputArea-output pre, .reveal .highlight pre { font-size: 17px; }
"""
FIGURE = """
{%- block html_head_js -%}{%- endblock -%}
{%- block html_head_js_mathjax -%}{%- endblock -%}
{%- block input -%}
<div class="jp-Editor jp-InputArea-editor"><div class="cm-editor cm-s-jupyter">
{{ cell.source | highlight_code(metadata=cell.metadata) }}
</div></div>
{%- endblock -%}
{%- block data_png scoped -%}
<figure class="jp-RenderedImage jp-OutputArea-output {{ extra_class }}">
<img src="data:image/png;base64,{{ output.data['image/png'] | replace('\\n', '') }}"
{%- if output.metadata.alt %} alt="{{ output.metadata.alt | escape_html }}"{% endif %}>
{%- if output.metadata.caption %}
<figcaption>{{ output.metadata.caption | markdown2html }}</figcaption>
{%- endif %}
</figure>
{%- endblock -%}
"""
PAGE = f"""
{{%- extends 'lab/index.html.j2' -%}}
{{%- block html_head_js_mermaidjs -%}}{{%- endblock -%}}
{FIGURE}
"""
SLIDES = f"""
{{%- extends 'reveal/index.html.j2' -%}}
{FIGURE}
{{%- block footer_js -%}}
<script>{{{{ resources.reveal_js }}}}</script>
<script>
const fit = ({{ currentSlide }}) => {{  // what is higher than the slide is made smaller
  currentSlide.style.zoom = 1;
  currentSlide.style.zoom = Math.min(1, 690 / currentSlide.scrollHeight);
}};
Reveal.on("ready", fit);
Reveal.on("slidechanged", fit);
Reveal.initialize({{ hash: true, slideNumber: true, width: 1280, height: 720, margin: 0.03 }});
</script>
{{%- endblock -%}}
"""


def _exported(
    kind: type[HTMLExporter],
    template: str,
    notebook: nbformat.NotebookNode,
    folder: Path,
    name: str,
    resources: dict[str, str],
    **options: str,
) -> BeautifulSoup:
    """A notebook by one of nbconvert's exporters, parsed, with its formulas drawn.

    Each glyph of the formulas is defined once, at the beginning of the page.
    """
    glyphs = {}

    @pass_context
    def markdown2html(context, source: str) -> str:
        written = with_formulas(source, lambda text: exporter.markdown2html(context, text))
        return GLYPH.sub(lambda match: glyphs.setdefault(match[1], match[0]) and "", written)

    hidden = {"enabled": True, "remove_input_tags": {"remove-input"}}
    exporter = kind(
        raw_template=template,
        filters={"markdown2html": markdown2html},
        config=Config({"TagRemovePreprocessor": hidden}),
        embed_images=True,
        exclude_input_prompt=True,
        exclude_output_prompt=True,
        **options,
    )
    resources = resources | {"metadata": {"path": str(folder), "name": name}}
    written = _html(exporter.from_notebook_node(notebook, resources)[0])
    unseen = "position:absolute;width:0;height:0"
    defined = f'<svg aria-hidden="true" style="{unseen}">{"".join(glyphs.values())}</svg>'
    written.body.insert(0, _html(defined))
    for link in written.select("a[href]"):  # to the page of the other notebook
        link["href"] = re.sub(r"^(\w+)\.ipynb(?=#|$)", r"\1.html", link["href"])
    return written


def page(notebook: nbformat.NotebookNode, folder: Path, name: str) -> str:
    """An executed notebook as one HTML file, with a list of its headings; `name` is its title.

    Cells tagged `remove-input` appear without their code. The pictures that its Markdown names lie
    in the folder.

    Raises:
        ValueError: If a formula has a command in it that cannot be drawn.
    """
    written = _exported(HTMLExporter, PAGE, notebook, folder, name, {})
    written.head.append(_html(f"<style>{STYLE}{PAGE_STYLE}</style>"))
    items = [
        f'<li class="{heading.name}"><a href="#{html.escape(heading["id"])}">'
        f"{_without_anchor(heading)}</a></li>"
        for heading in written.select("h2[id], h3[id]")
    ]
    contents = f"<details open><summary>Contents</summary><ul>{''.join(items)}</ul></details>"
    written.body.insert(0, _html(f'<nav id="contents">{contents}</nav>'))
    return str(written)


def slides(notebook: nbformat.NotebookNode, folder: Path, name: str) -> str:
    """The cells that have `slideshow` metadata as a slide show, one HTML file with reveal.js in it.

    Code is shown where it has no output: of an experiment the result, of a definition the text. A
    slide that begins without a heading gets that of its section.

    Args:
        notebook: With outputs. The `slide_type` of a cell is "slide", "subslide", "fragment",
            "-" (the slide goes on), "notes", or "skip".
        folder: Its own; `figures/` in it has the figures with more pixels.
        name: Title of the slide show.

    Raises:
        ValueError: If no cell is for a slide, a formula cannot be drawn, or reveal.js is missing.
    """
    shown = nbformat.from_dict(notebook)
    shown.cells = list(_titled(shown.cells))
    if not shown.cells:
        raise ValueError(f"{name}: no cell has a slide_type in `slideshow` metadata")
    for cell in shown.cells:
        if cell.get("outputs"):
            cell.metadata.tags = [*cell.metadata.get("tags", []), "remove-input"]
        for output in cell.get("outputs", []):
            finer = folder / "figures" / f"{output.get('metadata', {}).get('name')}.png"
            if finer.is_file():
                output.data["image/png"] = base64.b64encode(finer.read_bytes()).decode()
    reveal = _reveal()
    script = {"reveal_js": (reveal / "reveal.js").read_text(encoding="utf-8")}
    options = {"reveal_url_prefix": "reveal", "reveal_theme": "white"}
    written = _exported(SlidesExporter, SLIDES, shown, folder, name, script, **options)
    for link in written.select('link[href^="reveal/dist/"]'):
        css = (reveal / link["href"].removeprefix("reveal/dist/")).read_text(encoding="utf-8")
        css = re.sub(r"@import url\([^)]*\);", "", css)  # fonts, which the system has too
        link.replace_with(_html(f"<style>{css}</style>"))
    written.head.append(_html(f"<style>{STYLE}{SLIDE_STYLE}</style>"))
    return str(written)


def with_formulas(source: str, render: Callable[[str], str]) -> str:
    """Markdown to HTML with `render`, which does not get to see the formulas.

    So a | or _ in a formula deforms no table and no word. Code keeps its dollars.
    """
    formulas = []

    def mark(match: re.Match) -> str:
        tex = match["display"] or match["inline"]
        if tex is None:
            return match[0]
        formulas.append((tex.strip(), match["display"] is not None))
        return f"qformula{len(formulas) - 1}q"

    written = render(FORMULA.sub(mark, source))
    as_text = lambda match: html.escape(formulas[int(match[1])][0]) + match[2]
    drawn = lambda match: formula(*formulas[int(match[1])]) + match[2]
    written = re.sub(r'="[^"]*"', lambda match: MARK.sub(as_text, match[0]), written)
    return MARK.sub(lambda match: f'<span class="together">{drawn(match)}</span>', written)


@cache
def formula(tex: str, display: bool = False) -> str:
    """A formula of TeX as SVG in HTML that stands on the line of the text around it.

    Raises:
        ValueError: If it is no TeX, or has a command in it that cannot be drawn, which is named.
    """
    known = tex
    for pattern, replacement in SPELLING.items():
        known = re.sub(pattern, replacement, known)
    try:
        mathml = tex2mml(known, inline=not display)
        if unknown := re.search(r"\\[A-Za-z]+", mathml):
            raise ValueError(f"unknown command {unknown[0]}")
        mathml = mathml.replace("<mo>&#x0222B;", '<mo stretchy="false">&#x0222B;')
        drawn = ziamath.Math(mathml, size=FONT_SIZE)
    except Exception as error:  # there is one for each mistake
        raise ValueError(f"the formula ${tex}$ cannot be drawn: {error!r}") from error
    ems = lambda length: f"{EM * length / FONT_SIZE:.3f}em"
    (width, height), below = drawn.getsize(), drawn.getyofst()
    size = f"width:{ems(width + 2)};height:{ems(height + 2)};vertical-align:{ems(below - 1)}"
    svg = re.sub(r'<svg([^>]*?) width="\S+" height="\S+"', rf'<svg\1 style="{size}"', drawn.svg())
    svg = re.sub(r'"black"', '"currentColor"', svg)
    kind = "formula display" if display else "formula"
    return f'<span class="{kind}" role="img" aria-label="{html.escape(tex)}">{svg}</span>'


def main(arguments: list[str] | None = None) -> int:
    """Write the notebooks of this folder, with the outputs they have, as HTML."""
    parser = parser_of_notebooks("publish", main)
    parser.add_argument("--slides", action="store_true", help="slide shows instead of pages")
    parser.add_argument("--output", type=Path, help="default: build, or build/slides")
    options = parser.parse_args(arguments)
    output = options.output or Path("build/slides" if options.slides else "build")
    output.mkdir(parents=True, exist_ok=True)
    for path in options.notebooks:
        write = slides if options.slides else page
        try:
            text = write(nbformat.read(path, as_version=4), path.parent, path.stem)
        except ValueError as error:
            parser.error(str(error))
        target = output / f"{path.stem}.html"
        target.write_text(text, encoding="utf-8")
        print(f"{target} ({len(text) / 1e6:.1f} MB)")
    return 0


def _titled(cells: Iterable[nbformat.NotebookNode]) -> Iterator[nbformat.NotebookNode]:
    """The cells for slides; a slide that begins without a heading gets that of its section."""
    heading = ""
    for cell in cells:
        if cell.cell_type == "markdown" and cell.source.startswith("#"):
            heading = cell.source.partition("\n")[0]
        slide_type = cell.metadata.get("slideshow", {}).get("slide_type", "skip")
        if slide_type in ("slide", "subslide") and not cell.source.startswith("#"):
            yield new_markdown_cell(heading, metadata={"slideshow": {"slide_type": slide_type}})
            cell.metadata.slideshow = {"slide_type": "-"}
        if slide_type not in ("", "skip"):
            yield cell


def _html(text: str) -> BeautifulSoup:
    return BeautifulSoup(text, "html.parser")


def _without_anchor(heading) -> str:
    """The inside of a heading but for the link to itself."""
    inside = _html(heading.decode_contents())
    for link in inside.select("a.anchor-link"):
        link.decompose()
    return str(inside)


def _reveal() -> Path:
    """The folder of reveal.js, which the package sphinx-revealjs brings along."""
    package = find_spec("sphinx_revealjs")
    if package is None:
        raise ValueError(
            "reveal.js is not installed: make slides, "
            "or python -m pip install --no-deps --group slides"
        )
    return Path(package.origin).parent / "_static" / "revealjs" / "dist"


if __name__ == "__main__":
    sys.exit(main())
