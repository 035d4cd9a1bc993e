"""Solve and redraw of the page for the browser, by the page's own clock: median of 50 each.

It takes Chromium and the packages of `make test-browser`.
"""

import shutil
import statistics
from pathlib import Path

from playwright.sync_api import sync_playwright

from dlutils.tables import markdown_table
from dlutils.tools.commands import parser_of

TIMES = 50
WARM_UP = 3
DRAWN = "new Promise(go => requestAnimationFrame(() => requestAnimationFrame(go)))"
MOVED = (  # what is changed, in what situation
    ("sample", ""),
    ("sample, independent pairs, rk4", "coupling=independent&method=rk4&"),
    ("sample, T = 100, rk4", "T=100&method=rk4&"),
    ("sample, independent pairs, T = 100, rk4", "coupling=independent&T=100&method=rk4&"),
    ("T, rk4", "method=rk4&"),
    ("t", "T=30&"),
    ("r of the SDE", "view=sde&"),
)


def values(what: str) -> tuple[str, list[float]]:
    """The key in the address that is moved, and where to."""
    n = range(WARM_UP + TIMES)
    by_key = {"sample": ("seed", [*n]), "T": ("T", [20 + k for k in n])}
    by_key |= {"t": ("t", [k / 60 for k in n]), "r of the SDE": ("r", [(k + 1) / 8 for k in n])}
    return by_key[what.partition(",")[0]]


def main(arguments: list[str] | None = None) -> int:
    """Print the milliseconds that the page takes to solve and draw, by what is moved."""
    parser_of("benchmarks.page_times", main).parse_args(arguments)
    chromium, rows = shutil.which("chromium") or shutil.which("google-chrome"), []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1200, "height": 900})
        page.goto(Path("page", "index.html").resolve().as_uri())
        page.wait_for_timeout(800)
        for what, situation in MOVED:
            key, to = values(what)
            page.evaluate("() => { window.page.timings.length = 0 }")
            for value in to:
                page.evaluate(
                    f"""async () => {{
                        const moved = new Promise(
                            go => addEventListener("hashchange", go, {{once: true}}));
                        location.hash = "{situation}{key}={value}";
                        await moved;
                        await {DRAWN};
                    }}"""
                )
            took = page.evaluate("() => window.page.timings")[-TIMES:]
            median = round(statistics.median(took), 1)
            rows.append({"moved": what, "median, ms": median, "least, ms": round(min(took), 1)})
        browser.close()
    print(markdown_table(rows))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
