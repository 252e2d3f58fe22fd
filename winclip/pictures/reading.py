"""From paths to batches of pixels, read ahead by threads."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Generic, TypeVar, Union

import numpy as np
import torch
from PIL import Image

from winclip.pictures.images import resized_pixels
from winclip.pictures.preparing import Pixels
from winclip.support.errors import InputError

Entry = TypeVar("Entry")
Extra = TypeVar("Extra")

Load = Callable[[Entry], tuple[Image.Image, Extra]]
# Resized pixels and the extra data of an entry, or why it cannot be read.
_Outcome = Union["tuple[Pixels, Extra]", str]

# With more threads, they wait for Python's lock rather than for each other's pictures.
_MOST_WORKERS = 16


@dataclass(frozen=True)
class Batch(Generic[Entry, Extra]):
    """Consecutive entries.

    Attributes:
        entries: the N readable entries, in order; N may be 0.
        images: (N, S, S, 3) RGB, prepared.
        extras: the extra data that ``load`` returned for each.
        unreadable: the other entries with the reason, in order.
    """

    entries: list[Entry]
    images: torch.Tensor
    extras: list[Extra]
    unreadable: list[tuple[Entry, str]]


class BatchReader:
    """Reads entries in batches, with one set of threads for its lifetime; use it in a ``with`` statement.

    Pillow decodes and resizes without Python's lock, so threads run side by side, and the next pictures
    are read while a batch is encoded. On exit, pictures that are being read are finished, no other is
    started, and the threads end.
    """

    def __init__(
        self,
        image_size: int,
        batch_size: int = 8,
        num_workers: int | None = None,
        prepare: Callable[[Image.Image], Pixels] | None = None,
    ) -> None:
        """Start the threads.

        Args:
            image_size: side S of the returned pixels.
            batch_size: 1 or more.
            num_workers: threads that read ahead; 0 reads when a batch is requested; None is the number
                of cores that this process may use, at most 16.
            prepare: makes the (S, S, 3) pixels of an image; by default it is resized straight.
        """
        self._prepare = prepare or partial(resized_pixels, size=image_size)
        self._image_size = image_size
        self._batch_size = batch_size
        workers = usable_workers(num_workers)
        # Pillow fails to recognise a file while another thread registers the formats, so each registers them first.
        self._pool = ThreadPoolExecutor(workers, "reading", initializer=Image.init) if workers else None

    def __enter__(self) -> BatchReader:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def batches(self, entries: Sequence[Entry], load: Load[Entry, Extra]) -> Iterator[Batch[Entry, Extra]]:
        """Read entries in their order, ``batch_size`` at a time (the last batch may be smaller).

        Neither the number of threads nor the batch size changes a value, and no more than two batches
        are read ahead.

        Args:
            entries: what to read.
            load: returns the image of an entry and its extra data, or raises InputError; runs in
                the threads.
        """
        read: Callable[[Entry], _Outcome[Extra]] = partial(_read, load=load, prepare=self._prepare)
        outcomes = map(read, entries) if self._pool is None else self._read_ahead(self._pool, read, entries)
        side = self._image_size
        for start in range(0, len(entries), self._batch_size):
            taken = entries[start : start + self._batch_size]
            pairs = list(zip(taken, islice(outcomes, len(taken))))
            read_well = [(entry, *outcome) for entry, outcome in pairs if not isinstance(outcome, str)]
            pixels = np.array([picture for _, picture, _ in read_well]).reshape(-1, side, side, 3)
            yield Batch(
                [entry for entry, _, _ in read_well],
                torch.from_numpy(pixels),
                [extra for _, _, extra in read_well],
                [(entry, outcome) for entry, outcome in pairs if isinstance(outcome, str)],
            )

    def _read_ahead(
        self, pool: ThreadPoolExecutor, read: Callable[[Entry], _Outcome[Extra]], entries: Sequence[Entry]
    ) -> Iterator[_Outcome[Extra]]:
        futures: deque[Future[_Outcome[Extra]]] = deque()
        try:
            for entry in entries:
                futures.append(pool.submit(read, entry))
                if len(futures) > 2 * self._batch_size:
                    yield futures.popleft().result()
            while futures:
                yield futures.popleft().result()
        finally:
            for future in futures:
                future.cancel()


def _read(entry: Entry, load: Load[Entry, Extra], prepare: Callable[[Image.Image], Pixels]) -> _Outcome[Extra]:
    # No tensors here: torch would start OpenMP threads for every thread that computes.
    try:
        image, extra = load(entry)
        return prepare(image), extra
    except InputError as error:
        return str(error)


def usable_workers(num_workers: int | None) -> int:
    """The given number of threads; for None the number of cores that this process may use, at most 16."""
    return min(usable_cores(), _MOST_WORKERS) if num_workers is None else num_workers


def usable_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
