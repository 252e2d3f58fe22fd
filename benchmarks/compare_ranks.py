"""What is faster on a CPU: one process of all cores, or a rank of one thread for each of them.

    python -m benchmarks.compare_ranks

Images a second of test.py, the backbone with random weights, in turns; the time of a run over few images is taken off
that of one over many, so that starts do not count. Prints the medians.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tabulate import tabulate

from benchmarks.benchmark import machine, medians, write_grey_images, write_random_weights
from winclip.defaults import DEFAULT_MODEL
from winclip.reading import usable_cores

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--model", default=DEFAULT_MODEL, help=f"open_clip model, with random weights ({DEFAULT_MODEL})"
    )
    parser.add_argument("--ranks", type=int, default=usable_cores(), help="how many (as many as cores)")
    parser.add_argument("--images", type=int, nargs=2, default=(8, 24), metavar="N", help="few and many (8 24)")
    parser.add_argument("--turns", type=int, default=5, help="counted turns (5)")
    options = parser.parse_args()
    print(machine())
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(options.ranks)]
    starts = {"one process": [], f"{options.ranks} ranks": torchrun}
    few, many = options.images
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        weights = folder / "random.safetensors"
        write_random_weights(options.model, weights)
        # The environment's limit of threads is none here.
        environment = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
        run = partial(subprocess.run, cwd=ROOT, env={**environment, "XDG_CACHE_HOME": name}, capture_output=True)
        runs: dict[str, Callable[[], object]] = {}
        for count in (few, many):
            write_grey_images(folder / str(count), count)
            places = ["--data_path", str(folder / str(count)), "--save_path", str(folder / "out")]
            arguments = ["test.py", "--model", options.model, "--pretrained", str(weights), "--device", "cpu", *places]
            for start, launch in starts.items():
                command = [sys.executable, *launch, *arguments]
                runs[f"{start} {count}"] = partial(run, command, check=True)
        times = medians(runs, options.turns)
    rows = []
    for start in starts:
        seconds = times[f"{start} {many}"] - times[f"{start} {few}"]
        rows.append([start, f"{(many - few) / seconds:.3f}", f"{times[f'{start} {few}']:.1f}"])
    print(tabulate(rows, ["test.py as", "images a second", f"seconds for {few} images"], tablefmt="pipe"))


if __name__ == "__main__":
    main()
