"""Properties that hold for any weights and images."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.plain import assert_embeddings_close, held, preprocess
from tests.tiny import golden_images
from winclip.embeddings import Embeddings
from winclip.memory import Associations, MemoryBank, associate
from winclip.network.backbone import Backbone
from winclip.scoring import association_maps, score_images
from winclip.windows import harmonic_mean_map, window_patches


@pytest.fixture(scope="module")
def images(backbone: Backbone) -> torch.Tensor:
    return torch.stack([preprocess(image, backbone.image_size) for image in golden_images()])


def nearest(associations: Associations, references: list[int] | None = None) -> list[torch.Tensor]:
    windows, patch = associations.nearest(references)
    return [*windows, patch]


@pytest.mark.parametrize(("grid", "size", "count"), [(15, 3, 169), (15, 2, 196), (6, 3, 16), (3, 3, 1)])
def test_windows_are_row_major(grid: int, size: int, count: int) -> None:
    windows = window_patches(grid, size)
    assert windows.shape == (count, size * size)
    assert windows.tolist() == held(grid, size)


@pytest.mark.parametrize(("size", "value"), [(3, 1e-6), (2, 0.25)])
def test_harmonic_spread_of_a_constant_is_that_constant(size: int, value: float) -> None:
    spread = harmonic_mean_map(torch.full((2, len(window_patches(15, size))), value, dtype=torch.float64), 15, size)
    torch.testing.assert_close(spread, torch.full((2, 15, 15), value, dtype=torch.float64), rtol=1e-12, atol=0)


def test_harmonic_spread_of_a_zero_is_zero_on_its_window() -> None:
    values = torch.ones(1, 196)
    values[0, 0] = 0
    spread = harmonic_mean_map(values, 15, 2)[0]
    assert torch.equal(spread[:2, :2], torch.zeros(2, 2, dtype=torch.float64))
    assert bool((spread[2:, 2:] == 1).all())


def test_batch_order_and_size_change_no_bit(backbone: Backbone, images: torch.Tensor) -> None:
    together = backbone.encode(images)
    order = torch.tensor([3, 0, 4, 1, 2])
    assert_embeddings_close(backbone.encode(images[order]), together[order], 0)
    parts = [backbone.encode(part) for part in images.split(2)]
    assert_embeddings_close(Embeddings.concatenate(parts), together, 0)


def test_an_image_in_its_own_bank_has_association_zero(backbone: Backbone, images: torch.Tensor) -> None:
    embeddings = backbone.encode(images)
    associations = associate(embeddings[:1], MemoryBank.of(embeddings))
    for part in nearest(associations):
        assert float(part.max()) < 1e-6
    assert float(association_maps(associations).max()) < 1e-6


def test_more_references_never_raise_the_association(backbone: Backbone, images: torch.Tensor) -> None:
    embeddings = backbone.encode(images)
    associations = associate(embeddings[:2], MemoryBank.of(embeddings[2:]))
    for one, three in zip(nearest(associations, [0]), nearest(associations, [0, 1, 2])):
        assert bool((three <= one).all())


def test_subsets_and_groups_of_a_bank_change_nothing(
    backbone: Backbone, images: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    embeddings = backbone.encode(images)
    joint = nearest(associate(embeddings[:2], MemoryBank.of(embeddings[2:])), [2, 0])
    monkeypatch.setattr("winclip.memory._MAX_SIMILARITY_BYTES", 1)
    alone = nearest(associate(embeddings[:2], MemoryBank.of(embeddings[torch.tensor([4, 2])])))
    for one, other in zip(joint, alone):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6)


def test_scores_without_a_value_become_zero() -> None:
    embeddings = Embeddings(
        cls=torch.full((1, 4), float("nan")),
        windows=(torch.ones(1, 169, 4), torch.ones(1, 196, 4)),
        patch=torch.ones(1, 225, 4),
    )
    (found,) = score_images(embeddings, torch.eye(2, 4))
    assert np.array_equal(found.maps.numpy(), np.zeros((1, 15, 15)))
