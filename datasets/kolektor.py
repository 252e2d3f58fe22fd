"""KolektorSDD and KolektorSDD2: every image has a label image beside it, which is black where there is no defect."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tqdm import tqdm

from datasets.items import DatasetIndex, Item
from datasets.layout import Warn, assemble, found_in, list_folders, list_images, make_item, match_masks, require_root
from winclip.support.errors import InputError

# Neither data set has classes; both are listed as one.
SDD_CLASS, SDD2_CLASS = "commutator", "surface"
KOLEKTOR_WORDS = {SDD_CLASS: "electrical commutator", SDD2_CLASS: "product surface"}


def list_kolektor_sdd(root: Path, warn: Warn) -> DatasetIndex:
    """List ``kosNN/PartN.jpg`` with ``kosNN/PartN_label.bmp``, a folder for each commutator.

    Sorted by name, normal images of the first, third, fifth ... folder go to train, all others to test.

    Raises:
        InputError: if the root or all images are missing, no image has a label, or a label cannot be read.
    """
    require_root(root)
    folders = [folder for folder in list_folders(root) if list_images(folder)]
    example = f"folders such as {root / 'kos01'} with Part0.jpg and Part0_label.bmp in them"
    pairs = _pairs(
        root, {folder: ("train", "test")[n % 2] for n, folder in enumerate(folders)}, "_label", example, warn
    )
    items = _items(root, SDD_CLASS, pairs)
    return assemble(root, (("test" if item.anomaly else part, item) for part, item in items), warn)


def list_kolektor_sdd2(root: Path, warn: Warn) -> DatasetIndex:
    """List ``train/NAME.png`` and ``test/NAME.png`` with ``NAME_GT.png`` beside; defective ones of train are left out.

    Raises:
        InputError: as of ``list_kolektor_sdd``.
    """
    require_root(root)
    example = f"{root / 'train'} and {root / 'test'} with images such as 10000.png and 10000_GT.png in them"
    pairs = _pairs(root, {root / part: part for part in ("train", "test")}, "_GT", example, warn)
    return assemble(root, _items(root, SDD2_CLASS, pairs), warn)


def _pairs(root: Path, folders: dict[Path, str], ending: str, example: str, warn: Warn) -> list[tuple[str, Path, Path]]:
    """The part, image and label of every image that has a label."""
    pairs, unlabelled = [], []
    for folder, part in folders.items():
        images = list_images(folder)
        labels = [path for path in images if path.stem.endswith(ending)]
        for image, label in match_masks([path for path in images if path not in labels], labels, ending):
            if label is None:
                unlabelled.append(image)
            else:
                pairs.append((part, image, label))
    if not pairs:
        raise InputError(f"{root} holds no images with labels; expected {example}; {found_in(root)}")
    if unlabelled:
        warn(
            f"{len(unlabelled)} images have no label image NAME{ending} and are left out, the first is {unlabelled[0]}"
        )
    return pairs


def _items(root: Path, cls_name: str, pairs: list[tuple[str, Path, Path]]) -> Iterator[tuple[str, Item]]:
    # Late, so that --help answers at once.
    from datasets.samples import read_mask

    for part, image, label in tqdm(pairs, unit="label", disable=None, dynamic_ncols=True):
        defective = read_mask(label).any()
        yield part, make_item(root, image, cls_name, "" if defective else "good", label if defective else None)


def why_not_in_kolektor(parts: tuple[str, ...]) -> str:
    """Why a file is not listed; ``parts`` is its path below the root."""
    if Path(parts[-1]).stem.endswith(("_label", "_GT")):
        return "labels of normal images, or of images that are left out"
    return "images without a label, or defective ones of the train part"
