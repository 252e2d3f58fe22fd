"""MVTec LOCO: defects are logical or structural, and every image has a folder of masks, one a defect."""

from __future__ import annotations

from datasets.folders import FolderLayout

MVTEC_LOCO = FolderLayout(
    "MVTec LOCO",
    ("breakfast_box", "juice_bottle", "pushpins", "screw_bag", "splicing_connectors"),
    aside={"validation": "of the validation part, which nothing here uses"},
)
