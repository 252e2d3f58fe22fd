"""Reads the image and mask of a listed item."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageChops, ImageOps

from datasets.items import Item
from datasets.layout import mask_files
from winclip.pictures.images import open_image, read_image, resize_straight, strips, why_unreadable
from winclip.pictures.intake import Intake
from winclip.pictures.preparing import Views, prepare
from winclip.support.errors import InputError
from winclip.support.files import is_file, is_folder

Mask = npt.NDArray[np.bool_]


# What may be wrong with a sample that can be read.
TURNED, GRADED, EMPTY = "turned", "graded", "empty"
# Whole numbers below this are labels, wherever they are in the image.
_LABELS = 32


@dataclass(frozen=True)
class Truth:
    """What is known about an image besides its pixels.

    Attributes:
        mask: (S, S) bool, True on defects; None for an anomalous image without a mask.
        oddities: ``TURNED`` if EXIF would turn the image but is ignored, ``GRADED`` if ``read_graded`` says so,
            ``EMPTY`` if the mask of an anomalous image has no defect pixel.
        views: the image's views by the ``prepare`` of variants.
    """

    mask: Mask | None
    oddities: tuple[str, ...] = ()
    views: Mapping[str, Views] = field(default_factory=dict)


def load_sample(
    item: Item,
    root: Path,
    size: int,
    upright: bool = False,
    intake: Intake | None = None,
    prepares: Sequence[str] = (),
    masks: bool = True,
) -> tuple[Image.Image, Truth]:
    """Read an item, for ``winclip.pictures.reading.BatchReader``.

    Args:
        item: what to read.
        root: the folder that its paths start from.
        size: side S in pixels of the mask.
        upright: turn image and mask as their EXIF orientation says.
        intake: of the images.
        prepares: further views to make.
        masks: whether masks are read.

    Returns:
        The image, 8-bit RGB in its own size, and its mask: all False for a normal image, whose mask is not read.

    Raises:
        InputError: if image or mask cannot be read, they differ in size, or there is no such view; names the file.
    """
    intake, path = intake or Intake(), root / item.img_path
    image, turn = read_image(path, upright=upright, intake=intake), intake.turned.get(str(path), 1)
    odd = [TURNED] if not upright and turn > 1 else []
    try:
        views = {how: prepare(image, size, how) for how in prepares}
    except InputError as error:
        raise InputError(f"image {path}: {error}") from error
    if not item.anomaly or not item.mask_path or not masks:
        return image, Truth(None if item.anomaly else np.zeros((size, size), np.bool_), tuple(odd), views)
    mask, graded = read_graded(root / item.mask_path, upright)
    if mask.shape != image.size[::-1]:
        raise InputError(
            f"mask {root / item.mask_path} is {mask.shape[1]}x{mask.shape[0]} and its image"
            f" {path} is {image.size[0]}x{image.size[1]}; both need the same size"
            + turning_fits(turn, image, mask, upright)
        )
    odd += [name for name, found in ((GRADED, graded), (EMPTY, not mask.any())) if found]
    return image, Truth(resize_mask(mask, size), tuple(odd), views)


def turning_fits(turn: int, image: Image.Image, mask: Mask, upright: bool) -> str:
    """How ``--upright`` would make image and mask equal in size, for an error; empty if it would not."""
    if mask.shape != image.size or turn < 5:
        return ""
    stored = "as they are stored, so leave out --upright" if upright else "upright as EXIF says; try --upright"
    return f", and they have it {stored}"


def read_mask(path: Path, upright: bool = False) -> Mask:
    """Read a mask at its native size: ``read_graded`` without its second result."""
    return read_graded(path, upright)[0]


def read_graded(path: Path, upright: bool = False) -> tuple[Mask, bool]:
    """Read a mask at its native size: True where its largest colour channel is above 0, or above a limit if graded.

    A mask is graded if it has intermediate values, as JPEG, lossy WebP, smoothing and scaling leave them around each
    defect: values up to half of the largest one that do not fill areas. At most half of these values then have most
    of their pixels in 2 x 2 squares of one value. The limit is half of the largest value. Values above it are no
    sign, nor are whole numbers if all are below 32, nor values that fill areas: these are labels.

    Palettes are looked up, so that black is no defect whatever its index; transparency is ignored. The images
    of a folder are joined: True where one of them is.

    Returns:
        (H, W) bool, and whether it, or one of the folder, is graded.

    Raises:
        InputError: if the file is missing or cannot be decoded, or the folder holds no images or ones that
            differ in size; the message names it.
    """
    masks = [_limited(_read_values(path.parent / part, upright)) for part in mask_files(path.parent, path.name)]
    if len({mask.shape for mask, _ in masks}) > 1:
        raise InputError(f"mask {path}: its images differ in size")
    return np.logical_or.reduce([mask for mask, _ in masks]), any(graded for _, graded in masks)


def _read_values(path: Path, upright: bool) -> npt.NDArray[Any]:
    if not is_file(path):
        raise InputError(f"mask {path} {'holds no images' if is_folder(path) else 'does not exist'}")
    try:
        with open_image(path) as image:
            turned = ImageOps.exif_transpose(image) if upright else image
            return np.concatenate([_values(strip) for strip in strips(turned)])
    except InputError as error:
        raise InputError(f"mask {path}: {error}") from error
    except Exception as error:  # Pillow's decoders raise errors of many kinds on damaged bytes
        raise InputError(f"mask {path} cannot be read ({why_unreadable(error)})") from error


def _values(image: Image.Image) -> npt.NDArray[Any]:
    """(H, W), 0 where an image is black."""
    if image.mode in ("1", "L", "F", "I") or image.mode.startswith("I;16"):
        return np.asarray(image)
    if image.mode == "P":
        # By way of RGBA, because Pillow warns when it drops the transparency of a palette.
        image = image.convert("RGBA")
    red, green, blue = image.convert("RGB").split()
    return np.asarray(ImageChops.lighter(ImageChops.lighter(red, green), blue))


def _limited(values: npt.NDArray[Any]) -> tuple[Mask, bool]:
    """Where values are defects, and whether they are graded, see ``read_graded``."""
    if values.dtype == np.bool_:
        return values, False
    whole = values.dtype.kind != "f"
    values = values if whole else np.nan_to_num(values)
    largest = values.max()
    # In the dtype of the values, or all of them would become float64.
    defects, upper = values > 0, values > (largest // 2 if whole else largest / 2)
    if (whole and largest < _LABELS) or np.count_nonzero(upper) == np.count_nonzero(defects):
        return defects, False
    in_square = np.zeros_like(defects)
    same = (
        (np.diff(values[:-1], axis=1) == 0) & (np.diff(values[1:], axis=1) == 0) & (np.diff(values, axis=0) == 0)[:, 1:]
    )
    for rows in (slice(None, -1), slice(1, None)):
        for columns in (slice(None, -1), slice(1, None)):
            in_square[rows, columns] |= same
    between = defects & ~upper
    _, level, counts = np.unique(values[between], return_inverse=True, return_counts=True)
    areas = np.bincount(level, in_square[between]) > counts / 2
    return (defects, False) if areas.mean() > 0.5 else (upper, True)


def resize_mask(mask: Mask, size: int) -> Mask:
    """Resize a mask like the images: bilinear and antialiased on 0/255, defect above one half.

    Args:
        mask: (H, W) bool.
        size: side S in pixels.

    Returns:
        (S, S) bool.
    """
    image = Image.fromarray(mask.astype(np.uint8) * 255)
    resized: Mask = np.asarray(resize_straight(image, size, Image.Resampling.BILINEAR)) > 127
    return resized
