"""The command `python -m dlutils.tools.sweep`."""

import sys
from contextlib import nullcontext
from pathlib import Path

from dlutils.processes import cores
from dlutils.tables import markdown_table
from dlutils.tools.commands import parser_of, told
from dlutils.tools.sweep.grid import read, train_and_measure
from dlutils.tools.sweep.jobs import dask_cluster, process_pool, run_all
from dlutils.tools.sweep.results import load, summarize


def main(arguments: list[str] | None = None) -> int:
    """Train over the grid of a TOML file; the same command goes on where it was stopped."""
    parser = parser_of("dlutils.tools.sweep", main)
    parser.add_argument("config", type=Path, help="TOML: notebook, dataset and lists of settings")
    parser.add_argument("--results", type=Path, help="JSON lines; default: CONFIG with .jsonl")
    parser.add_argument(
        "--workers", type=int, default=cores(), help="processes; default: %(default)s"
    )
    parser.add_argument("--scheduler", metavar="ADDRESS", help="of a Dask cluster, in their place")
    parser.add_argument("--retry-failed", action="store_true", help="run those again that failed")
    options = parser.parse_args(arguments)
    path = options.results or options.config.with_suffix(".jsonl")
    if options.workers < 1:
        parser.error(f"--workers must be at least 1, not {options.workers}")
    try:
        with told(parser):
            configs = read(options.config)
            if options.scheduler:
                executors = dask_cluster(options.scheduler)
            else:
                executors = nullcontext(process_pool(options.workers, ["dlutils.tools.sweep.grid"]))
            with executors as make_executor:
                retry, label = options.retry_failed, options.config.name
                failed = run_all(
                    train_and_measure, configs, path, make_executor, retry_failed=retry, label=label
                )
    except KeyboardInterrupt:
        print(f"stopped; the same command goes on. Results: {path}", file=sys.stderr)
        return 130
    print(f"{len(configs)} runs, {failed} failed: {path}")
    rows = [row for row in load(path) if row["status"] == "done"]
    if rows:
        keys = dict.fromkeys(key for config in configs for key in config if key != "seed")
        varied = [key for key in keys if len({str(c[key]) for c in configs if key in c}) > 1]
        table = summarize(rows, varied or ["dataset"], ("normalized_kl", "test", "mass", "seconds"))
        dash = lambda value: "–" if value is None else value
        print(markdown_table([{key: dash(row[key]) for key in row} for row in table]))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
