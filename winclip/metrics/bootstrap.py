"""How far figures can be trusted: bootstrap intervals over images, docs/metrics.md says of what.

A resample draws as many good and as many defective images as there are, with replacement. Counts add up, so what a
metric needs of all resamples is one product: (resamples, images) numbers of draws with (images, bins) counts.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping

import numpy as np
import numpy.typing as npt

from winclip.metrics.exact import DefectPixels, UndefinedMetric
from winclip.metrics.histograms import (
    CountsAbove,
    Float64,
    Histograms,
    Maps,
    add_up,
    auroc,
    average_precision,
    binned_metrics,
    count_above,
    count_in_parts,
    cumulate,
    f1_max,
)

RESAMPLES = 2000
SEED = 0
CONFIDENCE = 0.95

# Bins of about equal shares of the pixels, merged from those of ``Histograms``.
_BINS = 2048
# Resamples computed at once: what they need stays in the processor's cache.
_ROWS = 50

Draws = npt.NDArray[np.uint16]
Interval = tuple[float, float]


def draw(labels: npt.ArrayLike, name: str) -> Draws:
    """How often each image is in each resample.

    Args:
        labels: (N,), zero for good images.
        name: of the class; classes are drawn apart, and the same class of the same images always alike.

    Returns:
        (1 + RESAMPLES, N); the first row is the sample itself, each image once.

    Raises:
        UndefinedMetric: if there is one good or one defective image, which draws could not vary.
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
    """``auroc_sp``, ``f1_sp`` and ``ap_sp`` of every row of ``draws``, NaN where undefined.

    Args:
        draws: (R, N), from ``draw``.
        labels: (N,), zero for good images.
        scores: (N,), higher is more anomalous.
    """
    values, defective = np.asarray(scores), np.asarray(labels) != 0
    order = np.argsort(values, kind="stable")
    starts = np.flatnonzero(np.append(True, np.diff(values[order]) != 0))

    def metrics(rows: Float64) -> dict[str, Float64]:
        normal, defect = (
            count_above(np.add.reduceat(rows[:, order] * kind[order], starts, axis=1))
            for kind in (~defective, defective)
        )
        return {
            "auroc_sp": auroc(normal, defect),
            "f1_sp": f1_max(normal, defect),
            "ap_sp": average_precision(normal, defect),
        }

    return _in_blocks(draws, metrics)


def resampled_pixel_metrics(
    draws: Draws, defects: DefectPixels, maps: Maps, highest: float, mode: str
) -> dict[str, Float64]:
    """The pixel metrics of every row of ``draws``, NaN where undefined.

    Args:
        draws: (R, N), from ``draw``.
        defects: of the N images.
        maps: gives the anomaly maps of some images.
        highest: end of the range of scores, which begins at 0.
        mode: that of AUPRO.

    Raises:
        UndefinedMetric: if a score is NaN.
    """
    starts = _equal_shares(add_up(count_in_parts(defects, maps, highest)))
    images = [cumulate(part.merged(starts)) for part in count_in_parts(defects, maps, highest)]
    edges = images[0].edges
    normal, defect, overlap, lowest, top = (
        np.concatenate([part[field] for part in images]) for field in range(1, len(CountsAbove._fields))
    )
    bad = np.flatnonzero(defects.regions)
    defect, overlap = defect[bad], overlap[bad]

    def metrics(rows: Float64) -> dict[str, Float64]:
        drawn = rows > 0
        sums = CountsAbove(
            edges,
            rows @ normal,
            rows[:, bad] @ defect,
            rows[:, bad] @ overlap,
            np.where(drawn, lowest, lowest.max()).min(axis=1),
            np.where(drawn, top, top.min()).max(axis=1),
        )
        return binned_metrics(sums, mode)

    return _in_blocks(draws, metrics)


def spread(figures: Mapping[str, float], resampled: Mapping[str, Float64]) -> dict[str, Float64]:
    """(RESAMPLES,) values of every figure, moved by the difference that bins make; NaN where not resampled.

    Args:
        figures: exact ones, as fractions.
        resampled: (1 + RESAMPLES,) of each, the sample's own first.
    """
    unknown = np.full(1 + RESAMPLES, np.nan)
    values = {name: resampled.get(name, unknown) for name in figures}
    return {name: np.clip(part[1:] + (figures[name] - part[0]), 0, 1) for name, part in values.items()}


def interval(values: Float64) -> Interval | None:
    """The middle ``CONFIDENCE`` of (RESAMPLES,) values; NaN ones count for nothing, None if most are."""
    known = values[~np.isnan(values)]
    if len(known) <= len(values) / 2:
        return None
    low, high = np.quantile(known, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


def _in_blocks(draws: Draws, metrics: Callable[[Float64], dict[str, Float64]]) -> dict[str, Float64]:
    parts = [metrics(rows) for rows in _blocks(draws)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _blocks(draws: Draws) -> Iterator[Float64]:
    for start in range(0, len(draws), _ROWS):
        yield draws[start : start + _ROWS].astype(np.float64)


def _equal_shares(total: Histograms) -> npt.NDArray[np.intp]:
    """Where bins begin that hold about equal shares of the normal and of the defect pixels."""
    share = sum(part[0] / max(part.sum(), 1) for part in (total.normal, total.defect))
    level = np.floor((np.cumsum(share) - share) / 2 * _BINS)
    return np.flatnonzero(np.diff(level, prepend=-1))
