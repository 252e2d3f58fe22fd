"""The test images of a class, encoded once and scored in every setting."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from datasets.items import Item
from datasets.samples import Mask
from evaluation.references import References
from evaluation.setting import Setting
from winclip.errors import InputError
from winclip.model import WinCLIP
from winclip.reading import Batch
from winclip.scoring import score_images


@dataclass(frozen=True)
class ClassScores:
    """Scores of one class's N test images.

    Attributes:
        items: the images.
        masks: (S, S) bool per image, or None where an anomalous image has no mask.
        scores: per setting, (N,) float64.
        maps: per setting, (N, grid, grid) float32; small, so that many settings fit.
    """

    items: list[Item]
    masks: list[Mask | None]
    scores: dict[Setting, npt.NDArray[np.float64]]
    maps: dict[Setting, torch.Tensor]

    @property
    def class_name(self) -> str:
        """The class."""
        return self.items[0].cls_name

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """(N,), 1 for defective images, else 0."""
        return np.array([item.anomaly for item in self.items])


def score_class(
    batches: Iterable[Batch[Item, Mask | None]], model: WinCLIP, text: torch.Tensor, references: References
) -> ClassScores:
    """Encode every image once and score it in every setting.

    Args:
        batches: the class's test images.
        model: its backbone and temperature are used.
        text: (2, embed_dim) of the class.
        references: of the class, with the positions that each setting uses.

    Raises:
        InputError: if no image can be read.
    """
    items: list[Item] = []
    masks: list[Mask | None] = []
    scores: dict[Setting, list[torch.Tensor]] = {setting: [] for setting in references.chosen}
    maps: dict[Setting, list[torch.Tensor]] = {setting: [] for setting in references.chosen}
    for batch in batches:
        if not batch.entries:
            continue
        items += batch.entries
        masks += batch.extras
        embeddings = model.backbone.encode(batch.images)
        results = score_images(embeddings, text, references.bank, list(references.chosen.values()), model.temperature)
        for setting, result in zip(references.chosen, results):
            scores[setting].append(result.scores)
            maps[setting].append(result.maps.float())
    if not items:
        raise InputError(f"class {references.class_name} has no readable test image left")
    return ClassScores(
        items,
        masks,
        {setting: torch.cat(parts).numpy() for setting, parts in scores.items()},
        {setting: torch.cat(parts) for setting, parts in maps.items()},
    )
