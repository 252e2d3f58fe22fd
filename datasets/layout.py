"""Shared by the listers: images and folders in a folder, pairing of images and masks, and choice of classes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from datasets.items import DatasetIndex, Item
from winclip.defaults import IMAGE_ENDINGS
from winclip.support.errors import InputError
from winclip.support.files import is_folder
from winclip.support.names import counted

# Made by archive programs.
ARCHIVE_FOLDER = "__MACOSX"

Warn = Callable[[str], None]


def list_images(folder: Path) -> list[Path]:
    """The image files of a folder, sorted by name; none if there is no such folder.

    Images are known by their ending, in upper or lower case. Hidden files are left out.

    Raises:
        InputError: if the folder cannot be read.
    """
    return [path for path in _list(folder) if path.suffix.lower() in IMAGE_ENDINGS and path.is_file()]


def list_folders(folder: Path) -> list[Path]:
    """The folders of a folder, sorted by name, without hidden ones and those of archive programs."""
    return [path for path in _list(folder) if path.is_dir() and path.name != ARCHIVE_FOLDER]


def _list(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise InputError(f"folder {folder} cannot be read ({error.strerror})") from error


def found_in(folder: Path) -> str:
    """What a folder holds, for errors that say what was expected there: ``"DIR holds a, b, c, d, e and 7 more"``."""
    if not folder.is_dir():
        return f"{folder} does not exist; --root names the place of a data set"
    names = [path.name for path in _list(folder)]
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return f"{folder} holds {', '.join(names[:5]) or 'nothing'}{more}"


def choose_classes(
    title: str, root: Path, known: Sequence[str], found: Iterable[str], all_classes: bool, warn: Warn, example: str
) -> list[str]:
    """The classes to list among those found; ``warn`` is told which are missing or left out.

    Args:
        title: name of the data set.
        root: its folder.
        known: the classes of the published data set.
        found: the classes that are there.
        all_classes: take them all, not only the known ones.
        warn: called with one line each.
        example: what was expected, for the error.

    Raises:
        InputError: if none is left, saying what was expected and what is there.
    """
    unknown = [name for name in found if name not in known]
    chosen = [name for name in found if all_classes or name in known]
    if not chosen:
        hint = f"--all_classes takes these: {', '.join(unknown)}" if unknown else found_in(root)
        raise InputError(f"{root} holds no class of {title} such as {example}; {hint}")
    if unknown and not all_classes:
        warn(f"no class of {title}, left out (--all_classes takes them): {', '.join(unknown)}")
    missing = [name for name in known if name not in chosen]
    if 0 < len(missing) < len(known):
        warn(f"classes of {title} that are not in {root}: {', '.join(missing)}")
    return chosen


def match_masks(images: Sequence[Path], masks: Sequence[Path], ending: str = "_mask") -> list[tuple[Path, Path | None]]:
    """Pair each image with its mask by name: ``000.png`` with ``000_mask.png`` or ``000.png``.

    A mask may also be a folder, called ``000`` or ``000_mask``, whose images are its parts. Masks with other names are
    taken if all of them add the same text before or after the name of an image, and each image has one.

    Raises:
        InputError: if two images or two masks have names that differ only in their ending.
    """
    by_stem, of_images = _by_stem(masks), _by_stem(images)
    found = {stem: by_stem.get(stem + ending, by_stem.get(stem)) for stem in of_images}
    if found and not any(found.values()):
        longest = max(of_images, key=len)
        around = [mask.partition(longest) for mask in by_stem if longest in mask]
        fitting = [
            (before, after)
            for before, _, after in around
            if {before + stem + after for stem in found} == {*by_stem}
            and not any(sign.isdigit() for sign in before[-1:] + after[:1])
        ]
        if len(fitting) == 1:
            found = {stem: by_stem[stem.join(fitting[0])] for stem in found}
    return [(image, found[stem]) for stem, image in of_images.items()]


def _by_stem(paths: Sequence[Path]) -> dict[str, Path]:
    by_stem: dict[str, Path] = {}
    for path in paths:
        stem = path.stem if path.suffix.lower() in IMAGE_ENDINGS else path.name
        if stem in by_stem:
            raise InputError(
                f"{by_stem[stem]} and {path} differ only in their ending or folder, so masks cannot be matched"
                " by name; remove one"
            )
        by_stem[stem] = path
    return by_stem


def mask_files(root: Path, mask_path: str) -> list[str]:
    """The files that a mask is made of, relative to the root: itself, or the images of the folder it names."""
    if mask_path and is_folder(root / mask_path):
        return [f"{mask_path}/{part.name}" for part in list_images(root / mask_path)] or [mask_path]
    return [mask_path] if mask_path else []


def make_item(root: Path, image: Path, cls_name: str, specie_name: str, mask: Path | None = None) -> Item:
    """An item from paths below the root; it is anomalous unless ``specie_name`` is ``good``."""
    mask_path = "" if mask is None else mask.relative_to(root).as_posix()
    return Item(image.relative_to(root).as_posix(), mask_path, cls_name, specie_name, int(specie_name != "good"))


def assemble(
    root: Path,
    items: Iterable[tuple[str, Item]],
    warn: Warn,
    expected_mask: str = "",
    allow_missing_masks: bool = False,
    untrained: Sequence[str] = (),
) -> DatasetIndex:
    """An index of items that each come with their split, ``train`` or ``test``.

    Defective train images are left out. ``warn`` says how many, and how many anomalous images have no mask if that
    is allowed.

    Args:
        root: the data set's folder.
        items: split and item of every image.
        warn: called with one line each.
        expected_mask: where a mask was looked for, for the error.
        allow_missing_masks: also take anomalous test images without a mask.
        untrained: classes that may lack train images; all may if none has any. ``warn`` says so.

    Raises:
        InputError: if a class has no normal train image or no test image, or an anomalous test image no mask.
    """
    train: dict[str, list[Item]] = {}
    test: dict[str, list[Item]] = {}
    left_out = []
    for part, item in items:
        of_train, of_test = train.setdefault(item.cls_name, []), test.setdefault(item.cls_name, [])
        if part == "test":
            of_test.append(item)
        elif item.anomaly:
            left_out.append(item.img_path)
        else:
            of_train.append(item)
    if left_out:
        images = counted(len(left_out), "defective image")
        warn(f"left out: {images} of the train split, the first is {left_out[0]}")
    bare = [name for name, listed in train.items() if not listed and (name in untrained or not any(train.values()))]
    if bare:
        warn(f"no references, so zero-shot only: {', '.join(bare)} without train images")
    for kind, classes in (("normal train", train), ("test", test)):
        for name, listed in classes.items():
            if not listed and not (classes is train and name in bare):
                raise InputError(f"class {name} has no {kind} images in {root}; complete or remove it")
    unmasked = [item.img_path for listed in test.values() for item in listed if item.anomaly and not item.mask_path]
    if unmasked:
        images = counted(len(unmasked), "anomalous image has", "anomalous images have")
        text = f"{images} no mask, the first is {root / unmasked[0]}"
        if not allow_missing_masks:
            raise InputError(f"{text}; expected {expected_mask}; --allow_missing_masks lists them without")
        warn(text)
    return DatasetIndex(root, train, test)
