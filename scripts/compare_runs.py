"""Tell whether two runs of test.py differ: every figure's difference with its interval, paired by image.

    python -m scripts.compare_runs results/zero results/four
    python -m scripts.compare_runs results/mvtec results/mvtec --k_shot 0 4

Figures are taken of the images that both runs scored, from scores/ in the output folders of test.py. Prints a
table, and writes it as comparison.md, with comparison.csv and comparison.svg.
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from winclip.support.command_line import run_command


def build_parser() -> argparse.ArgumentParser:
    """The parser; imports nothing heavy."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs=2, metavar="RUN", help="output folders of test.py")
    parser.add_argument(
        "--k_shot",
        type=int,
        nargs=2,
        metavar=("A", "B"),
        default=(None, None),
        help="shots of each run (its only ones)",
    )
    parser.add_argument(
        "--variant", nargs=2, metavar=("A", "B"), default=(None, None), help="variant of each run (its only ones)"
    )
    parser.add_argument(
        "--save_path", type=Path, metavar="DIR", default=Path("results/comparison"), help="output (results/comparison)"
    )
    return parser


def main(arguments: list[str]) -> int:
    """Compare and return the exit status: 0, or one of ``run_command``."""
    options = build_parser().parse_args(arguments)
    return run_command(lambda: compare_runs(options))


def compare_runs(options: argparse.Namespace) -> int:
    """Compare as the options say and return 0.

    Raises:
        InputError: if anything given is wrong, or the folder cannot be written.
    """
    from evaluation.comparison import compare
    from evaluation.past_run import read_run
    from evaluation.results import markdown
    from winclip.support.command_line import log_to_terminal
    from winclip.support.files import lock_folder, write_atomically

    log_to_terminal(logging.getLogger("winclip"))
    first, second = map(read_run, options.runs)
    comparison = compare((first, second), options.k_shot, options.variant)
    shown = markdown([comparison.table()])
    with lock_folder(options.save_path):
        for name, content in (
            ("comparison.md", shown),
            ("comparison.csv", comparison.csv()),
            ("comparison.svg", comparison.drawing()),
        ):
            write_atomically(options.save_path / name, content)
    print(shown)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
