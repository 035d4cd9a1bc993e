"""All benchmarks, one after the other, each in a process of its own: `make bench`."""

import json
import subprocess
import sys
import time

from benchmarks.common import FOLDER
from dlutils.tools.commands import parser_of

NAMES = (
    "ode_iteration",
    "speedrun",
    "flow_matching",
    "sde_closed_form",
    "objectives",
    "peers_likelihood",
    "own_data",
    "sde_step",
    "variance",
    "parameterizations",
    "sweep",
    "density",
    "censored",
    "fit_time",
    "hellinger",
    "leaderboard",
)


def main(arguments: list[str] | None = None) -> int:
    """Run every benchmark; tables go to build/benchmarks as Markdown and CSV.

    A run that was killed goes on where it was; after a whole one the next begins anew.
    """
    parser = parser_of("benchmarks", main)
    parser.add_argument("--quick", action="store_true", help="all in a few minutes")
    quick = ["--quick"] if parser.parse_args(arguments).quick else []
    record = FOLDER / f"finished{'_quick' if quick else ''}.json"
    seconds = json.loads(record.read_text(encoding="utf-8")) if record.exists() else {}
    for number, name in enumerate(NAMES, start=1):
        print(f"\n[{number}/{len(NAMES)}] {name}", flush=True)
        if name in seconds:
            print(f"finished before, in {seconds[name]:.0f} s")
            continue
        start = time.perf_counter()
        done = subprocess.run([sys.executable, "-m", f"benchmarks.{name}", *quick])
        if done.returncode:
            print(f"benchmarks.{name} failed", file=sys.stderr)
            return done.returncode
        seconds[name] = time.perf_counter() - start
        record.write_text(json.dumps(seconds), encoding="utf-8")
    print(f"all benchmarks: {sum(seconds.values()) / 60:.1f} minutes")
    record.unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main())
