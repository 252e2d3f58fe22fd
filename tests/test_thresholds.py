"""Where good ends, as figures and as the model gives it."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from scipy.special import expit

from tests.tiny import golden_images
from winclip import WinCLIP
from winclip.network.backbone import Backbone
from winclip.thresholds import FEW, from_leave_one_out, prediction_bound


def test_the_bound_is_a_prediction_interval_of_logits() -> None:
    for degrees in (1, 3, 7, 15, 1000):
        logits = np.linspace(-2, -1.5, degrees + 1)
        spread = np.std(logits, ddof=1) * math.sqrt(1 + 1 / len(logits))
        expected = 2 * expit(np.mean(logits) + 1.47 * stats.t.ppf(0.99, degrees) * spread)
        assert prediction_bound((2 * expit(logits)).tolist(), 2.0) == pytest.approx(expected, rel=1e-9)
    for values in ([0.0, 1.0], [0.0, 0.0, 0.0], [1.0, 1.0]):
        assert 0 <= prediction_bound(values, 1.0) <= 1


def test_one_in_a_hundred_of_what_leans_to_the_right_is_above() -> None:
    draws = expit(np.random.RandomState(0).gumbel(-3, 0.3, (20000, 9)))
    above = [row[-1] > prediction_bound(row[:-1].tolist(), 1.0) for row in draws]
    assert np.mean(above) == pytest.approx(0.01, abs=0.0025)


def test_few_or_contradicting_references_are_said() -> None:
    assert "rests on 7 references" in from_leave_one_out([0.1, 0.2] * 3 + [0.15], [0.3] * 7).caution
    assert from_leave_one_out([0.1, 0.2] * (FEW // 2), [0.3] * FEW).caution == ""
    wide = from_leave_one_out([0.1, 0.5], [0.2, 0.9])
    assert (wide.score, wide.pixel) == pytest.approx((1.0, 2.0))
    assert "differ too much" in wide.caution
    low, high = wide.colours
    assert low == pytest.approx(0.55) and high - low == pytest.approx(0.5)


def test_a_model_takes_its_threshold_from_its_references(backbone: Backbone) -> None:
    model, images = WinCLIP(backbone), golden_images()
    model.set_class("bolt")
    assert (model.threshold().score, model.threshold().pixel) == (0.5, 0.5)
    model.add_references(images[0])
    alone = model.threshold()
    assert (alone.score, alone.pixel) == (0.25, 0.5) and "no spread is known" in alone.caution
    model.add_references(images[1:4])
    out = model.leave_one_out()
    found = model.threshold()
    assert found == from_leave_one_out(out.scores.tolist(), out.maps.max(axis=(1, 2)).tolist())
    given = model.threshold(given=0.125)
    assert (given.score, given.pixel, given.caution) == (0.125, found.pixel, "")
    assert given.rule.startswith("the score's threshold is given; pixels: 4 references")
    model.set_class("felt")
    assert model.threshold(class_name="bolt") == found and model.threshold().score == 0.5


def test_copies_count_once(backbone: Backbone, tmp_path: Path, logged: list[str]) -> None:
    model, (first, second, third, *_) = WinCLIP(backbone), golden_images()
    model.set_class("bolt")
    model.add_references([first, second, third])
    expected = model.threshold()
    model.set_class("bolt")
    model.add_references([first, second, first])
    # The same pixels from a file, in another call and a batch of another size, beside a new picture.
    second.save(tmp_path / "second.bmp")
    model.add_references([tmp_path / "second.bmp", third])
    assert model.reference_count() == 3 and model.threshold() == expected
    assert len(logged) == 2 and all(message.startswith("1 references are copies") for message in logged)
    model.set_class("bolt")
    model.add_references([first, first])
    assert model.threshold().caution.startswith("with 1 reference no spread is known")


def test_the_benchmark_measures_what_the_library_gives(backbone: Backbone) -> None:
    from scripts.false_alarms import compared, measure

    images = golden_images()
    zero, associations = compared(backbone, "bolt", images, good=4)
    own, everyone = measure(zero, associations, [3, 0, 2])
    model = WinCLIP(backbone)
    model.set_class("bolt")
    model.add_references([images[number] for number in (3, 0, 2)])
    np.testing.assert_allclose(own[0], model.leave_one_out().scores, rtol=0, atol=1e-6)
    np.testing.assert_allclose(everyone[0], model.predict(images).scores, rtol=0, atol=1e-6)
