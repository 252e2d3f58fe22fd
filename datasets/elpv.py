"""Lays out the solar cells of the Python package ``elpv-dataset`` as a data set that test.py reads.

Functional cells (defect probability 0) are normal: sorted by name, the first, third, fifth ... go to
train and the others to test. Defective cells (probability 1) are the anomalous test images. Cells
in between are left out. There are no masks.
"""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path, PurePosixPath

from datasets.items import DatasetIndex, Item, stays_inside
from datasets.layout import Warn
from winclip.support.errors import InputError
from winclip.support.names import counted

CLASS = "solar_cell"
LICENCE = (
    "elpv-dataset: photographs by Buerhop-Lutz, Deitsch et al. (https://github.com/zae-bayern/elpv-dataset),"
    " licence CC BY-NC-SA 4.0: name the authors, no commercial use, pass on under the same licence"
)


def find_package() -> Path:
    """The data folder of the installed package, with ``labels.csv`` and ``images`` in it.

    Raises:
        InputError: if the package is not installed or has no labels.
    """
    spec = importlib.util.find_spec("elpv_dataset")
    folder = Path(spec.submodule_search_locations[0], "data") if spec and spec.submodule_search_locations else None
    if folder is None or not (folder / "labels.csv").is_file():
        raise InputError(
            "the Python package elpv-dataset is not installed, or has no labels.csv; install it with: python -m pip"
            " install elpv-dataset"
        )
    return folder


def read_labels(path: Path) -> dict[str, float]:
    """The defect probability of each image, by its path relative to the file's folder.

    Raises:
        InputError: if a line is not a path, a probability in [0, 1] and a type.
    """
    probabilities = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        # Spaces in the package; other programs write tabs, semicolons or commas.
        separator = next((sign for sign in "\t;," if sign in line), None)
        image, text, *_ = [*(cell.strip(' "') for cell in line.split(separator)), "", ""]
        image = image.replace("\\", "/")
        if number == 1 and not any(sign.isdigit() for sign in line):  # a header
            continue
        try:
            probability = float(text.replace(",", "."))
        except ValueError:
            probability = -1
        if not 0 <= probability <= 1 or not stays_inside(image):
            raise InputError(f"{path}, line {number}: {line!r} is not an image path with a probability from 0 to 1")
        probabilities[image] = probability
    return probabilities


def list_elpv(root: Path, warn: Warn) -> DatasetIndex:
    """Copy the images to ``root`` in the layout of MVTec AD and list them; ``warn`` says how many are left out.

    Raises:
        InputError: if the package or an image of it is missing, or ``root`` cannot be written to.
    """
    package = find_package()
    probabilities = read_labels(package / "labels.csv")
    functional = sorted(image for image, probability in probabilities.items() if probability == 0)
    defective = sorted(image for image, probability in probabilities.items() if probability == 1)
    if len(functional) < 2:
        cells = counted(len(functional), "functional cell")
        raise InputError(f"{package / 'labels.csv'} lists {cells}; expected 2 or more")
    train = [_copy(package, image, root, "train", "good") for image in functional[0::2]]
    test = [_copy(package, image, root, "test", "good") for image in functional[1::2]]
    test += [_copy(package, image, root, "test", "defective") for image in defective]
    between = len(probabilities) - len(functional) - len(defective)
    if between:
        warn(f"{between} of {len(probabilities)} cells have a defect probability between 0 and 1 and are left out")
    return DatasetIndex(root, {CLASS: train}, {CLASS: test})


def _copy(package: Path, image: str, root: Path, part: str, specie_name: str) -> Item:
    img_path = f"{CLASS}/{part}/{specie_name}/{PurePosixPath(image).name}"
    try:
        (root / img_path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(package / image, root / img_path)
    except OSError as error:
        raise InputError(
            f"cannot copy {package / image} to {root / img_path} ({error.strerror}); name another place with --root,"
            " or install elpv-dataset again"
        ) from error
    return Item(img_path, "", CLASS, specie_name, int(specie_name != "good"))
