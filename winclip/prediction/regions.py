"""The part of every picture that counts: a rectangle, or the white of a mask."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from winclip.pictures.drawing import Box
from winclip.pictures.images import CLIP_MEAN, PIXEL_LIMIT
from winclip.prediction.listing import read_picture
from winclip.support.errors import InputError
from winclip.support.files import file_sha256, is_file

# What the model's input is 0 for.
_GREY = (round(255 * CLIP_MEAN[0]), round(255 * CLIP_MEAN[1]), round(255 * CLIP_MEAN[2]))


@dataclass(frozen=True)
class Region:
    """The part of a picture that counts.

    Attributes:
        box: x, y, width, height in pixels of the upright picture.
        inside: (height, width) bool, which pixels of the box count.
        size: width and height that the picture has to have; None if the box only has to lie in it.
        identity: what tells the region from others.
    """

    box: Box
    inside: npt.NDArray[np.bool_]
    size: tuple[int, int] | None
    identity: str

    def cut(self, picture: Image.Image) -> Image.Image:
        """The box of a picture, with grey in place of the pixels that do not count.

        Raises:
            InputError: if the picture has another size than the mask, or does not hold the box.
        """
        x, y, width, height = self.box
        shown = f"{picture.width} x {picture.height}"
        if self.size is not None and picture.size != self.size:
            raise InputError(f"{shown} is not the size of the mask of --region, {self.size[0]} x {self.size[1]}")
        if x + width > picture.width or y + height > picture.height:
            raise InputError(f"--region {x},{y},{width},{height} is outside of its {shown} pixels")
        part = picture.crop((x, y, x + width, y + height))
        if not self.inside.all():
            part.paste(_GREY, mask=Image.fromarray(~self.inside))
        return part

    def spread(self, anomaly_map: npt.NDArray[np.float32], size: tuple[int, int]) -> npt.NDArray[np.float32]:
        """The map of the box, (height, width), on a picture of ``size``, width and height; 0 where nothing counts."""
        x, y, width, height = self.box
        whole = np.zeros(size[::-1], np.float32)
        np.copyto(whole[y : y + height, x : x + width], anomaly_map, where=self.inside)
        return whole


def read_region(given: str) -> Region:
    """The region of ``x,y,w,h`` or a mask file, whose pixels brighter than half count.

    Raises:
        InputError: if it is neither, or nothing counts.
    """
    if re.fullmatch(r"-?\d{1,9}(,-?\d{1,9}){3}", given):
        x, y, width, height = map(int, given.split(","))
        if min(x, y) < 0 or min(width, height) < 1 or width * height > PIXEL_LIMIT:
            raise InputError(
                f"--region {given} is outside of every picture; x and y begin at 0, w and h at 1, and the largest"
                f" pictures have {PIXEL_LIMIT:,} pixels"
            )
        return Region((x, y, width, height), np.ones((height, width), np.bool_), None, given)
    if not is_file(given):
        raise InputError(f"--region {given} is neither x,y,w,h in pixels nor a file; give one of them")
    mask = read_picture(given).convert("L")
    white = np.asarray(mask) > 127
    if not white.any():
        raise InputError(f"mask {given} of --region has no white pixel; paint what counts in white")
    x, y, width, height = map(int, cv2.boundingRect(white.astype(np.uint8)))
    inside = white[y : y + height, x : x + width]
    return Region((x, y, width, height), inside, mask.size, f"mask with SHA-256 {file_sha256(Path(given))}")
