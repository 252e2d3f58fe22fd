"""The cost of everything but the encoder: pictures as data sets have them, stored embeddings in its place.

Called by ``python -m scripts.benchmark pipeline``.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from datasets.index import load_index, write_index
from datasets.items import DatasetIndex, Item
from evaluation.measuring import Method, measure_class
from evaluation.options import parse_options
from evaluation.ranks import Ranks
from evaluation.reading import Reader
from evaluation.references import encode_references, plan_references
from evaluation.scoring import join_scores, score_batch
from winclip.embeddings import Embeddings
from winclip.memory import MemoryBank
from winclip.model import WinCLIP
from winclip.network.backbone import Backbone
from winclip.network.clip_backbone import ClipBackbone
from winclip.pictures.images import normalise, read_image, resized_pixels
from winclip.pictures.reading import BatchReader
from winclip.scoring import score_images

SIDE, CLASSES, TRAIN, TEST, BATCH = 900, 2, 8, 24, 8
SHOTS = ("0", "1", "2", "4", "8")


class _Stored(nn.Module):
    """In the place of the image tower: embeddings that are there already."""

    def __init__(self, stored: Embeddings) -> None:
        super().__init__()
        self.stored = stored
        self.scales = stored.scales

    def forward(self, images: torch.Tensor) -> Embeddings:
        return self.stored[torch.arange(len(images)) % len(self.stored)]


def stored_backbone(backbone: ClipBackbone) -> ClipBackbone:
    """The backbone with seeded random embeddings in the place of its image tower."""
    generator = torch.Generator().manual_seed(3)
    grid, width = backbone.grid, backbone.embed_dim

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(8, *shape, generator=generator)

    windows = tuple(random((grid - side + 1) ** 2, width) for side in backbone.scales)
    patch = random(grid * grid, backbone.clip.config.width)
    tower = _Stored(Embeddings(random(width), windows, patch, backbone.scales))
    clip = SimpleNamespace(visual=tower, config=backbone.clip.config)
    return replace(backbone, clip=clip)  # type: ignore[arg-type]


def noisy_pictures(generator: np.random.RandomState, count: int) -> Iterator[Image.Image]:
    """Pictures of one part, of 900 x 900, with noise of a camera's size."""
    smooth = generator.randint(0, 256, (9, 9, 3)).astype(np.uint8)
    wide = np.asarray(Image.fromarray(smooth).resize((SIDE, SIDE), Image.Resampling.BICUBIC)).astype(np.float32)
    for _ in range(count):
        noisy = wide + generator.normal(0, 4, wide.shape)
        yield Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


def write_pictures(folder: Path) -> None:
    """A data set of noisy pictures of 900 x 900, every second test picture with a mask."""
    generator = np.random.RandomState(0)
    train: dict[str, list[Item]] = {}
    test: dict[str, list[Item]] = {}
    for number in range(CLASSES):
        name = f"part{number}"
        (folder / name).mkdir()
        items = []
        for picture, noisy in enumerate(noisy_pictures(generator, TRAIN + TEST)):
            noisy.save(folder / name / f"{picture}.png")
            defective = picture >= TRAIN and picture % 2
            mask_path = f"{name}/{picture}_mask.png" if defective else ""
            if defective:
                mask = np.zeros((SIDE, SIDE), np.uint8)
                mask[300 : 400 + 10 * picture, 200:500] = 255
                Image.fromarray(mask).save(folder / mask_path)
            items.append(
                Item(f"{name}/{picture}.png", mask_path, name, "scratch" if defective else "good", int(defective))
            )
        train[name], test[name] = items[:TRAIN], items[TRAIN:]
    write_index(DatasetIndex(folder, train, test))


def run_classes(folder: Path, model: WinCLIP, shots: Sequence[str], workers: int) -> None:
    """What test.py does with every class between loading the model and writing files."""
    options = parse_options(["--data_path", str(folder), "--k_shot", *shots])
    index = load_index(folder)
    plan = plan_references(options, index, list(index.test))
    text = random_text(model.backbone)
    with BatchReader(model.backbone.image_size, options.reading.batch_size, workers) as files:
        reader = Reader(folder, model.backbone, files, options.skip_unreadable)
        for name, items in index.test.items():
            references = encode_references(reader, plan, name, Ranks())
            scored = join_scores([score_batch(batch, model, text, references) for batch in reader.batches(items)])
            for _ in measure_class(scored, model.backbone.image_size, Method(options.aupro)):
                pass


def random_text(backbone: Backbone) -> torch.Tensor:
    """Class embeddings, (2, embed_dim)."""
    return F.normalize(torch.randn(2, backbone.embed_dim, generator=torch.Generator().manual_seed(4)), dim=-1)


def measured_class(folder: Path, model: WinCLIP, shots: Sequence[str]) -> Callable[[], object]:
    """The metrics of a class whose pictures are scored already."""
    options = parse_options(["--data_path", str(folder), "--k_shot", *shots])
    index = load_index(folder)
    name, items = next(iter(index.test.items()))
    with BatchReader(model.backbone.image_size) as files:
        reader = Reader(folder, model.backbone, files, options.skip_unreadable)
        references = encode_references(reader, plan_references(options, index, [name]), name, Ranks())
        text = random_text(model.backbone)
        scored = join_scores([score_batch(batch, model, text, references) for batch in reader.batches(items)])
    return lambda: list(measure_class(scored, model.backbone.image_size, Method(options.aupro)))


def pipeline_times(
    backbone: ClipBackbone, medians: Callable[[dict[str, Callable[[], object]], int], dict[str, float]], repeats: int
) -> dict[str, float]:
    """Seconds a picture of every step and of whole runs; ``medians`` takes the times of functions in turns."""
    backbone = stored_backbone(backbone)
    model = WinCLIP(backbone)
    pixels = torch.zeros(BATCH, backbone.image_size, backbone.image_size, 3, dtype=torch.uint8)
    embeddings = backbone.encode(pixels)
    bank, text = MemoryBank.of(embeddings), random_text(backbone)
    subsets = [list(range(int(k))) for k in SHOTS]

    def score(subsets: list[list[int]]) -> None:
        score_images(embeddings, text, bank, subsets)

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_pictures(folder)
        path = folder / "part0" / "0.png"
        picture = read_image(path)
        steps: dict[str, tuple[int, Callable[[], object]]] = {
            "decoding": (1, lambda: read_image(path)),
            "resizing": (1, lambda: resized_pixels(picture, backbone.image_size)),
            "normalising": (BATCH, lambda: normalise(pixels)),
            "scoring, 0 shots": (BATCH, partial(score, subsets[:1])),
            "scoring, 0, 1, 2, 4, 8 shots": (BATCH, partial(score, subsets)),
            "metrics, 0 shots": (TEST, measured_class(folder, model, SHOTS[:1])),
            "metrics, 0, 1, 2, 4, 8 shots": (TEST, measured_class(folder, model, SHOTS)),
        }
        for workers in (0, 1, 2):
            run = partial(run_classes, folder, model, workers=workers)
            steps[f"run, 0 shots, {workers} workers"] = (CLASSES * TEST, partial(run, SHOTS[:1]))
            steps[f"run, 0, 1, 2, 4, 8 shots, {workers} workers"] = (CLASSES * (TRAIN + TEST), partial(run, SHOTS))
        times = medians({name: function for name, (_, function) in steps.items()}, repeats)
    return {name: times[name] / pictures for name, (pictures, _) in steps.items()}
