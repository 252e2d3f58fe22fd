"""Why an image gets its score: the intermediate results of ``score_images`` and the source of each number."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from winclip.embeddings import Embeddings
from winclip.memory import Associations, MemoryBank
from winclip.model import WinCLIP
from winclip.network.devices import float32_products
from winclip.pictures.images import ImageLike
from winclip.scoring import association_maps, compare, few_shot, upsample, zero_shot
from winclip.support.errors import InputError
from winclip.text import prompt_embeddings
from winclip.variants import check_text_alone
from winclip.windows import harmonic_mean_map, window_patches

Map = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Block:
    """A window, or with ``side`` 1 a patch: its upper left patch, and its side in patches."""

    row: int
    column: int
    side: int


@dataclass(frozen=True)
class State:
    """Similarities of Q queries to the prompts of one state.

    Attributes:
        prompts: the N distinct prompts.
        cosine: (Q, N) cosines of queries and prompts.
        part: (Q, N) contribution of each prompt, with its repetitions; each row sums to ``direction``.
        direction: (Q,) cosines of the queries and the state's embedding.
    """

    prompts: list[str]
    cosine: Map
    part: Map
    direction: Map


@dataclass(frozen=True)
class Match:
    """A block of the image, and the nearest of its kind in the memory bank."""

    block: Block
    distance: float
    reference: int
    nearest: Block


@dataclass(frozen=True)
class Memory:
    """Comparison of the image with the references.

    Attributes:
        mean_maps: distances on the patch grid, (grid, grid) for each scale and last for the patches.
        mean: their mean, (grid, grid).
        matches: the chosen patch, and for each scale the window farthest from the bank among those that hold the patch.
    """

    mean_maps: tuple[Map, ...]
    mean: Map
    matches: list[Match]


@dataclass(frozen=True)
class Explanation:
    """Explanation of one image.

    Attributes:
        score: as ``WinCLIP.score`` gives it.
        scales: sides of the windows in patches.
        patch: the chosen patch.
        probability: anomaly probability of the whole image.
        windows: anomaly probability of every window, (grid - side + 1, grid - side + 1) for each scale.
        strongest: for each scale the most anomalous window that holds the chosen patch.
        mean_maps: harmonic means, (grid, grid) for each scale.
        zero: zero-shot map, (grid, grid).
        map: (S, S) float32, as ``WinCLIP.score`` gives it.
        normal, anomalous: similarities of two queries, the whole image and the strongest window of all scales.
        memory: None without references.
    """

    score: float
    scales: tuple[int, ...]
    patch: Block
    probability: float
    windows: tuple[Map, ...]
    strongest: list[Block]
    mean_maps: tuple[Map, ...]
    zero: Map
    map: npt.NDArray[np.float32]
    normal: State
    anomalous: State
    memory: Memory | None

    @property
    def reference(self) -> float | None:
        """The reference part of the score; None without references."""
        return None if self.memory is None else float(self.memory.mean.max())


@torch.inference_mode()
def explain(model: WinCLIP, image: ImageLike, patch: tuple[int, int] | None = None) -> Explanation:
    """Explain the score of an image for the class that was set last.

    Args:
        model: with a class, and with its references if any.
        image: as for ``WinCLIP.predict``.
        patch: row and column of a patch; by default the one with the highest map value.

    Raises:
        InputError: if no class is set, there is no such patch, the image cannot be read or has no score, or the model's
            variant computes differently from the reference.
    """
    check_text_alone(model.variant, "an explanation")
    held, grid, scales = model._get_class(None), model.backbone.grid, model.backbone.scales
    if patch is not None and not all(0 <= place < grid for place in patch):
        raise InputError(
            f"patch {patch[0]},{patch[1]} is outside of the {grid} x {grid} patches; row and column go from 0 to"
            f" {grid - 1}"
        )
    embeddings = model.encode(image)
    score = float(model.score(embeddings).scores[0])
    (compared,) = compare(embeddings, [held.text], held.bank, [model.variant])
    zero = zero_shot(compared)
    found = zero if compared.associations is None else few_shot(zero, association_maps(compared.associations))
    number = int(found.maps[0].argmax()) if patch is None else patch[0] * grid + patch[1]
    holding = [(window_patches(grid, side) == number).any(dim=1).nonzero()[:, 0] for side in scales]
    strongest = [int(chosen[part[0, chosen].argmax()]) for chosen, part in zip(holding, compared.windows)]
    best = max(range(len(scales)), key=lambda scale: float(compared.windows[scale][0, strongest[scale]]))
    queries = torch.stack([embeddings.cls[0], embeddings.windows[best][0, strongest[best]]])
    prompts = held.prompts
    normal, anomalous = (
        _state(model, texts, queries) for texts in (prompts.normal(held.name), prompts.anomalous(held.name))
    )
    memory = None
    if held.bank is not None and compared.associations is not None:
        memory = _memory(embeddings, held.bank, compared.associations, number, holding)
    return Explanation(
        score,
        scales,
        _block(number, grid, 1),
        float(compared.image[0]),
        tuple(_square(part[0]) for part in compared.windows),
        [_block(window, grid, side) for window, side in zip(strongest, scales)],
        tuple(harmonic_mean_map(part, grid, side)[0].numpy() for part, side in zip(compared.windows, scales)),
        zero.maps[0].numpy(),
        upsample(found.maps, model.backbone.image_size)[0].float().numpy(),
        normal,
        anomalous,
        memory,
    )


def _state(model: WinCLIP, texts: list[str], queries: torch.Tensor) -> State:
    """Similarities of queries (Q, embed_dim) to the prompts of a state."""
    normalise_each = model._get_class(None).prompts.normalise_each
    prompts, weights, embeddings = prompt_embeddings(model.backbone, texts, normalise_each)
    with float32_products():
        # The direction is the normalised weighted sum, so each prompt contributes its own part of every cosine.
        dots = F.normalize(queries, dim=-1).double().cpu() @ embeddings.double().cpu().T
        length = (weights @ embeddings).double().norm().cpu()
    cosine = dots / embeddings.double().norm(dim=-1).cpu()
    part = dots * weights.double().cpu() / length
    return State(prompts, cosine.numpy(), part.numpy(), part.sum(dim=1).numpy())


def _memory(
    embeddings: Embeddings, bank: MemoryBank, associations: Associations, number: int, holding: list[torch.Tensor]
) -> Memory:
    grid, scales = embeddings.grid, embeddings.scales
    windows, patches = associations.nearest()
    mean_maps = [harmonic_mean_map(part, grid, side)[0].numpy() for part, side in zip(windows, scales)]
    farthest = [int(chosen[part[0, chosen].argmax()]) for chosen, part in zip(holding, windows)]
    known = bank.embeddings
    matches = []
    for side, place, distances, own, theirs in (
        (1, number, patches, embeddings.patch, known.patch),
        *zip(scales, farthest, windows, embeddings.windows, known.windows),
    ):
        entries = theirs.shape[1]
        nearest = int((theirs.flatten(0, 1) @ own[0, place]).argmax())
        match = Match(
            _block(place, grid, side),
            float(distances[0, place]),
            nearest // entries,
            _block(nearest % entries, grid, side),
        )
        matches.append(match)
    patch_map = patches[0].double().reshape(grid, grid).numpy()
    return Memory((*mean_maps, patch_map), association_maps(associations)[0].numpy(), matches)


def _block(number: int, grid: int, side: int) -> Block:
    return Block(*divmod(number, grid - side + 1), side)


def _square(values: torch.Tensor) -> Map:
    """(W,) numbers of windows, row-major, as (w, w)."""
    return values.double().reshape(math.isqrt(len(values)), -1).numpy()
