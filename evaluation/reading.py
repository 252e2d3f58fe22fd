"""Listed images and masks as batches for the backbone, and an account of those that cannot be read."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from datasets.items import Item
from datasets.samples import Mask, load_sample
from winclip.network.backbone import Backbone
from winclip.pictures.reading import Batch, BatchReader
from winclip.support.errors import InputError

_log = logging.getLogger("winclip")


class Reader:
    """Reads the items of a data set.

    Attributes:
        left_out: image paths of the entries that could not be read so far.
    """

    def __init__(self, root: Path, backbone: Backbone, reader: BatchReader, skip_unreadable: bool) -> None:
        self.backbone = backbone
        self.left_out: list[str] = []
        self._load = partial(load_sample, root=root, size=backbone.image_size)
        self._reader = reader
        self._skip_unreadable = skip_unreadable

    def batches(self, items: Sequence[Item]) -> Iterator[Batch[Item, Mask | None]]:
        """Batches of items with their masks; ``leave_out`` is for those who take them."""
        return self._reader.batches(items, self._load)

    def leave_out(self, item: Item, reason: str) -> None:
        """Count an item that cannot be read.

        Raises:
            InputError: without ``--skip_unreadable``.
        """
        if not self._skip_unreadable:
            raise InputError(f"{reason}; mend it, or go on without such images with --skip_unreadable")
        _log.warning("left out: %s", reason)
        self.left_out.append(item.img_path)
