"""What every worker does: hold the model and the memories, take a part of the pictures, and write their rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image

from collection.classes import Class, local_file
from collection.contents import Entry, read_unit
from collection.listing import Source, Unit
from collection.places import place
from collection.rows import ANOMALOUS, GOOD, Key, as_text, write_rows
from prediction.resuming import class_settings, model_settings, threshold_settings
from prediction.scoring import score_each
from winclip.command_line import ModelOptions
from winclip.drawing import encoded, fit, grey, strongest_region
from winclip.embeddings import Embeddings
from winclip.errors import InputError
from winclip.files import cache_folder
from winclip.images import decode_image
from winclip.model import WinCLIP
from winclip.names import printable
from winclip.reading import BatchReader
from winclip.thresholds import Threshold

# Side in pixels of the maps in the output.
MAP_SIDE = 64


@dataclass(frozen=True)
class Job:
    """What all workers are told.

    Attributes:
        source: where pictures come from.
        output: address of the output folder.
        classes: by name.
        model: which model.
        save_maps: whether rows have maps.
        batch_size, num_workers: of the reading.
    """

    source: Source
    output: str
    classes: dict[str, Class]
    model: ModelOptions
    save_maps: bool
    batch_size: int
    num_workers: int


def load_models(job: Job) -> dict[str, WinCLIP]:
    """For each class the model with its text and its references; all share one backbone.

    Raises:
        InputError: if the model cannot be loaded, or a memory does not fit it.
    """
    backbone = job.model.load().backbone
    models = {}
    for name, found in job.classes.items():
        models[name] = WinCLIP(backbone, job.model.temperature)
        models[name].set_class(found.class_name, found.prompts, cache=cache_folder("text"))
        with local_file(found.memory, job.source.here) as memory:
            models[name].load_memory(memory)
    return models


def describe(job: Job) -> tuple[dict[str, Any], dict[str, Threshold]] | str:
    """What the rows of a run are made with, the thresholds of its classes; or what is wrong, see ``Scorer``."""
    try:
        models = load_models(job)
    except InputError as error:
        return str(error)
    thresholds = {name: model.threshold() for name, model in models.items()}
    classes = {
        name: {
            **class_settings(found.class_name, found.prompts),
            "memory_sha256": found.sha256,
            **threshold_settings(thresholds[name]),
        }
        for name, found in job.classes.items()
    }
    return {**model_settings(next(iter(models.values()))), "classes": classes}, thresholds


class Scorer:
    """Scores units; Ray Data makes one in every worker."""

    def __init__(self, job: Job, thresholds: dict[str, Threshold]) -> None:
        """Load the model and the memories."""
        self._job, self._thresholds = job, thresholds
        self._models = load_models(job)
        self._backbone = next(iter(self._models.values())).backbone
        self._reader = BatchReader(self._backbone.image_size, job.batch_size, job.num_workers)
        self._output = place(job.output, job.source.here)
        self._paths = job.source.paths

    def __call__(self, batch: dict[str, Any]) -> Iterator[dict[str, list[Any]]]:
        """Score the one unit of a batch; for each file of rows that is written, tells how many it has.

        What is wrong is told too, since an exception would come with all that Ray says of it.
        """
        try:
            for entries in read_unit(self._job.source, Unit.from_json(str(batch["unit"][0]))):
                rows = self._rows(entries)
                write_rows(self._output, rows, self._job.save_maps)
                yield {"rows": [len(rows)], "error": [""]}
        except InputError as error:
            yield {"rows": [0], "error": [str(error)]}

    def _rows(self, entries: list[Entry]) -> list[dict[str, Any]]:
        rows = {(entry.path, name): _failed(entry, name, entry.error) for entry in entries for name in entry.names}
        for batch in self._reader.batches([entry for entry in entries if not entry.error], self._load):
            for entry, reason in batch.unreadable:
                rows |= {(entry.path, name): _failed(entry, name, reason) for name in entry.names}
            if batch.entries:
                embeddings = self._backbone.encode(batch.images)
                for name in self._models:
                    chosen = [number for number, entry in enumerate(batch.entries) if name in entry.names]
                    if chosen:
                        some = [(batch.entries[number], batch.extras[number]) for number in chosen]
                        rows |= self._scored(name, some, embeddings[torch.tensor(chosen)])
        return list(rows.values())

    def _load(self, entry: Entry) -> tuple[Image.Image, tuple[int, int]]:
        content = self._paths.locate(entry.path).read() if entry.content is None else entry.content
        image = decode_image(content, f"image {entry.path}", upright=True)
        return image, image.size

    def _scored(
        self, name: str, pictures: list[tuple[Entry, tuple[int, int]]], embeddings: Embeddings
    ) -> dict[Key, dict[str, Any]]:
        """Rows of pictures of one class, with their sizes."""
        threshold, rows = self._thresholds[name], {}
        for (entry, size), result in zip(pictures, score_each(self._models[name], embeddings)):
            if isinstance(result, InputError):
                rows[entry.path, name] = _failed(entry, name, f"image {entry.path}: {result}")
                continue
            score, anomaly_map = float(result.scores[0]), result.maps[0]
            area, box = strongest_region(fit(anomaly_map, size), threshold.pixel)
            rows[entry.path, name] = {
                "path": as_text(entry.path),
                "class": name,
                "score": score,
                "threshold": threshold.score,
                "verdict": ANOMALOUS if score > threshold.score else GOOD,
                "area": area,
                "box": None if box is None else dict(zip("xywh", box)),
            }
            if self._job.save_maps:
                small = grey(fit(anomaly_map, (MAP_SIDE, MAP_SIDE)), *threshold.colours)
                rows[entry.path, name]["map"] = encoded(small, "PNG")
        return rows


def _failed(entry: Entry, name: str, reason: str) -> dict[str, Any]:
    return {"path": as_text(entry.path), "class": name, "error": printable(reason)}
