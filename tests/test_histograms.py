"""Metrics from histograms: near the exact ones, within their bounds, and the same however they are added up."""

from __future__ import annotations

import json

import numpy as np
import numpy.typing as npt
import pytest

from tests.tiny import GOLDEN
from winclip.metrics.exact import DefectPixels, label_defects, pixel_metrics
from winclip.metrics.formulas import AUPRO_MODES, Figures, UndefinedMetric, figures
from winclip.metrics.histograms import BINS, Histograms, bounds, count_pixels

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


def total(defects: DefectPixels, maps: Maps, highest: float, bins: int = BINS) -> Histograms:
    return count_pixels(defects, lambda images: maps[images], highest, np.ones((1, len(maps))), bins)


def binned(counted: Histograms, mode: str = "steps") -> Figures:
    return figures("pixel", lambda: counted.counts(mode))


def assert_between(values: dict[str, float], limits: dict[str, tuple[float, float]]) -> None:
    for name, value in values.items():
        low, high = limits[name]
        assert low - FLOAT_ERROR <= value <= high + FLOAT_ERROR, name


@pytest.mark.parametrize("mode", AUPRO_MODES)
@pytest.mark.parametrize("case", NAMES)
def test_golden_figures_are_met_to_a_ten_thousandth(case: str, mode: str) -> None:
    defects, maps = label_defects(CASES[f"{case}_masks"]), CASES[f"{case}_maps"]
    exact = pixel_metrics(defects, maps, mode)[0]
    counted = total(defects, maps, 2.0)
    found, missing = binned(counted, mode)
    assert not missing
    assert found == pytest.approx(exact, rel=0, abs=1e-4)
    assert_between(exact, bounds(counted, mode))


def test_a_million_regions() -> None:
    masks = np.zeros((4, 1200, 1200), bool)
    masks[:, ::2, ::2] = True
    masks[:, ::2, 1::8] = True  # regions of one pixel and of three
    generator = np.random.RandomState(0)
    maps = (0.3 + 0.08 * generator.standard_normal(masks.shape) + 0.06 * masks).astype(np.float32).clip(0, 1)
    defects = label_defects(masks)
    assert defects.weight.sum() > 1_000_000
    counted = total(defects, maps, 1.0)
    for mode in AUPRO_MODES:
        exact = pixel_metrics(defects, maps, mode)[0]
        assert binned(counted, mode)[0] == pytest.approx(exact, rel=0, abs=1e-4)
        assert_between(exact, bounds(counted, mode))


@pytest.mark.parametrize("bins", [6, 50, 4096])
def test_exact_and_binned_figures_lie_within_the_bounds(bins: int) -> None:
    for seed, levels in enumerate([4, 60, 10**6] * 8):
        defects, maps = random_case(seed, levels)
        counted = total(defects, maps, 1.5, bins)
        for mode in AUPRO_MODES:
            limits = bounds(counted, mode)
            assert_between(pixel_metrics(defects, maps, mode)[0], limits)
            assert_between(binned(counted, mode)[0], limits)


def test_histograms_add_up_over_images_in_any_order_and_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    defects, maps = random_case(3, 10**6)
    whole = total(defects, maps, 2.0)
    monkeypatch.setattr("winclip.metrics.histograms._IMAGES_AT_ONCE", 2)
    order = [4, 0, 2, 3, 1]
    mixed = label_defects(defects.mask[order])
    images = count_pixels(mixed, lambda chosen: maps[order][chosen], 2.0, np.eye(5))
    for added in (total(mixed, maps[order], 2.0), images.sums(np.ones((1, 5)))):
        np.testing.assert_array_equal(added.above[:2], whole.above[:2])
        np.testing.assert_allclose(added.above[2], whole.above[2], atol=1e-12)
        assert (added.lowest[0], added.highest[0]) == (maps.min(), maps.max())
    twice = images.sums(np.array([[2.0, 0, 1, 0, 0]])).counts("exact")
    chosen = [4, 4, 2]
    alone = total(label_defects(defects.mask[chosen]), maps[chosen], 2.0).counts("exact")
    for one, other in zip(twice[:3], alone[:3]):
        np.testing.assert_allclose(one, other, atol=1e-12)


def test_undefined_figures_have_the_reasons_of_the_exact_ones() -> None:
    masks = np.zeros((2, 4, 5), bool)
    maps = np.full(masks.shape, 0.5, np.float32)
    assert binned(total(label_defects(masks), maps, 1.0)) == pixel_metrics(label_defects(masks), maps)
    masks[1, 0] = True
    defects = label_defects(masks)
    found, missing = binned(total(defects, maps, 1.0))
    exact, reasons = pixel_metrics(defects, maps)
    assert found == pytest.approx(exact)
    assert missing == reasons
    maps[0, 0, 0] = np.nan
    with pytest.raises(UndefinedMetric, match="NaN"):
        total(defects, maps, 1.0)
    with pytest.raises(ValueError, match=r"\(2, 3, 5\)"):
        total(defects, maps[:, :3], 1.0)
    with pytest.raises(ValueError, match="loop"):
        binned(total(defects, np.zeros_like(maps), 1.0), "loop")


def test_scores_outside_the_range_count_in_the_outermost_bins() -> None:
    defects, maps = random_case(2, 10**6)
    maps.flat[:2] = -0.5, 7
    counted = total(defects, maps, 1.0)
    assert counted.above[:2, 0, 0].sum() == maps.size
    assert_between(pixel_metrics(defects, maps, "exact")[0], bounds(counted, "exact"))
    assert not binned(counted)[1]
