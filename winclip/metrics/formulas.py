"""The metrics of the published tables: the registry that everything else reads, and every formula.

A formula takes counts of normal and defective scores at and above ascending edges. Scores between two neighbouring
edges count as ties: figures are exact with an edge at every distinct defect score and right above it
(``winclip.metrics.exact``), and exact for scores rounded to bins with bin edges (``winclip.metrics.histograms``).
Many rows are computed at once, so resampling in ``winclip.metrics.bootstrap`` is cheap.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.floating]
Float64 = npt.NDArray[np.float64]
Group = Literal["pixel", "image"]
# Metrics as fractions, and the reason for each undefined one.
Figures = tuple[dict[str, float], dict[str, str]]

AUPRO_MODES = ("steps", "exact")
PRO_LIMIT = 0.3
PRO_STEPS = 200


class UndefinedMetric(ValueError):
    """The metric has no value on this input; the message says why."""


class Counts(NamedTuple):
    """R rows of counts of scores at and above each of E ascending edges: the first edge counts all, the last none.

    Attributes:
        normal, defect: (R, E) float64.
        overlap: (R, E) float64, counts of defect pixels, each weighted by one over the size of its region.
        steps: the same at the thresholds of AUPRO in steps, after a first edge below all scores; None where AUPRO
            is exact.
    """

    normal: Float64
    defect: Float64
    overlap: Float64
    steps: Counts | None = None


def auroc(counts: Counts) -> Float64:
    """(R,) areas under the ROC curve in [0, 1]: ties between the two kinds count half."""
    pairs = 2 * counts.normal[:, 0] * counts.defect[:, 0]
    return 1 + (np.diff(counts.defect) * (counts.normal[:, :-1] + counts.normal[:, 1:])).sum(axis=1) / pairs


def average_precision(counts: Counts) -> Float64:
    """(R,) step-wise areas under the precision-recall curve in (0, 1], as scikit-learn's average_precision_score."""
    found = counts.defect[:, :-1]
    precision = found / np.maximum(found + counts.normal[:, :-1], 1)
    return -(np.diff(counts.defect) * precision).sum(axis=1) / found[:, 0]


def f1_max(counts: Counts) -> Float64:
    """(R,) largest F1 over all edges, in (0, 1]."""
    f1: Float64 = 2 * counts.defect / (counts.defect + counts.normal + counts.defect[:, :1])
    return f1.max(axis=1)


def aupro(counts: Counts) -> Float64:
    """(R,) areas under the per-region overlap curve in [0, 1], in the mode that the counts were made for."""
    return aupro_exact(counts) if counts.steps is None else aupro_steps(counts.steps)


def aupro_exact(counts: Counts) -> Float64:
    """(R,) areas under the per-region overlap curve up to a false positive rate of 0.3, divided by 0.3.

    The curve has a point at every edge and is integrated exactly, with linear interpolation between points and at 0.3.
    A defect pixel raises it by its weight at the false positive rate where it is found; among ties with normal pixels
    the curve rises linearly.
    """
    rate = counts.normal / counts.normal[:, :1]
    limited = np.minimum(rate, PRO_LIMIT)
    inside, width = -np.diff(limited), -np.diff(rate)
    # The part of the ramp inside the limit, then the plateau after it.
    reached = np.divide(inside, width, out=np.zeros_like(width), where=width > 0)
    area = reached * inside / 2 + (PRO_LIMIT - limited[:, :-1])
    return -(np.diff(counts.overlap) * area).sum(axis=1) / (PRO_LIMIT * counts.overlap[:, 0])


def aupro_steps(counts: Counts) -> Float64:
    """(R,) areas under the per-region overlap curve as the reference reimplementation computes them.

    Points with a false positive rate below 0.3 are kept, their rates are rescaled to [0, 1] by their own minimum and
    maximum, and the trapezoid rule is applied. NaN where all kept points have one rate.

    Args:
        counts: at ``step_thresholds``, after a first edge below all scores.
    """
    rate, overlap = (above[:, 1:] / above[:, :1] for above in (counts.normal, counts.overlap))
    kept = rate < PRO_LIMIT
    area = -((overlap[:, :-1] + overlap[:, 1:]) / 2 * np.diff(rate) * kept[:, :-1]).sum(axis=1)
    span = np.where(kept, rate, 0).max(axis=1) - np.where(kept, rate, 1).min(axis=1)
    return np.where(span > 0, area / span, np.nan)


def step_thresholds(lowest: FloatArray, highest: FloatArray) -> Float64:
    """(R, T) thresholds of AUPRO in steps, ascending from the lowest score; a prediction is a score above them.

    T is 200, or a few more by rounding; rows with fewer repeat their last. NaN where a score is infinite.

    Args:
        lowest, highest: (R,) lowest and highest of all scores, in their dtype.
    """
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        span = highest - lowest
        step = span / PRO_STEPS
        last = np.nan_to_num(np.ceil(span / step) - 1, nan=0, posinf=0)
        # numpy.arange computes the first step in the dtype of the scores, and repeats it.
        wide = (lowest + step).astype(np.float64) - lowest
        return lowest[:, None] + np.minimum(np.arange(last.max() + 1), last[:, None]) * wide[:, None]


def sum_above(numbers: npt.NDArray[Any]) -> Float64:
    """(..., B) counts in ascending bins to (..., B + 1) counts from each edge upwards; the last is 0."""
    above = np.zeros((*numbers.shape[:-1], numbers.shape[-1] + 1))
    np.cumsum(numbers[..., ::-1], axis=-1, out=above[..., -2::-1])
    return above


@dataclass(frozen=True)
class Metric:
    """One column of all tables and files.

    Attributes:
        name: name of the column.
        title: its title in a paper.
        group: ``pixel`` or ``image``.
        formula: (R,) fractions from counts of rows with both kinds of scores; NaN where undefined.
        meaning: a short description.
        of_types: whether ``types.csv`` has it for each defect type.
        undefined: why it may be undefined although there are both kinds of scores.
    """

    name: str
    title: str
    group: Group
    formula: Callable[[Counts], Float64]
    meaning: str
    of_types: bool = False
    undefined: str = ""


# In the order of the published tables.
REGISTRY = (
    Metric("auroc_px", "AUROC", "pixel", auroc, "how often a defect pixel scores above a normal one"),
    Metric("f1_px", "F1-max", "pixel", f1_max, "best F1 of pixels"),
    Metric("ap_px", "AP", "pixel", average_precision, "average precision of pixels"),
    Metric(
        "aupro",
        "AUPRO",
        "pixel",
        aupro,
        "share found of each defect region, averaged up to 30 % false positives",
        of_types=True,
        undefined="AUPRO in steps: the kept thresholds have one false positive rate",
    ),
    Metric("auroc_sp", "AUROC", "image", auroc, "how often a defective image scores above a good one", of_types=True),
    Metric("f1_sp", "F1-max", "image", f1_max, "best F1 of images"),
    Metric("ap_sp", "AP", "image", average_precision, "average precision of images"),
)
METRICS = tuple(metric.name for metric in REGISTRY)
PIXEL_METRICS = tuple(metric.name for metric in REGISTRY if metric.group == "pixel")
# In the order of types.csv, image metrics first.
TYPE_METRICS = tuple(m.name for m in sorted(REGISTRY, key=lambda metric: metric.group) if m.of_types)


def evaluate(group: Group, counts: Counts) -> dict[str, Float64]:
    """(R,) fractions of each metric of a group; NaN where a row lacks a kind of scores, or the metric is undefined."""
    known = (counts.normal[:, 0] > 0) & (counts.defect[:, 0] > 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return {m.name: np.where(known, m.formula(counts), np.nan) for m in REGISTRY if m.group == group}


def figures(group: Group, count: Callable[[], Counts]) -> Figures:
    """The metrics of a group as fractions, and the reason for each undefined one.

    Args:
        group: ``pixel`` or ``image``.
        count: returns counts of one row, or raises UndefinedMetric.
    """
    metrics = [metric for metric in REGISTRY if metric.group == group]
    try:
        values = evaluate(group, check_kinds(count()))
    except UndefinedMetric as reason:
        return {}, {metric.name: f"{group} scores: {reason}" for metric in metrics}
    missing = {metric.name: metric.undefined for metric in metrics if np.isnan(values[metric.name][0])}
    return {name: float(value[0]) for name, value in values.items() if name not in missing}, missing


def chance(group: Group, defective: npt.ArrayLike) -> dict[str, float]:
    """The defined metrics at chance level, as fractions: the metrics of a constant score.

    Args:
        group: ``pixel`` or ``image``.
        defective: of any shape, zero for normal ones.
    """
    defect = np.count_nonzero(defective)
    found = np.array([[defect, 0.0]])
    return figures(group, lambda: Counts(np.array([[np.size(defective) - defect, 0.0]]), found, found))[0]


def check_kinds(counts: Counts) -> Counts:
    """Raise UndefinedMetric where the first row lacks one kind of scores."""
    normal, defect = int(counts.normal[0, 0]), int(counts.defect[0, 0])
    if not normal or not defect:
        raise UndefinedMetric(f"needs normal and defective entries, has {normal} and {defect}")
    return counts


def check_mode(mode: str) -> None:
    """Raise ValueError for an unknown mode of AUPRO."""
    if mode not in AUPRO_MODES:
        raise ValueError(f"AUPRO mode '{mode}' is unknown; use {' or '.join(AUPRO_MODES)}")
