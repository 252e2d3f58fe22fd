"""Pictures of the gallery: thumbnails as data URIs, heat maps, defects as SVG outlines."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from winclip.pictures.drawing import colour, data_url

SIDE = 320
# Characters of a thumbnail's data URI, and of an outline.
LARGEST, LONGEST_OUTLINE = 55_000, 20_000
# Heat maps are smooth, so fewer pixels are enough, and characters too.
HEAT_SIDE, LARGEST_HEAT = 160, 12_000


def thumbnail_size(size: Sequence[int], side: int) -> tuple[int, int]:
    """Width and height of a picture that fits in a square; never larger than the picture itself."""
    scale = min(1.0, side / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def thumbnail(image: Image.Image) -> str:
    """An RGB image, at most SIDE pixels a side, as a WebP data URI."""
    small = image.resize(thumbnail_size(image.size, SIDE), Image.Resampling.LANCZOS, reducing_gap=3.0)
    # Noise compresses badly; the lower quality keeps the page within its size.
    for quality in (80, 60, 40, 20):
        uri = data_url(small, quality)
        if len(uri) <= LARGEST:
            break
    return uri


def heat_picture(heat_map: npt.NDArray[np.floating], size: tuple[int, int]) -> Image.Image:
    """A small heat map in colours that run from 0 to 1, in the shape of its image, RGB.

    Args:
        heat_map: (h, w); values outside [0, 1] are drawn as the nearest end.
        size: width and height of the image.
    """
    return colour(cv2.resize(np.float32(heat_map), thumbnail_size(size, HEAT_SIDE), interpolation=cv2.INTER_LINEAR))


def outline(mask: npt.NDArray[np.bool_]) -> str:
    """The borders of a mask's regions as an SVG path, in a square of 100 x 100 over the whole image.

    Where regions are so many that their borders are longer than ``LONGEST_OUTLINE``, the box around them all.

    Args:
        mask: (h, w) bool.
    """
    height, width = mask.shape
    # A pixel becomes 2 x 2, so that the borders of single pixels enclose them; the rim keeps those at the edge.
    enlarged = np.pad(mask.repeat(2, 0).repeat(2, 1).astype(np.uint8), 1)
    contours, _ = cv2.findContours(enlarged, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    parts = []
    for contour in contours:
        simple = cv2.approxPolyDP(contour, max(1.0, max(mask.shape) / 400), closed=True)[:, 0]
        points = (simple - 0.5) / (2 * width, 2 * height) * 100
        parts.append("M" + " ".join(f"{x:.1f},{y:.1f}" for x, y in points.clip(0, 100)) + "Z")
    path = "".join(parts)
    if len(path) <= LONGEST_OUTLINE:
        return path
    box = np.zeros_like(mask)
    rows, columns = mask.any(axis=1).nonzero()[0], mask.any(axis=0).nonzero()[0]
    box[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = True
    return outline(box)
