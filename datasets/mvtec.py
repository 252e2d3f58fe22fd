"""MVTec AD, and data of your own in its layout."""

from __future__ import annotations

from functools import partial

from datasets.folders import FolderLayout, list_folders_of_defects

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

MVTEC = FolderLayout("MVTec AD", MVTEC_CLASSES)
list_mvtec = partial(list_folders_of_defects, layout=MVTEC)
