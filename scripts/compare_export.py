"""Compare exported graphs with torch on images of the sample: largest differences, and time a picture.

    python -m scripts.compare_export                                  # the demo backbone
    python -m scripts.compare_export --model ViT-B-16-plus-240 --pretrained random --references 0 --images 2

Every runtime gets one picture at a time and as many threads as torch. They take turns; the medians are printed.
Random weights are the seeded ones of benchmarks/benchmark.py.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from tabulate import tabulate

from scripts.benchmark import machine, medians, random_backbone
from winclip import InputError, Prediction, WinCLIP
from winclip.defaults import DEMO_MODEL
from winclip.demo.sample import make_sample
from winclip.export import RUNTIMES, check_runtime, export, import_openvino
from winclip.pictures.images import resize_straight
from winclip.support.command_line import ModelOptions
from winclip.support.options import add_options, take_options

Pixels = npt.NDArray[np.uint8]
Runtime = Callable[[Pixels], Prediction]


def read_pixels(path: Path, size: int) -> Pixels:
    """(1, 3, size, size) uint8, as the exported graph takes it."""
    picture = resize_straight(Image.open(path).convert("RGB"), size, Image.Resampling.BICUBIC)
    return np.ascontiguousarray(np.asarray(picture).transpose(2, 0, 1)[None])


def torch_runtime(model: WinCLIP) -> Runtime:
    """This project's own path from pixels to score and map."""
    return lambda pixels: model.score(model.backbone.encode(torch.from_numpy(pixels).permute(0, 2, 3, 1)))


def onnx_runtime(file: Path) -> Runtime:
    """ONNX Runtime on the CPU."""
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(file, settings, providers=["CPUExecutionProvider"])
    return lambda pixels: Prediction(*session.run(["scores", "maps"], {"images": pixels}))


def openvino_runtime(file: Path, precision: str | None) -> Runtime:
    """OpenVINO on the CPU, in the precision named or the one it prefers."""
    settings = {"INFERENCE_NUM_THREADS": torch.get_num_threads(), "PERFORMANCE_HINT": "LATENCY"}
    settings |= {"INFERENCE_PRECISION_HINT": precision} if precision else {}
    compiled = import_openvino().Core().compile_model(file, "CPU", settings)

    def run(pixels: Pixels) -> Prediction:
        found = compiled({"images": pixels})
        return Prediction(found["scores"], found["maps"])

    return run


def run_all(runtime: Runtime, pictures: list[Pixels]) -> Prediction:
    """Scores and maps of pictures that go through one at a time."""
    found = [runtime(picture) for picture in pictures]
    return Prediction(np.concatenate([one.scores for one in found]), np.concatenate([one.maps for one in found]))


def export_all(model: WinCLIP, folder: Path) -> list[Path]:
    """Write a graph for every runtime in each of its precisions, and give their folders, such as ``onnx-fp32``."""
    graphs = []
    for name, runtime in RUNTIMES.items():
        for precision in runtime.precisions:
            graphs.append(folder / f"{name}-{precision}")
            export(model, name, graphs[-1], precision)
    return graphs


def load(graph: Path) -> Runtime:
    """What ``export`` wrote to a folder, in its runtime with the settings that it is meant to have."""
    file = graph / "model.onnx"
    return onnx_runtime(file) if file.exists() else openvino_runtime(file.with_suffix(".xml"), "f32")


def compare(model: WinCLIP, graphs: list[Path], files: list[Path], repeats: int) -> list[list[str]]:
    """One row a runtime: name, megabytes, largest difference in score and in map, milliseconds a picture.

    ``graphs`` is what ``export_all`` gave.
    """
    pictures = [read_pixels(file, model.backbone.image_size) for file in files]
    expected = model.predict(files)
    runtimes: dict[str, Runtime] = {"torch": torch_runtime(model)}
    sizes = {}
    for graph in graphs:
        runtimes[graph.name] = load(graph)
        sizes[graph.name] = f"{sum(file.stat().st_size for file in graph.glob('model.[!j]*')) / 1e6:.1f}"
        if graph.name == "openvino-fp32":
            runtimes["openvino-fp32 as it prefers"] = openvino_runtime(graph / "model.xml", None)

    def all_pictures(runtime: Runtime) -> Callable[[], list[Prediction]]:
        return lambda: [runtime(picture) for picture in pictures]

    seconds = medians({name: all_pictures(runtime) for name, runtime in runtimes.items()}, repeats)
    rows = []
    for name, runtime in runtimes.items():
        found = run_all(runtime, pictures)
        scores = np.abs(found.scores - expected.scores).max()
        maps = np.abs(found.maps - expected.maps).max()
        milliseconds = 1000 * seconds[name] / len(pictures)
        rows.append([name, sizes.get(name, ""), f"{scores:.1e}", f"{maps:.1e}", f"{milliseconds:.1f}"])
    return rows


def main() -> None:
    """Draw the sample where it is missing, compare zero-shot and few-shot, print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_path", type=Path, default=Path("data/sample"), help="the sample (data/sample)")
    parser.add_argument("--root", dest="data_path", type=Path, default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    parser.add_argument("--class_name", default="gear", help="class of the sample (gear)")
    parser.add_argument("--references", type=int, default=4, help="for the few-shot rows (4)")
    parser.add_argument("--images", type=int, default=20, help="test images (20)")
    parser.add_argument("--repeats", type=int, default=5, help="counted turns (5)")
    add_options(parser, ModelOptions)
    parser.set_defaults(model=DEMO_MODEL, device="cpu", precision="fp32")
    options = parser.parse_args()
    try:
        for name in RUNTIMES:
            check_runtime(name)
        make_sample(options.data_path)
        if options.pretrained == "random":
            model = WinCLIP(random_backbone(options.model, "fp32")[0])
        else:
            model = take_options(ModelOptions, vars(options)).load()
        model.set_class(options.class_name)
        # The first of every folder, then the second, so that good and defective ones are among them.
        test = sorted((options.data_path / options.class_name / "test").glob("*/*.png"), key=lambda path: path.name)
        good = sorted((options.data_path / options.class_name / "train" / "good").glob("*.png"))
        test, rows = test[: options.images], []
        for shots in dict.fromkeys((0, options.references)):
            if shots:
                model.add_references(good[:shots])
            with tempfile.TemporaryDirectory() as folder:
                graphs = export_all(model, Path(folder))
                rows += [[shots, *row] for row in compare(model, graphs, test, options.repeats)]
    except (InputError, FileExistsError) as error:
        parser.exit(2, f"error: {error}\n")
    print(f"{model.backbone.model}, {len(test)} images of {options.class_name}; {machine()}\n")
    header = ["references", "runtime", "MB", "largest difference, score", "largest difference, map", "ms a picture"]
    print(tabulate(rows, header, tablefmt="pipe", disable_numparse=True))


if __name__ == "__main__":
    main()
