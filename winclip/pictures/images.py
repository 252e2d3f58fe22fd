"""From an image file, PIL image or array to resized pixels, and to the normalised tensor that the image tower takes."""

from __future__ import annotations

import io
import threading
import warnings
from collections.abc import Iterator, Sequence
from os import PathLike
from typing import Union

import numpy as np
import numpy.typing as npt
import torch
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from winclip.defaults import IMAGE_FORMATS
from winclip.support.errors import InputError
from winclip.support.files import is_file

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)

ImageLike = Union[str, "PathLike[str]", Image.Image, npt.NDArray[np.uint8], torch.Tensor]

# Longer pictures show nothing on a page, and would take gigabytes on the way to a square.
LARGEST_RATIO = 1000
# Decoded and converted to RGB these are 0.8 GB.
PIXEL_LIMIT = 100_000_000
# Pixels that are converted at once, by way of larger ones.
_STRIP_PIXELS = 1 << 22

# The filters of warnings are shared by all threads that read.
_warning_filters = threading.Lock()


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert an image of any mode to 8-bit RGB.

    Transparency is laid over white. Integer modes deeper than 8 bits are taken as 16-bit with full
    scale 65535. CMYK, YCbCr and HSV are converted by Pillow.

    Raises:
        InputError: for floating point images, whose range is unknown, and modes without a
            conversion.
    """
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.width * image.height <= _STRIP_PIXELS:
        return _strip_to_rgb(image)
    whole, top = Image.new("RGB", image.size), 0
    for part in map(_strip_to_rgb, strips(image)):
        whole.paste(part, (0, top))
        top += part.height
    return whole


def strips(image: Image.Image) -> Iterator[Image.Image]:
    """An image in parts of few rows, for conversions whose steps take several times its memory."""
    rows = max(_STRIP_PIXELS // max(image.width, 1), 1)
    for top in range(0, image.height, rows):
        yield image.crop((0, top, image.width, min(top + rows, image.height)))


def _strip_to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "I" or image.mode.startswith("I;16"):
        values = np.asarray(image).astype(np.int64)
        if values.size and (values.min() < 0 or values.max() > 65535):
            raise InputError(
                f"image of mode {image.mode} has values outside 0..65535 ({values.min()} to {values.max()});"
                " save it with 8 or 16 bits a channel"
            )
        return Image.fromarray(((values * 255 + 32767) // 65535).astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        straight = image.convert({"La": "LA", "RGBa": "RGBA"}.get(image.mode, image.mode)).convert("RGBA")
        white = Image.new("RGBA", straight.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, straight).convert("RGB")
    try:
        if image.mode != "F":
            return image.convert("RGB")
    except ValueError:
        pass
    raise InputError(f"image mode {image.mode} has no fixed range or no conversion to RGB; save it as 8-bit RGB")


def read_image(
    path: str | PathLike[str] | io.BytesIO,
    *,
    name: str | None = None,
    upright: bool = False,
    max_pixels: int = PIXEL_LIMIT,
) -> Image.Image:
    """Read and fully decode an image file as 8-bit RGB.

    Args:
        path: the file, or its content.
        name: what the message calls it; by default ``image`` and the path.
        upright: turn the image as its EXIF orientation says. By default it is left as stored, since
            the masks of the data sets belong to the stored pixels.
        max_pixels: refuse larger images before they are decoded.

    Raises:
        InputError: if the file is missing, truncated, not an image, or larger than the limit; the
            message names the file.
    """
    name = name or f"image {path}"
    if not isinstance(path, io.BytesIO) and not is_file(path):
        raise InputError(f"{name} does not exist")
    try:
        with open_image(path, max_pixels) as image:
            image.load()
            return to_rgb(ImageOps.exif_transpose(image) if upright else image)
    except InputError as error:
        raise InputError(f"{name}: {error}") from error
    except Exception as error:  # Pillow's decoders raise errors of many kinds on damaged bytes
        raise InputError(f"{name} cannot be read ({why_unreadable(error)})") from error


def upright_size(path: str | PathLike[str]) -> tuple[int, int]:
    """Width and height of an image file as ``read_image`` gives it upright, from the file's beginning.

    Raises:
        InputError: as ``read_image``, where the beginning tells.
    """
    try:
        with open_image(path) as image:
            width, height = image.size
            turned = image.getexif().get(ExifTags.Base.Orientation) in (5, 6, 7, 8)
    except Exception as error:  # as in ``read_image``
        raise InputError(f"image {path} cannot be read ({why_unreadable(error)})") from error
    return (height, width) if turned else (width, height)


def why_unreadable(error: Exception) -> str:
    """What Pillow's error says of a file."""
    if isinstance(error, UnidentifiedImageError):
        return f"it is none of {', '.join(IMAGE_FORMATS)}, or its beginning is damaged"
    return f"{type(error).__name__}: {error}"


def open_image(path: str | PathLike[str] | io.BytesIO, max_pixels: int = PIXEL_LIMIT) -> Image.Image:
    """An image that is not decoded yet, of ``IMAGE_FORMATS``, not larger than the limit and of a bearable shape."""
    with _warning_filters, warnings.catch_warnings():
        # Pillow's warning at half its own limit says nothing new here.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        image = Image.open(path, formats=IMAGE_FORMATS)
    width, height = image.size
    if max(width, height) > LARGEST_RATIO * min(width, height) or width * height > max_pixels:
        image.close()
        raise InputError(
            f"{width} x {height} is more than {max_pixels:,} pixels or {LARGEST_RATIO:,} times as long as wide, the"
            " limits; make it smaller, or cut it into parts"
        )
    return image


def as_sequence(images: Sequence[ImageLike] | ImageLike) -> Sequence[ImageLike]:
    """Several images, or one, as a sequence; a 4-dimensional array or tensor is a sequence already."""
    if isinstance(images, (str, PathLike, Image.Image)):
        return [images]
    if isinstance(images, (np.ndarray, torch.Tensor)):
        return list(images) if images.ndim == 4 else [images]
    return images


def as_image(image: ImageLike) -> Image.Image:
    """The PIL image of a path, an array or a tensor.

    Args:
        image: a path, turned as its EXIF orientation says; a PIL image, taken as it is; a uint8 array
            (H, W) or (H, W, 3); or a float tensor (3, H, W) in [0, 1], rounded to 8 bits, so that the
            tensor of an image gives what the image gives.

    Raises:
        InputError: if a file cannot be read, or shape, type or range are others.
    """
    if isinstance(image, Image.Image):
        return image
    if isinstance(image, (str, PathLike)):
        return read_image(image, upright=True)
    if isinstance(image, torch.Tensor):
        good = image.is_floating_point() and image.ndim == 3 and image.shape[0] == 3 and image.numel() > 0
        if not good or not (float(image.min()) >= 0 and float(image.max()) <= 1):
            ends = f", from {float(image.min()):.4g} to {float(image.max()):.4g}" if good else ""
            raise InputError(
                f"tensor of shape {tuple(image.shape)} and type {image.dtype}{ends} is no image; give"
                " float (3, H, W) in [0, 1], before any normalisation"
            )
        scaled = image.detach().float().mul(255).round().to("cpu", torch.uint8)
        return Image.fromarray(np.ascontiguousarray(scaled.permute(1, 2, 0).numpy()))
    array = np.asarray(image)
    if array.dtype != np.uint8 or not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 3)) or not array.size:
        raise InputError(
            f"array of shape {array.shape} and type {array.dtype} is no image; give uint8 of shape (H, W) or (H, W, 3)"
        )
    return Image.fromarray(array)


def resize_straight(image: Image.Image, size: int, resampling: Image.Resampling) -> Image.Image:
    """An image in ``size`` x ``size`` pixels, antialiased; the aspect ratio is not kept.

    First the width, then the height, in two calls: in one call, the order and with it some bytes depend
    on Pillow's version and the image's shape.
    """
    return image.resize((size, image.height), resampling).resize((size, size), resampling)


def resized_pixels(image: Image.Image, size: int) -> npt.NDArray[np.uint8]:
    """The pixels of an image of any mode and size in ``size`` x ``size`` (bicubic, antialiased): (size, size, 3)."""
    return np.asarray(resize_straight(to_rgb(image), size, Image.Resampling.BICUBIC))


def normalise(pixels: torch.Tensor, mean: Sequence[float] = CLIP_MEAN, std: Sequence[float] = CLIP_STD) -> torch.Tensor:
    """Normalise resized pixels on the device that they are on.

    Args:
        pixels: (N, S, S, 3) uint8.
        mean: per channel, in [0, 1].
        std: per channel, in [0, 1].

    Returns:
        (N, 3, S, S) float32.
    """
    # Plain numbers: a tensor of them would be one more copy to the device, and one that waits.
    channels = [pixels[..., channel].float().div_(255).sub_(mean[channel]).div_(std[channel]) for channel in range(3)]
    return torch.stack(channels, dim=1)
