"""Lists a data set whose folders name class, split and defect, as in MVTec AD.

``CLASS/train/good/*``, ``CLASS/test/DEFECT/*`` (DEFECT may be ``good``), and the masks in
``CLASS/ground_truth/DEFECT/*``; some copies name that folder ``groundtruth``. A mask is an image, or a
folder of images that are joined, as in MVTec LOCO.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
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
)
from winclip.support.errors import InputError
from winclip.support.names import counted

# What people call folders of good images.
_GOOD = re.compile(
    r"(good|normal|ok|okay|pass|passed|intact|healthy|perfect|clean|accept|accepted|flawless|undamaged|io|gut"
    r"|(no|non|not|without|un)(defect|defective|damaged?|anomaly|anomalies|anomalous|fault|faulty|errors?)"
    r"|(defect|damage|anomaly|fault|error)free)(s|images?|samples?|parts?)?"
)


@dataclass(frozen=True)
class FolderLayout:
    """The folder names of a data set.

    Attributes:
        title: name of the data set.
        classes: names of its class folders.
        good: name of the folders of normal images; they are listed as ``good`` whatever it is.
        test: name of the folders of test images.
        masks: names of the folders of masks, which may lie in the folder of test images.
        aside: folders of a class that are not listed, with the reason.
    """

    title: str
    classes: tuple[str, ...]
    good: str = "good"
    test: str = "test"
    masks: tuple[str, ...] = ("ground_truth", "groundtruth")
    aside: Mapping[str, str] = field(default_factory=dict)

    def index(
        self,
        root: Path,
        warn: Warn,
        *,
        all_classes: bool = False,
        allow_missing_masks: bool = False,
        good: Sequence[str] = (),
    ) -> DatasetIndex:
        """List the images of a data set, whose class folders are in ``root``; ``good`` names more folders of good ones.

        Raises:
            InputError: if the root or all classes are missing, a class has a train folder without images or no test
                images, an anomalous image has no mask, two masks or images of a folder have the same name, or
                a folder has a name for good images but is not in ``good``.
        """
        fitting: list[str] = []
        others: list[str] = []
        for folder in list_folders(root):
            fits = any((folder / part).is_dir() for part in ("train", self.test))
            (fitting if fits or folder.name in self.classes else others).append(folder.name)
        example = f"{root / self.classes[0]} with train and {self.test} in it"
        names = choose_classes(self.title, root, self.classes, fitting, all_classes, warn, example)
        if others:
            warn(f"no train or {self.test} folder inside, left out: {', '.join(others)}")
        items = [found for name in names for found in self._items(root / name, (self.good, *good), warn)]
        for part in good:
            if not any((root / name / place / part).is_dir() for name in names for place in ("train", self.test)):
                warn(f"--good {part}: no class has such a folder")
        expected = f"CLASS/{self.masks[0]}/DEFECT/NAME_mask.png, or a folder NAME of masks"
        for item in [item for _, item in items if item.anomaly and not item.mask_path][:1]:
            folder = root / item.cls_name
            places = [
                *(folder / part / item.specie_name for part in self.masks),
                *(folder / part for part in self.masks),
            ]
            expected += f"; {found_in(next((place for place in places if place.is_dir()), folder))}"
        untrained = [name for name in names if not (root / name / "train").is_dir()]
        return assemble(root, items, warn, expected, allow_missing_masks, untrained)

    def why_not(self, parts: tuple[str, ...]) -> str:
        """Why a file of a listed class is not listed; ``parts`` is its path below the root."""
        _, part, *below = parts
        if part in self.aside:
            return self.aside[part]
        if "/".join(parts[1:]).startswith(tuple(f"{masks}/" for masks in self.masks)):
            return "masks of no anomalous image that is listed"
        if part not in ("train", self.test):
            return f"in none of train, {self.test} and {self.masks[0]}"
        if len(below) < 2:
            return f"directly in {part}, in no folder that names good or a defect"
        if len(below) > 2:
            return "in folders inside the one that names good or a defect; move them up"
        return "in a folder of train that is not the one of good images"

    def _items(self, folder: Path, names: Sequence[str], warn: Warn) -> Iterator[tuple[str, Item]]:
        """Split and item of every image in a class folder; ``names`` are the names of folders of good images."""
        root, name, good = folder.parent, folder.name, folder / "train" / self.good
        for other in (*list_folders(folder / "train"), *list_folders(folder / self.test)):
            sounds_good = _GOOD.fullmatch(re.sub("[^a-z]", "", other.name.casefold()))
            if sounds_good and other.name not in names and list_images(other):
                raise InputError(
                    f"{other} is not called {' or '.join(map(repr, names))}, so its images would not count as good;"
                    f" declare them good with --good {shlex.quote(other.name)}, or rename it"
                )
        train = [image for part in dict.fromkeys(names) for image in list_images(folder / "train" / part)]
        if not train and (folder / "train").is_dir():
            place = next(place for place in (good, good.parent, folder) if place.is_dir())
            raise InputError(
                f"class {name} has no images in {good} itself; {found_in(place)}; complete or remove {folder}"
            )
        yield from (("train", make_item(root, image, name, "good")) for image in train)
        used: set[Path | None] = set()
        for part in list_folders(folder / self.test):
            images = list_images(part)
            if part.name in names:
                yield from (("test", make_item(root, image, name, "good")) for image in images)
            elif f"{self.test}/{part.name}" not in self.masks:
                masks = [mask for place in self.masks for mask in _list_masks(folder / place / part.name)]
                for image, mask in match_masks(images, masks):
                    used.add(mask)
                    yield "test", make_item(root, image, name, part.name, mask)
        for part in (part for place in self.masks for part in list_folders(folder / place)):
            unused = [mask for mask in _list_masks(part) if mask not in used]
            # Some data sets carry black masks for their normal images.
            if unused and part.name not in names:
                count = counted(len(unused), "mask")
                warn(f"without an image: {count} in {part}, the first is {unused[0].name}")


def _list_masks(folder: Path) -> list[Path]:
    return [*list_images(folder), *(parts for parts in list_folders(folder) if list_images(parts))]


# In the order of the published tables.
MVTEC_CLASSES = (
    "carpet", "bottle", "hazelnut", "leather", "cable", "capsule", "grid", "pill", "transistor", "metal_nut", "screw",
    "toothbrush", "zipper", "tile", "wood",
)  # fmt: skip
MVTEC = FolderLayout("MVTec AD", MVTEC_CLASSES)
list_mvtec = MVTEC.index
