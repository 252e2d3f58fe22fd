"""The interface between the method and the network that embeds images and prompts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch

from winclip.embeddings import Embeddings


class Backbone(Protocol):
    """A loaded network on a device.

    Attributes:
        model: name of the model, or path of its config.
        pretrained: the source of its weights: a tag, or the path of a file.
        weights_sha256: checksum of that file.
        device: where embeddings come out.
        precision: precision of its computations, as an option names it: ``fp32``, ``tf32``, ``bf16`` or ``fp16``.
        kernels: which implementation runs here, where several round differently.
        image_size: side of the input image in pixels.
        patch_size: side of a patch in pixels.
        grid: patches along a side of the image.
        scales: sides of the windows in patches.
        embed_dim: width of the embeddings that images, windows and prompts share.
        patch_width: width of the embeddings of patches.
        context_length: tokens that a prompt may have, including the start and end tokens.
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
        """The properties that must be equal for embeddings to be equal, as JSON gives them back."""

    @property
    def batch_size(self) -> int:
        """The default number of images to encode together."""

    def longest_prompt(self, prompts: Sequence[str]) -> int:
        """Tokens of the longest of the prompts, counted as in ``context_length``.

        Raises:
            InputError: if a prompt has more tokens than ``context_length``.
        """

    def encode(self, images: torch.Tensor, *, normalised: bool = True, windows: bool = True) -> Embeddings:
        """Embed images.

        Args:
            images: (N, image_size, image_size, 3) RGB pixels from any device, uint8 or float32 from about 0 to 255.
            normalised: by the mean and deviation of the network's training images; else in [0, 1].
            windows: if false, only whole images are embedded, without scales; ``cls`` is the same to the bit.
        """

    def after_last_norm(self, patch: torch.Tensor) -> torch.Tensor:
        """Embeddings of patches, (N, patches, patch_width), after the layer norm of the class token."""

    def embed_prompts(self, prompts: Sequence[str]) -> torch.Tensor:
        """Embed N prompts: (N, embed_dim) float32 on ``device``, not normalised.

        Raises:
            InputError: if a prompt has more tokens than ``context_length``.
        """
