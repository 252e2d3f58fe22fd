"""What a report shows, as plain data; whoever has results fills it in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from winclip.report.curves import ClassCurves


@dataclass(frozen=True)
class Table:
    """A table that can be sorted by its columns.

    Attributes:
        title: its heading.
        header: names of the columns.
        rows: cells as they are shown; ``-`` where there is no figure.
        mean: a last row that sorting leaves in place, or None.
        notes: paragraphs below it.
        bars: whether a bar in each cell shows its figure, from 0 to 100.
        chance: a row behind the mean that stays in place too, or None.
    """

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    mean: Sequence[str] | None = None
    notes: Sequence[str] = ()
    bars: bool = False
    chance: Sequence[str] | None = None


@dataclass(frozen=True)
class Growth:
    """How the figures of a class change with the number of references.

    Attributes:
        name: the class, or ``mean``.
        shots: numbers of references, ascending.
        figures: by metric (``auroc_sp``, ...), of every number the mean over seeds and the standard deviation, per
            cent; None where there is no figure.
    """

    name: str
    shots: Sequence[int]
    figures: Mapping[str, Sequence[tuple[float, float] | None]]


@dataclass(frozen=True)
class Result:
    """What one setting says about one image.

    Attributes:
        score: higher is more anomalous.
        threshold: a score above it is anomalous; None if there is none.
        outcome: what came of it, in words that the page shows and filters by, such as ``false alarm``.
        rank: the gallery shows the smallest first.
        heat_map: RGB, of any size, laid over the whole image.
        parts: what the score is made of, in words.
    """

    score: float
    threshold: float | None
    outcome: str
    rank: tuple[float, ...]
    heat_map: Image.Image
    parts: str = ""


@dataclass(frozen=True)
class Card:
    """One image of the gallery.

    Attributes:
        name: what it is called on the page, such as its path in the data set.
        image: RGB.
        class_name: its class.
        defect_type: ``good``, a kind of defect, or empty.
        label: 1 for defective, 0 for good, None if not known.
        mask: (h, w) bool over the whole image, True on defects; None if there is none.
        results: one for every setting of the report, in their order.
    """

    name: str
    image: Image.Image
    class_name: str
    defect_type: str
    label: int | None
    mask: npt.NDArray[np.bool_] | None
    results: Sequence[Result]


@dataclass(frozen=True)
class SettingPage:
    """What is shown of one setting, for example of a number of shots and a seed.

    Attributes:
        name: what the selector calls it.
        curves: one entry a class, or none.
    """

    name: str
    curves: Sequence[ClassCurves] = ()


@dataclass(frozen=True)
class Wording:
    """What the page calls things.

    Attributes:
        good, bad: the two groups of scores.
        panels: heading above the plots.
        outcome: label of the filter by outcome.
        order: in which order the pictures come.
        tables: a hint above the tables.
    """

    good: str
    bad: str
    panels: str
    outcome: str
    order: str
    tables: str


@dataclass(frozen=True)
class Report:
    """A page.

    Attributes:
        title: its heading.
        settings: at least one; the last is shown first.
        wording: what things are called.
        cards: read once, one at a time, so that a generator need not hold them all.
        facts: names and values shown under the title, such as the model.
        tables: figures of the run.
        notes: paragraphs above the pictures, such as how the threshold was chosen.
        scale: map values of the coldest and the hottest colour.
        heat_opacity: of the heat maps over their images, in [0, 1].
        growth: of the mean and of every class, where there are several numbers of references.
    """

    title: str
    settings: Sequence[SettingPage]
    wording: Wording
    cards: Iterable[Card]
    facts: Sequence[tuple[str, str]] = ()
    tables: Sequence[Table] = ()
    notes: Sequence[str] = ()
    scale: tuple[float, float] = (0.0, 1.0)
    heat_opacity: float = 0.6
    growth: Sequence[Growth] = ()
