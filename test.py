"""Evaluate WinCLIP on a data set: `python test.py --help` lists the options."""

from __future__ import annotations

import logging
import sys

from evaluation.options import parse_options
from winclip.support.command_line import run_command


def main(arguments: list[str]) -> int:
    """Run and return the exit status: 0, 1 if a check found something, or one of ``run_command``."""
    return run_command(lambda: _evaluate(arguments), "the same command goes on where this one stopped")


def _evaluate(arguments: list[str]) -> int:
    options = parse_options(arguments)
    # Late, so that --help and mistyped options answer at once.
    if options.check_data:
        from evaluation.check_data import check_data

        text, status = check_data(options)
        print(text)
        return status
    from evaluation.run import run

    outcome = run(options)
    if outcome.text:
        print(outcome.text, flush=True)
    # On standard error, since standard output is tables.md.
    for path in outcome.files:
        logging.getLogger("winclip").info("written: %s", path)
    return outcome.status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
