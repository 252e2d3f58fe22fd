"""One graph from pixels to score and map, with the class and its references folded in, for other runtimes."""

from __future__ import annotations

import importlib
import importlib.util
import json
import sys
import tempfile
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

import winclip
from winclip.embeddings import Embeddings
from winclip.memory import MemoryBank
from winclip.model import WinCLIP
from winclip.network.clip_backbone import ClipBackbone
from winclip.network.devices import PRECISIONS
from winclip.scoring import upsample
from winclip.support.errors import InputError
from winclip.variants import check_text_alone
from winclip.windows import window_patches

INSTALL = "python -m pip install 'winclip[export]', or in a clone: python -m pip install -e '.[export]'"

# Smaller than the smallest probability at the paper's temperature, 4e-13; also replaces an association of 0.
_SMALLEST = 1e-14
# A protobuf file holds less than 2 GB; a graph close to that keeps its weights in a separate file.
_LARGEST_IN_ONE_FILE = 1_800_000_000


class Graph(nn.Module):
    """From pixels to scores and maps: ``WinCLIP.predict`` in tensor operations that can be traced.

    It computes in float32 what ``winclip.scoring`` computes in float64. Scores and maps differ from the
    results of ``WinCLIP.score`` by less than 1e-5, if the image tower is in float32 too.
    """

    mean: torch.Tensor
    std: torch.Tensor
    direction: torch.Tensor

    def __init__(
        self, model: WinCLIP, text: torch.Tensor, bank: MemoryBank | None, dtype: torch.dtype = torch.float32
    ) -> None:
        """Set the class whose embeddings become constants.

        Args:
            model: its temperature and its backbone's image tower, on the CPU in float32, are used.
            text: (2, embed_dim), L2-normalised class embeddings, normal first.
            bank: references for few-shot; None for zero-shot.
            dtype: dtype of the image tower; later steps are in float32.
        """
        super().__init__()
        check_text_alone(model.variant, "an export")
        backbone = model.backbone
        if not isinstance(backbone, ClipBackbone):
            raise InputError(f"model {backbone.model} cannot be exported; only a CLIP can")
        self.grid, self.image_size = backbone.grid, backbone.image_size
        self.tower = backbone.plain_image_tower().to(dtype)
        self.register_buffer("mean", torch.tensor(backbone.mean).reshape(3, 1, 1))
        self.register_buffer("std", torch.tensor(backbone.std).reshape(3, 1, 1))
        # The softmax over two classes is the logistic function of the difference of their cosines.
        self.register_buffer("direction", (text[1] - text[0]) / model.temperature)
        self.holds = _constants(*(_window_holds_patch(self.grid, side) for side in backbone.scales))
        known = () if bank is None else (*bank.embeddings.windows, bank.embeddings.patch)
        self.banks = _constants(*(part.flatten(0, 1).T for part in known))

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Score (N, 3, S, S) uint8 RGB images.

        Returns:
            Scores, (N,) float32 in [0, 1]; maps, (N, S, S) float32, zero-shot in [0, 1], few-shot in [0, 2]; and the
            parts of the scores, (N,) float32: text and, few-shot, reference.
        """
        normalised = (images.float() / 255 - self.mean) / self.std
        # Not the tower's ``forward``, which takes the images of a batch one by one on the CPU.
        embeddings: Embeddings = self.tower.embed(normalised.to(self.tower.proj.dtype))
        parts = [self._probability(embeddings.cls)]
        reciprocals = [
            1 / _spread(self._probability(windows), held) for windows, held in zip(embeddings.windows, self.holds)
        ]
        maps = (len(reciprocals) + 1) / (sum(reciprocals) + 1 / parts[0][:, None])
        if len(self.banks):
            *of_windows, of_patches = self.banks
            of_scales = [
                _spread(_association(windows, bank), held)
                for windows, bank, held in zip(embeddings.windows, of_windows, self.holds)
            ]
            few = (sum(of_scales) + _association(embeddings.patch, of_patches)) / (len(of_scales) + 1)
            parts.append(few.amax(dim=1))
            maps = maps + few
        scores = torch.stack(parts).mean(dim=0)
        return scores, upsample(maps.unflatten(1, (self.grid, self.grid)), self.image_size), *parts

    def _probability(self, embeddings: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(F.normalize(embeddings, dim=-1) @ self.direction)


def _constants(*tensors: torch.Tensor) -> nn.ParameterList:
    return nn.ParameterList(nn.Parameter(tensor, requires_grad=False) for tensor in tensors)


def _window_holds_patch(grid: int, side: int) -> torch.Tensor:
    """(windows, patches) float32: 1 / the number of windows with this patch where the window holds it, else 0."""
    patches = window_patches(grid, side)
    holds = torch.zeros(len(patches), grid * grid).scatter_(1, patches, 1.0)
    return holds / holds.sum(dim=0)


def _spread(values: torch.Tensor, holds: torch.Tensor) -> torch.Tensor:
    """Harmonic mean, per patch, of the windows that hold it: (N, windows) to (N, patches)."""
    return 1 / (values.clamp(min=_SMALLEST).reciprocal() @ holds)


def _association(embeddings: torch.Tensor, bank: torch.Tensor) -> torch.Tensor:
    """(N, entries, D) against (D, bank entries): (N, entries) in [0, 1]."""
    cosine = (F.normalize(embeddings, dim=-1) @ bank).amax(dim=-1)
    return 0.5 * (1 - cosine).clamp(min=0)


def export(model: WinCLIP, runtime: str, output: Path, precision: str = "fp32") -> dict[str, Any]:
    """Write ``model.onnx``, or ``model.xml`` and ``model.bin``, ``model.json`` and ``example.py`` to a new folder.

    The folder appears complete or not at all.

    Args:
        model: on the CPU in float32; the class set last goes into the graph, with its references.
        runtime: ``onnx`` or ``openvino``.
        output: folder that does not exist yet, or is empty.
        precision: precision of the image tower: ``fp32``, ``fp16``, or for OpenVINO ``bf16``. Scores stay in float32.

    Returns:
        The content of ``model.json``.

    Raises:
        InputError: as in ``check_export``, or if the folder cannot be written.
    """
    check_export(runtime, output, precision)
    # Outside this module, the text embeddings and the references are private to the model.
    held = model._get_class(None)
    dtype, threshold = PRECISIONS[precision], model.threshold()
    graph = Graph(model, held.text, held.bank, dtype).eval()
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{output.name}-", dir=output.parent) as temporary:
            new = Path(temporary) / "new"
            new.mkdir()
            file = write_graph(graph, new, runtime)
            description = {
                "file": file.name,
                "settings": _SETTINGS[runtime],
                **_interface(model),
                "threshold": {
                    "any_above": {f"{part}_scores": threshold.parts[part] for part in threshold.parts},
                    **{name: getattr(threshold, name) for name in ("pixel", "rule", "unsure", "caution")},
                },
                "class_name": held.name,
                "prompts": asdict(held.prompts),
                **model.backbone.fingerprint,
                "precision": str(dtype).removeprefix("torch."),
                "pretrained": Path(model.backbone.pretrained).name,
                "temperature": model.temperature,
                **model.named_variant,
                "versions": {"winclip": winclip.__version__, "torch": torch.__version__},
            }
            (new / "example.py").write_text(_EXAMPLE.format(**_LINES[runtime]), encoding="utf-8")
            (new / "model.json").write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
            if output.exists():
                output.rmdir()
            new.rename(output)
    except OSError as error:
        raise InputError(f"cannot write {output} ({error.strerror or error}); choose another --save_path") from error
    return description


def check_export(runtime: str, output: Path, precision: str = "fp32") -> None:
    """Refuse an impossible export before any slow step.

    Raises:
        InputError: if ``output`` is a file or a folder with files, or the runtime is unknown, lacks the precision, or
            needs packages that are missing; names them and the command that installs them.
    """
    if runtime not in _LINES:
        raise InputError(f"format '{runtime}' is unknown; use {' or '.join(_LINES)}")
    if (runtime, precision) == ("onnx", "bf16"):
        raise InputError("format onnx has no precision 'bf16' on a CPU; format openvino has it")
    packages = ("onnx", "onnxscript", *(["openvino"] if runtime == "openvino" else []))
    if missing := [package for package in packages if importlib.util.find_spec(package) is None]:
        raise InputError(f"not installed: {', '.join(missing)}; {INSTALL}")
    if output.is_file() or (output.is_dir() and any(output.iterdir())):
        raise InputError(f"{output} already exists and is not empty; remove it or choose another --save_path")


def write_graph(graph: Graph, folder: Path, runtime: str) -> Path:
    """Write ``model.onnx``, or for OpenVINO the files converted from it; returns the file to load."""
    file, images = folder / "model.onnx", torch.zeros(2, 3, graph.image_size, graph.image_size, dtype=torch.uint8)
    size = sum(tensor.numel() * tensor.element_size() for tensor in graph.state_dict().values())
    with warnings.catch_warnings(), torch.no_grad():
        # torch warns that it bypasses the cache of window_patches.
        warnings.simplefilter("ignore")
        shapes = ({0: torch.export.Dim("batch")},)
        torch.onnx.export(
            torch.export.export(graph, (images,), dynamic_shapes=shapes, strict=True),
            f=file,
            input_names=["images"],
            output_names=["scores", "maps", "text_scores", *(["reference_scores"] if len(graph.banks) else [])],
            dynamo=True,
            external_data=size > _LARGEST_IN_ONE_FILE,
            verbose=False,
        )
    if runtime == "onnx":
        return file
    # OpenVINO sends usage statistics otherwise.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    openvino = importlib.import_module("openvino")
    # In 16 bits the weights would differ from the checkpoint.
    openvino.save_model(openvino.convert_model(file), folder / "model.xml", compress_to_fp16=False)
    for written in folder.glob("model.onnx*"):
        written.unlink()
    return folder / "model.xml"


# By default OpenVINO may compute all steps, even the scores, in less than float32. A bf16 tower stays in bf16.
_SETTINGS: dict[str, dict[str, str]] = {"onnx": {}, "openvino": {"INFERENCE_PRECISION_HINT": "f32"}}
# The lines of ``example.py`` that differ between runtimes.
_LINES = {
    "onnx": {
        "imports": "import onnxruntime",
        "load": 'onnxruntime.InferenceSession(folder / about["file"], providers=["CPUExecutionProvider"])',
        "run": 'graph.run(names, {"images": images})',
    },
    "openvino": {
        "imports": 'sys.modules["openvino_telemetry"] = None  # else usage statistics are sent\nimport openvino',
        "load": 'openvino.Core().compile_model(folder / about["file"], "CPU", about["settings"])',
        "run": '[graph({"images": images})[name] for name in names]',
    },
}
_EXAMPLE = """\
# Scores a picture with only the runtime, numpy and Pillow: python example.py PICTURE
import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

{imports}

folder = Path(__file__).parent
about = json.loads((folder / "model.json").read_text(encoding="utf-8"))
size, threshold = about["input"]["shape"][-1], about["threshold"]
names = [output["name"] for output in about["outputs"] if output["name"] != "maps"]
picture = ImageOps.exif_transpose(Image.open(sys.argv[1]))
if picture.mode[0] in "IF":
    sys.exit("the picture has more than 8 bits a channel; save it with 8")
picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture.convert("RGBA")).convert("RGB")
for shape in ((size, picture.height), (size, size)):
    picture = picture.resize(shape, Image.Resampling.BICUBIC)
images = np.asarray(picture).transpose(2, 0, 1)[None]
graph = {load}
found = {{name: float(values[0]) for name, values in zip(names, {run})}}
print(", ".join(f"{{name.replace('_', ' ')[:-1]}} {{value:.6f}}" for name, value in found.items()))
if threshold["unsure"]:
    print(f"not judged: {{threshold['unsure']}}")
else:
    above = any(found[name] > limit for name, limit in threshold["any_above"].items())
    print(f"{{'' if above else 'not '}}anomalous; a picture is anomalous with one above {{threshold['any_above']}}")
"""


def _interface(model: WinCLIP) -> dict[str, Any]:
    size, references = model.backbone.image_size, model.reference_count()
    return {
        "input": {
            "name": "images",
            "type": "uint8",
            "shape": ["batch", 3, size, size],
            "picture": "RGB, 0 to 255, upright as EXIF says; transparency laid over white, 16 bits"
            f" scaled by {model.intake.white or 'their full range'}",
            "resize": f"straight to {size} x {size}, bicubic with antialiasing as Pillow does: first the width, then"
            " the height",
            "normalisation": "none: it is in the graph",
        },
        "outputs": [
            {"name": "scores", "type": "float32", "shape": ["batch"], "meaning": "0 to 1, higher is more anomalous"},
            {
                "name": "maps",
                "type": "float32",
                "shape": ["batch", size, size],
                "meaning": f"0 to {2 if references else 1} per pixel, higher is more anomalous",
            },
            *(
                {
                    "name": f"{part}_scores",
                    "type": "float32",
                    "shape": ["batch"],
                    "meaning": f"{part} part of the score",
                }
                for part in ("text", "reference")[: 2 if references else 1]
            ),
        ],
        "references": references,
    }
