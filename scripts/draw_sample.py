"""Draws docs/figures/sample.jpg: for each class of the sample a defective image, its mask and its heat maps."""

from __future__ import annotations

import argparse
import math
from pathlib import Path

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
    for number, (name, items) in enumerate(index.test.items()):
        # The first defective image of the class's first defect type, whatever its scores are.
        item = next(item for item in items if item.anomaly)
        image, mask = (Image.open(index.root / path).convert("RGB") for path in (item.img_path, item.mask_path))
        embeddings = model.encode(image)
        model.set_class(name)
        pictures = [image, mask]
        references = draw_references(index.train[name], name, SHOTS, seed=10)
        for shots, highest in ((0, 1.0), (SHOTS, 1.5)):  # the value drawn in the hottest colour
            if shots:
                model.add_references([index.root / reference.img_path for reference in references])
            colours = colour(model.score(embeddings).maps[0], 0, highest).resize((SIDE, SIDE))
            pictures.append(Image.blend(image.resize((SIDE, SIDE)), colours, 0.55))
        block, row = divmod(number, rows)
        x, y = block * width, top + row * pitch
        draw.text((x + 4, y + SIDE // 2 - 12), f"{name}\n{item.specie_name}", fill="black")
        for column, (title, picture) in enumerate(zip(TITLES, pictures)):
            if row == 0:
                draw.text((x + left + column * pitch, 6), title, fill="black")
            sheet.paste(picture.resize((SIDE, SIDE)), (x + left + column * pitch, y))
    write_atomically(options.save_path, encoded(sheet, "JPEG", quality=88))
    print(f"written: {options.save_path}")


if __name__ == "__main__":
    main()
