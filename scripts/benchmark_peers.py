"""Times anomalib's WinCLIP, OpenVINO on the plain windows, and adeval beside this project, in one run.

Started by benchmark_peers.sh. The weights of ViT-B-16-plus-240 are random and the same for all; before
anything is timed, the window embeddings of all are checked to agree.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np
import open_clip
import openvino
import torch
from adeval import EvalAccumulator
from anomalib.models.image.winclip.torch_model import WinClipModel
from torch import nn

from scripts.benchmark import (
    Row,
    bf16_pays,
    bound_row,
    machine,
    matrix_products,
    matrix_rate,
    medians,
    metric_case,
    print_rows,
    random_backbone,
)
from winclip.defaults import SCALES
from winclip.memory import MemoryBank
from winclip.metrics.exact import image_metrics, label_defects, pixel_metrics
from winclip.prompts import REFERENCE
from winclip.scoring import score_images, upsample
from winclip.text import class_embeddings
from winclip.windows import window_patches

MODEL = "ViT-B-16-plus-240"
REFERENCES = 4


class PlainTower(nn.Module):
    """Sequences of tokens, (N, L, width), to the embedding of each first token: what OpenVINO is given."""

    def __init__(self, model: open_clip.CLIP) -> None:
        super().__init__()
        self.visual = model.visual

    def forward(self, sequences: torch.Tensor) -> torch.Tensor:
        # open_clip 2.24 takes (L, N, width).
        out = self.visual.transformer(sequences.permute(1, 0, 2))[0]
        return self.visual.ln_post(out) @ self.visual.proj


def sequences_of(model: open_clip.CLIP, images: torch.Tensor) -> list[torch.Tensor]:
    """The full image and the windows of each scale as sequences of tokens."""
    visual = model.visual
    patches = visual.conv1(images).flatten(2).transpose(1, 2)
    class_token = visual.class_embedding.expand(len(images), 1, -1)
    tokens = visual.ln_pre(torch.cat([class_token, patches], dim=1) + visual.positional_embedding)
    parts = [tokens]
    for side in SCALES:
        windows = window_patches(visual.grid_size[0], side)
        parts.append(tokens[:, torch.cat([windows.new_zeros(len(windows), 1), windows + 1], dim=1)].flatten(0, 1))
    return parts


def compile_openvino(model: open_clip.CLIP, sequences: list[torch.Tensor], precision: str) -> list[Any]:
    """One compiled graph per sequence length, on all cores."""
    compiled = []
    for part in sequences:
        graph = openvino.convert_model(PlainTower(model), example_input=part[:2], input=tuple(part.shape))
        compiled.append(openvino.Core().compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": precision}))
    return compiled


def agreement(one: torch.Tensor, other: torch.Tensor) -> float:
    """Largest difference over the largest entry."""
    return float((one - other).abs().max() / other.abs().max())


def encoder_rows(repeats: int) -> list[Row]:
    """Zero-shot and few-shot an image against anomalib, encoding against OpenVINO."""
    backbone, original = random_backbone(MODEL, "fp32")
    with_bf16 = bf16_pays(backbone.clip.config)
    half = random_backbone(MODEL, "bf16")[0] if with_bf16 else backbone
    limits = {"f32": 1e-4, "bf16": 5e-2} if with_bf16 else {"f32": 1e-4}
    size = backbone.image_size
    # Images of noise that is smooth enough to give different windows.
    noise = torch.randn(1 + REFERENCES, 3, 30, 30, generator=torch.Generator().manual_seed(3))
    images = nn.functional.interpolate(noise, size=(size, size), mode="bicubic")
    image, references = images[:1], images[1:]

    open_clip.create_model_and_transforms = lambda *_, **__: (original, None, None)
    zero_peer = WinClipModel("metal_nut").eval()
    few_peer = WinClipModel("metal_nut", references).eval()
    with torch.inference_mode():
        embeddings = backbone.encode(image)
        theirs = zero_peer.encode_image(image)[1]
        # anomalib has the smaller windows first.
        for side, own, peer in zip(SCALES, embeddings.windows, reversed(theirs)):
            difference = agreement(own, peer)
            print(f"{side} x {side} windows of anomalib and of this project differ by {difference:.1e} of the largest")
            if difference > 1e-4:
                raise SystemExit("the embeddings do not agree; nothing is timed")
        original.visual.output_tokens = False
        sequences = sequences_of(original, image)
        graphs = {name: compile_openvino(original, sequences, name) for name in limits}
        inputs = [part.numpy() for part in sequences]
        for name, limit in limits.items():
            out = torch.from_numpy(graphs[name][1](inputs[1])[0])[None]
            difference = agreement(embeddings.windows[0], out)
            print(f"{SCALES[0]} x {SCALES[0]} windows of OpenVINO {name} differ by {difference:.1e} of the largest")
            if difference > limit:
                raise SystemExit("the embeddings do not agree; nothing is timed")
        original.visual.output_tokens = True

    text = class_embeddings(backbone, "metal_nut", REFERENCE)
    bank = MemoryBank.of(backbone.encode(references))

    @torch.inference_mode()
    def predict(bank: MemoryBank | None, encoder: Any = backbone) -> torch.Tensor:
        subset = () if bank is None else range(len(bank))
        (found,) = score_images(encoder.encode(image), text, bank, [subset])
        return upsample(found.maps, size)

    def run_graphs(precision: str) -> None:
        for graph, part in zip(graphs[precision], inputs):
            graph(part)

    print(f"linear layers: {backbone.kernels} in fp32, {half.kernels} in {half.precision}")
    products = matrix_products(torch.float32)
    functions: dict[str, Callable[[], object]] = {
        **products,
        "zero": lambda: predict(None),
        "anomalib zero": lambda: zero_peer(image),
        "few": lambda: predict(bank),
        "anomalib few": lambda: few_peer(image),
        "encode": lambda: backbone.encode(image),
        "openvino f32": lambda: run_graphs("f32"),
    }
    if with_bf16:
        functions |= {
            "bf16 zero": lambda: predict(None, half),
            "bf16 encode": lambda: half.encode(image),
            "openvino bf16": lambda: run_graphs("bf16"),
        }
    times = medians(functions, repeats)
    anomalib = {name: f"anomalib 2.7.0, {name}-shot, fp32" for name in ("zero", "few")}
    few = f"an image, {REFERENCES} references, fp32"
    rows = [
        Row("zero-shot", "an image, fp32", times["zero"], anomalib["zero"], times["anomalib zero"]),
        Row("few-shot", few, times["few"], anomalib["few"], times["anomalib few"]),
        bound_row(backbone, times["encode"], matrix_rate(times)),
        Row("encoder", "an image, fp32", times["encode"], "OpenVINO, plain windows, fp32", times["openvino f32"]),
    ]
    if with_bf16:
        plain = "OpenVINO, plain windows, bf16"
        rows += [
            Row("zero-shot", "an image, bf16", times["bf16 zero"], anomalib["zero"], times["anomalib zero"]),
            Row("encoder", "an image, bf16", times["bf16 encode"], plain, times["openvino bf16"]),
        ]
    return rows


def metric_rows(repeats: int) -> list[Row]:
    """Seven exact metrics of 83 maps against adeval's five binned ones."""
    masks, maps = metric_case()
    labels, scores = masks.any(axis=(1, 2)), maps.max(axis=(1, 2))

    def ours() -> dict[str, float]:
        return image_metrics(labels, scores)[0] | pixel_metrics(label_defects(masks), maps, "exact")[0]

    def adeval() -> dict[str, float]:
        bounds = (float(values(part)) for part in (scores, maps) for values in (np.min, np.max))
        accumulator = EvalAccumulator(*bounds)
        accumulator.add_image(scores, labels)
        # Image and sample are the same here, and empty accumulators divide by zero.
        accumulator.add_sample(scores[:2], np.array([0, 1]))
        for anomaly_map, mask in zip(maps, masks):
            accumulator.add_anomap(anomaly_map, mask.astype(np.uint8))
        return dict(accumulator.summary())

    figures, peer = ours(), adeval()
    for name, key in (("auroc_px", "p_auroc"), ("ap_px", "p_aupr"), ("aupro", "p_aupro"), ("auroc_sp", "i_auroc")):
        print(f"{name}: {figures[name]:.6f}, adeval {peer[key]:.6f}")
    times = medians({"ours": ours, "adeval": adeval}, repeats)
    return [Row("metrics", "seven of 83 maps 240 x 240", times["ours"], "adeval's five", times["adeval"])]


def main() -> None:
    """Run everything and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7, help="counted turns of each measurement (7)")
    parser.add_argument("--only", choices=("encoder", "metrics"), help="one part alone")
    options = parser.parse_args()
    print(machine())
    rows = [] if options.only == "metrics" else encoder_rows(options.repeats)
    rows += [] if options.only == "encoder" else metric_rows(options.repeats)
    print_rows(rows)


if __name__ == "__main__":
    main()
