"""Where good ends, as figures and as the model gives it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from tests.tiny import golden_images
from winclip import WinCLIP
from winclip.backbone import Backbone
from winclip.thresholds import FEW, from_leave_one_out, prediction_bound


def test_the_bound_is_a_prediction_interval_of_students_t() -> None:
    for degrees in (1, 2, 3, 4, 5, 7, 15, 100, 1000):
        values = np.linspace(0.2, 0.3, degrees + 1)
        spread = np.std(values, ddof=1) * math.sqrt(1 + 1 / len(values))
        expected = np.mean(values) + stats.t.ppf(0.99, degrees) * spread
        assert prediction_bound(values.tolist()) == pytest.approx(expected, rel=1e-9)
    # One good picture in a hundred is above, whatever the number of references.
    generator = np.random.RandomState(0)
    for references in (3, 8):
        draws = generator.standard_normal((10000, references + 1))
        above = [row[-1] > prediction_bound(row[:-1].tolist()) for row in draws]
        assert np.mean(above) == pytest.approx(0.01, abs=0.003)


def test_few_or_contradicting_references_are_said() -> None:
    assert "rests on 7 references" in from_leave_one_out([0.1, 0.2] * 3 + [0.15], [0.3] * 7).caution
    assert from_leave_one_out([0.1, 0.2] * (FEW // 2), [0.3] * FEW).caution == ""
    wide = from_leave_one_out([0.1, 0.5], [0.2, 0.9])
    assert (wide.score, wide.pixel) == (1.0, 2.0)
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
