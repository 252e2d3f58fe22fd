"""Judge the demo backbone on samples of several seeds: python -m scripts.evaluate_demo [CONFIG WEIGHTS]

For every class: the metrics zero-shot and with 4 good pictures as references. Tables of means over seeds are printed.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from statistics import fmean

import numpy as np
from tabulate import tabulate
from tqdm import tqdm

from datasets.samples import resize_mask
from winclip.defaults import DEMO_MODEL
from winclip.demo.sample import CLASSES, changed_pixels, draw_pair, numbered_defects
from winclip.metrics.exact import image_metrics, label_defects, pixel_metrics
from winclip.model import WinCLIP

SEEDS = (0, 1, 2)
TEST_GOOD, TEST_DEFECTIVE = 12, 20
"""Images per class and seed; more than the sample holds, for steadier figures."""
SHOTS = 4


def measure(model: WinCLIP, name: str, seed: int) -> dict[str, dict[str, float]]:
    """Figures of a class of a sample, as fractions: the metrics by number of references."""
    references = [draw_pair(name, seed, "train/good", index)[0] for index in range(SHOTS)]
    pairs = [draw_pair(name, seed, "test/good", index) for index in range(TEST_GOOD)]
    for defect, index in numbered_defects(name, TEST_DEFECTIVE):
        pairs.append(draw_pair(name, seed, f"test/{defect}", index, defect))
    labels = np.repeat([0, 1], [TEST_GOOD, TEST_DEFECTIVE])
    size = model.backbone.image_size
    masks = label_defects(np.stack([resize_mask(changed_pixels(*pair) > 0, size) for pair in pairs]))
    good, test = model.encode(references), model.encode([damaged for _, damaged in pairs])
    tables = {}
    model.set_class(name)
    for count in (0, SHOTS):
        if count:
            model.add_references(good)
        found = model.score(test)
        tables[f"{count}-shot"] = pixel_metrics(masks, found.maps)[0] | image_metrics(labels, found.scores)[0]
    return tables


def main(arguments: list[str]) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", nargs="*", default=[DEMO_MODEL], help="config and weights (the demo backbone's)")
    model = WinCLIP.from_pretrained(*parser.parse_args(arguments).checkpoint)
    rows: dict[str, dict[str, list[dict[str, float]]]] = defaultdict(lambda: defaultdict(list))
    for name, seed in tqdm([(name, seed) for name in CLASSES for seed in SEEDS], unit="class"):
        for table, figures in measure(model, name, seed).items():
            rows[table][name].append(figures)
            rows[table]["mean"].append(figures)
    for table, found in rows.items():
        found["mean"] = found.pop("mean")  # last
        columns = list(found["mean"][0])
        lines = [
            [name, *(100 * fmean(one[column] for one in each) for column in columns)] for name, each in found.items()
        ]
        print(f"\n{tabulate(lines, [table, *columns], tablefmt='pipe', floatfmt='.1f')}")


if __name__ == "__main__":
    main(sys.argv[1:])
