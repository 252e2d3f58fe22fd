"""Exported graphs: the same scores and maps in other runtimes, and files that are complete or absent."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

from tests.tiny import CONFIG, PICTURES, golden_images
from winclip import InputError, Prediction, WinCLIP
from winclip import export as exporting
from winclip.commands import export as script
from winclip.network.backbone import Backbone
from winclip.pictures.images import resized_pixels

Pixels = npt.NDArray[np.uint8]
# In the form that a graph takes.
PIXELS: Pixels = np.stack([resized_pixels(image, 96).transpose(2, 0, 1) for image in golden_images()])
# Largest difference of few-shot scores and maps to those of torch in fp32.
BOUNDS = {"onnx-fp32": 1e-5, "onnx-fp16": 3e-3, "openvino-fp32": 1e-5, "openvino-bf16": 3e-2}


@pytest.fixture
def model(backbone: Backbone) -> WinCLIP:
    """The tiny model with a class."""
    model = WinCLIP(backbone)
    model.set_class("bolt")
    return model


@pytest.fixture(scope="module")
def few_shot(backbone: Backbone) -> WinCLIP:
    """The tiny model with a class and two references."""
    model = WinCLIP(backbone)
    model.set_class("bolt")
    model.add_references(PICTURES[3:])
    return model


@pytest.fixture(scope="module")
def graphs(few_shot: WinCLIP, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of few-shot graphs by runtime and precision, such as ``onnx-fp32``."""
    folders = {name: tmp_path_factory.mktemp("graphs") / name for name in BOUNDS}
    for name, folder in folders.items():
        runtime, precision = name.split("-")
        exporting.export(few_shot, runtime, folder, precision)
    return folders


@pytest.fixture(scope="module")
def words(checkpoint: Path) -> list[str]:
    """The command's options for a zero-shot ONNX graph."""
    return ["--model", str(CONFIG), "--pretrained", str(checkpoint), "--class_name", "bolt", "--format", "onnx"]


def load(folder: Path) -> Callable[[Pixels], Prediction]:
    """The export in a folder, loaded in its runtime with the intended settings."""
    about = json.loads((folder / "model.json").read_text())
    file = folder / about["file"]
    if file.suffix == ".onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]
        assert names == [output["name"] for output in about["outputs"]]
        return lambda pixels: prediction(dict(zip(names, session.run(None, {"images": pixels}))))
    import openvino

    compiled = openvino.Core().compile_model(file, "CPU", about["settings"])

    def run(pixels: Pixels) -> Prediction:
        found = compiled({"images": pixels})
        return prediction({output["name"]: found[output["name"]].copy() for output in about["outputs"]})

    return run


def prediction(found: dict[str, Any]) -> Prediction:
    """The outputs of a graph by name."""
    return Prediction(found["scores"], found["maps"], found["text_scores"], found.get("reference_scores"))


def largest_difference(found: Prediction, expected: Prediction) -> float:
    names = ("scores", "maps", "text_scores", "reference_scores")
    pairs = [(getattr(found, name), getattr(expected, name)) for name in names]
    known = [(one, other) for one, other in pairs if other is not None]
    assert [one is None for one, _ in pairs] == [other is None for _, other in pairs]
    assert all(one.shape == other.shape for one, other in known)
    return max(float(np.abs(one - other).max()) for one, other in known)


def test_graph_computes_what_the_model_does(model: WinCLIP, few_shot: WinCLIP) -> None:
    for each in (model, few_shot):
        held = each._classes["bolt"]
        found = exporting.Graph(each, held.text, held.bank)(torch.from_numpy(PIXELS))
        assert largest_difference(Prediction(*(part.numpy() for part in found)), each.predict(PICTURES)) < 1e-5


def test_graph_gives_a_reference_the_association_0(few_shot: WinCLIP) -> None:
    held, pixels = few_shot._classes["bolt"], torch.from_numpy(PIXELS[3:4])
    scores, maps, text_scores, reference_scores = exporting.Graph(few_shot, held.text, held.bank)(pixels)
    zero_scores, zero_maps, zero_text_scores = exporting.Graph(few_shot, held.text, None)(pixels)
    assert torch.equal(zero_scores, zero_text_scores) and torch.equal(text_scores, zero_text_scores)
    assert float(reference_scores) < 1e-5
    assert float((maps - zero_maps).abs().max()) < 1e-5
    assert float((scores - zero_scores / 2).abs().max()) < 1e-5


@pytest.mark.slow
def test_command_exports_a_zero_shot_graph_for_any_batch(words: list[str], model: WinCLIP, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    assert script.main([*words, "--save_path", str(tmp_path / "out")]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["example.py", "model.json", "model.onnx"]
    run, expected = load(tmp_path / "out"), model.predict(PICTURES)
    for images in (slice(0, 1), slice(0, 5)):
        assert largest_difference(run(PIXELS[images]), expected[images]) < 1e-5
    description = json.loads((tmp_path / "out" / "model.json").read_text())
    assert (description["class_name"], description["references"]) == ("bolt", 0)
    assert (description["scales"], description["temperature"]) == ([3, 2], 0.07)
    threshold = model.threshold()
    assert not threshold.judges and description["threshold"]["unsure"] == threshold.unsure
    assert (description["threshold"]["any_above"], description["threshold"]["pixel"]) == ({}, threshold.pixel)
    assert [output["name"] for output in description["outputs"]] == ["scores", "maps", "text_scores"]
    assert description["input"]["shape"] == ["batch", 3, 96, 96]
    assert description["weights_sha256"] == model.backbone.weights_sha256


@pytest.mark.slow
def test_few_shot_graphs_agree(few_shot: WinCLIP, graphs: dict[str, Path]) -> None:
    expected, sizes = few_shot.predict(PICTURES), {}
    for name, folder in graphs.items():
        assert largest_difference(load(folder)(PIXELS), expected) < BOUNDS[name], name
        sizes[name] = sum(file.stat().st_size for file in folder.glob("model.[!j]*"))
    assert sizes["onnx-fp16"] < 0.8 * sizes["onnx-fp32"] and sizes["openvino-bf16"] < 0.8 * sizes["openvino-fp32"]
    assert sorted(path.name for path in graphs["openvino-fp32"].glob("model.*")) == [
        "model.bin", "model.json", "model.xml",
    ]  # fmt: skip
    # OpenVINO reports its use unless it is prevented.
    assert sys.modules["openvino_telemetry"] is None


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_only_the_tower_is_in_half_precision(graphs: dict[str, Path], precision: str) -> None:
    import onnx

    graph = onnx.load(graphs[f"onnx-{precision}"] / "model.onnx").graph
    half = {tensor.name for tensor in graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT16}
    weights = {tensor.name for tensor in graph.initializer if tensor.name.startswith("tower.")}
    assert len(weights) > 20 and weights & half == (weights if precision == "fp16" else set())
    assert not any(name.startswith(("banks", "holds", "direction", "mean", "std")) for name in half)
    described = json.loads((graphs[f"onnx-{precision}"] / "model.json").read_text())["precision"]
    assert described == {"fp32": "float32", "fp16": "float16"}[precision]


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["onnx", "openvino"])
def test_example_needs_the_runtime_alone(
    few_shot: WinCLIP, graphs: dict[str, Path], runtime: str, tmp_path: Path
) -> None:
    borrowed = tmp_path / "borrowed"
    borrowed.mkdir()
    for name in ("numpy", "numpy.libs", "PIL", "pillow.libs", "onnxruntime" if runtime == "onnx" else "openvino"):
        if (found := Path(sysconfig.get_path("platlib")) / name).exists():
            (borrowed / name).symlink_to(found)
    folder = graphs[f"{runtime}-fp32"]

    def python(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        # Without the module site, Python does not find site-packages.
        command, outside = [sys.executable, "-S", *map(str, arguments)], {"PYTHONPATH": str(borrowed)}
        return subprocess.run(command, env=outside, cwd=tmp_path, capture_output=True, text=True, check=False)

    out_of_sight = "import importlib.util as u; print(*map(u.find_spec, ('winclip', 'torch', 'open_clip')))"
    assert python("-c", out_of_sight).stdout.split() == ["None"] * 3
    pixels = np.random.RandomState(0).randint(0, 256, (50, 90, 4)).astype(np.uint8)
    image = Image.fromarray(pixels)
    exif = image.getexif()
    exif[274] = 6
    image.save(tmp_path / "turned.png", exif=exif)
    done = python(folder / "example.py", "turned.png")
    assert (done.returncode, done.stderr) == (0, "")
    out, about = few_shot.predict(tmp_path / "turned.png"), json.loads((folder / "model.json").read_text())
    assert out.reference_scores is not None
    numbers, verdict = done.stdout.splitlines()
    said = re.fullmatch(r"score (\S+), text score (\S+), reference score (\S+)", numbers)
    assert said is not None
    parts = [out.scores[0], out.text_scores[0], out.reference_scores[0]]
    assert list(map(float, said.groups())) == pytest.approx(parts, abs=1e-5)
    threshold = few_shot.threshold()
    limits = {"text_scores": threshold.text, "reference_scores": threshold.reference}
    assert about["threshold"]["any_above"] == limits
    words = {None: "not judged", False: "not anomalous", True: "anomalous"}
    assert verdict.startswith(words[threshold.judge(out)[0]])
    # With other thresholds, too.
    shutil.copytree(folder, tmp_path / "other")
    text, reference = out.text_scores[0], out.reference_scores[0]
    for judged, above in (
        (False, {"text_scores": text + 0.01, "reference_scores": reference + 0.01}),
        (True, {"text_scores": text + 0.01, "reference_scores": reference - 0.01}),
        (True, {"text_scores": text - 0.01, "reference_scores": reference + 0.01}),
        (None, {}),
    ):
        about["threshold"] |= {"any_above": above, "unsure": "" if above else "too few"}
        (tmp_path / "other" / "model.json").write_text(json.dumps(about))
        done = python(tmp_path / "other" / "example.py", "turned.png")
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.splitlines()[1].startswith(words[judged])
    Image.fromarray(pixels[..., 0].astype(np.uint16) * 256).save(tmp_path / "deep.png")
    assert "more than 8 bits" in python(folder / "example.py", "deep.png").stderr


def test_nothing_is_left_of_an_export_that_fails(
    model: WinCLIP, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(graph: exporting.Graph, folder: Path, runtime: str) -> Path:
        (folder / "model.onnx").write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(exporting, "check_export", lambda *_: None)
    monkeypatch.setattr(exporting, "write_graph", full)
    with pytest.raises(InputError, match="No space left on device"):
        exporting.export(model, "onnx", tmp_path / "bolt")
    assert list(tmp_path.iterdir()) == []


def test_command_refuses_before_it_loads(
    words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert script.main([*words, "--save_path", str(tmp_path / "new"), "--precision", "bf16"]) == 2
    assert script.main([*words, "--save_path", str(tmp_path / "new")]) == 2
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "notes.txt").write_text("kept")
    assert script.main([*words, "--save_path", str(tmp_path / "taken")]) == 2
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["notes.txt", "taken"]
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 3
    assert all(name in error for name, error in zip(("bf16", exporting.INSTALL, str(tmp_path / "taken")), errors))
