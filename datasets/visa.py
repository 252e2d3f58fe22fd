"""Lists a data set in the layout of VisA.

``split_csv/1cls.csv`` has the columns object, split, label, image and mask; the paths in it are
relative to the root.
"""

from __future__ import annotations

import csv
import io
from pathlib import Path

from datasets.items import DatasetIndex, Item, stays_inside
from datasets.layout import Warn, found_in, require_root
from winclip.support.errors import InputError
from winclip.support.files import is_file, is_folder, read_text

# In the order of the published tables.
VISA_CLASSES = (
    "candle",
    "capsules",
    "cashew",
    "chewinggum",
    "fryum",
    "macaroni1",
    "macaroni2",
    "pcb1",
    "pcb2",
    "pcb3",
    "pcb4",
    "pipe_fryum",
)

_COLUMNS = ("object", "split", "label", "image", "mask")

# A row's fields, with the place to name in errors.
_Row = tuple[str, dict[str, str]]


def list_visa(root: Path, warn: Warn, *, all_classes: bool = False, allow_missing_masks: bool = False) -> DatasetIndex:
    """List the images of a data set in VisA's layout.

    A class whose folder is not there is left out, so a copy of some classes works.

    Args:
        root: the folder that holds the class folders and ``split_csv``.
        warn: called with one line for classes that are missing and those that are left out.
        all_classes: take every class of the file, not only those of VisA.
        allow_missing_masks: list an anomalous image without a mask, too.

    Raises:
        InputError: if the file is missing or not as described, lists an image or mask that does not
            exist, or a class has no train or no test images; the message names the line.
    """
    require_root(root)
    rows = _read_rows(root / "split_csv" / "1cls.csv")
    names = _choose_classes(root, rows, all_classes, warn)
    parts: dict[str, dict[str, list[Item]]] = {part: {name: [] for name in names} for part in ("train", "test")}
    listed: set[str] = set()
    unmasked: list[Item] = []
    for place, row in rows:
        if row["object"] not in names:
            continue
        item = _read_item(root, place, row, allow_missing_masks)
        if item.img_path in listed:
            raise InputError(f"{place}: image {item.img_path} is listed twice; take one out")
        listed.add(item.img_path)
        parts[row["split"]][row["object"]].append(item)
        if item.anomaly and not item.mask_path:
            unmasked.append(item)
    for part, classes in parts.items():
        for name, items in classes.items():
            if not items:
                raise InputError(f"class {name} has no {part} images in {root / 'split_csv' / '1cls.csv'}; complete it")
    if unmasked:
        warn(f"{len(unmasked)} anomalous images have no mask, the first is {root / unmasked[0].img_path}")
    return DatasetIndex(root, parts["train"], parts["test"])


def _read_rows(path: Path) -> list[_Row]:
    if not path.is_file():
        raise InputError(
            f"{path} does not exist; VisA's archive holds it, --root names the folder above split_csv;"
            f" {found_in(path.parent.parent)}"
        )
    reader = csv.DictReader(io.StringIO(read_text(path, "list of images"), newline=""))
    try:
        missing = [column for column in _COLUMNS if column not in (reader.fieldnames or ())]
        if missing:
            raise InputError(
                f"{path}: column {', '.join(missing)} is missing; expected the columns {', '.join(_COLUMNS)}"
            )
        return [
            (f"{path}, line {reader.line_num}", {column: (row[column] or "").strip() for column in _COLUMNS})
            for row in reader
        ]
    except csv.Error as error:
        raise InputError(f"{path} is not a CSV file ({error})") from error


def _choose_classes(root: Path, rows: list[_Row], all_classes: bool, warn: Warn) -> list[str]:
    listed = sorted({row["object"] for _, row in rows})
    for place, row in rows:
        if not row["object"] or not stays_inside(row["object"]) or "/" in row["object"]:
            raise InputError(f"{place}: object is {row['object']!r}; expected the name of a class folder")
    unknown = [name for name in listed if name not in VISA_CLASSES]
    wanted = [name for name in listed if all_classes or name in VISA_CLASSES]
    chosen = [name for name in wanted if is_folder(root / name)]
    if not chosen:
        hint = f"--all_classes takes these: {', '.join(unknown)}" if unknown and not all_classes else found_in(root)
        raise InputError(f"{root} holds no class folder of VisA such as {root / 'candle'} that 1cls.csv lists; {hint}")
    if unknown and not all_classes:
        warn(f"no class of VisA, left out (--all_classes takes them): {', '.join(unknown)}")
    absent = [name for name in wanted if name not in chosen and name not in VISA_CLASSES]
    if absent:
        warn(f"listed in 1cls.csv without a folder in {root}, left out: {', '.join(absent)}")
    missing = [name for name in VISA_CLASSES if name not in chosen]
    if 0 < len(missing) < len(VISA_CLASSES):
        warn(f"classes of VisA without a folder in {root} or rows in 1cls.csv: {', '.join(missing)}")
    return chosen


def _read_item(root: Path, place: str, row: dict[str, str], allow_missing_masks: bool) -> Item:
    for column, expected in (("split", ("train", "test")), ("label", ("normal", "anomaly"))):
        if row[column] not in expected:
            raise InputError(f"{place}: {column} is {row[column]!r}; expected {' or '.join(expected)}")
    anomalous = row["label"] == "anomaly"
    if anomalous and row["split"] == "train":
        raise InputError(f"{place}: {row['image']} is an anomalous image in the train split, which is for normal ones")
    image = _existing_path(root, place, "image", row["image"])
    if image is None:
        raise InputError(f"{place}: image {row['image']!r} does not exist in {root}; complete the data set")
    mask = _existing_path(root, place, "mask", row["mask"]) if anomalous else None
    if anomalous and mask is None and not allow_missing_masks:
        raise InputError(
            f"{place}: the mask of the anomalous image {image} is {row['mask']!r}, which does not exist in {root};"
            " complete the data set, or --allow_missing_masks lists the image without"
        )
    # The file names no defect types.
    return Item(image, mask or "", row["object"], "" if anomalous else "good", int(anomalous))


def why_not_in_csv(parts: tuple[str, ...]) -> str:
    """Why a file of a listed class is not listed; ``parts`` is its path below the root."""
    return "not in split_csv/1cls.csv, or the mask of a normal image"


def _existing_path(root: Path, place: str, column: str, path: str) -> str | None:
    """The path with forward slashes, or None if there is no such file in the root."""
    if not stays_inside(path):
        raise InputError(f"{place}: {column} {path!r} leads out of {root}; expected a path relative to it")
    path = path.replace("\\", "/")
    return path if path and is_file(root / path) else None
