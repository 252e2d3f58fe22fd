"""The seam between the method and the network that embeds images and prompts: all that the method asks of one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch

from winclip.embeddings import Embeddings


class Backbone(Protocol):
    """A network that is loaded, on a device. Plain attributes do for the properties."""

    @property
    def model(self) -> str:
        """Name of the model, or path of its config."""

    @property
    def pretrained(self) -> str:
        """Where its weights are from: a tag, or the path of a file."""

    @property
    def weights_sha256(self) -> str:
        """Checksum of that file."""

    @property
    def device(self) -> torch.device:
        """Where embeddings come out."""

    @property
    def precision(self) -> str:
        """In which it computes, as an option names it: ``fp32``, ``tf32``, ``bf16`` or ``fp16``."""

    @property
    def kernels(self) -> str:
        """Which of several implementations runs here, where they round differently."""

    @property
    def fingerprint(self) -> dict[str, Any]:
        """What has to be the same for embeddings to be the same, as JSON gives it back."""

    @property
    def image_size(self) -> int:
        """Side of the input image in pixels."""

    @property
    def patch_size(self) -> int:
        """Side of a patch in pixels."""

    @property
    def grid(self) -> int:
        """Patches along a side of the image."""

    @property
    def scales(self) -> tuple[int, ...]:
        """Sides of the windows in patches."""

    @property
    def embed_dim(self) -> int:
        """Width of the embeddings that images, windows and prompts share."""

    @property
    def patch_width(self) -> int:
        """Width of the embeddings of patches."""

    @property
    def context_length(self) -> int:
        """Tokens that a prompt may have, those included that mark its start and end."""

    def longest_prompt(self, prompts: Sequence[str]) -> int:
        """Tokens of the longest of the prompts, likewise.

        Raises:
            InputError: if a prompt has more tokens than ``context_length``.
        """

    def encode(self, images: torch.Tensor) -> Embeddings:
        """Embed (N, image_size, image_size, 3) uint8 RGB pixels from any device."""

    def embed_prompts(self, prompts: Sequence[str]) -> torch.Tensor:
        """Embed N prompts.

        Returns:
            (N, embed_dim) float32 on ``device``, not normalised.

        Raises:
            InputError: if a prompt has more tokens than ``context_length``.
        """
