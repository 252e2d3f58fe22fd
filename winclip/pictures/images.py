"""From an image file, PIL image or array to resized pixels, and to the normalised tensor that the image tower takes."""

from __future__ import annotations

import contextlib
import io
import threading
import warnings
from collections.abc import Iterator, Sequence
from functools import cache
from os import PathLike
from pathlib import Path
from typing import Any, Union

import numpy as np
import numpy.typing as npt
import torch
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from winclip.defaults import FULL_RANGE, IMAGE_FORMATS, MISSING
from winclip.pictures.intake import Intake
from winclip.support.errors import InputError
from winclip.support.files import is_file, is_folder

if "HEIF" in IMAGE_FORMATS:
    import pillow_heif

    pillow_heif.register_heif_opener()

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)

ImageLike = Union[str, "PathLike[str]", Image.Image, npt.NDArray[np.uint8], torch.Tensor]

# Larger aspect ratios show nothing on a page, and would take gigabytes while they become square.
LARGEST_RATIO = 1000
# Decoded and converted to RGB, this many pixels take 0.8 GB.
PIXEL_LIMIT = 100_000_000
# Pixels that are converted at once, because intermediate values are larger.
_STRIP_PIXELS = 1 << 22

# Warning filters are shared by all threads that read.
_warning_filters = threading.Lock()


def to_rgb(image: Image.Image, intake: Intake | None = None, name: str = "") -> Image.Image:
    """Convert an image of any mode to 8-bit RGB.

    Transparency is laid over white. CMYK, YCbCr and HSV are converted by Pillow.

    Args:
        image: of any mode.
        intake: sets the white value of integer modes deeper than 8 bits, by default 65535, and records their values.
        name: the image's name in the intake; by default a number.

    Raises:
        InputError: for floating point images, whose range is unknown, and modes without a
            conversion.
    """
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    intake = intake or Intake()
    name = name or str(len(intake.highest))
    if image.width * image.height <= _STRIP_PIXELS:
        return _strip_to_rgb(image, intake, name)
    whole, top = Image.new("RGB", image.size), 0
    for strip in strips(image):
        part = _strip_to_rgb(strip, intake, name)
        whole.paste(part, (0, top))
        top += part.height
    return whole


def strips(image: Image.Image) -> Iterator[Image.Image]:
    """An image in strips of few rows, for conversions whose steps take several times its memory."""
    rows = max(_STRIP_PIXELS // max(image.width, 1), 1)
    for top in range(0, image.height, rows):
        yield image.crop((0, top, image.width, min(top + rows, image.height)))


@cache
def _eight_bits(white: int) -> npt.NDArray[np.uint8]:
    """The 8-bit value of each 16-bit value, rounded."""
    return ((np.minimum(np.arange(FULL_RANGE + 1), white) * 255 + white // 2) // white).astype(np.uint8)


def _strip_to_rgb(image: Image.Image, intake: Intake, name: str) -> Image.Image:
    if image.mode == "I" or image.mode.startswith("I;16"):
        values = np.asarray(image)
        highest = int(values.max(initial=0))
        if values.min(initial=0) < 0 or highest > FULL_RANGE:
            raise InputError(
                f"image of mode {image.mode} has values outside 0..65535 ({values.min()} to {highest});"
                " save it with 8 or 16 bits a channel"
            )
        intake.highest[name] = max(highest, intake.highest.get(name, 0))
        return Image.fromarray(_eight_bits(intake.white or FULL_RANGE)[values]).convert("RGB")
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
    intake: Intake | None = None,
) -> Image.Image:
    """Read and fully decode an image file as 8-bit RGB.

    Args:
        path: the file, or its content.
        name: the image's name in messages; by default ``image`` and the path.
        upright: turn the image as its EXIF orientation says. By default it is left as stored, since
            the masks of the data sets fit the stored pixels.
        max_pixels: refuse larger images before they are decoded.
        intake: see ``to_rgb``; records what is unusual about the image.

    Raises:
        InputError: if the file is missing, truncated, not an image, or larger than the limit; the
            message names the file.
    """
    intake, called, name = intake or Intake(), name or str(path), name or f"image {path}"
    if not isinstance(path, io.BytesIO) and not is_file(path):
        raise InputError(f"{name} {'is a folder; name a file in it' if is_folder(path) else 'does not exist'}")
    try:
        with open_image(path, max_pixels) as image:
            grey = image.mode[0] in "IF"
            # In colour images Pillow keeps only the upper 8 of 16 bits.
            parts = str(getattr(image, "tile", [])[:1]) if image.format in ("PNG", "TIFF") else ""
            colours = ";16" in parts and image.mode in ("RGB", "RGBA", "LA")
            # In photographs from phones the other images are previews.
            if image.format != "MPO" and getattr(image, "is_animated", False):
                intake.paged.add(called)
            image.load()
            # Pillow itself turns TIFF files; the pixels are usable even if EXIF is damaged.
            with contextlib.suppress(Exception):
                turn: Any = image.getexif().get(ExifTags.Base.Orientation)
                if image.format != "TIFF" and turn in range(2, 9):
                    intake.turned[called] = turn
            shown = _deep_colours(path, image, intake, called) if colours else image
            intake.shallow |= not (grey or colours)
            return to_rgb(ImageOps.exif_transpose(shown) if upright else shown, intake, called)
    except InputError as error:
        raise InputError(f"{name}: {error}") from error
    except Exception as error:  # Pillow's decoders raise errors of many kinds on damaged bytes
        raise InputError(f"{name} cannot be read ({why_unreadable(error, path)})") from error


def _deep_colours(path: str | PathLike[str] | io.BytesIO, image: Image.Image, intake: Intake, name: str) -> Image.Image:
    """An image with 16 bits a channel, of which Pillow kept the upper 8, scaled by the white value.

    Raises:
        InputError: if a white value is given and the full 16 bits cannot be read.
    """
    if intake.white is None:
        extrema: Any = image.getextrema()
        intake.highest[name] = 256 * max(highest for _, highest in extrema[: 1 if image.mode == "LA" else 3]) + 255
        return image
    # Late, since most pictures do not need it.
    import cv2

    content = path.getvalue() if isinstance(path, io.BytesIO) else Path(path).read_bytes()
    values: Any = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    if values is None or values.dtype != np.uint16 or values.shape[:2] != image.size[::-1] or values.ndim != 3:
        raise InputError("its 16-bit colours cannot be read in full, as --white requires; save it with 8 bits")
    intake.highest[name] = int(values[..., :3].max())
    eight = _eight_bits(intake.white)[values[..., 2::-1]]
    if values.shape[2] == 4:
        eight = np.dstack([eight, (values[..., 3] >> 8).astype(np.uint8)])
    shown = Image.fromarray(eight)
    shown.getexif()[ExifTags.Base.Orientation] = image.getexif().get(ExifTags.Base.Orientation, 1)
    return shown


def why_unreadable(error: Exception, path: str | PathLike[str] | io.BytesIO | None = None) -> str:
    """Pillow's reason why a file is unreadable, and the package that would read it, if there is one."""
    if isinstance(error, UnidentifiedImageError):
        beginning = path.getvalue() if isinstance(path, io.BytesIO) else b""
        if isinstance(path, (str, PathLike)):
            with Path(path).open("rb") as file:
                beginning = file.read(12)
        for ending, brands in ((".avif", (b"avi",)), (".heic", (b"hei", b"hev", b"mif", b"msf"))):
            if beginning[4:8] == b"ftyp" and beginning[8:11] in brands and ending in MISSING:
                return f"it is {ending[1:].upper()}; python -m pip install {MISSING[ending]} lets it be read"
        return f"it is none of {', '.join(IMAGE_FORMATS)}, or its beginning is damaged"
    return f"{type(error).__name__}: {error}"


def open_image(path: str | PathLike[str] | io.BytesIO, max_pixels: int = PIXEL_LIMIT) -> Image.Image:
    """An image, not decoded yet, of ``IMAGE_FORMATS`` and within the limits on size and aspect ratio."""
    with _warning_filters, warnings.catch_warnings():
        # Pillow's warning at half its own limit adds nothing here.
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


def as_image(image: ImageLike, intake: Intake | None = None) -> Image.Image:
    """The PIL image of a path, an array or a tensor.

    Args:
        image: a path, turned as its EXIF orientation says; a PIL image, taken as it is; a uint8 array
            (H, W) or (H, W, 3); or a float tensor (3, H, W) in [0, 1], rounded to 8 bits, so that an
            image and its tensor give the same result. Colours are RGB, not BGR as in OpenCV.
        intake: see ``to_rgb``.

    Raises:
        InputError: if a file cannot be read, or shape, type or range are not supported.
    """
    if isinstance(image, (str, PathLike)):
        return read_image(image, upright=True, intake=intake)
    if intake is not None:
        intake.shallow |= not (isinstance(image, Image.Image) and image.mode[0] in "IF")
    if isinstance(image, Image.Image):
        return image
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
    """An image resized to ``size`` x ``size`` pixels, antialiased; the aspect ratio is not kept.

    First the width, then the height, in two calls: in one call, the order and therefore some bytes depend
    on Pillow's version and the image's shape.
    """
    return image.resize((size, image.height), resampling).resize((size, size), resampling)


def resized_pixels(image: Image.Image, size: int, intake: Intake | None = None) -> npt.NDArray[np.uint8]:
    """The pixels of an image of any mode and size, resized to (size, size, 3), bicubic with antialiasing."""
    return np.asarray(resize_straight(to_rgb(image, intake), size, Image.Resampling.BICUBIC))


def normalise(pixels: torch.Tensor, mean: Sequence[float] = CLIP_MEAN, std: Sequence[float] = CLIP_STD) -> torch.Tensor:
    """Normalise resized pixels on their device.

    Args:
        pixels: (N, S, S, 3) uint8 or float32 from 0 to 255.
        mean: per channel, in [0, 1].
        std: per channel, in [0, 1].

    Returns:
        (N, 3, S, S) float32.
    """
    # Plain numbers: a tensor of them would need one more copy to the device, and a wait.
    channels = [(pixels[..., channel] / 255).sub_(mean[channel]).div_(std[channel]) for channel in range(3)]
    return torch.stack(channels, dim=1)
