"""From paths to batches of image tensors, read in worker processes if wanted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from datasets.samples import use_one_thread
from winclip.backbone import Backbone
from winclip.errors import InputError
from winclip.images import preprocess, read_image

PIXEL_LIMIT = 100_000_000


@dataclass(frozen=True)
class Batch:
    """Consecutive pictures.

    Attributes:
        paths: those that could be read, N of them, in order; N may be 0.
        images: (N, 3, S, S) float32, normalised.
        unreadable: path and reason of the others, in order.
    """

    paths: list[str]
    images: torch.Tensor
    unreadable: list[tuple[str, str]]


Channels = tuple[float, float, float]
_Outcome = tuple[str, "npt.NDArray[np.float32] | str"]


class _Pictures(Dataset[_Outcome]):
    """A path with its tensor, as an array that travels through a pipe, or the reason why there is none."""

    def __init__(self, paths: Sequence[str], size: int, mean: Channels, std: Channels) -> None:
        self.paths = paths
        self.size = size
        self.mean = mean
        self.std = std

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> _Outcome:
        path = self.paths[index]
        try:
            return path, preprocess(read_picture(path), self.size, self.mean, self.std).numpy()
        except InputError as error:
            return path, str(error)


def read_picture(path: str) -> Image.Image:
    """A picture as RGB, turned as its EXIF orientation says.

    Raises:
        InputError: if it cannot be read or has more than ``PIXEL_LIMIT`` pixels; names the file.
    """
    return read_image(path, upright=True, max_pixels=PIXEL_LIMIT)


def read_batches(paths: Sequence[str], backbone: Backbone, batch_size: int, num_workers: int | None) -> Iterator[Batch]:
    """Read pictures in their order, ``batch_size`` at a time, and hold no more than those.

    Args:
        paths: what to read.
        backbone: its image size and normalisation are used.
        batch_size: 1 or more.
        num_workers: processes that read ahead; 0 reads in this one; None is 4 with a GPU, else 0.
    """
    if num_workers is None:
        num_workers = 0 if backbone.device.type == "cpu" else 4
    loader: DataLoader[_Outcome] = DataLoader(
        _Pictures(paths, backbone.image_size, backbone.mean, backbone.std),
        batch_size=batch_size,
        num_workers=num_workers,
        collate_fn=list,
        worker_init_fn=use_one_thread,
        generator=torch.Generator(),
    )
    for outcomes in loader:
        read = [(path, outcome) for path, outcome in outcomes if not isinstance(outcome, str)]
        unreadable = [(path, outcome) for path, outcome in outcomes if isinstance(outcome, str)]
        side = backbone.image_size
        images = torch.from_numpy(np.stack([image for _, image in read])) if read else torch.empty(0, 3, side, side)
        yield Batch([path for path, _ in read], images, unreadable)
