"""One table over runs of test.py, data sets by numbers of shots, beside published figures.

    python -m scripts.make_tables results/mvtec results/visa
    python -m scripts.make_tables results/mvtec results/other --format latex > table.tex

A row holds the means over the classes of a run with a number of shots, with standard deviations over seeds and
intervals where the run has them. Runs of one data set need the same classes and images; notes below the table say where
runs differ in models, weights or options. The LaTeX needs the package booktabs.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from winclip.support.command_line import run_command


def main(arguments: list[str]) -> int:
    """Print the table and return the exit status: 0, or one of ``run_command``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="output folders of test.py")
    formats = ("markdown", "latex", "csv")
    parser.add_argument("--format", default="markdown", choices=formats, help="of the table (markdown)")
    options = parser.parse_args(arguments)
    return run_command(lambda: make_tables(options.runs, options.format))


def make_tables(runs: list[Path], form: str) -> int:
    """Print the table in a format and return 0; the notes of a CSV go to standard error.

    Raises:
        InputError: if anything given is wrong.
    """
    from evaluation.run_tables import tabulate_runs
    from winclip.support.names import printable

    table = tabulate_runs(runs)
    if form == "csv":
        sys.stderr.writelines(printable(f"note: {note}") + "\n" for note in table.notes)
    sys.stdout.write({"markdown": table.markdown, "latex": table.latex, "csv": table.csv}[form]())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
