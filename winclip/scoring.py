"""From embeddings to anomaly scores and maps: pure functions of tensors (paper, section 4).

``score_images`` is the whole method after the encoders; the functions above it are its steps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import reduce
from itertools import islice
from typing import NamedTuple

import torch
import torch.nn.functional as F

from winclip.defaults import TEMPERATURE
from winclip.embeddings import Embeddings
from winclip.memory import Associations, MemoryBank, associate
from winclip.network.devices import float32_products, to_cpu
from winclip.variants import REFERENCE, Variant
from winclip.windows import arithmetic_mean_map, harmonic_mean_map

# Limits the memory of leave-one-out scoring: 8 of 1,000 references with a 15 x 15 grid take 19 MB.
_REFERENCES_AT_ONCE = 8


class GridScores(NamedTuple):
    """Results of N images, float64 on the CPU.

    Attributes:
        text: (N,) zero-shot scores in [0, 1], the anomaly probabilities of the whole images.
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


def state_probability(
    embeddings: torch.Tensor, text: torch.Tensor, temperature: float = TEMPERATURE, state: str = "anomalous"
) -> torch.Tensor:
    """One entry of the softmax over (normal, anomalous) of cosine / temperature (paper, equation 1).

    Args:
        embeddings: (N, ..., embed_dim) of N images.
        text: (2, embed_dim), L2-normalised class embeddings, normal first.
        temperature: above 0; smaller values push the result towards 0 and 1.
        state: ``normal`` or ``anomalous``.

    Returns:
        (N, ...) float32 in [0, 1].
    """
    # Image by image, because a matrix product rounds differently for different numbers of rows.
    cosine = torch.stack([F.normalize(image, dim=-1) @ text.T for image in embeddings.float()])
    return (cosine / temperature).softmax(dim=-1)[..., int(state == "anomalous")]


class Comparison(NamedTuple):
    """Similarities of N images before any averaging, float32 on the CPU.

    Attributes:
        image: (N,) anomaly probability of the whole image.
        windows: probabilities of the windows, one (N, windows) for each scale, in the order of ``scales``; of the state
            whose harmonic mean the variant takes.
        associations: with every reference; None without references.
        scales: sides of the windows in patches.
        grid: patches along a side of the image.
        variant: selects the later steps.
    """

    image: torch.Tensor
    windows: tuple[torch.Tensor, ...]
    associations: Associations | None
    scales: tuple[int, ...]
    grid: int
    variant: Variant


@torch.inference_mode()
def compare(
    embeddings: Embeddings,
    texts: Sequence[torch.Tensor],
    bank: MemoryBank | None,
    variants: Sequence[Variant] = (REFERENCE,),
) -> list[Comparison]:
    """Compare N images with each variant's class embeddings, and with every reference.

    All of it runs on the embeddings' device; the results come to the CPU in one transfer.
    """
    parts, scales = list[torch.Tensor](), embeddings.scales
    with float32_products():
        for text, variant in zip(texts, variants):
            parts.append(state_probability(embeddings.cls, text, variant.temperature))
            of_windows = variant.temperature, variant.harmonic_of
            parts += [state_probability(part, text, *of_windows) for part in embeddings.windows]
        slips = dict.fromkeys(variant.bank_slip for variant in variants) if bank is not None else {}
        for slip in slips:
            assert bank is not None
            found = associate(embeddings, bank, slip)
            parts += [*found.windows, found.patch]
    moved = iter(to_cpu(parts))
    probabilities = [(next(moved), tuple(islice(moved, len(scales)))) for _ in variants]
    associations = {slip: Associations(tuple(islice(moved, len(scales))), next(moved), scales) for slip in slips}
    return [
        Comparison(*both, associations.get(variant.bank_slip), scales, embeddings.grid, variant)
        for both, variant in zip(probabilities, variants)
    ]


def zero_shot(compared: Comparison) -> GridScores:
    """Zero-shot results (paper, sections 4.1 and 4.2).

    The map is, per patch, the harmonic mean of every scale's map and the image score. NaN and infinite
    entries become 0; the score of an image with a NaN anywhere is NaN. Without windows there are no maps.
    """
    variant, grid = compared.variant, compared.grid
    image = compared.image.double()
    if not compared.windows:
        return GridScores(image, image.new_zeros(len(image), 0, 0))
    normal = variant.harmonic_of == "normal"
    reciprocals = [1 / harmonic_mean_map(part, grid, side) for part, side in zip(compared.windows, compared.scales)]
    if variant.map_scales == "image+windows":
        reciprocals.append(1 / (1 - image if normal else image)[:, None, None])
    maps = len(reciprocals) / reduce(torch.add, reciprocals)
    if normal:  # caoyunkang
        maps = 1 - maps
    # The map does not show a NaN, so the score must.
    bad = reduce(torch.logical_or, (part.isnan().any(dim=1) for part in compared.windows))
    return GridScores(image.masked_fill(bad, math.nan), maps.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0))


def association_maps(
    associations: Associations, references: Sequence[int] | None = None, variant: Variant = REFERENCE
) -> torch.Tensor:
    """Mean of the association maps of every scale and of the patches (paper, equation 6).

    Args:
        associations: of N images.
        references: positions in the bank of the references that count; by default all.
        variant: its ``window_mean`` and ``patch_tokens`` are used.

    Returns:
        (N, grid, grid) float64 in [0, 1] on the CPU.
    """
    windows, patch = associations.nearest(references)
    grid = associations.grid
    mean_map = harmonic_mean_map if variant.window_mean == "harmonic" else arithmetic_mean_map  # caoyunkang
    maps = [mean_map(values, grid, side) for values, side in zip(windows, associations.scales)]
    if variant.patch_tokens != "none":  # caoyunkang
        # In float64, only on the CPU: MPS has no float64.
        maps.append(patch.cpu().double().reshape(-1, grid, grid))
    return reduce(torch.add, maps) / len(maps)


def few_shot(zero: GridScores, maps: torch.Tensor, variant: Variant = REFERENCE) -> GridScores:
    """Combine zero-shot results with association maps (paper, section 4.3).

    Args:
        zero: zero-shot results of N images.
        maps: (N, grid, grid), from ``association_maps``.
        variant: its ``join`` is used.

    Returns:
        Results whose reference part is the maximum of the association map and whose maps are the sum of both maps.
    """
    joined = zero.maps + maps
    if variant.join == "mean":  # anomalib
        joined = joined / 2
    elif variant.join == "product_over_sum":  # caoyunkang
        joined = (zero.maps * maps / joined).nan_to_num(nan=0.0)
    return GridScores(zero.text, joined, maps.amax(dim=(1, 2)))


def finished(found: GridScores, image_size: int, variant: Variant) -> GridScores:
    """The final results of a variant.

    Args:
        found: from ``zero_shot`` or ``few_shot``.
        image_size: side of the upsampled map.
        variant: its ``image_score`` is used, and ``join`` where there is no reference.

    Returns:
        The same results, except that with ``map_max`` both parts of the score are the maximum of the upsampled map.
    """
    if variant.join == "product_over_sum" and found.reference is None:  # caoyunkang
        found = found._replace(maps=found.maps / 2)
    if variant.image_score == "class_token":
        return found
    # caoyunkang
    highest = upsample(found.maps, image_size).amax(dim=(1, 2)) + 0 * found.text
    return GridScores(highest, found.maps, None if found.reference is None else highest)


def score_images(
    embeddings: Embeddings,
    text: torch.Tensor,
    bank: MemoryBank | None = None,
    subsets: Sequence[Sequence[int]] = ((),),
    variant: Variant = REFERENCE,
    image_size: int = 0,
) -> list[GridScores]:
    """Score N images with any number of subsets of the references (paper, section 4).

    The images are compared with every reference only once for all subsets. On a GPU, products
    and softmax run there, and everything after them on the CPU in float64.

    Args:
        embeddings: of the N images.
        text: (2, embed_dim), L2-normalised class embeddings, normal first.
        bank: the references; None if all subsets are empty.
        subsets: positions in the bank; an empty one asks for the zero-shot results.
        variant: the way of computing.
        image_size: side of the upsampled map; a variant's ``map_max`` needs it.

    Returns:
        The results for each subset.
    """
    return score_variants(embeddings, [text], bank, subsets, [variant], image_size)[0]


def score_variants(
    embeddings: Embeddings,
    texts: Sequence[torch.Tensor],
    bank: MemoryBank | None,
    subsets: Sequence[Sequence[int]],
    variants: Sequence[Variant],
    image_size: int,
) -> list[list[GridScores]]:
    """``score_images`` for several variants, each with its own text, that encode images in the same way."""
    results = []
    for compared in compare(embeddings, texts, bank if any(subsets) else None, variants):
        zero, associations, variant = zero_shot(compared), compared.associations, compared.variant
        found = []
        for chosen in subsets:
            if chosen and associations is not None:
                found.append(few_shot(zero, association_maps(associations, chosen, variant), variant))
            else:
                found.append(zero)
        results.append([finished(one, image_size, variant) for one in found])
    return results


def leave_one_out(
    bank: MemoryBank, text: torch.Tensor, variant: Variant = REFERENCE, image_size: int = 0
) -> GridScores:
    """Score every one of R references against the bank of the others; R is 2 or more.

    Args:
        bank: of the references.
        text: (2, embed_dim), L2-normalised class embeddings, normal first.
        variant, image_size: as for ``score_images``.
    """
    results = []
    for start in range(0, len(bank), _REFERENCES_AT_ONCE):
        part = bank.embeddings[start : start + _REFERENCES_AT_ONCE]
        (compared,) = compare(part, [text], bank, [variant])
        zero, associations = zero_shot(compared), compared.associations
        assert associations is not None
        for number in range(len(part)):
            others = [other for other in range(len(bank)) if other != start + number]
            maps = association_maps(associations.of_image(number), others, variant)
            one = slice(number, number + 1)
            found = few_shot(GridScores(zero.text[one], zero.maps[one]), maps, variant)
            results.append(finished(found, image_size, variant))
    return GridScores(*(torch.cat(parts) for parts in zip(*results)))


def upsample(maps: torch.Tensor, size: int) -> torch.Tensor:
    """(N, grid, grid) maps to (N, size, size) by bilinear interpolation, in the dtype of the input."""
    return F.interpolate(maps[:, None], size=(size, size), mode="bilinear", align_corners=False)[:, 0]
