"""The metrics of a class in every setting."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import numpy.typing as npt
import torch

from evaluation.scoring import ClassScores
from evaluation.setting import Setting
from winclip.bootstrap import draw, resampled_image_metrics, resampled_pixel_metrics, spread
from winclip.errors import InputError
from winclip.histograms import Float64, Histograms, Maps, add_up, bounds, count_in_parts, histogram_metrics
from winclip.metrics import (
    PIXEL_METRICS,
    DefectPixels,
    UndefinedMetric,
    image_metrics,
    label_defects,
    pixel_metrics,
)
from winclip.scoring import upsample

# Pixels of a class in a setting that exact metrics are taken of at most; they need some 13 bytes each.
EXACT_LIMIT = 1_000_000_000

_log = logging.getLogger("winclip")


@dataclass(frozen=True)
class Method:
    """How metrics are taken.

    Attributes:
        aupro: ``steps`` or ``exact``.
        metrics: of the pixels, ``exact`` or ``histogram``.
        intervals: whether images are resampled too.
    """

    aupro: str
    metrics: str = "exact"
    intervals: bool = False

    def check_size(self, class_name: str, pixels: int) -> None:
        """Refuse a class with more pixels in a setting than exact metrics are taken of.

        Raises:
            InputError: naming the option that takes any number.
        """
        if self.metrics == "exact" and pixels > EXACT_LIMIT:
            raise InputError(
                f"class {class_name} has {pixels:,} pixels, and exact metrics are taken of {EXACT_LIMIT:,} at most;"
                " use --metrics histogram"
            )


@dataclass(frozen=True)
class Measured:
    """What is known of one class in one setting.

    Attributes:
        setting: the setting.
        maps_of: gives the (n, S, S) float32 maps of some images, upsampled when they are asked for.
        defects: the labelled masks, or why there are none.
        figures: the metrics that are defined, as fractions.
        total: the histogram of the pixels, if metrics were taken of it.
        resampled: of each figure its values in resamples, (RESAMPLES,); empty if not asked for.
    """

    setting: Setting
    maps_of: Maps
    defects: DefectPixels | str
    figures: dict[str, float]
    total: Histograms | None = None
    resampled: dict[str, Float64] = field(default_factory=dict)

    @property
    def maps(self) -> npt.NDArray[np.float32]:
        """(N, S, S) float32, upsampled."""
        return self.maps_of(slice(None))

    @property
    def pixels(self) -> tuple[DefectPixels, npt.NDArray[np.float32]] | Histograms | str:
        """What the pixels' curves are taken of, or why there are no masks."""
        if isinstance(self.defects, str):
            return self.defects
        return self.total or (self.defects, self.maps)


def measure_class(scored: ClassScores, image_size: int, method: Method) -> Iterator[Measured]:
    """Take all metrics, one setting at a time, because upsampled maps are large; log why some are undefined.

    Args:
        scored: the class.
        image_size: S, side of masks and upsampled maps.
        method: how.
    """
    defects = _defects(scored)
    reasons: dict[str, None] = {}
    draws = None
    if method.intervals:
        try:
            draws = draw(scored.labels, scored.class_name)
        except UndefinedMetric as error:
            _log.warning("%s: no intervals, %s", scored.class_name, error)
    for setting, scores in scored.scores.items():
        maps_of = partial(_upsampled, scored.maps[setting], image_size)
        figures, missing = image_metrics(scored.labels, scores)
        total = None
        if isinstance(defects, str):
            missing["pixel metrics"] = defects
        else:
            pixel_figures, pixel_missing, total = measure_pixels(defects, maps_of, setting, method)
            if total is not None and pixel_figures:
                _log_bounds(scored.class_name, setting, total, pixel_figures, method.aupro)
            figures |= pixel_figures
            missing |= pixel_missing
        reasons |= dict.fromkeys(missing.values())
        values = {}
        if draws is not None:
            values = resampled_image_metrics(draws, scored.labels, scores)
            if not isinstance(defects, str) and "auroc_px" in figures:
                values |= resampled_pixel_metrics(draws, defects, maps_of, setting.highest, method.aupro)
        resampled = spread(figures, values) if method.intervals else {}
        yield Measured(setting, maps_of, defects, figures, total, resampled)
    for reason in reasons:
        _log.warning("%s: a figure is left out, %s", scored.class_name, reason)


def measure_pixels(
    defects: DefectPixels, maps_of: Maps, setting: Setting, method: Method
) -> tuple[dict[str, float], dict[str, str], Histograms | None]:
    """Pixel metrics as fractions, why some are undefined, and the histogram if they were taken of one."""
    if method.metrics == "exact":
        return *pixel_metrics(defects, maps_of(slice(None)), method.aupro), None
    try:
        total = add_up(count_in_parts(defects, maps_of, setting.highest))
    except UndefinedMetric as reason:
        return {}, dict.fromkeys(PIXEL_METRICS, f"pixel scores: {reason}"), None
    return *histogram_metrics(total, method.aupro), total


def _log_bounds(name: str, setting: Setting, total: Histograms, figures: dict[str, float], aupro: str) -> None:
    """Log between which values those figures lie that bins leave open by more than 1e-4."""
    limits = {metric: both for metric, both in bounds(total, aupro).items() if metric in figures}
    wide = [metric for metric, both in limits.items() if max(abs(end - figures[metric]) for end in both) > 1e-4]
    if wide:
        ranges = ", ".join(
            f"{metric} {100 * limits[metric][0]:.3f} to {100 * limits[metric][1]:.3f}" for metric in wide
        )
        _log.info("%s, %s: bins leave open %s", name, setting.name, ranges)


def _upsampled(grid: torch.Tensor, size: int, images: slice) -> npt.NDArray[np.float32]:
    maps: npt.NDArray[np.float32] = upsample(grid[images], size).numpy()
    return maps


def _defects(scored: ClassScores) -> DefectPixels | str:
    without = sum(mask is None for mask in scored.masks)
    if without:
        return f"{without} of {len(scored.masks)} test images are anomalous and have no mask"
    return label_defects(np.stack([mask for mask in scored.masks if mask is not None]))
