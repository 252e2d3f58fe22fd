"""What the commands that write a ``meta.json`` share: listing folders, the report, the options."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from datasets.index import DatasetIndex, write_index
from winclip.errors import InputError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")

Warn = Callable[[str], None]


def list_images(folder: Path) -> list[Path]:
    """The image files of a folder, sorted by name; none if there is no such folder.

    Images are known by their ending, in upper or lower case. Hidden files are left out.

    Raises:
        InputError: if the folder cannot be read.
    """
    return [path for path in _list(folder) if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()]


def list_folders(folder: Path) -> list[Path]:
    """The folders of a folder, sorted by name, without hidden ones and those of archive programs."""
    return [path for path in _list(folder) if path.is_dir() and path.name != "__MACOSX"]


def _list(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    try:
        paths = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise InputError(f"folder {folder} cannot be read ({error.strerror})") from error
    for path in paths:
        if any("\ud800" <= sign <= "\udfff" for sign in path.name):
            raise InputError(f"the name of {str(path)!r} is not valid Unicode; rename it")
    return paths


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


def require_root(root: Path) -> None:
    """Raises: InputError: if the data set folder does not exist."""
    if not root.is_dir():
        raise InputError(f"data set folder {root} does not exist; name its place with --root")


def report_error(error: InputError) -> int:
    """Print an error the way every entry point does and return the exit status."""
    print(f"error: {error}", file=sys.stderr)
    return 2


def run(
    data_set: str,
    default_root: str,
    list_items: Callable[[Path, bool, bool, Warn], DatasetIndex],
    arguments: Sequence[str] | None = None,
) -> int:
    """The command line of mvtec.py and visa.py.

    Args:
        data_set: its name, for the help text.
        default_root: where it is if ``--root`` is not given.
        list_items: called with the root, ``--all_classes``, ``--allow_missing_masks`` and a function
            that prints a warning.
        arguments: instead of those of the process.

    Returns:
        The exit status: 0, or 2 after an error that is printed.
    """
    parser = argparse.ArgumentParser(
        description=f"List the images of {data_set} in DIR/meta.json, which test.py reads."
    )
    parser.add_argument("--root", metavar="DIR", type=Path, default=Path(default_root), help="default: %(default)s")
    parser.add_argument(
        "--all_classes", action="store_true", help="also take classes that are not of the published data set"
    )
    parser.add_argument(
        "--allow_missing_masks", action="store_true", help="list anomalous images that have no mask too"
    )
    options = parser.parse_args(arguments)
    try:
        index = list_items(
            options.root,
            options.all_classes,
            options.allow_missing_masks,
            lambda text: print(f"warning: {text}", file=sys.stderr),
        )
        path = write_index(index)
    except InputError as error:
        return report_error(error)
    print(summary(index))
    print(f"written: {path}")
    return 0
