"""How far the numbers of sentences spread when the notebooks run with other seeds.

`python -m dlutils.tools.claims --seeds 5` runs every notebook of the folder whole with
`SEED` = 0 to 4, two at a time, and writes `docs/claims.md`: each sentence's values by seed. What a
finished run has written lies in `build/claims/`, so an interrupted command goes on where it was.
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory

import nbformat
from nbformat.v4 import new_code_cell
from tqdm import tqdm

from dlutils.notebook import PROJECT
from dlutils.tables import markdown_table
from dlutils.tools.claims.checking import Claim, Finding, about, check

CACHE = Path("build", "claims")
PAGE = Path("docs", "claims.md")
AT_ONCE = 2
INTRO = """# Numbers in sentences, by seed

A number stands in a sentence of these notebooks only if another seed gives it too. For each such sentence the table has the values that it is about, the range in which it is true, which follows from its words, and what the runs with `SEED` = 0 to {last} gave. Sentences and values are listed in `tests/claims.toml`; `python -m dlutils.tools.claims --seeds {n}` has written this page.

"""  # noqa: E501


def spread(claims: Sequence[Claim], n: int, *, again: bool = False) -> int:
    """Run the notebooks of this folder with n seeds, and write what their sentences' values are.

    Runs that are finished are run anew if asked, or if code has changed.

    Returns:
        An exit status: 1 if a sentence fails with a seed or a notebook does, 130 if interrupted.
    """
    notebooks = sorted(Path().glob("*.ipynb"))
    try:
        failed = run_all(notebooks, n, again=again)
    except KeyboardInterrupt:
        print(f"Interrupted. What is finished is in {CACHE} and will not be run again.")
        return 130
    for line in failed:
        print(line, file=sys.stderr)
    asked = about(claims, [path.stem for path in notebooks])
    by_seed = [check(asked, folder_of(seed)) for seed in range(n)]
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text(page(by_seed), encoding="utf-8")
    wrong = promising_too_much(by_seed)
    print(
        *wrong, f"{len(asked)} sentences, {len(wrong)} promise more than {n} seeds give", sep="\n"
    )
    print(f"The values are in {PAGE}")
    return int(bool(wrong or failed))


def folder_of(seed: int) -> Path:
    """Where the tables of the runs with a seed lie."""
    return CACHE / f"seed_{seed}"


def run_all(notebooks: Sequence[Path], n: int, *, again: bool = False) -> list[str]:
    """Run each notebook with each seed, unless that is done; return what failed, a line each."""
    stamp = _stamp(notebooks)
    todo = [
        (seed, path)
        for seed, path in product(range(n), notebooks)
        if again or not _is_done(seed, path, stamp)
    ]
    failed, running = [], set()
    with (
        tqdm(total=n * len(notebooks), unit="run", desc="seeds", file=sys.stdout) as bar,
        ThreadPoolExecutor(AT_ONCE) as pool,
    ):
        bar.update(n * len(notebooks) - len(todo))
        futures = [pool.submit(_run, *run, notebooks, stamp, running) for run in todo]
        try:
            for future in as_completed(futures):
                failed += future.result()
                bar.update()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in list(running):
                process.terminate()  # its kernel ends with it
            raise
    return failed


def _run(
    seed: int, path: Path, notebooks: Sequence[Path], stamp: str, running: set[subprocess.Popen]
) -> list[str]:
    """Run a notebook with a seed, beside all others, and keep its tables; return what failed."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        for other in notebooks:
            shutil.copy(other, folder)
        nbformat.write(with_seed(nbformat.read(path, 4), seed), folder / path.name)
        status, errors = _execute(folder, path.name, running)
        if status:
            said = errors.strip().splitlines() or [f"exit status {status}"]
            return [f"SEED = {seed}, {line}" for line in said if path.name in line] or said
        _keep(folder / "figures", seed, path.stem, stamp)
    return []


def _execute(folder: Path, name: str, running: set[subprocess.Popen]) -> tuple[int, str]:
    """Run a notebook in a process of its own, which is among those running until it ends."""
    environment = os.environ | {"PYTHONPATH": _path(), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "dlutils.tools.notebooks", name],
        cwd=folder,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # Ctrl-C reaches this process alone, which stops the others
    )
    running.add(process)
    try:
        _, errors = process.communicate()
    finally:
        running.discard(process)
    return process.returncode, errors


def with_seed(notebook: nbformat.NotebookNode, seed: int) -> nbformat.NotebookNode:
    """The notebook with a cell that sets `SEED`, after the one tagged `parameters`.

    Raises:
        ValueError: If no cell is tagged so.
    """
    tags = [cell.metadata.get("tags", []) for cell in notebook.cells]
    places = [k for k, found in enumerate(tags) if "parameters" in found]
    if not places:
        raise ValueError("no cell is tagged 'parameters': there is no place for SEED")
    notebook.cells.insert(places[-1] + 1, new_code_cell(f"SEED = {seed}"))
    return notebook


def promising_too_much(by_seed: Sequence[Sequence[Finding]]) -> list[str]:
    """A line for each sentence that some seed does not keep: the values, and on how many."""
    lines = {}
    for found in zip(*by_seed, strict=True):
        kept = sum(finding.holds for finding in found)
        if kept < len(found):
            claim, values = found[0].claim, sorted(finding.value for finding in found)
            lines.setdefault(claim, []).append(
                f"{found[0].ref} is {values[0]:.6g} to {values[-1]:.6g}, "
                f"right on {kept} of {len(found)}"
            )
    return [f'{c.question} says "{c.says}"; {"; ".join(refs)}' for c, refs in lines.items()]


def page(by_seed: Sequence[Sequence[Finding]]) -> str:
    """The page with a row for each sentence and value, from what `check` found by seed."""
    rows = [_row(found) for found in zip(*by_seed, strict=True)]
    table = markdown_table(rows) if rows else "There is no sentence yet."
    return f"{INTRO.format(n=len(by_seed), last=len(by_seed) - 1)}{table}\n"


def _row(found: Sequence[Finding]) -> dict[str, str]:
    """One value of a sentence, by seed."""
    claim, ref = found[0].claim, found[0].ref
    ordered, first = bool(claim.order), ref == claim.refs[0]
    low = ("–" if first else "the row above") if ordered else _bound(found[0].low)
    seeds = {f"seed {k}": _bound(finding.value) for k, finding in enumerate(found)}
    return {
        "question": claim.question,
        "sentence": _escaped(claim.says),
        "value": _escaped(ref if claim.scale == 1 else f"{claim.scale:g} × {ref}"),
        "from": low,
        "to": _bound(found[0].high),
        **seeds,
        "holds on": f"{sum(finding.holds for finding in found)} of {len(found)}",
    }


def _bound(value: float) -> str:
    return f"{value:.6g}" if abs(value) < float("inf") else "–"


def _escaped(text: str) -> str:
    """Text for a cell of a Markdown table."""
    return re.sub(r"\s+", " ", text.replace("|", r"\|"))


def _keep(figures: Path, seed: int, stem: str, stamp: str) -> None:
    """Copy a run's tables; the mark that they are all there comes last."""
    folder = folder_of(seed)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{stem}.done").unlink(missing_ok=True)
    for old in folder.glob(f"{stem}_*.csv"):
        old.unlink()
    for table in figures.glob(f"{stem}_*.csv"):
        shutil.copy(table, folder)
    (folder / f"{stem}.done").write_text(stamp, encoding="utf-8")


def _is_done(seed: int, path: Path, stamp: str) -> bool:
    mark = folder_of(seed) / f"{path.stem}.done"
    return mark.exists() and mark.read_text(encoding="utf-8") == stamp


def _stamp(notebooks: Iterable[Path]) -> str:
    """A mark of the code that is run: of the notebooks and of the package they import."""
    code = [
        cell.source
        for path in notebooks
        for cell in nbformat.read(path, 4).cells
        if cell.cell_type == "code"
    ]
    readers = Path(__file__).parent  # of what the runs have written
    package = sorted(p for p in (PROJECT / "dlutils").rglob("*.py") if readers not in p.parents)
    code += [path.read_text(encoding="utf-8") for path in package]
    return hashlib.sha256("\0".join(code).encode()).hexdigest()


def _path() -> str:
    """Where Python looks for modules: this package first."""
    return os.pathsep.join(filter(None, [str(PROJECT), os.environ.get("PYTHONPATH")]))
