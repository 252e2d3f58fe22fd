"""Any scales and any temperature, from the encoder to the memory file, against the method in plain loops."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.plain import plain_scores, preprocess
from tests.tiny import CONFIG, golden_images, open_clip_model
from winclip import InputError, WinCLIP
from winclip.defaults import SCALES, TEMPERATURE
from winclip.prompts import REFERENCE
from winclip.text import class_embeddings

SIZE = 96


def tiny(checkpoint: Path, scales: tuple[int, ...] = SCALES, temperature: float = TEMPERATURE) -> WinCLIP:
    model = WinCLIP.from_pretrained(str(CONFIG), str(checkpoint), device="cpu", scales=scales, temperature=temperature)
    model.set_class("metal_nut")
    return model


@pytest.mark.parametrize(
    ("scales", "temperature"),
    [((3, 2), 0.07), ((6, 1), 0.5), pytest.param((4, 3, 2), 0.2, marks=pytest.mark.slow)],
)
def test_scores_equal_those_of_plain_loops(checkpoint: Path, scales: tuple[int, ...], temperature: float) -> None:
    images, references = golden_images()[:2], golden_images()[3:]
    model = tiny(checkpoint, scales, temperature)
    plain = open_clip_model(json.loads(CONFIG.read_text()))
    text = class_embeddings(model.backbone, "metal_nut", REFERENCE)
    known: list[torch.Tensor] = []
    for _ in ("zero-shot", "few-shot"):
        out = model.predict(images)
        for number, image in enumerate(images):
            score, grid_map = plain_scores(plain, text, preprocess(image, SIZE), known, scales, temperature)
            expected = torch.from_numpy(grid_map).reshape(1, 1, 6, 6)
            upsampled = torch.nn.functional.interpolate(expected, (SIZE, SIZE), mode="bilinear")[0, 0]
            np.testing.assert_allclose(out.scores[number], score, rtol=0, atol=1e-6)
            np.testing.assert_allclose(out.maps[number], upsampled.numpy(), rtol=0, atol=1e-6)
        model.add_references(references)
        known = [preprocess(reference, SIZE) for reference in references]


def test_a_memory_of_other_scales_is_loaded_and_refused_elsewhere(checkpoint: Path, tmp_path: Path) -> None:
    path, images = tmp_path / "nut.safetensors", golden_images()
    model = tiny(checkpoint, (4, 2))
    model.add_references(images[3:])
    expected = model.predict(images[0]).maps
    model.save_memory(path)
    model.set_class("metal_nut")
    model.load_memory(path)
    np.testing.assert_array_equal(model.predict(images[0]).maps, expected)
    with pytest.raises(InputError, match=r"scales is \[4, 2\], not \[3, 2\]$"):
        tiny(checkpoint).load_memory(path)


@pytest.mark.parametrize("scales", [(), (2, 2), (3, 0), (7, 2)])
def test_scales_and_temperatures_that_make_no_sense_are_refused(checkpoint: Path, scales: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="at least 112" if 7 in scales else "scales "):
        tiny(checkpoint, scales)
    for temperature in (0.0, float("nan")):
        with pytest.raises(InputError, match=f"temperature {temperature} "):
            tiny(checkpoint, temperature=temperature)
