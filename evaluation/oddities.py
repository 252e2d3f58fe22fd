"""Doubts about masks that can be read; the figures use them as they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from datasets.samples import EMPTY, GRADED
from winclip.support.names import counted

if TYPE_CHECKING:
    from evaluation.parts import Part

GRADED_TEXT = (
    "intermediate values, as JPEG and smoothing leave them, so only pixels above half of the largest value are defects"
)


def doubts(part: Part) -> list[str]:
    """Warnings about a class: how many masks are graded, and how many cannot be right."""
    pairs = zip(part.scores.items, part.scores.masks)
    masks = {item.img_path: mask for item, mask in pairs if item.anomaly and mask is not None}
    graded, empty = (sum((kind, path) in part.oddities for path in masks) for kind in (GRADED, EMPTY))
    shares = [float(mask.mean()) for mask in masks.values()]
    side = max(map(len, masks.values()), default=0)
    found = [
        (empty, "without a defect pixel"),
        (shares.count(0) - empty, f"whose defects vanish at {side} x {side} and count as good"),
        (shares.count(1), "with defects in every pixel"),
        (inverted(shares), "with defects in most pixels, perhaps inverted"),
    ]
    of_masks = f"of {counted(len(masks), 'mask')}"
    wrong = "; ".join(f"{count} {text}" for count, text in found if count > 0)
    texts = [f"{of_masks}, {graded} with {GRADED_TEXT}"] if graded else []
    return [*texts, f"{of_masks}, {wrong}; the figures count them as they are"] if wrong else texts


def inverted(shares: list[float]) -> int:
    """How many masks are defective in over half of their pixels; 0 unless these are over half of the masks."""
    mostly = sum(share > 0.5 for share in shares)
    return mostly if 2 * mostly > len(shares) else 0
