"""One table over runs of test.py, data sets by numbers of shots, beside what is published of them.

    python -m scripts.make_tables results/mvtec results/visa
    python -m scripts.make_tables results/mvtec results/other --format latex > table.tex

A row holds the means over the classes of a run with a number of shots, with standard deviations over seeds and
intervals where the run has them. Runs of one data set need the same classes and images; where runs were made with other
models, weights or options, notes below the table say so. The LaTeX needs the package booktabs.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from winclip.support.command_line import exit_status


def build_parser() -> argparse.ArgumentParser:
    """The parser; imports nothing heavy."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="output folders of test.py")
    parser.add_argument(
        "--format", default="markdown", choices=("markdown", "latex", "csv"), help="of the table (markdown)"
    )
    return parser


def main(arguments: list[str]) -> int:
    """Print the table and return the exit status: 0, or one of ``exit_status``."""
    options = build_parser().parse_args(arguments)
    return exit_status(lambda: make_tables(options))


def make_tables(options: argparse.Namespace) -> int:
    """Print the table as the options say and return 0; a CSV has its notes on standard error.

    Raises:
        InputError: if anything given is wrong.
    """
    from evaluation.run_tables import tabulate_runs
    from winclip.support.names import printable

    table = tabulate_runs(options.runs)
    if options.format == "csv":
        for note in table.notes:
            print(printable(f"note: {note}"), file=sys.stderr)
    text = {"markdown": table.markdown, "latex": table.latex, "csv": table.csv}[options.format]()
    sys.stdout.write(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
