"""The seam between the method and the network that embeds images and prompts: all that the method asks of one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch

from winclip.embeddings import Embeddings


class Backbone(Protocol):
    """A network that is loaded, on a device.

    Attributes:
        model: name of the model, or path of its config.
        pretrained: where its weights are from: a tag, or the path of a file.
        weights_sha256: checksum of that file.
        device: where embeddings come out.
        precision: in which it computes, as an option names it: ``fp32``, ``tf32``, ``bf16`` or ``fp16``.
        kernels: which of several implementations runs here, where they round differently.
        image_size: side of the input image in pixels.
        patch_size: side of a patch in pixels.
        grid: patches along a side of the image.
        scales: sides of the windows in patches.
        embed_dim: width of the embeddings that images, windows and prompts share.
        patch_width: width of the embeddings of patches.
        context_length: tokens that a prompt may have, those included that mark its start and end.
    """

    model: str
    pretrained: str
    weights_sha256: str
    device: torch.device
    precision: str
    kernels: str
    image_size: int
    patch_size: int
    grid: int
    scales: tuple[int, ...]
    embed_dim: int
    patch_width: int
    context_length: int

    @property
    def fingerprint(self) -> dict[str, Any]:
        """What has to be the same for embeddings to be the same, as JSON gives it back."""

    @property
    def batch_size(self) -> int:
        """Images to encode together where no other number is asked for."""

    def longest_prompt(self, prompts: Sequence[str]) -> int:
        """Tokens of the longest of the prompts, counted as in ``context_length``.

        Raises:
            InputError: if a prompt has more tokens than ``context_length``.
        """

    def encode(self, images: torch.Tensor, *, normalised: bool = True, windows: bool = True) -> Embeddings:
        """Embed images.

        Args:
            images: (N, image_size, image_size, 3) RGB pixels from any device, uint8 or float32 from about 0 to 255.
            normalised: by the mean and deviation of the images that the network was trained with; else from 0 to 1.
            windows: else the images alone are embedded, without scales: ``cls`` is the same to the bit.
        """

    def after_last_norm(self, patch: torch.Tensor) -> torch.Tensor:
        """Embeddings of patches, (N, patches, patch_width), behind the norm that the class token goes through."""

    def embed_prompts(self, prompts: Sequence[str]) -> torch.Tensor:
        """Embed N prompts: (N, embed_dim) float32 on ``device``, not normalised.

        Raises:
            InputError: if a prompt has more tokens than ``context_length``.
        """
