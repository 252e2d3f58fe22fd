"""Metrics from histograms: near the exact ones, within their bounds, and the same however they are added up."""

from __future__ import annotations

import json
from functools import reduce
from operator import add

import numpy as np
import numpy.typing as npt
import pytest

from tests.tiny import GOLDEN
from winclip.metrics.exact import (
    AUPRO_MODES,
    PIXEL_METRICS,
    DefectPixels,
    UndefinedMetric,
    label_defects,
    pixel_metrics,
)
from winclip.metrics.histograms import Histograms, add_up, bounds, count_in_parts, histogram_metrics

CASES = np.load(GOLDEN / "metrics" / "cases.npz")
NAMES = sorted(json.loads((GOLDEN / "metrics" / "expected.json").read_text()))
FLOAT_ERROR = 1e-12

Maps = npt.NDArray[np.float32]


def random_case(seed: int, levels: int) -> tuple[DefectPixels, Maps]:
    generator = np.random.RandomState(seed)
    masks = generator.rand(5, 20, 17) > 0.93
    masks[0] = False
    maps = np.round((generator.rand(*masks.shape) + 0.4 * masks) * levels) / levels
    return label_defects(masks), maps.astype(np.float32)


def total(defects: DefectPixels, maps: Maps, highest: float) -> Histograms:
    return add_up(count_in_parts(defects, lambda images: maps[images], highest))


def assert_between(values: dict[str, float], limits: dict[str, tuple[float, float]]) -> None:
    for name, value in values.items():
        low, high = limits[name]
        assert low - FLOAT_ERROR <= value <= high + FLOAT_ERROR, name


@pytest.mark.parametrize("mode", AUPRO_MODES)
@pytest.mark.parametrize("highest", [1.0, 2.0])
@pytest.mark.parametrize("case", NAMES)
def test_golden_figures_are_met_to_a_ten_thousandth(case: str, highest: float, mode: str) -> None:
    defects, maps = label_defects(CASES[f"{case}_masks"]), CASES[f"{case}_maps"]
    exact = pixel_metrics(defects, maps, mode)[0]
    counted = total(defects, maps, highest)
    figures, missing = histogram_metrics(counted, mode)
    assert not missing
    assert figures == pytest.approx(exact, rel=0, abs=1e-4)
    assert_between(exact, bounds(counted, mode))


@pytest.mark.parametrize("mode", AUPRO_MODES)
def test_a_million_regions(mode: str) -> None:
    masks = np.zeros((4, 1200, 1200), bool)
    masks[:, ::2, ::2] = True
    masks[:, ::2, 1::8] = True  # regions of one pixel and of three
    generator = np.random.RandomState(0)
    maps = (0.3 + 0.08 * generator.standard_normal(masks.shape) + 0.06 * masks).astype(np.float32).clip(0, 1)
    defects = label_defects(masks)
    assert defects.regions.sum() > 1_000_000
    counted = total(defects, maps, 1.0)
    exact = pixel_metrics(defects, maps, mode)[0]
    assert histogram_metrics(counted, mode)[0] == pytest.approx(exact, rel=0, abs=1e-4)
    assert_between(exact, bounds(counted, mode))


@pytest.mark.parametrize("mode", AUPRO_MODES)
@pytest.mark.parametrize("bins", [6, 50, 4096])
@pytest.mark.parametrize("levels", [4, 60, 10**6])
def test_exact_and_binned_figures_lie_within_the_bounds(levels: int, bins: int, mode: str) -> None:
    for seed in range(8):
        defects, maps = random_case(seed, levels)
        counted = Histograms.of(defects, maps, 1.5, bins).total()
        limits = bounds(counted, mode)
        assert_between(pixel_metrics(defects, maps, mode)[0], limits)
        assert_between(histogram_metrics(counted, mode)[0], limits)


def test_histograms_add_up_over_images_in_any_order_and_parts() -> None:
    defects, maps = random_case(3, 10**6)
    whole = Histograms.of(defects, maps, 2.0).total()
    parts = [
        Histograms.of(label_defects(defects.mask[images]), maps[images], 2.0).total()
        for images in ([4], [0, 2], [3, 1])
    ]
    for order in ([0, 1, 2], [2, 0, 1]):
        added = reduce(add, (parts[number] for number in order))
        for name in ("normal", "defect", "lowest", "highest"):
            np.testing.assert_array_equal(getattr(added, name), getattr(whole, name))
        np.testing.assert_allclose(added.overlap, whole.overlap, atol=1e-12)
        assert histogram_metrics(added)[0] == pytest.approx(histogram_metrics(whole)[0], abs=1e-12)
    assert whole.overlap.sum() == pytest.approx(defects.regions.sum())
    with pytest.raises(ValueError, match="same bins"):
        whole + Histograms.of(defects, maps, 1.0).total()


def test_some_images_have_the_weights_of_their_own_regions() -> None:
    defects, _ = random_case(5, 10)
    for images in (slice(0, 1), slice(1, 3), slice(4, 9)):
        expected, part = label_defects(defects.mask[images]), defects.of_images(images)
        np.testing.assert_allclose(part.weight, expected.weight, rtol=1e-12)
        np.testing.assert_array_equal(part.regions, expected.regions)


def test_undefined_figures_have_the_reasons_of_the_exact_ones() -> None:
    masks = np.zeros((2, 4, 5), bool)
    maps = np.full(masks.shape, 0.5, np.float32)
    assert histogram_metrics(total(label_defects(masks), maps, 1.0)) == pixel_metrics(label_defects(masks), maps)
    masks[1, 0] = True
    defects = label_defects(masks)
    figures, missing = histogram_metrics(total(defects, maps, 1.0))
    exact, reasons = pixel_metrics(defects, maps)
    assert figures == pytest.approx(exact)
    assert missing == reasons
    maps[0, 0, 0] = np.nan
    with pytest.raises(UndefinedMetric, match="NaN"):
        total(defects, maps, 1.0)
    with pytest.raises(ValueError, match="one shape"):
        Histograms.of(defects, maps[:, :3], 1.0)
    with pytest.raises(ValueError, match="unknown"):
        histogram_metrics(total(defects, np.zeros_like(maps), 1.0), "loop")


def test_scores_outside_the_range_count_in_the_outermost_bins() -> None:
    defects, maps = random_case(2, 10**6)
    maps.flat[:2] = -0.5, 7
    counted = total(defects, maps, 1.0)
    assert int((counted.normal + counted.defect).sum()) == maps.size
    assert_between(pixel_metrics(defects, maps, "exact")[0], bounds(counted, "exact"))
    assert set(histogram_metrics(counted)[0]) == set(PIXEL_METRICS)
