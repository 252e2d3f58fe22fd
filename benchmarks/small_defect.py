"""A defect of 12 pixels in a large picture, with predict.py as a whole and in tiles.

    python -m benchmarks.small_defect

Draws two pictures of a texture like cowhide, one with a dark spot, and good ones to compare with if ``--references``
asks for them, and prints the verdicts and how long each way took, 3 minutes in tiles.
"""

from __future__ import annotations

import argparse
import csv
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from tabulate import tabulate

import predict
from benchmarks.benchmark import machine
from demo.procedural import smooth_noise
from winclip.command_line import exit_status
from winclip.defaults import DEMO_MODEL

SPOT = 12


def draw(size: tuple[int, int], seed: int, spot: bool = False) -> Image.Image:
    """A picture of the texture, width and height in pixels."""
    generator, shape = np.random.RandomState(seed), size[::-1]
    relief = smooth_noise(generator, shape, 4.5) + np.float32(0.6) * smooth_noise(generator, shape, 2.5)
    slope = relief - np.roll(relief, 1, axis=(0, 1))
    light = np.float32(255 * generator.uniform(0.9, 1.1))
    grain = light * (np.float32(0.60) + np.float32(0.1) * slope + np.float32(0.035) * relief)
    pixels = np.clip(grain[..., None] * np.array([0.78, 0.5, 0.33], np.float32), 0, 255).astype(np.uint8)
    if spot:
        place = round(0.377 * size[0]), round(0.613 * size[1])
        cv2.circle(pixels, place, SPOT // 2, (30, 20, 15), cv2.FILLED, cv2.LINE_AA)
    return Image.fromarray(pixels)


def main(arguments: list[str]) -> int:
    """Run and return the exit status."""
    parser = argparse.ArgumentParser(description=str(__doc__), formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, nargs=2, default=[4000, 3000], help="width and height (4000 3000)")
    parser.add_argument("--references", type=int, default=0, help="good pictures to compare with (0)")
    parser.add_argument("--model", default=DEMO_MODEL, help=f"({DEMO_MODEL})")
    options = parser.parse_args(arguments)
    return exit_status(lambda: _run(tuple(options.size), options.references, options.model))


def _run(size: tuple[int, int], references: int, model: str) -> int:
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        for name in ("good", "judged"):
            (here / name).mkdir()
        for seed in range(references):
            draw(size, seed).save(here / "good" / f"{seed}.png", compress_level=1)
        for name in ("good", "spot"):
            draw(size, references, spot=name == "spot").save(here / "judged" / f"{name}.png", compress_level=1)
        for way, more in (("plain", []), ("--tile", ["--tile"])):
            started, save = time.perf_counter(), here / way
            given = ["--class_name", "cowhide", str(here / "judged")]
            given += ["--reference", str(here / "good")] if references else []
            status = predict.main([*given, "--model", model, "--device", "cpu", "--save_path", str(save), *more])
            if status:
                return status
            with (save / "predictions.csv").open(newline="") as file:
                good, spot = csv.DictReader(file)
            box = ",".join(spot[f"box_{side}"] for side in "xywh")
            seconds = f"{time.perf_counter() - started:.0f}"
            scores = [f"{float(figure):.4f}" for figure in (good["score"], spot["score"], spot["threshold"])]
            rows.append([way, good["anomalous"], spot["anomalous"], *scores, box, seconds])
    print(f"pictures of {size[0]} x {size[1]} pixels, {references} references, spot of {SPOT} pixels; {machine()}\n")
    header = ["way", "good: anomalous", "spot: anomalous", "good: score", "spot: score", "threshold", "spot: box", "s"]
    print(tabulate(rows, header, tablefmt="pipe", disable_numparse=True))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
