"""Computes every figure again, the textbook way: scikit-learn, scikit-image, and a loop over thresholds.

Shares nothing with ``winclip.metrics.formulas`` but the number of thresholds and the limit of the false positive rate.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from skimage.measure import label, regionprops
from sklearn.metrics import auc, average_precision_score, precision_recall_curve, roc_auc_score, roc_curve

from evaluation.measuring import ClassMetrics
from evaluation.parts import ClassScores
from winclip.metrics.formulas import METRICS, PIXEL_METRICS, PRO_LIMIT, PRO_STEPS
from winclip.report.content import Table

TOLERANCE = 1e-6
# A threshold that is rounded differently passes a few pixels more or less; so does a bin.
WIDE_TOLERANCE = 1e-4

Array = npt.NDArray[np.float64]


def textbook_image_metrics(labels: npt.ArrayLike, scores: npt.ArrayLike) -> dict[str, float]:
    """The metrics of ``winclip.metrics.exact.image_metrics`` that are defined."""
    return {f"{name}_sp": value for name, value in _rank_metrics(np.asarray(labels) != 0, np.asarray(scores)).items()}


def textbook_pixel_metrics(
    masks: npt.NDArray[np.bool_], maps: npt.NDArray[np.float32], aupro: str = "steps"
) -> dict[str, float]:
    """The metrics of ``winclip.metrics.exact.pixel_metrics`` that are defined, from (N, H, W) masks."""
    defective, scores = np.asarray(masks) != 0, maps.astype(np.float64)
    figures = {f"{name}_px": value for name, value in _rank_metrics(defective.ravel(), scores.ravel()).items()}
    if figures:
        area = _aupro_exact(defective, scores) if aupro == "exact" else _aupro_steps(defective, maps)
        if area is not None:
            figures["aupro"] = area
    return figures


def _rank_metrics(truth: npt.NDArray[np.bool_], scores: npt.NDArray[np.floating]) -> dict[str, float]:
    if truth.all() or not truth.any() or np.isnan(scores).any():
        return {}
    scores = _finite(scores)
    precision, recall, _ = precision_recall_curve(truth, scores)
    f1 = 2 * precision * recall / np.maximum(precision + recall, np.finfo(float).tiny)
    return {
        "auroc": float(roc_auc_score(truth, scores)),
        "f1": float(f1.max()),
        "ap": float(average_precision_score(truth, scores)),
    }


def _finite(scores: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    """The scores, or numbers in the same order: scikit-learn refuses infinite ones."""
    return scores if np.isfinite(scores).all() else np.unique(scores, return_inverse=True)[1].astype(np.float64)


def _regions(masks: npt.NDArray[np.bool_]) -> list[tuple[npt.NDArray[np.intp], ...]]:
    """The pixels of every 8-connected region: positions of images, rows and columns."""
    return [
        (np.full(len(region.coords), number), *region.coords.T)
        for number, mask in enumerate(masks)
        for region in regionprops(label(mask, connectivity=2))
    ]


def _aupro_steps(masks: npt.NDArray[np.bool_], maps: npt.NDArray[np.float32]) -> float | None:
    """The area over 200 thresholds; a prediction is a score above the threshold."""
    lowest, highest = maps.min(), maps.max()
    if not (highest - lowest) / PRO_STEPS > 0 or not np.isfinite(highest - lowest):
        return None
    regions = [maps[region].astype(np.float64) for region in _regions(masks)]
    outside = maps[~masks].astype(np.float64)
    rates, overlaps = [], []
    for threshold in np.arange(lowest, highest, (highest - lowest) / PRO_STEPS, dtype=np.float64):
        rate = np.count_nonzero(outside > threshold) / len(outside)
        if rate < PRO_LIMIT:
            rates.append(rate)
            overlaps.append(np.mean([np.count_nonzero(inside > threshold) / len(inside) for inside in regions]))
    if len(set(rates)) < 2:
        return None
    return float(auc((np.array(rates) - min(rates)) / (max(rates) - min(rates)), overlaps))


def _aupro_exact(masks: npt.NDArray[np.bool_], maps: Array) -> float:
    """The area under scikit-learn's ROC curve in which every region weighs the same, all points kept."""
    weight = np.ones(masks.shape)
    for region in _regions(masks):
        weight[region] = 1 / len(region[0])
    scores = _finite(maps.ravel())
    rate, overlap, _ = roc_curve(masks.ravel(), scores, sample_weight=weight.ravel(), drop_intermediate=False)
    # The curve may rise vertically at the limit: its first point there counts.
    end = int(np.searchsorted(rate, PRO_LIMIT))
    at_limit = np.interp(PRO_LIMIT, rate[end - 1 : end + 1], overlap[end - 1 : end + 1])
    return float(auc(np.append(rate[:end], PRO_LIMIT), np.append(overlap[:end], at_limit)) / PRO_LIMIT)


@dataclass
class MetricCheck:
    """The largest difference between figures and their textbook values.

    Attributes:
        aupro: ``steps`` or ``exact``.
        metrics: ``exact`` or ``histogram``.
        worst: per metric, the largest difference so far, infinite if only one way defines the
            figure, and where it was found. A metric that is undefined everywhere is missing.
    """

    aupro: str
    metrics: str = "exact"
    worst: dict[str, tuple[float, str]] = field(default_factory=dict)

    def add(self, scored: ClassScores, measured: ClassMetrics) -> None:
        """Recompute and compare the figures of a class in a setting."""
        expected = textbook_image_metrics(scored.labels, scored.scores[measured.setting])
        if not isinstance(measured.defects, str):
            expected |= textbook_pixel_metrics(measured.defects.mask, measured.maps, self.aupro)
        for metric in {*expected, *measured.figures}:
            difference = abs(measured.figures.get(metric, math.inf) - expected.get(metric, math.inf))
            if math.isnan(difference):  # every comparison with it would be false
                difference = math.inf
            self._take(metric, difference, f"{scored.class_name}, {measured.setting.name}")

    def _take(self, metric: str, difference: float, place: str) -> None:
        if difference > self.worst.get(metric, (-1, ""))[0]:
            self.worst[metric] = difference, place

    def tolerance(self, metric: str) -> float:
        """The largest difference that is allowed."""
        binned = self.metrics == "histogram" and metric in PIXEL_METRICS
        return WIDE_TOLERANCE if binned or (metric == "aupro" and self.aupro == "steps") else TOLERANCE

    @property
    def passed(self) -> bool:
        """Whether no difference is larger than allowed."""
        return all(difference <= self.tolerance(metric) for metric, (difference, _) in self.worst.items())

    def table(self) -> Table:
        """The differences as they are printed."""
        rows = []
        for metric in METRICS:
            difference, place = self.worst.get(metric, (None, "-"))
            shown = "-" if difference is None else f"{difference:.1e}"
            rows.append([metric, shown, f"{self.tolerance(metric):.0e}", place])
        title = "figures computed again with scikit-learn and scikit-image, as fractions"
        return Table(title, ["metric", "largest difference", "allowed", "found at"], rows)
