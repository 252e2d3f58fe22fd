"""From listed items to batches of image tensors and masks, read in worker processes if wanted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from datasets.index import Item
from winclip.errors import InputError
from winclip.images import CLIP_MEAN, CLIP_STD, preprocess, read_image

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Sample:
    """An image that could be read.

    Attributes:
        item: where it comes from.
        image: (3, S, S) float32, normalised.
        mask: (S, S) bool, True on defects, all False for a normal image; None for an anomalous
            image without a mask.
    """

    item: Item
    image: torch.Tensor
    mask: Mask | None


@dataclass(frozen=True)
class Unreadable:
    """An image, or the mask of one, that is missing, damaged or no image.

    Attributes:
        item: where it comes from.
        reason: one line that names the file.
    """

    item: Item
    reason: str


@dataclass(frozen=True)
class Batch:
    """Consecutive items.

    Attributes:
        items: those that could be read, N of them, in order; N may be 0.
        images: (N, 3, S, S) float32, normalised.
        masks: N masks, each (S, S) bool or None (see :class:`Sample`).
        unreadable: the others, in order.
    """

    items: list[Item]
    images: torch.Tensor
    masks: list[Mask | None]
    unreadable: list[Unreadable]


# A value for every outcome: an exception that crosses a worker's border loses its one-line message.
_Outcome = Sample | Unreadable | InputError


class SampleDataset(Dataset[_Outcome]):
    """Items of a data set, read when asked for.

    Args:
        root: the folder that the items' paths start from.
        items: what to read.
        size: side S in pixels of images and masks.
        mean: per channel, in [0, 1].
        std: per channel, in [0, 1].

    An index gives a :class:`Sample`, an :class:`Unreadable`, or, if the mask has another size than
    its image, an InputError as a value (not raised).
    """

    def __init__(
        self,
        root: Path,
        items: Sequence[Item],
        size: int,
        mean: tuple[float, float, float] = CLIP_MEAN,
        std: tuple[float, float, float] = CLIP_STD,
    ) -> None:
        self.root = root
        self.items = list(items)
        self.size = size
        self.mean = mean
        self.std = std

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> _Outcome:
        item = self.items[index]
        try:
            image = read_image(self.root / item.img_path)
            mask = read_mask(self.root / item.mask_path) if item.anomaly and item.mask_path else None
        except InputError as error:
            return Unreadable(item, str(error))
        if mask is not None and mask.shape != image.size[::-1]:
            return InputError(
                f"mask {self.root / item.mask_path} is {mask.shape[1]}x{mask.shape[0]} and its image"
                f" {self.root / item.img_path} is {image.size[0]}x{image.size[1]}; both need the same size"
            )
        tensor = preprocess(image, self.size, self.mean, self.std)
        if not item.anomaly:
            return Sample(item, tensor, np.zeros((self.size, self.size), dtype=np.bool_))
        return Sample(item, tensor, None if mask is None else resize_mask(mask, self.size))


def read_mask(path: Path) -> Mask:
    """Read a mask at its native size: True where any colour channel is above 0.

    Palettes are looked up, so that black is no defect whatever its index; transparency is ignored.

    Returns:
        (H, W) bool.

    Raises:
        InputError: if the file is missing or cannot be decoded; the message names it.
    """
    if not path.is_file():
        raise InputError(f"mask {path} does not exist")
    try:
        with Image.open(path) as image:
            channels = _colour_channels(image)
    except Exception as error:  # Pillow's decoders raise errors of many kinds on damaged bytes
        raise InputError(f"mask {path} cannot be read ({type(error).__name__}: {error})") from error
    defect: Mask = np.asarray(channels > 0)
    return defect if defect.ndim == 2 else np.asarray(defect.any(axis=2))


def _colour_channels(image: Image.Image) -> npt.NDArray[Any]:
    """(H, W) or (H, W, 3) values in which 0 is black."""
    if image.mode in ("1", "L", "F", "I") or image.mode.startswith("I;16"):
        return np.asarray(image)
    if image.mode == "P":
        # By way of RGBA, because Pillow warns when it drops the transparency of a palette.
        image = image.convert("RGBA")
    return np.asarray(image.convert("RGB"))


def resize_mask(mask: Mask, size: int) -> Mask:
    """Resize a mask as the images are: bilinear and antialiased on 0/255, defect above one half.

    Args:
        mask: (H, W) bool.
        size: side S in pixels.

    Returns:
        (S, S) bool.
    """
    image = Image.fromarray(mask.astype(np.uint8) * 255)
    resized: Mask = np.asarray(image.resize((size, size), Image.Resampling.BILINEAR)) > 127
    return resized


def iterate(
    items: Sequence[Item],
    root: Path,
    size: int,
    *,
    mean: tuple[float, float, float] = CLIP_MEAN,
    std: tuple[float, float, float] = CLIP_STD,
    batch_size: int = 8,
    num_workers: int = 0,
) -> Iterator[Batch]:
    """Read items in their order, ``batch_size`` at a time (the last batch may be smaller).

    Neither the number of workers nor the batch size changes a value. torch's global random state
    is left as it is.

    Args:
        items: what to read.
        root: the folder that the items' paths start from.
        size: side S in pixels.
        mean: per channel, in [0, 1].
        std: per channel, in [0, 1].
        batch_size: 1 or more.
        num_workers: processes that read ahead; 0 reads in this one.

    Raises:
        InputError: if a mask has another size than its image. What cannot be read is no error here:
            it is in ``Batch.unreadable``.
    """
    loader: DataLoader[_Outcome] = DataLoader(
        SampleDataset(root, items, size, mean, std),
        batch_size=batch_size,
        num_workers=num_workers,
        collate_fn=_collate,
        worker_init_fn=use_one_thread,
        generator=torch.Generator(),
    )
    for collated in loader:
        if isinstance(collated, InputError):
            raise collated
        readable, images, masks, unreadable = collated
        tensor = torch.from_numpy(images) if readable else torch.empty(0, 3, size, size)
        yield Batch(readable, tensor, masks, unreadable)


_Collated = tuple[list[Item], npt.NDArray[np.float32], list[Mask | None], list[Unreadable]]


def _collate(outcomes: list[_Outcome]) -> _Collated | InputError:
    """Stack in the worker, as numpy arrays.

    Tensors would travel through shared memory, of which containers have little, and take a file
    descriptor each; arrays go through the pipe.
    """
    for outcome in outcomes:
        if isinstance(outcome, InputError):
            return outcome
    samples = [outcome for outcome in outcomes if isinstance(outcome, Sample)]
    images = np.stack([sample.image.numpy() for sample in samples]) if samples else np.empty(0, np.float32)
    unreadable = [outcome for outcome in outcomes if isinstance(outcome, Unreadable)]
    return [sample.item for sample in samples], images, [sample.mask for sample in samples], unreadable


def use_one_thread(worker: int) -> None:
    """Start a worker that reads images."""
    # Workers are forked where the system allows it: OpenMP's threads do not survive a fork, and the
    # cores are needed by the model.
    torch.set_num_threads(1)
