"""ROC, precision-recall and PRO curves of a class, thinned to what a plot can show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from winclip.metrics.exact import DefectPixels, FloatArray, RankedScores, UndefinedMetric, rank
from winclip.metrics.histograms import Histograms, cumulate

# Points a plotted line keeps at most; a plot is some 250 pixels wide.
POINTS = 200


@dataclass(frozen=True)
class Curve:
    """A line: ``x`` and ``y`` are (P,) float64 in [0, 1], P at most ``POINTS``."""

    x: npt.NDArray[np.float64]
    y: npt.NDArray[np.float64]


@dataclass(frozen=True)
class ClassCurves:
    """Curves and scores of one class in one setting.

    Attributes:
        name: the class.
        figures: metrics by name (``auroc_sp``, ...), those that are defined, as they are shown.
        good: scores of the good images.
        defective: scores of the defective images.
        threshold: shown in the histogram; None if undefined.
        curves: ``roc_image``, ``pr_image``, ``roc_pixel``, ``pr_pixel``, ``pro_pixel``: those that are defined.
        missing: why curves are left out, ``image`` and ``pixel``.
    """

    name: str
    figures: Mapping[str, str]
    good: npt.NDArray[np.float64]
    defective: npt.NDArray[np.float64]
    threshold: float | None
    curves: Mapping[str, Curve]
    missing: Mapping[str, str]


def measure_class(
    name: str,
    labels: npt.ArrayLike,
    scores: npt.ArrayLike,
    pixels: tuple[DefectPixels, FloatArray] | Histograms | str,
    figures: Mapping[str, str],
) -> ClassCurves:
    """Take the curves of a class.

    Args:
        name: the class.
        labels: (N,), zero for good images.
        scores: (N,), higher is more anomalous.
        pixels: the labelled masks and the (N, H, W) anomaly maps, or their histogram in one row, or why there
            are no masks.
        figures: the metrics shown beside the curves.
    """
    defective, values = np.asarray(labels) != 0, np.asarray(scores, np.float64)
    curves: dict[str, Curve] = {}
    missing: dict[str, str] = {}
    threshold = None
    try:
        ranked = rank(values[~defective], values[defective])
        threshold = best_f1_threshold(ranked)
        even = np.full(len(ranked.defect), 1 / len(ranked.defect))
        curves["roc_image"], curves["pr_image"] = rising_curve(ranked, even), precision_recall(ranked)
    except UndefinedMetric as reason:
        missing["image"] = f"image scores: {reason}"
    try:
        if isinstance(pixels, str):
            raise UndefinedMetric(pixels)
        if isinstance(pixels, Histograms):
            curves |= _binned_curves(pixels)
        else:
            defects, maps = pixels
            ranked = rank(maps[~defects.mask], maps[defects.mask])
            even = np.full(len(ranked.defect), 1 / len(ranked.defect))
            curves["roc_pixel"], curves["pr_pixel"] = rising_curve(ranked, even), precision_recall(ranked)
            curves["pro_pixel"] = rising_curve(ranked, defects.weight[ranked.order])
    except UndefinedMetric as reason:
        missing["pixel"] = f"pixel scores: {reason}"
    return ClassCurves(name, figures, values[~defective], values[defective], threshold, curves, missing)


def best_f1_threshold(scores: RankedScores) -> float:
    """The threshold with the largest F1 if higher scores count as defective.

    It lies halfway between the lowest defect score that is then found and the next lower score of any
    kind; of several equal F1, the one with the highest threshold is taken.
    """
    found = np.arange(1, len(scores.defect) + 1)
    # Among ties the last has the largest F1, so counting the others too few does no harm.
    f1 = 2 * found / (found + scores.normal_from + len(found))
    lowest = scores.defect[f1.argmax()]
    below = [part[part < lowest] for part in (*scores.normal, scores.defect)]
    next_lower = max((float(part.max()) for part in below if len(part)), default=float("-inf"))
    if not np.isfinite(next_lower):
        return float(np.nextafter(lowest, -np.inf))
    # Rounding could put the middle of two neighbours onto the upper one.
    return min((next_lower + float(lowest)) / 2, float(np.nextafter(lowest, -np.inf)))


def rising_curve(scores: RankedScores, weight: npt.NDArray[np.float64]) -> Curve:
    """Weight of the defect scores found over the false positive rate, from (0, 0) to (1, 1).

    Args:
        scores: ranked.
        weight: (D,) of the defect scores in descending order, with sum 1. With even weights this is
            the ROC curve, with those of ``DefectPixels`` the per-region overlap.
    """
    last = _last_of_ties(scores)
    after = np.cumsum(weight)[last]
    before = np.append(0, after[:-1])
    x = np.column_stack((scores.normal_above[last], scores.normal_from[last])).ravel() / scores.normal_count
    y = np.column_stack((before, after)).ravel()
    return _thinned(np.concatenate(([0], x, [1])), np.concatenate(([0], y, [1])))


def precision_recall(scores: RankedScores) -> Curve:
    """Precision over recall at every distinct defect score; a step holds from the recall before it."""
    last = _last_of_ties(scores)
    found = last + 1
    precision = found / (found + scores.normal_from[last])
    return _thinned(np.append(0, found / len(scores.defect)), np.append(precision[0], precision))


def _binned_curves(total: Histograms) -> dict[str, Curve]:
    """The curves of the pixels, bin by bin from the highest down."""
    total.check_kinds()
    counts = cumulate(total)
    normal, found, overlap = (part[0, ::-1] for part in (counts.normal, counts.defect, counts.overlap))
    rate, recall = normal / normal[-1], found / found[-1]
    precision = found[found > 0] / (found + normal)[found > 0]
    return {
        "roc_pixel": _thinned(rate, recall),
        "pr_pixel": _thinned(np.append(0, recall[found > 0]), np.append(precision[0], precision)),
        "pro_pixel": _thinned(rate, overlap / overlap[-1]),
    }


def _last_of_ties(scores: RankedScores) -> npt.NDArray[np.intp]:
    return np.append(np.flatnonzero(np.diff(scores.defect)), len(scores.defect) - 1)


def _thinned(x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]) -> Curve:
    """At most POINTS points, evenly along the line, with both ends."""
    if len(x) <= POINTS:
        return Curve(x, y)
    length = np.append(0, np.cumsum(np.abs(np.diff(x)) + np.abs(np.diff(y))))
    kept = np.unique(np.searchsorted(length, np.linspace(0, length[-1], POINTS)))
    kept[-1] = len(x) - 1
    return Curve(x[kept], y[kept])
