"""Reads every image and mask of a data set without a model, and lists all that is wrong with them at once."""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from datasets.index import load_index, outside, select_classes
from datasets.items import DatasetIndex, Item
from datasets.layout import mask_files
from datasets.samples import read_mask
from evaluation.options import Options
from winclip.pictures.images import open_image, read_image
from winclip.pictures.reading import usable_workers
from winclip.support.errors import InputError
from winclip.support.files import write_atomically
from winclip.support.names import cell, file_name, printable

FILE = "check_data.json"
# Images smaller than this are blown up manifold; longer ones are pressed together as much.
SMALLEST_SIDE, LONGEST = 32, 10

# In the order of the text. Every problem is of one of these kinds.
KINDS = {
    "unreadable": "cannot be read",
    "link": "outside of the data set folder, where a link leads; --allow_links reads it",
    "mask size": "mask and image differ in size",
    "empty mask": "mask of a defective image without a defect pixel",
    "good with defect": "good image whose mask has defect pixels",
    "no mask": "defective image without a mask, in a class that has masks",
    "train and test": "same content in train and test",
    "twice in test": "same content twice in test",
    "size": f"side below {SMALLEST_SIDE} pixels, or more than {LONGEST} times as long as wide",
    "mode": "another kind of pixels than most images of the class",
    "name": "name that files or tables cannot hold as it is",
}


@dataclass(frozen=True)
class Problem:
    """Something wrong with a file.

    Attributes:
        kind: one of ``KINDS``.
        cls_name: the class.
        path: of the image or mask, relative to the root; empty if it is about the class.
        text: what is wrong, in words.
    """

    kind: str
    cls_name: str
    path: str
    text: str


@dataclass(frozen=True)
class _Entry:
    part: str
    item: Item


@dataclass(frozen=True)
class _Seen:
    """What reading an entry has shown; ``digest`` and ``mode`` are empty where the image cannot be read."""

    entry: _Entry
    digest: str
    mode: str
    problems: list[Problem]


def check_data(options: Options) -> tuple[str, int]:
    """Check the classes of the options, and write ``check_data.json`` to their ``save_path``.

    Returns:
        The problems as text, and the exit status: 1 if there is one, else 0.

    Raises:
        InputError: if there is no meta.json of the form that ``load_index`` takes, or the file cannot be written.
    """
    index = load_index(options.data_path)
    classes = select_classes(index, options.classes)
    entries = [
        _Entry(part, item)
        for name in classes
        for part, items in (("train", index.train[name]), ("test", index.test[name]))
        for item in items
    ]
    masked = {name for name in classes if any(item.anomaly and item.mask_path for item in index.test[name])}
    seen = list(_read_all(index, entries, masked, options))
    problems = [problem for one in seen for problem in one.problems]
    problems += [*_repeated(seen), *_other_modes(seen), *_bad_names(classes, entries)]
    order = list(KINDS)
    problems.sort(key=lambda problem: (order.index(problem.kind), problem.cls_name, problem.path, problem.text))
    content = {
        "dataset": options.dataset,
        "data_path": str(options.data_path),
        "classes": classes,
        "images": len(entries),
        "masks": sum(bool(entry.item.mask_path) for entry in entries),
        "problems": [asdict(problem) for problem in problems],
    }
    target = options.save_path / FILE
    write_atomically(target, json.dumps(content, indent=2) + "\n")
    summary = (
        f"{content['images']} images and {content['masks']} masks of {len(classes)} classes: {len(problems) or 'no'}"
        f" problems; written to {printable(str(target))}"
    )
    return "\n".join([*_lines(problems), summary]), 1 if problems else 0


def _lines(problems: list[Problem]) -> Iterator[str]:
    for kind, title in KINDS.items():
        of_kind = [problem for problem in problems if problem.kind == kind]
        if of_kind:
            yield f"{title} ({len(of_kind)}):"
            yield from (f"  {printable(problem.text)}" for problem in of_kind)


def _read_all(index: DatasetIndex, entries: list[_Entry], masked: set[str], options: Options) -> Iterator[_Seen]:
    """What every entry shows, in order, read in threads."""
    read = partial(_read, root=index.root, masked=masked, allow_links=options.allow_links)
    # Pillow takes a file for unknown while another thread registers the formats, so each sees to it first.
    with ThreadPoolExecutor(usable_workers(options.reading.num_workers) or 1, initializer=Image.init) as pool:
        yield from tqdm(pool.map(read, entries), total=len(entries), unit="image", disable=None, dynamic_ncols=True)


def _read(entry: _Entry, root: Path, masked: set[str], allow_links: bool) -> _Seen:
    item, problems = entry.item, []

    def found(kind: str, path: str, text: str) -> None:
        problems.append(Problem(kind, item.cls_name, path, text))

    digest, mode, size = "", "", None
    if not allow_links:
        for path in (item.img_path, *mask_files(root, item.mask_path)):
            real = outside(root, path)
            if real:
                found("link", path, f"{path} is {real}")
        if problems:
            return _Seen(entry, digest, mode, problems)
    try:
        image = read_image(root / item.img_path)
        with open_image(root / item.img_path) as stored:
            mode = stored.mode
        size = image.size
        digest = hashlib.sha256(repr(size).encode() + image.tobytes()).hexdigest()
    except InputError as error:
        found("unreadable", item.img_path, str(error))
    if size and (min(size) < SMALLEST_SIDE or max(size) > LONGEST * min(size)):
        found("size", item.img_path, f"{item.img_path} is {size[0]} x {size[1]}")
    if item.mask_path:
        try:
            mask = read_mask(root / item.mask_path)
        except InputError as error:
            found("unreadable", item.mask_path, str(error))
        else:
            if size and mask.shape != size[::-1]:
                text = (
                    f"{item.mask_path} is {mask.shape[1]} x {mask.shape[0]}, {item.img_path} is {size[0]} x {size[1]}"
                )
                found("mask size", item.mask_path, text)
            if item.anomaly and not mask.any():
                found("empty mask", item.mask_path, f"{item.mask_path} of {item.img_path} has no defect pixel")
            if not item.anomaly and mask.any():
                text = f"{item.mask_path} has {int(mask.sum())} defect pixels and {item.img_path} is good"
                found("good with defect", item.mask_path, text)
    elif item.anomaly and item.cls_name in masked:
        found(
            "no mask", item.img_path, f"{item.img_path} has no mask; the pixel metrics of {item.cls_name} are left out"
        )
    return _Seen(entry, digest, mode, problems)


def _repeated(seen: list[_Seen]) -> Iterator[Problem]:
    """Content that is there twice, once in test at least."""
    same: dict[str, list[_Entry]] = defaultdict(list)
    for one in seen:
        if one.digest:
            same[one.digest].append(one.entry)
    for entries in same.values():
        first, *others = sorted(entries, key=lambda entry: entry.part == "test")
        for entry in others:
            if entry.part == "test":
                kind = "twice in test" if first.part == "test" else "train and test"
                item = entry.item
                text = f"{item.img_path} has the content of {first.item.img_path} in {first.part}"
                yield Problem(kind, item.cls_name, item.img_path, text)


def _other_modes(seen: list[_Seen]) -> Iterator[Problem]:
    modes: dict[str, Counter[str]] = defaultdict(Counter)
    for one in seen:
        if one.digest:
            modes[one.entry.item.cls_name][one.mode] += 1
    for one in seen:
        item = one.entry.item
        if one.digest:
            usual = modes[item.cls_name].most_common(1)[0][0]
            if one.mode != usual:
                text = f"{item.img_path} is stored in mode {one.mode}, most of {item.cls_name} in {usual}"
                yield Problem("mode", item.cls_name, item.img_path, text)


def _bad_names(classes: list[str], entries: list[_Entry]) -> Iterator[Problem]:
    for name in classes:
        if file_name(name, ".npz") != f"{name}.npz" or name != name.rstrip(". ") or set(name) & set('<>:"|?*'):
            yield Problem("name", name, "", f"class {name} is no name of a file on every system; rename it")
        if cell(name) != name:
            yield Problem("name", name, "", f"class {name} is written as {cell(name)} in tables")
    for entry in entries:
        item = entry.item
        for text in (item.img_path, item.specie_name):
            if cell(text) != text:
                yield Problem("name", item.cls_name, item.img_path, f"{text} is written as {cell(text)} in tables")
        if item.img_path != item.img_path.strip() or item.img_path.startswith("#") or "\n" in item.img_path:
            text = f"{item.img_path} cannot be a line of a --reference_list"
            yield Problem("name", item.cls_name, item.img_path, text)
