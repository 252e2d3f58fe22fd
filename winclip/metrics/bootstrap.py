"""The uncertainty of figures: bootstrap intervals over images; docs/metrics.md defines them.

A resample draws as many good and as many defective images as there are, with replacement. Counts add up, so all
resamples need one product: (resamples, images) numbers of draws with (images, bins) counts.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from winclip.metrics.exact import DefectPixels, image_counts
from winclip.metrics.formulas import Counts, Float64, Group, UndefinedMetric, evaluate
from winclip.metrics.histograms import Histograms, Maps, count_pixels

RESAMPLES = 2000
SEED = 0
CONFIDENCE = 0.95

# Bins with about equal shares of the pixels, merged from the bins of ``Histograms``.
_BINS = 2048
# Resamples computed at once: their arrays stay in the processor's cache.
_ROWS = 50

Draws = npt.NDArray[np.uint16]
Interval = tuple[float, float]


def draw(labels: npt.ArrayLike, name: str) -> Draws:
    """How often each image is in each resample.

    Args:
        labels: (N,), zero for good images.
        name: name of the class; classes are drawn separately, and the same class and images always give the same draws.

    Returns:
        (1 + RESAMPLES, N); the first row is the sample itself, each image once.

    Raises:
        UndefinedMetric: if there is only one good or one defective image, so that draws cannot vary.
    """
    defective = np.asarray(labels) != 0
    # RandomState, because numpy promises that its stream never changes.
    generator = np.random.RandomState([SEED, zlib.crc32(name.encode())])
    draws = np.ones((1 + RESAMPLES, len(defective)), np.uint16)
    groups = [np.flatnonzero(defective == kind) for kind in (False, True)]
    if 1 in map(len, groups):
        raise UndefinedMetric(
            f"needs more than one image of a kind, has {len(groups[0])} good, {len(groups[1])} defective"
        )
    for row in draws[1:]:
        for group in groups:
            if len(group):
                row[group] = np.bincount(generator.randint(0, len(group), len(group)), minlength=len(group))
    return draws


def resampled_image_metrics(draws: Draws, labels: npt.ArrayLike, scores: npt.ArrayLike) -> dict[str, Float64]:
    """(R,) of each image metric of (N,) labels and scores, in every row of (R, N) draws; NaN where undefined."""
    return _in_blocks("image", draws, lambda rows: image_counts(labels, scores, rows))


def resampled_pixel_metrics(
    draws: Draws, defects: DefectPixels, maps: Maps, highest: float, mode: str
) -> dict[str, Float64]:
    """(R,) of each pixel metric in every row of draws; NaN where undefined.

    Args:
        draws: (R, N), from ``draw``.
        defects: defects of the N images.
        maps: gives the anomaly maps of some images.
        highest: end of the range of scores, which begins at 0.
        mode: mode of AUPRO.

    Raises:
        UndefinedMetric: if a score is NaN.
    """
    images = len(defects.mask)
    starts = _equal_shares(count_pixels(defects, maps, highest, np.ones((1, images))))
    counted = count_pixels(defects, maps, highest, np.eye(images), merged=starts)
    return _in_blocks("pixel", draws, lambda rows: counted.sums(rows).counts(mode))


def resampled_values(figures: Mapping[str, float], resampled: Mapping[str, Float64]) -> dict[str, Float64]:
    """(RESAMPLES,) values of every figure, corrected for the error of binning; NaN where not resampled.

    Args:
        figures: exact figures, as fractions.
        resampled: (1 + RESAMPLES,) values of each, the sample's own first.
    """
    unknown = np.full(1 + RESAMPLES, np.nan)
    values = {name: resampled.get(name, unknown) for name in figures}
    return {name: np.clip(part[1:] + (figures[name] - part[0]), 0, 1) for name, part in values.items()}


def interval(values: Float64) -> Interval | None:
    """The middle ``CONFIDENCE`` of (RESAMPLES,) values; NaN values are ignored, None if most are NaN."""
    known = values[~np.isnan(values)]
    if len(known) <= len(values) / 2:
        return None
    low, high = np.quantile(known, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


def _in_blocks(group: Group, draws: Draws, count: Callable[[Float64], Counts]) -> dict[str, Float64]:
    starts = range(0, len(draws), _ROWS)
    parts = [evaluate(group, count(draws[start : start + _ROWS].astype(np.float64))) for start in starts]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _equal_shares(total: Histograms) -> npt.NDArray[np.intp]:
    """Where bins begin that hold about equal shares of the normal and of the defect pixels."""
    normal, defect, _ = total.above[:, 0]
    below = sum((part[0] - part[:-1]) / max(part[0], 1) for part in (normal, defect))
    return np.flatnonzero(np.diff(np.floor(below / 2 * _BINS), prepend=-1))
