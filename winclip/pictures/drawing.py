"""Maps in colours, over their picture or alone, and regions of a map at its picture's size."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from winclip.support.errors import InputError

Box = tuple[int, int, int, int]

# The colour scale, from blue through green to red: (256, 3) uint8 RGB.
COLOURS: npt.NDArray[np.uint8] = np.asarray(
    cv2.cvtColor(cv2.applyColorMap(np.arange(256, dtype=np.uint8), cv2.COLORMAP_TURBO), cv2.COLOR_BGR2RGB), np.uint8
).reshape(256, 3)

_STRONGEST_TINT = 0.6
# The 16-bit value of 1 in a packed map.
_MAP_STEPS = np.float32(32767)


def colour(values: npt.NDArray[np.floating], low: float = 0.0, high: float = 1.0) -> Image.Image:
    """A map in colours.

    Args:
        values: (H, W); values outside the scale are drawn as its nearest end, NaN as the low end.
        low, high: values of the coldest and the hottest colour.

    Returns:
        An RGB image of H x W pixels.
    """
    return Image.fromarray(COLOURS[_levels(values, low, high)])


def grey(values: npt.NDArray[np.floating], low: float = 0.0, high: float = 1.0) -> Image.Image:
    """A map in 8-bit grey, black at the low end of the scale and white at the high one; see ``colour``."""
    return Image.fromarray(_levels(values, low, high))


def heat_map(picture: Image.Image, anomaly_map: npt.NDArray[np.float32], colours: tuple[float, float]) -> Image.Image:
    """Lay a map over its picture.

    Values at or below the low end of the scale leave the picture unchanged; above it the colour
    goes from blue to red, and becomes stronger up to the middle of the scale.

    Args:
        picture: RGB.
        anomaly_map: (H, W), of the picture's size.
        colours: map values of the low and the high end, the same for all pictures of a run.
    """
    levels = _levels(anomaly_map, *colours)
    strength = (np.clip(np.arange(256) / 127.5, 0, 1) * _STRONGEST_TINT * 255).round().astype(np.uint8)
    tint = Image.fromarray(cv2.LUT(levels, strength))
    # Through a palette, which takes a third of the memory of COLOURS[levels].
    coloured = Image.fromarray(levels)
    coloured.putpalette(COLOURS.tobytes())
    return Image.composite(coloured.convert("RGB"), picture, tint)


def with_legend(picture: Image.Image, colours: tuple[float, float], threshold: float) -> Image.Image:
    """The picture above a strip that explains the colours.

    Args:
        picture: RGB, with its heat map.
        colours: map values of the low and the high end.
        threshold: the pixel threshold; marked where it lies on the scale.
    """
    low, high = colours
    height = min(max(picture.height // 24, 14), 60)
    whole = Image.new("RGB", (picture.width, picture.height + height), "white")
    whole.paste(picture)
    pen, font = ImageDraw.Draw(whole), ImageFont.load_default(height * 0.7)
    texts = f"{low:.3g} ", f" {high:.3g}"
    left, right = (int(pen.textlength(text, font)) + 2 for text in texts)
    scale = picture.width - left - right
    top = picture.height
    if scale > 8:
        whole.paste(Image.fromarray(COLOURS[None]).resize((scale, height - 4)), (left, top + 2))
        for start, text in zip((2, left + scale), texts):
            pen.text((start, top + height / 2), text, "black", font, "lm")
        if low < threshold < high:
            x = left + scale * (threshold - low) / (high - low)
            pen.line((x, top, x, top + height), "black", max(height // 10, 1))
    return whole


def packed_map(anomaly_map: npt.NDArray[np.float32]) -> bytes:
    """A map in [0, 2] as a 16-bit PNG in steps of 3e-5."""
    return encoded(Image.fromarray((anomaly_map * _MAP_STEPS).round().astype(np.uint16)), "PNG", compress_level=1)


def unpacked_map(path: Path) -> npt.NDArray[np.float32]:
    """The map in a file that ``packed_map`` made.

    Raises:
        InputError: if the file cannot be read.
    """
    try:
        with Image.open(path) as image:
            return np.asarray(image, np.float32) / _MAP_STEPS
    except (OSError, ValueError, SyntaxError) as error:
        raise InputError(
            f"map {path} cannot be read ({error}); remove it, and --resume scores its picture again"
        ) from error


def fit(anomaly_map: npt.NDArray[np.float32], size: tuple[int, int]) -> npt.NDArray[np.float32]:
    """An (S, S) map resized to its picture's size, (width, height) in pixels: (height, width), bilinear."""
    return np.asarray(Image.fromarray(anomaly_map).resize(size, Image.Resampling.BILINEAR))


def strongest_region(anomaly_map: npt.NDArray[np.float32], threshold: float) -> tuple[float, Box | None]:
    """The share of a picture above the threshold, and the region with the highest value.

    Args:
        anomaly_map: (H, W).
        threshold: higher values count.

    Returns:
        The share of such pixels in [0, 1], and the box x, y, width, height in pixels of their 8-connected
        region that holds the highest value; None where no pixel is above.
    """
    above = anomaly_map > threshold
    if not above.any():
        return 0.0, None
    _, labels, boxes, _ = cv2.connectedComponentsWithStats(above.astype(np.uint8), connectivity=8)
    row, column = np.unravel_index(int(anomaly_map.argmax()), anomaly_map.shape)
    x, y, width, height = (int(value) for value in boxes[labels[row, column], :4])
    return float(above.mean()), (x, y, width, height)


def mask_image(anomaly_map: npt.NDArray[np.float32], threshold: float) -> Image.Image:
    """The pixels above the threshold in white on black, 8-bit grey."""
    return Image.fromarray(np.where(anomaly_map > threshold, 255, 0).astype(np.uint8))


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    """An image as a file's content; ``kind`` and the options are the ones of Pillow's ``save``.

    Raises:
        InputError: if the format cannot hold an image of this size.
    """
    buffer = io.BytesIO()
    try:
        image.save(buffer, kind, **options)
    except (OSError, ValueError) as error:
        raise InputError(f"a {kind} of {image.width} x {image.height} pixels cannot be made ({error})") from error
    return buffer.getvalue()


def data_url(image: Image.Image, quality: int = 90) -> str:
    """An image as WebP inside a page, without a file.

    Raises:
        InputError: if the image is too large for WebP.
    """
    return "data:image/webp;base64," + base64.b64encode(encoded(image, "WEBP", quality=quality)).decode("ascii")


def _levels(values: npt.NDArray[np.floating], low: float, high: float) -> npt.NDArray[np.uint8]:
    """Positions in ``COLOURS``."""
    scaled = np.clip((np.nan_to_num(values, nan=low) - low) / (high - low), 0, 1)
    return np.asarray((scaled * 255).round(), np.uint8)
