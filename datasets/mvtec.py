"""MVTec AD, and data of your own in its layout."""

from __future__ import annotations

from pathlib import Path

from datasets.folders import FolderLayout, list_folders_of_defects
from datasets.items import DatasetIndex
from datasets.layout import Warn

# In the order of the published tables.
MVTEC_CLASSES = (
    "carpet",
    "bottle",
    "hazelnut",
    "leather",
    "cable",
    "capsule",
    "grid",
    "pill",
    "transistor",
    "metal_nut",
    "screw",
    "toothbrush",
    "zipper",
    "tile",
    "wood",
)


def list_mvtec(root: Path, warn: Warn, *, all_classes: bool = False, allow_missing_masks: bool = False) -> DatasetIndex:
    """List the images; see ``list_folders_of_defects``."""
    layout = FolderLayout("MVTec AD", MVTEC_CLASSES)
    return list_folders_of_defects(root, warn, layout, all_classes=all_classes, allow_missing_masks=allow_missing_masks)
