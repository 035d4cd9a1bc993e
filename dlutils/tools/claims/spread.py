"""How far the numbers of sentences spread when the notebooks run with other seeds.

`python -m dlutils.tools.claims --seeds 5` runs every notebook of the folder whole with
`SEED` = 0 to 4, two at a time, and writes `docs/claims.md`: each sentence's values by seed. What a
finished run has written lies in `build/claims/`, so an interrupted command goes on where it was.
"""

import hashlib
import os
import shutil
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import nbformat
from nbformat.v4 import new_code_cell

from dlutils.notebook import PROJECT
from dlutils.tables import markdown_table
from dlutils.tools.claims.checking import Claim, Finding, about, check
from dlutils.tools.notebooks import execute, failures
from dlutils.tools.sweep.jobs import Config, process_pool, run_all
from dlutils.tools.sweep.results import Row, load

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
    folder = CACHE / code_digest(notebooks)
    if again:
        shutil.rmtree(folder, ignore_errors=True)
    folders = [folder / f"seed_{seed}" for seed in range(n)]
    configs = [
        {"notebook": path.name, "seed": seed, "folder": str(tables)}
        for seed, tables in enumerate(folders)
        for path in notebooks
    ]
    pool, record = process_pool(AT_ONCE, [__name__]), folder / "runs.jsonl"
    try:
        run_all(run_with_seed, configs, record, pool, retry_failed=True, label="seeds")
    except KeyboardInterrupt:
        print(f"Interrupted. What is finished is in {folder} and will not be run again.")
        return 130
    rows = [row for row in load(record) if row["seed"] < n and row["status"] == "failed"]
    for row in rows:
        print(f"SEED = {row['seed']}, {row['notebook']}, {row['error']}", file=sys.stderr)
    asked = about(claims, [path.stem for path in notebooks])
    by_seed = [check(asked, tables) for tables in folders]
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text(page(by_seed), encoding="utf-8")
    wrong = promising_too_much(by_seed)
    total = f"{len(asked)} sentences, {len(wrong)} promise more than {n} seeds give"
    print(*wrong, total, f"The values are in {PAGE}", sep="\n")
    return int(bool(wrong or rows))


def run_with_seed(config: Config) -> Row:
    """Run a notebook with a seed, beside all others, and keep its tables.

    Raises:
        ValueError: If no cell is tagged `parameters`: `SEED` is set after it.
        RuntimeError: If a cell fails.
    """
    path, tables = Path(config["notebook"]), Path(config["folder"])
    notebook = nbformat.read(path, 4)
    tagged = [k for k, c in enumerate(notebook.cells) if "parameters" in c.metadata.get("tags", [])]
    if not tagged:
        raise ValueError("no cell is tagged 'parameters': there is no place for SEED")
    notebook.cells.insert(tagged[-1] + 1, new_code_cell(f"SEED = {config['seed']}"))
    others = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys([str(PROJECT), *others]))
    with TemporaryDirectory() as name:
        for other in Path().glob("*.ipynb"):
            shutil.copy(other, name)
        nbformat.write(notebook, Path(name, path))
        executed, _ = execute(Path(name, path), allow_errors=True)
        if failed := failures(executed):
            raise RuntimeError("; ".join(failed))
        tables.mkdir(parents=True, exist_ok=True)
        for table in Path(name, "figures").glob(f"{path.stem}_*.csv"):
            shutil.copy(table, tables)
    return {}


def promising_too_much(by_seed: Sequence[Sequence[Finding]]) -> list[str]:
    """A line for each sentence that some seed does not keep: the values, and on how many."""
    lines: dict[Claim, list[str]] = {}
    for found in zip(*by_seed, strict=True):
        values, kept = sorted(f.value for f in found), sum(f.holds for f in found)
        if kept < len(found):
            said = f"{found[0].ref} is {values[0]:.6g} to {values[-1]:.6g}"
            lines.setdefault(found[0].claim, []).append(f"{said}, right on {kept} of {len(found)}")
    return [f'{c.question} says "{c.says}"; {"; ".join(said)}' for c, said in lines.items()]


def page(by_seed: Sequence[Sequence[Finding]]) -> str:
    """The page with a row for each sentence and value, from what `check` found by seed."""
    number = lambda value: f"{value:.6g}" if abs(value) < float("inf") else "–"
    escaped = lambda text: " ".join(text.replace("|", r"\|").split())
    rows = []
    for found in zip(*by_seed, strict=True):
        claim, ref = found[0].claim, found[0].ref
        above = claim.order and ref != claim.refs[0]
        rows.append(
            {
                "question": claim.question,
                "sentence": escaped(claim.says),
                "value": escaped(ref if claim.scale == 1 else f"{claim.scale:g} × {ref}"),
                "from": "the row above" if above else number(found[0].low),
                "to": number(found[0].high),
                **{f"seed {k}": number(finding.value) for k, finding in enumerate(found)},
                "holds on": f"{sum(finding.holds for finding in found)} of {len(found)}",
            }
        )
    table = markdown_table(rows) if rows else "There is no sentence yet."
    return f"{INTRO.format(n=len(by_seed), last=len(by_seed) - 1)}{table}\n"


def code_digest(notebooks: Iterable[Path]) -> str:
    """Of the code that is run: of the notebooks and of the package they import."""
    code = [
        cell.source
        for path in notebooks
        for cell in nbformat.read(path, 4).cells
        if cell.cell_type == "code"
    ]
    readers = Path(__file__).parent  # of what the runs have written
    package = sorted(p for p in (PROJECT / "dlutils").rglob("*.py") if readers not in p.parents)
    code += [path.read_text(encoding="utf-8") for path in package]
    return hashlib.sha256("\0".join(code).encode()).hexdigest()[:12]
