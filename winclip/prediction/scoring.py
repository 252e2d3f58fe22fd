"""Read pictures, score them, draw their heat maps and write their rows, one batch at a time."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from tqdm import tqdm

from winclip.embeddings import Embeddings
from winclip.model import Prediction, WinCLIP
from winclip.pictures.drawing import encoded, fit, heat_map, mask_image, strongest_region
from winclip.pictures.reading import Batch, BatchReader
from winclip.prediction.journal import Journal
from winclip.prediction.listing import output_name, read_picture
from winclip.prediction.regions import Region
from winclip.prediction.rows import Row, mask_name
from winclip.support.errors import InputError
from winclip.support.files import write_atomically
from winclip.thresholds import Threshold

_log = logging.getLogger("winclip")
# The result of one picture, or why it has none.
Outcome = Prediction | str


@dataclass
class Counts:
    """Pictures of the output so far."""

    scored: int = 0
    anomalous: int = 0
    unreadable: int = 0

    def add(self, row: Row) -> None:
        """Count a scored picture."""
        self.scored += 1
        self.anomalous += row.anomalous


@dataclass(frozen=True)
class Output:
    """Where results go.

    Attributes:
        journal: of the rows.
        failures: path and reason of pictures that could not be read.
        counts: what is in both.
        done: the heat maps of the rows.
        folder: that names in the output are relative to.
        masks: whether masks are written.
        region: what counts of the pictures; None if all does.
        watched: whether pictures come one by one, so that each is shown, and not how far the run is.
    """

    journal: Journal
    failures: list[tuple[str, str]]
    counts: Counts
    done: set[str]
    folder: str
    masks: bool
    region: Region | None = None
    watched: bool = False

    def left(self, paths: Iterable[str]) -> list[str]:
        """The pictures without a row; those that could not be read are no failures any more."""
        left = [path for path in paths if heat_map_name(path, self.folder) not in self.done]
        again = {Path(path).as_posix() for path in left}
        self.failures[:] = [failure for failure in self.failures if failure[0] not in again]
        self.counts.unreadable = len(self.failures)
        return left


def read(paths: Sequence[str], reader: BatchReader, region: Region | None = None) -> Iterator[Batch[str, None]]:
    """Pictures, or what counts of them, in batches."""
    return reader.batches(paths, lambda path: (read_part(path, region), None))


def read_part(path: str, region: Region | None) -> Image.Image:
    """What counts of a picture.

    Raises:
        InputError: if it cannot be read or is another than the region is for; names the file.
    """
    picture = read_picture(path)
    try:
        return picture if region is None else region.cut(picture)
    except InputError as error:
        raise InputError(f"image {path}: {error}") from error


def outcomes(
    pictures: Sequence[str], reader: BatchReader, model: WinCLIP, region: Region | None = None
) -> Iterator[list[tuple[str, Outcome]]]:
    """Score what counts of pictures as a whole, a batch at a time: the result of each, or why it has none."""
    for batch in read(pictures, reader, region):
        found: list[tuple[str, Outcome]] = [*batch.unreadable]
        if batch.entries:
            for path, result in zip(batch.entries, score_each(model, model.backbone.encode(batch.images))):
                found.append((path, f"image {path}: {result}" if isinstance(result, InputError) else result))
        yield found


def score(
    count: int, batches: Iterable[list[tuple[str, Outcome]]], threshold: Threshold, save: Path, output: Output
) -> None:
    """Write what comes of pictures below ``save``; those without a result are passed over.

    Args:
        count: of the pictures.
        batches: their results, as ``outcomes`` gives them.
        threshold: where good ends.
        save: the output folder.
        output: where rows and failures go.

    Raises:
        InputError: if something cannot be written.
    """
    with tqdm(total=count, unit="picture", disable=output.watched or None, dynamic_ncols=True) as progress:
        for batch in batches:
            failed = []
            for path, outcome in batch:
                if isinstance(outcome, str):
                    failed.append((path, outcome))
                    continue
                try:
                    row, files = _describe(path, float(outcome.scores[0]), outcome.maps[0], threshold, output)
                except InputError as error:  # the file changed since it was read first
                    failed.append((path, str(error)))
                    continue
                for name, content in files.items():
                    write_atomically(save / name, content)
                output.journal.append(row)
                output.counts.add(row)
                output.done.add(row.heat_map)
                if output.watched:
                    print(row.as_line(), flush=True)
                progress.update()
            output.journal.sync()
            for path, reason in failed:
                _log.warning("passed over: %s", reason)
                output.failures.append((Path(path).as_posix(), reason))
                output.counts.unreadable += 1
                progress.update()


def score_each(model: WinCLIP, embeddings: Embeddings) -> list[Prediction | InputError]:
    """The result of each picture or why it has none; all are scored together if all have one."""
    ones = [slice(number, number + 1) for number in range(len(embeddings))]
    try:
        out = model.score(embeddings)
        return [Prediction(out.scores[one], out.maps[one]) for one in ones]
    except InputError as error:
        return [error] if len(ones) == 1 else [result for one in ones for result in score_each(model, embeddings[one])]


def heat_map_name(path: str, folder: str) -> str:
    """The file of a picture's heat map, below the output folder."""
    return f"heatmaps/{output_name(path, folder, '.jpg')}"


def _describe(
    path: str, score: float, anomaly_map: npt.NDArray[np.float32], threshold: Threshold, output: Output
) -> tuple[Row, dict[str, bytes]]:
    """The row of a picture, and its files by name.

    The picture is read once more, because a batch of large ones would take gigabytes.
    """
    picture, region = read_picture(path), output.region
    if region is None:
        own_size = fit(anomaly_map, picture.size)
    else:
        region.cut(picture)  # raises if it is another picture by now
        own_size = region.spread(fit(anomaly_map, region.box[2:]), picture.size)
    name = heat_map_name(path, output.folder)
    files = {name: encoded(heat_map(picture, own_size, threshold.colours), "JPEG", quality=90)}
    if output.masks:
        white = mask_image(own_size, threshold.pixel)
        files[mask_name(name)] = encoded(white, "PNG")
    area, box = strongest_region(own_size, threshold.pixel)
    if region is not None:
        area *= own_size.size / int(region.inside.sum())
    anomalous = score > threshold.score
    return Row(Path(path).as_posix(), score, threshold.score, anomalous, area, box, name), files
