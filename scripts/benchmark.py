"""Measures the encoder, the text side, the metrics, the pipeline and the memory against bounds and baselines.

    python -m scripts.benchmark                      # all of them, ViT-B-16-plus-240 with random weights
    python -m scripts.benchmark encoder metrics --json figures.json
    python -m scripts.benchmark --compare figures.json       # what became slower since, by more than 10 %

Every ratio is taken within one run: the things compared take turns, and the median of their times is shown.
Runs are compared by seconds times the machine's own rate of fp32 matrix products beside each benchmark.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt
import open_clip
import safetensors.torch
import torch
import torch.nn.functional as F
from PIL import Image
from tabulate import tabulate

from evaluation.check_metrics import textbook_pixel_metrics
from scripts.operations import GIGA, exact_operations, plain_operations
from scripts.pipeline import pipeline_times
from winclip.defaults import SCALES
from winclip.memory import MemoryBank
from winclip.metrics.exact import image_metrics, label_defects, pixel_metrics
from winclip.network.clip import Clip, ClipConfig
from winclip.network.clip_backbone import ClipBackbone as Backbone
from winclip.network.clip_backbone import choose_kernels
from winclip.network.devices import PRECISIONS
from winclip.network.linear import instruction_sets, pack, packed_linear, processor, slowdown
from winclip.network.pretrained import parse_config, read_config
from winclip.pictures.images import CLIP_MEAN, CLIP_STD
from winclip.prompts import REFERENCE
from winclip.scoring import score_images
from winclip.support.files import write_atomically
from winclip.text import class_embeddings
from winclip.windows import window_patches

SLOWER = 1.1  # --compare names what takes longer by this factor
SIDE, PRODUCTS = 2048, 12  # of the matrix products that the bound's rate is measured with
BENCHMARKS = ("encoder", "text", "metrics", "pipeline", "memory")


@dataclass
class Row:
    """One line of the printed table."""

    benchmark: str
    what: str
    seconds: float
    baseline: str
    baseline_seconds: float

    @property
    def ratio(self) -> float:
        """How many times as long as this the baseline takes; of a bound, the part of it that is reached."""
        return self.baseline_seconds / self.seconds


def medians(functions: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median seconds of each function; they take turns, after one turn that does not count."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for turn in range(repeats + 1):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            if turn:
                times[name].append(time.perf_counter() - start)
    return {name: median(values) for name, values in times.items()}


def matrix_products(dtype: torch.dtype) -> dict[str, Callable[[], object]]:
    """Large matrix products, plain and with packed weights, for a second or so each: the sustained rate."""
    left, right = (torch.randn(SIDE, SIDE).to(dtype) for _ in range(2))
    layers: dict[str, Callable[[torch.Tensor], torch.Tensor] | None] = {
        "plain products": lambda x: x @ right,
        "packed products": packed_linear(right, torch.zeros(SIDE, dtype=dtype)),
    }

    @torch.inference_mode()
    def run(layer: Callable[[torch.Tensor], torch.Tensor]) -> None:
        for _ in range(PRODUCTS):
            layer(left)

    return {name: partial(run, layer) for name, layer in layers.items() if layer}


def matrix_rate(times: dict[str, float]) -> float:
    """Operations a second of the faster of ``matrix_products``, from the seconds of each."""
    return PRODUCTS * 2 * SIDE**3 / min(seconds for name, seconds in times.items() if name.endswith(" products"))


def random_backbone(model: str, precision: str) -> tuple[Backbone, open_clip.CLIP]:
    """A backbone with seeded random weights, and open_clip's own model with the same ones."""
    torch.manual_seed(0)
    raw = open_clip.get_model_config(model)
    original = open_clip.CLIP(**raw).eval().requires_grad_(False)
    config = parse_config(raw, model)
    with torch.device("meta"):
        clip = Clip(config)
    state = original.state_dict()
    clip.load_state_dict({name: state[name] for name in clip.state_dict()}, assign=True)
    dtype = PRECISIONS[precision]
    clip = clip.to(dtype).eval().requires_grad_(False)
    device = torch.device("cpu")
    kernels = choose_kernels(config, device, dtype)
    if kernels == "packed":
        pack(clip.visual)
    backbone = Backbone(
        clip=clip,
        model=model,
        pretrained="random",
        weights_sha256="",
        mean=CLIP_MEAN,
        std=CLIP_STD,
        device=device,
        precision=precision,
        kernels=kernels,
    )
    return backbone, original.to(dtype)


def write_random_weights(model: str, checkpoint: Path) -> None:
    """A checkpoint of a model that open_clip or a config .json names, with random weights."""
    safetensors.torch.save_file(open_clip.CLIP(**read_config(model)[0]).state_dict(), checkpoint)


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
    config = parse_config(open_clip.get_model_config(options.model), options.model)
    precisions = ["fp32", "bf16"] if bf16_pays(config) else ["fp32"]
    return [row for precision in precisions for row in encoder_rows(options, precision)]


def bf16_pays(config: ClipConfig) -> bool:
    """Whether bf16 is at least as fast as fp32 here; else its rows, which would take minutes, are left out."""
    slow = slowdown(config.width, config.mlp_width, torch.bfloat16)
    if slow > 1:
        print(f"bfloat16 is left out: its linear layers are {slow:.1f} times as slow as fp32 on this processor")
    return slow <= 1


def encoder_rows(options: argparse.Namespace, precision: str) -> list[Row]:
    """The encoder in one precision."""
    backbone, original = random_backbone(options.model, precision)
    config = backbone.clip.config
    image = torch.randn(1, 3, config.image_size, config.image_size, generator=torch.Generator().manual_seed(1))
    products = matrix_products(backbone.dtype)
    functions: dict[str, Callable[[], object]] = {
        **products,
        "ours": lambda: backbone.encode(image),
        "plain": lambda: plain_encode(original, image.to(backbone.dtype)),
    }
    print(f"encoder, {precision}: {backbone.kernels} linear layers")
    times = medians(functions, options.repeats)
    return [
        bound_row(backbone, times["ours"], matrix_rate(times)),
        Row("encoder", f"an image, {precision}", times["ours"], "open_clip call per scale", times["plain"]),
    ]


def bound_row(backbone: Backbone, seconds: float, rate: float) -> Row:
    """Encoding an image against its operations at a matrix rate."""
    config = backbone.clip.config
    needed, plain = exact_operations(config), plain_operations(config)
    bound = f"bound: {needed / GIGA:.0f} of {plain / GIGA:.0f} GFLOP at {rate / GIGA:.0f} GFLOP/s"
    precision = next(name for name, dtype in PRECISIONS.items() if dtype == backbone.dtype)
    return Row("encoder", f"an image, {precision}", seconds, bound, needed / rate)


def benchmark_text(options: argparse.Namespace) -> list[Row]:
    """Seconds a class, against encoding every prompt at its full context."""
    backbone, original = random_backbone(options.model, "fp32")

    @torch.inference_mode()
    def plain() -> torch.Tensor:
        both = (REFERENCE.normal("metal_nut"), REFERENCE.anomalous("metal_nut"))
        embeddings = [original.encode_text(open_clip.tokenize(prompts)).mean(dim=0) for prompts in both]
        return F.normalize(torch.stack(embeddings), dim=-1)

    def ours() -> torch.Tensor:
        return class_embeddings(backbone, "metal_nut", REFERENCE)

    print(f"text: largest difference to full context {float((ours() - plain()).abs().max()):.0e}")
    times = medians({"ours": ours, "plain": plain}, options.repeats)
    return [Row("text", "a class, fp32", times["ours"], "full context", times["plain"])]


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


def benchmark_metrics(options: argparse.Namespace) -> list[Row]:
    """All seven metrics of 83 maps, against scikit-learn with the threshold loop."""
    masks, maps = metric_case()
    labels, scores = masks.any(axis=(1, 2)), maps.max(axis=(1, 2))

    def ours() -> dict[str, float]:
        return image_metrics(labels, scores)[0] | pixel_metrics(label_defects(masks), maps)[0]

    start = time.perf_counter()
    expected = textbook_pixel_metrics(masks, maps)
    looped = time.perf_counter() - start
    figures = ours()
    difference = max(abs(figures[name] - value) for name, value in expected.items())
    print(f"metrics: largest difference to scikit-learn and scikit-image {difference:.0e}")
    seconds = medians({"ours": ours}, options.repeats)["ours"]
    return [
        Row(
            "metrics",
            "seven metrics of 83 maps",
            seconds,
            "the four of pixels as --check_metrics takes them, once",
            looped,
        )
    ]


def benchmark_pipeline(options: argparse.Namespace) -> list[Row]:
    """What shots and seeds add to a zero-shot pass over test images, everything but the encoder, and the start-up."""
    backbone, _ = random_backbone(options.model, "fp32")
    config = backbone.clip.config
    images = torch.randn(2, 3, config.image_size, config.image_size, generator=torch.Generator().manual_seed(1))
    embeddings = backbone.encode(images)
    text = class_embeddings(backbone, "metal_nut", REFERENCE)
    noise = torch.Generator().manual_seed(2)

    def bank(references: int) -> MemoryBank:
        one = embeddings[:1]
        return MemoryBank.of(one.map(lambda part: torch.randn(references, *part.shape[1:], generator=noise)))

    def score(bank: MemoryBank | None, chosen: list[list[int]]) -> None:
        score_images(embeddings[:1], text, bank, chosen)

    shots = [list(range(k)) for k in (1, 2, 4, 8)]
    one, five = bank(8), bank(40)
    draws = [[8 * seed + number for number in draw] for seed in range(5) for draw in shots]
    times = medians(
        {
            "encode": lambda: backbone.encode(images[:1]),
            "zero": lambda: score(None, [[]]),
            "few": lambda: score(one, shots),
            "seeds": lambda: score(five, draws),
        },
        options.repeats,
    )
    zero, few, seeds = (times["encode"] + times[name] for name in ("zero", "few", "seeds"))
    return [
        Row("pipeline", "an image, encoded and scored for 1, 2, 4, 8 shots", few, "for zero-shot", zero),
        Row("pipeline", "an image, encoded and scored for 5 seeds of them", seeds, "for zero-shot", zero),
        *picture_rows(backbone, options.repeats),
        startup_row(),
    ]


def picture_rows(backbone: Backbone, repeats: int) -> list[Row]:
    """A picture as data sets have them, with a stored embedding of it: every step, and whole runs."""
    times = pipeline_times(backbone, medians, repeats)
    whole = "run, 0 shots, 0 workers"
    return [Row("pipeline", f"a picture, {what}", seconds, whole, times[whole]) for what, seconds in times.items()]


def startup_row() -> Row:
    """test.py from its start to the score of one image, demo backbone, cached text, against importing torch."""
    root = Path(__file__).resolve().parent.parent
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder)
        write_grey_images(data, 1)
        command = [sys.executable, str(root / "test.py"), "--model", "demo-vit-240", "--data_path", folder]
        command += ["--save_path", str(data / "out")]
        run = partial(subprocess.run, env={**os.environ, "XDG_CACHE_HOME": folder}, capture_output=True, check=True)
        # The turn that does not count fills the cache.
        times = medians({"test": lambda: run(command), "torch": lambda: run([sys.executable, "-c", "import torch"])}, 5)
    return Row("pipeline", "start to first score, cached text", times["test"], "import torch", times["torch"])


MEMORY_SCRIPT = """
import sys
from evaluation.options import parse_options
from evaluation.run import run
run(parse_options(sys.argv[1:]))
# Not ru_maxrss, which starts at what the parent process held.
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


def benchmark_memory(options: argparse.Namespace) -> list[Row]:
    """Peak resident memory of test.py at batch 8 over 8 and 24 images of a class; printed, not timed."""
    root = str(Path(__file__).resolve().parent.parent)
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder) / "random.safetensors"
        write_random_weights(options.model, checkpoint)
        weights = checkpoint.stat().st_size
        for count in (8, 24):
            data = Path(folder) / str(count)
            write_grey_images(data, count)
            arguments = ["--model", options.model, "--pretrained", str(checkpoint), "--batch_size", "8", "--no_cache"]
            arguments += ["--data_path", str(data), "--save_path", str(data / "out")]
            command = [sys.executable, "-c", MEMORY_SCRIPT, *arguments]
            # From the root, where Python finds the repository's modules.
            out = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=root).stdout
            peak = int(out.split()[-1]) * 1024
            print(
                f"memory: test.py on {count} images, batch 8: peak {peak / 1e9:.2f} GB,"
                f" weights {weights / 1e9:.2f} GB, beyond them {(peak - weights) / 1e9:.2f} GB"
            )
    return []


def write_grey_images(folder: Path, count: int) -> None:
    """A data set of one class with ``count`` test images."""
    folder.mkdir(exist_ok=True)
    items = []
    for number in range(count):
        Image.new("RGB", (240, 240), "grey").save(folder / f"{number}.png")
        item = {"mask_path": "", "cls_name": "part", "specie_name": "good", "anomaly": 0}
        items.append({"img_path": f"{number}.png", **item})
    write_atomically(folder / "meta.json", json.dumps({"train": {}, "test": {"part": items}}))


def memory_mb(process: int) -> float:
    """Resident memory of a process, as Linux has it."""
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def machine() -> str:
    """The machine and versions that the figures belong to."""
    threads = f"{os.cpu_count()} CPUs, {torch.get_num_threads()} threads"
    return f"{processor()} ({instruction_sets()}), {threads}, torch {torch.__version__}"


def print_rows(rows: list[Row]) -> None:
    """Print rows as a table."""
    cells = [
        [row.benchmark, row.what, f"{row.seconds:.4f}", row.baseline, f"{row.baseline_seconds:.4f}", f"{row.ratio:.2f}"]
        for row in rows
    ]
    header = ["benchmark", "what", "seconds", "baseline", "its seconds", "baseline / ours"]
    print(tabulate(cells, header, tablefmt="pipe", disable_numparse=True))


def slower_rows(rows: Sequence[Row], rates: Sequence[float], stored: Sequence[dict[str, Any]]) -> list[str]:
    """Lines on the rows that take ``SLOWER`` times as long as stored ones, at the rate of either machine.

    Args:
        rows: of this run.
        rates: the matrix rate beside each.
        stored: rows of a run that ``--json`` wrote.
    """
    before = {(row["benchmark"], row["what"]): row["seconds"] * row["matrix_rate"] for row in stored}
    lines = {}
    for row, rate in zip(rows, rates):
        key = row.benchmark, row.what
        factor = row.seconds * rate / before[key] if key in before else 0.0
        if factor > SLOWER:
            lines[key] = f"slower: {row.benchmark}, {row.what}: {factor:.2f} times as long as stored"
    return list(lines.values())


def main() -> int:
    """Run the chosen benchmarks, print the table and write the JSON; 1 if ``--compare`` found something slower."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("benchmarks", nargs="*", help=f"any of {', '.join(BENCHMARKS)} (all)")
    parser.add_argument("--model", default="ViT-B-16-plus-240", help="open_clip model, with random weights")
    parser.add_argument("--repeats", type=int, default=7, help="counted turns of each measurement (7)")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    parser.add_argument("--compare", type=Path, metavar="FILE", help="a stored run: name what became slower by a tenth")
    options = parser.parse_args()
    unknown = set(options.benchmarks) - set(BENCHMARKS)
    if unknown:
        parser.error(f"unknown benchmark {', '.join(sorted(unknown))}; there are {', '.join(BENCHMARKS)}")
    stored = json.loads(options.compare.read_text(encoding="utf-8"))["rows"] if options.compare else []
    print(machine())
    rows: list[Row] = []
    rates: list[float] = []
    products = matrix_products(torch.float32)
    for name in options.benchmarks or BENCHMARKS:
        before = matrix_rate(medians(products, 1))
        rows += globals()[f"benchmark_{name}"](options)
        rates += [(before + matrix_rate(medians(products, 1))) / 2] * (len(rows) - len(rates))
    if rows:
        print_rows(rows)
    if options.json:
        figures = [{**asdict(row), "ratio": row.ratio, "matrix_rate": rate} for row, rate in zip(rows, rates)]
        write_atomically(options.json, json.dumps({"machine": machine(), "rows": figures}, indent=2) + "\n")
    lines = slower_rows(rows, rates, stored)
    print(*lines, sep="\n", end="\n" if lines else "")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
