"""Both notebooks in a real JupyterLab: run quickly, then the explorer used by hand.

Started by `make test-browser`, not by pytest alone. Screenshots are left in build/browser.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest
from jupyter_server.serverapp import list_running_servers

ROOT = Path(__file__).parents[2]
SCREENSHOTS = ROOT / "build" / "browser"
SETTINGS = {  # every cell in the page at once, no questions, and the theme of the night
    "notebook-extension/tracker": {"windowingMode": "none"},
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    "apputils-extension/themes": {"theme": "JupyterLab Dark"},
}
SECONDS = 300  # for one notebook
STDERR = "[data-mime-type='application/vnd.jupyter.stderr']"  # where JupyterLab shows errors too
LAST = "[...document.querySelectorAll('.jp-CodeCell .jp-InputPrompt')].at(-1).innerText"
DRAWN = "[...document.querySelectorAll('.explorer img')].every(image => image.naturalWidth > 300)"

pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """A JupyterLab server on a copy of the project, its notebooks quick ones without outputs."""
    home = tmp_path_factory.mktemp("lab")
    folder, runtime = home / "project", home / "runtime"
    unwanted = shutil.ignore_patterns(".git", ".venv", "build", "figures", "__pycache__")
    shutil.copytree(ROOT, folder, ignore=unwanted)
    for path in folder.glob("*.ipynb"):
        notebook = nbformat.read(path, 4)
        for cell in notebook.cells:
            if cell.cell_type == "code":
                cell.outputs, cell.execution_count = [], None
                cell.source = re.sub(r"^FAST = False", "FAST = True", cell.source, flags=re.M)
        nbformat.write(notebook, path)
    for name, values in SETTINGS.items():
        path = home / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values), encoding="utf-8")
    environment = os.environ | {
        "JUPYTERLAB_SETTINGS_DIR": str(home / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces"),
        "JUPYTER_CONFIG_DIR": str(home / "config"),
        "JUPYTER_RUNTIME_DIR": str(runtime),
    }
    command = [sys.executable, "-m", "jupyter", "lab", "--no-browser", "--allow-root", "--port=0"]
    with (home / "log").open("wb") as log:
        server = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)
        try:
            end = time.monotonic() + 60
            while not (found := list(list_running_servers(str(runtime)))):
                assert time.monotonic() < end, (home / "log").read_text(encoding="utf-8")[-2000:]
                time.sleep(0.2)
            yield found[0]
        finally:
            server.terminate()
            server.wait(timeout=30)


@pytest.fixture
def page(browser):
    page = browser.new_page(viewport={"width": 1280, "height": 1400})
    page.set_default_timeout(60_000)
    yield page
    page.screenshot(path=SCREENSHOTS / "last.png")
    page.close()


@pytest.mark.parametrize("name", ["ODE", "SDE"])
def test_notebook_runs_and_its_explorer_moves(lab, page, name):
    page.goto(f"{lab['url']}lab/workspaces/{name}/tree/{name}.ipynb?token={lab['token']}")
    page.wait_for_selector(".jp-Notebook .jp-CodeCell")
    page.wait_for_selector(".jp-Notebook-ExecutionIndicator[data-status=idle]")
    run_all(page)
    ended = f"() => document.querySelector({STDERR!r}) || /\\[\\d+\\]:/.test({LAST})"
    page.wait_for_function(ended, timeout=SECONDS * 1000)
    errors = page.locator(STDERR)
    assert errors.count() == 0, errors.first.inner_text()
    prompts = page.locator(".jp-CodeCell .jp-InputPrompt").all_inner_texts()
    cells = [c for c in nbformat.read(ROOT / f"{name}.ipynb", 4).cells if c.cell_type == "code"]
    folded = ["source_hidden" in cell.metadata.get("jupyter", {}) for cell in cells]
    expected = ["" if hidden else f"[{k}]:" for k, hidden in enumerate(folded, start=1)]
    assert [prompt.strip() for prompt in prompts] == expected
    shown = page.locator(".jp-OutputArea-output img[src^='data:image/png']")
    assert shown.count() >= (ROOT / f"{name}.ipynb").read_text("utf-8").count("report.figure(")

    explorer = page.locator(".explorer").first
    explorer.scroll_into_view_if_needed()
    explorer.get_by_role("button", name="Train").click()
    page.wait_for_function(f"() => {DRAWN}", timeout=120_000)
    assert "mass divided out" in explorer.inner_text()
    moment = explorer.locator("img").last
    before = moment.get_attribute("src")
    handle = explorer.locator(".noUi-handle, .ui-slider-handle").first
    handle.focus()
    for _ in range(40):
        handle.press("ArrowLeft")
    page.wait_for_function(
        "before => document.querySelectorAll('.explorer img')[1].src !== before", arg=before
    )
    value = explorer.locator(".widget-readout").first.inner_text()
    assert re.fullmatch(r"0\.\d+", value), "the slider has left t = 1"
    page.screenshot(path=SCREENSHOTS / f"{name}-explorer.png")


def run_all(page):
    """Choose Run → Run All Cells, again if JupyterLab forgets it: the kernel may be connecting."""
    started = page.locator(".jp-CodeCell .jp-InputPrompt", has_text=re.compile(r"\[(1|\*)\]:"))
    for _ in range(10):
        page.click(".lm-MenuBar-itemLabel:text-is('Run')")
        page.click(".lm-Menu-itemLabel:text-is('Run All Cells')")
        for _ in range(50):
            if started.count():
                return
            page.wait_for_timeout(100)
        page.keyboard.press("Escape")
    raise AssertionError("JupyterLab does not run the cells")
