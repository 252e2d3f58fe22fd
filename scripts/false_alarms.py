"""How many good pictures exceed the threshold that comes from references, and how many defects are found.

    python -m scripts.false_alarms

For every class of the sample, and for the solar cells if the package elpv-dataset is installed, 240 good and 100
defective pictures are drawn. In every draw 4, 8 or 16 of the good ones are the references, and all the other pictures
are judged. The rule that held before is shown first: a normal distribution of the scores. Takes 25 minutes
on two cores with --draws 50.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from statistics import fmean, stdev

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import stdtrit
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
from winclip.thresholds import FALSE_ALARM_RATE, prediction_bound

GOOD, DEFECTIVE = 240, 100
REFERENCES = (4, 8, 16)
Rule = Callable[[Sequence[float], float], float]


def normal_bound(values: Sequence[float], highest: float) -> float:
    """The rule that held before: the prediction interval of a normal distribution of the values."""
    reach = float(stdtrit(len(values) - 1, 1 - FALSE_ALARM_RATE)) * math.sqrt(1 + 1 / len(values))
    return min(fmean(values) + reach * stdev(values), highest)


RULES: tuple[Rule, ...] = (normal_bound, prediction_bound)


def pictures(seed: int) -> Iterator[tuple[str, list[ImageLike]]]:
    """Each class with its pictures, the good ones first."""
    part = "false alarms"
    for name, (_, defects) in CLASSES.items():
        good: list[ImageLike] = [draw_pair(name, seed, f"{part}/good", index)[0] for index in range(GOOD)]
        kinds = [list(defects)[index % len(defects)] for index in range(DEFECTIVE)]
        yield name, good + [draw_pair(name, seed, f"{part}/{kind}", n, kind)[1] for n, kind in enumerate(kinds)]
    try:
        package = find_package()
    except InputError as error:
        print(f"left out: {CLASS}: {error}")
        return
    labels = read_labels(package / "labels.csv")
    chosen: list[ImageLike] = []
    for probability, count in ((0, GOOD), (1, DEFECTIVE)):
        cells = sorted(cell for cell, label in labels.items() if label == probability)
        chosen += [package / cell for cell in random_state(seed, CLASS, probability).permutation(cells)[:count]]
    yield CLASS, chosen


@torch.inference_mode()
def compared(
    backbone: Backbone, name: str, images: Sequence[ImageLike], good: int = GOOD
) -> tuple[GridScores, Associations]:
    """Zero-shot results of all images, and their associations with the good ones, which come first."""
    embeddings = WinCLIP(backbone).encode(images)
    text = class_embeddings(backbone, name.replace("_", " "), REFERENCE)
    return zero_shot(embeddings, text), associate(embeddings, MemoryBank.of(embeddings[:good]))


def measure(
    zero: GridScores, associations: Associations, references: Sequence[int]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Score and highest map value of every reference against the others, (2, R), and of all N images, (2, N)."""

    def measured(images: slice, compared_with: Associations, chosen: Sequence[int]) -> npt.NDArray[np.float64]:
        some = GridScores(zero.scores[images], zero.maps[images])
        scores, maps = few_shot(some, association_maps(compared_with, chosen))
        return np.stack([scores.numpy(), maps.amax(dim=(1, 2)).numpy()])

    own = [
        measured(slice(one, one + 1), associations.of_image(one), [other for other in references if other != one])
        for one in references
    ]
    return np.concatenate(own, axis=1), measured(slice(None), associations, references)


def rates(
    zero: GridScores, associations: Associations, count: int, draws: int, random: np.random.RandomState
) -> npt.NDArray[np.float64]:
    """For each rule: false alarms and defects found by score, and by the highest map value, in per cent, (rules, 4)."""
    good = associations.patch.shape[1]
    found = []
    for _ in range(draws):
        references = random.permutation(good)[:count].tolist()
        own, everyone = measure(zero, associations, references)
        held_out = np.setdiff1d(np.arange(good), references)
        shares = []
        for rule in RULES:
            bounds = [rule(values, highest) for values, highest in zip(own.tolist(), (1.0, 2.0))]
            alarms = everyone > np.asarray(bounds)[:, None]
            shares.append(np.stack([alarms[:, held_out].mean(axis=1), alarms[:, good:].mean(axis=1)], axis=1).ravel())
        found.append(shares)
    return 100 * np.mean(found, axis=0)


def main() -> int:
    """Print the table; returns the exit status: 0, or 2 after bad input."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=2, help="of the pictures and draws (2)")
    parser.add_argument("--draws", type=int, default=200, help="of references, for each class and number (200)")
    add_options(parser, ModelOptions)
    parser.set_defaults(model=DEMO_MODEL)
    options = parser.parse_args()
    return exit_status(lambda: run(options))


def run(options: argparse.Namespace) -> int:
    """Measure every class, and print the table."""
    backbone = take_options(ModelOptions, vars(options)).load().backbone
    results: dict[str, dict[int, npt.NDArray[np.float64]]] = {}
    for name, images in pictures(options.seed):
        zero, associations = compared(backbone, name, images)
        results[name] = {
            count: rates(zero, associations, count, options.draws, random_state(options.seed, name, count))
            for count in REFERENCES
        }
        print(f"measured: {name}", flush=True)
    rows = [
        [count, name, *(f"{value:.1f}" for value in found[count].T.ravel())]
        for count in REFERENCES
        for name, found in [
            *results.items(),
            ("all", {count: np.mean([one[count] for one in results.values()], axis=0)}),
        ]
    ]
    what = [
        f"{kind}, {when}"
        for kind in ("false alarms", "found", "with false area", "with area found")
        for when in ("before", "now")
    ]
    print(tabulate(rows, ["references", "class", *what], tablefmt="pipe", disable_numparse=True))
    print(f"per cent; seed {options.seed}, {options.draws} draws; {machine()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
