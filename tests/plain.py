"""The method written out in plain loops over open_clip's own modules: slow, and without any code of winclip."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import open_clip
import torch
from PIL import Image

from winclip.embeddings import Embeddings
from winclip.pictures.images import CLIP_MEAN, CLIP_STD, normalise, resized_pixels

Array = npt.NDArray[np.float64]


def preprocess(
    image: Image.Image, size: int, mean: Sequence[float] = CLIP_MEAN, std: Sequence[float] = CLIP_STD
) -> torch.Tensor:
    """(3, size, size) float32: an image as the image tower takes it."""
    return normalise(torch.tensor(resized_pixels(image, size))[None], mean, std)[0]


@torch.inference_mode()
def plain_embeddings(model: open_clip.CLIP, images: torch.Tensor, scales: Sequence[int] = (3, 2)) -> Embeddings:
    """Every window on its own through open_clip's modules, one call per window."""
    visual = model.visual
    patches = visual.conv1(images).flatten(2).transpose(1, 2)
    class_token = visual.class_embedding.expand(len(images), 1, -1)
    tokens = visual.ln_pre(torch.cat([class_token, patches], dim=1) + visual.positional_embedding)

    def through(sequence: torch.Tensor) -> torch.Tensor:
        for block in visual.transformer.resblocks:
            # A single sequence, because 2.24 takes (L, N, width) and newer releases (N, L, width).
            batch_first = block.attn.batch_first
            sequence = block(sequence[None] if batch_first else sequence[:, None])
            sequence = sequence[0] if batch_first else sequence[:, 0]
        return sequence

    def project(token: torch.Tensor) -> torch.Tensor:
        return visual.ln_post(token) @ visual.proj

    whole = torch.stack([through(image) for image in tokens])
    grid = visual.grid_size[0]
    windows = tuple(
        torch.stack(
            [
                torch.stack([project(through(image[[0, *(1 + p for p in window)]])[0]) for window in held(grid, side)])
                for image in tokens
            ]
        )
        for side in scales
    )
    return Embeddings(project(whole[:, 0]), windows, whole[:, 1:], tuple(scales))


def held(grid: int, side: int) -> list[list[int]]:
    """The patches of every window, row-major."""
    corners = [(row, column) for row in range(grid - side + 1) for column in range(grid - side + 1)]
    return [[(row + i) * grid + column + j for i in range(side) for j in range(side)] for row, column in corners]


def plain_scores(
    model: open_clip.CLIP,
    text: torch.Tensor,
    image: torch.Tensor,
    references: Sequence[torch.Tensor],
    scales: Sequence[int],
    temperature: float,
) -> tuple[float, Array]:
    """Score and map (grid * grid,) of one (3, S, S) image, few-shot if there are references."""
    found = plain_embeddings(model, image[None], scales)
    known = [plain_embeddings(model, reference[None], scales) for reference in references]
    grid = int(model.visual.grid_size[0])
    normal, anomalous = text.double().numpy()

    def probability(embedding: torch.Tensor) -> float:
        one, other = (np.exp(cosine(as_array(embedding), side) / temperature) for side in (normal, anomalous))
        return float(other / (one + other))

    z = probability(found.cls[0])
    scale_maps = [
        spread([probability(window) for window in windows[0]], grid, side)
        for windows, side in zip(found.windows, scales)
    ]
    zero = np.array([harmonic([*(scale[patch] for scale in scale_maps), z]) for patch in range(grid * grid)])
    if not references:
        return z, zero

    def association(embedding: torch.Tensor, bank: list[torch.Tensor]) -> float:
        return min(0.5 * (1 - cosine(as_array(embedding), as_array(entry))) for entry in bank)

    maps = []
    for number, side in enumerate(scales):
        bank = [entry for one in known for entry in one.windows[number][0]]
        maps.append(spread([association(window, bank) for window in found.windows[number][0]], grid, side))
    bank = [entry for one in known for entry in one.patch[0]]
    maps.append(np.array([association(patch, bank) for patch in found.patch[0]]))
    few = np.array([sum(one[patch] for one in maps) / len(maps) for patch in range(grid * grid)])
    return float((z + few.max()) / 2), zero + few


def spread(values: list[float], grid: int, side: int) -> Array:
    """Harmonic mean, per patch, over the windows that hold it."""
    windows = held(grid, side)
    return np.array(
        [harmonic([v for v, window in zip(values, windows) if patch in window]) for patch in range(grid * grid)]
    )


def harmonic(values: list[float]) -> float:
    """Number of values over the sum of their reciprocals."""
    return len(values) / sum(1 / value for value in values)


def cosine(one: Array, other: Array) -> float:
    """Cosine of the angle between two vectors."""
    return float(one @ other / np.sqrt((one @ one) * (other @ other)))


def as_array(embedding: torch.Tensor) -> Array:
    """An embedding in float64."""
    return embedding.double().numpy()


def assert_embeddings_close(actual: Embeddings, expected: Embeddings, relative: float = 1e-4) -> None:
    """Every part agrees to a fraction of its largest entry."""
    assert actual.scales == expected.scales
    parts = ((one.cls, *one.windows, one.patch) for one in (actual, expected))
    for one, other in zip(*parts, strict=True):
        assert one.shape == other.shape
        assert float((one - other).abs().max()) <= relative * float(other.abs().max())
