"""How many good pictures are called anomalous by thresholds that come from references, and how many defects are found.

For every class of the sample, and for the solar cells if the package elpv-dataset is installed, 80 good and 40
defective pictures are drawn; --photos takes folders of your own with train/good, test/good and test/DEFECT. In every
draw 4, 8, 16 or 32 of the good ones are the references, and all others are judged, by several rules. Half an hour on
two cores.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
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
from winclip.prediction.pictures import list_pictures
from winclip.prompts import REFERENCE
from winclip.scoring import GridScores, association_maps, few_shot, score_images
from winclip.support.command_line import ModelOptions, run_command
from winclip.support.errors import InputError
from winclip.support.options import add_options, take_options
from winclip.text import class_embeddings
from winclip.thresholds import FALSE_ALARM_RATE, LeftOut, from_leave_one_out, upper_bound

GOOD, DEFECTIVE = 80, 40
REFERENCES = (4, 8, 16, 32)
Array = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
Compared = tuple[GridScores, Associations]


def former(own: LeftOut, score: Array, text: Array, reference: Array) -> Flags:
    """The rule of version 0.1.0: a normal prediction interval of logits of the score, 1.47 times as wide."""
    logits = [math.log(value / (1 - value)) for value in own.score]
    reach = 1.47 * float(stdtrit(len(logits) - 1, 1 - FALSE_ALARM_RATE)) * math.sqrt(1 + 1 / len(logits))
    return np.log(score / (1 - score)) > fmean(logits) + reach * stdev(logits)


def of_parts(own: LeftOut, score: Array, text: Array, reference: Array) -> Flags:
    """The rule of the current version."""
    found = from_leave_one_out(own)
    assert found.text is not None and found.reference is not None
    return (text > found.text) | (reference > found.reference)


# Share of the references, which are all good, that the rule leaves out as outliers.
ASIDE = "references left aside"
# Each tells for N pictures whether they count as anomalous.
RULES: dict[str, Callable[[LeftOut, Array, Array, Array], Flags]] = {
    "former": former,
    "score": lambda own, score, text, reference: score > upper_bound(own.score, 1.0, FALSE_ALARM_RATE),
    "reference part": lambda own, score, text, ref: ref > upper_bound(own.reference, 1.0, FALSE_ALARM_RATE),
    "either part": of_parts,
}


def pictures(seed: int, photos: Sequence[Path]) -> Iterator[tuple[str, list[ImageLike], int, int]]:
    """Each class with its pictures (possible references first), the number of those, and the number of good ones."""
    for folder in photos:
        train, test = (list_pictures([str(folder / part)]) for part in ("train/good", "test"))
        good = [path for path in test if Path(path).parent.name == "good"]
        yield folder.name, [*train, *good, *(path for path in test if path not in good)], len(train), len(train + good)
    for name, (_, defects) in CLASSES.items():
        drawn: list[ImageLike] = [draw_pair(name, seed, "false alarms/good", index)[0] for index in range(GOOD)]
        kinds = [list(defects)[index % len(defects)] for index in range(DEFECTIVE)]
        drawn += [draw_pair(name, seed, f"false alarms/{kind}", n, kind)[1] for n, kind in enumerate(kinds)]
        yield name, drawn, GOOD, GOOD
    try:
        package = find_package()
    except InputError as error:
        print(f"left out: {CLASS}: {error}")
        return
    chosen: list[ImageLike] = []
    for probability, count in ((0, GOOD), (1, DEFECTIVE)):
        cells = sorted(cell for cell, label in read_labels(package / "labels.csv").items() if label == probability)
        chosen += [package / cell for cell in random_state(seed, CLASS, probability).permutation(cells)[:count]]
    yield CLASS, chosen, GOOD, GOOD


@torch.inference_mode()
def compared(backbone: Backbone, name: str, images: Sequence[ImageLike], good: int) -> Compared:
    """Zero-shot results of all images, and their associations with the good ones, which come first."""
    embeddings = WinCLIP(backbone).encode(images)
    text = class_embeddings(backbone, name.replace("_", " "), REFERENCE)
    return score_images(embeddings, text)[0], associate(embeddings, MemoryBank.of(embeddings[:good]))


def measure(found: Compared, references: Sequence[int]) -> tuple[LeftOut, GridScores]:
    """The scores of every reference against the others, and of all images."""
    zero, associations = found
    own = []
    for one in references:
        maps = association_maps(associations.of_image(one), [other for other in references if other != one])
        found_of_one = few_shot(GridScores(zero.text[one : one + 1], zero.maps[one : one + 1]), maps)
        parts = (found_of_one.scores, found_of_one.text, maps.max(), found_of_one.maps.max())
        own.append(tuple(map(float, parts)))
    return LeftOut(*map(list, zip(*own))), few_shot(zero, association_maps(associations, references))


def rates(found: Compared, count: int, draws: int, random: np.random.RandomState, good: int) -> dict[str, Array]:
    """By rule, the shares of false alarms and of defects found, in per cent, (2,); also for ``ASIDE``."""
    pool, shares = found[1].patch.shape[1], defaultdict(list)
    for _ in range(draws):
        references = random.permutation(pool)[:count].tolist()
        own, everyone = measure(found, references)
        assert everyone.reference is not None
        values = everyone.scores.numpy(), everyone.text.numpy(), everyone.reference.numpy()
        held_out = np.setdiff1d(np.arange(good), references)
        for name, rule in RULES.items():
            alarms = rule(own, *values)
            shares[name].append((alarms[held_out].mean(), alarms[good:].mean()))
        shares[ASIDE].append((len(from_leave_one_out(own).aside) / count, 0))
    return {name: 100 * np.mean(each, axis=0) for name, each in shares.items()}


def main() -> int:
    """Measure every class, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=2, help="seed of the pictures and draws (2)")
    parser.add_argument("--draws", type=int, default=50, help="draws of references for each class and number (50)")
    parser.add_argument("--photos", type=Path, nargs="+", default=[], metavar="DIR", help="folders of your own classes")
    add_options(parser, ModelOptions)
    parser.set_defaults(model=DEMO_MODEL)
    options = parser.parse_args()
    backbone = take_options(ModelOptions, vars(options)).load().backbone
    found: dict[tuple[int, str], dict[str, Array]] = {}
    for name, images, pool, good in pictures(options.seed, options.photos):
        one = compared(backbone, name, images, pool)
        for count in REFERENCES:
            if count < pool:
                random = random_state(options.seed, name, count)
                found[count, name] = rates(one, count, options.draws, random, good)
        print(f"measured: {name}", flush=True)
    rows, whole = [], []
    for count in REFERENCES:
        each = {name: by_rule for (number, name), by_rule in found.items() if number == count}
        rows += [
            [count, name, *(f"{by_rule[rule][0]:.1f} / {by_rule[rule][1]:.1f}" for rule in RULES)]
            for name, by_rule in each.items()
        ]
        for rule in RULES:
            alarms, defects = np.array([by_rule[rule] for by_rule in each.values()]).T
            whole.append([count, rule, *(f"{one:.1f}" for one in (alarms.mean(), alarms.max(), defects.mean()))])
        whole.append([count, ASIDE, f"{np.mean([by_rule[ASIDE][0] for by_rule in each.values()]):.2f}", "", ""])
    how = {"tablefmt": "pipe", "disable_numparse": True}
    print(tabulate(rows, ["references", "class", *RULES], **how))
    print(tabulate(whole, ["references", "rule", "false alarms", "highest of a class", "defects found"], **how))
    print(f"per cent, false alarms / defects found; seed {options.seed}, {options.draws} draws; {machine()}")
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
