"""BTAD, photographs of three products; BMP and PNG are mixed, also between an image and its mask."""

from __future__ import annotations

from datasets.folders import FolderLayout

BTAD = FolderLayout("BTAD", ("01", "02", "03"), good="ok")
# The products have numbers only.
BTAD_WORDS = dict.fromkeys(BTAD.classes, "industrial product")
