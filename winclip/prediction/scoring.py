"""Scores, maps and the threshold of pictures: whole pictures, or large ones in tiles at full resolution."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import time
from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image
from tqdm import tqdm

from winclip.embeddings import Embeddings
from winclip.model import WinCLIP
from winclip.pictures.drawing import fit
from winclip.pictures.images import open_image
from winclip.pictures.reading import Batch, BatchReader
from winclip.prediction.pictures import Region, Size, read_part
from winclip.results import Prediction
from winclip.support.errors import InputError
from winclip.support.names import counted
from winclip.thresholds import LeftOut

_log = logging.getLogger("winclip")

# Most tiles of all references that a tile is compared with; 128 of the default model take 220 MB.
MOST_IN_MEMORY = 128
# Left, upper, right and lower end in pixels, as in Pillow.
Tile = tuple[int, int, int, int]
# The result of one picture and the picture's size, or why it has none.
Outcome = tuple[Prediction, Size] | str


def score_each(model: WinCLIP, embeddings: Embeddings) -> list[Prediction | InputError]:
    """The result of each picture or why it has none; they are scored together if all have one."""
    ones = [slice(number, number + 1) for number in range(len(embeddings))]
    try:
        out = model.score(embeddings)
        return [out[one] for one in ones]
    except InputError as error:
        return [error] if len(ones) == 1 else [result for one in ones for result in score_each(model, embeddings[one])]


class Whole:
    """Scores whole pictures, or their regions, with the current class."""

    def __init__(self, model: WinCLIP, reader: BatchReader, region: Region | None) -> None:
        self._model, self._reader, self._region = model, reader, region
        self.names: list[str] = []

    def announce(self, references: Sequence[str], pictures: Sequence[str]) -> None:
        """Log the amount of work, if the number of pictures does not show it."""

    def add_references(self, paths: Sequence[str]) -> None:
        """Fill the memory bank. References that cannot be read are left out with a warning."""
        for batch in self._batches(paths):
            for _, reason in batch.unreadable:
                _log.warning("reference left out: %s", reason)
            if batch.entries:
                taken = self._model.take_references(self._model.embed(batch.images))
                self.names += [batch.entries[number] for number in taken]

    def left_out(self) -> LeftOut | None:
        """The scores of each reference against the others; None with fewer than two."""
        count = self._model.reference_count()
        # References in a memory have no names.
        self.names = self.names or [f"reference {number + 1}" for number in range(count)]
        return LeftOut.of(self._model.leave_one_out()) if count > 1 else None

    def outcomes(self, paths: Sequence[str]) -> Iterator[list[tuple[str, Outcome]]]:
        """Score pictures, a batch at a time: the result of each, or why it has none."""
        for batch in self._batches(paths):
            found: list[tuple[str, Outcome]] = [*batch.unreadable]
            if batch.entries:
                results = score_each(self._model, self._model.embed(batch.images))
                for path, size, result in zip(batch.entries, batch.extras, results):
                    found.append(
                        (path, (result, size) if isinstance(result, Prediction) else f"image {path}: {result}")
                    )
            yield found

    def _batches(self, paths: Sequence[str]) -> Iterator[Batch[str, Size]]:
        return self._reader.batches(paths, self._read)

    def _read(self, path: str) -> tuple[Image.Image, Size]:
        return read_part(path, self._region, self._model.intake)


class Tiles(Whole):
    """Scores pictures tile by tile.

    A picture's score is the highest of its tiles' scores, each computed as for a separate picture, with the class token
    of the tile; so is each part of the score. Where tiles overlap, the map has the higher value.
    """

    def __init__(self, model: WinCLIP, reader: BatchReader, region: Region | None, side: int) -> None:
        """Take tiles of ``side`` pixels.

        Raises:
            InputError: if a window covers more than such a tile at full resolution.
        """
        super().__init__(model, reader, region)
        window = max(model.backbone.scales) * model.backbone.patch_size
        if side < window:
            raise InputError(
                f"tiles of {side} pixels are smaller than a window, which has {window}; give --tile_size {window} or"
                f" more, such as {model.backbone.image_size}, the model's image size"
            )
        self._side = side
        # For each reference, the positions of its tiles in the memory bank.
        self._in_memory: dict[str, range] = {}
        self._to_come = 0

    def announce(self, references: Sequence[str], pictures: Sequence[str]) -> None:
        """Log how many tiles there are; how long they take is logged after the first were scored."""
        # For the threshold each reference is scored against the others.
        scored = [*references, *pictures] if len(references) > 1 else pictures
        counts = [self._count(path) for path in scored]
        self._to_come = sum(counts)
        of_references = f"{len(references)} references, for the threshold, and " if len(references) > 1 else ""
        _log.info(
            "tiles of %d pixels that overlap by %d or more: %d a picture at most, %d in %s%s",
            self._side,
            self._side // 4,
            max(counts, default=0),
            self._to_come,
            of_references,
            counted(len(pictures), "picture"),
        )

    def _count(self, path: str) -> int:
        """The number of tiles of a picture, from its file header; a rotated picture has as many."""
        with contextlib.suppress(Exception):  # of any kind; reading the picture reports it later
            if self._region is not None:
                return len(self._tiles(self._region.box[2:]))
            with open_image(path) as picture:
                return len(self._tiles(picture.size))
        return 0

    def _tiles(self, size: tuple[int, int]) -> list[Tile]:
        """The tiles in which pixels count."""
        tiles, region = tiles_of(size, self._side), self._region
        if region is None:
            return tiles
        return [tile for tile in tiles if region.inside[tile[1] : tile[3], tile[0] : tile[2]].any()]

    def add_references(self, paths: Sequence[str]) -> None:
        """Fill the memory bank with tiles of the references, equally many of each, evenly spaced at different places.

        Tiles with the same pixels count once. References that cannot be read are left out with a warning.
        """
        each, seen = max(MOST_IN_MEMORY // max(len(paths), 1), 1), set[bytes]()
        for number, path in enumerate(paths):
            try:
                picture, _ = self._read(path)
            except InputError as error:
                _log.warning("reference left out: %s", error)
                continue
            tiles, before = self._tiles(picture.size), self._model.reference_count()
            if len(tiles) > each:
                tiles = [tiles[(k * len(paths) + number) * len(tiles) // (each * len(paths))] for k in range(each)]
            for batch in self._tile_batches(picture, tiles):
                marks = [hashlib.sha256(tile.numpy().tobytes()).digest() for tile in batch.images]
                new = [k for k, mark in enumerate(marks) if mark not in seen and mark not in marks[:k]]
                seen.update(marks)
                if new:
                    self._model.add_references(self._model.embed(batch.images[new]))
            self._in_memory[path] = range(before, self._model.reference_count())

    def left_out(self) -> LeftOut | None:
        """The scores of each reference, in all of its tiles, against the others' tiles; None with fewer than two.

        Raises:
            InputError: if a reference has no score, or cannot be read again.
        """
        self.names = list(self._in_memory)
        if len(self._in_memory) < 2:
            return None
        found = []
        for path, own in tqdm(self._in_memory.items(), unit="reference", disable=None, dynamic_ncols=True):
            others = [k for k in range(self._model.reference_count()) if k not in own]
            # Their maps differ in size.
            one = LeftOut.of(self._score(self._read(path)[0], others))
            found.append((*one.score, *one.text, *one.reference, *one.peaks))
        return LeftOut(*map(list, zip(*found)))

    def outcomes(self, paths: Sequence[str]) -> Iterator[list[tuple[str, Outcome]]]:
        """Score pictures one by one."""
        for path in paths:
            outcome: Outcome
            try:
                picture, size = self._read(path)
            except InputError as error:
                outcome = str(error)
            else:
                try:
                    outcome = self._score(picture), size
                except InputError as error:
                    outcome = f"image {path}: {error}"
            yield [(path, outcome)]

    def _score(self, picture: Image.Image, references: Sequence[int] | None = None) -> Prediction:
        tiles = self._tiles(picture.size)
        scored, compared, whole = [], [], np.zeros((picture.height, picture.width), np.float32)
        with tqdm(total=len(tiles), unit="tile", leave=False, disable=None, dynamic_ncols=True) as progress:
            started = time.monotonic()
            for batch in self._tile_batches(picture, tiles):
                found = self._model.score(self._model.embed(batch.images), references=references)
                scored.append((found.scores, found.text_scores))
                if found.reference_scores is not None:
                    compared.append(found.reference_scores)
                for (left, upper, right, lower), part in zip(batch.entries, found.maps):
                    here = whole[upper:lower, left:right]
                    np.maximum(here, fit(part, (right - left, lower - upper)), out=here)
                self._say_how_long((time.monotonic() - started) / len(batch.entries))
                progress.update(len(batch.entries))
        scores, text = (np.concatenate(values).max(keepdims=True) for values in zip(*scored))
        reference = np.concatenate(compared).max(keepdims=True) if compared else None
        return Prediction(scores, whole[None], text, reference)

    def _tile_batches(self, picture: Image.Image, tiles: Sequence[Tile]) -> Iterator[Batch[Tile, None]]:
        return self._reader.batches(tiles, lambda tile: (picture.crop(tile), None))

    def _say_how_long(self, seconds: float) -> None:
        if self._to_come:
            total = seconds * self._to_come
            _log.info("a tile takes %.2g s, all of them about %d min %02d s", seconds, *divmod(round(total), 60))
            self._to_come = 0


def tiles_of(size: tuple[int, int], side: int) -> list[Tile]:
    """Tiles that cover a picture row by row, evenly spaced, neighbours sharing a quarter of their side or more.

    Args:
        size: width and height of the picture; a shorter picture has a tile as short.
        side: of a tile in pixels.
    """
    (width, columns), (height, rows) = ((min(length, side), _starts(length, side)) for length in size)
    return [(x, y, x + width, y + height) for y in rows for x in columns]


def _starts(length: int, side: int) -> list[int]:
    gaps = max(-(-(length - side) // (side - side // 4)), 0)
    return [0, *(number * (length - side) // gaps for number in range(1, gaps + 1))]
