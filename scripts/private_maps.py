"""Write the anomaly maps of MVTec AD 2's private images, which have no labels, as its server takes them.

    python -m datasets mvtec_ad_2 --root data/mvtec_ad_2
    python -m scripts.private_maps --data_path data/mvtec_ad_2 --k_shot 4

Below --save_path, for every image CLASS/SPLIT/NAME.png of the splits test_private and test_private_mixed:
anomaly_images/CLASS/SPLIT/NAME.tiff, 16-bit floats at the image's size, and
anomaly_images_thresholded/CLASS/SPLIT/NAME.png, 255 where the map is above the threshold that the references give.
scores.csv has a score an image.
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from datasets.mvtec_ad_2 import PRIVATE, private_images
from datasets.registry import default_root
from winclip.command_line import add_model_options, exit_status, log_to_terminal, model_options
from winclip.errors import InputError

_log = logging.getLogger("winclip")


def build_parser() -> argparse.ArgumentParser:
    """The parser; imports nothing heavy."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    root, save_path = default_root("mvtec_ad_2"), Path("results/mvtec_ad_2_private")
    parser.add_argument("--data_path", type=Path, metavar="DIR", default=root, help=f"with a meta.json ({root})")
    parser.add_argument("--save_path", type=Path, metavar="DIR", default=save_path, help=f"({save_path})")
    parser.add_argument("--classes", nargs="+", metavar="C", help="only these classes")
    parser.add_argument("--class_names", type=Path, metavar="FILE", help="as of test.py")
    parser.add_argument("--prompt_set", default="reference", help="reference, paper, or a .json file (reference)")
    parser.add_argument("--k_shot", type=int, metavar="K", default=0, help="number of reference images (0)")
    parser.add_argument("--seed", type=int, metavar="S", default=10, help="seed of their draw (10)")
    add_model_options(parser)
    return parser


def main(arguments: list[str]) -> int:
    """Write the maps and return the exit status: 0, or one of ``exit_status``."""
    options = build_parser().parse_args(arguments)
    return exit_status(lambda: write_maps(options))


def write_maps(options: argparse.Namespace) -> int:
    """Write the files as the options say and return 0.

    Raises:
        InputError: if anything given is wrong, there is no private image, or one cannot be read.
    """
    import numpy as np
    from PIL import Image
    from tqdm import tqdm

    from datasets.class_names import words_for_prompts
    from datasets.index import load_index, select_classes
    from datasets.layout import found_in
    from datasets.references import draw_references
    from evaluation.results import csv_text
    from winclip.drawing import encoded, fit, mask_image
    from winclip.files import cache_folder, write_atomically
    from winclip.images import read_image
    from winclip.names import cell

    log_to_terminal(_log)
    root = options.data_path
    index = load_index(root)
    classes = select_classes(index, options.classes)
    words = words_for_prompts("mvtec_ad_2", index, options.class_names)
    images = {name: private_images(root, name) for name in classes}
    if not any(images.values()):
        raise InputError(f"{root / classes[0]} has no images in {' or '.join(PRIVATE)}; {found_in(root / classes[0])}")
    drawn = {name: draw_references(index.train[name], name, options.k_shot, options.seed) for name in classes}
    model = model_options(vars(options)).load()
    rows = []

    def save(image: Image.Image, folder: str, path: Path, **fields: object) -> None:
        write_atomically(options.save_path / folder / path, encoded(image, path.suffix[1:], **fields))

    try:
        with tqdm(total=sum(map(len, images.values())), unit="image", disable=None, dynamic_ncols=True) as progress:
            for name in classes:
                model.set_class(words[name], options.prompt_set, cache=cache_folder("text"))
                if drawn[name]:
                    model.add_references([root / item.img_path for item in drawn[name]])
                threshold = model.threshold()
                for path in images[name]:
                    image, place = read_image(path), path.relative_to(root)
                    found = model.predict(image)
                    values = fit(found.maps[0], image.size)
                    # Pillow has no 16-bit floats, so their bits go as integers with the tag that says what they are.
                    halves = Image.fromarray(values.astype(np.float16).view(np.uint16))
                    save(halves, "anomaly_images", place.with_suffix(".tiff"), tiffinfo={339: 3})
                    save(mask_image(values, threshold.pixel), "anomaly_images_thresholded", place.with_suffix(".png"))
                    rows.append([cell(name), cell(place.as_posix()), repr(float(found.scores[0]))])
                    progress.update()
    finally:
        # After a bad image too, so that the maps that are there have their scores.
        write_atomically(options.save_path / "scores.csv", csv_text(["cls_name", "img_path", "score"], rows))
    print(f"written: maps of {len(rows)} images of {len(classes)} classes below {options.save_path}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
