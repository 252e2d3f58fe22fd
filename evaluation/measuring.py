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
from evaluation.options import Setting
from evaluation.parts import ClassScores
from winclip.metrics.bootstrap import draw, resampled_image_metrics, resampled_pixel_metrics, resampled_values
from winclip.metrics.exact import DefectPixels, Images, image_metrics, label_defects, pixel_metrics_by_type
from winclip.metrics.formulas import PIXEL_METRICS, TYPE_METRICS, Figures, Float64, UndefinedMetric, figures
from winclip.metrics.histograms import Histograms, Maps, bounds, count_pixels
from winclip.scoring import upsample
from winclip.support.errors import InputError
from winclip.support.names import counted
from winclip.variants import REFERENCE

# Most pixels of a class in a setting for exact metrics: about 13 bytes each, and 60 more for each defect pixel.
EXACT_LIMIT = 1_000_000_000

_IMAGE_ONLY = "only whole images were encoded"

Positions = npt.NDArray[np.intp]

_log = logging.getLogger("winclip")


@dataclass(frozen=True)
class MetricOptions:
    """How metrics are computed.

    Attributes:
        aupro: ``steps`` or ``exact``.
        metrics: how pixel metrics are computed, ``exact`` or ``histogram``.
        intervals: whether images are resampled too.
        image_only: whether there are no maps.
    """

    aupro: str
    metrics: str = "exact"
    intervals: bool = False
    image_only: bool = False

    def check_size(self, class_name: str, pixels: int) -> None:
        """Refuse a class with more pixels in a setting than exact metrics allow.

        Raises:
            InputError: naming the option without such a limit.
        """
        if self.metrics == "exact" and pixels > EXACT_LIMIT:
            raise InputError(
                f"class {class_name} has {pixels:,} pixels, and exact metrics take {EXACT_LIMIT:,} at most;"
                " use --metrics histogram"
            )


@dataclass(frozen=True)
class ClassMetrics:
    """The metrics of one class in one setting.

    Attributes:
        setting: the setting.
        maps_of: gives the (n, S, S) float32 maps of some images, upsampled when they are asked for.
        defects: the labelled masks, or why there are none.
        figures: the metrics that are defined, as fractions.
        types: ``auroc_sp`` and ``aupro`` of each type of defect against the good images, those that are defined.
        total: the histogram of the pixels, if the metrics come from it.
        resampled: each figure's values in resamples, (RESAMPLES,); empty if not asked for.
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
        """The source of the pixel curves, or why there are no masks."""
        if isinstance(self.defects, str):
            return self.defects
        return self.total or (self.defects, self.maps)


def measure_class(scored: ClassScores, image_size: int, method: MetricOptions) -> Iterator[ClassMetrics]:
    """Compute all metrics, one setting at a time, because upsampled maps are large; log why some are undefined.

    Args:
        scored: the class.
        image_size: S, side of masks and upsampled maps.
        method: how.
    """
    defects = _IMAGE_ONLY if method.image_only else _defects(scored)
    good, types = defect_types(scored.items)
    reasons: dict[tuple[str, str], None] = {}
    # Variants may have the same scores or maps.
    of_scores: dict[bytes, list[Figures]] = {}
    of_maps: dict[tuple[bytes, float], tuple[list[Figures], Histograms | None, dict[str, Float64]]] = {}
    draws = None
    if method.intervals:
        try:
            draws = draw(scored.labels, scored.class_name)
        except UndefinedMetric as error:
            _log.warning("%s: no intervals, %s", scored.class_name, error)
    for setting, scores in scored.scores.items():
        maps_of = partial(_upsampled, scored.maps[setting], image_size)
        groups = [np.arange(len(scores)), *(np.append(good, images) for images in types.values())]
        if scores.tobytes() not in of_scores:
            of_scores[scores.tobytes()] = [image_metrics(scored.labels[images], scores[images]) for images in groups]
        # First the class, then each type of defect against the good images.
        (known, missing), *of_types = [(dict(one), dict(why)) for one, why in of_scores[scores.tobytes()]]
        key = scored.maps[setting].numpy().tobytes(), setting.highest
        if key not in of_maps:
            pixels: list[Figures] = [({}, {"pixel metrics": str(defects)})]
            total, resampled = None, dict[str, Float64]()
            if not isinstance(defects, str):
                pixels, total = measure_pixels(defects, maps_of, setting, method, good, [*types.values()])
                if draws is not None and pixels[0][0]:
                    resampled = resampled_pixel_metrics(draws, defects, maps_of, setting.highest, method.aupro)
            of_maps[key] = pixels, total, resampled
        pixels, total, resampled = of_maps[key]
        for (one, _), (other, _) in zip([(known, missing), *of_types], pixels):
            one |= other
        missing |= pixels[0][1]
        if total is not None and pixels[0][0]:
            _log_bounds(scored.class_name, setting, total, known, method.aupro)
        named = scored.class_name if setting.variant == REFERENCE.name else f"{scored.class_name}, {setting.variant}"
        reasons |= dict.fromkeys((named, reason) for reason in missing.values())
        values = {} if draws is None else resampled_image_metrics(draws, scored.labels, scores) | resampled
        yield ClassMetrics(
            setting,
            maps_of,
            defects,
            known,
            {name: {m: one[m] for m in TYPE_METRICS if m in one} for name, (one, _) in zip(types, of_types)},
            total,
            resampled_values(known, values) if method.intervals else {},
        )
    for reason in reasons if defects != _IMAGE_ONLY else ():
        _log.warning("%s: a figure is left out, %s", *reason)


def defect_types(items: Sequence[Item]) -> tuple[Positions, dict[str, Positions]]:
    """Positions of the good images, and of the images of each type of defect, in order of first appearance."""
    types = dict.fromkeys(item.specie_name for item in items if item.anomaly)
    return np.flatnonzero([not item.anomaly for item in items]), {
        name: np.flatnonzero([bool(item.anomaly) and item.specie_name == name for item in items]) for name in types
    }


def measure_pixels(
    defects: DefectPixels,
    maps_of: Maps,
    setting: Setting,
    method: MetricOptions,
    good: Images = slice(None),
    types: Sequence[Positions] = (),
) -> tuple[list[Figures], Histograms | None]:
    """The pixel metrics of a class, then of each type of defect against the good images.

    Returns:
        Figures with the reasons for undefined ones, and the histogram of the class if they come from one.
    """
    if method.metrics == "exact":
        return pixel_metrics_by_type(defects, maps_of(slice(None)), method.aupro, good, types), None
    times = np.zeros((1 + len(types), len(defects.mask)))
    times[0], times[1:, good] = 1, 1
    for row, images in zip(times[1:], types):
        row[images] = 1
    try:
        counted = count_pixels(defects, maps_of, setting.highest, times)
    except UndefinedMetric as reason:
        return [({}, dict.fromkeys(PIXEL_METRICS, f"pixel scores: {reason}"))] * len(times), None
    rows = [counted.sums(row[None]) for row in np.eye(len(times))]
    return [figures("pixel", partial(row.counts, method.aupro)) for row in rows], rows[0]


def _log_bounds(name: str, setting: Setting, total: Histograms, figures: dict[str, float], aupro: str) -> None:
    """Log the ranges of the figures that bins leave uncertain by more than 1e-4."""
    limits = {metric: both for metric, both in bounds(total, aupro).items() if metric in figures}
    wide = {m: both for m, both in limits.items() if max(abs(end - figures[m]) for end in both) > 1e-4}
    if wide:
        ranges = ", ".join(f"{metric} {100 * low:.3f} to {100 * high:.3f}" for metric, (low, high) in wide.items())
        _log.info("%s, %s: bins leave ranges: %s", name, setting.name, ranges)


def _upsampled(grid: torch.Tensor, size: int, images: slice) -> npt.NDArray[np.float32]:
    maps: npt.NDArray[np.float32] = upsample(grid[images], size).numpy()
    return maps


def _defects(scored: ClassScores) -> DefectPixels | str:
    without = sum(mask is None for mask in scored.masks)
    if without:
        few = f"of {counted(len(scored.masks), 'test image')}"
        return f"{counted(without, f'{few} is anomalous and has', f'{few} are anomalous and have')} no mask"
    return label_defects(np.stack([mask for mask in scored.masks if mask is not None]))
