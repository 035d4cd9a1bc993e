r"""Plant faults in the package, one at a time, and say of each whether the tests catch it.

`python -m benchmarks.planted_faults` copies the working tree, changes one place of the package in
the copy, and runs the tests of the module until one fails. Where tests have been
thinned, `--fresh` shows whether a guard was lost. Results are written to
`build/planted_faults.jsonl` as they come; a second start goes on with the rest.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from dlutils.processes import cores
from dlutils.tables import markdown_table
from dlutils.tools.commands import parser_of
from dlutils.tools.sweep.jobs import Config, identity, run_all
from dlutils.tools.sweep.results import Row, load

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "build" / "planted_faults.jsonl"
PYTEST = (sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-n", "0")
SLOW = r"test_(whole_runs|configurations|failing_well|notebook_times|benchmarks|leaderboard)"
NONE, OUT_OF_TIME = "", "out of time"


class Fault(NamedTuple):
    """What is wrong, in words; text that is there once in all of the package; what replaces it."""

    name: str
    old: str
    new: str


FAULTS = [
    # Flows
    Fault(
        "density along a flow divided by the inverse of the slope",
        "log_p.append(log_p[-1] - r.log())",
        "log_p.append(log_p[-1] + r.log())",
    ),
    Fault(
        "validation of a flow without the slope of its units",
        "validate = lambda: mean(f, *val, *solver).item() + rise_val",
        "validate = lambda: mean(f, *val, *solver).item()",
    ),
    Fault(
        "samples of an SDE without the noise of the observation",
        "return self.units.inverse(x + self.model.sigma_y * noise)",
        "return self.units.inverse(x)",
    ),
    Fault(
        "times on the clock without dt / du",
        "return t, path.time_rate(t)",
        "return t, torch.ones_like(t)",
    ),
    Fault(
        "a loop that is interrupted goes on",
        "            if interrupted.is_set():",
        "            if False:",
    ),
    Fault(
        "gradient of the map without 1 / r",
        "v_r = v / r",
        "v_r = v.expand_as(r)",
    ),
    Fault(
        "gradient in a linear term without its slope",
        "linear = torch.stack([w * x + c, w]).T",
        "linear = torch.stack([w * x, w]).T",
    ),
    Fault(
        "penalty on the linear part of a drift of steps",
        "R = torch.block_diag(D.T @ D + 0.1 * eye(J), 0 * eye(2))",
        "R = torch.block_diag(D.T @ D + 0.1 * eye(J), 0.1 * eye(2))",
    ),
    Fault(
        "Gauss's weights in time for [-1, 1] and not for [0, 1]",
        "return torch.stack([x, t.expand_as(x), v, w_t * w]).flatten(1)",
        "return torch.stack([x, t.expand_as(x), v, 2 * w_t * w]).flatten(1)",
    ),
    Fault(
        "Fisher matrix of squared weights",
        "self.J = self.weights.sqrt()[:, None] * scores",
        "self.J = self.weights[:, None] * scores",
    ),
    Fault(
        "stages all at the beginning of the step",
        "F.append(f(combine(x, h, a_i, F), t + c_i * h))",
        "F.append(f(combine(x, h, a_i, F), t))",
    ),
    Fault(
        "evidence for a flow without the slope of its units",
        "value += nodes[1].sum().item() * (mean.item() + seen.log_slope)",
        "value += nodes[1].sum().item() * mean.item()",
    ),
    # Diffusions
    Fault(
        "probability flows back with the diffusion of the wrong cell",
        "left = _bernoulli(z) * D[:, 1:] / h**2",
        "left = _bernoulli(z) * D[:, :-1] / h**2",
    ),
    Fault(
        "noise not narrowed by what the grid adds",
        "blur = np.exp(-(frequency**2) * (1 - step**2 / 6) / 2)",
        "blur = np.exp(-(frequency**2) / 2)",
    ),
    Fault(
        "gap of a denoiser without the half",
        "return u, w, best_noise / 2 * divergence * path.time_rate(t)",
        "return u, w, best_noise * divergence * path.time_rate(t)",
    ),
    Fault(
        "shares of a mixture without the widths of its components",
        "log_p = self.weights.log() - (variance.log() + (g - s * self.means) ** 2 / variance) / 2",
        "log_p = self.weights.log() - (g - s * self.means) ** 2 / variance / 2",
    ),
    Fault(
        "third stage of the probability flow at the end of the step",
        "third = self.velocity(x + h / 2 * second, u + h / 2)",
        "third = self.velocity(x + h / 2 * second, u + h)",
    ),
    Fault(
        "standard error of a bound without the root of the number",
        "error = groups.std().item() / n_groups**0.5",
        "error = groups.std().item()",
    ),
    Fault(
        "probabilities of a quadrature whose sum is not divided out",
        "probabilities = [w.double() / w.double().sum() for w in weights]",
        "probabilities = [w.double() for w in weights]",
    ),
    Fault(
        "bound and density exchanged",
        "for f in (model.elbo, model.log_likelihood))",
        "for f in (model.log_likelihood, model.elbo))",
    ),
    Fault(
        "two coordinates of the lattice alike",
        "steps = torch.tensor([[1 / n], [1 / PLASTIC], [1 / PLASTIC**2]]",
        "steps = torch.tensor([[1 / n], [1 / PLASTIC], [1 / PLASTIC]]",
    ),
    # Estimators
    Fault(
        "evidence of a penalty off by one dimension",
        "evidence = value + (len(h) - 1) / 2 * math.log(penalty)",
        "evidence = value + len(h) / 2 * math.log(penalty)",
    ),
    Fault(
        "smooth density of points that all count the same",
        "share = np.histogram(y.numpy(), edges, weights=counts)[0] / n",
        "share = np.histogram(y.numpy(), edges)[0] / len(y)",
    ),
    Fault(
        "rivals' densities without the slope of the coordinate",
        "log_q(units(y)).double() + units.log_slope(y)",
        "log_q(units(y)).double()",
    ),
    Fault(
        "evidence for a coordinate without its slope",
        "return found + counts.sum().item() * units.mean_log_slope(y, weights)",
        "return found",
    ),
    Fault(
        "a histogram through arsinh, with flat bands on slopes",
        "if not any(isinstance(bend, Arsinh) for bend in bends):",
        "if True:",
    ),
    # Data
    Fault(
        "training, validation and test points from one stream",
        "with seeded(seed, split, dtype=torch.float64):",
        "with seeded(seed, dtype=torch.float64):",
    ),
    Fault(
        "a density that grows towards an end from the left",
        "for side in (-1, 1):\n                log_p = self.log_prob(end + side * steps)",
        "for side in (1,):\n                log_p = self.log_prob(end + side * steps)",
    ),
    Fault(
        "teeth of the asymmetric claw the wrong way round",
        "[1] + [2**-k / 10 for k in range(-2, 3)],",
        "[1] + [2**k / 10 for k in range(-2, 3)],",
    ),
    Fault(
        "logit without the distance of the bounds",
        "length = self.high - self.low if len(bounded) == 2 else 1.0",
        "length = 1.0",
    ),
    Fault(
        "a point taken for a decimal mark beside decimal commas",
        'if "_" in text or (marks != PLAIN and not _pattern(marks).fullmatch(text)):',
        'if "_" in text:',
    ),
    Fault(
        "lines of a quoted cell not counted",
        "begins = number",
        "begins = n_rows + 1",
    ),
    Fault(
        "intervals of rounded values beyond a lower bound",
        "return (y - rounding / 2).clamp(min=bounds[0]), (y + rounding / 2)",
        "return y - rounding / 2, (y + rounding / 2)",
    ),
    # What all of it rests on
    Fault(
        "skewness of compressed points without their weights",
        "g = np.bincount(bins, w * deviation**3) / count",
        "g = np.bincount(bins, deviation**3) / count",
    ),
    Fault(
        "masked values taken for data",
        "masked = np.ma.getmaskarray(y) if isinstance(y, np.ma.MaskedArray) else None",
        "masked = None",
    ),
    Fault(
        "a seeded block moves the global random stream",
        "with torch.random.fork_rng(devices=[]):",
        "with torch.random.fork_rng(devices=[], enabled=False):",
    ),
    Fault(
        "a truth value taken for a count",
        "if isinstance(value, bool) or not isinstance(value, Integral) or value < least:",
        "if not isinstance(value, Integral) or value < least:",
    ),
    Fault(
        "threads of the caller not put back",
        "if torch.get_num_threads() != before:\n                torch.set_num_threads(before)",
        "if torch.get_num_threads() != before:\n                pass",
    ),
    Fault(
        "threads of BLAS left as they are",
        "with _blas().limit(limits=1) if is_outermost else nullcontext():",
        "with nullcontext():",
    ),
    Fault(
        "heaps told by the most frequent value alone",
        "return self.is_atom or self.repeated > SPIKES",
        "return self.is_atom",
    ),
    Fault(
        "steps not doubled for a drift that may be better",
        "if highest <= maps[best][0] and (best == 0 or best - 1 in valid):",
        "if True:",
    ),
    Fault(
        "weights of the best validation not restored",
        "vector_to_parameters(best[2], parameters)",
        "pass",
    ),
    Fault(
        "levels of a density whose mass is not divided out",
        "np.stack([np.interp(levels, c / c[-1], x_t) for c, x_t in zip(cdf, x, strict=True)])",
        "np.stack([np.interp(levels, c, x_t) for c, x_t in zip(cdf, x, strict=True)])",
    ),
    Fault(
        "a drift that depends on the order of the points",
        'same(" for points in another order", call(x.flip(0), t.flip(0)).flip(0))',
        "pass",
    ),
    Fault(
        "a drift of which autograd does not see all",
        "    over = missed > allowed\n",
        "    over = missed > missed\n",
    ),
    Fault(
        "distance from the truth on the test points, of values on others",
        "below = float(dataset.log_prob(dataset.val).mean()) - np.array(history.val)",
        "below = float(dataset.log_prob(dataset.test).mean()) - np.array(history.val)",
    ),
    Fault(
        "numbers of earlier cells overwritten",
        "known = _numbers.setdefault(stem, {})",
        "known = _numbers[stem] = {}",
    ),
    # Tools
    Fault(
        "a notebook that failed written in place",
        "in_place = options.in_place and not failed[path]",
        "in_place = options.in_place",
    ),
    Fault(
        "lower end of a sentence's range not checked",
        "return self.low <= self.value <= self.high",
        "return self.value <= self.high",
    ),
    Fault(
        "runs of other code taken for finished",
        "folder = CACHE / code_digest(notebooks)",
        "folder = CACHE",
    ),
    Fault(
        "answer left below the stub of an exercise",
        "lines[start : node.end_lineno] = stub",
        "lines[start:start] = stub",
    ),
    Fault(
        "links to a heading of the other notebook",
        r'r"^(\w+)\.ipynb(?=#|$)"',
        r'r"^(\w+)\.ipynb$"',
    ),
    Fault(
        "another objective where steps are checkpointed",
        "(log_det - x.square() / 2).mean().backward()",
        "(log_det - x.square()).mean().backward()",
    ),
    Fault(
        "weights not put back after a check of their gradient",
        "    finally:\n        move(0)",
        "    finally:\n        pass",
    ),
    Fault(
        "rows of another process overwritten",
        'with path.open("ab") as file:',
        'with open(os.open(path, os.O_RDWR | os.O_CREAT), "r+b") as file:',
    ),
]


def module_of(fault: Fault, root: Path = ROOT) -> Path:
    """The module that has a fault's old text, relative to the root; an error if it is not one."""
    texts = {path: path.read_text(encoding="utf-8") for path in (root / "dlutils").rglob("*.py")}
    found = [path for path, text in texts.items() for _ in range(text.count(fault.old))]
    if len(found) != 1:
        places = ", ".join(sorted(str(path.relative_to(root)) for path in found)) or "nowhere"
        raise SystemExit(f"the text of {fault.name!r} must be there once, it is: {places}")
    compile(texts[found[0]].replace(fault.old, fault.new), found[0], "exec")  # it is still Python
    return found[0].relative_to(root)


def files_for(module: Path, root: Path) -> list[str]:
    """The test files that mention a module, or what it defines, those first that are about it.

    They are those called after it or its package, then those that import it; of these the small
    ones first, but for those that load notebooks.
    """
    texts = {path: path.read_text(encoding="utf-8") for path in (root / "tests").glob("test_*.py")}
    quick = [path for path in texts if not re.fullmatch(SLOW, path.stem)]
    called = {f"test_{part}" for part in module.with_suffix("").parts}
    word = rf"\b{module.stem}\b"
    if not any(re.search(word, texts[path]) for path in quick):
        text = (root / module).read_text(encoding="utf-8")
        defined = re.findall(r"^(?:def|class) (\w+)", text, re.MULTILINE)
        word = rf"\b(?:{'|'.join(defined)})\b"
    imports = re.compile(rf"^(?:from|import) dlutils\b.*{word}", re.MULTILINE)

    def order(path: Path) -> tuple:
        text = texts[path]
        return path.stem not in called, not imports.search(text), "ipynb" in text, len(text)

    about = lambda path: path.stem in called or re.search(word, texts[path])
    found = list(filter(about, quick)) or list(filter(about, texts))
    return [str(path.relative_to(root)) for path in sorted(found, key=order)]


def try_one(config: Config) -> Row:
    """What became of a fault in a copy of what git knows, or would not ignore, of the tree.

    A test that fails without the fault too does not catch it.
    """
    fault = Fault(config["fault"], config["old"], config["new"])
    command = ["git", "ls-files", "-co", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout.decode()
    with TemporaryDirectory() as name:
        folder = Path(name)
        for file in filter(lambda file: (ROOT / file).is_file(), listed.split("\0")):
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / file, folder / file)
        module = module_of(fault, folder)
        right, chosen = (folder / module).read_text(encoding="utf-8"), files_for(module, folder)
        while True:
            wrong = right.replace(fault.old, fault.new)
            (folder / module).write_text(wrong, encoding="utf-8")
            by = first_failure(folder, chosen, config["limit"])
            (folder / module).write_text(right, encoding="utf-8")
            if "::" not in by or first_failure(folder, [by], config["limit"]) != by:
                break
            chosen += ["--deselect", by]
    caught = "no" if by in (NONE, OUT_OF_TIME) else "yes"
    return {"module": module.as_posix(), "caught": caught, "by": by}


def first_failure(folder: Path, arguments: Sequence[str], limit: float) -> str:
    """The test that fails first, `NONE`, or `OUT_OF_TIME` after so many seconds."""
    alone = {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    options |= {"cwd": folder, "env": os.environ | alone, "start_new_session": True}
    # tests interrupt loops, which a program that a shell runs in the background would not notice
    options |= {"preexec_fn": partial(signal.signal, signal.SIGINT, signal.SIG_DFL)}
    with subprocess.Popen([*PYTEST, *arguments], **options) as process:
        try:
            said, _ = process.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            return OUT_OF_TIME
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # and what it has started
    if process.returncode in (0, 5):  # 5: no test is left
        return NONE
    failed = re.search(r"^(?:FAILED|ERROR) (tests/.+?)(?: - .*)?$", said, re.MULTILINE)
    return failed[1] if failed else f"pytest ended with {process.returncode}"


def main(arguments: list[str] | None = None) -> int:
    """Plant faults in a copy of the package, one at a time, and run the tests on each."""
    parser = parser_of("benchmarks.planted_faults", main)
    parser.add_argument("--list", action="store_true", help="say where each would be, and end")
    parser.add_argument("--only", action="append", metavar="NAME", help="this fault, anew")
    parser.add_argument("--fresh", action="store_true", help="those that were tried before, too")
    parser.add_argument("--processes", type=int, default=cores(), help="default: %(default)s")
    parser.add_argument("--limit", type=float, default=240, help="seconds a run; %(default)s")
    options = parser.parse_args(arguments)
    if unknown := set(options.only or ()) - {fault.name for fault in FAULTS}:
        parser.error(f"there is no fault {min(unknown)!r}; --list has them all")
    places = [f"{module_of(fault).as_posix()}: {fault.name}" for fault in FAULTS]
    if options.list:
        print(*places, sep="\n")
        return 0
    configs = [
        {"fault": fault.name, "old": fault.old, "new": fault.new, "limit": options.limit}
        for fault in FAULTS
        if not options.only or fault.name in options.only
    ]
    results = RESULTS.with_stem("planted_faults_only") if options.only else RESULTS
    if options.fresh or options.only:
        results.unlink(missing_ok=True)
    threads = lambda: ThreadPoolExecutor(options.processes)
    try:
        run_all(try_one, configs, results, threads, retry_failed=True, label="faults")
    except KeyboardInterrupt:
        print("Interrupted. What was tried is kept; another start goes on with the rest.")
        return 130
    found = {row["run"]: row for row in load(results)}
    rows = []
    for config in configs:
        row = {"module": "?", "caught": "?", "by": "?"} | found[identity(config)]
        row["by"] = row.get("error", row["by"])
        rows.append({key: row[key] for key in ("fault", "module", "caught", "by")})
    print(markdown_table(rows))
    print(f"{sum(row['caught'] == 'yes' for row in rows)} of {len(rows)} caught")
    return 0


if __name__ == "__main__":
    sys.exit(main())
