"""Real-IAD: one JSON file per class lists its images, several views of each object.

``realiad_jsons/CLASS.json`` holds ``meta`` (``normal_class``, ``prefix``), ``train`` and ``test``, whose entries have
``anomaly_class``, ``image_path`` and ``mask_path``; the images are in ``realiad_1024/PREFIX/IMAGE_PATH``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from tqdm import tqdm

from datasets.items import DatasetIndex, Item, stays_inside
from datasets.layout import Warn, assemble, choose_classes, found_in
from winclip.support.errors import InputError
from winclip.support.files import is_file, is_folder, read_json

REAL_IAD_CLASSES = (
    "audiojack", "bottle_cap", "button_battery", "end_cap", "eraser", "fire_hood", "mint", "mounts", "pcb",
    "phone_battery", "plastic_nut", "plastic_plug", "porcelain_doll", "regulator", "rolled_strip_base", "sim_card_set",
    "switch", "tape", "terminalblock", "toothbrush", "toy", "toy_brick", "transistor1", "u_block", "usb",
    "usb_adaptor", "vcpill", "wooden_beads", "woodstick", "zipper",
)  # fmt: skip
REAL_IAD_WORDS = {
    "audiojack": "audio jack",
    "terminalblock": "terminal block",
    "transistor1": "transistor",
    "vcpill": "vitamin C pill",
    "woodstick": "wooden stick",
}
# Where copies keep them, in the order of the search.
_LISTS = ("realiad_jsons", "realiad_jsons/realiad_jsons", ".")
_IMAGES = ("realiad_1024", "realiad_512", "realiad_256", "realiad_raw", ".")


def list_real_iad(
    root: Path, warn: Warn, *, all_classes: bool = False, allow_missing_masks: bool = False
) -> DatasetIndex:
    """List the images that the JSON files below ``root`` list; every view counts as an image.

    Raises:
        InputError: if the root, all JSON files or the images of a class are missing, a file is not as described
            or lists an image or mask that does not exist.
    """
    lists = next((root / place for place in _LISTS if any((root / place).glob("[!.]*.json"))), root)
    names = sorted(path.stem for path in lists.glob("[!.]*.json") if path.name != "meta.json")
    example = f"{root / _LISTS[0] / REAL_IAD_CLASSES[0]}.json"
    chosen = choose_classes("Real-IAD", root, REAL_IAD_CLASSES, names, all_classes, warn, example)
    shown = tqdm(chosen, unit="class", disable=None, dynamic_ncols=True)
    items = (item for name in shown for item in _read_class(root, lists / f"{name}.json"))
    return assemble(root, items, warn, "the file of mask_path in its JSON file", allow_missing_masks)


def _read_class(root: Path, path: Path) -> Iterator[tuple[str, Item]]:
    content = read_json(path, "list of images")
    try:
        normal, prefix = content["meta"]["normal_class"], content["meta"]["prefix"]
        entries = [
            (part, entry["anomaly_class"], entry["image_path"], entry["mask_path"] or "")
            for part in ("train", "test")
            for entry in content[part]
        ]
    except (KeyError, TypeError) as error:
        raise InputError(
            f"{path} is not a list of Real-IAD ({type(error).__name__}: {error}); expected meta with normal_class and"
            " prefix, and train and test with anomaly_class, image_path and mask_path"
        ) from error
    if not all(isinstance(text, str) for text in (normal, prefix, *(text for entry in entries for text in entry))):
        raise InputError(f"{path}: prefix, classes and paths have to be text")
    images = next((place for place in _IMAGES if stays_inside(prefix) and is_folder(root / place / prefix)), None)
    if images is None:
        raise InputError(
            f"{path}: the images of its prefix {prefix!r} are in none of {', '.join(_IMAGES)} of {root};"
            f" {found_in(root)}"
        )
    folder = PurePosixPath(images) / prefix
    for part, kind, image, mask in entries:
        image_path, mask_path = (
            (folder / below.replace("\\", "/")).as_posix() if below else "" for below in (image, mask)
        )
        for whole in filter(None, (image_path, mask_path)):
            if not stays_inside(whole) or not is_file(root / whole):
                raise InputError(f"{path}: lists {whole}, which does not exist in {root}; complete the data set")
        if kind == normal:
            yield part, Item(image_path, "", path.stem, "good", 0)
        else:
            yield part, Item(image_path, mask_path, path.stem, kind, 1)
