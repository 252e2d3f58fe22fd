"""Agreement with the golden numbers: weights, prompts and every stage of the method."""

from __future__ import annotations

import json

import numpy as np
import torch

from tests.plain import preprocess
from tests.tiny import CONFIG, GOLDEN, golden_images, open_clip_model, stages
from winclip.commands.check import SCALE_NAMES, computed_stages
from winclip.network.clip_backbone import ClipBackbone
from winclip.prompts import REFERENCE
from winclip.scoring import upsample


def test_recipe_gives_the_checked_weights() -> None:
    state = open_clip_model(json.loads(CONFIG.read_text())).state_dict()
    expected = json.loads((GOLDEN / "tiny" / "weights_check.json").read_text())
    assert sorted(state) == sorted(expected)
    for name, (shape, total, absolute_total) in expected.items():
        values = state[name].double()
        assert list(values.shape) == shape
        np.testing.assert_allclose([values.sum(), values.abs().sum()], [total, absolute_total], rtol=1e-9, atol=1e-6)


def test_prompts() -> None:
    expected = json.loads((GOLDEN / "tiny" / "prompts.json").read_text())
    assert REFERENCE.normal(expected["class_name"]) == expected["normal"]
    assert REFERENCE.anomalous(expected["class_name"]) == expected["anomalous"]


def test_stages(backbone: ClipBackbone) -> None:
    found, expected = computed_stages(backbone), stages()
    found["preprocessed"] = torch.stack([preprocess(image, 96) for image in golden_images()])
    for name in ("zero_map", "few1_total_map", "few2_total_map"):
        found[f"{name}_up"] = upsample(found[name], 96)
    # The golden number is the mean before its normalisation.
    expected["text_features"] /= np.linalg.norm(expected["text_features"], axis=-1, keepdims=True)
    assert set(expected) == set(found)
    for name, stage in found.items():
        largest = 10 * np.abs(expected[name]).max() if name in ("cls", *SCALE_NAMES, "patch") else 1
        absolute = 1e-6 if name == "preprocessed" else 1e-5 * largest
        np.testing.assert_allclose(stage.cpu().numpy(), expected[name], rtol=0, atol=absolute, err_msg=name)
