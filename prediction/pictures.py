"""What is drawn and measured of one picture, in its own size."""

from __future__ import annotations

import io

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from winclip.errors import InputError

Box = tuple[int, int, int, int]

_STRONGEST_TINT = 0.6


def fit(anomaly_map: npt.NDArray[np.float32], size: tuple[int, int]) -> npt.NDArray[np.float32]:
    """An (S, S) map in the size of its picture, (width, height) in pixels: (height, width), bilinear."""
    return np.asarray(Image.fromarray(anomaly_map).resize(size, Image.Resampling.BILINEAR))


def strongest_region(anomaly_map: npt.NDArray[np.float32], threshold: float) -> tuple[float, Box | None]:
    """How much of a picture is above the threshold, and where it is highest.

    Args:
        anomaly_map: (H, W).
        threshold: higher values count.

    Returns:
        The share of such pixels in [0, 1], and of the 8-connected region of them that holds the
        highest value the box x, y, width, height in pixels; None where no pixel is above.
    """
    above = anomaly_map > threshold
    if not above.any():
        return 0.0, None
    _, labels, boxes, _ = cv2.connectedComponentsWithStats(above.astype(np.uint8), connectivity=8)
    row, column = np.unravel_index(int(anomaly_map.argmax()), anomaly_map.shape)
    x, y, width, height = (int(value) for value in boxes[labels[row, column], :4])
    return float(above.mean()), (x, y, width, height)


def heat_map(picture: Image.Image, anomaly_map: npt.NDArray[np.float32], colours: tuple[float, float]) -> bytes:
    """Lay a map over its picture, as JPEG.

    Values at or below the low end of the scale leave the picture as it is; from there on the colour
    goes from blue to red, and grows in strength up to the middle of the scale.

    Args:
        picture: RGB.
        anomaly_map: (H, W), of the picture's size.
        colours: map values of the low and the high end, the same for all pictures of a run.

    Raises:
        InputError: if the picture is too long for JPEG.
    """
    low, high = colours
    levels = (np.clip((anomaly_map - low) / (high - low), 0, 1) * 255).round().astype(np.uint8)
    ramp = np.arange(256, dtype=np.uint8)
    palette = cv2.cvtColor(cv2.applyColorMap(ramp, cv2.COLORMAP_TURBO), cv2.COLOR_BGR2RGB).reshape(256, 3)
    strength = (np.clip(ramp / 127.5, 0, 1) * _STRONGEST_TINT * 255).round().astype(np.uint8)
    tint = Image.fromarray(cv2.LUT(levels, strength))
    coloured = Image.fromarray(levels)
    coloured.putpalette(palette.tobytes())
    return _encoded(Image.composite(coloured.convert("RGB"), picture, tint), "JPEG", quality=90)


def mask(anomaly_map: npt.NDArray[np.float32], threshold: float) -> bytes:
    """The pixels above the threshold in white on black, as 8-bit grey PNG."""
    return _encoded(Image.fromarray(np.where(anomaly_map > threshold, 255, 0).astype(np.uint8)), "PNG")


def _encoded(image: Image.Image, kind: str, **options: int) -> bytes:
    buffer = io.BytesIO()
    try:
        image.save(buffer, kind, **options)
    except (OSError, ValueError) as error:
        raise InputError(f"a heat map of {image.width} x {image.height} pixels cannot be drawn ({error})") from error
    return buffer.getvalue()
