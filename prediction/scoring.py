"""Read pictures, score them, draw their heat maps and write their rows, one batch at a time."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from tqdm import tqdm

from prediction.journal import Journal
from prediction.listing import output_name, read_picture
from prediction.rows import Row, mask_name
from winclip.drawing import encoded, fit, heat_map, mask_image, strongest_region
from winclip.embeddings import Embeddings
from winclip.errors import InputError
from winclip.files import write_atomically
from winclip.model import Prediction, WinCLIP
from winclip.reading import Batch, BatchReader
from winclip.thresholds import Threshold

_log = logging.getLogger("winclip")


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
        folder: that names in the output are relative to.
        masks: whether masks are written.
    """

    journal: Journal
    failures: list[tuple[str, str]]
    counts: Counts
    folder: str
    masks: bool


def read(paths: Sequence[str], reader: BatchReader) -> Iterator[Batch[str, None]]:
    """Pictures in batches."""
    return reader.batches(paths, _load)


def _load(path: str) -> tuple[Image.Image, None]:
    return read_picture(path), None


def score(
    pictures: Sequence[str], reader: BatchReader, model: WinCLIP, threshold: Threshold, save: Path, output: Output
) -> None:
    """Score pictures and write what comes of them below ``save``; those without a result are passed over.

    Raises:
        InputError: if something cannot be written.
    """
    with tqdm(total=len(pictures), unit="picture", disable=None, dynamic_ncols=True) as progress:
        for batch in read(pictures, reader):
            failed = list(batch.unreadable)
            if batch.entries:
                results = _score_each(model, model.backbone.encode(batch.images))
                for path, result in zip(batch.entries, results):
                    if isinstance(result, InputError):
                        failed.append((path, f"image {path}: {result}"))
                        continue
                    try:
                        row, files = _describe(path, float(result.scores[0]), result.maps[0], threshold, output)
                    except InputError as error:  # the file changed since it was read first
                        failed.append((path, str(error)))
                        continue
                    for name, content in files.items():
                        write_atomically(save / name, content)
                    output.journal.append(row)
                    output.counts.add(row)
                    progress.update()
                output.journal.sync()
            for path, reason in failed:
                _log.warning("passed over: %s", reason)
                output.failures.append((Path(path).as_posix(), reason))
                output.counts.unreadable += 1
                progress.update()


def _score_each(model: WinCLIP, embeddings: Embeddings) -> list[Prediction | InputError]:
    """The result of each picture or why it has none; all are scored together if all have one."""
    ones = [slice(number, number + 1) for number in range(len(embeddings))]
    try:
        out = model.score(embeddings)
        return [Prediction(out.scores[one], out.maps[one]) for one in ones]
    except InputError as error:
        return [error] if len(ones) == 1 else [result for one in ones for result in _score_each(model, embeddings[one])]


def heat_map_name(path: str, folder: str) -> str:
    """The file of a picture's heat map, below the output folder."""
    return f"heatmaps/{output_name(path, folder, '.jpg')}"


def _describe(
    path: str, score: float, anomaly_map: npt.NDArray[np.float32], threshold: Threshold, output: Output
) -> tuple[Row, dict[str, bytes]]:
    """The row of a picture, and its files by name.

    The picture is read once more, because a batch of large ones would take gigabytes.
    """
    picture = read_picture(path)
    own_size = fit(anomaly_map, picture.size)
    name = heat_map_name(path, output.folder)
    files = {name: encoded(heat_map(picture, own_size, threshold.colours), "JPEG", quality=90)}
    if output.masks:
        white = mask_image(own_size, threshold.pixel)
        files[mask_name(name)] = encoded(white, "PNG")
    area, box = strongest_region(own_size, threshold.pixel)
    anomalous = score > threshold.score
    return Row(Path(path).as_posix(), score, threshold.score, anomalous, area, box, name), files
