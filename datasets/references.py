"""Chooses the normal images of a class that a few-shot run takes as references."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from os import PathLike

import numpy as np

from datasets.items import DatasetIndex, Item
from winclip.support.errors import InputError
from winclip.support.files import read_text
from winclip.support.names import counted


def draw_references(train_items: Sequence[Item], cls_name: str, k: int, seed: int) -> list[Item]:
    """Draw the ``k`` reference images of a class.

    The draw depends on the seed, the class name and the set of train images alone: not on their
    order, on other classes, or on ``k`` (the references of a smaller k come first among those of a
    larger one). No image comes twice.

    Args:
        train_items: the class's train images, in any order.
        cls_name: the class.
        k: number of images, 0 or more.
        seed: any integer.

    Raises:
        InputError: if ``k`` is negative or larger than the number of train images.
    """
    if k < 0:
        raise InputError(f"k_shot is {k}; expected 0 or more")
    if k > len(train_items):
        images = counted(len(train_items), "train image")
        fewer = "ask for fewer" if train_items else "without any, only zero-shot works, --k_shot 0"
        raise InputError(f"class {cls_name} has {images} and k_shot asks for {k}; {fewer}")
    digest = hashlib.sha256(f"{seed}:{cls_name}".encode()).digest()
    # RandomState, because numpy promises that its stream never changes.
    generator = np.random.RandomState(np.frombuffer(digest, dtype="<u4").astype(np.uint32))
    ordered = sorted(train_items, key=lambda item: item.img_path)
    return [ordered[position] for position in generator.permutation(len(ordered))[:k]]


def read_reference_list(
    path: str | PathLike[str], index: DatasetIndex, classes: Iterable[str]
) -> dict[str, list[Item]]:
    """Read the reference images of each class from a file.

    One ``img_path`` of the train split per line; blank lines and lines that begin with ``#`` are
    passed over. Lines of classes that are not evaluated are checked and left out.

    Args:
        path: the file, UTF-8.
        index: the data set.
        classes: the classes to evaluate.

    Returns:
        For each of ``classes``, its images in the order of the file.

    Raises:
        InputError: if the file cannot be read; a line names a test image, an unknown path or one
            that was named before (with the number of the line, counted from 1); or a class has no
            line.
    """
    train: dict[str, list[Item]] = {}
    for item in (item for items in index.train.values() for item in items):
        train.setdefault(item.img_path, []).append(item)
    test = {item.img_path for items in index.test.values() for item in items}

    references: dict[str, list[Item]] = {name: [] for name in classes}
    first_line: dict[str, int] = {}
    for number, text in enumerate(read_text(path, "reference list").split("\n"), start=1):
        line = text.strip()
        if line not in train:  # as other systems write paths
            line = line.strip('"').replace("\\", "/").removeprefix("./")
        if not line or line.startswith("#"):
            continue
        if line in first_line:
            raise InputError(
                f"{path}, line {number}: {line} is listed before, in line {first_line[line]}; take one out"
            )
        if line not in train:
            found = "is a test image" if line in test else "is not in the data set's meta.json"
            example = f", such as {next(iter(train))}" if train else ""
            raise InputError(f"{path}, line {number}: {line} {found}; expected the img_path of a train image{example}")
        first_line[line] = number
        for item in train[line]:
            if item.cls_name in references:
                references[item.cls_name].append(item)
    for name, items in references.items():
        if not items:
            raise InputError(f"{path} lists no image of class {name}; add one or leave the class out with --classes")
    return references
