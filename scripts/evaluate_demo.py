"""Judge the demo backbone on samples of several seeds, and an older one beside it on the same pictures.

    python -m scripts.evaluate_demo --other old/demo-vit-240.json old/demo-vit-240.safetensors

For every class: the metrics zero-shot and with the first 4 of the 16 good pictures as references, and with the
first 8 as references what the threshold rule makes of the other pictures. Tables of means over the seeds are printed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from statistics import fmean

import numpy as np
import torch
from tabulate import tabulate
from tqdm import tqdm

from datasets.samples import resize_mask
from evaluation.results import METRICS
from winclip.defaults import DEMO_MODEL
from winclip.demo.sample import CLASSES, TRAIN_GOOD, changed_pixels, draw_pair
from winclip.metrics.exact import image_metrics, label_defects, pixel_metrics
from winclip.model import WinCLIP
from winclip.support.command_line import ModelOptions, exit_status
from winclip.support.options import add_options, take_options

TEST_GOOD, TEST_DEFECTIVE = 12, 20
"""Of a class and seed; more than the sample holds, so that the figures are steadier."""
SHOTS = 4
JUDGED_WITH = 8
LEVELS = ("false_alarms", "found")
Figures = dict[str, float]
"""In per cent."""


class Pictures:
    """The pictures of a class of a sample: good ones for references, then the test pictures with their masks."""

    def __init__(self, class_name: str, seed: int, size: int) -> None:
        self.good = [draw_pair(class_name, seed, "train/good", index)[0] for index in range(TRAIN_GOOD)]
        pairs = [draw_pair(class_name, seed, "test/good", index) for index in range(TEST_GOOD)]
        defects = list(CLASSES[class_name][1])
        for number in range(TEST_DEFECTIVE):
            defect, index = defects[number % len(defects)], number // len(defects)
            pairs.append(draw_pair(class_name, seed, f"test/{defect}", index, defect))
        self.test = [damaged for _, damaged in pairs]
        self.labels = np.repeat([0, 1], [TEST_GOOD, TEST_DEFECTIVE])
        self.defects = label_defects(np.stack([resize_mask(changed_pixels(*pair) > 0, size) for pair in pairs]))


def measure(model: WinCLIP, class_name: str, pictures: Pictures) -> Iterator[tuple[str, Figures]]:
    """Figures in per cent: the metrics for each number of references, and of the threshold rule ``LEVELS``."""
    good, test = model.encode(list(pictures.good)), model.encode(list(pictures.test))
    for count in (0, SHOTS):
        model.set_class(class_name)
        if count:
            model.add_references(good[:count])
        found = model.score(test)
        figures = {**image_metrics(pictures.labels, found.scores)[0], **pixel_metrics(pictures.defects, found.maps)[0]}
        yield f"{count}-shot", {metric: 100 * figures[metric] for metric in METRICS}
    model.set_class(class_name)
    model.add_references(good[:JUDGED_WITH])
    threshold = model.threshold().score
    # The other good pictures count too: they are no references.
    alarms = np.concatenate([model.score(good[JUDGED_WITH:]).scores, model.score(test).scores]) > threshold
    labels = np.concatenate([np.zeros(TRAIN_GOOD - JUDGED_WITH, dtype=int), pictures.labels])
    yield "threshold", {name: 100 * float(alarms[labels == label].mean()) for label, name in enumerate(LEVELS)}


_models: list[WinCLIP] = []


def load(options: argparse.Namespace) -> None:
    """Load the backbones into this process, which works on one core."""
    torch.set_num_threads(1)
    # A copy, because the model's options are taken out of it, and every process needs them.
    _models[:] = [take_options(ModelOptions, dict(vars(options))).load()]
    if options.other:
        _models.append(WinCLIP.from_pretrained(*options.other, device=options.device))


def measure_all(class_name: str, seed: int) -> list[dict[str, Figures]]:
    """The tables of a class of a sample with every backbone."""
    pictures = Pictures(class_name, seed, _models[0].backbone.image_size)
    return [dict(measure(model, class_name, pictures)) for model in _models]


def main() -> int:
    """Print the tables; returns the exit status: 0, or 2 after bad input."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of the samples (0 1 2)")
    parser.add_argument("--processes", type=int, default=2, help="that share the classes, each on one core (2)")
    parser.add_argument("--other", nargs=2, metavar=("CONFIG", "WEIGHTS"), help="another backbone, shown in brackets")
    add_options(parser, ModelOptions)
    parser.set_defaults(model=DEMO_MODEL)
    options = parser.parse_args()
    return exit_status(lambda: run(options))


def run(options: argparse.Namespace) -> int:
    """Measure every class, and print the tables."""
    load(options)  # here too, so that bad input is told before any process starts
    tasks = [(name, seed) for name in CLASSES for seed in options.seeds]
    with ProcessPoolExecutor(options.processes, get_context("spawn"), load, (options,)) as pool:
        found = list(tqdm(pool.map(measure_all, *zip(*tasks)), total=len(tasks), unit="class"))
    for table in found[0][0]:
        means = {
            name: [
                _mean([both[number][table] for (task, _), both in zip(tasks, found) if task == name])
                for number in range(len(_models))
            ]
            for name in CLASSES
        }
        means["mean"] = [_mean([both[number] for both in means.values()]) for number in range(len(_models))]
        columns = list(found[0][0][table])
        lines = [
            [name, *(_cell([part[column] for part in both]) for column in columns)] for name, both in means.items()
        ]
        print(f"\n{tabulate(lines, [table, *columns], tablefmt='pipe', disable_numparse=True)}")
    return 0


def _mean(tables: list[Figures]) -> Figures:
    return {column: fmean(table[column] for table in tables) for column in tables[0]}


def _cell(values: list[float]) -> str:
    return f"{values[0]:.1f}" + "".join(f" ({value:.1f})" for value in values[1:])


if __name__ == "__main__":
    sys.exit(main())
