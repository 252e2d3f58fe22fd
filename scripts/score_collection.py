"""Score a collection of any size with Ray Data: `python -m scripts.score_collection --help` lists the options."""

from __future__ import annotations

import sys

from collection.options import check_installed, parse_options
from winclip.command_line import exit_status


def main(arguments: list[str]) -> int:
    """Run and return the exit status: 0, or one of ``exit_status``."""

    def command() -> int:
        options = parse_options(arguments)
        check_installed()
        # Late, so that --help and mistyped options answer at once.
        from collection.run import run

        return run(options)

    return exit_status(command, "the same command goes on with what has no row yet")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
