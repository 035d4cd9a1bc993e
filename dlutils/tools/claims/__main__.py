"""The command `python -m dlutils.tools.claims`."""

import sys
from pathlib import Path

from dlutils.tools.claims.checking import CLAIMS, FIGURES, check, load, messages
from dlutils.tools.claims.spread import spread
from dlutils.tools.commands import parser_of, told


def main(arguments: list[str] | None = None) -> int:
    """Say which sentences do not hold for the tables in figures/, or with other seeds."""
    parser = parser_of("dlutils.tools.claims", main)
    parser.add_argument("--claims", type=Path, default=CLAIMS, help="default: %(default)s")
    parser.add_argument("--figures", type=Path, default=FIGURES, help="default: %(default)s")
    parser.add_argument(
        "--seeds", type=int, metavar="N", help="run the notebooks with SEED = 0, ..., N - 1"
    )
    parser.add_argument("--again", action="store_true", help="with --seeds: all runs anew")
    options = parser.parse_args(arguments)
    with told(parser):
        claims, _ = load(options.claims)
    if options.seeds is not None:
        if options.seeds < 1:
            parser.error(f"--seeds takes 1 or more, not {options.seeds}")
        return spread(claims, options.seeds, again=options.again)
    wrong = messages(check(claims, options.figures))
    print(*wrong, f"{len(claims)} sentences, {len(wrong)} do not hold here", sep="\n")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
