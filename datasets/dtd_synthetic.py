"""DTD-Synthetic, textures with drawn defects, in the layout of MVTec AD."""

from __future__ import annotations

from datasets.folders import FolderLayout

DTD_SYNTHETIC = FolderLayout(
    "DTD-Synthetic",
    (
        "Blotchy_099",
        "Fibrous_183",
        "Marbled_078",
        "Matted_069",
        "Mesh_114",
        "Perforated_037",
        "Stratified_154",
        "Woven_001",
        "Woven_068",
        "Woven_104",
        "Woven_125",
        "Woven_127",
    ),
)
# The numbers are those of pictures in DTD.
DTD_SYNTHETIC_WORDS = {name: f"{name.split('_')[0].lower()} texture" for name in DTD_SYNTHETIC.classes}
