"""From paths to batches of image tensors, read in worker processes if wanted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar, Union

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from winclip.backbone import Backbone
from winclip.errors import InputError
from winclip.images import preprocess

Entry = TypeVar("Entry")
Extra = TypeVar("Extra")

Load = Callable[[Entry], tuple[Image.Image, Extra]]
# What a worker hands over: an array, because a tensor would travel through shared memory, of which
# containers have little, and take a file descriptor; and the reason as text, because an exception
# that crosses a worker's border loses its one-line message.
_Outcome = Union["tuple[npt.NDArray[np.float32], Extra]", str]


@dataclass(frozen=True)
class Batch(Generic[Entry, Extra]):
    """Consecutive entries.

    Attributes:
        entries: those that could be read, N of them, in order; N may be 0.
        images: (N, 3, S, S) float32, normalised.
        extras: what else ``load`` gave for each.
        unreadable: entry and reason of the others, in order.
    """

    entries: list[Entry]
    images: torch.Tensor
    extras: list[Extra]
    unreadable: list[tuple[Entry, str]]


class _Entries(Dataset["_Outcome[Extra]"], Generic[Entry, Extra]):
    def __init__(self, entries: Sequence[Entry], load: Load[Entry, Extra], backbone: Backbone) -> None:
        self._entries = entries
        self._load = load
        # Not the backbone itself, which would go to every worker.
        self._preprocessing = (backbone.image_size, backbone.mean, backbone.std)

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, index: int) -> _Outcome[Extra]:
        try:
            image, extra = self._load(self._entries[index])
            return preprocess(image, *self._preprocessing).numpy(), extra
        except InputError as error:
            return str(error)


def read_batches(
    entries: Sequence[Entry],
    load: Load[Entry, Extra],
    backbone: Backbone,
    batch_size: int = 8,
    num_workers: int | None = None,
) -> Iterator[Batch[Entry, Extra]]:
    """Read entries in their order, ``batch_size`` at a time (the last batch may be smaller).

    Neither the number of workers nor the batch size changes a value, and no more than what is read
    ahead is held. torch's global random state is left as it is.

    Args:
        entries: what to read.
        load: gives the image of an entry and whatever belongs to it, or raises InputError; runs in the
            workers, so it has to be a function of a module or a partial of one.
        backbone: its image size and normalisation are used.
        batch_size: 1 or more.
        num_workers: processes that read ahead; 0 reads in this one; None is 4 with a GPU, else 0.
    """
    if num_workers is None:
        num_workers = 0 if backbone.device.type == "cpu" else 4
    loader: DataLoader[_Outcome[Extra]] = DataLoader(
        _Entries(entries, load, backbone),
        batch_size=batch_size,
        num_workers=num_workers,
        collate_fn=list,
        worker_init_fn=_use_one_thread,
        generator=torch.Generator(),
    )
    position = 0
    for outcomes in loader:
        pairs = list(zip(entries[position : position + len(outcomes)], outcomes))
        position += len(outcomes)
        read = [(entry, *outcome) for entry, outcome in pairs if not isinstance(outcome, str)]
        images = [torch.from_numpy(image) for _, image, _ in read]
        side = backbone.image_size
        yield Batch(
            [entry for entry, _, _ in read],
            torch.stack(images) if images else torch.empty(0, 3, side, side),
            [extra for _, _, extra in read],
            [(entry, outcome) for entry, outcome in pairs if isinstance(outcome, str)],
        )


def _use_one_thread(worker: int) -> None:
    # Workers are forked where the system allows it: OpenMP's threads do not survive a fork, and the
    # cores are needed by the model.
    torch.set_num_threads(1)
