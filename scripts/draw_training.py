"""Draws docs/figures/training.png from the curves that demo/train_backbone.py wrote as it went.

python -m scripts.draw_training first-curve.csv second-curve.csv
"""

from __future__ import annotations

import argparse
import csv
import io
from pathlib import Path

from matplotlib.figure import Figure

from winclip.support.files import write_atomically

PANELS = {
    "loss, held-out scenes": {"val_image": "image", "val_windows3": "windows of 3 x 3", "val_windows2": "of 2 x 2"},
    "zero-shot, per cent": {"auroc_sp_0": "auroc_sp", "auroc_px_0": "auroc_px", "aupro_0": "aupro", "ap_px_0": "ap_px"},
    "1 reference, per cent": {
        "auroc_sp_1": "auroc_sp",
        "auroc_px_1": "auroc_px",
        "aupro_1": "aupro",
        "ap_px_1": "ap_px",
    },
}


def main() -> None:
    """Draw the figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("curves", type=Path, nargs="+", metavar="CSV", help="of runs that went on from each other")
    path = Path(__file__).resolve().parent.parent / "docs" / "figures" / "training.png"
    rows: list[dict[str, str]] = []
    steps: list[int] = []
    for curve in parser.parse_args().curves:
        with curve.open(newline="") as file:
            run = list(csv.DictReader(file))
        before = steps[-1] if steps else 0
        steps += [before + int(row["step"]) for row in run]
        rows += run
    figure = Figure(figsize=(10, 3), layout="constrained", dpi=110)
    for number, (title, lines) in enumerate(PANELS.items(), 1):
        axes = figure.add_subplot(1, len(PANELS), number, title=title, xlabel="step")
        scale = 1 if number == 1 else 100
        for column, label in lines.items():
            axes.plot(steps, [scale * float(row[column]) for row in rows], label=label)
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    write_atomically(path, buffer.getvalue())
    print(f"written: {path}")


if __name__ == "__main__":
    main()
