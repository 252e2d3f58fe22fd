"""Reads, checks and writes ``meta.json``, the list of a data set's images.

``{"train": {CLASS: [ITEM...]}, "test": {CLASS: [ITEM...]}}``; the fields of an ITEM are those of
:class:`datasets.items.Item`. Any class names work: nothing here knows a particular data set.
"""

from __future__ import annotations

import difflib
import filecmp
import json
import os
import reprlib
from collections.abc import Iterable, Sequence
from dataclasses import asdict, fields, replace
from operator import itemgetter
from os import PathLike
from pathlib import Path
from typing import Any

from datasets.items import DatasetIndex, Item, stays_inside
from datasets.layout import mask_files
from winclip.support.errors import InputError
from winclip.support.files import is_file, read_json, write_atomically
from winclip.support.names import counted, printable

META_FILE = "meta.json"
_HOW_TO_MAKE = (
    "make it with `python mvtec.py --root DIR`, `python visa.py --root DIR` or `python -m datasets NAME --root DIR`,"
    " where --help lists the names"
)
_REPR = reprlib.Repr()
_REPR.maxstring = 300
_FIELDS = [field.name for field in fields(Item)]


def load_index(root: str | PathLike[str]) -> DatasetIndex:
    """Read and check ``root/meta.json``. The images themselves are not touched.

    Raises:
        InputError: if the folder or the file is missing (the message says which command makes it),
            it is not JSON of the form above, or a path in it leads out of the root; the message
            names the file, the split, the class and the number of the entry, counted from 0.
    """
    folder = Path(root)
    path = folder / META_FILE
    if not folder.is_dir():
        raise InputError(f"data set folder {folder} does not exist; put the data set there or name its place")
    if not path.is_file():
        raise InputError(f"{path} does not exist; {_HOW_TO_MAKE}")
    try:
        content = read_json(path, "list of images")
    except InputError as error:
        raise InputError(f"{error}; {_HOW_TO_MAKE}") from error
    if not isinstance(content, dict):
        raise InputError(f'{path}: expected {{"train": ..., "test": ...}} and found {_REPR.repr(content)}')
    train, test = (_read_part(path, content, part) for part in ("train", "test"))
    if not test:
        raise InputError(f"{path}: test lists no class; {_HOW_TO_MAKE}")
    return DatasetIndex(folder, {name: train.get(name, []) for name in [*test, *train]}, test)


def write_index(index: DatasetIndex) -> Path:
    """Write ``meta.json`` to the index's root, complete or not at all, and return its path.

    Classes and items are sorted, so that the same data set gives the same bytes on every machine.

    Raises:
        InputError: if the root cannot be written to, or ``load_index`` would refuse a name.
    """
    path = index.root / META_FILE
    content = {
        part: {name: sorted(map(asdict, items), key=itemgetter("img_path")) for name, items in sorted(classes.items())}
        for part, classes in (("train", index.train), ("test", index.test))
    }
    for part in content:
        _read_part(path, content, part)
    write_atomically(path, json.dumps(content, indent=2) + "\n")
    return path


def select_classes(index: DatasetIndex, names: Sequence[str] | None) -> list[str]:
    """Check class names and put them in the order of the data set.

    Args:
        index: the data set.
        names: wanted classes in any order; None takes all.

    Raises:
        InputError: if a class is not in the test split (the message names near matches or, without any,
            all classes), or if ``names`` is empty.
    """
    if names is None:
        return list(index.test)
    if not names:
        raise InputError(f"no class is named; the data set in {index.root} has: {', '.join(index.test)}")
    for name in names:
        if name not in index.test:
            near = difflib.get_close_matches(name, index.test)
            hint = f"did you mean {' or '.join(near)}?" if near else f"it has: {', '.join(index.test)}"
            raise InputError(f"class {name} is not in the data set in {index.root}; {hint}")
    return [name for name in index.test if name in names]


def check_files(index: DatasetIndex, classes: Iterable[str], references: Iterable[Item] = ()) -> None:
    """Check that every file a run will read exists, before it begins.

    Args:
        index: the data set.
        classes: their test images are looked for, and the masks of the anomalous ones.
        references: train items that the run uses; only their images are looked for.

    Raises:
        InputError: if files are missing; the message names the first and says how many there are.
    """
    wanted = _wanted(index, classes, references)
    missing = [path for path in wanted if not is_file(index.root / path)]
    if missing:
        raise InputError(
            f"{wanted[missing[0]]} {index.root / missing[0]} does not exist ({len(missing)} of"
            f" {counted(len(wanted), 'file')} missing); complete the data set or write its {META_FILE} again"
        )


def refuse_links(index: DatasetIndex, classes: Iterable[str], references: Iterable[Item] = ()) -> None:
    """Check that no link leads from a file that a run will read out of the data set folder.

    Args:
        index, classes, references: as in ``check_files``.

    Raises:
        InputError: if one does; the message names it and where it lies.
    """
    for path, what in _wanted(index, classes, references).items():
        real = outside(index.root, path)
        if real:
            raise InputError(
                f"{what} {index.root / path} leads by a link to {real}, outside of the data set folder; if your data"
                " set is made of links, add --allow_links"
            )


def same_pictures(root: Path, train: Iterable[Item], test: Iterable[Item]) -> list[tuple[str, str]]:
    """Pairs of paths, of a test and a train image, that are one file or two with the same bytes.

    For files of equal size, some bytes in the middle are compared first, then all.
    """
    parts: list[dict[int, list[str]]] = [{}, {}]
    for items, by_size in zip((train, test), parts):
        for item in items:
            if is_file(root / item.img_path):
                by_size.setdefault((root / item.img_path).stat().st_size, []).append(item.img_path)
    pairs = []
    for size in parts[0].keys() & parts[1].keys():
        middles: dict[bytes, list[str]] = {}
        for path in parts[0][size]:
            middles.setdefault(_middle(root / path, size), []).append(path)
        for path in parts[1][size]:
            for other in middles.get(_middle(root / path, size), ()):
                if filecmp.cmp(root / path, root / other, shallow=False):
                    pairs.append((path, other))
    return sorted(pairs)


def _middle(path: Path, size: int) -> bytes:
    with path.open("rb") as file:
        file.seek(size // 2)
        return file.read(4096)


def outside(root: Path, path: str) -> str:
    """The real path of a file that a link leads out of the root of its data set; empty for other files."""
    inside, real = os.path.realpath(root), os.path.realpath(root / path)
    return "" if Path(real).is_relative_to(inside) else real


def _wanted(index: DatasetIndex, classes: Iterable[str], references: Iterable[Item]) -> dict[str, str]:
    """The files that a run will read, and what each is."""
    wanted: dict[str, str] = {}
    for item in [*(item for name in classes for item in index.test[name]), *references]:
        wanted[item.img_path] = "image"
        if item.anomaly:
            for path in mask_files(index.root, item.mask_path):
                wanted.setdefault(path, "mask")
    return wanted


def _read_part(path: Path, content: dict[str, Any], part: str) -> dict[str, list[Item]]:
    classes = content.get(part)
    if not isinstance(classes, dict):
        raise InputError(f"{path}: {part}: expected classes with their images and found {_REPR.repr(classes)}")
    items: dict[str, list[Item]] = {}
    for cls_name, entries in classes.items():
        place = f"{path}: {part}, class {cls_name!r}"
        # Class names become file names and table cells, and ``mean`` is the name of the row of means.
        forbidden = cls_name in ("", ".", "..", "mean") or "/" in cls_name or "\\" in cls_name
        if forbidden or printable(cls_name) != cls_name:
            raise InputError(
                f"{place}: a class name cannot be empty, dots or mean, or hold slashes, line breaks or control"
                " characters; rename it"
            )
        if not isinstance(entries, list) or (part == "test" and not entries):
            raise InputError(f"{place}: expected a list of images and found {_REPR.repr(entries)}")
        items[cls_name], seen = [], set[str]()
        for number, entry in enumerate(entries):
            place = f"{path}: {part}, class {cls_name}, entry {number}"
            item = _read_item(place, entry, cls_name)
            if "\\" in item.img_path and not is_file(path.parent / item.img_path):  # written on Windows
                item = replace(item, **{f: getattr(item, f).replace("\\", "/") for f in ("img_path", "mask_path")})
            if item.img_path in seen:
                raise InputError(f"{place}: {item.img_path} is listed twice; take one out")
            if part == "train" and item.anomaly:
                raise InputError(f"{place}: anomaly is 1; training images must be normal")
            seen.add(item.img_path)
            items[cls_name].append(item)
    return items


def _read_item(place: str, entry: object, cls_name: str) -> Item:
    if not isinstance(entry, dict):
        raise InputError(f"{place}: expected an object with {', '.join(_FIELDS)} and found {_REPR.repr(entry)}")
    for field in _FIELDS:
        if field not in entry:
            raise InputError(f"{place}: {field} is missing")
        expected = _wrong(field, entry[field], cls_name)
        if expected:
            raise InputError(f"{place}: {field} is {_REPR.repr(entry[field])}; expected {expected}")
    return Item(**{field: entry[field] for field in _FIELDS})


def _wrong(field: str, value: object, cls_name: str) -> str:
    """What a field should hold if its value is wrong, else empty."""
    if field == "anomaly":
        # `type`, because True and 1.0 also equal 1.
        return "" if type(value) is int and value in (0, 1) else "0 or 1"
    # JSON can hold lone surrogates, which cannot be written to result files, and NUL, which no path can hold.
    if not isinstance(value, str) or any(sign == "\0" or "\ud800" <= sign <= "\udfff" for sign in value):
        return "valid Unicode text"
    if field == "cls_name" and value != cls_name:
        return f"{cls_name!r}, the class it is listed under"
    if (field in ("img_path", "mask_path") and not stays_inside(value)) or (field == "img_path" and not value):
        return "a path relative to the data set folder that does not lead out of it"
    return ""
