"""Lists a data set whose folders say class, part and defect, as those of MVTec AD do.

``CLASS/train/good/*``, ``CLASS/test/DEFECT/*`` (DEFECT may be ``good``), and the masks in
``CLASS/ground_truth/DEFECT/*``; some copies name that folder ``groundtruth``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from datasets.items import DatasetIndex, Item
from datasets.layout import Warn, list_folders, list_images, require_root
from winclip.errors import InputError

_MASK_FOLDERS = ("ground_truth", "groundtruth")


@dataclass(frozen=True)
class FolderLayout:
    """What such a data set calls its folders.

    Attributes:
        title: name of the data set.
        classes: names of its class folders.
        good: name of the folders of normal images; they are listed as ``good`` whatever it is.
    """

    title: str
    classes: tuple[str, ...]
    good: str = "good"


def list_folders_of_defects(
    root: Path, warn: Warn, layout: FolderLayout, *, all_classes: bool, allow_missing_masks: bool
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
        _refuse_other_spelling(folder, layout.good)
        good = folder / "train" / layout.good
        train[name] = [_item(root, path, name, "good") for path in list_images(good)]
        test[name] = _list_test(folder, layout.good, allow_missing_masks, warn)
        if not train[name]:
            raise InputError(
                f"class {name} has no images in {good}, folders below it left aside; complete or remove {folder}"
            )
        if not test[name]:
            raise InputError(
                f"class {name} has no images in the folders of {folder / 'test'}, folders below those left aside;"
                " complete or remove it"
            )
    return DatasetIndex(root, train, test)


def _choose_classes(root: Path, layout: FolderLayout, all_classes: bool, warn: Warn) -> list[str]:
    chosen, unknown, without_layout = [], [], []
    for folder in list_folders(root):
        if folder.name in layout.classes:
            chosen.append(folder.name)
        elif not (folder / "train").is_dir() and not (folder / "test").is_dir():
            without_layout.append(folder.name)
        elif all_classes:
            chosen.append(folder.name)
        else:
            unknown.append(folder.name)
    if not chosen:
        hint = f"; --all_classes takes these folders: {', '.join(unknown)}" if unknown else ""
        raise InputError(
            f"{root} holds no class folder of {layout.title} such as {root / layout.classes[0]} with train and test in"
            f" it{hint}"
        )
    if unknown:
        warn(f"no class of {layout.title}, left out (--all_classes takes them): {', '.join(unknown)}")
    if without_layout:
        warn(f"no train or test folder inside, left out: {', '.join(without_layout)}")
    missing = [name for name in layout.classes if name not in chosen]
    if 0 < len(missing) < len(layout.classes):
        warn(f"classes of {layout.title} that are not in {root}: {', '.join(missing)}")
    return chosen


def _refuse_other_spelling(class_folder: Path, good: str) -> None:
    for part in ("train", "test"):
        for folder in list_folders(class_folder / part):
            if folder.name != good and folder.name.casefold() == good.casefold():
                raise InputError(
                    f"{folder} is not called {good!r}, so its images would not count as good; rename it or move them"
                )


def _list_test(class_folder: Path, good: str, allow_missing_masks: bool, warn: Warn) -> list[Item]:
    root, cls_name = class_folder.parent, class_folder.name
    items: list[Item] = []
    used: set[Path] = set()
    unmasked: list[Path] = []
    for folder in list_folders(class_folder / "test"):
        images = list_images(folder)
        if folder.name == good:
            items += [_item(root, path, cls_name, "good") for path in images]
            continue
        for image, mask in _match_masks(images, _list_masks(class_folder, folder.name)):
            if mask is None:
                unmasked.append(image)
            else:
                used.add(mask)
            items.append(_item(root, image, cls_name, folder.name, mask))
    if unmasked and not allow_missing_masks:
        expected = class_folder / _MASK_FOLDERS[0] / unmasked[0].parent.name / f"{unmasked[0].stem}_mask.png"
        raise InputError(
            f"class {cls_name}: {len(unmasked)} anomalous images have no mask, the first is {unmasked[0]}, expected"
            f" {expected}; --allow_missing_masks lists them without"
        )
    if unmasked:
        warn(f"class {cls_name}: {len(unmasked)} anomalous images have no mask, the first is {unmasked[0]}")
    _warn_of_unused_masks(class_folder, good, used, warn)
    return items


def _list_masks(class_folder: Path, defect: str) -> list[Path]:
    return [path for name in _MASK_FOLDERS for path in list_images(class_folder / name / defect)]


def _match_masks(images: list[Path], masks: list[Path]) -> list[tuple[Path, Path | None]]:
    """Pair each image with its mask by name: ``000.png`` with ``000_mask.png`` or ``000.png``."""
    masks_by_stem = _by_stem(masks)
    pairs = []
    for stem, image in _by_stem(images).items():
        pairs.append((image, masks_by_stem.get(f"{stem}_mask", masks_by_stem.get(stem))))
    return pairs


def _by_stem(paths: list[Path]) -> dict[str, Path]:
    by_stem: dict[str, Path] = {}
    for path in paths:
        if path.stem in by_stem:
            raise InputError(
                f"{by_stem[path.stem]} and {path} differ in their ending or folder alone, so masks cannot be matched"
                " by name; remove one"
            )
        by_stem[path.stem] = path
    return by_stem


def _warn_of_unused_masks(class_folder: Path, good: str, used: set[Path], warn: Warn) -> None:
    for name in _MASK_FOLDERS:
        for folder in list_folders(class_folder / name):
            unused = [path for path in list_images(folder) if path not in used]
            # Some data sets carry black masks for their normal images.
            if unused and folder.name != good:
                warn(f"{len(unused)} masks in {folder} belong to no image, the first is {unused[0].name}")


def why_not_in_folders(parts: tuple[str, ...]) -> str:
    """Why a file of a listed class is not listed; ``parts`` is its path below the root."""
    _, part, *below = parts
    if part in _MASK_FOLDERS:
        return "masks of no anomalous image that is listed"
    if part not in ("train", "test"):
        return f"in none of train, test and {_MASK_FOLDERS[0]}"
    if len(below) < 2:
        return f"directly in {part}, in no folder that names good or a defect"
    if len(below) > 2:
        return "in folders inside the one that names good or a defect; move them up"
    return "in a folder of train that is not the one of good images"


def _item(root: Path, image: Path, cls_name: str, specie_name: str, mask: Path | None = None) -> Item:
    mask_path = "" if mask is None else mask.relative_to(root).as_posix()
    return Item(image.relative_to(root).as_posix(), mask_path, cls_name, specie_name, int(specie_name != "good"))
