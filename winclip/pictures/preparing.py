"""How a picture becomes one or several square views of the model's input size; a ``Variant`` selects the method."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from winclip.pictures.images import resize_straight, resized_pixels
from winclip.support.errors import InputError

Pixels = npt.NDArray[np.uint8] | npt.NDArray[np.float32]
# Left, upper, right and lower end as fractions of the picture's width and height.
Box = tuple[float, float, float, float]
WHOLE: Box = (0.0, 0.0, 1.0, 1.0)
# Distance between the beginnings of adjacent tiles, as a fraction of their side.
_STEP = 0.8


class Views(NamedTuple):
    """The views of a picture that the model gets.

    Attributes:
        pixels: (V, S, S, 3) RGB; uint8, or float32 from about 0 to 255.
        boxes: positions of the views in the picture.
    """

    pixels: Pixels
    boxes: list[Box]


def prepare(image: Image.Image, size: int, how: str = "straight") -> Views:
    """Make the views of an 8-bit RGB image.

    Args:
        image: of any size.
        size: S.
        how: ``prepare`` of a variant.

    Raises:
        InputError: if a tall image is asked for in tiles.
    """
    (width, height), bicubic = image.size, Image.Resampling.BICUBIC
    if how == "float":
        # anomalib's antialiased bicubic resizing of a float tensor equals Pillow's in a mode that does not round.
        channels = [Image.fromarray(channel) for channel in np.asarray(image, np.float32).transpose(2, 0, 1)]
        resized = [np.asarray(resize_straight(channel, size, bicubic)) for channel in channels]
        return Views(np.stack(resized, axis=-1)[None], [WHOLE])
    if how == "via1024":
        # Late, since most runs do not need it.
        import cv2

        image = Image.fromarray(cv2.resize(np.asarray(image), (1024, 1024), interpolation=cv2.INTER_LINEAR))
    if how in ("straight", "via1024") or width == height:
        return Views(resized_pixels(image, size)[None], [WHOLE])
    if how == "crop":
        columns, rows = (int(size * side / min(width, height)) for side in image.size)
        left, upper = round((columns - size) / 2), round((rows - size) / 2)
        whole = np.asarray(image.resize((columns, height), bicubic).resize((columns, rows), bicubic))
        box = left / columns, upper / rows, (left + size) / columns, (upper + size) / rows
        return Views(whole[None, upper : upper + size, left : left + size], [box])
    if height > width:
        raise InputError(
            f"a picture of {width} x {height} is tall, and prepare=tiles uses only the left part of tall pictures and"
            " never the bottom; add prepare=straight to the variant"
        )
    starts = [min(start, width - height) for start in range(0, width, int(_STEP * height))]
    tiles = [resized_pixels(image.crop((x, 0, x + height, height)), size) for x in starts]
    return Views(np.stack(tiles), [(x / width, 0.0, (x + height) / width, 1.0) for x in starts])
