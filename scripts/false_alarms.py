"""How many good pictures exceed the threshold that comes from references, and how many defects are found.

For every class of the sample, and for the solar cells if the package elpv-dataset is installed, 240 good and 100
defective pictures are drawn. In every draw 4, 8 or 16 of the good ones are the references, and all others are judged.
20 minutes on two cores with --draws 50.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch
from tabulate import tabulate

from datasets.elpv import CLASS, find_package, read_labels
from scripts.benchmark import machine
from winclip.defaults import DEMO_MODEL
from winclip.demo.procedural import random_state
from winclip.demo.sample import CLASSES, draw_pair
from winclip.memory import Associations, MemoryBank, associate
from winclip.model import WinCLIP
from winclip.network.backbone import Backbone
from winclip.pictures.images import ImageLike
from winclip.prompts import REFERENCE
from winclip.scoring import GridScores, association_maps, few_shot, zero_shot
from winclip.support.command_line import ModelOptions, exit_status
from winclip.support.errors import InputError
from winclip.support.options import add_options, take_options
from winclip.text import class_embeddings
from winclip.thresholds import prediction_bound

GOOD, DEFECTIVE = 240, 100
REFERENCES = (4, 8, 16)
Array = npt.NDArray[np.float64]
Compared = tuple[GridScores, Associations]


def pictures(seed: int) -> Iterator[tuple[str, list[ImageLike]]]:
    """Each class with its pictures, the good ones first."""
    for name, (_, defects) in CLASSES.items():
        good: list[ImageLike] = [draw_pair(name, seed, "false alarms/good", index)[0] for index in range(GOOD)]
        kinds = [list(defects)[index % len(defects)] for index in range(DEFECTIVE)]
        yield name, good + [draw_pair(name, seed, f"false alarms/{kind}", n, kind)[1] for n, kind in enumerate(kinds)]
    try:
        package = find_package()
    except InputError as error:
        print(f"left out: {CLASS}: {error}")
        return
    chosen: list[ImageLike] = []
    for probability, count in ((0, GOOD), (1, DEFECTIVE)):
        cells = sorted(cell for cell, label in read_labels(package / "labels.csv").items() if label == probability)
        chosen += [package / cell for cell in random_state(seed, CLASS, probability).permutation(cells)[:count]]
    yield CLASS, chosen


@torch.inference_mode()
def compared(backbone: Backbone, name: str, images: Sequence[ImageLike], good: int = GOOD) -> Compared:
    """Zero-shot results of all images, and their associations with the good ones, which come first."""
    embeddings = WinCLIP(backbone).encode(images)
    text = class_embeddings(backbone, name.replace("_", " "), REFERENCE)
    return zero_shot(embeddings, text), associate(embeddings, MemoryBank.of(embeddings[:good]))


def measure(zero: GridScores, associations: Associations, references: Sequence[int]) -> tuple[Array, Array]:
    """Score and highest map value of every reference against the others, (2, R), and of all N images, (2, N)."""

    def measured(images: slice, found: Associations, chosen: Sequence[int]) -> Array:
        scores, maps = few_shot(GridScores(zero.scores[images], zero.maps[images]), association_maps(found, chosen))
        return np.stack([scores.numpy(), maps.amax(dim=(1, 2)).numpy()])

    own = [measured(slice(i, i + 1), associations.of_image(i), [k for k in references if k != i]) for i in references]
    return np.concatenate(own, axis=1), measured(slice(None), associations, references)


def rates(found: Compared, count: int, draws: int, random: np.random.RandomState) -> Array:
    """False alarms and defects found, by score and by the highest map value, in per cent, (4,)."""
    good = found[1].patch.shape[1]
    shares = []
    for _ in range(draws):
        references = random.permutation(good)[:count].tolist()
        own, everyone = measure(*found, references)
        held_out = np.setdiff1d(np.arange(good), references)
        bounds = [prediction_bound(values, highest) for values, highest in zip(own.tolist(), (1.0, 2.0))]
        alarms = everyone > np.asarray(bounds)[:, None]
        shares.append([share for row in alarms for share in (row[held_out].mean(), row[good:].mean())])
    return 100 * np.mean(shares, axis=0)


def main() -> int:
    """Measure every class, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=2, help="of the pictures and draws (2)")
    parser.add_argument("--draws", type=int, default=200, help="of references, for each class and number (200)")
    add_options(parser, ModelOptions)
    parser.set_defaults(model=DEMO_MODEL)
    options = parser.parse_args()
    backbone = take_options(ModelOptions, vars(options)).load().backbone
    found: dict[tuple[int, str], Array] = {}
    for name, images in pictures(options.seed):
        one = compared(backbone, name, images)
        for count in REFERENCES:
            found[count, name] = rates(one, count, options.draws, random_state(options.seed, name, count))
        print(f"measured: {name}", flush=True)
    for number in REFERENCES:
        found[number, "all"] = np.mean([one for (count, _), one in found.items() if count == number], axis=0)
    rows = [[*key, *(f"{value:.1f}" for value in found[key])] for key in sorted(found, key=lambda key: key[0])]
    header = ["references", "class", "false alarms", "found", "with false area", "with area found"]
    print(tabulate(rows, header, tablefmt="pipe", disable_numparse=True))
    print(f"per cent; seed {options.seed}, {options.draws} draws; {machine()}")
    return 0


if __name__ == "__main__":
    sys.exit(exit_status(main))
