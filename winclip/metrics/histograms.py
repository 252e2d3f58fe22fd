"""The four pixel metrics from histograms, in bounded memory: docs/metrics.md derives how near they are.

A map's range is known before its scores are: [0, 1] zero-shot, [0, 2] few-shot. So one pass counts scores in fixed
bins, and counts add up over images, batches, processes and hosts. A figure is the exact one of the scores rounded to
their bins. Everything here works on many rows at once, so that ``winclip.metrics.bootstrap`` resamples at little cost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from winclip.metrics.exact import (
    AUPRO_MODES,
    ONE_RATE,
    PIXEL_METRICS,
    PRO_LIMIT,
    PRO_STEPS,
    Counts,
    DefectPixels,
    FloatArray,
    UndefinedMetric,
    check_kinds,
    step_between,
)

BINS = 1 << 16

# Images whose histograms are held at once: 16 of 3 x 2^16 bins take 25 MB.
_IMAGES_AT_ONCE = 16

Float64 = npt.NDArray[np.float64]
# Gives the (n, H, W) maps of some images.
Maps = Callable[[slice], FloatArray]


@dataclass(frozen=True)
class Histograms:
    """Pixel scores by bins, each row of an image or of a sum of images.

    Attributes:
        edges: (B + 1,) float64, ascending; a bin holds its lower edge and not its upper one.
        normal, defect: (R, B) int64, numbers of pixels.
        overlap: (R, B) float64, defect pixels, each of the weight one over the size of its region; the sum of
            a row is its number of regions.
        lowest, highest: (R,) of all scores, in their dtype.
    """

    edges: Float64
    normal: Counts
    defect: Counts
    overlap: Float64
    lowest: FloatArray
    highest: FloatArray

    @classmethod
    def of(cls, defects: DefectPixels, maps: FloatArray, highest: float, bins: int = BINS) -> Histograms:
        """One row for each of N images.

        Args:
            defects: of the (N, H, W) masks.
            maps: (N, H, W) anomaly maps, higher is more anomalous.
            highest: end of the range, which begins at 0; scores outside count in the outermost bins.
            bins: B, in equal steps.

        Raises:
            UndefinedMetric: if a score is NaN.
        """
        if defects.mask.shape != maps.shape:
            raise ValueError(f"masks {defects.mask.shape} and maps {maps.shape} must have one shape")
        if np.isnan(maps).any():
            raise UndefinedMetric("some scores are NaN")
        images = len(maps)
        places = np.clip(maps * maps.dtype.type(bins / highest), 0, bins - 1).astype(np.intp)
        places += (bins * np.arange(images))[:, None, None]

        def count(pixels: npt.NDArray[np.bool_], weight: Float64 | None = None) -> npt.NDArray[Any]:
            return np.bincount(places[pixels], weight, images * bins).reshape(images, bins)

        return cls(
            np.linspace(0, highest, bins + 1),
            count(~defects.mask),
            count(defects.mask),
            count(defects.mask, defects.weight * defects.regions.sum()),
            maps.min(axis=(1, 2)),
            maps.max(axis=(1, 2)),
        )

    def __add__(self, other: Histograms) -> Histograms:
        """Row by row; both need the same bins."""
        if not np.array_equal(self.edges, other.edges):
            raise ValueError("only histograms of the same bins add up")
        return Histograms(
            self.edges,
            self.normal + other.normal,
            self.defect + other.defect,
            self.overlap + other.overlap,
            np.minimum(self.lowest, other.lowest),
            np.maximum(self.highest, other.highest),
        )

    def rows(self, chosen: npt.NDArray[np.bool_]) -> Histograms:
        """Some of the rows, (R,) bool."""
        return Histograms(
            self.edges,
            self.normal[chosen],
            self.defect[chosen],
            self.overlap[chosen],
            self.lowest[chosen],
            self.highest[chosen],
        )

    def total(self) -> Histograms:
        """All rows as one."""
        return Histograms(
            self.edges,
            self.normal.sum(axis=0, keepdims=True),
            self.defect.sum(axis=0, keepdims=True),
            self.overlap.sum(axis=0, keepdims=True),
            self.lowest.min(keepdims=True),
            self.highest.max(keepdims=True),
        )

    def check_kinds(self) -> None:
        """Raise UndefinedMetric where pixels of a kind are missing."""
        check_kinds(int(self.normal.sum()), int(self.defect.sum()))

    def merged(self, starts: npt.NDArray[np.intp]) -> Histograms:
        """Fewer bins: each begins at one of the bins ``starts``, which ascend from 0."""
        return Histograms(
            np.append(self.edges[starts], self.edges[-1]),
            np.add.reduceat(self.normal, starts, axis=1),
            np.add.reduceat(self.defect, starts, axis=1),
            np.add.reduceat(self.overlap, starts, axis=1),
            self.lowest,
            self.highest,
        )


def count_in_parts(defects: DefectPixels, maps: Maps, highest: float) -> Iterator[Histograms]:
    """Histograms of N images, a row each, some images at a time.

    Args:
        defects: of the N masks.
        maps: gives the maps of some images.
        highest: end of the range of scores.
    """
    for start in range(0, len(defects.mask), _IMAGES_AT_ONCE):
        images = slice(start, start + _IMAGES_AT_ONCE)
        yield Histograms.of(defects.of_images(images), maps(images), highest)


def add_up(parts: Iterable[Histograms]) -> Histograms:
    """One row for all images of all parts."""
    return reduce(add, (part.total() for part in parts))


def add_up_by_group(
    parts: Iterable[Histograms], groups: npt.NDArray[np.intp]
) -> tuple[Histograms, dict[int, Histograms]]:
    """As ``add_up``, and one row for each group besides, by its number.

    Args:
        parts: as from ``count_in_parts``.
        groups: (N,) number of each image's group.
    """
    totals: list[Histograms] = []
    of_groups: dict[int, Histograms] = {}
    for part in parts:
        numbers, groups = np.split(groups, [len(part.normal)])
        totals = [add_up([*totals, part])]
        for number in np.unique(numbers).tolist():
            own = add_up([part.rows(numbers == number)])
            of_groups[number] = of_groups[number] + own if number in of_groups else own
    return totals[0], of_groups


class CountsAbove(NamedTuple):
    """R sums of histograms, cumulated: entry i of a row counts from edge i upwards, the last is 0.

    Attributes:
        edges: (B + 1,).
        normal, defect: (R, B + 1) float64.
        overlap: (R, B + 1) float64; the first of a row is its number of regions.
        lowest, highest: (R,) of all scores.
    """

    edges: Float64
    normal: Float64
    defect: Float64
    overlap: Float64
    lowest: FloatArray
    highest: FloatArray


def cumulate(histograms: Histograms) -> CountsAbove:
    """Sum up every row from its highest bin down."""
    return CountsAbove(
        histograms.edges,
        count_above(histograms.normal),
        count_above(histograms.defect),
        count_above(histograms.overlap),
        histograms.lowest,
        histograms.highest,
    )


def count_above(counts: npt.NDArray[Any]) -> Float64:
    """(R, B) numbers in bins to (R, B + 1) numbers from each edge upwards."""
    above = np.zeros((len(counts), counts.shape[1] + 1))
    np.cumsum(counts[:, ::-1], axis=1, out=above[:, -2::-1])
    return above


def auroc(normal: Float64, defect: Float64) -> Float64:
    """(R,) areas under the ROC curve from (R, B + 1) numbers at and above ascending edges; ties count half.

    This and the metrics below are NaN where a row has nothing to take them of.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        return 1 - (_in_bins(defect) * (normal[:, :-1] + normal[:, 1:])).sum(axis=1) / (2 * normal[:, 0] * defect[:, 0])


def average_precision(normal: Float64, defect: Float64) -> Float64:
    """(R,) step-wise areas under the precision-recall curve."""
    with np.errstate(invalid="ignore", divide="ignore"):
        precision = defect[:, :-1] / np.maximum(defect[:, :-1] + normal[:, :-1], 1)
        return np.where(normal[:, 0] > 0, (_in_bins(defect) * precision).sum(axis=1) / defect[:, 0], np.nan)


def f1_max(normal: Float64, defect: Float64) -> Float64:
    """(R,) largest F1 over all edges."""
    found = defect[:, :-1]
    with np.errstate(invalid="ignore", divide="ignore"):
        largest = (2 * found / (found + normal[:, :-1] + defect[:, :1])).max(axis=1)
    return np.where((normal[:, 0] > 0) & (defect[:, 0] > 0), largest, np.nan)


def aupro_exact(counts: CountsAbove) -> Float64:
    """(R,) areas under the per-region overlap curve up to a false positive rate of 0.3, divided by 0.3."""
    with np.errstate(invalid="ignore", divide="ignore"):
        rate = counts.normal / counts.normal[:, :1]
        limited = np.minimum(rate, PRO_LIMIT)
        inside, width = _in_bins(limited), _in_bins(rate)
        # The part of the ramp inside the limit, then the plateau behind it.
        reached = np.divide(inside, width, out=np.zeros_like(width), where=width > 0)
        area = reached * inside / 2 + PRO_LIMIT - limited[:, :-1]
        return (_in_bins(counts.overlap) * area).sum(axis=1) / (PRO_LIMIT * counts.overlap[:, 0])


def aupro_steps(counts: CountsAbove) -> Float64:
    """(R,) areas of the reference reimplementation, see ``winclip.metrics.exact.aupro_steps``; even within a bin."""
    upper, share, valid = _steps(counts)

    def at_thresholds(above: Float64) -> Float64:
        below, beyond = (np.take_along_axis(above, edge, axis=1) for edge in (upper - 1, upper))
        return (below + share * (beyond - below)) / above[:, :1]

    with np.errstate(invalid="ignore", divide="ignore"):
        rate, overlap = at_thresholds(counts.normal), at_thresholds(counts.overlap)
        kept = valid & (rate < PRO_LIMIT)
        pairs = kept[:, :-1] & kept[:, 1:]
        area = ((overlap[:, :-1] + overlap[:, 1:]) / 2 * _in_bins(rate) * pairs).sum(axis=1)
        most, least = np.where(kept, rate, 0).max(axis=1), np.where(kept, rate, 1).min(axis=1)
        return np.where(most > least, area / (most - least), np.nan)


def _steps(counts: CountsAbove) -> tuple[npt.NDArray[np.intp], Float64, npt.NDArray[np.bool_]]:
    """The thresholds of ``steps``, (R, 201) each: the next edge above, the share of the bin that is below
    the threshold, and whether there is this threshold; rounding adds one to the 200 at times.
    """
    steps = np.arange(PRO_STEPS + 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        span = counts.highest - counts.lowest
        valid = steps < np.ceil(span / (span / PRO_STEPS))[:, None]
        # numpy.arange takes the first step in the dtype of the scores, and all others like it.
        step = (counts.lowest + span / PRO_STEPS).astype(np.float64) - counts.lowest
        thresholds = counts.lowest[:, None] + steps * step[:, None]
    upper = np.searchsorted(counts.edges, thresholds, "right").clip(1, len(counts.edges) - 1)
    share = (thresholds - counts.edges[upper - 1]) / np.diff(counts.edges)[upper - 1]
    return upper, share.clip(0, 1), valid


def _in_bins(above: Float64) -> Float64:
    return above[:, :-1] - above[:, 1:]


def binned_metrics(counts: CountsAbove, mode: str = "steps") -> dict[str, Float64]:
    """The pixel metrics of every row, (R,) fractions each, NaN where undefined; ``mode`` is that of AUPRO."""
    if mode not in AUPRO_MODES:
        raise ValueError(f"AUPRO mode '{mode}' is unknown; use {' or '.join(AUPRO_MODES)}")
    return {
        "auroc_px": auroc(counts.normal, counts.defect),
        "f1_px": f1_max(counts.normal, counts.defect),
        "ap_px": average_precision(counts.normal, counts.defect),
        "aupro": aupro_exact(counts) if mode == "exact" else aupro_steps(counts),
    }


def histogram_metrics(total: Histograms, mode: str = "steps") -> tuple[dict[str, float], dict[str, str]]:
    """The pixel metrics of one row, as ``winclip.metrics.exact.pixel_metrics`` gives them.

    Returns:
        The figures as fractions, and the reason for each that is undefined.
    """
    try:
        total.check_kinds()
    except UndefinedMetric as reason:
        return {}, dict.fromkeys(PIXEL_METRICS, f"pixel scores: {reason}")
    figures = {name: float(values[0]) for name, values in binned_metrics(cumulate(total), mode).items()}
    if not np.isnan(figures["aupro"]):
        return figures, {}
    del figures["aupro"]
    try:
        step_between(total.lowest[0], total.highest[0])
    except UndefinedMetric as reason:
        return figures, {"aupro": f"AUPRO in steps: {reason}"}
    return figures, {"aupro": f"AUPRO in steps: {ONE_RATE}"}


def bounds(total: Histograms, mode: str = "steps") -> dict[str, tuple[float, float]]:
    """Between which values the exact metrics lie, whatever the order of the scores within their bins.

    Args:
        total: one row with normal and defect pixels.
        mode: that of AUPRO.

    Returns:
        (lower, upper) for every metric.
    """
    counts = cumulate(total)
    normal, found, overlap = counts.normal[0], counts.defect[0], counts.overlap[0]
    defect = found[:-1] - found[1:]
    best, worst = normal[1:], normal[:-1]  # normal pixels above a defect pixel of the bin

    # The sum of (found + i) / (found + i + worst) over the bin's defect pixels, from below.
    rank = found[1:] + worst
    harmonic = np.log((rank + defect + 0.5) / (rank + 0.5))
    precise = np.where(defect > 0, found[:-1] / np.maximum(found[:-1] + best, 1), 0)
    rise = (overlap[:-1] - overlap[1:]) / overlap[0]

    def between(low: Any, high: Any) -> tuple[float, float]:
        return float(low), float(high)

    return {
        "auroc_px": between(*(1 - (defect * lost).sum() / (normal[0] * found[0]) for lost in (worst, best))),
        "f1_px": between(
            f1_max(counts.normal, counts.defect)[0],
            np.where(defect > 0, 2 * found[:-1] / (found[:-1] + best + found[0]), 0).max(),
        ),
        "ap_px": between((defect - worst * harmonic).sum() / found[0], (defect * precise).sum() / found[0]),
        "aupro": _steps_bounds(counts)
        if mode == "steps"
        else between(
            *((rise * (1 - np.minimum(lost / normal[0] / PRO_LIMIT, 1))).sum() for lost in (worst, best)),
        ),
    }


def _steps_bounds(counts: CountsAbove) -> tuple[float, float]:
    """The area in steps is the mean of a rising curve between two rates; curve and rates are known within a bin."""
    uppers, _, valid = _steps(counts)
    upper = uppers[0][valid[0]]
    if not len(upper):
        return 0.0, 1.0
    rate, overlap = counts.normal[0] / counts.normal[0, 0], counts.overlap[0] / counts.overlap[0, 0]
    # From the highest threshold down; least and most at a threshold, depending on the order in its bin.
    rates, overlaps = ([values[upper][::-1], values[upper - 1][::-1]] for values in (rate, overlap))
    certain, possible = rates[1] < PRO_LIMIT, rates[0] < PRO_LIMIT
    lower = _mean_between(rates[1], overlaps[0], rates[0][0], rates[0][certain].max(initial=0))
    higher = _mean_between(rates[0], overlaps[1], rates[1][0], min(PRO_LIMIT, rates[1][possible].max(initial=0)))
    return lower, higher


def _mean_between(x: Float64, y: Float64, start: float, end: float) -> float:
    """Mean over [start, end] of the line through ascending points, level before the first and behind the last."""
    if end <= start:
        return float(np.interp(start, x, y))
    inside = (x > start) & (x <= end)
    at = np.concatenate(([start], x[inside], [end]))
    value = np.concatenate(([np.interp(start, x, y)], y[inside], [np.interp(end, x, y)]))
    return float(((value[1:] + value[:-1]) / 2 * np.diff(at)).sum() / (end - start))
