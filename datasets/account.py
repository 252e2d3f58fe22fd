"""What became of every file in a data set's folder: listed, or left out and why."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from datasets.index import META_FILE
from datasets.items import DatasetIndex
from datasets.layout import ARCHIVE_FOLDER, mask_files
from datasets.registry import DataSet
from winclip.defaults import IMAGE_ENDINGS
from winclip.support.files import exists, is_folder
from winclip.support.names import printable


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
    lines = [f"{seen} files: {seen - count} are listed as images or masks, {count} left out{':' if count else ''}"]
    lines += [f"  {len(paths)} {why}; the first is {printable(paths[0])}" for why, paths in sorted(left_out.items())]
    return "\n".join(lines)


def _why_not(parts: tuple[str, ...], data_set: DataSet, folders: set[str]) -> str:
    if any(part.startswith(".") or part == ARCHIVE_FOLDER for part in parts):
        return "hidden, or of an archive program"
    if not parts[-1].lower().endswith(IMAGE_ENDINGS):
        return f"with another ending than {' '.join(IMAGE_ENDINGS)}"
    if len(parts) == 1 or parts[0] not in folders:
        return "in no class folder that is listed"
    return data_set.why_not(parts)


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
