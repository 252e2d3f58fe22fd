"""Exact metrics: the counts of ``winclip.metrics.formulas`` from sorted scores.

Pixel scores of defects are sorted. Normal scores are sorted in parts and in threads, since counts add up over parts. A
binary search joins them; no threshold is looped over. Every defect pixel has the weight one over the size of its
region, which turns the mean over regions into one cumulative sum.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain

import cv2
import numpy as np
import numpy.typing as npt

from winclip.metrics.formulas import (
    Counts,
    Figures,
    Float64,
    FloatArray,
    UndefinedMetric,
    check_mode,
    figures,
    step_thresholds,
    sum_above,
)

# Some of N images, as an index: positions ascending.
Images = slice | npt.NDArray[np.intp]

# Scores sorted by one thread at a time; smaller parts are faster to sort and slower to search.
_PART = 1 << 20


@dataclass(frozen=True)
class DefectPixels:
    """Masks of one class, labelled once for any number of scorings.

    Attributes:
        mask: (N, H, W) bool, True on defects.
        weights: for each image, float64 weights of its defect pixels, row by row: one over the region's size. They
            sum to the number of regions.
    """

    mask: npt.NDArray[np.bool_]
    weights: Sequence[Float64]

    @property
    def weight(self) -> Float64:
        """(D,) in the order of ``maps[mask]``."""
        return np.concatenate([np.empty(0), *self.weights])

    def of_images(self, images: Images) -> DefectPixels:
        """The defect pixels of some images."""
        return DefectPixels(self.mask[images], [self.weights[n] for n in np.arange(len(self.mask))[images]])


def label_defects(masks: npt.NDArray[np.bool_]) -> DefectPixels:
    """Find the 8-connected defect regions of (N, H, W) masks; every nonzero value is defect."""
    masks = np.asarray(masks) != 0
    weights = []
    for mask in masks:
        _, labels = cv2.connectedComponents(mask.view(np.uint8), connectivity=8)
        inside = labels[mask]
        weights.append(1 / np.bincount(inside)[inside])
    return DefectPixels(masks, weights)


def image_counts(labels: npt.ArrayLike, scores: npt.ArrayLike, draws: npt.ArrayLike | None = None) -> Counts:
    """Counts of image scores at every distinct score as an edge.

    Args:
        labels: (N,), zero for normal images.
        scores: (N,), higher is more anomalous.
        draws: (R, N), how often each row has each image; None: one row with every image once.

    Raises:
        UndefinedMetric: if a score is NaN.
    """
    defective, values = np.asarray(labels) != 0, np.asarray(scores)
    if defective.shape != values.shape or defective.ndim != 1:
        raise ValueError(f"labels {defective.shape} and scores {values.shape} must be one-dimensional, of equal length")
    if np.isnan(values).any():
        raise UndefinedMetric("some scores are NaN")
    order = np.argsort(values, kind="stable")
    ascending = values[order]
    starts = np.append(np.searchsorted(ascending, np.unique(ascending)), len(values))
    rows = np.ones((1, len(values))) if draws is None else np.asarray(draws)[:, order]
    normal, defect = (sum_above(rows * kind[order])[:, starts] for kind in (~defective, defective))
    return Counts(normal, defect, defect)


def sort_in_parts(*normal: FloatArray) -> list[list[FloatArray]]:
    """Sorted parts of each (M,) scores, all sorted in threads; no parts where there are no scores."""
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        parts = [np.array_split(scores, -(-len(scores) // _PART)) if len(scores) else [] for scores in normal]
        return [list(part) for part in [threads.map(np.sort, part) for part in parts]]


def joined_counts(parts: Sequence[FloatArray], defect: FloatArray, weight: Float64, mode: str) -> Counts:
    """Counts at every distinct score of a defect and right above it, and at the thresholds of ``steps``.

    Args:
        parts: normal scores from ``sort_in_parts``; parts of several calls add up.
        defect: (D,) scores of defects, in any order and of the same dtype.
        weight: (D,) weights, as in ``DefectPixels``.
        mode: ``steps`` or ``exact``, how AUPRO is computed.

    Raises:
        UndefinedMetric: if a score is NaN.
    """
    order = np.argsort(defect, kind="stable")
    ascending, overlap = defect[order], sum_above(weight[order])
    ends = [one for part in (ascending, *parts) if len(part) for one in (part[0], part[-1])]
    # NaN sorts last.
    if np.isnan(ends).any():
        raise UndefinedMetric("some scores are NaN")

    def at(edges: FloatArray) -> Float64:
        """(3, 1, E + 2) counts of each kind: all scores first, none last."""
        above = np.zeros((3, 1, len(edges) + 2))
        above[:, 0, 0] = sum(map(len, parts)), len(defect), overlap[0]
        for part in parts:
            above[0, 0, 1:-1] += len(part) - np.searchsorted(part, edges)
        below = np.searchsorted(ascending, edges)
        above[1:, 0, 1:-1] = len(defect) - below, overlap[below]
        return above

    steps = None
    if mode == "steps" and ends:
        thresholds = step_thresholds(np.array([min(ends)]), np.array([max(ends)]))[0]
        # In the dtype of the scores, which the search would otherwise copy: the smallest value above each threshold.
        rounded = thresholds.astype(defect.dtype)
        steps = Counts(*at(np.where(rounded > thresholds, rounded, _next(rounded)))[..., :-1])
    distinct = np.append(ascending[:-1][ascending[1:] != ascending[:-1]], ascending[-1:])
    return Counts(*at(np.column_stack([distinct, _next(distinct)]).ravel()))._replace(steps=steps)


def _next(scores: FloatArray) -> FloatArray:
    """The next larger number for each score."""
    return np.nextafter(scores, scores.dtype.type(np.inf))


def image_metrics(labels: npt.ArrayLike, scores: npt.ArrayLike) -> Figures:
    """Image-level metrics of (N,) labels, zero for normal images, and scores; higher is more anomalous.

    Returns:
        ``auroc_sp``, ``f1_sp`` and ``ap_sp`` as fractions, and the reason for each undefined one (one label only,
        NaN).
    """
    return figures("image", lambda: image_counts(labels, scores))


def pixel_metrics(defects: DefectPixels, maps: FloatArray, mode: str = "steps") -> Figures:
    """Pixel-level metrics: ``auroc_px``, ``f1_px``, ``ap_px``, ``aupro``.

    Args:
        defects: defects of the class's (N, H, W) masks.
        maps: (N, H, W) anomaly maps, higher is more anomalous.
        mode: ``steps`` or ``exact``, how AUPRO is computed.

    Returns:
        The figures as fractions, and the reason for each undefined one (no defect pixels, no
        normal pixels, NaN; in mode ``steps`` also constant maps and maps that float cannot separate).
    """
    return pixel_metrics_by_type(defects, maps, mode, slice(None), ())[0]


def pixel_metrics_by_type(
    defects: DefectPixels, maps: FloatArray, mode: str, rest: Images, types: Sequence[Images]
) -> list[Figures]:
    """``pixel_metrics``, then the same metrics for each defect type against the good images; pixels are sorted once.

    Args:
        defects, maps, mode: as for ``pixel_metrics``.
        rest: images without a type: the good ones.
        types: images of each type; together with ``rest`` they contain every image once.
    """
    check_mode(mode)
    if defects.mask.shape != maps.shape:
        raise ValueError(f"masks {defects.mask.shape} and maps {maps.shape} must have one shape")
    good, *normal = sort_in_parts(*(maps[images][~defects.mask[images]] for images in (rest, *types)))

    def against(parts: Sequence[FloatArray], images: Images) -> Figures:
        own = defects.of_images(images)
        return figures("pixel", lambda: joined_counts(parts, maps[images][own.mask], own.weight, mode))

    of_types = [against([*good, *parts], images) for images, parts in zip(types, normal)]
    return [against([*good, *chain(*normal)], slice(None)), *of_types]
