"""MVTec AD 2: its public test images have labels and masks, its private ones have neither."""

from __future__ import annotations

from pathlib import Path

from datasets.folders import FolderLayout
from datasets.layout import list_images

PRIVATE = ("test_private", "test_private_mixed")
MVTEC_AD_2 = FolderLayout(
    "MVTec AD 2",
    ("can", "fabric", "fruit_jelly", "rice", "sheet_metal", "vial", "wallplugs", "walnuts"),
    test="test_public",
    masks=("test_public/ground_truth",),
    aside={
        "validation": "of the validation part, which nothing here uses",
        **dict.fromkeys(PRIVATE, "without labels; scripts.private_maps writes their maps"),
    },
)


def private_images(root: Path, cls_name: str) -> list[Path]:
    """The images of a class that have no labels."""
    return [image for part in PRIVATE for image in list_images(root / cls_name / part)]
