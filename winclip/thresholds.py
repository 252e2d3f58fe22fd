"""Decision thresholds of both parts of the score, and the colour scale, from the references alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import TYPE_CHECKING

from winclip.support.errors import InputError

if TYPE_CHECKING:
    from winclip.results import Prediction

FALSE_ALARM_RATE = 0.01
FEW = 8
PARTS = ("reference", "text")

_HIGHEST_LEVEL = 2.0
_ZERO_SHOT = 0.5
# Target share of false alarms for each part; together FALSE_ALARM_RATE. The text part gets a tenth of it, so that it
# decides only where it is extreme, and takes little from the reference part where it carries no information.
_RATES = {"text": 0.1 * FALSE_ALARM_RATE, "reference": 0.9 * FALSE_ALARM_RATE}
# The usual deviation of each part's logits among good pictures, which is weighted like this many references.
_USUAL, _USUAL_COUNT = {"text": 1.0, "reference": 0.25}, 2
# The logits of good pictures reach this much farther than a normal distribution: they are skewed to the right.
_FARTHER = 1.1
# Values that a defect can hardly exceed: a probability near 1, and an embedding at a right angle to all embeddings of
# the references.
_OUT_OF_REACH = {"text": 0.99, "reference": 0.5}
_NEAREST_TO_0 = 1e-6
_NARROWEST = 0.01
# How rarely a good reference stands out, how many others are needed to judge, and the share that may be excluded.
_STANDS_OUT = 1e-4
_FEWEST_OTHERS = 3
_MOST_ASIDE = 0.25


@dataclass(frozen=True)
class Threshold:
    """The decision thresholds of a class.

    A picture is anomalous if either part of its score is above that part's threshold, or, with a given threshold,
    if the score is above it.

    Attributes:
        text, reference: thresholds of the parts; None for a part without one.
        pixel: pixels with a higher map value belong to the area, the box and the mask.
        ordinary: the highest map value of an ordinary good picture; None if unknown.
        rule: how they were found, a sentence.
        unsure: why pictures are ranked and not judged, or "".
        caution: why not to rely on the verdicts, or "".
        expectation: the expected number of false alarms, if it is known, or "".
        score: the given threshold of the score; None if none is given.
        aside: references, counted from 0, that stand out above the others and are excluded.
    """

    text: float | None
    reference: float | None
    pixel: float
    ordinary: float | None
    rule: str
    unsure: str = ""
    caution: str = ""
    expectation: str = ""
    score: float | None = None
    aside: tuple[int, ...] = ()

    def with_given(self, limit: float | None, part: str = "score") -> Threshold:
        """The same with a threshold from elsewhere, if there is one, for the score or a part, instead of its own.

        Raises:
            InputError: if it is not between 0 and 1.
        """
        if limit is None:
            return self
        if not 0 <= limit <= 1:
            raise InputError(f"threshold {limit} must be between 0 and 1, as scores are")
        rule = f"the threshold is given; pixels: {self.rule}"
        text, reference, score = (limit if part == name else None for name in ("text", "reference", "score"))
        return Threshold(text, reference, self.pixel, self.ordinary, rule, score=score)

    @property
    def judges(self) -> bool:
        """Whether pictures get a verdict."""
        return not self.unsure

    def of(self, score: float, text: float, reference: float | None) -> float | None:
        """The score above which a picture with these parts is anomalous; None if pictures are not judged."""
        if self.score is not None:
            return self.score
        values = {"text": text, "reference": reference or 0.0}
        excess = [values[part] - limit for part, limit in self.parts.items()]
        # A part is half of the score, or without references the whole.
        return None if self.unsure or not excess else score - max(excess) / (1 if reference is None else 2)

    def judge(self, found: Prediction) -> list[bool | None]:
        """Whether each of N pictures is anomalous; None if there is no verdict."""
        references = [None] * len(found) if found.reference_scores is None else found.reference_scores.tolist()
        limits = map(self.of, found.scores.tolist(), found.text_scores.tolist(), references)
        return [None if limit is None else bool(score > limit) for score, limit in zip(found.scores, limits)]

    @property
    def parts(self) -> dict[str, float]:
        """The thresholds of the parts that have one."""
        both = {"reference": self.reference, "text": self.text}
        return {part: limit for part, limit in both.items() if limit is not None}

    @property
    def limits(self) -> str:
        """The condition for anomalous, such as ``reference part above 0.12 or text part above 0.9``."""
        if self.score is not None:
            return f"score above {self.score:.4g}"
        # Near 1, as at a low temperature, four digits are too few.
        return " or ".join(
            f"{part} part above {limit:.{4 if limit < 0.999 else 7}g}" for part, limit in self.parts.items()
        )

    @property
    def lines(self) -> list[str]:
        """The threshold explained for a person, in lines."""
        if self.unsure:
            return [f"not judged: {self.unsure}"]
        more = self.caution or self.expectation
        return [f"anomalous: {self.limits} ({self.rule})", *([f"  {more}"] if more else [])]

    def colours(self, lowest: float = _ZERO_SHOT / 2, highest: float = math.inf) -> tuple[float, float]:
        """The map values of the coldest and the hottest colour for a run.

        From the references' ordinary level to the highest value of the run, but at most so far that the pixel threshold
        is in the middle. If that level is unknown, or nothing exceeds it, from ``lowest``, so that pictures are ranked.

        Args:
            lowest: ordinary map value of the run's picture with the lowest one.
            highest: highest map value of all pictures of the run.
        """
        low = lowest if self.ordinary is None or highest <= self.ordinary else self.ordinary
        high = min(highest, 2 * self.pixel - low) if low < self.pixel < highest else highest
        return low, max(high, low + _NARROWEST)


@dataclass(frozen=True)
class LeftOut:
    """The scores of R references, each against the others.

    Attributes:
        score, text, reference: the score and its parts.
        peaks: the highest values of their maps.
    """

    score: list[float]
    text: list[float]
    reference: list[float]
    peaks: list[float]

    @staticmethod
    def of(found: Prediction) -> LeftOut:
        """The scores in the results of leave-one-out scoring."""
        assert found.reference_scores is not None
        parts = (found.scores, found.text_scores, found.reference_scores, found.maps.max(axis=(1, 2)))
        return LeftOut(*(part.tolist() for part in parts))

    def standing_out(self) -> list[tuple[str, int, bool]]:
        """Parts that the other references make unlikely: which part, of which reference, and whether it is high.

        From both ends inwards, up to the first that does not stand out.
        """
        found = []
        for part in PARTS:
            for high in (True, False):
                values = [value if high else 1 - value for value in getattr(self, part)]
                for number in sorted(range(len(values)), key=values.__getitem__, reverse=True):
                    others = values[:number] + values[number + 1 :]
                    if len(others) < _FEWEST_OTHERS or values[number] <= _limit(part, others, _STANDS_OUT):
                        break
                    found.append((part, number, high))
        return found


def fallback_threshold(count: int) -> Threshold:
    """With no reference or only one, leave-one-out is impossible, and the variation of good pictures is unknown."""
    if count == 0:
        unsure = "no good pictures, so no verdict: ranked by score; give some as references, or a threshold"
        rule = "no references; pixels: zero-shot probability 0.5"
    else:
        unsure = f"1 good picture does not say how much good ones differ; give at least {FEW}, or a threshold"
        rule = "1 reference; pixels: zero-shot probability 0.5 and no difference to the reference"
    return Threshold(None, None, _ZERO_SHOT, None, rule, unsure)


def from_leave_one_out(left_out: LeftOut) -> Threshold:
    """The thresholds from R >= 2 references, each scored against the others.

    Each reference meets R - 1 others, but a new picture meets all R. This is not corrected: it errs on the safe side.
    """
    aside = tuple(number for part, number, high in left_out.standing_out() if high and part == "reference")
    if len(aside) > len(left_out.text) * _MOST_ASIDE:
        aside = ()
    kept = [number for number in range(len(left_out.text)) if number not in aside]
    text, reference, peaks = (
        [values[number] for number in kept] for values in (left_out.text, left_out.reference, left_out.peaks)
    )
    limits = {part: _limit(part, values, _RATES[part]) for part, values in (("text", text), ("reference", reference))}
    count, unsure = len(text), ""
    of_all = f"{len(aside)} aside, " if aside else ""
    if all(limits[part] > reach for part, reach in _OUT_OF_REACH.items()):
        unsure = f"the {count} good pictures differ as much as a defect would; give more, of one kind, or a threshold"
    few = f"the thresholds rest on {count} references, which is few; give at least {FEW}"
    return Threshold(
        limits["text"],
        limits["reference"],
        upper_bound(peaks, _HIGHEST_LEVEL, FALSE_ALARM_RATE),
        median(peaks),
        f"{of_all}{count} references, each scored against the others: the upper end of a prediction interval for either"
        " part",
        unsure,
        few if count < FEW and not unsure else "",
        f"it aims at {FALSE_ALARM_RATE * 100:.0f} false alarm in 100 good pictures taken as the references were;"
        " docs/thresholds.md has what was measured",
        aside=aside,
    )


def _limit(part: str, values: Sequence[float], rate: float) -> float:
    return upper_bound(values, 1.0, rate, _USUAL[part])


def upper_bound(values: Sequence[float], highest: float, rate: float, usual: float = _USUAL["reference"]) -> float:
    """The bound that the value of the next good picture exceeds with probability ``rate``.

    For the logits log(v / (highest - v)), with the mean m and R - 1 degrees of freedom, it is the upper end of a
    one-sided prediction interval, m + 1.1 t s sqrt(1 + 1 / R). Unusually good pictures must not raise it, so logits
    count as no lower than the median minus its distance to the highest. Few values do not tell the deviation, so the
    usual one counts as two more: s^2 = (sum of squares + 2 usual^2) / (R - 1 + 2), and t has R + 1 degrees of freedom.
    Logits also keep the bound below ``highest``. docs/thresholds.md has the measurements.

    Args:
        values: 2 or more in [0, highest].
        highest: upper limit of the values.
        rate: in (0, 1).
        usual: standard deviation of the logits among good pictures elsewhere.
    """
    # Late, because a run without references does not need it.
    from scipy.special import stdtrit

    shares = [min(max(value / highest, _NEAREST_TO_0), 1 - _NEAREST_TO_0) for value in values]
    logits = [math.log(share / (1 - share)) for share in shares]
    lowest = 2 * median(logits) - max(logits)
    logits = [max(logit, lowest) for logit in logits]
    mean, freedom = fmean(logits), len(values) - 1 + _USUAL_COUNT
    variance = (sum((logit - mean) ** 2 for logit in logits) + _USUAL_COUNT * usual**2) / freedom
    reach = _FARTHER * float(stdtrit(freedom, 1 - rate)) * math.sqrt((1 + 1 / len(values)) * variance)
    return highest / (1 + math.exp(-(mean + reach)))
