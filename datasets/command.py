"""The command line that writes a data set's ``meta.json``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from datasets.account import account
from datasets.index import write_index
from datasets.items import DatasetIndex
from datasets.registry import DATA_SETS, DataSet, default_root
from winclip.support.command_line import exit_status
from winclip.support.names import printable


def run(name: str, arguments: Sequence[str] | None = None) -> int:
    """List a data set as the arguments say (by default those of the process), and print how much it holds.

    Returns:
        The exit status: 0, or one of ``exit_status``.
    """
    data_set = DATA_SETS[name]
    options = build_parser(data_set).parse_args(arguments)
    return exit_status(lambda: _write(data_set, options))


def build_parser(data_set: DataSet) -> argparse.ArgumentParser:
    """The parser for a data set; imports nothing heavy."""
    parser = argparse.ArgumentParser(
        prog=data_set.script.removeprefix("python ") or data_set.command,
        description=f"List the images of {data_set.title} in DIR/meta.json, which test.py reads.",
    )
    root = default_root(data_set.name)
    parser.add_argument("--root", metavar="DIR", type=Path, default=root, help="default: %(default)s")
    helps = {
        "all_classes": "also take classes that are not of the published data set",
        "allow_missing_masks": "list anomalous images that have no mask too",
    }
    for choice in data_set.choices:
        parser.add_argument(f"--{choice}", action="store_true", help=helps[choice])
    return parser


def _write(data_set: DataSet, options: argparse.Namespace) -> int:
    choices = {name: value for name, value in vars(options).items() if name != "root"}
    index = data_set.lister(options.root, lambda text: print(f"warning: {printable(text)}", file=sys.stderr), **choices)
    path = write_index(index)
    if data_set.licence:
        print(data_set.terms)
    print(summary(index))
    print(account(data_set, index))
    print(f"written: {printable(str(path))}")
    return 0


def summary(index: DatasetIndex) -> str:
    """A table of the images listed per class and in all, several lines."""
    width = max(len("class"), *(len(name) for name in index.test))
    lines = [f"{'class':<{width}}   train  normal  anomalous"]
    totals = [0, 0, 0]
    for name in sorted(index.test):
        anomalous = sum(item.anomaly for item in index.test[name])
        counts = [len(index.train[name]), len(index.test[name]) - anomalous, anomalous]
        totals = [total + count for total, count in zip(totals, counts)]
        lines.append(f"{name:<{width}}  {counts[0]:>6}  {counts[1]:>6}  {counts[2]:>9}")
    train, normal, anomalous = totals
    lines.append(f"{'all':<{width}}  {train:>6}  {normal:>6}  {anomalous:>9}")
    lines.append(f"{normal + anomalous} test images: {normal} normal and {anomalous} anomalous; {train} train images")
    return "\n".join(lines)
