"""All benchmarks, one after the other, each in a process of its own: `make bench`."""

import argparse
import subprocess
import sys
import time

NAMES = (
    "ode_iteration",
    "speedrun",
    "flow_matching",
    "sde_closed_form",
    "objectives",
    "sde_step",
    "variance",
    "sweep",
    "marron_wand",
)


def main() -> int:
    """Run every benchmark; tables go to build/benchmarks as Markdown and CSV."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=main.__doc__)
    parser.add_argument("--quick", action="store_true", help="all in a few minutes")
    quick = ["--quick"] if parser.parse_args().quick else []
    start = time.perf_counter()
    for number, name in enumerate(NAMES, start=1):
        print(f"\n[{number}/{len(NAMES)}] {name}", flush=True)
        fresh = ["--fresh"] if name in ("marron_wand", "sde_closed_form") else []
        done = subprocess.run([sys.executable, "-m", f"benchmarks.{name}", *quick, *fresh])
        if done.returncode:
            print(f"benchmarks.{name} failed", file=sys.stderr)
            return done.returncode
    print(f"all benchmarks: {(time.perf_counter() - start) / 60:.1f} minutes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
