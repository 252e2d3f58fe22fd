"""What INT8 does to exported graphs: change of every metric on the sample, zero-shot and 4-shot, by ONNX Runtime.

    python -m benchmarks.compare_int8

The linear layers and the convolution of the image tower are quantised, static with the class's good images as
calibration; scoring stays in float32. Needs the extra export.
"""

from __future__ import annotations

import argparse
import re
import tempfile
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
from tabulate import tabulate

from benchmarks.benchmark import machine
from benchmarks.compare_export import Pixels, onnx_runtime, read_pixels, run_all
from datasets.mvtec import list_mvtec
from datasets.samples import read_mask, resize_mask
from demo.sample import make_sample
from evaluation.results import METRICS
from winclip.command_line import add_model_options, model_options
from winclip.defaults import DEMO_MODEL
from winclip.export import export
from winclip.metrics import image_metrics, label_defects, pixel_metrics

SHOTS = (0, 4)


def quantise(file: Path, pictures: list[Pixels]) -> Path:
    """Write the quantised graph beside ``file``."""
    scoring = re.compile(r"mean|std|direction|holds\.\d+|banks\.\d+")
    graph = onnx.load(file).graph
    quantised = file.with_name("int8.onnx")
    quantize_static(
        file,
        quantised,
        SimpleNamespace(get_next=partial(next, ({"images": picture} for picture in pictures), None)),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=["MatMul", "Gemm", "Conv"],
        nodes_to_exclude=[node.name for node in graph.node if any(map(scoring.fullmatch, node.input))],
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        extra_options={"MatMulConstBOnly": True},
    )
    return quantised


def main() -> None:
    """Draw the sample where it is missing, quantise every class, print the mean changes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_model_options(parser, DEMO_MODEL, on_cpu_only=True)
    options = parser.parse_args()
    root = Path("data") / "sample"
    make_sample(root)
    index = list_mvtec(root, print, all_classes=True)
    model = model_options(vars(options)).load()
    size = model.backbone.image_size
    cells = []
    for shots in SHOTS:
        changes, largest = [], 0.0
        for class_name, items in index.test.items():
            good, test = (
                [read_pixels(root / item.img_path, size) for item in part] for part in (index.train[class_name], items)
            )
            labels = np.array([item.anomaly for item in items])
            empty = np.zeros((size, size), np.bool_)
            masks = [resize_mask(read_mask(root / item.mask_path), size) if item.mask_path else empty for item in items]
            model.set_class(class_name)
            if shots:
                model.add_references([root / item.img_path for item in index.train[class_name][:shots]])
            with tempfile.TemporaryDirectory() as folder:
                export(model, "onnx", Path(folder) / "graph")
                file = Path(folder) / "graph" / "model.onnx"
                found = [run_all(onnx_runtime(path), test) for path in (file, quantise(file, good))]
            exact, int8 = (
                image_metrics(labels, one.scores)[0] | pixel_metrics(label_defects(np.stack(masks)), one.maps)[0]
                for one in found
            )
            changes.append([100 * (int8[metric] - exact[metric]) for metric in METRICS])
            largest = max(largest, float(np.abs(found[0].scores - found[1].scores).max()))
        cells.append([shots, f"{largest:.3f}", *(f"{change:+.2f}" for change in np.mean(changes, axis=0))])
    print(f"{model.backbone.model}; {machine()}\n")
    print(tabulate(cells, ["shots", "largest score difference", *METRICS], tablefmt="pipe", disable_numparse=True))


if __name__ == "__main__":
    main()
