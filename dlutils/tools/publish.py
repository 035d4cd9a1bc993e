r"""Notebooks as pages and slides that need no network: everything stands inside one HTML file.

Formulas are drawn when the page is written, so that it needs neither a script nor a font.
`python -m dlutils.tools.publish` writes a page for each notebook of this folder, with `--slides` a
slide show (reveal.js) of the cells that have `slideshow` metadata.
"""

import base64
import html
import re
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import nbformat
import ziamath
from jinja2 import pass_context
from jinja2.runtime import Context
from nbconvert import HTMLExporter, SlidesExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from nbformat.v4 import new_markdown_cell
from traitlets.config import Config
from ziamath.tex import tex2mml

from dlutils.tools.commands import parse, parser_of_notebooks, told

SPELLING = {  # of TeX, so that it is drawn as TeX would
    r"\\mathbb\s*(\w)": r"\\mathbb{\1}",
    r"\\epsilon(?![A-Za-z])": "\U0001d716",
    r"\\phi(?![A-Za-z])": "\U0001d719",
    r"\\sim(?![A-Za-z])": r"\\,\\sim\\,",
    r"\\log\s*\\math": r"\\log\\,\\math",
}
FONT_SIZE = 18  # of a formula, in its drawing's own units
EM = 1.12  # the same, in ems of the text around it: its letters are smaller for their size
ziamath.config.svg2 = False  # a drawing has its glyphs in itself

STYLE = """
.jp-RenderedHTMLCommon table { display: block; max-width: 100%; overflow-x: auto; }
.jp-RenderedHTMLCommon :is(td, th) { text-align: left; }
.formula { white-space: nowrap; }
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


class _Renderer(IPythonRenderer):
    """nbconvert's, with formulas drawn, and links to the pages of the other notebooks."""

    def inline_math(self, body: str) -> str:
        return formula(body)

    def block_math(self, body: str) -> str:
        return formula(body, display=True)

    def link(self, text: str, url: str, title: str | None = None) -> str:
        return super().link(text, re.sub(r"^(\w+)\.ipynb(?=#|$)", r"\1.html", url), title)


@pass_context
def _markdown2html(context: Context, source: str) -> str:
    path = context["resources"]["metadata"]["path"]
    written = MarkdownWithMath(_Renderer(False, embed_images=True, path=path)).render(source)
    # what a sentence has after a formula stays on its line
    return re.sub(r"</svg></span>([.,;:)?]+)", r"</svg>\1</span>", written)


OPTIONS = {
    "filters": {"markdown2html": _markdown2html},
    "config": Config(
        {"TagRemovePreprocessor": {"enabled": True, "remove_input_tags": {"remove-input"}}}
    ),
    "embed_images": True,
    "exclude_input_prompt": True,
    "exclude_output_prompt": True,
}


def page(notebook: nbformat.NotebookNode, folder: Path, name: str) -> str:
    """An executed notebook as one HTML file, with a list of its headings; `name` is its title.

    Cells tagged `remove-input` appear without their code. The pictures that its Markdown names lie
    in the folder.

    Raises:
        ValueError: If a formula has a command in it that cannot be drawn.
    """
    exporter = HTMLExporter(raw_template=PAGE, **OPTIONS)
    resources = {"metadata": {"path": str(folder), "name": name}}
    written, _ = exporter.from_notebook_node(notebook, resources)
    headings = re.findall(r'<(h[23]) id="(.+?)">(.+?)<a class="anchor-link"', written, re.DOTALL)
    items = "".join(f'<li class="{h}"><a href="#{at}">{text}</a></li>' for h, at, text in headings)
    contents = f"<details open><summary>Contents</summary><ul>{items}</ul></details>"
    written = written.replace("<main>", f'<nav id="contents">{contents}</nav><main>', 1)
    return written.replace("</head>", f"<style>{STYLE}{PAGE_STYLE}</style></head>", 1)


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
    read = lambda file: (_reveal() / file).read_text(encoding="utf-8")
    resources = {"metadata": {"path": str(folder), "name": name}, "reveal_js": read("reveal.js")}
    exporter = SlidesExporter(
        raw_template=SLIDES, reveal_url_prefix="reveal", reveal_theme="white", **OPTIONS
    )
    written, _ = exporter.from_notebook_node(shown, resources)

    def in_the_page(link: re.Match) -> str:
        css = re.sub(r"@import url\([^)]*\);", "", read(link[1]))  # fonts, which the system has too
        return f"<style>{css}</style>"

    written = re.sub(r'<link[^>]* href="reveal/dist/(.+?)"[^>]*>', in_the_page, written)
    return written.replace("</head>", f"<style>{STYLE}{SLIDE_STYLE}</style></head>", 1)


@cache
def formula(tex: str, display: bool = False) -> str:
    """A formula of TeX as SVG in HTML that stands on the line of the text around it.

    Raises:
        ValueError: If it is no TeX, or has a command in it that cannot be drawn, which is named.
    """
    known = tex.strip()
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
    svg = drawn.svg().replace('"black"', '"currentColor"')
    shown = f'role="img" aria-label="{html.escape(tex.strip())}" style="{size}"'
    kind = "formula display" if display else "formula"
    return f'<span class="{kind}">{svg.replace("<svg", f"<svg {shown}", 1)}</span>'


def main(arguments: list[str] | None = None) -> int:
    """Write the notebooks of this folder, with the outputs they have, as HTML."""
    parser = parser_of_notebooks("publish", main)
    parser.add_argument("--slides", action="store_true", help="slide shows instead of pages")
    parser.add_argument("--output", type=Path, help="default: build, or build/slides")
    options = parse(parser, arguments)
    output = options.output or Path("build/slides" if options.slides else "build")
    write = slides if options.slides else page
    with told(parser):
        output.mkdir(parents=True, exist_ok=True)
    for path in options.notebooks:
        target = output / f"{path.stem}.html"
        with told(parser):
            text = write(nbformat.read(path, as_version=4), path.parent, path.stem)
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
