"""From embeddings to anomaly scores and maps: pure functions of tensors (paper, section 4).

``score_images`` is the whole method behind the encoders; the functions above it are its steps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import reduce
from typing import NamedTuple

import torch
import torch.nn.functional as F

from winclip.defaults import TEMPERATURE
from winclip.embeddings import Embeddings
from winclip.memory import Associations, MemoryBank, associate
from winclip.network.devices import float32_products, to_cpu
from winclip.windows import harmonic_spread

# Bounds what leaving one out holds at once: 8 of 1,000 references of a 15 x 15 grid take 19 MB.
_REFERENCES_AT_ONCE = 8


class GridScores(NamedTuple):
    """Results of N images, float64 on the CPU.

    Attributes:
        text: (N,) zero-shot scores in [0, 1], what the prompts say of the whole images.
        maps: (N, grid, grid), zero-shot in [0, 1], few-shot in [0, 2].
        reference: (N,) highest value of each association map in [0, 1]; None without references.
    """

    text: torch.Tensor
    maps: torch.Tensor
    reference: torch.Tensor | None = None

    @property
    def scores(self) -> torch.Tensor:
        """(N,) anomaly scores in [0, 1]: few-shot the mean of both parts (paper, section 4.3)."""
        return self.text if self.reference is None else (self.text + self.reference) / 2


def anomaly_probability(embeddings: torch.Tensor, text: torch.Tensor, temperature: float = TEMPERATURE) -> torch.Tensor:
    """Softmax over (normal, anomalous) of cosine / temperature, the anomalous entry (paper, equation 1).

    Args:
        embeddings: (N, ..., embed_dim) of N images.
        text: (2, embed_dim), L2-normalised class embeddings, normal first.
        temperature: above 0; the smaller, the nearer to 0 and 1.

    Returns:
        (N, ...) float32 in [0, 1].
    """
    # Image by image, because a matrix product rounds differently for different numbers of rows.
    cosine = torch.stack([F.normalize(image, dim=-1) @ text.T for image in embeddings.float()])
    return (cosine / temperature).softmax(dim=-1)[..., 1]


class Comparison(NamedTuple):
    """What is known of N images before any averaging, float32 on the CPU.

    Attributes:
        image: (N,) anomaly probability of the whole image.
        windows: those of the windows, one (N, windows) for each scale, in the order of ``scales``.
        associations: with every reference; None without references.
        scales: sides of the windows in patches.
    """

    image: torch.Tensor
    windows: tuple[torch.Tensor, ...]
    associations: Associations | None
    scales: tuple[int, ...]


@torch.inference_mode()
def compare(
    embeddings: Embeddings, text: torch.Tensor, bank: MemoryBank | None, temperature: float = TEMPERATURE
) -> Comparison:
    """Compare N images with the class embeddings and with every reference, all on the device that they are on.

    The results come to the CPU in one transfer.
    """
    with float32_products():
        parts = [anomaly_probability(part, text, temperature) for part in (embeddings.cls, *embeddings.windows)]
        if bank is not None:
            found = associate(embeddings, bank)
            parts += [*found.windows, found.patch]
    scales = embeddings.scales
    image, *others = to_cpu(parts)
    windows, distances = tuple(others[: len(scales)]), others[len(scales) :]
    associations = Associations(tuple(distances[:-1]), distances[-1], scales) if distances else None
    return Comparison(image, windows, associations, scales)


def zero_shot(embeddings: Embeddings, text: torch.Tensor, temperature: float = TEMPERATURE) -> GridScores:
    """Zero-shot results (paper, sections 4.1 and 4.2).

    The map is, per patch, the harmonic mean of every scale's map and the image score. NaN and infinite
    entries become 0; the score of an image with a NaN anywhere is NaN.

    Args:
        embeddings: of N images.
        text: (2, embed_dim), L2-normalised class embeddings, normal first.
        temperature: of the softmax.
    """
    return _zero_shot(compare(embeddings, text, None, temperature), embeddings.grid)


def _zero_shot(compared: Comparison, grid: int) -> GridScores:
    image = compared.image.double()
    reciprocals = [1 / harmonic_spread(part, grid, side) for part, side in zip(compared.windows, compared.scales)]
    reciprocals.append(1 / image[:, None, None])
    maps = len(reciprocals) / reduce(torch.add, reciprocals)
    # The map shows nothing of a NaN, so the score has to.
    bad = reduce(torch.logical_or, (part.isnan().any(dim=1) for part in compared.windows))
    return GridScores(image.masked_fill(bad, math.nan), maps.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0))


def association_maps(associations: Associations, references: Sequence[int] | None = None) -> torch.Tensor:
    """Mean of the association maps of every scale and of the patches (paper, equation 6).

    Args:
        associations: of N images.
        references: positions in the bank of those that count; by default all.

    Returns:
        (N, grid, grid) float64 in [0, 1] on the CPU.
    """
    windows, patch = associations.nearest(references)
    grid = associations.grid
    maps = [harmonic_spread(values, grid, side) for values, side in zip(windows, associations.scales)]
    # In float64 on the CPU alone: MPS has no float64.
    maps.append(patch.cpu().double().reshape(-1, grid, grid))
    return reduce(torch.add, maps) / len(maps)


def few_shot(zero: GridScores, maps: torch.Tensor) -> GridScores:
    """Join zero-shot results with association maps (paper, section 4.3).

    Args:
        zero: of N images.
        maps: (N, grid, grid), from ``association_maps``.

    Returns:
        With the maximum of the association map as reference part of the score. Maps: the sum of both maps.
    """
    return GridScores(zero.text, zero.maps + maps, maps.amax(dim=(1, 2)))


def score_images(
    embeddings: Embeddings,
    text: torch.Tensor,
    bank: MemoryBank | None = None,
    subsets: Sequence[Sequence[int]] = ((),),
    temperature: float = TEMPERATURE,
) -> list[GridScores]:
    """Score N images with any number of subsets of the references (paper, section 4).

    The images are compared with every reference once, whatever the number of subsets. On a GPU, products
    and softmax run there, and everything after them on the CPU in float64.

    Args:
        embeddings: of the N images.
        text: (2, embed_dim), L2-normalised class embeddings, normal first.
        bank: the references; None if all subsets are empty.
        subsets: positions in the bank; an empty one asks for the zero-shot results.
        temperature: of the softmax.

    Returns:
        The results for each subset.
    """
    compared = compare(embeddings, text, bank if any(subsets) else None, temperature)
    zero, associations = _zero_shot(compared, embeddings.grid), compared.associations
    if associations is None:
        return [zero for _ in subsets]
    return [few_shot(zero, association_maps(associations, chosen)) if chosen else zero for chosen in subsets]


def leave_one_out(bank: MemoryBank, text: torch.Tensor, temperature: float = TEMPERATURE) -> GridScores:
    """Score every one of R references against the bank of the others; R is 2 or more.

    Args:
        bank: of the references.
        text: (2, embed_dim), L2-normalised class embeddings, normal first.
        temperature: of the softmax.
    """
    results = []
    for start in range(0, len(bank), _REFERENCES_AT_ONCE):
        part = bank.embeddings[start : start + _REFERENCES_AT_ONCE]
        compared = compare(part, text, bank, temperature)
        zero, associations = _zero_shot(compared, part.grid), compared.associations
        assert associations is not None
        for number in range(len(part)):
            others = [other for other in range(len(bank)) if other != start + number]
            maps = association_maps(associations.of_image(number), others)
            one = slice(number, number + 1)
            results.append(few_shot(GridScores(zero.text[one], zero.maps[one]), maps))
    return GridScores(*(torch.cat(parts) for parts in zip(*results)))


def upsample(maps: torch.Tensor, size: int) -> torch.Tensor:
    """(N, grid, grid) maps to (N, size, size) by bilinear interpolation, in the dtype given."""
    return F.interpolate(maps[:, None], size=(size, size), mode="bilinear", align_corners=False)[:, 0]
