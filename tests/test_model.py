"""The library's face."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.tiny import CONFIG, GOLDEN, golden_images, stages
from winclip import InputError, WinCLIP
from winclip.backbone import Backbone
from winclip.prompts import load_prompt_set


@pytest.fixture
def model(backbone: Backbone) -> WinCLIP:
    model = WinCLIP(backbone)
    model.set_class("metal_nut")
    return model


def test_predictions_are_the_golden_ones(model: WinCLIP) -> None:
    images, expected = golden_images(), stages()
    out = model.predict(images[:3])
    assert (out.scores.shape, out.maps.shape) == ((3,), (3, 96, 96))
    assert out.maps.dtype == np.float32
    np.testing.assert_allclose(out.scores, expected["zero_image_score"], atol=1e-5)
    np.testing.assert_allclose(out.maps, expected["zero_map_up"], atol=1e-5)
    for k in (1, 2):
        model.add_references(images[2 + k])
        out = model.predict(images[:3])
        np.testing.assert_allclose(out.scores, expected[f"few{k}_image_score"], atol=1e-5)
        np.testing.assert_allclose(out.maps, expected[f"few{k}_total_map_up"], atol=1e-5)


def test_paths_arrays_and_images_are_the_same(model: WinCLIP) -> None:
    path = GOLDEN / "tiny" / "image_0.png"
    image = Image.open(path)
    array = np.asarray(image)
    grey = np.asarray(Image.open(GOLDEN / "tiny" / "image_2.png"))
    together = model.predict([path, str(path), image, array, np.stack([grey] * 3, axis=2), grey], batch_size=4)
    assert len(set(together.scores[:4])) == 1
    assert together.scores[4] == together.scores[5]
    assert model.predict(path).scores == together.scores[:1]
    assert model.predict(array).scores == together.scores[:1]


def test_encoding_once_serves_zero_and_few_shot(model: WinCLIP) -> None:
    images = golden_images()
    embeddings = model.encode(images[:3])
    zero = model.score(embeddings)
    np.testing.assert_array_equal(zero.maps, model.predict(images[:3]).maps)
    model.add_references(images[3:])
    assert not np.array_equal(model.score(embeddings).maps, zero.maps)


def test_memory_is_the_same_after_saving_and_loading(model: WinCLIP, backbone: Backbone, tmp_path: Path) -> None:
    images = golden_images()
    model.add_references(images[3:])
    model.save_memory(tmp_path / "nut.safetensors")
    other = WinCLIP(backbone)
    other.set_class("metal_nut")
    other.load_memory(tmp_path / "nut.safetensors")
    np.testing.assert_array_equal(other.predict(images[:3]).maps, model.predict(images[:3]).maps)


def test_memory_of_another_class_or_damaged_is_refused(model: WinCLIP, tmp_path: Path) -> None:
    path = tmp_path / "nut.safetensors"
    model.add_references(golden_images()[3:])
    model.save_memory(path)
    model.set_class("bolt")
    with pytest.raises(InputError, match="class_name is 'metal_nut', not 'bolt'"):
        model.load_memory(path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(InputError, match="cannot be read"):
        model.load_memory(path)
    with pytest.raises(InputError, match="cannot be read"):
        model.load_memory(tmp_path / "nowhere.safetensors")


def test_a_new_class_drops_the_references(model: WinCLIP) -> None:
    images = golden_images()
    zero = model.predict(images[0]).maps
    model.add_references(images[3:])
    model.set_class("metal_nut")
    np.testing.assert_array_equal(model.predict(images[0]).maps, zero)


def test_wrong_use_says_what_to_do(backbone: Backbone, model: WinCLIP, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="call set_class first"):
        WinCLIP(backbone).predict(golden_images()[0])
    with pytest.raises(InputError, match="class name is empty"):
        model.set_class("  ")
    with pytest.raises(InputError, match="no images given"):
        model.predict([])
    with pytest.raises(InputError, match="add references first"):
        model.save_memory(tmp_path / "none.safetensors")
    with pytest.raises(InputError, match=r"shape \(4, 4, 2\) and type uint8"):
        model.predict([np.zeros((4, 4, 2), np.uint8)])
    with pytest.raises(InputError, match=r"nowhere.png does not exist"):
        model.predict("nowhere.png")


def test_from_pretrained_loads_a_config_and_checkpoint(checkpoint: Path) -> None:
    model = WinCLIP.from_pretrained(str(CONFIG), str(checkpoint), device="cpu", image_size=64)
    model.set_class("metal nut", prompt_set="paper")
    assert model.predict(golden_images()[0]).maps.shape == (1, 64, 64)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot be read as JSON"),
        (json.dumps({"templates": ["{}"]}), "exactly the keys normal_states, anomalous_states, templates"),
        (json.dumps({"normal_states": [], "anomalous_states": ["{}"], "templates": ["{}"]}), "'normal_states' must be"),
        (
            json.dumps({"normal_states": ["x"], "anomalous_states": ["{}"], "templates": ["{}"]}),
            "'x' in 'normal_states'",
        ),
    ],
)
def test_bad_prompt_files_are_named(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "prompts.json"
    path.write_text(content)
    with pytest.raises(InputError, match=message):
        load_prompt_set(str(path))
