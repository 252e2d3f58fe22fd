"""Where good ends: thresholds and the scale of colours, from the references alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean, stdev

FALSE_ALARM_RATE = 0.01
FEW = 8

_ZERO_SHOT = 0.5
_HIGHEST_SCORE, _HIGHEST_LEVEL = 1.0, 2.0
# The score of zero-shot probability 1 and a patch at a right angle to all those of the references.
_OUT_OF_REACH = 0.75
# How much farther the next of R values reaches if they follow a Gumbel distribution, not a normal one.
_GUMBEL = 1.47
_NEAREST_TO_0 = 1e-6
# The colours around the pixel threshold cover at most this much to either side.
_WIDEST = 0.25
_NARROWEST = 0.01


@dataclass(frozen=True)
class Threshold:
    """Where good ends for a class.

    Attributes:
        score: a picture with a higher score is anomalous.
        pixel: a pixel with a higher map value belongs to the area, the box and the mask.
        colours: map values of the coldest and the hottest colour.
        rule: how they were found, a sentence.
        caution: why not to rely on them, or "".
        expectation: how many good pictures exceed the score, as far as that can be told, or "".
    """

    score: float
    pixel: float
    colours: tuple[float, float]
    rule: str
    caution: str = ""
    expectation: str = ""

    def with_score(self, given: float | None) -> Threshold:
        """The same with a score threshold from elsewhere, if there is one."""
        if given is None:
            return self
        rule = f"the score's threshold is given; pixels: {self.rule}"
        return replace(self, score=given, rule=rule, caution="", expectation="")


def without_spread(count: int) -> Threshold:
    """The threshold with no reference or one, which cannot be left out.

    With no reference it is zero-shot probability 0.5. With one, the score is half the zero-shot
    probability and half the difference to the reference; how much good pictures differ is not known,
    so it counts as nothing: 0.25 for the score, and 0.5 for the map, which is the sum.
    """
    colours = _colours(_ZERO_SHOT - _WIDEST, _ZERO_SHOT)
    if count == 0:
        return Threshold(
            _ZERO_SHOT,
            _ZERO_SHOT,
            colours,
            "no reference: zero-shot probability 0.5",
            expectation="without good pictures as references it is not known how many good ones exceed it",
        )
    return Threshold(
        _ZERO_SHOT / 2,
        _ZERO_SHOT,
        colours,
        "1 reference: zero-shot probability 0.5 and no difference to the reference",
        "with 1 reference no spread is known; give at least 2, better 8, or a threshold of your own",
    )


def from_leave_one_out(scores: Sequence[float], peaks: Sequence[float]) -> Threshold:
    """The threshold from R >= 2 references, each scored against the others.

    Score and pixel threshold are the prediction bounds (``prediction_bound``) of the R scores and of the R
    highest map values. A reference meets R - 1 others and a picture to come meets all R, which is not
    corrected: on the pictures of docs/thresholds.md it is a tenth of a deviation with 4 references, and
    less with more.
    """
    bound, pixel = prediction_bound(scores, _HIGHEST_SCORE), prediction_bound(peaks, _HIGHEST_LEVEL)
    caution = ""
    if len(scores) < FEW:
        caution = f"the threshold rests on {len(scores)} references, which is few; give at least {FEW}"
    if bound > _OUT_OF_REACH:
        caution = f"{len(scores)} references differ too much for a threshold, hardly anything exceeds it; give more"
    return Threshold(
        bound,
        pixel,
        _colours(fmean(peaks), pixel),
        f"{len(scores)} references, each scored against the others: upper end of the 99 % prediction interval",
        caution,
        f"it aims at {FALSE_ALARM_RATE * 100:.0f} false alarm in 100 good pictures taken as the references were;"
        " docs/thresholds.md has what was measured",
    )


def prediction_bound(values: Sequence[float], highest: float) -> float:
    """The bound that the next value exceeds with probability ``FALSE_ALARM_RATE``.

    Of the logits log(v / (highest - v)) it is mean + 1.47 t s sqrt(1 + 1 / R). For R values of one normal
    distribution next - mean has the variance s^2 (1 + 1 / R), and divided by its estimate it follows
    Student's t with R - 1 degrees of freedom. Scores of good pictures lean to the right even as logits, like
    the Gumbel distribution of maxima, whose upper end is 1.47 times as far for 4 to 16 values, and less
    (1.35) for many: there the bound errs to the safe side.

    It assumes that the next picture was taken as the references were. docs/thresholds.md has the measured
    rates. Logits also keep the bound below ``highest``, whatever the spread.

    Args:
        values: 2 or more in [0, highest].
        highest: what no value exceeds.
    """
    # Late, because a run without references does not need it.
    from scipy.special import stdtrit

    shares = [min(max(value / highest, _NEAREST_TO_0), 1 - _NEAREST_TO_0) for value in values]
    logits = [math.log(share / (1 - share)) for share in shares]
    reach = _GUMBEL * float(stdtrit(len(values) - 1, 1 - FALSE_ALARM_RATE)) * math.sqrt(1 + 1 / len(values))
    return highest / (1 + math.exp(-(fmean(logits) + reach * stdev(logits))))


def _colours(calm: float, pixel: float) -> tuple[float, float]:
    """The scale: coldest at ``calm``, the highest map value of a usual good picture, ``pixel`` in its middle.

    Limited in width, so that defects keep their colour where few references put the threshold far off.
    """
    half = min(max(pixel - calm, _NARROWEST), _WIDEST)
    return calm, calm + 2 * half
