"""Pixel metrics in bounded memory: binned counts for ``winclip.metrics.formulas``; docs/metrics.md states the error.

A map's range is known before its scores are: [0, 1] zero-shot, [0, 2] few-shot. So one pass counts scores in fixed
bins, and counts add up over images, batches, processes and hosts. A figure is exact for the scores rounded to
their bins.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from winclip.metrics.exact import DefectPixels
from winclip.metrics.formulas import (
    PRO_LIMIT,
    Counts,
    Float64,
    FloatArray,
    UndefinedMetric,
    check_mode,
    evaluate,
    step_thresholds,
    sum_above,
)

BINS = 1 << 16

# Images whose histograms are held at once: 16 of 3 x 2^16 bins take 25 MB.
_IMAGES_AT_ONCE = 16

# Returns the (n, H, W) maps of some images.
Maps = Callable[[slice], FloatArray]


@dataclass(frozen=True)
class Histograms:
    """Counts of pixel scores above bin edges; each row belongs to one image or to a sum of images.

    Attributes:
        edges: (E,) float64, ascending; a bin includes its lower edge but not its upper one.
        above: (3, R, E) float64, counts at and above each edge, the last 0: of normal pixels, of defect pixels, and of
            defect pixels weighted by one over the size of their region, which sum to the number of regions.
        lowest, highest: (R,) lowest and highest of all scores, in their dtype.
    """

    edges: Float64
    above: Float64
    lowest: FloatArray
    highest: FloatArray

    def sums(self, times: Float64) -> Histograms:
        """Sums of rows; (S, R) says how often each sum has each row."""
        lowest, highest = _ends(times, self.lowest, self.highest)
        return Histograms(self.edges, times @ self.above, lowest, highest)

    def counts(self, mode: str) -> Counts:
        """Counts for the formulas; AUPRO thresholds in ``steps`` lie between edges, where scores are spread evenly."""
        check_mode(mode)
        return Counts(*self.above)._replace(steps=None if mode == "exact" else self._steps())

    def _steps(self) -> Counts:
        thresholds, upper = self.thresholds()
        share = (thresholds - self.edges[upper - 1]) / np.diff(self.edges)[upper - 1]
        below, beyond = (np.take_along_axis(self.above, edge[None], axis=2) for edge in (upper - 1, upper))
        return Counts(*np.concatenate([self.above[..., :1], below + share.clip(0, 1) * (beyond - below)], axis=2))

    def thresholds(self) -> tuple[Float64, npt.NDArray[np.intp]]:
        """The thresholds of AUPRO in steps and the next edge above each, both (R, T)."""
        thresholds = step_thresholds(self.lowest, self.highest)
        return thresholds, np.searchsorted(self.edges, thresholds, "right").clip(1, len(self.edges) - 1)


def count_pixels(
    defects: DefectPixels,
    maps: Maps,
    highest: float,
    times: Float64,
    bins: int = BINS,
    merged: npt.NDArray[np.intp] | None = None,
) -> Histograms:
    """Histograms of sums of images, some images at a time.

    Args:
        defects: defects of the (N, H, W) masks.
        maps: returns the anomaly maps of some images.
        highest: end of the range, which begins at 0; scores outside count in the first or last bin.
        times: (R, N), how often each row has each image.
        bins: number of equal bins.
        merged: bins, ascending from 0, at which fewer, merged bins begin.

    Raises:
        UndefinedMetric: if a score is NaN.
    """
    edges = np.linspace(0, highest, bins + 1)[slice(None) if merged is None else np.append(merged, bins)]
    total = np.zeros((3, len(times), len(edges) - 1))
    ends = []
    for start in range(0, len(defects.mask), _IMAGES_AT_ONCE):
        images = slice(start, start + _IMAGES_AT_ONCE)
        own, scores = defects.of_images(images), maps(images)
        if own.mask.shape != scores.shape:
            raise ValueError(f"masks {own.mask.shape} and maps {scores.shape} must have one shape")
        if np.isnan(scores).any():
            raise UndefinedMetric("some scores are NaN")
        count = len(scores)
        places = np.clip(scores * scores.dtype.type(bins / highest), 0, bins - 1).astype(np.intp)
        places += (bins * np.arange(count))[:, None, None]
        kinds = (~own.mask, None), (own.mask, None), (own.mask, own.weight)
        found = np.array([np.bincount(places[pixels], weight, count * bins) for pixels, weight in kinds])
        numbers = found.reshape(3, count, bins)
        rows = np.flatnonzero(times[:, images].any(axis=1))
        total[:, rows] += times[rows, images] @ (
            numbers if merged is None else np.add.reduceat(numbers, merged, axis=2)
        )
        ends.append([scores.min(axis=(1, 2)), scores.max(axis=(1, 2))])
    return Histograms(edges, sum_above(total), *_ends(times, *np.concatenate(ends, axis=1)))


def _ends(times: Float64, lowest: FloatArray, highest: FloatArray) -> tuple[FloatArray, FloatArray]:
    """(S,) smallest and largest scores of the sums of rows."""
    drawn = times > 0
    return np.where(drawn, lowest, lowest.max()).min(axis=1), np.where(drawn, highest, highest.min()).max(axis=1)


def bounds(total: Histograms, mode: str = "steps") -> dict[str, tuple[float, float]]:
    """The limits of the exact metrics for any order of the scores within their bins.

    Args:
        total: one row with normal and defect pixels.
        mode: mode of AUPRO.

    Returns:
        (lower, upper) for every metric.
    """
    # One more edge in each bin, with all normal and no defect pixels of the bin above it, or the reverse.
    normal, defect, overlap = np.repeat(total.above, 2, axis=2)
    worst = evaluate("pixel", Counts(normal[:, :-1], defect[:, 1:], overlap[:, 1:]))
    best = evaluate("pixel", Counts(normal[:, 1:], defect[:, :-1], overlap[:, :-1]))
    limits = {name: (float(worst[name][0]), float(best[name][0])) for name in worst}

    # Precision rises ever more slowly from the first defect pixel of a bin to its last: its mean exceeds that of both.
    normal, defect, _ = total.above[:, 0]
    first, last = (found / np.maximum(found + normal[:-1], 1) for found in (defect[1:] + 1, defect[:-1]))
    limits["ap_px"] = float((-np.diff(defect) * (first + last) / 2).sum() / defect[0]), limits["ap_px"][1]
    return limits if mode == "exact" else {**limits, "aupro": _steps_bounds(total)}


def _steps_bounds(total: Histograms) -> tuple[float, float]:
    """The area in steps falls with the rates of its inner points and rises with overlaps and the rates of both ends."""
    upper = total.thresholds()[1][0]
    rate, _, overlap = total.above[:, 0] / total.above[:, 0, :1]
    limits = []
    for inner, outer, unknown in ((upper - 1, upper, 0.0), (upper, upper - 1, 1.0)):
        kept = rate[inner] < PRO_LIMIT
        x, ends, y = rate[inner][kept], rate[outer][kept].clip(max=PRO_LIMIT), overlap[outer][kept]
        if len(x) > 1 and ends[0] > ends[-1]:
            x = np.concatenate((ends[:1], x[1:-1].clip(ends[-1], ends[0]), ends[-1:]))
            unknown = float((np.diff(x) * (y[1:] + y[:-1]) / 2).sum() / (x[-1] - x[0]))
        limits.append(unknown)
    return limits[0], limits[1]
