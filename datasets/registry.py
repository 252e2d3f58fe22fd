"""Every data set that this project knows by name; another one in MVTec AD's layout needs only an entry here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from datasets.elpv import LICENCE, list_elpv
from datasets.index import select_classes
from datasets.items import DatasetIndex
from datasets.label_images import DAGM_CLASSES, KOLEKTOR_WORDS, list_dagm, list_kolektor_sdd, list_kolektor_sdd2
from datasets.mvtec import MVTEC, FolderLayout
from datasets.real_iad import REAL_IAD_WORDS, list_real_iad
from datasets.visa import VISA_CLASSES, list_visa
from winclip.support.errors import InputError
from winclip.support.files import read_json
from winclip.support.names import printable

_PUBLISHED = Path(__file__).parent / "published"


@dataclass(frozen=True)
class DataSet:
    """A data set.

    Attributes:
        name: as ``--dataset`` takes it.
        title: in words, for the help text.
        lister: called with the root, a function that prints a warning, once for each thing left out or missing, and
            ``choices`` as keywords: ``all_classes`` also takes classes that the published data set lacks,
            ``allow_missing_masks`` anomalous images without a mask, and ``good`` names folders of good images.
        why_not: why a file of a listed class is not listed; it may depend on the parts of its path below the root.
        classes: in the order of the published tables or of its own; empty if that is the order of names.
        published: csv file of the tables that ``--compare`` takes; None if there are none.
        choices: which of these the lister takes.
        licence, page: what its images may be used for, and where they are from; printed when they are listed.
        words: by class, what prompts call it if its own name says nothing.
    """

    name: str
    title: str
    lister: Callable[..., DatasetIndex]
    why_not: str | Callable[[tuple[str, ...]], str]
    classes: tuple[str, ...] = ()
    published: Path | None = None
    choices: tuple[str, ...] = ("all_classes", "allow_missing_masks")
    licence: str = ""
    page: str = ""
    words: Mapping[str, str] = field(default_factory=dict)

    @property
    def terms(self) -> str:
        """Licence and page in a line."""
        return f"{self.title}: licence {self.licence}; {self.page}" if self.page else self.licence


_NC = "CC BY-NC-SA 4.0 (no commercial use)"
_ASIDE = {"validation": "of the validation split, which nothing here uses"}
_DTD_SYNTHETIC = (
    "Blotchy_099", "Fibrous_183", "Marbled_078", "Matted_069", "Mesh_114", "Perforated_037", "Stratified_154",
    "Woven_001", "Woven_068", "Woven_104", "Woven_125", "Woven_127",
)  # fmt: skip


def _in_folders(name: str, layout: FolderLayout, **fields: Any) -> DataSet:
    fields = {"title": layout.title, "choices": (*DataSet.choices, "good"), **fields}
    return DataSet(name, **fields, lister=layout.index, why_not=layout.why_not)


_kolektor = partial(
    DataSet,
    why_not="labels of normal images, images without a label, or defective images of the train split",
    choices=(),
    licence=_NC,
    words=KOLEKTOR_WORDS,
)
_ENTRIES = (
    _in_folders(
        "mvtec",
        MVTEC,
        title="MVTec AD, or of your own data in its layout,",
        classes=MVTEC.classes,
        published=_PUBLISHED / "accurate_winclip.csv",
    ),
    DataSet(
        "visa",
        "VisA, or of your own data in its layout,",
        list_visa,
        "not in split_csv/1cls.csv or the folders of a prepared copy, or the mask of a normal image",
        VISA_CLASSES,
        _PUBLISHED / "accurate_winclip.csv",
    ),
    DataSet(
        "elpv", "the solar cells of the package elpv-dataset", list_elpv, MVTEC.why_not, choices=(), licence=LICENCE
    ),
    # Photographs of three products; BMP and PNG are mixed, even for an image and its mask.
    _in_folders(
        "btad",
        FolderLayout("BTAD", ("01", "02", "03"), good="ok"),
        licence=_NC,
        page="https://github.com/pankajmishra000/VT-ADL",
        words=dict.fromkeys(("01", "02", "03"), "industrial product"),
    ),
    _in_folders(
        "mpdd",
        FolderLayout("MPDD", ("bracket_black", "bracket_brown", "bracket_white", "connector", "metal_plate", "tubes")),
        licence=_NC,
        page="https://github.com/stepanje/MPDD",
    ),
    # Its public test images have labels and masks, its private ones have neither.
    _in_folders(
        "mvtec_ad_2",
        FolderLayout(
            "MVTec AD 2",
            ("can", "fabric", "fruit_jelly", "rice", "sheet_metal", "vial", "wallplugs", "walnuts"),
            test="test_public",
            masks=("test_public/ground_truth",),
            aside=_ASIDE | dict.fromkeys(("test_private", "test_private_mixed"), "without labels"),
        ),
        licence=_NC,
        page="https://www.mvtec.com/company/research/datasets/mvtec-ad-2",
    ),
    # Defects are logical or structural, and every defective image has a folder of masks, one per defect.
    _in_folders(
        "mvtec_loco",
        FolderLayout(
            "MVTec LOCO",
            ("breakfast_box", "juice_bottle", "pushpins", "screw_bag", "splicing_connectors"),
            aside=_ASIDE,
        ),
        licence=_NC,
        page="https://www.mvtec.com/company/research/datasets/mvtec-loco",
    ),
    _kolektor("kolektor_sdd", "KolektorSDD", list_kolektor_sdd, page="https://www.vicos.si/resources/kolektorsdd/"),
    _kolektor("kolektor_sdd2", "KolektorSDD2", list_kolektor_sdd2, page="https://www.vicos.si/resources/kolektorsdd2/"),
    DataSet(
        "dagm",
        "DAGM 2007",
        list_dagm,
        "defective images of the train split, labels of images that are not listed, or outside of both splits",
        DAGM_CLASSES,
        choices=("all_classes",),
        licence="see its page",
        page="https://hci.iwr.uni-heidelberg.de/content/weakly-supervised-learning-industrial-optical-inspection",
        words=dict.fromkeys(DAGM_CLASSES, "textured surface"),
    ),
    DataSet(
        "real_iad",
        "Real-IAD",
        list_real_iad,
        "in no JSON file of a listed class, or defective in the train split",
        licence=f"{_NC}, given out on a form",
        page="https://realiad4ad.github.io/Real-IAD/",
        words=REAL_IAD_WORDS,
    ),
    # Textures with drawn defects; the numbers in the names are those of pictures in DTD.
    _in_folders(
        "dtd_synthetic",
        FolderLayout("DTD-Synthetic", _DTD_SYNTHETIC),
        licence="see its page",
        page='that of the paper "Zero-Shot Versus Many-Shot: Unsupervised Texture Anomaly Detection" (WACV 2023)',
        words={name: f"{name.split('_')[0].lower()} texture" for name in _DTD_SYNTHETIC},
    ),
)
DATA_SETS = {entry.name: entry for entry in _ENTRIES}
# Means of the same data sets, by source.
STATED_MEANS = {name: _PUBLISHED / f"{name}_means.csv" for name in ("paper", "caoyunkang")}


def default_root(name: str) -> Path:
    """Where a data set lies if no place is named, relative to the repository."""
    return Path("data") / name


def published_order(name: str, classes: Sequence[str]) -> list[str]:
    """Classes in the order of the published tables; those in none of them follow in their own order."""
    known = DATA_SETS[name].classes if name in DATA_SETS else ()
    return [one for one in known if one in classes] + [one for one in classes if one not in known]


def with_published_tables() -> list[str]:
    """Names of the data sets that a run can be compared with; the shell scripts run these."""
    return [name for name, entry in DATA_SETS.items() if entry.published]


def words_for_prompts(dataset: str, index: DatasetIndex, path: Path | None) -> dict[str, str]:
    """The words for every class in prompts: from a file, else from the registry, else its own name.

    Args:
        dataset: name of the data set.
        index: its classes.
        path: a JSON object of classes with their words, ``{"01": "metal disc"}``; classes may be missing.

    Raises:
        InputError: if the file cannot be read, has another form, names a class that the data set does not
            have, or gives one no words.
    """
    known = DATA_SETS[dataset].words if dataset in DATA_SETS else {}
    words = {name: known.get(name, name) for name in index.test}
    if path is None:
        return words
    option = f"--class_names {path}"
    content = read_json(path, "--class_names")
    if not isinstance(content, dict):
        raise InputError(f'{option}: expected an object of classes with their words, such as {{"01": "nut"}}')
    for name, text in content.items():
        try:
            select_classes(index, [name])
        except InputError as error:
            raise InputError(f"{option}: {error}") from error
        if not isinstance(text, str) or not text.strip() or printable(text) != text:
            raise InputError(
                f"{option}: class {name} is called {text!r}; expected words that say what its pictures show"
            )
        words[name] = text.strip()
    return words


def is_only_a_number(words: str) -> bool:
    """Whether the words for a class are only a number, as ``01`` or ``Class1``, which prompts cannot use."""
    return not any(sign.isalpha() for sign in words.lower().replace("class", ""))
