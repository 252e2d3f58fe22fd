"""DAGM 2007: ten drawn textures; what is defective has a label image, a coarse ellipse around the defect.

``ClassN/Train/*.PNG``, ``ClassN/Test/*.PNG`` and, for defective images alone, ``Label/NAME_label.PNG`` below each.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from datasets.items import DatasetIndex, Item
from datasets.layout import (
    Warn,
    assemble,
    choose_classes,
    found_in,
    list_folders,
    list_images,
    make_item,
    match_masks,
    require_root,
)
from winclip.support.errors import InputError

DAGM_CLASSES = tuple(f"Class{number}" for number in range(1, 11))
# The textures have numbers only.
DAGM_WORDS = dict.fromkeys(DAGM_CLASSES, "textured surface")


def list_dagm(root: Path, warn: Warn, *, all_classes: bool = False) -> DatasetIndex:
    """List the images; defective ones of ``Train`` are left out.

    Args:
        root: the folder that holds the class folders.
        warn: called with one line for whatever is left out.
        all_classes: take every folder with ``Train`` and ``Test`` in it.

    Raises:
        InputError: if the root or all classes are missing, or a part of a class has no images or no label images.
    """
    require_root(root)
    fitting = [path.name for path in list_folders(root) if (path / "Train").is_dir() and (path / "Test").is_dir()]
    example = f"{root / DAGM_CLASSES[0]} with Train and Test in it"
    names = choose_classes("DAGM", root, DAGM_CLASSES, fitting, all_classes, warn, example)
    return assemble(root, _items(root, names, warn), warn)


def _items(root: Path, names: list[str], warn: Warn) -> Iterator[tuple[str, Item]]:
    for name in names:
        for part in ("train", "test"):
            folder = root / name / part.title()
            labels = list_images(folder / "Label")
            if not labels:
                raise InputError(
                    f"{folder / 'Label'} holds no label images such as 0001_label.PNG, which say what is defective;"
                    f" {found_in(folder)}"
                )
            pairs = match_masks(list_images(folder), labels, "_label")
            unused = sorted(set(labels) - {label for _, label in pairs if label})
            if unused:
                warn(f"{len(unused)} label images in {folder} belong to no image, the first is {unused[0].name}")
            for image, label in pairs:
                yield part, make_item(root, image, name, "" if label else "good", label)


def why_not_in_dagm(parts: tuple[str, ...]) -> str:
    """Why a file of a listed class is not listed; ``parts`` is its path below the root."""
    if parts[1:2] == ("Train",):
        return "defective images of the train part, and their labels"
    return "labels of no image that is listed, or outside of Train and Test"
