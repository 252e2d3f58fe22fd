"""Lists data sets with label images: KolektorSDD, KolektorSDD2 and DAGM 2007.

In KolektorSDD and KolektorSDD2 every image has a label image beside it, which is black where there is no defect.
DAGM holds ten drawn textures; each defective image has a label image, a coarse ellipse around the defect.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tqdm import tqdm

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
)
from winclip.support.errors import InputError
from winclip.support.names import counted

# The data sets of Kolektor have no classes; each is listed as one.
SDD_CLASS, SDD2_CLASS = "commutator", "surface"
KOLEKTOR_WORDS = {SDD_CLASS: "electrical commutator", SDD2_CLASS: "product surface"}
DAGM_CLASSES = tuple(f"Class{number}" for number in range(1, 11))


def list_kolektor_sdd(root: Path, warn: Warn) -> DatasetIndex:
    """List ``kosNN/PartN.jpg`` with ``kosNN/PartN_label.bmp``, a folder for each commutator.

    Sorted by name, normal images of the first, third, fifth ... folder go to train, all others to test.

    Raises:
        InputError: if the root or all images are missing, no image has a label, or a label cannot be read.
    """
    folders = [folder for folder in list_folders(root) if list_images(folder)]
    parts = {folder: ("train", "test")[number % 2] for number, folder in enumerate(folders)}
    example = f"folders such as {root / 'kos01'} with Part0.jpg and Part0_label.bmp in them"
    items = _labelled_items(root, SDD_CLASS, parts, "_label", example, warn)
    return assemble(root, (("test" if item.anomaly else part, item) for part, item in items), warn)


def list_kolektor_sdd2(root: Path, warn: Warn) -> DatasetIndex:
    """List ``train/NAME.png`` and ``test/NAME.png`` with ``NAME_GT.png`` beside; defective train images are left out.

    Raises:
        InputError: as for ``list_kolektor_sdd``.
    """
    parts = {root / part: part for part in ("train", "test")}
    example = f"{root / 'train'} and {root / 'test'} with images such as 10000.png and 10000_GT.png in them"
    return assemble(root, _labelled_items(root, SDD2_CLASS, parts, "_GT", example, warn), warn)


def _labelled_items(
    root: Path, cls_name: str, folders: dict[Path, str], ending: str, example: str, warn: Warn
) -> Iterator[tuple[str, Item]]:
    """The split, from ``folders``, and the item of every image that has a label."""
    # Late, so that --help answers at once.
    from datasets.samples import read_mask

    pairs = []
    for folder in folders:
        images = list_images(folder)
        labels = [path for path in images if path.stem.endswith(ending)]
        pairs += match_masks([path for path in images if path not in labels], labels, ending)
    labelled = [(image, label) for image, label in pairs if label]
    if not labelled:
        raise InputError(f"{root} holds no images with labels; expected {example}; {found_in(root)}")
    unlabelled = [image for image, label in pairs if not label]
    if unlabelled:
        count = counted(len(unlabelled), "image has", "images have")
        warn(f"left out: {count} no label image NAME{ending}, the first is {unlabelled[0]}")
    for image, label in tqdm(labelled, unit="label", disable=None, dynamic_ncols=True):
        defective = read_mask(label).any()
        item = make_item(root, image, cls_name, "" if defective else "good", label if defective else None)
        yield folders[image.parent], item


def list_dagm(root: Path, warn: Warn, *, all_classes: bool = False) -> DatasetIndex:
    """List ``ClassN/Train/*.PNG`` and ``ClassN/Test/*.PNG`` with ``Label/NAME_label.PNG`` below each.

    Defective images of ``Train`` are left out. With ``all_classes``, every folder with both splits is a class.

    Raises:
        InputError: if the root or all classes are missing, or a split of a class has no images or no label images.
    """
    fitting = [path.name for path in list_folders(root) if (path / "Train").is_dir() and (path / "Test").is_dir()]
    example = f"{root / DAGM_CLASSES[0]} with Train and Test in it"
    names = choose_classes("DAGM", root, DAGM_CLASSES, fitting, all_classes, warn, example)
    return assemble(root, _dagm_items(root, names, warn), warn)


def _dagm_items(root: Path, names: list[str], warn: Warn) -> Iterator[tuple[str, Item]]:
    for name, part in ((name, part) for name in names for part in ("train", "test")):
        folder = root / name / part.title()
        labels = list_images(folder / "Label")
        if not labels:
            raise InputError(
                f"{folder / 'Label'} holds no label images such as 0001_label.PNG, which say what is defective;"
                f" {found_in(folder)}"
            )
        pairs = match_masks(list_images(folder), labels, "_label")
        unused = sorted({*labels} - {label for _, label in pairs if label})
        if unused:
            count = counted(len(unused), "label image")
            warn(f"without an image: {count} in {folder}, the first is {unused[0].name}")
        for image, label in pairs:
            yield part, make_item(root, image, name, "" if label else "good", label)
