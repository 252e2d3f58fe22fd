"""Lists a data set whose folders say class, part and defect, as those of MVTec AD do.

``CLASS/train/good/*``, ``CLASS/test/DEFECT/*`` (DEFECT may be ``good``), and the masks in
``CLASS/ground_truth/DEFECT/*``; some copies name that folder ``groundtruth``. A mask is an image, or a
folder of images that are joined, as in MVTec LOCO.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from datasets.items import DatasetIndex, Item
from datasets.layout import (
    Warn,
    choose_classes,
    found_in,
    list_folders,
    list_images,
    make_item,
    match_masks,
    require_root,
)
from winclip.support.errors import InputError


@dataclass(frozen=True)
class FolderLayout:
    """What such a data set calls its folders.

    Attributes:
        title: name of the data set.
        classes: names of its class folders.
        good: name of the folders of normal images; they are listed as ``good`` whatever it is.
        test: name of the folders of test images.
        masks: names of the folders of masks, which may lie in that of test images.
        aside: folders of a class that are not listed, with the reason.
    """

    title: str
    classes: tuple[str, ...]
    good: str = "good"
    test: str = "test"
    masks: tuple[str, ...] = ("ground_truth", "groundtruth")
    aside: Mapping[str, str] = field(default_factory=dict)


def list_folders_of_defects(
    root: Path, warn: Warn, layout: FolderLayout, *, all_classes: bool = False, allow_missing_masks: bool = False
) -> DatasetIndex:
    """List the images of a data set.

    Args:
        root: the folder that holds the class folders.
        warn: called with one line for classes that are missing, folders and images that are left
            out, and masks without an image.
        layout: of the data set.
        all_classes: take every class folder, not only those of the layout.
        allow_missing_masks: list an anomalous image without a mask, too.

    Raises:
        InputError: if the root or all classes are missing, a class has no train or no test images,
            an anomalous image has no mask, two masks or images of a folder have the same name, or a
            folder differs from that of good images in upper and lower case.
    """
    require_root(root)
    names = _choose_classes(root, layout, all_classes, warn)
    train, test = {}, {}
    for name in names:
        folder = root / name
        _refuse_other_spelling(folder, layout)
        good = folder / "train" / layout.good
        train[name] = [make_item(root, path, name, "good") for path in list_images(good)]
        test[name] = _list_test(folder, layout, allow_missing_masks, warn)
        if not train[name]:
            place = good if good.is_dir() else folder / "train" if (folder / "train").is_dir() else folder
            raise InputError(
                f"class {name} has no images in {good}, folders below it left aside; {found_in(place)}; complete or"
                f" remove {folder}"
            )
        if not test[name]:
            place = folder / layout.test
            raise InputError(
                f"class {name} has no images in the folders of {place}, folders below those left aside;"
                f" {found_in(place)}; complete or remove it"
            )
    return DatasetIndex(root, train, test)


def _choose_classes(root: Path, layout: FolderLayout, all_classes: bool, warn: Warn) -> list[str]:
    fitting: list[str] = []
    others: list[str] = []
    for folder in list_folders(root):
        fits = any((folder / part).is_dir() for part in ("train", layout.test))
        (fitting if fits or folder.name in layout.classes else others).append(folder.name)
    example = f"{root / layout.classes[0]} with train and {layout.test} in it"
    chosen = choose_classes(layout.title, root, layout.classes, fitting, all_classes, warn, example)
    if others:
        warn(f"no train or {layout.test} folder inside, left out: {', '.join(others)}")
    return chosen


def _refuse_other_spelling(class_folder: Path, layout: FolderLayout) -> None:
    good = layout.good
    for part in ("train", layout.test):
        for folder in list_folders(class_folder / part):
            if folder.name != good and folder.name.casefold() == good.casefold():
                raise InputError(
                    f"{folder} is not called {good!r}, so its images would not count as good; rename it or move them"
                )


def _list_test(class_folder: Path, layout: FolderLayout, allow_missing_masks: bool, warn: Warn) -> list[Item]:
    root, cls_name = class_folder.parent, class_folder.name
    items: list[Item] = []
    used: set[Path] = set()
    unmasked: list[Path] = []
    for folder in list_folders(class_folder / layout.test):
        if f"{layout.test}/{folder.name}" in layout.masks:
            continue
        images = list_images(folder)
        if folder.name == layout.good:
            items += [make_item(root, path, cls_name, "good") for path in images]
            continue
        masks = [mask for name in layout.masks for mask in _list_masks(class_folder / name / folder.name)]
        for image, mask in match_masks(images, masks):
            if mask is None:
                unmasked.append(image)
            else:
                used.add(mask)
            items.append(make_item(root, image, cls_name, folder.name, mask))
    if unmasked and not allow_missing_masks:
        expected = class_folder / layout.masks[0] / unmasked[0].parent.name / f"{unmasked[0].stem}_mask.png"
        raise InputError(
            f"class {cls_name}: {len(unmasked)} anomalous images have no mask, the first is {unmasked[0]}, expected"
            f" {expected}, or a folder {unmasked[0].stem} of masks; --allow_missing_masks lists them without"
        )
    if unmasked:
        warn(f"class {cls_name}: {len(unmasked)} anomalous images have no mask, the first is {unmasked[0]}")
    _warn_of_unused_masks(class_folder, layout, used, warn)
    return items


def _list_masks(folder: Path) -> list[Path]:
    return [*list_images(folder), *(parts for parts in list_folders(folder) if list_images(parts))]


def _warn_of_unused_masks(class_folder: Path, layout: FolderLayout, used: set[Path], warn: Warn) -> None:
    for name in layout.masks:
        for folder in list_folders(class_folder / name):
            unused = [path for path in _list_masks(folder) if path not in used]
            # Some data sets carry black masks for their normal images.
            if unused and folder.name != layout.good:
                warn(f"{len(unused)} masks in {folder} belong to no image, the first is {unused[0].name}")


def why_not_in_folders(parts: tuple[str, ...], layout: FolderLayout) -> str:
    """Why a file of a listed class is not listed; ``parts`` is its path below the root."""
    _, part, *below = parts
    if part in layout.aside:
        return layout.aside[part]
    if "/".join(parts[1:]).startswith(tuple(f"{masks}/" for masks in layout.masks)):
        return "masks of no anomalous image that is listed"
    if part not in ("train", layout.test):
        return f"in none of train, {layout.test} and {layout.masks[0]}"
    if len(below) < 2:
        return f"directly in {part}, in no folder that names good or a defect"
    if len(below) > 2:
        return "in folders inside the one that names good or a defect; move them up"
    return "in a folder of train that is not the one of good images"
