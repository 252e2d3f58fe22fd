"""The metrics of a class in every setting."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from evaluation.scoring import ClassScores
from evaluation.setting import Setting
from winclip.metrics import DefectPixels, image_metrics, label_defects, pixel_metrics
from winclip.scoring import upsample

_log = logging.getLogger("winclip")


@dataclass(frozen=True)
class Measured:
    """What is known of one class in one setting.

    Attributes:
        setting: the setting.
        maps: (N, S, S) float32, upsampled.
        defects: the labelled masks, or why there are none.
        figures: the metrics that are defined, as fractions.
    """

    setting: Setting
    maps: npt.NDArray[np.float32]
    defects: DefectPixels | str
    figures: dict[str, float]

    @property
    def pixels(self) -> tuple[DefectPixels, npt.NDArray[np.float32]] | str:
        """The labelled masks and the maps, or why there are no masks."""
        return self.defects if isinstance(self.defects, str) else (self.defects, self.maps)


def measure_class(scored: ClassScores, image_size: int, aupro: str) -> Iterator[Measured]:
    """Take all metrics, one setting at a time, because upsampled maps are large; log why some are undefined.

    Args:
        scored: the class.
        image_size: S, side of masks and upsampled maps.
        aupro: ``steps`` or ``exact``.
    """
    defects = _defects(scored)
    reasons: dict[str, None] = {}
    for setting, scores in scored.scores.items():
        maps: npt.NDArray[np.float32] = upsample(scored.maps[setting], image_size).numpy()
        figures, missing = image_metrics(scored.labels, scores)
        if isinstance(defects, str):
            missing["pixel metrics"] = defects
        else:
            pixel_figures, pixel_missing = pixel_metrics(defects, maps, aupro)
            figures |= pixel_figures
            missing |= pixel_missing
        reasons |= dict.fromkeys(missing.values())
        yield Measured(setting, maps, defects, figures)
    for reason in reasons:
        _log.warning("%s: a figure is left out, %s", scored.class_name, reason)


def _defects(scored: ClassScores) -> DefectPixels | str:
    without = sum(mask is None for mask in scored.masks)
    if without:
        return f"{without} of {len(scored.masks)} test images are anomalous and have no mask"
    return label_defects(np.stack([mask for mask in scored.masks if mask is not None]))
