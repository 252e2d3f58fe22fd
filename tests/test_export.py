"""Exported graphs: the same scores and maps in other runtimes, and files that are complete or absent."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

from scripts import compare_export
from tests.tiny import CONFIG, GOLDEN, golden_images, open_clip_model
from winclip import InputError, WinCLIP
from winclip import export as exporting
from winclip.commands import export as script
from winclip.network.backbone import Backbone

FILES = [GOLDEN / "tiny" / f"image_{number}.png" for number in range(5)]


@pytest.fixture
def model(backbone: Backbone) -> WinCLIP:
    """The tiny model with a class."""
    model = WinCLIP(backbone)
    model.set_class("bolt")
    return model


@pytest.fixture(scope="module", autouse=True)
def traced_once() -> Iterator[None]:
    """Graphs here that agree in precision and shots are of one model, and tracing takes a third of an export."""
    known: dict[tuple[torch.dtype, bool], Any] = {}
    trace = exporting._trace

    def remember(graph: exporting.Graph) -> torch.export.ExportedProgram:
        kind = (graph.tower.proj.dtype, graph.few_shot)
        if kind not in known:
            known[kind] = trace(graph)
        return known[kind]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exporting, "_trace", remember)
        yield


@pytest.fixture(scope="module")
def few_shot(tmp_path_factory: pytest.TempPathFactory) -> WinCLIP:
    """A model with a class and two references; the tiny one but for a layer less, which saves a third of an export."""
    folder = tmp_path_factory.mktemp("shallow")
    config = json.loads(CONFIG.read_text())
    config["vision_cfg"]["layers"] = 2
    (folder / "shallow.json").write_text(json.dumps(config))
    safetensors.torch.save_file(open_clip_model(config).state_dict(), folder / "shallow.safetensors")
    model = WinCLIP.from_pretrained(str(folder / "shallow.json"), str(folder / "shallow.safetensors"), device="cpu")
    model.set_class("bolt")
    model.add_references(FILES[3:])
    return model


@pytest.fixture(scope="module")
def graphs(few_shot: WinCLIP, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of few-shot graphs for both runtimes in every precision, by names such as ``onnx-fp32``."""
    folder = tmp_path_factory.mktemp("graphs")
    return {graph.name: graph for graph in compare_export.export_all(few_shot, folder)}


@pytest.fixture(scope="module")
def words(checkpoint: Path) -> list[str]:
    """The script's options for a zero-shot ONNX graph."""
    return ["--model", str(CONFIG), "--pretrained", str(checkpoint), "--class_name", "bolt", "--format", "onnx"]


@pytest.fixture(scope="module")
def zero_shot(words: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A zero-shot ONNX graph, written by the script."""
    folder = tmp_path_factory.mktemp("zero")
    (folder / "out").mkdir()
    assert script.main([*words, "--save_path", str(folder / "out")]) == 0
    return folder / "out"


def agrees(run: compare_export.Runtime, model: WinCLIP) -> None:
    pixels = np.concatenate([compare_export.read_pixels(path, 96) for path in FILES])
    expected = model.predict(FILES)
    for images in (slice(0, 1), slice(0, 5)):
        found = run(pixels[images])
        assert found.scores.shape == expected.scores[images].shape and found.maps.shape == expected.maps[images].shape
        assert np.abs(found.scores - expected.scores[images]).max() < 1e-5
        assert np.abs(found.maps - expected.maps[images]).max() < 1e-5


def test_onnx_zero_shot_agrees_for_any_batch(zero_shot: Path, model: WinCLIP) -> None:
    agrees(compare_export.onnx_runtime(zero_shot / "model.onnx"), model)
    description = json.loads((zero_shot / "model.json").read_text())
    assert (description["class_name"], description["references"]) == ("bolt", 0)
    assert (description["threshold"]["score"], description["scales"], description["temperature"]) == (0.5, [3, 2], 0.07)
    assert description["input"]["shape"] == ["batch", 3, 96, 96]
    assert description["weights_sha256"] == model.backbone.weights_sha256


def test_openvino_zero_shot_agrees_for_any_batch(model: WinCLIP, tmp_path: Path) -> None:
    description = exporting.export(model, "openvino", tmp_path / "new" / "bolt")
    assert json.loads((tmp_path / "new" / "bolt" / "model.json").read_text()) == json.loads(json.dumps(description))
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["bolt"]
    agrees(compare_export.openvino_runtime(tmp_path / "new" / "bolt" / description["file"], "f32"), model)


def test_comparison_of_few_shot_graphs(few_shot: WinCLIP, graphs: dict[str, Path]) -> None:
    rows = {row[0]: row[1:] for row in compare_export.compare(few_shot, list(graphs.values()), FILES, repeats=1)}
    for name in ("torch", "onnx-fp32", "openvino-fp32"):
        assert all(float(cell) < 1e-5 for cell in rows[name][1:3])
    for name, largest in (("onnx-fp16", 0.003), ("openvino-fp16", 0.003), ("openvino-bf16", 0.03)):
        assert all(0 < float(cell) < largest for cell in rows[name][1:3])
        assert float(rows[name][0]) < 0.8 * float(rows[f"{name[:-4]}fp32"][0])
    # OpenVINO reports its use unless it is kept from it.
    assert sys.modules["openvino_telemetry"] is None


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
    lines = [line for line in (folder / "example.py").read_text().splitlines() if line and not line.startswith("#")]
    assert len(lines) <= 22 and max(map(len, lines)) <= 120

    def python(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        # Without the module site, site-packages are out of sight.
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
    score, threshold = few_shot.predict(tmp_path / "turned.png").scores[0], few_shot.threshold().score
    verdict = f"{'' if score > threshold else 'not '}anomalous"
    numbers, _, found_verdict = done.stdout.strip().partition(": ")
    words = numbers.replace(",", "").split()
    assert abs(float(words[1]) - score) < 1e-5 and abs(float(words[3]) - threshold) < 1e-6
    assert found_verdict == verdict
    Image.fromarray(pixels[..., 0].astype(np.uint16) * 256).save(tmp_path / "deep.png")
    assert "more than 8 bits" in python(folder / "example.py", "deep.png").stderr


def test_graph_gives_a_reference_the_association_0(model: WinCLIP) -> None:
    model.add_references(golden_images()[3:])
    held = model._classes["bolt"]
    graph = exporting.Graph(model, held.text, held.bank)
    pixels = torch.from_numpy(compare_export.read_pixels(FILES[3], 96))
    scores, maps = graph(pixels)
    zero_scores, zero_maps = exporting.Graph(model, held.text, None)(pixels)
    assert float((maps - zero_maps).abs().max()) < 1e-5
    assert float((scores - zero_scores / 2).abs().max()) < 1e-5


def test_nothing_is_left_of_an_export_that_fails(
    model: WinCLIP, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(graph: exporting.Graph, folder: Path) -> str:
        (folder / "model.onnx").write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setitem(exporting.RUNTIMES, "onnx", exporting.RUNTIMES["onnx"]._replace(write=full))
    with pytest.raises(InputError, match="No space left on device"):
        exporting.export(model, "onnx", tmp_path / "bolt")
    assert list(tmp_path.iterdir()) == []


def test_script_exports_and_refuses(
    zero_shot: Path, words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert sorted(path.name for path in zero_shot.iterdir()) == ["example.py", "model.json", "model.onnx"]
    before = (zero_shot / "model.onnx").read_bytes()
    elsewhere = ["--save_path", str(zero_shot.parent / "other")]
    assert script.main([*words, *elsewhere, "--memory", str(zero_shot / "none.safetensors")]) == 2
    assert script.main([*words, *elsewhere, "--precision", "bf16"]) == 2
    assert script.main([*words, "--save_path", str(zero_shot)]) == 2
    assert (zero_shot / "model.onnx").read_bytes() == before
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert script.main([*words, *elsewhere]) == 2
    assert [path.name for path in zero_shot.parent.iterdir()] == ["out"]
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 4
    assert "none.safetensors" in errors[0] and "not empty" in errors[2]
    assert errors[1] == (
        "error: format onnx has no precision 'bf16' on a CPU, only fp32 and fp16; format openvino has it"
    )
    assert errors[3] == f"error: not installed: onnx, onnxscript; {exporting.INSTALL}"


def test_int8_graph_keeps_scoring_in_float32(zero_shot: Path, model: WinCLIP, tmp_path: Path) -> None:
    import onnx
    from scripts.compare_int8 import quantise

    pictures = [compare_export.read_pixels(path, 96) for path in FILES]
    file = quantise(Path(shutil.copy(zero_shot / "model.onnx", tmp_path)), pictures)
    inputs = [set(node.input) for node in onnx.load(file).graph.node]
    assert sum("holds.0" in names for names in inputs) == 1
    assert not any("tower.proj" in names for names in inputs)
    found = compare_export.run_all(compare_export.onnx_runtime(file), pictures)
    difference = np.abs(found.scores - model.predict(FILES).scores).max()
    assert 0 < difference < 0.2
