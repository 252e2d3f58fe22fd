"""Draws the figures of docs/method.md from the sample, with the demo backbone: docs/figures/method-*.jpg."""

from __future__ import annotations

import argparse
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from demo.sample import CLASSES, draw_pair
from winclip.backbone import Backbone, load_backbone
from winclip.defaults import SCALES
from winclip.embeddings import Embeddings
from winclip.files import write_atomically
from winclip.images import preprocess
from winclip.memory import MemoryBank, associate
from winclip.prompts import REFERENCE
from winclip.scoring import anomaly_probability, association_maps, score_images, upsample
from winclip.text import class_embeddings
from winclip.windows import harmonic_spread

SHOTS = 4
CLASS = next(iter(CLASSES))
DEFECT = next(iter(CLASSES[CLASS][1]))
ORANGE, BLUE, LIGHT = "#ff7f0e", "#1f77b4", "#7fd1ff"


@dataclass
class Case:
    """One good and one defective picture, four references, and what the model makes of them."""

    backbone: Backbone
    text: torch.Tensor
    pictures: list[Image.Image]
    embeddings: Embeddings
    references: list[Image.Image]
    bank: MemoryBank

    @property
    def grid(self) -> int:
        """Patches along a side."""
        return self.backbone.grid


def load_case() -> Case:
    """Draw the pictures and encode them; the defective one is the last."""
    backbone = load_backbone("demo-vit-240", device="cpu")
    side = backbone.image_size

    def draw(part: str, index: int, defect: str | None = None) -> Image.Image:
        return Image.fromarray(draw_pair(CLASS, 0, part, index, defect)[1]).resize(
            (side, side), Image.Resampling.BICUBIC
        )

    def encode(pictures: list[Image.Image]) -> Embeddings:
        return backbone.encode(torch.stack([preprocess(picture, side) for picture in pictures]))

    pictures = [draw("test/good", 0), draw(f"test/{DEFECT}", 0, DEFECT)]
    references = [draw("train/good", index) for index in range(SHOTS)]
    text = class_embeddings(backbone, CLASS, REFERENCE)
    return Case(backbone, text, pictures, encode(pictures), references, MemoryBank.of(encode(references)))


def heat(axes: Axes, values: npt.NDArray[Any] | torch.Tensor, title: str, highest: float = 1.0) -> None:
    """A map in colours from 0 to ``highest``."""
    drawn = axes.imshow(np.asarray(values), cmap="turbo", vmin=0, vmax=highest)
    assert axes.figure is not None
    axes.figure.colorbar(drawn, ax=axes, fraction=0.046, pad=0.03).ax.tick_params(labelsize=8)
    bare(axes, title)


def photo(axes: Axes, picture: Image.Image, title: str) -> None:
    """A picture."""
    axes.imshow(picture)
    bare(axes, title)


def bare(axes: Axes, title: str) -> None:
    """No ticks; the title above."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_title(title, fontsize=11)


def box(axes: Axes, column: int, row: int, size: int, patch: int, colour: str) -> None:
    """The outline of ``size`` x ``size`` patches on a picture."""
    corner, side = (column * patch - 0.5, row * patch - 0.5), size * patch
    axes.add_patch(Rectangle(corner, side, side, fill=False, edgecolor=colour, linewidth=2.5))


def draw_prompts(case: Case) -> Figure:
    """Some prompts of both states, and where they put the two pictures."""
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    words, good, defective = figure.subplots(1, 3, width_ratios=[2.1, 1, 1])
    words.axis("off")
    y = 0.97
    for prompts, colour, state in (
        (REFERENCE.normal(CLASS), BLUE, "normal"),
        (REFERENCE.anomalous(CLASS), ORANGE, "anomalous"),
    ):
        for prompt in prompts[:: len(prompts) // 4 + 5]:
            words.text(0, y, f"“{prompt}”", fontsize=10.5, color=colour)
            y -= 0.095
        words.text(0, y, f"… {len(prompts)} prompts; their mean is the {state} direction", fontsize=10.5, weight="bold")
        y -= 0.16
    probabilities = anomaly_probability(case.embeddings.cls, case.text)
    for axes, picture, probability, name in zip((good, defective), case.pictures, probabilities, ("good", "defective")):
        photo(axes, picture, f"{name}: p = {probability:.2f}")
    return figure


def draw_windows(case: Case) -> Figure:
    """The defective picture with its patches and a window of each scale, and the windows' probabilities."""
    figure = Figure(figsize=(11, 3.4), layout="constrained")
    first, second, third = figure.subplots(1, 3)
    grid, patch = case.grid, case.backbone.patch_size
    photo(first, case.pictures[1], f"{grid} x {grid} patches, two of the windows")
    for line in range(1, grid):
        first.axhline(line * patch - 0.5, color="white", linewidth=0.4, alpha=0.6)
        first.axvline(line * patch - 0.5, color="white", linewidth=0.4, alpha=0.6)
    for (column, row, colour), side in zip(((2, 2, ORANGE), (10, 3, LIGHT)), SCALES):
        box(first, column, row, side, patch, colour)
    for axes, windows, side in zip((second, third), case.embeddings.windows, SCALES):
        count = grid - side + 1
        probability = anomaly_probability(windows[1:], case.text).reshape(count, count)
        heat(axes, probability, f"p of the {count} x {count} windows of {side} x {side}")
    return figure


def draw_harmonic(case: Case) -> Figure:
    """From window probabilities to the zero-shot map."""
    figure = Figure(figsize=(11, 2.9), layout="constrained")
    panels = figure.subplots(1, 4)
    for axes, windows, side in zip(panels, case.embeddings.windows, SCALES):
        spread = harmonic_spread(anomaly_probability(windows[1:], case.text), case.grid, side)[0]
        heat(axes, spread, f"harmonic mean, {side} x {side}")
    (zero,) = score_images(case.embeddings[1:], case.text)
    heat(panels[2], zero.maps[0], "with the image: zero-shot map")
    heat(panels[3], upsample(zero.maps, case.backbone.image_size)[0], "upsampled")
    return figure


def draw_memory(case: Case) -> Figure:
    """Two patches with the nearest of the memory bank, and the few-shot maps."""
    figure = Figure(figsize=(11, 4.8), layout="constrained")
    panels = figure.subplots(2, 5)
    grid, patch = case.grid, case.backbone.patch_size
    photo(panels[0, 0], case.pictures[1], "picture")
    for number, reference in enumerate(case.references):
        photo(panels[0, 1 + number], reference, f"reference {number + 1}")
    associations = associate(case.embeddings[1:], case.bank)
    windows, patches = associations.nearest()
    queries = torch.nn.functional.normalize(case.embeddings.patch[1], dim=-1)
    cosine = queries @ case.bank.embeddings.patch.flatten(0, 1).T
    distances: list[str] = []
    # The patch that is the farthest from everything known, and one of the part that is whole.
    for query, colour in ((int(patches[0].argmax()), ORANGE), (6 * grid + 3, LIGHT)):
        number, nearest = divmod(int(cosine[query].argmax()), grid * grid)
        box(panels[0, 0], query % grid, query // grid, 1, patch, colour)
        box(panels[0, 1 + number], nearest % grid, nearest // grid, 1, patch, colour)
        distances.append(f"{patches[0, query]:.3f}")
    panels[0, 0].set_xlabel("distance to nearest:\n{} orange\n{} blue".format(*distances), fontsize=10)
    (few,) = score_images(case.embeddings[1:], case.text, case.bank, [range(SHOTS)])
    highest = float(patches.max())
    for axes, values, side in zip(panels[1], windows, SCALES):
        heat(axes, harmonic_spread(values, grid, side)[0], f"distance, {side} x {side}", highest)
    heat(panels[1, 2], patches.reshape(grid, grid), "distance, patches", highest)
    heat(panels[1, 3], association_maps(associations)[0], "their mean", highest)
    heat(panels[1, 4], upsample(few.maps, case.backbone.image_size)[0], f"+ zero-shot, score {few.scores[0]:.2f}")
    return figure


FIGURES = {"prompts": draw_prompts, "windows": draw_windows, "harmonic": draw_harmonic, "memory": draw_memory}


def main() -> None:
    """Draw all figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--save_path", type=Path, default=Path(__file__).resolve().parent, help="folder of the figures (this one)"
    )
    options = parser.parse_args()
    case = load_case()
    for name, draw in FIGURES.items():
        buffer = io.BytesIO()
        draw(case).savefig(buffer, format="jpg", dpi=110, pil_kwargs={"quality": 85})
        write_atomically(options.save_path / f"method-{name}.jpg", buffer.getvalue())
        print(f"written: {options.save_path / f'method-{name}.jpg'}, {len(buffer.getvalue()) // 1000} kB")


if __name__ == "__main__":
    main()
