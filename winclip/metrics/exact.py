"""The seven metrics of the published tables, exact, from sorted scores.

Every figure needs, for each defect score, only how many normal scores are above it and how many
equal it. Defect scores are sorted, normal scores are sorted in parts and in threads, since counts
add up over parts, and a binary search joins them; no threshold is looped over. F1 and AP change for
the better only where a defect score is passed, so evaluating them there is exact. PRO gives every
defect pixel the weight 1 / (regions x region size), which turns the mean over regions into one
cumulative sum.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.floating]
Counts = npt.NDArray[np.int64]
# Some of N images: as an index takes them, positions ascending.
Images = slice | npt.NDArray[np.intp]

IMAGE_METRICS = ("auroc_sp", "f1_sp", "ap_sp")
PIXEL_METRICS = ("auroc_px", "f1_px", "ap_px", "aupro")
AUPRO_MODES = ("steps", "exact")
PRO_LIMIT = 0.3
PRO_STEPS = 200
ONE_RATE = f"the kept thresholds all have one false positive rate below {PRO_LIMIT}"

# Scores sorted by one thread at a time; smaller parts sort faster and are searched slower.
_PART = 1 << 20


class UndefinedMetric(ValueError):
    """The metric has no value on this input; the message says why."""


@dataclass(frozen=True)
class RankedScores:
    """Scores of both kinds in a form that all metrics read off.

    Attributes:
        defect: (D,) scores of the defective entries, descending.
        order: (D,) positions in the caller's defect scores, so that weights can follow.
        normal_above: (D,) int64, number of normal scores above each defect score.
        normal_from: (D,) int64, number of normal scores at or above each defect score.
        normal: the scores of the normal entries in parts, each ascending.
        normal_count: number of normal entries.
    """

    defect: FloatArray
    order: npt.NDArray[np.intp]
    normal_above: Counts
    normal_from: Counts
    normal: list[FloatArray]
    normal_count: int


def rank(normal: FloatArray, defect: FloatArray) -> RankedScores:
    """Sort and join normal and defect scores.

    Args:
        normal: (M,) scores of normal entries, in any order.
        defect: (D,) scores of defective entries, in any order and of the same dtype.

    Raises:
        UndefinedMetric: if either is empty or holds a NaN.
    """
    return rank_against(sort_in_parts(normal)[0], defect)


def sort_in_parts(*normal: FloatArray) -> list[list[FloatArray]]:
    """Of each (M,) scores parts that are ascending, all sorted in threads; none where there are no scores."""
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        parts = [np.array_split(scores, -(-len(scores) // _PART)) if len(scores) else [] for scores in normal]
        return [list(part) for part in [threads.map(np.sort, part) for part in parts]]


def rank_against(parts: Sequence[FloatArray], defect: FloatArray) -> RankedScores:
    """As ``rank``, with the normal scores from ``sort_in_parts``; parts of several calls add up."""
    count = sum(map(len, parts))
    check_kinds(count, len(defect))
    order = np.argsort(defect, kind="stable")
    ascending = defect[order]
    # NaN sorts last.
    if np.isnan(ascending[-1]) or any(np.isnan(part[-1]) for part in parts):
        raise UndefinedMetric("some scores are NaN")
    above = _count_above(parts, ascending, "right")
    at_or_above = _count_above(parts, ascending, "left")
    return RankedScores(ascending[::-1], order[::-1], above[::-1], at_or_above[::-1], [*parts], count)


def _count_above(parts: Sequence[FloatArray], thresholds: FloatArray, side: Literal["left", "right"]) -> Counts:
    """(T,) int64, how many scores are above each threshold (``right``) or at and above it (``left``)."""
    total = np.zeros(len(thresholds), np.int64)
    for part in parts:
        total += len(part) - np.searchsorted(part, thresholds, side)
    return total


def auroc(scores: RankedScores) -> float:
    """Area under the ROC curve in [0, 1]: ties between the two kinds count half."""
    pairs = len(scores.defect) * scores.normal_count
    lost = int(scores.normal_above.sum()) + int(scores.normal_from.sum())
    return 1 - lost / (2 * pairs)


def average_precision(scores: RankedScores) -> float:
    """Step-wise area under the precision-recall curve in (0, 1], as scikit-learn's average_precision_score."""
    found, false = _at_thresholds(scores)
    recalled = np.diff(found, prepend=0)
    return float((recalled * (found / (found + false))).sum() / len(scores.defect))


def f1_max(scores: RankedScores) -> float:
    """Largest F1 over all thresholds, in (0, 1]."""
    found, false = _at_thresholds(scores)
    return float((2 * found / (found + false + len(scores.defect))).max())


def _at_thresholds(scores: RankedScores) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """True and false positives at every distinct defect score, from the highest down."""
    last_of_ties = np.append(np.flatnonzero(np.diff(scores.defect)), len(scores.defect) - 1)
    return last_of_ties + 1, scores.normal_from[last_of_ties]


@dataclass(frozen=True)
class DefectPixels:
    """Masks of one class, labelled once for any number of scorings.

    Attributes:
        mask: (N, H, W) bool, True on defects.
        weight: (D,) float64 of the defect pixels in the order of ``maps[mask]``: one over the number
            of regions of the class times the size of the pixel's region. Sums to 1.
        regions: (N,) int64, number of regions of each image.
    """

    mask: npt.NDArray[np.bool_]
    weight: npt.NDArray[np.float64]
    regions: Counts

    def of_images(self, images: Images) -> DefectPixels:
        """Those of some of the images; weights are those of a class of these images alone."""
        numbers = np.arange(len(self.mask))[images]
        weight = np.concatenate([self.weight[self._ends[n] : self._ends[n + 1]] for n in numbers])
        regions = self.regions[images]
        return DefectPixels(self.mask[images], weight * (self.regions.sum() / max(regions.sum(), 1)), regions)

    @cached_property
    def _ends(self) -> Counts:
        """(N + 1,), where each image's weights begin, and the end."""
        return np.append(0, np.cumsum(np.count_nonzero(self.mask, axis=(1, 2))))


def label_defects(masks: npt.NDArray[np.bool_]) -> DefectPixels:
    """Find the 8-connected defect regions of (N, H, W) masks; any value but zero is defect."""
    masks = np.asarray(masks) != 0
    weights: list[npt.NDArray[np.float64]] = []
    regions = np.zeros(len(masks), np.int64)
    for number in np.flatnonzero(masks.any(axis=(1, 2))):
        count, labels = cv2.connectedComponents(masks[number].view(np.uint8), connectivity=8)
        inside = labels[masks[number]]
        weights.append(1 / np.bincount(inside, minlength=count)[inside])
        regions[number] = count - 1
    return DefectPixels(masks, np.concatenate(weights) / regions.sum() if weights else np.empty(0), regions)


def aupro_exact(scores: RankedScores, weight: npt.NDArray[np.float64]) -> float:
    """Area under the per-region overlap curve up to a false positive rate of 0.3, divided by 0.3.

    The curve has a point at every distinct score and is integrated exactly, with linear
    interpolation between points and at 0.3. A defect pixel raises the curve by its weight from the
    rate at which it is found; among ties with normal pixels the curve rises linearly.

    Args:
        scores: ranked pixel scores.
        weight: as in ``DefectPixels``, in the order given to ``rank``.

    Returns:
        A value in [0, 1].
    """
    begin = scores.normal_above / scores.normal_count
    end = scores.normal_from / scores.normal_count
    inside = np.minimum(end, PRO_LIMIT) - np.minimum(begin, PRO_LIMIT)
    # The part of the ramp inside the limit, then the plateau behind it.
    reached = np.divide(inside, end - begin, out=np.zeros_like(end), where=end > begin)
    area = reached * inside / 2 + (PRO_LIMIT - np.minimum(end, PRO_LIMIT))
    return float((weight[scores.order] * area).sum() / PRO_LIMIT)


def aupro_steps(scores: RankedScores, weight: npt.NDArray[np.float64]) -> float:
    """Area under the per-region overlap curve as the reference reimplementation takes it.

    200 thresholds in equal steps from the smallest score, prediction is score > threshold, points
    with a false positive rate below 0.3 are kept, their rates are rescaled to [0, 1] by their own
    minimum and maximum, trapezoid rule.

    Args:
        scores: ranked pixel scores.
        weight: as in ``DefectPixels``, in the order given to ``rank``.

    Raises:
        UndefinedMetric: if all kept points have one false positive rate, a score is infinite, or the
            scores are so close together that their type has no number between them for a step.
    """
    lowest = min(scores.defect[-1], *(part[0] for part in scores.normal))
    highest = max(scores.defect[0], *(part[-1] for part in scores.normal))
    thresholds = np.arange(lowest, highest, step_between(lowest, highest), dtype=np.float64)
    thresholds = _round_down(thresholds, scores.defect.dtype)
    rate = _count_above(scores.normal, thresholds, "right") / scores.normal_count
    found = _count_above([scores.defect[::-1]], thresholds, "right")
    overlap = np.append(0, np.cumsum(weight[scores.order]))[found]
    kept = rate < PRO_LIMIT
    rate, overlap = rate[kept], overlap[kept]
    if not len(rate) or rate.max() == rate.min():
        raise UndefinedMetric(ONE_RATE)
    rate = (rate - rate.min()) / (rate.max() - rate.min())
    return float(((overlap[:-1] + overlap[1:]) / 2 * (rate[:-1] - rate[1:])).sum())


def check_kinds(normal: int, defect: int) -> None:
    """Raise UndefinedMetric where there are no entries of a kind."""
    if not normal or not defect:
        raise UndefinedMetric(f"needs normal and defective entries, has {normal} and {defect}")


def step_between(lowest: Any, highest: Any) -> Any:
    """The step of the thresholds of AUPRO in steps, from scalars in the dtype of the scores.

    Raises:
        UndefinedMetric: if no steps lead from one to the other.
    """
    if not highest > lowest:
        raise UndefinedMetric("all scores are equal")
    if not np.isfinite(highest - lowest):
        raise UndefinedMetric("some scores are infinite")
    # In the type of the scores, which numpy 1 would leave for an integer's sake.
    step = (highest - lowest) / type(highest)(PRO_STEPS)
    if not step > 0:
        raise UndefinedMetric(f"scores from {lowest:.3g} to {highest:.3g} leave no room for {PRO_STEPS} thresholds")
    return step


def _round_down(thresholds: npt.NDArray[np.float64], dtype: np.dtype[Any]) -> FloatArray:
    """The largest numbers of ``dtype`` not above the thresholds: no score is between the two.

    Searching float32 scores for float64 thresholds would copy all scores.
    """
    rounded = thresholds.astype(dtype)
    return np.where(rounded > thresholds, np.nextafter(rounded, dtype.type(-np.inf)), rounded)


def image_metrics(labels: npt.ArrayLike, scores: npt.ArrayLike) -> tuple[dict[str, float], dict[str, str]]:
    """Image-level metrics: ``auroc_sp``, ``f1_sp``, ``ap_sp``.

    Args:
        labels: (N,), zero for normal images.
        scores: (N,), higher is more anomalous.

    Returns:
        The figures as fractions, and the reason for each that is undefined (one label only, NaN).
    """
    defective, values = np.asarray(labels) != 0, np.asarray(scores)
    if defective.shape != values.shape or defective.ndim != 1:
        raise ValueError(f"labels {defective.shape} and scores {values.shape} must be one-dimensional and alike")
    try:
        ranked = rank(values[~defective], values[defective])
    except UndefinedMetric as reason:
        return {}, dict.fromkeys(IMAGE_METRICS, f"image scores: {reason}")
    return {"auroc_sp": auroc(ranked), "f1_sp": f1_max(ranked), "ap_sp": average_precision(ranked)}, {}


def pixel_metrics(
    defects: DefectPixels, maps: FloatArray, mode: str = "steps"
) -> tuple[dict[str, float], dict[str, str]]:
    """Pixel-level metrics: ``auroc_px``, ``f1_px``, ``ap_px``, ``aupro``.

    Args:
        defects: of the class's (N, H, W) masks.
        maps: (N, H, W) anomaly maps, higher is more anomalous.
        mode: ``steps`` or ``exact``, how AUPRO is taken.

    Returns:
        The figures as fractions, and the reason for each that is undefined (no defect pixels, no
        normal pixels, NaN; in mode ``steps`` also constant maps and those that float cannot part).
    """
    figures, missing, _ = pixel_metrics_by_type(defects, maps, slice(None), (), mode)
    return figures, missing


def pixel_metrics_by_type(
    defects: DefectPixels, maps: FloatArray, rest: Images, types: Sequence[Images], mode: str = "steps"
) -> tuple[dict[str, float], dict[str, str], list[float | None]]:
    """As ``pixel_metrics``, and the AUPRO of each type of defect against the good images; pixels are sorted once.

    Args:
        defects, maps, mode: as for ``pixel_metrics``.
        rest: images of no type, the good ones.
        types: images of each type; with ``rest`` they are all images, each in one place.

    Returns:
        Besides, for each type the AUPRO of its images and ``rest`` alone, None where it is undefined.
    """
    if mode not in AUPRO_MODES:
        raise ValueError(f"AUPRO mode '{mode}' is unknown; use {' or '.join(AUPRO_MODES)}")
    if defects.mask.shape != maps.shape:
        raise ValueError(f"masks {defects.mask.shape} and maps {maps.shape} must have one shape")
    aupro = aupro_exact if mode == "exact" else aupro_steps
    good, *normal = sort_in_parts(*(maps[images][~defects.mask[images]] for images in (rest, *types)))

    def of_type(images: Images, parts: list[FloatArray]) -> float | None:
        own = defects.of_images(images)
        try:
            return aupro(rank_against([*good, *parts], maps[images][own.mask]), own.weight)
        except UndefinedMetric:
            return None

    of_types = [of_type(images, parts) for images, parts in zip(types, normal)]
    try:
        ranked = rank_against([*good, *chain(*normal)], maps[defects.mask])
    except UndefinedMetric as reason:
        return {}, dict.fromkeys(PIXEL_METRICS, f"pixel scores: {reason}"), of_types
    figures = {"auroc_px": auroc(ranked), "f1_px": f1_max(ranked), "ap_px": average_precision(ranked)}
    try:
        figures["aupro"] = aupro(ranked, defects.weight)
    except UndefinedMetric as reason:
        return figures, {"aupro": f"AUPRO in steps: {reason}"}, of_types
    return figures, {}, of_types
