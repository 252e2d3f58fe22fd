"""What a report shows, as plain data; whoever has results fills it in."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from report.curves import ClassCurves


@dataclass(frozen=True)
class Table:
    """A table that can be sorted by its columns.

    Attributes:
        title: its heading.
        header: names of the columns.
        rows: cells as they are shown; ``-`` where there is no figure.
        mean: a last row that sorting leaves in place, or None.
        notes: paragraphs below it.
    """

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    mean: Sequence[str] | None = None
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Result:
    """What one setting says about one image.

    Attributes:
        score: higher is more anomalous.
        threshold: scores at or above it count as defective; None if there is none.
        heat_map: (h, w) in [0, 1], of any size, over the whole image; the colours run from 0 to 1,
            so one scale has to hold for all maps of a report. Or, with ``Report.drawn_scale``, the map
            drawn on its image.
        anomalous: a verdict that stands whatever score and threshold say; None if they decide.
    """

    score: float
    threshold: float | None
    heat_map: npt.NDArray[np.floating] | Image.Image
    anomalous: bool | None = None


@dataclass(frozen=True)
class Card:
    """One image of the gallery.

    Attributes:
        name: what it is called on the page, such as its path in the data set.
        image: where to read it, pixels as stored; or the image itself.
        class_name: its class.
        defect_type: ``good``, a kind of defect, or empty.
        label: 1 for defective, 0 for good, None if not known.
        mask: (h, w) bool over the whole image, True on defects; None if there is none.
        results: one for every setting of the report, in their order.
    """

    name: str
    image: Path | Image.Image
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
class Report:
    """A page.

    Attributes:
        title: its heading.
        settings: at least one; the last is shown first.
        cards: read once, one at a time, so that a generator need not hold them all.
        facts: names and values shown under the title, such as the model.
        tables: figures of the run.
        notes: paragraphs above the pictures, such as how the threshold was chosen.
        labelled: False if no card has a label: the page then speaks of verdicts, not of right and wrong,
            and ``good`` and ``defective`` of the curves are the scores by verdict.
        drawn_scale: map values of the coldest and hottest colour, where maps are drawn on their images.
    """

    title: str
    settings: Sequence[SettingPage]
    cards: Iterable[Card]
    facts: Sequence[tuple[str, str]] = ()
    tables: Sequence[Table] = ()
    notes: Sequence[str] = ()
    labelled: bool = True
    drawn_scale: tuple[float, float] | None = None
