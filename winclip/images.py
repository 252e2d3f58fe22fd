"""From an image file, PIL image or array to the normalised tensor that the image tower takes."""

from __future__ import annotations

import struct
from os import PathLike
from pathlib import Path
from typing import Union

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from winclip.errors import InputError

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)

ImageLike = Union[str, "PathLike[str]", Image.Image, npt.NDArray[np.uint8]]

# What Pillow raises on files that are truncated, damaged, of another format, or too large to decode.
_DECODING_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    struct.error,
    Image.DecompressionBombError,
)


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert an image of any mode to 8-bit RGB.

    Transparency is laid over white. Integer modes deeper than 8 bits are taken as 16-bit with full
    scale 65535. CMYK, YCbCr and HSV are converted by Pillow.

    Raises:
        InputError: for floating point images, whose range is unknown, and modes without a
            conversion.
    """
    transparent = "transparency" in image.info
    if image.mode == "RGB" and not transparent:
        return image
    if image.mode == "I" or image.mode.startswith("I;16"):
        values = np.asarray(image).astype(np.int64)
        if values.size and (values.min() < 0 or values.max() > 65535):
            raise InputError(
                f"image of mode {image.mode} has values outside 0..65535 ({values.min()} to {values.max()});"
                " save it with 8 or 16 bits a channel"
            )
        return Image.fromarray(((values * 255 + 32767) // 65535).astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or transparent:
        straight = image.convert({"La": "LA", "RGBa": "RGBA"}.get(image.mode, image.mode)).convert("RGBA")
        white = Image.new("RGBA", straight.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, straight).convert("RGB")
    if image.mode == "F":
        raise InputError("floating point images have no fixed range; save them with 8 or 16 bits a channel")
    try:
        return image.convert("RGB")
    except ValueError as error:
        raise InputError(f"no conversion from image mode {image.mode} to RGB; save the image as RGB") from error


def read_image(path: str | PathLike[str]) -> Image.Image:
    """Read and fully decode an image file as 8-bit RGB.

    EXIF orientation is not applied: the masks of the data sets belong to the pixels as stored.

    Raises:
        InputError: if the file is missing, truncated, not an image, or larger than Pillow's limit
            on pixels; the message names the file.
    """
    if not Path(path).is_file():
        raise InputError(f"image {path} does not exist")
    try:
        with Image.open(path) as image:
            image.load()
            return to_rgb(image)
    except InputError as error:
        raise InputError(f"image {path}: {error}") from error
    except _DECODING_ERRORS as error:
        raise InputError(f"image {path} cannot be read ({type(error).__name__}: {error})") from error


def preprocess(
    image: Image.Image,
    size: int,
    mean: tuple[float, float, float] = CLIP_MEAN,
    std: tuple[float, float, float] = CLIP_STD,
) -> torch.Tensor:
    """Resize straight to ``size`` x ``size`` (bicubic, antialiased) and normalise.

    Args:
        image: any mode and size; the aspect ratio is not kept.
        size: side in pixels.
        mean: per channel, in [0, 1].
        std: per channel, in [0, 1].

    Returns:
        (3, size, size) float32.
    """
    resized = to_rgb(image).resize((size, size), Image.Resampling.BICUBIC)
    channels_last = torch.from_numpy(np.array(resized)).float().div_(255)
    return channels_last.sub_(torch.tensor(mean)).div_(torch.tensor(std)).permute(2, 0, 1).contiguous()
