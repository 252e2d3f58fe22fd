"""Reads every image and mask of a data set without a model, and lists every problem at once."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from itertools import groupby
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from datasets.index import load_index, outside, select_classes
from datasets.items import Item
from datasets.layout import mask_files
from datasets.samples import read_graded, resize_mask, turning_fits
from evaluation.oddities import GRADED_TEXT, inverted
from evaluation.options import Options
from winclip.defaults import DEFAULT_MODEL, DEMO_MODEL
from winclip.pictures.images import open_image, read_image
from winclip.pictures.intake import Intake
from winclip.pictures.reading import usable_workers
from winclip.support.errors import InputError
from winclip.support.files import write_atomically
from winclip.support.names import cell, counted, file_name, printable

FILE = "check_data.json"
# Smaller images are enlarged many times over; longer ones are squeezed as much.
SMALLEST_SIDE, LONGEST = 32, 10

# The kinds of problems, in the order in which they are printed.
KINDS = {
    "unreadable": "cannot be read",
    "link": "outside of the data set folder, reached by a link; --allow_links reads it",
    "turned": "image that EXIF would turn; --upright turns it, else it is read as stored",
    "mask size": "mask and image differ in size",
    "graded mask": f"mask with {GRADED_TEXT}",
    "empty mask": "mask of a defective image without a defect pixel",
    "gone": "mask with no defect pixel left at the model's input size, so the defect counts as good",
    "full mask": "mask with defects in every pixel",
    "inverted": "most masks of a class with defects in most pixels, perhaps inverted",
    "good with defect": "good image whose mask has defect pixels",
    "no mask": "defective image without a mask, in a class that has masks",
    "train and test": "same content in train and test",
    "twice in test": "same content twice in test",
    "size": f"side below {SMALLEST_SIDE} pixels, or more than {LONGEST} times as long as wide",
    "mode": "pixel mode that differs from most images of the class",
    "depth": "more than 8 bits of which few are used, or more than one page",
    "name": "name that files or tables cannot hold unchanged",
}


@dataclass(frozen=True)
class Problem:
    """A problem: one of ``KINDS``, the class, the path (empty if it concerns the whole class), and a description."""

    kind: str
    cls_name: str
    path: str
    text: str


@dataclass(frozen=True)
class _Seen:
    """An item of a split and what reading it showed; ``digest`` and ``mode`` are empty if it cannot be read.

    ``share`` is the fraction of defect pixels in the mask of a defective image.
    """

    part: str
    item: Item
    digest: str
    mode: str
    problems: list[Problem]
    share: float | None = None


def check_data(options: Options) -> tuple[str, int]:
    """Check the classes of the options, and write ``check_data.json`` to their ``save_path``.

    Returns:
        The problems as text, and the exit status: 1 if there are any, else 0.

    Raises:
        InputError: if ``load_index`` refuses meta.json, or the file cannot be written.
    """
    index = load_index(options.data_path)
    classes = select_classes(index, options.classes)
    parts = (("train", index.train), ("test", index.test))
    entries = [(part, item) for name in classes for part, items in parts for item in items[name]]
    masked = {name for name in classes if any(item.anomaly and item.mask_path for item in index.test[name])}
    intakes = {name: Intake(options.model.white) for name in classes}
    side = _model_side(options)
    read = partial(_read, root=index.root, masked=masked, options=options, side=side, intakes=intakes)
    # Pillow rejects files while another thread still registers the formats, so every thread registers them first.
    with ThreadPoolExecutor(usable_workers(options.reading.num_workers) or 1, initializer=Image.init) as pool:
        results = pool.map(read, *zip(*entries))
        seen = list(tqdm(results, total=len(entries), unit="image", disable=None, dynamic_ncols=True))
    problems = [problem for one in seen for problem in one.problems]
    problems += [*_compared(seen), *_bad_names(classes, seen)]
    for name in classes:
        shares = [one.share for one in seen if one.item.cls_name == name and one.share is not None]
        if count := inverted(shares):
            text = f"{name}: {count} of {counted(len(shares), 'mask')}"
            problems.append(Problem("inverted", name, "", text))
    problems += [
        Problem("depth", name, "", f"{name}: {text}") for name in classes for text in intakes[name].odd().values()
    ]
    problems.sort(key=lambda problem: (list(KINDS).index(problem.kind), problem.cls_name, problem.path, problem.text))
    masks = sum(bool(item.mask_path) for _, item in entries)
    content = {
        "dataset": options.dataset,
        "data_path": str(options.data_path),
        "classes": classes,
        "images": len(entries),
        "masks": masks,
        "problems": [asdict(problem) for problem in problems],
    }
    target = options.save_path / FILE
    write_atomically(target, json.dumps(content, indent=2) + "\n")
    lines = []
    for kind, found in groupby(problems, key=lambda problem: problem.kind):
        texts = [f"  {printable(problem.text)}" for problem in found]
        lines += [f"{KINDS[kind]} ({len(texts)}):", *texts]
    lines.append(
        f"{counted(len(entries), 'image')} and {counted(masks, 'mask')} of"
        f" {counted(len(classes), 'class', 'classes')}:"
        f" {counted(len(problems), 'problem') if problems else 'no problems'}; written to"
        f" {printable(str(target))}"
    )
    return "\n".join(lines), 1 if problems else 0


def _model_side(options: Options) -> int:
    """Side in pixels of the model's input, from its config if its name does not tell."""
    model = options.model
    if model.image_size or model.model in (DEFAULT_MODEL, DEMO_MODEL):
        return model.image_size or 240
    from winclip.network.pretrained import read_config

    vision = read_config(model.model)[0].get("vision_cfg")
    side = vision.get("image_size") if isinstance(vision, dict) else None
    return side if isinstance(side, int) and side > 0 else 224  # open_clip's own


def _read(
    part: str, item: Item, root: Path, masked: set[str], options: Options, side: int, intakes: dict[str, Intake]
) -> _Seen:
    problems: list[Problem] = []

    def found(kind: str, path: str, text: str) -> None:
        problems.append(Problem(kind, item.cls_name, path, f"{path} {text}"))

    digest, mode, image, share = "", "", None, None
    image_path, mask_path = item.img_path, item.mask_path
    for path in () if options.allow_links else (image_path, *mask_files(root, mask_path)):
        if real := outside(root, path):
            found("link", path, f"is {real}")
    if problems:
        return _Seen(part, item, digest, mode, problems)
    try:
        image = read_image(root / image_path, upright=options.upright, intake=intakes[item.cls_name])
        with open_image(root / image_path) as stored:
            size, mode = image.size, stored.mode
        turn = intakes[item.cls_name].turned.get(str(root / image_path), 1)
        if not options.upright and turn > 1:
            found("turned", image_path, f"has EXIF orientation {turn}")
        digest = hashlib.sha256(repr(size).encode() + image.tobytes()).hexdigest()
        if min(size) < SMALLEST_SIDE or max(size) > LONGEST * min(size):
            found("size", image_path, f"is {size[0]} x {size[1]}")
    except InputError as error:
        problems.append(Problem("unreadable", item.cls_name, image_path, str(error)))
    if mask_path:
        try:
            mask, graded = read_graded(root / mask_path, options.upright)
        except InputError as error:
            problems.append(Problem("unreadable", item.cls_name, mask_path, str(error)))
        else:
            if image and mask.shape != image.size[::-1]:
                text = f"is {mask.shape[1]} x {mask.shape[0]}, {image_path} is {image.width} x {image.height}"
                found("mask size", mask_path, text + turning_fits(turn, image, mask, options.upright))
            if graded:
                found("graded mask", mask_path, f"of {image_path}")
            share = float(mask.mean()) if item.anomaly else None
            if share == 0:
                found("empty mask", mask_path, f"of {image_path} has no defect pixel")
            elif share == 1:
                found("full mask", mask_path, f"of {image_path} has defects only")
            elif share and not resize_mask(mask, side).any():
                pixels = counted(int(mask.sum()), "defect pixel", "defect pixels")
                found("gone", mask_path, f"of {image_path} has {pixels}, and none at {side} x {side}")
            if not item.anomaly and mask.any():
                pixels = counted(int(mask.sum()), "defect pixel", "defect pixels")
                found("good with defect", mask_path, f"has {pixels} and {image_path} is good")
    elif item.anomaly and item.cls_name in masked:
        found("no mask", image_path, f"has no mask; the pixel metrics of {item.cls_name} are left out")
    return _Seen(part, item, digest, mode, problems, share)


def _compared(seen: list[_Seen]) -> Iterator[Problem]:
    """Problems that show by comparison: duplicates, of which at least one is in test, and differing modes."""
    readable = sorted((one for one in seen if one.digest), key=lambda one: one.part == "test")
    modes = Counter((one.item.cls_name, one.mode) for one in readable)
    usual = dict(key for key, _ in reversed(modes.most_common()))
    first: dict[str, _Seen] = {}
    for one in readable:
        path, name, before = one.item.img_path, one.item.cls_name, first.setdefault(one.digest, one)
        if before is not one and one.part == "test":
            kind = "twice in test" if before.part == "test" else "train and test"
            yield Problem(kind, name, path, f"{path} has the content of {before.item.img_path} in {before.part}")
        if one.mode != usual[name]:
            yield Problem("mode", name, path, f"{path} is stored in mode {one.mode}, most of {name} in {usual[name]}")


def _bad_names(classes: list[str], seen: list[_Seen]) -> Iterator[Problem]:
    for name in classes:
        if file_name(name, ".npz") != f"{name}.npz" or name != name.rstrip(". ") or set(name) & set('<>:"|?*'):
            yield Problem("name", name, "", f"class {name} is not a valid file name on every system; rename it")
        if cell(name) != name:
            yield Problem("name", name, "", f"class {name} is written as {cell(name)} in tables")
    for item in (one.item for one in seen):
        path = item.img_path
        for text in (path, item.specie_name):
            if cell(text) != text:
                yield Problem("name", item.cls_name, path, f"{text} is written as {cell(text)} in tables")
        if path != path.strip() or path.startswith("#") or "\n" in path:
            yield Problem("name", item.cls_name, path, f"{path} cannot be a line of a --reference_list")
