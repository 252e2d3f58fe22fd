"""Agreement with the golden numbers, stage by stage."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from tests.plain import preprocess
from tests.tiny import CONFIG, GOLDEN, golden_images, open_clip_model, stages
from winclip.defaults import SCALES
from winclip.embeddings import Embeddings
from winclip.memory import Associations, MemoryBank, associate
from winclip.network.clip_backbone import ClipBackbone
from winclip.prompts import REFERENCE
from winclip.scoring import anomaly_probability, association_maps, score_images, upsample, zero_shot
from winclip.text import class_embeddings
from winclip.windows import harmonic_spread

GRID = 6
NAMES = ("large", "mid")  # the golden names of the scales, in the order of SCALES
STAGES = stages()


def assert_close(actual: torch.Tensor, name: str, absolute: float = 1e-5) -> None:
    np.testing.assert_allclose(actual.cpu().numpy(), STAGES[name], rtol=0, atol=absolute)


def assert_embedding_close(actual: torch.Tensor, name: str) -> None:
    assert_close(actual, name, 1e-4 * float(np.abs(STAGES[name]).max()))


@pytest.fixture(scope="module")
def embeddings(backbone: ClipBackbone) -> Embeddings:
    images = torch.stack([preprocess(image, 96) for image in golden_images()])
    with torch.inference_mode():
        return backbone.clip.visual(images)


@pytest.fixture(scope="module")
def text(backbone: ClipBackbone) -> torch.Tensor:
    return class_embeddings(backbone, "metal_nut", REFERENCE)


@pytest.fixture(scope="module", params=[1, 2])
def shots(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture(scope="module")
def associations(embeddings: Embeddings) -> Associations:
    return associate(embeddings[:3], MemoryBank.of(embeddings[3:]))


def test_recipe_gives_the_checked_weights() -> None:
    state = open_clip_model(json.loads(CONFIG.read_text())).state_dict()
    expected = json.loads((GOLDEN / "tiny" / "weights_check.json").read_text())
    assert sorted(state) == sorted(expected)
    for name, (shape, total, absolute_total) in expected.items():
        values = state[name].double()
        assert list(values.shape) == shape
        np.testing.assert_allclose([values.sum(), values.abs().sum()], [total, absolute_total], rtol=1e-9, atol=1e-6)


def test_preprocessed() -> None:
    images = torch.stack([preprocess(image, 96) for image in golden_images()])
    assert_close(images, "preprocessed", 1e-6)


def test_prompts() -> None:
    expected = json.loads((GOLDEN / "tiny" / "prompts.json").read_text())
    assert REFERENCE.normal(expected["class_name"]) == expected["normal"]
    assert REFERENCE.anomalous(expected["class_name"]) == expected["anomalous"]


def test_text_features(text: torch.Tensor) -> None:
    # The golden number is the mean before its normalisation.
    expected = torch.nn.functional.normalize(torch.from_numpy(STAGES["text_features"]), dim=-1)
    torch.testing.assert_close(text, expected, rtol=0, atol=1e-5)


def test_embeddings(embeddings: Embeddings) -> None:
    first = embeddings[:3]
    assert SCALES == (3, 2) and len(first.windows) == len(NAMES)
    for part, name in zip((first.cls, *first.windows, first.patch), ("cls", *NAMES, "patch")):
        assert_embedding_close(part, name)


@pytest.mark.parametrize("scale", range(len(SCALES)), ids=NAMES)
def test_window_probabilities_and_harmonic_maps(embeddings: Embeddings, text: torch.Tensor, scale: int) -> None:
    probabilities = anomaly_probability(embeddings[:3].windows[scale], text)
    assert_close(probabilities, f"window_prob_{NAMES[scale]}")
    assert_close(harmonic_spread(probabilities, GRID, SCALES[scale]), f"harmonic_{NAMES[scale]}")


def test_zero_shot(embeddings: Embeddings, text: torch.Tensor) -> None:
    scores, maps = zero_shot(embeddings[:3], text)
    assert_close(scores, "zero_image_score")
    assert_close(maps, "zero_map")
    assert_close(upsample(maps, 96), "zero_map_up")


def test_associations(associations: Associations, shots: int) -> None:
    windows, patch = associations.nearest(range(shots))
    for part, name in zip((*windows, patch), (*NAMES, "patch")):
        assert_close(part, f"few{shots}_assoc_{name}")


def test_few_shot(embeddings: Embeddings, text: torch.Tensor, associations: Associations, shots: int) -> None:
    assert_close(association_maps(associations, range(shots)), f"few{shots}_map")
    ((scores, maps),) = score_images(embeddings[:3], text, MemoryBank.of(embeddings[3:]), [range(shots)])
    assert_close(scores, f"few{shots}_image_score")
    assert_close(maps, f"few{shots}_total_map")
    assert_close(upsample(maps, 96), f"few{shots}_total_map_up")
