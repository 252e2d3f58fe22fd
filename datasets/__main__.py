"""Writes ``meta.json`` for a data set: ``python -m datasets NAME --root DIR``; ``--names`` lists those with tables."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from datasets.index import META_FILE, write_index
from datasets.items import DatasetIndex
from datasets.layout import ARCHIVE_FOLDER, mask_files
from datasets.registry import DATA_SETS, DataSet, default_root, with_published_tables
from winclip.defaults import IMAGE_ENDINGS
from winclip.support.command_line import run_command
from winclip.support.files import exists, is_folder
from winclip.support.names import counted, printable


def main(words: Sequence[str]) -> int:
    """Run the command line; returns the exit status: 0, or one of ``run_command``."""
    parser = build_parser()
    options = parser.parse_args(words)
    if options.names:
        print("\n".join(with_published_tables()))
        return 0
    if options.name is None:
        parser.error(f"name a data set, one of {', '.join(DATA_SETS)}")
    return run_command(lambda: _write(DATA_SETS[options.name], options))


def build_parser() -> argparse.ArgumentParser:
    """The parser, with a subparser for each data set; imports nothing heavy."""
    parser = argparse.ArgumentParser(prog="python -m datasets", description="List a data set in DIR/meta.json.")
    parser.add_argument("--names", action="store_true", help="print the data sets with published tables")
    kinds = parser.add_subparsers(dest="name", metavar="NAME")
    helps = {
        "all_classes": "also take classes that the published data set lacks",
        "allow_missing_masks": "also list anomalous images without a mask",
        "good": "more names of folders of good images, such as normal or OK",
    }
    for name, data_set in DATA_SETS.items():
        prog = f"{name}.py" if data_set.published else f"python -m datasets {name}"
        text = f"List the images of {data_set.title} in DIR/meta.json, which test.py reads."
        kind = kinds.add_parser(name, prog=prog, help=data_set.title, description=text)
        kind.add_argument("--root", metavar="DIR", type=Path, default=default_root(name), help="default: %(default)s")
        for choice in data_set.choices:
            how: dict[str, Any] = {"nargs": "+", "default": (), "metavar": "NAME"} if choice == "good" else {}
            kind.add_argument(f"--{choice}", **(how or {"action": "store_true"}), help=helps[choice])
    return parser


def _write(data_set: DataSet, options: argparse.Namespace) -> int:
    choices = {choice: getattr(options, choice) for choice in data_set.choices}
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
    counts = {}
    for name in sorted(index.test):
        anomalous = sum(item.anomaly for item in index.test[name])
        counts[name] = (len(index.train[name]), len(index.test[name]) - anomalous, anomalous)
    train, normal, anomalous = map(sum, zip(*counts.values()))
    width = max(len("class"), *map(len, counts))
    lines = [f"{'class':<{width}}   train  normal  anomalous"]
    for name, row in (*counts.items(), ("all", (train, normal, anomalous))):
        lines.append(f"{name:<{width}}  {row[0]:>6}  {row[1]:>6}  {row[2]:>9}")
    test = counted(normal + anomalous, "test image")
    trained = counted(train, "train image")
    lines.append(f"{test}: {normal} normal and {anomalous} anomalous; {trained}")
    return "\n".join(lines)


def account(data_set: DataSet, index: DatasetIndex) -> str:
    """How many files are below the root, how many of them are listed and, for each reason, how many are not.

    Returns:
        Several lines; the first file of each reason is named.
    """
    items = [item for part in (index.train, index.test) for of_class in part.values() for item in of_class]
    listed = {
        PurePosixPath(path) for item in items for path in (item.img_path, *mask_files(index.root, item.mask_path))
    }
    folders = {path.parts[0] for path in listed}
    seen = 0
    left_out: dict[str, list[str]] = {}
    for path in _files(str(index.root), frozenset()):
        below = PurePosixPath(Path(path).relative_to(index.root).as_posix())
        if str(below) == META_FILE:
            continue
        seen += 1
        if below not in listed:
            why = _why_not(below.parts, data_set, folders) if exists(path) else "a link to nothing"
            left_out.setdefault(why, []).append(str(below))
    count = sum(map(len, left_out.values()))
    listed_count = counted(seen - count, "is listed as an image or mask", "are listed as images or masks")
    lines = [f"{counted(seen, 'file')}: {listed_count}, {count} left out{':' if count else ''}"]
    lines += [f"  {len(paths)} {why}; the first is {printable(paths[0])}" for why, paths in sorted(left_out.items())]
    return "\n".join(lines)


def _why_not(parts: tuple[str, ...], data_set: DataSet, folders: set[str]) -> str:
    if any(part.startswith(".") or part == ARCHIVE_FOLDER for part in parts):
        return "hidden, or of an archive program"
    if not parts[-1].lower().endswith(IMAGE_ENDINGS):
        return f"with another ending than {' '.join(IMAGE_ENDINGS)}"
    if len(parts) == 1 or parts[0] not in folders:
        return "in no class folder that is listed"
    return data_set.why_not if isinstance(data_set.why_not, str) else data_set.why_not(parts)


def _files(folder: str, above: frozenset[str]) -> Iterator[str]:
    """All files below a folder, in sorted order; links are followed, but not into a folder that they are in."""
    real = os.path.realpath(folder)
    if real in above:
        return
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:  # a folder that cannot be read counts as one file, and is left out
        if above:
            yield folder
        return
    for entry in entries:
        if is_folder(entry.path):
            yield from _files(entry.path, above | {real})
        else:
            yield entry.path


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
