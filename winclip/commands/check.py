"""Compute known numbers on this machine and measure its speed: what to run first on a new machine or a GPU.

    winclip check
    winclip check --device cuda --precision fp32 tf32 --no_speed

For every precision it shows the largest difference to the known numbers at every stage of the method, and, for the
default architecture with random weights, pictures per second and peak memory. The exit status is 1 where scores or maps
in fp32 are off by more than 1e-5.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
import torch.nn.functional as F
from tabulate import tabulate

import winclip
from winclip.defaults import DEFAULT_MODEL, SCALES
from winclip.memory import MemoryBank, associate
from winclip.network.backbone import Backbone
from winclip.network.clip import Clip
from winclip.network.clip_backbone import ClipBackbone, choose_kernels, load_backbone
from winclip.network.devices import PRECISIONS, resolve_device, resolve_precision
from winclip.network.linear import pack, processor, slowdown
from winclip.network.pretrained import parse_config, read_config
from winclip.pictures.images import CLIP_MEAN, CLIP_STD, read_image, resized_pixels
from winclip.prompts import REFERENCE
from winclip.scoring import association_maps, score_images, state_probability
from winclip.support.command_line import run_command
from winclip.support.options import add_options, option, take_options
from winclip.text import class_embeddings
from winclip.windows import harmonic_mean_map

DATA = Path(__file__).parent.parent / "check_data"
CONFIG = DATA / "model_config.json"
# Largest allowed difference of scores and maps in fp32.
LARGEST = 1e-5
SCALE_NAMES = ("large", "mid")
BATCHES = (1, 8, 32)
# Every batch is encoded repeatedly until this much time has passed.
_SECONDS = 2.0


@dataclass(frozen=True)
class Options:
    """What is checked."""

    device: str = option("auto, cpu, cuda, cuda:1, mps (auto)", "auto")
    precision: tuple[str, ...] | None = option("fp32, tf32, bf16, fp16 (those that suit the device)", metavar="P")
    no_speed: bool = option("leave out the speed, which takes minutes on a CPU", False)


def main(arguments: list[str]) -> int:
    """Check and return the exit status: 0, 1 where fp32 is off, or one of ``run_command``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser, Options)
    options = take_options(Options, vars(parser.parse_args(arguments)))
    return run_command(lambda: check(options))


def check(options: Options) -> int:
    """Print what was found; returns 1 where fp32 is off, else 0.

    Raises:
        InputError: if the device is not present, or lacks a precision.
    """
    device = resolve_device(options.device)
    cuda = device.type == "cuda"
    name = torch.cuda.get_device_name(device) if cuda else f"{processor()}, {torch.get_num_threads()} threads"
    present = "" if torch.cuda.is_available() else "; no CUDA device was found"
    print(f"winclip {winclip.__version__}, torch {torch.__version__}, on {device}: {name}{present}", flush=True)
    precisions = tuple(dict.fromkeys(options.precision or suitable_precisions(device)))
    found = {precision: differences(device, precision) for precision in precisions}
    stages = list(found[precisions[0]])
    rows = [[stage, *(f"{found[precision][stage]:.1e}" for precision in precisions)] for stage in stages]
    print("\nLargest difference to the known numbers; for cls, large, mid and patch relative to the largest number:\n")
    print(tabulate(rows, ["stage", *precisions], tablefmt="pipe", disable_numparse=True), flush=True)
    if not options.no_speed:
        print(f"\n{DEFAULT_MODEL} with random weights:\n")
        rows = [[precision, *row] for precision in precisions for row in speed(DEFAULT_MODEL, device, precision)]
        memory = f"peak of {'the GPU' if cuda else 'the process so far'}, MB"
        header = ["precision", "batch", "pictures a second", memory]
        print(tabulate(rows, header, tablefmt="pipe", disable_numparse=True))
    if "fp32" not in found:
        return 0
    results = [stage for stage in stages if stage.endswith(("_score", "_map"))]
    off = [stage for stage in results if not found["fp32"][stage] <= LARGEST]
    print(f"\nfp32: {', '.join(off) or 'no score and no map'} off by more than {LARGEST:.0e}")
    return 1 if off else 0


def suitable_precisions(device: torch.device) -> tuple[str, ...]:
    """fp32, and the precisions that should be faster on a device."""
    if device.type == "cuda":
        tf32 = ("tf32",) if torch.cuda.get_device_capability(device) >= (8, 0) else ()
        return ("fp32", *tf32, "bf16", "fp16")
    if device.type == "mps":
        return ("fp32", "fp16")
    config = parse_config(read_config(DEFAULT_MODEL)[0], DEFAULT_MODEL)
    return ("fp32", "bf16") if slowdown(config.width, config.mlp_width, torch.bfloat16) < 1 else ("fp32",)


def recipe_tensor(name: str, shape: tuple[int, ...], number: int) -> torch.Tensor:
    """Tensor ``number`` of the small model's sorted state dict, as the recipe of the known numbers draws it.

    Divisions by square roots are in float64, as NumPy 2 does by default and NumPy 1 does not.
    """
    v: Any = np.random.RandomState(1000 + number).standard_normal(shape).astype(np.float32)
    if name.endswith(("ln_pre.weight", "ln_post.weight", "ln_final.weight")) or ".ln_1.w" in name or ".ln_2.w" in name:
        v = 1 + 0.1 * v
    elif name.endswith((".bias", "in_proj_bias")):
        v = 0.1 * v
    elif name == "token_embedding.weight" or name.endswith(("positional_embedding", "class_embedding")):
        v = 0.5 * v
    elif name == "visual.conv1.weight":
        v = v.astype(np.float64) / np.sqrt(np.prod(shape[1:]))
    elif name == "logit_scale":
        v = np.float32(2.6592)
    else:
        v = (v * 1.5).astype(np.float64) / np.sqrt(shape[0] if name in ("text_projection", "visual.proj") else shape[1])
    return torch.from_numpy(np.asarray(v, dtype=np.float32))


def differences(device: torch.device, precision: str) -> dict[str, float]:
    """By stage, the largest difference to the known numbers; for embeddings, divided by the largest known number.

    Raises:
        InputError: if the device lacks the precision.
    """
    with torch.device("meta"):
        clip = Clip(parse_config(read_config(str(CONFIG))[0], str(CONFIG)))
    shapes = {name: tuple(value.shape) for name, value in clip.state_dict().items()}
    # The recipe also counts this tensor of open_clip's model.
    names = sorted([*shapes, "logit_scale"])
    state = {name: recipe_tensor(name, shapes[name], names.index(name)) for name in shapes}
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder) / "known.safetensors"
        safetensors.torch.save_file(state, checkpoint)
        computed = computed_stages(load_backbone(str(CONFIG), str(checkpoint), device=str(device), precision=precision))
    found = {}
    with np.load(DATA / "stages.npz") as known:
        for name in known.files:
            expected = torch.from_numpy(known[name]).double()
            if name == "text_features":
                # The known number is the mean before normalisation.
                expected = F.normalize(expected, dim=-1)
            size = float(expected.abs().max()) if name in ("cls", *SCALE_NAMES, "patch") else 1.0
            found[name] = float((computed[name].cpu().double() - expected).abs().max()) / size
    return found


def computed_stages(backbone: Backbone) -> dict[str, torch.Tensor]:
    """The small model's output at every stage for three known pictures, and with one and two others as references."""
    pictures = [resized_pixels(read_image(DATA / f"image_{number}.png"), backbone.image_size) for number in range(5)]
    encoded = backbone.encode(torch.from_numpy(np.stack(pictures)))
    tested, bank, text = encoded[:3], MemoryBank.of(encoded[3:]), class_embeddings(backbone, "metal_nut", REFERENCE)
    found = {"text_features": text, "cls": tested.cls, **dict(zip(SCALE_NAMES, tested.windows)), "patch": tested.patch}
    for name, side, windows in zip(SCALE_NAMES, SCALES, tested.windows):
        found[f"window_prob_{name}"] = state_probability(windows, text)
        found[f"harmonic_{name}"] = harmonic_mean_map(found[f"window_prob_{name}"], backbone.grid, side)
    (zero,) = score_images(tested, text)
    found |= {"zero_image_score": zero.scores, "zero_map": zero.maps}
    associations = associate(tested, bank)
    for few in (1, 2):
        of_windows, of_patches = associations.nearest(range(few))
        for name, part in zip((*SCALE_NAMES, "patch"), (*of_windows, of_patches)):
            found[f"few{few}_assoc_{name}"] = part
        found[f"few{few}_map"] = association_maps(associations, range(few))
        (scored,) = score_images(tested, text, bank, [range(few)])
        found |= {f"few{few}_image_score": scored.scores, f"few{few}_total_map": scored.maps}
    return found


def random_backbone(model: str, device: torch.device, precision: str) -> Backbone:
    """A backbone of an architecture that open_clip or a config .json names, with random weights."""
    config, precision = parse_config(read_config(model)[0], model), resolve_precision(precision, device)
    kernels = choose_kernels(config, device, PRECISIONS[precision])
    with torch.device("meta"):
        clip = Clip(config)
    clip = clip.to_empty(device=device).requires_grad_(False).eval()
    for weights in clip.parameters():
        # So that activations keep their size through the layers.
        weights.normal_(std=weights.shape[-1] ** -0.5 if weights.dim() > 1 else 1.0)
    clip = clip.to(PRECISIONS[precision])
    if kernels == "packed":
        pack(clip.visual)
    return ClipBackbone(clip, model, "random", "", CLIP_MEAN, CLIP_STD, device, precision, kernels)


def speed(model: str, device: torch.device, precision: str) -> list[list[str]]:
    """Rows for random weights, one per batch size: the size, pictures per second, and peak memory in MB.

    On CUDA it is the device's memory, else the peak of this process since its start.
    """
    backbone, rows = random_backbone(model, device, precision), []
    for batch in BATCHES:
        pictures = torch.randint(0, 256, (batch, backbone.image_size, backbone.image_size, 3), dtype=torch.uint8)
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        # This round does not count. A CPU takes the pictures of a batch one by one.
        backbone.encode(pictures[:1] if device.type == "cpu" else pictures).windows[-1].sum().item()
        start, turns = time.perf_counter(), 0
        while not turns or time.perf_counter() - start < _SECONDS:
            # Reading a number of the last scale waits for the device.
            backbone.encode(pictures).windows[-1].sum().item()
            turns += 1
        rate = turns * batch / (time.perf_counter() - start)
        rows.append([str(batch), f"{rate:.3g}", _peak_memory(device)])
    return rows


def _peak_memory(device: torch.device) -> str:
    if device.type == "cuda":
        return f"{torch.cuda.max_memory_allocated(device) / 1e6:.0f}"
    status = Path("/proc/self/status")
    # Not ru_maxrss, which starts at the memory of the parent process.
    lines = status.read_text().splitlines() if status.exists() else []
    return next((f"{int(line.split()[1]) / 1000:.0f}" for line in lines if line.startswith("VmHWM")), "-")
