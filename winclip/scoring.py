"""From embeddings to anomaly scores and maps: pure functions of tensors (paper, section 4)."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from winclip.clip import Embeddings
from winclip.windows import LARGE, MID, harmonic_spread

TEMPERATURE = 0.07


def anomaly_probability(embeddings: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
    """Softmax over (normal, anomalous) of cosine / 0.07, the anomalous entry (paper, equation 1).

    Args:
        embeddings: (N, ..., embed_dim) of N images.
        text: (2, embed_dim), L2-normalised class embeddings, normal first.

    Returns:
        (N, ...) float32 in [0, 1].
    """
    # Image by image, because a matrix product rounds differently for different numbers of rows.
    cosine = torch.stack([F.normalize(image, dim=-1) @ text.T for image in embeddings.float()])
    return (cosine / TEMPERATURE).softmax(dim=-1)[..., 1]


def zero_shot(embeddings: Embeddings, text: torch.Tensor, grid: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Zero-shot scores and maps of N images (paper, sections 4.1 and 4.2).

    Args:
        embeddings: of N images.
        text: (2, embed_dim), L2-normalised class embeddings, normal first.
        grid: patches along a side of the image.

    Returns:
        Image scores, (N,) float64 in [0, 1], and maps, (N, grid, grid) float64 in [0, 1]: per patch
        the harmonic mean of the large scale, the mid scale and the image score. NaN and infinite
        entries become 0. Both on the CPU.
    """
    image = anomaly_probability(embeddings.cls, text).to("cpu", torch.float64)
    large = harmonic_spread(anomaly_probability(embeddings.large, text), grid, LARGE)
    mid = harmonic_spread(anomaly_probability(embeddings.mid, text), grid, MID)
    maps = 3 / (1 / large + 1 / mid + 1 / image[:, None, None])
    return image, maps.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)


def few_shot_maps(large: torch.Tensor, mid: torch.Tensor, patch: torch.Tensor, grid: int) -> torch.Tensor:
    """Mean of the three association maps (paper, equation 6).

    Args:
        large, mid, patch: associations of N images with their bank, (N, entries) in [0, 1].
        grid: patches along a side of the image.

    Returns:
        (N, grid, grid) float64 in [0, 1] on the CPU.
    """
    on_grid = patch.to("cpu", torch.float64).reshape(-1, grid, grid)
    return (harmonic_spread(large, grid, LARGE) + harmonic_spread(mid, grid, MID) + on_grid) / 3


def few_shot(
    zero_scores: torch.Tensor, zero_maps: torch.Tensor, association_maps: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Join zero-shot results with association maps (paper, section 4.3).

    Args:
        zero_scores: (N,).
        zero_maps: (N, grid, grid).
        association_maps: (N, grid, grid).

    Returns:
        Image scores, (N,): the mean of the zero-shot score and the map's maximum; and maps,
        (N, grid, grid) in [0, 2]: the sum of both maps.
    """
    return (zero_scores + association_maps.amax(dim=(1, 2))) / 2, zero_maps + association_maps


def upsample(maps: torch.Tensor, size: int) -> torch.Tensor:
    """(N, grid, grid) maps to (N, size, size) by bilinear interpolation, in the dtype given."""
    return F.interpolate(maps[:, None], size=(size, size), mode="bilinear", align_corners=False)[:, 0]
