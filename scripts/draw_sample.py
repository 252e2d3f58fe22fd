"""Draws docs/figures/sample.jpg: for each class of the sample a defective image, its mask and its heat maps."""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from datasets.index import load_index
from datasets.references import draw_references
from winclip import WinCLIP
from winclip.pictures.drawing import colour, encoded
from winclip.support.files import write_atomically

SIDE = 150
BESIDE = 2
"""Classes in a row of the figure."""
SHOTS = 4
TITLES = ("image", "mask", "zero-shot", f"{SHOTS}-shot")


def heat(image: Image.Image, anomaly_map: npt.NDArray[np.float32], highest: float) -> Image.Image:
    """Lay a map over its image; ``highest`` is the value drawn in the hottest colour."""
    colours = colour(anomaly_map, 0, highest)
    return Image.blend(image.resize((SIDE, SIDE)), colours.resize((SIDE, SIDE)), 0.55)


def main() -> None:
    """Draw the figure."""
    folder = Path(__file__).resolve().parent.parent / "docs" / "figures"
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data_path", type=Path, default=Path("data/sample"), help="the sample (data/sample)")
    parser.add_argument("--save_path", type=Path, default=folder / "sample.jpg", help="the figure")
    options = parser.parse_args()
    index = load_index(options.data_path)
    model = WinCLIP.from_pretrained("demo-vit-240")
    left, gap, top = 90, 6, 24
    pitch, width = SIDE + gap, left + len(TITLES) * (SIDE + gap)
    rows = math.ceil(len(index.test) / BESIDE)
    sheet = Image.new("RGB", (BESIDE * width, top + rows * pitch), "white")
    draw = ImageDraw.Draw(sheet)
    for column in range(BESIDE * len(TITLES)):
        block, number = divmod(column, len(TITLES))
        draw.text((block * width + left + number * pitch, 6), TITLES[number], fill="black")
    for number, (name, items) in enumerate(index.test.items()):
        # The first defective image of the class's first defect type, whatever its scores are.
        item = next(item for item in items if item.anomaly)
        image = Image.open(index.root / item.img_path).convert("RGB")
        embeddings = model.encode(image)
        model.set_class(name)
        zero = model.score(embeddings).maps[0]
        references = draw_references(index.train[name], name, SHOTS, seed=10)
        model.add_references([index.root / reference.img_path for reference in references])
        few = model.score(embeddings).maps[0]
        block, row = divmod(number, rows)
        x, y = block * width, top + row * pitch
        draw.text((x + 4, y + SIDE // 2 - 12), f"{name}\n{item.specie_name}", fill="black")
        mask = Image.open(index.root / item.mask_path).convert("RGB").resize((SIDE, SIDE))
        for column, picture in enumerate(
            (image.resize((SIDE, SIDE)), mask, heat(image, zero, 1.0), heat(image, few, 1.5))
        ):
            sheet.paste(picture, (x + left + column * pitch, y))
    write_atomically(options.save_path, encoded(sheet, "JPEG", quality=88))
    print(f"written: {options.save_path}")


if __name__ == "__main__":
    main()
