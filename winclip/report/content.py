"""The content of a report as plain data, independent of where the results come from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from winclip.report.curves import ClassCurves


@dataclass(frozen=True)
class Table:
    """A table whose rows can be sorted by column.

    Attributes:
        title: its heading.
        header: names of the columns.
        rows: the cells as text; ``-`` where there is no figure.
        mean: a last row that sorting does not move, or None.
        notes: paragraphs below it.
        bars: whether a bar in each cell shows its figure, from 0 to 100.
        chance: a row after the mean that sorting does not move either, or None.
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
        figures: by metric (``auroc_sp``, ...), mean over seeds and standard deviation for each number of references, in
            per cent; None where there is no figure.
    """

    name: str
    shots: Sequence[int]
    figures: Mapping[str, Sequence[tuple[float, float] | None]]


@dataclass(frozen=True)
class Result:
    """The result of one setting for one image.

    Attributes:
        score: higher is more anomalous.
        threshold: a score above it is anomalous; None if there is none.
        outcome: the outcome in words, which the page shows and filters by, such as ``false alarm``.
        rank: the gallery shows the smallest first.
        heat_map: RGB, of any size, laid over the whole image.
        parts: the parts of the score, in words.
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
        name: its name on the page, such as its path in the data set.
        image: RGB.
        class_name: its class.
        defect_type: ``good``, a kind of defect, or empty.
        label: 1 for defective, 0 for good, None if not known.
        mask: (h, w) bool over the whole image, True on defects; None if there is none.
        results: one for every setting of the report, in the report's order.
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
    """The content for one setting, for example a number of shots and a seed.

    Attributes:
        name: its name in the selector.
        curves: one entry per class, or none.
    """

    name: str
    curves: Sequence[ClassCurves] = ()


@dataclass(frozen=True)
class Wording:
    """The names that the page uses.

    Attributes:
        good, bad: names of the two groups of scores.
        panels: heading above the plots.
        outcome: label of the filter by outcome.
        order: the order of the pictures.
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
        wording: the names that the page uses.
        cards: read once, one at a time, so a generator need not hold them all.
        facts: names and values shown under the title, such as the model.
        tables: figures of the run.
        notes: paragraphs above the pictures, such as how the threshold was chosen.
        scale: map values of the coldest and the hottest colour.
        heat_opacity: opacity of the heat maps over their images, in [0, 1].
        growth: for the mean and for every class, if there are several numbers of references.
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
