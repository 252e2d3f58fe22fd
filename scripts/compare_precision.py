"""What bf16 and fp16 change on the embedded sample: scores and every metric, zero-shot and 4-shot.

python -m scripts.compare_precision
"""

from __future__ import annotations

import argparse
import csv
import tempfile
from pathlib import Path

from tabulate import tabulate

from datasets.index import write_index
from datasets.mvtec import list_mvtec
from evaluation.options import parse_options
from evaluation.results import METRICS
from evaluation.run import run
from winclip.demo.sample import make_sample

SHOTS = ("0", "4")


def rows(path: Path) -> list[dict[str, str]]:
    """The rows of a csv file."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def main() -> None:
    """Run the sample in every precision and print the differences to fp32."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto", help="as in test.py (auto)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "sample"
        make_sample(data)
        write_index(list_mvtec(data, print, all_classes=True))
        for precision in ("fp32", "bf16", "fp16"):
            places = ["--dataset", "sample", "--data_path", str(data), "--save_path", str(Path(folder) / precision)]
            model = ["--model", "demo-vit-240", "--device", options.device, "--precision", precision]
            run(parse_options([*places, *model, "--k_shot", *SHOTS]))
        cells = []
        for precision in ("bf16", "fp16"):
            exact, other = (rows(Path(folder) / name / "scores.csv") for name in ("fp32", precision))
            exact_means, other_means = (
                [row for row in rows(Path(folder) / name / "results.csv") if row["objects"] == "mean"]
                for name in ("fp32", precision)
            )
            for number, k in enumerate(SHOTS):
                scores = [abs(float(a["score"]) - float(b["score"])) for a, b in zip(exact, other) if a["k_shot"] == k]
                changes = [
                    f"{float(other_means[number][metric]) - float(exact_means[number][metric]):+.3f}"
                    for metric in METRICS
                ]
                cells.append([precision, k, f"{max(scores):.4f}", *changes])
    print(
        tabulate(
            cells, ["precision", "shots", "largest score difference", *METRICS], tablefmt="pipe", disable_numparse=True
        )
    )


if __name__ == "__main__":
    main()
