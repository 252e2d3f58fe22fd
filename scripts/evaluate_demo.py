"""Judge the demo backbone on samples of several seeds: python -m scripts.evaluate_demo [CONFIG WEIGHTS]

For every class: the metrics zero-shot and with the first 4 of the 16 good pictures as references, and with the
first 8 as references what the threshold rule makes of the other pictures. Tables of means over the seeds are printed.
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
from winclip.demo.sample import CLASSES, TRAIN_GOOD, changed_pixels, draw_pair, numbered_defects
from winclip.metrics.exact import image_metrics, label_defects, pixel_metrics
from winclip.model import WinCLIP

SEEDS = (0, 1, 2)
TEST_GOOD, TEST_DEFECTIVE = 12, 20
"""Of a class and seed; more than the sample holds, so that the figures are steadier."""
SHOTS, JUDGED_WITH = 4, 8


def measure(model: WinCLIP, name: str, seed: int) -> dict[str, dict[str, float]]:
    """Figures of a class of a sample, as shares: the metrics by number of references, and of the threshold rule."""
    references = [draw_pair(name, seed, "train/good", index)[0] for index in range(TRAIN_GOOD)]
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
            model.add_references(good[:count])
        found = model.score(test)
        tables[f"{count}-shot"] = pixel_metrics(masks, found.maps)[0] | image_metrics(labels, found.scores)[0]
    model.add_references(good[SHOTS:JUDGED_WITH])
    # The other good pictures count too: they are no references.
    alarms = np.concatenate([model.score(part).scores for part in (good[JUDGED_WITH:], test)]) > model.threshold().score
    labels = np.concatenate([np.zeros(TRAIN_GOOD - JUDGED_WITH, dtype=int), labels])
    tables["threshold"] = {
        "false_alarms": float(alarms[labels == 0].mean()),
        "found": float(alarms[labels == 1].mean()),
    }
    return tables


def main(words: list[str]) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", nargs="*", help="CONFIG and WEIGHTS of another model (the demo backbone's)")
    model = WinCLIP.from_pretrained(*(parser.parse_args(words).checkpoint or [DEMO_MODEL]))
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
