"""The metrics of a class in every setting."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import numpy.typing as npt
import torch

from datasets.items import Item
from evaluation.parts import ClassScores
from evaluation.setting import Setting
from winclip.metrics.bootstrap import draw, resampled_image_metrics, resampled_pixel_metrics, spread
from winclip.metrics.exact import (
    PIXEL_METRICS,
    DefectPixels,
    Images,
    UndefinedMetric,
    image_metrics,
    label_defects,
    pixel_metrics_by_type,
)
from winclip.metrics.histograms import (
    Float64,
    Histograms,
    Maps,
    add_up_by_group,
    bounds,
    count_in_parts,
    histogram_metrics,
)
from winclip.scoring import upsample
from winclip.support.errors import InputError

# Pixels of a class in a setting that exact metrics are taken of at most; they need some 13 bytes each.
EXACT_LIMIT = 1_000_000_000

Positions = npt.NDArray[np.intp]

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
        types: ``auroc_sp`` and ``aupro`` of each type of defect against the good images, those that are defined.
        total: the histogram of the pixels, if metrics were taken of it.
        resampled: of each figure its values in resamples, (RESAMPLES,); empty if not asked for.
    """

    setting: Setting
    maps_of: Maps
    defects: DefectPixels | str
    figures: dict[str, float]
    types: dict[str, dict[str, float]]
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
    good, types = defect_types(scored.items)
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
        of_types = {name: _of_type(scored.labels, scores, good, images) for name, images in types.items()}
        total = None
        if isinstance(defects, str):
            missing["pixel metrics"] = defects
        else:
            pixels = measure_pixels(defects, maps_of, setting, method, good, [*types.values()])
            total = pixels.total
            if total is not None and pixels.figures:
                _log_bounds(scored.class_name, setting, total, pixels.figures, method.aupro)
            figures |= pixels.figures
            missing |= pixels.missing
            for column, aupro in zip(of_types.values(), pixels.of_types):
                column |= {} if aupro is None else {"aupro": aupro}
        reasons |= dict.fromkeys(missing.values())
        values = {}
        if draws is not None:
            values = resampled_image_metrics(draws, scored.labels, scores)
            if not isinstance(defects, str) and "auroc_px" in figures:
                values |= resampled_pixel_metrics(draws, defects, maps_of, setting.highest, method.aupro)
        resampled = spread(figures, values) if method.intervals else {}
        yield Measured(setting, maps_of, defects, figures, of_types, total, resampled)
    for reason in reasons:
        _log.warning("%s: a figure is left out, %s", scored.class_name, reason)


def defect_types(items: Sequence[Item]) -> tuple[Positions, dict[str, Positions]]:
    """Positions of the good images, and those of each type of defect, in the order in which types come first."""
    types = dict.fromkeys(item.specie_name for item in items if item.anomaly)
    return np.flatnonzero([not item.anomaly for item in items]), {
        name: np.flatnonzero([bool(item.anomaly) and item.specie_name == name for item in items]) for name in types
    }


def _of_type(
    labels: npt.NDArray[np.int64], scores: npt.NDArray[np.float64], good: Positions, images: Positions
) -> dict[str, float]:
    both = np.append(good, images)
    figures, _ = image_metrics(labels[both], scores[both])
    return {"auroc_sp": figures["auroc_sp"]} if "auroc_sp" in figures else {}


@dataclass(frozen=True)
class MeasuredPixels:
    """Pixel metrics of a class.

    Attributes:
        figures: as fractions.
        missing: why some are undefined.
        of_types: the AUPRO of each type of defect, None where it is undefined.
        total: the histogram, if they were taken of one.
    """

    figures: dict[str, float]
    missing: dict[str, str]
    of_types: Sequence[float | None] = ()
    total: Histograms | None = None


def measure_pixels(
    defects: DefectPixels,
    maps_of: Maps,
    setting: Setting,
    method: Method,
    good: Images = slice(None),
    types: Sequence[Positions] = (),
) -> MeasuredPixels:
    """Take the pixel metrics of a class, and of types of defects against the good images, where there are any."""
    if method.metrics == "exact":
        return MeasuredPixels(*pixel_metrics_by_type(defects, maps_of(slice(None)), good, types, method.aupro))
    groups = np.zeros(len(defects.mask), np.intp)
    for number, images in enumerate(types, start=1):
        groups[images] = number
    try:
        total, of_groups = add_up_by_group(count_in_parts(defects, maps_of, setting.highest), groups)
    except UndefinedMetric as reason:
        return MeasuredPixels({}, dict.fromkeys(PIXEL_METRICS, f"pixel scores: {reason}"))
    rest = of_groups.pop(0, None)
    against_rest = [part if rest is None else rest + part for _, part in sorted(of_groups.items())]
    of_types = [histogram_metrics(part, method.aupro)[0].get("aupro") for part in against_rest]
    return MeasuredPixels(*histogram_metrics(total, method.aupro), of_types, total)


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
