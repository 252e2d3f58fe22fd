"""Score photographs of your own: `python predict.py --help` lists the options."""

from __future__ import annotations

import sys

from prediction.options import parse_options
from winclip.command_line import exit_status


def main(arguments: list[str]) -> int:
    """Run and return the exit status: 0, 2 after bad input or if no picture could be read, 130 after Ctrl-C."""

    def command() -> int:
        options = parse_options(arguments)
        # Late, so that --help and mistyped options answer at once.
        from prediction.run import run

        return run(options)

    try:
        return exit_status(command)
    except KeyboardInterrupt:
        print(
            "stopped; rows that are in the output folder are complete, and --resume goes on behind them",
            file=sys.stderr,
        )
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
