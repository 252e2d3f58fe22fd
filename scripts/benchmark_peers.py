"""Times anomalib's WinCLIP and adeval's metrics beside this project, in one run; started by benchmark_peers.sh.

The weights of ViT-B-16-plus-240 are random and the same for both; before anything is timed, the window
embeddings of both are checked to agree.
"""

from __future__ import annotations

import argparse
from functools import partial

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from adeval import EvalAccumulator
from anomalib.models.image.winclip.torch_model import WinClipModel

from scripts import benchmark as own
from winclip.memory import MemoryBank
from winclip.pictures.images import normalise
from winclip.prompts import REFERENCE
from winclip.scoring import score_images, upsample
from winclip.text import class_embeddings

MODEL, CLASS, REFERENCES = "ViT-B-16-plus-240", "metal_nut", 4
PEER = "anomalib 2.7.0, fp32"


def encoder_rows(repeats: int) -> list[own.Row]:
    """Zero-shot and few-shot an image against anomalib."""
    backbone, original, _ = own.random_backbone(MODEL)
    size = backbone.image_size
    # Images of noise that is smooth enough to give different windows.
    noise = torch.randn(1 + REFERENCES, 3, 30, 30, generator=torch.Generator().manual_seed(3))
    smooth = F.interpolate(128 + 64 * noise, size=(size, size), mode="bicubic")
    pixels = smooth.clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()
    images = normalise(pixels)
    image, one = images[:1], pixels[:1]
    open_clip.create_model_and_transforms = lambda *_, **__: (original, None, None)
    zero_peer = WinClipModel(CLASS).eval()
    few_peer = WinClipModel(CLASS, images[1:]).eval()
    with torch.inference_mode():
        theirs = zero_peer.encode_image(image)[1]
    for ours, peer in zip(backbone.encode(one).windows, reversed(theirs)):  # anomalib has the smaller ones first
        torch.testing.assert_close(ours, peer, rtol=0, atol=1e-4 * float(ours.abs().max()))
    text = class_embeddings(backbone, CLASS, REFERENCE)
    bank = MemoryBank.of(backbone.encode(pixels[1:]))

    @torch.inference_mode()
    def predict(bank: MemoryBank | None) -> torch.Tensor:
        (found,) = score_images(backbone.encode(one), text, bank, [range(REFERENCES if bank else 0)])
        return upsample(found.maps, size)

    times = own.medians(
        {
            "zero": partial(predict, None),
            "anomalib zero": partial(zero_peer, image),
            "few": partial(predict, bank),
            "anomalib few": partial(few_peer, image),
        },
        repeats,
    )
    return [
        ("zero-shot", "an image, fp32", times["zero"], PEER, times["anomalib zero"]),
        ("few-shot", f"an image, {REFERENCES} references, fp32", times["few"], PEER, times["anomalib few"]),
    ]


def metric_rows(repeats: int) -> list[own.Row]:
    """Seven exact metrics of 83 maps against adeval's five binned ones."""
    masks, maps = own.metric_case()
    labels, scores = masks.any(axis=(1, 2)), maps.max(axis=(1, 2))

    def adeval() -> dict[str, float]:
        accumulator = EvalAccumulator(*(float(end(part)) for part in (scores, maps) for end in (np.min, np.max)))
        accumulator.add_image(scores, labels)
        # Image and sample are the same here, and empty accumulators divide by zero.
        accumulator.add_sample(scores[:2], np.array([0, 1]))
        for anomaly_map, mask in zip(maps, masks):
            accumulator.add_anomap(anomaly_map, mask.astype(np.uint8))
        return dict(accumulator.summary())

    ours = partial(own.all_metrics, masks, maps, "exact")
    figures, peer = ours(), adeval()
    for name, key in (("auroc_px", "p_auroc"), ("ap_px", "p_aupr"), ("aupro", "p_aupro"), ("auroc_sp", "i_auroc")):
        print(f"{name}: {figures[name]:.6f}, adeval {peer[key]:.6f}")
    times = own.medians({"ours": ours, "adeval": adeval}, repeats)
    return [("metrics", "seven of 83 maps 240 x 240", times["ours"], "adeval's five", times["adeval"])]


def main() -> None:
    """Run everything and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7, help="counted turns of each measurement (7)")
    options = parser.parse_args()
    print(own.machine())
    own.print_rows([*encoder_rows(options.repeats), *metric_rows(options.repeats)])


if __name__ == "__main__":
    main()
