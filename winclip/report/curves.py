"""ROC, precision-recall and PRO curves of a class, thinned for plotting."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from winclip.metrics.exact import DefectPixels, image_counts, joined_counts, sort_in_parts
from winclip.metrics.formulas import Counts, FloatArray, UndefinedMetric, check_kinds
from winclip.metrics.histograms import Histograms

# Largest number of points in a plotted line; a plot is some 250 pixels wide.
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
        figures: the defined metrics by name (``auroc_sp``, ...), as text.
        good: scores of the good images.
        defective: scores of the defective images.
        threshold: shown in the histogram; None if undefined.
        curves: the defined ones of ``roc_image``, ``pr_image``, ``roc_pixel``, ``pr_pixel`` and ``pro_pixel``.
        missing: why curves are left out, by ``image`` and ``pixel``.
        score_name: name of the score in the histogram.
        references: scores of the references, each against the others; None where they are unknown.
    """

    name: str
    figures: Mapping[str, str]
    good: npt.NDArray[np.float64]
    defective: npt.NDArray[np.float64]
    threshold: float | None
    curves: Mapping[str, Curve]
    missing: Mapping[str, str]
    score_name: str = "image score"
    references: npt.NDArray[np.float64] | None = None


def measure_class(
    name: str,
    labels: npt.ArrayLike,
    scores: npt.ArrayLike,
    pixels: tuple[DefectPixels, FloatArray] | Histograms | str,
    figures: Mapping[str, str],
) -> ClassCurves:
    """Compute the curves of a class.

    Args:
        name: the class.
        labels: (N,), zero for good images.
        scores: (N,), higher is more anomalous.
        pixels: the labelled masks and the (N, H, W) anomaly maps, or their histogram in one row, or the reason why
            there are no masks.
        figures: the metrics shown beside the curves.
    """
    defective, values = np.asarray(labels) != 0, np.asarray(scores, np.float64)
    curves: dict[str, Curve] = {}
    missing: dict[str, str] = {}
    threshold = None
    try:
        counts = check_kinds(image_counts(labels, values))
        threshold = best_f1_threshold(np.unique(values), counts)
        curves |= {"roc_image": rising_curve(counts, counts.defect), "pr_image": precision_recall(counts)}
    except UndefinedMetric as reason:
        missing["image"] = f"image scores: {reason}"
    try:
        counts = check_kinds(_pixel_counts(pixels))
        curves |= {"roc_pixel": rising_curve(counts, counts.defect), "pr_pixel": precision_recall(counts)}
        curves["pro_pixel"] = rising_curve(counts, counts.overlap)
    except UndefinedMetric as reason:
        missing["pixel"] = f"pixel scores: {reason}"
    return ClassCurves(name, figures, values[~defective], values[defective], threshold, curves, missing)


def _pixel_counts(pixels: tuple[DefectPixels, FloatArray] | Histograms | str) -> Counts:
    if isinstance(pixels, str):
        raise UndefinedMetric(pixels)
    if isinstance(pixels, Histograms):
        return pixels.counts("exact")
    defects, maps = pixels
    return joined_counts(sort_in_parts(maps[~defects.mask])[0], maps[defects.mask], defects.weight, "exact")


def best_f1_threshold(scores: npt.NDArray[np.float64], counts: Counts) -> float:
    """The threshold with the largest F1 if higher scores count as defective.

    It lies halfway between the lowest defect score that it finds and the next lower score of any
    kind; if several thresholds have the same F1, the highest one is taken.

    Args:
        scores: all distinct scores, ascending.
        counts: at these scores.
    """
    normal, defect = counts.normal[0, :-1], counts.defect[0, :-1]
    place = len(scores) - 1 - (2 * defect / (defect + normal + defect[0]))[::-1].argmax()
    lowest, next_lower = float(scores[place]), float(scores[place - 1]) if place else -np.inf
    # Rounding could move the midpoint of two neighbours onto the upper one.
    just_below = float(np.nextafter(lowest, -np.inf))
    return min((next_lower + lowest) / 2, just_below) if np.isfinite(next_lower) else just_below


def rising_curve(counts: Counts, found: npt.NDArray[np.float64]) -> Curve:
    """Share of defect scores found over the false positive rate, from (0, 0) to (1, 1).

    Args:
        counts: in one row.
        found: the rising ones of its counts: ``defect`` for the ROC curve, ``overlap`` for the PRO curve.
    """
    return _thinned(*(above[0, ::-1] / above[0, 0] for above in (counts.normal, found)))


def precision_recall(counts: Counts) -> Curve:
    """Precision over recall at every distinct defect score; a step holds from the recall before it."""
    rises = np.flatnonzero(np.diff(counts.defect[0]))[::-1]
    found = counts.defect[0, rises]
    precision = found / (found + counts.normal[0, rises])
    return _thinned(np.append(0, found / counts.defect[0, 0]), np.append(precision[0], precision))


def _thinned(x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]) -> Curve:
    """At most POINTS points, evenly spaced along the line, with both ends."""
    if len(x) <= POINTS:
        return Curve(x, y)
    length = np.append(0, np.cumsum(np.abs(np.diff(x)) + np.abs(np.diff(y))))
    kept = np.unique(np.searchsorted(length, np.linspace(0, length[-1], POINTS)))
    kept[-1] = len(x) - 1
    return Curve(x[kept], y[kept])
