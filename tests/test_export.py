"""Exported graphs: the same scores and maps in other runtimes, and files that are complete or absent."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import compare_export
from scripts import export as script
from tests.tiny import CONFIG, GOLDEN, golden_images
from winclip import InputError, WinCLIP
from winclip import export as exporting
from winclip.backbone import Backbone

FILES = [GOLDEN / "tiny" / f"image_{number}.png" for number in range(5)]


@pytest.fixture
def model(backbone: Backbone) -> WinCLIP:
    """The tiny model with a class."""
    model = WinCLIP(backbone)
    model.set_class("bolt")
    return model


@pytest.mark.parametrize("runtime", ["onnx", "openvino"])
def test_exported_zero_shot_agrees_for_any_batch(model: WinCLIP, runtime: str, tmp_path: Path) -> None:
    description = exporting.export(model, runtime, tmp_path / "new" / "bolt")
    assert json.loads((tmp_path / "new" / "bolt" / "model.json").read_text()) == json.loads(json.dumps(description))
    assert (description["class_name"], description["references"]) == ("bolt", 0)
    assert (description["threshold"]["score"], description["scales"], description["temperature"]) == (0.5, [3, 2], 0.07)
    assert description["input"]["shape"] == ["batch", 3, 96, 96]
    assert description["weights_sha256"] == model.backbone.weights_sha256
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["bolt"]
    file = tmp_path / "new" / "bolt" / description["file"]
    run = compare_export.onnx_runtime(file) if runtime == "onnx" else compare_export.openvino_runtime(file, "f32")
    pixels = np.concatenate([compare_export.read_pixels(path, 96) for path in FILES])
    expected = model.predict(FILES)
    for images in (slice(0, 1), slice(0, 5)):
        found = run(pixels[images])
        assert found.scores.shape == expected.scores[images].shape and found.maps.shape == expected.maps[images].shape
        assert np.abs(found.scores - expected.scores[images]).max() < 1e-5
        assert np.abs(found.maps - expected.maps[images]).max() < 1e-5


def test_comparison_of_few_shot_graphs(model: WinCLIP) -> None:
    model.add_references(FILES[3:])
    rows = compare_export.compare(model, FILES, repeats=1)
    assert [row[0] for row in rows][:3] == ["torch", "ONNX Runtime", "OpenVINO, float32"]
    assert all(float(cell) < 1e-5 for row in rows[:3] for cell in row[1:3])
    # OpenVINO reports its use unless it is kept from it.
    assert sys.modules["openvino_telemetry"] is None


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

    monkeypatch.setitem(exporting._WRITERS, "onnx", (full, ()))
    with pytest.raises(InputError, match="No space left on device"):
        exporting.export(model, "onnx", tmp_path / "bolt")
    assert list(tmp_path.iterdir()) == []


def test_script_exports_and_refuses(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["--model", str(CONFIG), "--pretrained", str(checkpoint), "--class_name", "bolt", "--format", "onnx"]
    words += ["--save_path", str(tmp_path / "out")]
    (tmp_path / "out").mkdir()
    assert script.main([*words, "--memory", str(tmp_path / "none.safetensors")]) == 2
    assert script.main(words) == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["model.json", "model.onnx"]
    assert json.loads((tmp_path / "out" / "model.json").read_text())["threshold"]["score"] == 0.5
    before = (tmp_path / "out" / "model.onnx").read_bytes()
    assert script.main(words) == 2
    assert (tmp_path / "out" / "model.onnx").read_bytes() == before
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert script.main(words) == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 3
    assert "none.safetensors" in errors[0] and "not empty" in errors[1]
    assert errors[2] == f"error: not installed: onnx, onnxscript; {exporting.INSTALL}"


def test_int8_graph_keeps_scoring_in_float32(model: WinCLIP, tmp_path: Path) -> None:
    import onnx

    from benchmarks.compare_int8 import quantise

    exporting.export(model, "onnx", tmp_path / "bolt")
    pictures = [compare_export.read_pixels(path, 96) for path in FILES]
    file = quantise(tmp_path / "bolt" / "model.onnx", pictures)
    inputs = [set(node.input) for node in onnx.load(file).graph.node]
    assert sum("holds.0" in names for names in inputs) == 1
    assert not any("tower.proj" in names for names in inputs)
    found = compare_export.run_all(compare_export.onnx_runtime(file), pictures)
    difference = np.abs(found.scores - model.predict(FILES).scores).max()
    assert 0 < difference < 0.2
