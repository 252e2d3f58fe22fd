"""Measures the encoder, the text side, the metrics, the pipeline and the start against bounds and baselines.

    python -m scripts.benchmark                      # all of them, ViT-B-16-plus-240 with random weights
    python -m scripts.benchmark encoder metrics

Every ratio is taken within one run: the things compared take turns, and the median of their times is shown.
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
from statistics import median
from timeit import timeit
from typing import Literal

import numpy as np
import numpy.typing as npt
import open_clip
import safetensors.torch
import torch
import torch.nn.functional as F
from PIL import Image
from tabulate import tabulate

from datasets.index import write_index
from datasets.items import DatasetIndex, Item
from datasets.samples import load_sample
from evaluation.check_metrics import textbook_pixel_metrics
from winclip.defaults import SCALES
from winclip.embeddings import Embeddings
from winclip.memory import MemoryBank
from winclip.metrics.exact import image_metrics, label_defects, pixel_metrics
from winclip.network.clip import ClipConfig
from winclip.network.clip_backbone import ClipBackbone, load_backbone
from winclip.network.devices import PRECISIONS
from winclip.network.linear import instruction_sets, linear_rates, packed_linear, processor, slowdown
from winclip.network.pretrained import read_config
from winclip.pictures.images import normalise, read_image, resized_pixels
from winclip.pictures.reading import BatchReader
from winclip.prompts import REFERENCE
from winclip.scoring import score_images, upsample
from winclip.text import class_embeddings
from winclip.windows import window_patches

SIDE, PRODUCTS = 2048, 12  # of the matrix products that the bound's rate is measured with
PICTURE, PICTURES, BATCH = 900, 24, 8  # side and number of the pipeline's pictures, and how many are scored together
SHOTS = [list(range(k)) for k in (0, 1, 2, 4, 8)]
BENCHMARKS = ("encoder", "text", "metrics", "shots", "pipeline", "start")
Functions = dict[str, Callable[[], object]]
Row = tuple[str, str, float, str, float]
"""Benchmark, what is measured, its seconds, the baseline or bound, and the seconds of that."""


def medians(functions: Functions, repeats: int) -> dict[str, float]:
    """Median seconds of each function; they take turns, after one turn that is not counted."""
    turns = [[timeit(function, number=1) for function in functions.values()] for _ in range(repeats + 1)]
    return dict(zip(functions, map(median, zip(*turns[1:]))))


def matrix_products(dtype: torch.dtype) -> Functions:
    """Large matrix products, plain and with packed weights, for a second or so each: the sustained rate."""
    left, right = (torch.randn(SIDE, SIDE).to(dtype) for _ in range(2))
    layers = {"plain": lambda x: x @ right, "packed": packed_linear(right, torch.zeros(SIDE, dtype=dtype))}

    def run(layer: Callable[[torch.Tensor], torch.Tensor]) -> None:
        for _ in range(PRODUCTS):
            layer(left)

    return {name: partial(run, layer) for name, layer in layers.items() if layer}


def exact_operations(config: ClipConfig) -> int:
    """Matrix operations of one image with both exact savings: the bound's numerator."""
    grid, width, hidden = config.grid, config.width, config.mlp_width
    full = 1 + grid * grid
    linear = 2 * width * (4 * width + 2 * hidden)  # of a token in a block: query, key, value, output and the MLP
    total = 2 * (full - 1) * 3 * config.patch_size**2 * width
    total += config.layers * (full * linear + 4 * full * full * width)
    for side in SCALES:
        length, windows = 1 + side * side, (grid - side + 1) ** 2
        attention = 4 * length * length * width * windows
        first = 2 * windows * length * width * (width + 2 * hidden) + attention
        last = windows * (linear + 4 * length * width * config.heads)
        between = (config.layers - 2) * (windows * length * linear + attention)
        total += first + between + last + 2 * windows * width * config.embed_dim
    return total


def random_backbone(model: str, precision: str = "fp32") -> tuple[ClipBackbone, open_clip.CLIP, torch.Tensor]:
    """A backbone on the CPU with seeded random weights, open_clip's own model with the same weights, and an image.

    The image is of seeded noise, (1, size, size, 3) uint8.
    """
    torch.manual_seed(0)
    original = open_clip.CLIP(**read_config(model)[0]).eval().requires_grad_(False)
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder) / "random.safetensors"
        safetensors.torch.save_file(original.state_dict(), checkpoint)
        backbone = load_backbone(model, str(checkpoint), device="cpu", precision=precision)
    assert isinstance(backbone, ClipBackbone)
    pixels = torch.randint(0, 256, (1, backbone.image_size, backbone.image_size, 3), dtype=torch.uint8)
    return backbone, original.to(PRECISIONS[precision]), pixels


@torch.inference_mode()
def plain_encode(model: open_clip.CLIP, images: torch.Tensor) -> list[torch.Tensor]:
    """The usual implementation: one call of open_clip's transformer per scale, on all windows of the batch."""
    visual = model.visual
    patches = visual.conv1(images).flatten(2).transpose(1, 2)
    class_token = visual.class_embedding.expand(len(images), 1, -1)
    tokens = visual.ln_pre(torch.cat([class_token, patches], dim=1) + visual.positional_embedding)
    outputs = [visual.transformer(tokens)]
    for side in SCALES:
        windows = window_patches(visual.grid_size[0], side)
        sequences = torch.cat([windows.new_zeros(len(windows), 1), windows + 1], dim=1)
        out = visual.transformer(tokens[:, sequences].flatten(0, 1))
        outputs.append(visual.ln_post(out[:, 0]) @ visual.proj)
    return outputs


def benchmark_encoder(options: argparse.Namespace) -> list[Row]:
    """Seconds an image, against the bound and against one open_clip call per scale."""
    rows: list[Row] = []
    for precision in ("fp32", "bf16"):
        dtype = PRECISIONS[precision]
        backbone, original, pixels = random_backbone(options.model, precision)
        config = backbone.clip.config
        slow = slowdown(config.width, config.mlp_width, dtype)
        if slow > 1:  # its rows would take minutes
            print(f"{precision} is left out: its linear layers are {slow:.1f} times as slow as fp32 on this processor")
            continue
        products = matrix_products(dtype)
        functions: Functions = {
            **products,
            "ours": partial(backbone.encode, pixels),
            "open_clip": partial(plain_encode, original, normalise(pixels).to(dtype)),
        }
        print(f"encoder, {precision}: {linear_rates(config.width, config.mlp_width, dtype).kernels} linear layers")
        times = medians(functions, options.repeats)
        needed, rate = exact_operations(config), PRODUCTS * 2 * SIDE**3 / min(times[name] for name in products)
        bound = f"bound: {needed / 1e9:.0f} GFLOP at {rate / 1e9:.0f} GFLOP/s"
        for baseline, seconds in ((bound, needed / rate), ("open_clip call per scale", times["open_clip"])):
            rows.append(("encoder", f"an image, {precision}", times["ours"], baseline, seconds))
    return rows


def benchmark_text(options: argparse.Namespace) -> list[Row]:
    """Seconds a class, against encoding every prompt at its full context."""
    backbone, original, _ = random_backbone(options.model)

    @torch.inference_mode()
    def plain() -> torch.Tensor:
        both = (REFERENCE.normal("metal_nut"), REFERENCE.anomalous("metal_nut"))
        embeddings = [original.encode_text(open_clip.tokenize(prompts)).mean(dim=0) for prompts in both]
        return F.normalize(torch.stack(embeddings), dim=-1)

    ours = partial(class_embeddings, backbone, "metal_nut", REFERENCE)
    print(f"text: largest difference to full context {float((ours() - plain()).abs().max()):.0e}")
    times = medians({"ours": ours, "plain": plain}, options.repeats)
    return [("text", "a class, fp32", times["ours"], "full context", times["plain"])]


def metric_case() -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.float32]]:
    """83 masks and maps of 240 x 240, maps smooth and with some signal on the defects."""
    generator = np.random.RandomState(0)
    masks = np.zeros((83, 240, 240), np.bool_)
    for mask in masks[20:]:
        for _ in range(generator.randint(1, 4)):
            (y, x), (height, width) = generator.randint(0, 200, 2), generator.randint(5, 40, 2)
            mask[y : y + height, x : x + width] = True
    coarse = F.interpolate(torch.from_numpy(masks[:, None]).float(), size=(15, 15), mode="area")
    noise = torch.from_numpy(generator.rand(83, 1, 15, 15)).float()
    maps = F.interpolate(noise + coarse / 2, size=(240, 240), mode="bilinear")[:, 0]
    return masks, maps.numpy()


def all_metrics(
    masks: npt.NDArray[np.bool_], maps: npt.NDArray[np.float32], aupro: Literal["steps", "exact"] = "steps"
) -> dict[str, float]:
    """The seven metrics of maps; an image's score is its highest map value."""
    image = image_metrics(masks.any(axis=(1, 2)), maps.max(axis=(1, 2)))[0]
    return image | pixel_metrics(label_defects(masks), maps, aupro)[0]


def benchmark_metrics(options: argparse.Namespace) -> list[Row]:
    """All seven metrics of 83 maps, against scikit-learn with the threshold loop."""
    masks, maps = metric_case()
    expected: dict[str, float] = {}
    looped = timeit(lambda: expected.update(textbook_pixel_metrics(masks, maps)), number=1)
    figures = all_metrics(masks, maps)
    difference = max(abs(figures[name] - value) for name, value in expected.items())
    print(f"metrics: largest difference to scikit-learn and scikit-image {difference:.0e}")
    seconds = medians({"ours": partial(all_metrics, masks, maps)}, options.repeats)["ours"]
    return [("metrics", "seven metrics of 83 maps", seconds, "the four of pixels by --check_metrics, once", looped)]


def random_case(backbone: ClipBackbone, pixels: torch.Tensor) -> tuple[Embeddings, torch.Tensor]:
    """Seeded random embeddings of 50 images in the shapes of the backbone's own, and of a class, (2, embed_dim)."""
    noise = torch.Generator().manual_seed(2)
    text = F.normalize(torch.randn(2, backbone.embed_dim, generator=noise), dim=-1)
    return backbone.encode(pixels).map(lambda part: torch.randn(50, *part.shape[1:], generator=noise)), text


def benchmark_shots(options: argparse.Namespace) -> list[Row]:
    """What shots and seeds add to a zero-shot pass over test images."""
    backbone, _, pixels = random_backbone(options.model)
    embeddings, text = random_case(backbone, pixels)
    one, few, many = embeddings[:1], MemoryBank.of(embeddings[1:9]), MemoryBank.of(embeddings[1:41])
    draws = [[8 * seed + number for number in draw] for seed in range(5) for draw in SHOTS[1:]]
    functions: Functions = {
        "encode": partial(backbone.encode, pixels),
        "zero": partial(score_images, one, text),
        "few": partial(score_images, one, text, few, SHOTS[1:]),
        "seeds": partial(score_images, one, text, many, draws),
    }
    times = medians(functions, options.repeats)
    zero = times["encode"] + times["zero"]
    return [
        ("shots", f"an image, encoded and scored {how}", times["encode"] + times[name], "for zero-shot", zero)
        for name, how in (("few", "for 1, 2, 4, 8 shots"), ("seeds", "for 5 seeds of them"))
    ]


def write_pictures(folder: Path, count: int) -> list[Item]:
    """Pictures of 900 x 900 with the noise of a camera, every second one with a mask."""
    generator = np.random.RandomState(0)
    smooth = Image.fromarray(generator.randint(0, 256, (9, 9, 3)).astype(np.uint8))
    wide = np.asarray(smooth.resize((PICTURE, PICTURE), Image.Resampling.BICUBIC)).astype(np.float32)
    mask = Image.new("L", (PICTURE, PICTURE))
    mask.paste(255, (200, 300, 500, 500))
    mask.save(folder / "mask.png")
    items = []
    for number in range(count):
        noisy = (wide + generator.normal(0, 4, wide.shape)).clip(0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(folder / f"{number}.png")
        mask_path, kind = (("", "good"), ("mask.png", "spot"))[number % 2]
        items.append(Item(f"{number}.png", mask_path, "part", kind, number % 2))
    return items


def benchmark_pipeline(options: argparse.Namespace) -> list[Row]:
    """Seconds a picture of everything but the encoder: each step, and all of them with stored embeddings."""
    backbone, _, pixels = random_backbone(options.model)
    size = backbone.image_size
    embeddings, text = random_case(backbone, pixels)
    images, bank = embeddings[:BATCH], MemoryBank.of(embeddings[BATCH : 2 * BATCH])

    def run(items: list[Item], folder: Path, workers: int, shots: list[list[int]]) -> None:
        found, masks = [], []
        with BatchReader(size, BATCH, workers) as reader:
            for batch in reader.batches(items, partial(load_sample, root=folder, size=size)):
                masks += [np.zeros((size, size), np.bool_) if one.mask is None else one.mask for one in batch.extras]
                found.append(score_images(images[: len(batch.entries)], text, bank, shots))
        for setting in zip(*found):
            maps = torch.cat([part.maps for part in setting])
            all_metrics(np.stack(masks), upsample(maps, size).numpy())

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        items = write_pictures(folder, PICTURES)
        steps: dict[str, tuple[int, Callable[[], object]]] = {
            "decoding": (1, partial(read_image, folder / "0.png")),
            "resizing": (1, partial(resized_pixels, read_image(folder / "0.png"), size)),
            "normalising": (BATCH, partial(normalise, torch.zeros(BATCH, size, size, 3, dtype=torch.uint8))),
        }
        for what, shots in {"0 shots": SHOTS[:1], "0, 1, 2, 4, 8 shots": SHOTS}.items():
            steps[f"scoring, {what}"] = BATCH, partial(score_images, images, text, bank, shots)
            for workers in (0, 1, 2):
                steps[f"all, {what}, {workers} workers"] = PICTURES, partial(run, items, folder, workers, shots)
        times = medians({step: function for step, (_, function) in steps.items()}, options.repeats)
    seconds = {step: times[step] / pictures for step, (pictures, _) in steps.items()}
    whole = "all, 0 shots, 0 workers"
    return [("pipeline", f"a picture, {step}", taken, whole, seconds[whole]) for step, taken in seconds.items()]


def benchmark_start(options: argparse.Namespace) -> list[Row]:
    """test.py from its start to the tables of one picture, demo backbone, cached text, against importing torch."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_index(DatasetIndex(folder, {}, {"part": write_pictures(folder, 1)}))
        again = f"{sys.executable} test.py --model demo-vit-240 --data_path {name} --save_path {name}/out".split()
        # The turn that does not count fills the cache.
        commands = {"fresh": [*again, "--fresh"], "again": again, "torch": [sys.executable, "-c", "import torch"]}
        environment = {**os.environ, "XDG_CACHE_HOME": name}
        start = partial(
            subprocess.run, env=environment, capture_output=True, check=True, cwd=Path(__file__).resolve().parent.parent
        )
        times = medians({what: partial(start, command) for what, command in commands.items()}, options.repeats)
    what = {"fresh": "test.py on one picture, cached text", "again": "the same once more"}
    return [("start", text, times[name], "import torch", times["torch"]) for name, text in what.items()]


def machine() -> str:
    """The machine and versions behind the figures."""
    cores = f"{os.cpu_count()} CPUs, {torch.get_num_threads()} threads"
    return f"{processor()} ({instruction_sets()}), {cores}, torch {torch.__version__}"


def print_rows(rows: list[Row]) -> None:
    """Print rows as a table. The last column is the baseline's time divided by ours."""
    header = ["benchmark", "what", "seconds", "baseline", "its seconds", "baseline / ours"]
    cells = [[*row, row[4] / row[2]] for row in rows]
    print(tabulate(cells, header, tablefmt="pipe", floatfmt=("", "", ".4f", "", ".4f", ".2f")))


def main() -> None:
    """Run the chosen benchmarks, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "benchmarks", nargs="*", choices=("all", *BENCHMARKS), default="all", help="what to measure (all)"
    )
    parser.add_argument("--model", default="ViT-B-16-plus-240", help="model with random weights (ViT-B-16-plus-240)")
    parser.add_argument("--repeats", type=int, default=7, help="counted turns of each measurement (7)")
    options = parser.parse_args()
    print(machine())
    chosen = BENCHMARKS if "all" in options.benchmarks else options.benchmarks
    print_rows([row for name in chosen for row in globals()[f"benchmark_{name}"](options)])


if __name__ == "__main__":
    main()
