"""The metrics against golden figures, scikit-learn, a plain loop, and degenerate input."""

from __future__ import annotations

import json

import numpy as np
import numpy.typing as npt
import pytest
from skimage.measure import label
from sklearn.metrics import auc, average_precision_score, precision_recall_curve, roc_auc_score, roc_curve

from tests.tiny import GOLDEN
from winclip.metrics.exact import IMAGE_METRICS, PIXEL_METRICS, image_metrics, label_defects, pixel_metrics

EXPECTED = json.loads((GOLDEN / "metrics" / "expected.json").read_text())
CASES = np.load(GOLDEN / "metrics" / "cases.npz")


@pytest.mark.parametrize("case", sorted(EXPECTED))
def test_golden_figures(case: str) -> None:
    expected = dict(EXPECTED[case])
    defects, maps = label_defects(CASES[f"{case}_masks"]), CASES[f"{case}_maps"]
    figures = image_metrics(CASES[f"{case}_labels"], CASES[f"{case}_scores"])[0] | pixel_metrics(defects, maps)[0]
    assert figures.pop("aupro") == pytest.approx(expected.pop("aupro"), abs=1e-6)
    figures["aupro_exact"] = pixel_metrics(defects, maps, "exact")[0]["aupro"]
    assert figures == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("levels", [3, 40, 10**6])
@pytest.mark.parametrize("seed", range(4))
def test_figures_agree_with_scikit_learn(seed: int, levels: int) -> None:
    generator = np.random.RandomState(seed)
    labels = np.append([0, 1], generator.randint(0, 2, 300))
    scores = np.round((generator.rand(302) + 0.3 * labels) * levels) / levels
    precision, recall, _ = precision_recall_curve(labels, scores)
    figures, missing = image_metrics(labels, scores)
    assert not missing
    assert figures["auroc_sp"] == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    assert figures["ap_sp"] == pytest.approx(average_precision_score(labels, scores), abs=1e-12)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-300)
    assert figures["f1_sp"] == pytest.approx(f1.max(), abs=1e-12)


def random_case(seed: int, levels: int) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.float32]]:
    generator = np.random.RandomState(seed)
    masks = generator.rand(5, 20, 17) > 0.93
    masks[0] = False
    maps = np.round((generator.rand(*masks.shape) + 0.4 * masks) * levels) / levels
    return masks, maps.astype(np.float32)


def plain_regions(masks: npt.NDArray[np.bool_]) -> list[npt.NDArray[np.bool_]]:
    """One mask of the whole stack per 8-connected region."""
    regions = []
    for number, mask in enumerate(masks):
        labels = label(mask, connectivity=2)
        for region in range(1, labels.max() + 1):
            alone = np.zeros_like(masks)
            alone[number] = labels == region
            regions.append(alone)
    return regions


@pytest.mark.parametrize("levels", [4, 60, 10**6])
@pytest.mark.parametrize("seed", range(3))
def test_exact_aupro_agrees_with_a_curve_per_region(seed: int, levels: int) -> None:
    masks, maps = random_case(seed, levels)
    areas = []
    for region in plain_regions(masks):
        used = region | ~masks
        rate, overlap, _ = roc_curve(region[used], maps[used], drop_intermediate=False)
        inside = rate < 0.3
        at_limit = np.interp(0.3, rate, overlap)
        areas.append(auc(np.append(rate[inside], 0.3), np.append(overlap[inside], at_limit)) / 0.3)
    figures, missing = pixel_metrics(label_defects(masks), maps, "exact")
    assert not missing
    assert figures["aupro"] == pytest.approx(np.mean(areas), abs=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_stepped_aupro_agrees_with_a_loop_over_thresholds(seed: int) -> None:
    masks, maps = random_case(seed, 10**6)
    regions = plain_regions(masks)
    rates, overlaps = [], []
    for threshold in np.arange(maps.min(), maps.max(), (maps.max() - maps.min()) / 200, dtype=np.float64):
        predicted = maps > threshold
        rates.append(predicted[~masks].mean())
        overlaps.append(np.mean([predicted[region].mean() for region in regions]))
    kept = np.array(rates) < 0.3
    rate = np.array(rates)[kept]
    rate = (rate - rate.min()) / (rate.max() - rate.min())
    figures, _ = pixel_metrics(label_defects(masks), maps)
    assert figures["aupro"] == pytest.approx(auc(rate, np.array(overlaps)[kept]), abs=1e-6)


def test_every_region_weighs_the_same() -> None:
    masks = np.zeros((2, 8, 8), bool)
    masks[0, 0, 0] = masks[0, 4:8, 4:8] = masks[1, 2, 2] = masks[1, 3, 3] = True
    weight = label_defects(masks).weight
    np.testing.assert_allclose(weight, [1 / 3, *[1 / 48] * 16, *[1 / 6] * 2])


def test_masks_of_zeros_have_no_pixel_metrics_and_say_why() -> None:
    figures, missing = pixel_metrics(label_defects(np.zeros((2, 4, 4), bool)), np.ones((2, 4, 4), np.float32))
    assert figures == {}
    assert set(missing) == set(PIXEL_METRICS)
    assert "has 32 and 0" in missing["aupro"]


@pytest.mark.parametrize("label_value", [0, 1])
def test_one_label_has_no_image_metrics_and_says_why(label_value: int) -> None:
    figures, missing = image_metrics([label_value] * 3, [0.1, 0.2, 0.3])
    assert figures == {}
    assert set(missing) == set(IMAGE_METRICS)
    assert "needs normal and defective entries" in missing["auroc_sp"]


def test_constant_maps() -> None:
    masks = np.zeros((1, 4, 5), bool)
    masks[0, 0] = True
    maps = np.full(masks.shape, 0.5, np.float32)
    figures, missing = pixel_metrics(label_defects(masks), maps)
    assert figures == pytest.approx({"auroc_px": 0.5, "ap_px": 0.25, "f1_px": 0.4})
    assert missing == {"aupro": "AUPRO in steps: all scores are equal"}
    # One tie from rate 0 to 1: a straight line, of which the part below 0.3 is taken.
    assert pixel_metrics(label_defects(masks), maps, "exact")[0]["aupro"] == pytest.approx(0.15)


def test_maps_whose_span_float_cannot_part() -> None:
    masks = np.zeros((1, 4, 5), bool)
    masks[0, 0] = True
    for maps in (np.where(masks, np.float32(1e-45), np.float32(0)), np.where(masks, 5e-324, 0.0)):
        figures, missing = pixel_metrics(label_defects(masks), maps)
        assert figures == {"auroc_px": 1, "f1_px": 1, "ap_px": 1}
        assert (
            missing["aupro"].startswith("AUPRO in steps: scores from 0 to ") and "no room for 200" in missing["aupro"]
        )
        assert pixel_metrics(label_defects(masks), maps, "exact")[0]["aupro"] == 1


@pytest.mark.parametrize("defective", [True, False])
def test_nan_scores_are_reported(defective: bool) -> None:
    masks = np.zeros((1, 4, 4), bool)
    masks[0, 0] = True
    maps = np.ones(masks.shape, np.float32)
    maps[0, 0 if defective else 1, 2] = np.nan
    for mode in ("steps", "exact"):
        figures, missing = pixel_metrics(label_defects(masks), maps, mode)
        assert figures == {}
        assert missing["auroc_px"] == "pixel scores: some scores are NaN"


def test_infinite_scores_rank_like_large_ones() -> None:
    assert image_metrics([0, 0, 1, 1], [-np.inf, 0.5, 0.4, np.inf])[0]["auroc_sp"] == pytest.approx(0.75)
    masks, maps = random_case(7, 50)
    finite = pixel_metrics(label_defects(masks), maps)[0]
    maps[np.unravel_index(maps.argmax(), maps.shape)] = np.inf
    figures, missing = pixel_metrics(label_defects(masks), maps)
    assert missing == {"aupro": "AUPRO in steps: some scores are infinite"}
    assert figures == {name: finite[name] for name in ("auroc_px", "f1_px", "ap_px")}


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
