"""MPDD, metal parts, in the layout of MVTec AD."""

from __future__ import annotations

from datasets.folders import FolderLayout

MPDD = FolderLayout("MPDD", ("bracket_black", "bracket_brown", "bracket_white", "connector", "metal_plate", "tubes"))
