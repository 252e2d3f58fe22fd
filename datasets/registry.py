"""Every data set that this project knows by name: a further one is a file with its lister and an entry here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from datasets.btad import BTAD, BTAD_WORDS
from datasets.dagm import DAGM_CLASSES, DAGM_WORDS, list_dagm, why_not_in_dagm
from datasets.dtd_synthetic import DTD_SYNTHETIC, DTD_SYNTHETIC_WORDS
from datasets.elpv import LICENCE, list_elpv
from datasets.folders import FolderLayout, list_folders_of_defects, why_not_in_folders
from datasets.items import DatasetIndex
from datasets.kolektor import KOLEKTOR_WORDS, list_kolektor_sdd, list_kolektor_sdd2, why_not_in_kolektor
from datasets.mpdd import MPDD
from datasets.mvtec import MVTEC
from datasets.mvtec_ad_2 import MVTEC_AD_2
from datasets.mvtec_loco import MVTEC_LOCO
from datasets.real_iad import REAL_IAD_WORDS, list_real_iad, why_not_in_lists
from datasets.visa import VISA_CLASSES, list_visa, why_not_in_csv

_PUBLISHED = Path(__file__).parent / "published"


@dataclass(frozen=True)
class DataSet:
    """A data set.

    Attributes:
        name: as ``--dataset`` takes it.
        title: in words, for the help text.
        lister: called with the root, a function that prints a warning, and ``choices`` as keywords.
        why_not: says why a file of a listed class is not listed, from the parts of its path below the root.
        classes: in the order of the published tables, or of its own ones; empty where names are in order.
        published: csv file of the tables that ``--compare`` takes; None if there are none.
        script: command of its own that writes its meta.json; by default ``python -m datasets NAME``.
        choices: which of ``all_classes`` and ``allow_missing_masks`` the lister takes.
        licence, page: what its images may be used for, and where they are from; printed when they are listed.
        words: by class, what prompts call it where its own name says nothing.
    """

    name: str
    title: str
    lister: Callable[..., DatasetIndex]
    why_not: Callable[[tuple[str, ...]], str]
    classes: tuple[str, ...] = ()
    published: Path | None = None
    script: str = ""
    choices: tuple[str, ...] = ("all_classes", "allow_missing_masks")
    licence: str = ""
    page: str = ""
    words: Mapping[str, str] = field(default_factory=dict)

    @property
    def command(self) -> str:
        """The command that writes its meta.json, without options."""
        return self.script or f"python -m datasets {self.name}"

    @property
    def terms(self) -> str:
        """Licence and page in a line."""
        return f"{self.title}: licence {self.licence}; {self.page}" if self.page else self.licence


_NC = "CC BY-NC-SA 4.0 (no commercial use)"


def _in_folders(name: str, layout: FolderLayout, **fields: Any) -> DataSet:
    lister = partial(list_folders_of_defects, layout=layout)
    return DataSet(
        name, **{"title": layout.title, **fields}, lister=lister, why_not=partial(why_not_in_folders, layout=layout)
    )


DATA_SETS = {
    entry.name: entry
    for entry in (
        _in_folders(
            "mvtec",
            MVTEC,
            title="MVTec AD, or of your own data in its layout,",
            classes=MVTEC.classes,
            published=_PUBLISHED / "accurate_winclip.csv",
            script="python mvtec.py",
        ),
        DataSet(
            "visa",
            "VisA, or of your own data in its layout,",
            list_visa,
            why_not_in_csv,
            VISA_CLASSES,
            _PUBLISHED / "accurate_winclip.csv",
            "python visa.py",
        ),
        DataSet(
            "elpv",
            "the solar cells of the package elpv-dataset",
            list_elpv,
            partial(why_not_in_folders, layout=MVTEC),
            choices=(),
            licence=LICENCE,
        ),
        _in_folders("btad", BTAD, licence=_NC, page="https://github.com/pankajmishra000/VT-ADL", words=BTAD_WORDS),
        _in_folders("mpdd", MPDD, licence=_NC, page="https://github.com/stepanje/MPDD"),
        _in_folders(
            "mvtec_ad_2",
            MVTEC_AD_2,
            licence=_NC,
            page="https://www.mvtec.com/company/research/datasets/mvtec-ad-2",
        ),
        _in_folders(
            "mvtec_loco",
            MVTEC_LOCO,
            licence=_NC,
            page="https://www.mvtec.com/company/research/datasets/mvtec-loco",
        ),
        DataSet(
            "kolektor_sdd",
            "KolektorSDD",
            list_kolektor_sdd,
            why_not_in_kolektor,
            choices=(),
            licence=_NC,
            page="https://www.vicos.si/resources/kolektorsdd/",
            words=KOLEKTOR_WORDS,
        ),
        DataSet(
            "kolektor_sdd2",
            "KolektorSDD2",
            list_kolektor_sdd2,
            why_not_in_kolektor,
            choices=(),
            licence=_NC,
            page="https://www.vicos.si/resources/kolektorsdd2/",
            words=KOLEKTOR_WORDS,
        ),
        DataSet(
            "dagm",
            "DAGM 2007",
            list_dagm,
            why_not_in_dagm,
            DAGM_CLASSES,
            choices=("all_classes",),
            licence="see its page",
            page="https://hci.iwr.uni-heidelberg.de/content/weakly-supervised-learning-industrial-optical-inspection",
            words=DAGM_WORDS,
        ),
        DataSet(
            "real_iad",
            "Real-IAD",
            list_real_iad,
            why_not_in_lists,
            licence=f"{_NC}, given out on a form",
            page="https://realiad4ad.github.io/Real-IAD/",
            words=REAL_IAD_WORDS,
        ),
        _in_folders(
            "dtd_synthetic",
            DTD_SYNTHETIC,
            licence="see its page",
            page='that of the paper "Zero-Shot Versus Many-Shot: Unsupervised Texture Anomaly Detection" (WACV 2023)',
            words=DTD_SYNTHETIC_WORDS,
        ),
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
    scripts = [f"`{entry.script} --root DIR`" for entry in DATA_SETS.values() if entry.script]
    others = [name for name, entry in DATA_SETS.items() if not entry.script]
    return f"make it with {', '.join(scripts)} or `python -m datasets NAME --root DIR`, NAME one of {', '.join(others)}"
