"""Every data set that this project knows by name: a further one is a file with its lister and an entry here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from datasets.elpv import LICENCE, list_elpv
from datasets.folders import why_not_in_folders
from datasets.items import DatasetIndex
from datasets.mvtec import MVTEC_CLASSES, list_mvtec
from datasets.visa import VISA_CLASSES, list_visa, why_not_in_csv

_PUBLISHED = Path(__file__).parent / "published"


@dataclass(frozen=True)
class DataSet:
    """A data set.

    Attributes:
        name: as ``--dataset`` takes it.
        title: in words, for the help text.
        lister: called with the root, a function that prints a warning and, where ``has_choices``, the
            keywords ``all_classes`` and ``allow_missing_masks``.
        classes: in the order of the published tables; empty where none is published.
        published: csv file of the tables that ``--compare`` takes; None if there are none.
        script: command of its own that writes its meta.json; by default ``python -m datasets NAME``.
        has_choices: whether the lister takes the two keywords.
        licence: printed when its images are copied.
        why_not: says why a file of a listed class is not listed, from the parts of its path below the root.
    """

    name: str
    title: str
    lister: Callable[..., DatasetIndex]
    classes: tuple[str, ...] = ()
    published: Path | None = None
    script: str = ""
    has_choices: bool = True
    licence: str = ""
    why_not: Callable[[tuple[str, ...]], str] = why_not_in_folders

    @property
    def command(self) -> str:
        """The command that writes its meta.json, without options."""
        return self.script or f"python -m datasets {self.name}"


DATA_SETS = {
    entry.name: entry
    for entry in (
        DataSet(
            "mvtec",
            "MVTec AD, or of your own data in its layout,",
            list_mvtec,
            MVTEC_CLASSES,
            _PUBLISHED / "accurate_winclip.csv",
            "python mvtec.py",
        ),
        DataSet(
            "visa",
            "VisA, or of your own data in its layout,",
            list_visa,
            VISA_CLASSES,
            _PUBLISHED / "accurate_winclip.csv",
            "python visa.py",
            why_not=why_not_in_csv,
        ),
        DataSet("elpv", "the solar cells of the package elpv-dataset", list_elpv, has_choices=False, licence=LICENCE),
    )
}
# Means of the same data sets that the paper states.
PAPER_MEANS = _PUBLISHED / "paper_means.csv"


def default_root(name: str) -> Path:
    """Where a data set lies if no place is named, relative to the repository."""
    return Path("data") / name


def published_order(name: str, classes: Sequence[str]) -> list[str]:
    """Classes in the order of the published tables; those that are in none stand behind, in their own order."""
    known = DATA_SETS[name].classes if name in DATA_SETS else ()
    return [one for one in known if one in classes] + [one for one in classes if one not in known]


def with_published_tables() -> list[str]:
    """Names of the data sets that a run can be compared with; the shell scripts run these."""
    return [name for name, entry in DATA_SETS.items() if entry.published]


def how_to_make() -> str:
    """Which commands write a meta.json, for error texts."""
    *others, last = (f"`{entry.command} --root DIR`" for entry in DATA_SETS.values())
    return f"make it with {', '.join(others)} or {last}"
