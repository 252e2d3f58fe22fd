"""Evaluate WinCLIP on a data set: `python test.py --help` lists the options."""

from __future__ import annotations

import sys

from evaluation.options import parse_options
from winclip.errors import InputError


def main(arguments: list[str]) -> int:
    """Run and return the exit status: 0, 2 after bad input, 130 after Ctrl-C."""
    try:
        options = parse_options(arguments)
        # Late, so that --help and mistyped options answer at once.
        from evaluation.run import run

        print(run(options))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; classes finished so far are in the output folder", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
