"""Thresholds, as figures and as the model gives them."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from scipy.special import expit

from tests.tiny import golden_images
from winclip import WinCLIP
from winclip.network.backbone import Backbone
from winclip.results import Prediction
from winclip.thresholds import FEW, LeftOut, Threshold, fallback_threshold, from_leave_one_out, upper_bound


def left_out(reference: list[float], text: list[float] | None = None) -> LeftOut:
    text = text or [0.5] * len(reference)
    return LeftOut([(one + other) / 2 for one, other in zip(text, reference)], text, reference, reference)


def test_the_bound_is_a_prediction_interval_of_logits() -> None:
    for count in (2, 4, 8, 16, 1000):
        logits = np.linspace(-2, -1.5, count)
        freedom = count + 1
        deviation = math.sqrt((((logits - logits.mean()) ** 2).sum() + 2 * 0.25**2) / freedom)
        reach = 1.1 * stats.t.ppf(0.99, freedom) * deviation * math.sqrt(1 + 1 / count)
        assert upper_bound((2 * expit(logits)).tolist(), 2.0, 0.01) == pytest.approx(
            2 * expit(logits.mean() + reach), rel=1e-9
        )
    for values in ([0.0, 1.0], [0.0, 0.0, 0.0], [1.0, 1.0]):
        assert 0 <= upper_bound(values, 1.0, 0.01) <= 1


def test_about_one_good_picture_in_a_hundred_is_above() -> None:
    draws = expit(np.random.RandomState(0).normal(-3, 0.25, (20000, 9)))
    above = [row[-1] > upper_bound(row[:-1].tolist(), 1.0, 0.01) for row in draws]
    assert 0.002 < np.mean(above) < 0.012


def test_unusually_good_references_do_not_raise_the_threshold() -> None:
    usual = [0.051, 0.053, 0.054, 0.055, 0.056, 0.057]
    limit = from_leave_one_out(left_out([*usual, 0.05, 0.052])).reference
    assert from_leave_one_out(left_out([*usual, 0.001, 0.002])).reference == pytest.approx(limit, rel=0.05)


def test_a_single_bad_reference_stands_out_and_is_left_aside() -> None:
    good = [0.01, 0.02, 0.03, 0.02, 0.015, 0.025, 0.02]
    clean, spoilt = from_leave_one_out(left_out(good)), left_out([*good, 0.69])
    assert spoilt.standing_out() == [("reference", 7, True)] and left_out(good).standing_out() == []
    found = from_leave_one_out(spoilt)
    assert (found.aside, found.text, found.reference) == ((7,), clean.text, clean.reference)
    assert left_out([*good[:-1], 1e-5]).standing_out() == [("reference", 6, False)]


def test_either_part_makes_a_picture_anomalous_and_none_can_drown_the_other() -> None:
    found = from_leave_one_out(left_out([0.1, 0.12] * 4, [0.9, 0.95] * 4))
    assert found.text is not None and found.reference is not None and found.judges
    pictures = [(found.text - 0.01, found.reference - 0.01), (found.text + 0.01, 0.0), (0.0, found.reference + 0.01)]
    text, reference = map(np.array, zip(*pictures))
    out = Prediction((text + reference) / 2, np.zeros((3, 2, 2), np.float32), text, reference)
    assert found.judge(out) == [False, True, True]
    limits = [found.of(*parts) for parts in zip(out.scores, text, reference)]
    assert [limit is not None and score > limit for score, limit in zip(out.scores, limits)] == [False, True, True]
    given = found.with_given(0.4, "reference")
    assert (given.text, given.reference, given.score, given.pixel) == (None, 0.4, None, found.pixel)
    assert given.judge(out) == [False, False, False] and given.limits == "reference part above 0.4"
    assert found.with_given(None) is found


def test_what_cannot_be_told_is_no_verdict() -> None:
    out = Prediction(np.array([0.9]), np.zeros((1, 2, 2), np.float32), np.array([0.9]))
    for unsure in (
        fallback_threshold(0),
        fallback_threshold(1),
        from_leave_one_out(left_out([0.001, 0.6], [0.01, 0.99])),
    ):
        assert unsure.unsure and not unsure.judges and unsure.judge(out) == [None]
        assert unsure.lines == [f"not judged: {unsure.unsure}"]
        assert unsure.with_given(0.5).judge(out) == [True]
    assert "rest on 7 references" in from_leave_one_out(left_out([0.1, 0.12] * 3 + [0.11])).caution
    assert from_leave_one_out(left_out([0.1, 0.12] * (FEW // 2))).caution == ""


def test_colours_go_from_what_is_ordinary_to_the_highest_of_the_run() -> None:
    found = Threshold(0.9, 0.2, 0.5, 0.3, "")
    assert found.colours(0.1, 0.4) == (0.3, 0.4)  # no pixel is above the threshold
    assert found.colours(0.1, 0.3) == (0.1, 0.3)  # nor above the usual values
    assert found.colours(0.1, 0.6) == (0.3, 0.6)
    assert found.colours(0.1, 1.6) == found.colours() == (0.3, 0.7)  # the threshold in the middle
    low, high = found.colours(0.2, 0.2)
    assert low == 0.2 < high
    assert replace(found, ordinary=None).colours(0.88, 0.99) == (0.88, 0.99)


def test_a_model_takes_its_threshold_from_its_references(backbone: Backbone) -> None:
    model, images = WinCLIP(backbone), golden_images()
    model.set_class("bolt")
    assert (model.threshold().judges, model.threshold().pixel) == (False, 0.5)
    model.add_references(images[0])
    assert "1 good picture" in model.threshold().unsure
    model.add_references(images[1:4])
    found = model.threshold()
    assert found == from_leave_one_out(LeftOut.of(model.leave_one_out()))
    given = model.threshold(given=0.125)
    assert (given.score, given.pixel, given.caution) == (0.125, found.pixel, "")
    assert given.rule.startswith("the threshold is given; pixels: 4 references")
    model.set_class("felt")
    assert model.threshold(class_name="bolt") == found and not model.threshold().judges


def test_copies_count_once(backbone: Backbone, tmp_path: Path, logged: list[str]) -> None:
    model, (first, second, third, *_) = WinCLIP(backbone), golden_images()
    model.set_class("bolt")
    model.add_references([first, second, third])
    expected = model.threshold()
    model.set_class("bolt")
    assert model.take_references(model.encode([first, second, first])) == [0, 1]
    # The same pixels from a file, in another call and a batch of another size, beside a new picture.
    second.save(tmp_path / "second.bmp")
    assert model.take_references(model.encode([tmp_path / "second.bmp", third])) == [1]
    assert model.reference_count() == 3 and model.threshold() == expected
    assert len(logged) == 2 and all(message.startswith("1 of the references count once") for message in logged)
    model.set_class("bolt")
    model.add_references([first, first])
    assert "1 good picture" in model.threshold().unsure


def test_the_benchmark_measures_what_the_library_gives(backbone: Backbone) -> None:
    from scripts.false_alarms import compared, measure

    images = golden_images()
    own, everyone = measure(compared(backbone, "bolt", images, good=4), [3, 0, 2])
    model = WinCLIP(backbone)
    model.set_class("bolt")
    model.add_references([images[number] for number in (3, 0, 2)])
    np.testing.assert_allclose(own.score, model.leave_one_out().scores, rtol=0, atol=1e-6)
    np.testing.assert_allclose(everyone.scores, model.predict(images).scores, rtol=0, atol=1e-6)
