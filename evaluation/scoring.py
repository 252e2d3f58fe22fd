"""The test images of a class, encoded once and scored in every setting."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from datasets.items import Item
from datasets.samples import Mask
from evaluation.references import References
from evaluation.setting import Setting
from winclip.model import WinCLIP
from winclip.pictures.reading import Batch
from winclip.scoring import score_images


@dataclass(frozen=True)
class ClassScores:
    """Scores of N test images of one class, all of them or a part.

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

    def without_score(self) -> list[Item]:
        """The images whose score is no number in some setting."""
        good = np.logical_and.reduce([np.isfinite(scores) for scores in self.scores.values()])
        return [item for item, fine in zip(self.items, good) if not fine]

    def without(self, left_out: list[Item]) -> ClassScores:
        """The same without some images."""
        kept = [number for number, item in enumerate(self.items) if item not in left_out]
        return ClassScores(
            [self.items[number] for number in kept],
            [self.masks[number] for number in kept],
            {setting: scores[kept] for setting, scores in self.scores.items()},
            {setting: maps[kept] for setting, maps in self.maps.items()},
        )

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """(N,), 1 for defective images, else 0."""
        return np.array([item.anomaly for item in self.items])


def score_batch(
    batch: Batch[Item, Mask | None], model: WinCLIP, text: torch.Tensor, references: References
) -> ClassScores:
    """Encode images once and score them in every setting.

    Args:
        batch: test images of a class; N may be 0.
        model: its backbone and temperature are used.
        text: (2, embed_dim) of the class.
        references: of the class, with the positions that each setting uses.
    """
    scores, maps = {}, {}
    if batch.entries:
        embeddings = model.backbone.encode(batch.images)
        results = score_images(embeddings, text, references.bank, list(references.chosen.values()), model.temperature)
        for setting, result in zip(references.chosen, results):
            scores[setting], maps[setting] = result.scores.numpy(), result.maps.float()
    return ClassScores(batch.entries, batch.extras, scores, maps)


def join_scores(parts: Sequence[ClassScores]) -> ClassScores:
    """Join parts of a class, in their order; those without images, which have no settings, add nothing."""
    parts = [part for part in parts if part.items]
    settings = parts[0].scores if parts else ()
    return ClassScores(
        [item for part in parts for item in part.items],
        [mask for part in parts for mask in part.masks],
        {setting: np.concatenate([part.scores[setting] for part in parts]) for setting in settings},
        {setting: torch.cat([part.maps[setting] for part in parts]) for setting in settings},
    )
