"""The metrics against golden figures, a curve of every region, and degenerate input; more in test_check_metrics.py."""

from __future__ import annotations

import json

import numpy as np
import numpy.typing as npt
import pytest
from skimage.measure import label
from sklearn.metrics import auc, roc_curve

from tests.tiny import GOLDEN
from winclip.metrics.exact import image_metrics, label_defects, pixel_metrics, pixel_metrics_by_type
from winclip.metrics.formulas import AUPRO_MODES, METRICS, PIXEL_METRICS, TYPE_METRICS, chance, step_thresholds

EXPECTED = json.loads((GOLDEN / "metrics" / "expected.json").read_text())
CASES = np.load(GOLDEN / "metrics" / "cases.npz")


@pytest.mark.parametrize("case", sorted(EXPECTED))
def test_golden_figures(case: str) -> None:
    expected = dict(EXPECTED[case])
    defects, maps = label_defects(CASES[f"{case}_masks"]), CASES[f"{case}_maps"]
    figures = image_metrics(CASES[f"{case}_labels"], CASES[f"{case}_scores"])[0] | pixel_metrics(defects, maps)[0]
    assert figures.pop("aupro") == pytest.approx(expected.pop("aupro"), abs=1e-6)
    figures["aupro_exact"] = pixel_metrics(defects, maps, "exact")[0]["aupro"]
    assert {name: figures[name] for name in expected} == pytest.approx(expected, abs=1e-9)


def test_the_registry_has_the_published_columns_in_their_order() -> None:
    published = ("auroc_px", "f1_px", "ap_px", "aupro", "auroc_sp", "f1_sp", "ap_sp")
    assert tuple(name for name in METRICS if name in published) == published
    assert TYPE_METRICS == ("auroc_sp", "aupro")


def random_case(seed: int, levels: int) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.float32]]:
    generator = np.random.RandomState(seed)
    masks = generator.rand(5, 20, 17) > 0.93
    masks[0] = False
    maps = np.round((generator.rand(*masks.shape) + 0.4 * masks) * levels) / levels
    return masks, maps.astype(np.float32)


@pytest.mark.parametrize("levels", [4, 60, 10**6])
def test_exact_aupro_is_the_mean_over_curves_of_every_region(levels: int) -> None:
    masks, maps = random_case(levels % 7, levels)
    areas = []
    for number, mask in enumerate(masks):
        labels = label(mask, connectivity=2)
        for region in range(1, labels.max() + 1):
            inside, outside = maps[number][labels == region], maps[~masks]
            truth = np.repeat([1, 0], [len(inside), len(outside)])
            rate, overlap, _ = roc_curve(truth, np.append(inside, outside), drop_intermediate=False)
            below = rate < 0.3
            at_limit = np.interp(0.3, rate, overlap)
            areas.append(auc(np.append(rate[below], 0.3), np.append(overlap[below], at_limit)) / 0.3)
    figures, missing = pixel_metrics(label_defects(masks), maps, "exact")
    assert not missing
    assert figures["aupro"] == pytest.approx(np.mean(areas), abs=1e-9)


def test_thresholds_of_steps_are_those_of_numpy_arange() -> None:
    generator = np.random.RandomState(0)
    # In the last, float32 is so coarse that steps are rounded, and their number with them.
    for scale in (1, 1e-3, 1e-42):
        for lowest, highest in (np.array([[0, 0.4]]) + 0.6 * generator.rand(200, 2)).astype(np.float32) * scale:
            ends = np.array([[lowest], [highest]], np.float32)
            if (step := (ends[1, 0] - ends[0, 0]) / np.float32(200)) > 0:
                expected = np.arange(ends[0, 0], ends[1, 0], step, dtype=np.float64)
                np.testing.assert_array_equal(step_thresholds(*ends)[0], expected)


def test_every_region_weighs_the_same() -> None:
    masks = np.zeros((2, 8, 8), bool)
    masks[0, 0, 0] = masks[0, 4:8, 4:8] = masks[1, 2, 2] = masks[1, 3, 3] = True
    defects = label_defects(masks)
    np.testing.assert_allclose(defects.weight, [1, *[1 / 16] * 16, *[1 / 2] * 2])
    np.testing.assert_allclose(defects.of_images(slice(1, 2)).weight, [1 / 2] * 2)


def test_figures_of_a_type_are_those_of_its_images_alone() -> None:
    masks, maps = random_case(3, 10**6)
    good, types = np.array([0]), [np.array([1, 3]), np.array([2, 4])]
    for mode in ("steps", "exact"):
        whole, *of_types = pixel_metrics_by_type(label_defects(masks), maps, mode, good, types)
        assert whole == pixel_metrics(label_defects(masks), maps, mode)
        for images, figures in zip(types, of_types):
            chosen = np.append(good, images)
            assert figures == pixel_metrics(label_defects(masks[chosen]), maps[chosen], mode)


def test_masks_of_zeros_have_no_pixel_metrics_and_say_why() -> None:
    figures, missing = pixel_metrics(label_defects(np.zeros((2, 4, 4), bool)), np.ones((2, 4, 4), np.float32))
    assert figures == {}
    assert set(missing) == set(PIXEL_METRICS)
    assert "32 and 0" in missing["aupro"]


@pytest.mark.parametrize(("label_value", "counts"), [(0, "3 and 0"), (1, "0 and 3")])
def test_one_label_has_no_image_metrics_and_says_why(label_value: int, counts: str) -> None:
    figures, missing = image_metrics([label_value] * 3, [0.1, 0.2, 0.3])
    assert figures == {}
    assert set(missing) == {*METRICS} - {*PIXEL_METRICS}
    assert counts in missing["auroc_sp"]


def test_constant_maps() -> None:
    masks = np.zeros((1, 4, 5), bool)
    masks[0, 0] = True
    maps = np.full(masks.shape, 0.5, np.float32)
    figures, missing = pixel_metrics(label_defects(masks), maps)
    assert [figures[name] for name in ("auroc_px", "ap_px", "f1_px")] == pytest.approx([0.5, 0.25, 0.4])
    assert [*missing] == ["aupro"]
    # One tie from rate 0 to 1: a straight line, taken below 0.3.
    assert pixel_metrics(label_defects(masks), maps, "exact")[0]["aupro"] == pytest.approx(0.15)


@pytest.mark.parametrize("mode", AUPRO_MODES)
def test_random_scores_have_the_figures_of_chance(mode: str) -> None:
    generator = np.random.RandomState(0)
    masks, maps = generator.rand(20, 100, 100) < 0.01, generator.rand(20, 100, 100)
    expected = chance("pixel", masks)
    share = masks.mean()
    assert expected == pytest.approx({"auroc_px": 0.5, "f1_px": 2 * share / (1 + share), "ap_px": share, "aupro": 0.15})
    assert pixel_metrics(label_defects(masks), maps, mode)[0] == pytest.approx(expected, abs=0.01)
    assert chance("image", [0, 0]) == {}


def test_maps_whose_span_float_cannot_part() -> None:
    masks = np.zeros((1, 4, 5), bool)
    masks[0, 0] = True
    for maps in (np.where(masks, np.float32(1e-45), np.float32(0)), np.where(masks, 5e-324, 0.0)):
        figures, missing = pixel_metrics(label_defects(masks), maps)
        assert set(figures.values()) == {1}
        assert [*missing] == ["aupro"]
        assert pixel_metrics(label_defects(masks), maps, "exact")[0]["aupro"] == 1


@pytest.mark.parametrize("row", [0, 1])
def test_nan_scores_are_reported(row: int) -> None:
    masks = np.zeros((1, 4, 4), bool)
    masks[0, 0] = True
    maps = np.ones(masks.shape, np.float32)
    maps[0, row, 2] = np.nan
    figures, missing = pixel_metrics(label_defects(masks), maps)
    assert figures == {}
    assert set(missing) == set(PIXEL_METRICS) and "NaN" in missing["auroc_px"]
    assert image_metrics([0, 1], [np.nan, 0.5])[0] == {}


def test_infinite_scores_rank_like_large_ones() -> None:
    assert image_metrics([0, 0, 1, 1], [-np.inf, 0.5, 0.4, np.inf])[0]["auroc_sp"] == pytest.approx(0.75)
    masks, maps = random_case(7, 50)
    finite = pixel_metrics(label_defects(masks), maps)[0]
    maps[np.unravel_index(maps.argmax(), maps.shape)] = np.inf
    figures, missing = pixel_metrics(label_defects(masks), maps)
    assert [*missing] == ["aupro"]
    assert figures == {name: value for name, value in finite.items() if name != "aupro"}


def test_order_of_images_changes_nothing() -> None:
    masks, maps = random_case(7, 50)
    order = [3, 1, 4, 0, 2]
    first, second = (pixel_metrics(label_defects(masks[o]), maps[o])[0] for o in (slice(None), order))
    assert first == pytest.approx(second, abs=1e-12)


def test_shapes_are_checked() -> None:
    with pytest.raises(ValueError, match="one-dimensional"):
        image_metrics([0, 1], [0.5])
    with pytest.raises(ValueError, match="one shape"):
        pixel_metrics(label_defects(np.zeros((1, 4, 4), bool)), np.zeros((1, 5, 4), np.float32))
    with pytest.raises(ValueError, match="unknown"):
        pixel_metrics(label_defects(np.zeros((1, 4, 4), bool)), np.zeros((1, 4, 4), np.float32), "loop")
