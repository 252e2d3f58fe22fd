"""Lists a data set in the layout of VisA.

``split_csv/1cls.csv`` has the columns object, split, label, image and mask; the paths in it are
relative to the root.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path

from datasets.items import DatasetIndex, Item, stays_inside
from datasets.layout import Warn, assemble, choose_classes, found_in, list_folders
from datasets.mvtec import FolderLayout
from winclip.support.errors import InputError
from winclip.support.files import is_file, is_folder, read_text

# In the order of the published tables.
VISA_CLASSES = (
    "candle", "capsules", "cashew", "chewinggum", "fryum", "macaroni1", "macaroni2", "pcb1", "pcb2", "pcb3", "pcb4",
    "pipe_fryum",
)  # fmt: skip

_COLUMNS = ("object", "split", "label", "image", "mask")

# A row's fields, with the place to name in errors.
_Row = tuple[str, dict[str, str]]


def list_visa(root: Path, warn: Warn, *, all_classes: bool = False, allow_missing_masks: bool = False) -> DatasetIndex:
    """List the images of a data set in VisA's layout; ``root`` holds the class folders and ``split_csv``.

    A class without a folder is left out, so a copy of some classes works. Without ``split_csv``, a prepared
    copy is taken, whose folders are those of MVTec AD, in ``root`` or in ``1cls`` below it.

    Raises:
        InputError: if the file is missing or not as described, lists an image or mask that does not
            exist, or a class has no train or no test images; the message names the line or the image.
    """
    if not (root / "split_csv").is_dir():
        for place in (root, root / "1cls"):
            classes = [folder for folder in list_folders(place) if all_classes or folder.name in VISA_CLASSES]
            if any((folder / part).is_dir() for folder in classes for part in ("train", "test")):
                if place != root:
                    warn(f"the prepared copy is in {place}, so test.py takes --data_path {place}")
                layout = FolderLayout("VisA", VISA_CLASSES)
                return layout.index(place, warn, all_classes=all_classes, allow_missing_masks=allow_missing_masks)
    rows = _read_rows(root / "split_csv" / "1cls.csv")
    listed = sorted({row["object"] for _, row in rows})
    found = [name for name in listed if is_folder(root / name)]
    example = f"{root / VISA_CLASSES[0]}, whose images 1cls.csv lists"
    names = choose_classes("VisA", root, VISA_CLASSES, found, all_classes, warn, example)
    absent = [name for name in listed if name not in found and name not in VISA_CLASSES]
    if absent:
        warn(f"listed in 1cls.csv without a folder in {root}, left out: {', '.join(absent)}")
    expected = "the file that the column mask of 1cls.csv names"
    return assemble(root, _items(root, rows, names), warn, expected, allow_missing_masks)


def _read_rows(path: Path) -> list[_Row]:
    if not path.is_file():
        raise InputError(
            f"{path} does not exist; VisA's archive holds it, --root names the folder above split_csv;"
            f" {found_in(path.parent.parent)}"
        )
    text = read_text(path, "list of images")
    separator = max(",;\t", key=text.partition("\n")[0].count)
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=separator)
    try:
        found = reader.fieldnames = [name.strip().casefold() for name in reader.fieldnames or ()]
        missing = [column for column in _COLUMNS if column not in found]
        if missing:
            raise InputError(
                f"{path}: column {', '.join(missing)} is missing; expected the columns {', '.join(_COLUMNS)} and found"
                f" {', '.join(found) or 'none'}"
            )
        rows = [
            (f"{path}, line {reader.line_num}", {column: (row[column] or "").strip() for column in _COLUMNS})
            for row in reader
        ]
    except csv.Error as error:
        raise InputError(f"{path} is not a CSV file ({error})") from error
    for place, row in rows:
        row |= {column: row[column].casefold() for column in ("split", "label")}
        if not row["object"] or not stays_inside(row["object"]) or "/" in row["object"]:
            raise InputError(f"{place}: object is {row['object']!r}; expected the name of a class folder")
    return rows


def _items(root: Path, rows: list[_Row], names: list[str]) -> Iterator[tuple[str, Item]]:
    listed: set[str] = set()
    for place, row in rows:
        if row["object"] not in names:
            continue
        for column, expected in (("split", ("train", "test")), ("label", ("normal", "anomaly"))):
            if row[column] not in expected:
                raise InputError(f"{place}: {column} is {row[column]!r}; expected {' or '.join(expected)}")
        anomalous = row["label"] == "anomaly"
        image = _existing_path(root, place, "image", row["image"])
        if not image:
            raise InputError(f"{place}: image {row['image']!r} does not exist in {root}; complete the data set")
        if image in listed:
            raise InputError(f"{place}: image {image} is listed twice; take one out")
        listed.add(image)
        mask = _existing_path(root, place, "mask", row["mask"]) if anomalous else ""
        # The file names no defect types.
        yield row["split"], Item(image, mask, row["object"], "" if anomalous else "good", int(anomalous))


def _existing_path(root: Path, place: str, column: str, path: str) -> str:
    """The path with forward slashes; empty if there is no such file in the root."""
    if not stays_inside(path):
        raise InputError(f"{place}: {column} {path!r} leads out of {root}; expected a path relative to it")
    path = path.replace("\\", "/")
    return path if path and is_file(root / path) else ""
