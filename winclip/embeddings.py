"""The output of the image tower: one embedding of the whole picture, one of every window, one of every patch."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from winclip.defaults import SCALES


@dataclass(frozen=True)
class Embeddings:
    """Embeddings of N images, float32.

    Attributes:
        cls: (N, embed_dim), class token of the whole image.
        windows: one (N, windows, embed_dim) for each scale, in the order of ``scales``.
        patch: (N, grid * grid, width), last-layer patch tokens, neither normalised nor projected.
        scales: sides of the windows in patches.
    """

    cls: torch.Tensor
    windows: tuple[torch.Tensor, ...]
    patch: torch.Tensor
    scales: tuple[int, ...] = SCALES

    @property
    def grid(self) -> int:
        """Patches along a side of the image."""
        return math.isqrt(self.patch.shape[1])

    def __len__(self) -> int:
        return len(self.cls)

    def __getitem__(self, images: slice | torch.Tensor) -> Embeddings:
        """The embeddings of some of the images."""
        return self.map(lambda part: part[images])

    def map(self, function: Callable[[torch.Tensor], torch.Tensor]) -> Embeddings:
        """Apply a function to every part."""
        return Embeddings(function(self.cls), tuple(map(function, self.windows)), function(self.patch), self.scales)

    @property
    def finite(self) -> torch.Tensor:
        """(N,) bool: whether the embeddings of each image have no NaN and no infinity."""
        parts = (self.cls, *self.windows, self.patch)
        return torch.stack([part.flatten(1).isfinite().all(dim=1) for part in parts]).all(dim=0)

    def normalised(self) -> Embeddings:
        """The same embeddings, each scaled to unit length."""
        return self.map(lambda part: F.normalize(part, dim=-1))

    @staticmethod
    def concatenate(parts: Sequence[Embeddings]) -> Embeddings:
        """Join along the images; ``parts`` must not be empty, and all must have the same scales."""
        windows = tuple(torch.cat(scale) for scale in zip(*(part.windows for part in parts)))
        cls, patch = (torch.cat([getattr(part, name) for part in parts]) for name in ("cls", "patch"))
        return Embeddings(cls, windows, patch, parts[0].scales)
