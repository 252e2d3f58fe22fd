"""A listed item's image and mask."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from datasets.items import Item
from datasets.layout import mask_files
from winclip.pictures.images import open_image, read_image, resize_straight, strips, why_unreadable
from winclip.support.errors import InputError
from winclip.support.files import is_file, is_folder

Mask = npt.NDArray[np.bool_]


def load_sample(item: Item, root: Path, size: int) -> tuple[Image.Image, Mask | None]:
    """Read an item, for ``winclip.pictures.reading.BatchReader``.

    Args:
        item: what to read.
        root: the folder that its paths start from.
        size: side S in pixels of the mask.

    Returns:
        The image, 8-bit RGB in its own size, and the mask: (S, S) bool, True on defects, all False for
        a normal image, whose mask is not read; None for an anomalous image without a mask.

    Raises:
        InputError: if image or mask cannot be read, or they differ in size; names the file.
    """
    image = read_image(root / item.img_path)
    if not item.anomaly:
        return image, np.zeros((size, size), np.bool_)
    if not item.mask_path:
        return image, None
    mask = read_mask(root / item.mask_path)
    if mask.shape != image.size[::-1]:
        raise InputError(
            f"mask {root / item.mask_path} is {mask.shape[1]}x{mask.shape[0]} and its image"
            f" {root / item.img_path} is {image.size[0]}x{image.size[1]}; both need the same size"
        )
    return image, resize_mask(mask, size)


def read_mask(path: Path) -> Mask:
    """Read a mask at its native size: True where any colour channel is above 0.

    Palettes are looked up, so that black is no defect whatever its index; transparency is ignored. Of a folder,
    the images are read and joined: True where one of them is.

    Returns:
        (H, W) bool.

    Raises:
        InputError: if the file is missing or cannot be decoded, or the folder holds no images or ones that
            differ in size; the message names it.
    """
    masks = [_read_mask(path.parent / part) for part in mask_files(path.parent, path.name)]
    if len({mask.shape for mask in masks}) > 1:
        raise InputError(f"mask {path}: its images differ in size")
    return np.logical_or.reduce(masks)


def _read_mask(path: Path) -> Mask:
    if not is_file(path):
        raise InputError(f"mask {path} {'holds no images' if is_folder(path) else 'does not exist'}")
    try:
        with open_image(path) as image:
            return np.concatenate([_has_colour(strip) for strip in strips(image)])
    except InputError as error:
        raise InputError(f"mask {path}: {error}") from error
    except Exception as error:  # Pillow's decoders raise errors of many kinds on damaged bytes
        raise InputError(f"mask {path} cannot be read ({why_unreadable(error)})") from error


def _has_colour(image: Image.Image) -> Mask:
    """(H, W), False where an image is black."""
    if image.mode in ("1", "L", "F", "I") or image.mode.startswith("I;16"):
        return np.asarray(np.asarray(image) > 0)
    if image.mode == "P":
        # By way of RGBA, because Pillow warns when it drops the transparency of a palette.
        image = image.convert("RGBA")
    return np.asarray(np.asarray(image.convert("RGB")).any(axis=2))


def resize_mask(mask: Mask, size: int) -> Mask:
    """Resize a mask as the images are: bilinear and antialiased on 0/255, defect above one half.

    Args:
        mask: (H, W) bool.
        size: side S in pixels.

    Returns:
        (S, S) bool.
    """
    image = Image.fromarray(mask.astype(np.uint8) * 255)
    resized: Mask = np.asarray(resize_straight(image, size, Image.Resampling.BILINEAR)) > 127
    return resized
