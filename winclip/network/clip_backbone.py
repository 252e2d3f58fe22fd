"""The CLIP backbone, whose image tower also embeds windows: loading it, and the methods of ``Backbone``."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from winclip.defaults import DEFAULT_MODEL, DEFAULT_PRETRAINED, DEMO_MODEL, DEMO_PRETRAINED, SCALES, check_scales
from winclip.embeddings import Embeddings
from winclip.network.backbone import Backbone
from winclip.network.clip import Clip, ClipConfig, ImageTower
from winclip.network.devices import (
    PRECISIONS,
    float32_products,
    free_memory,
    resolve_device,
    resolve_precision,
    to_device,
)
from winclip.network.linear import linear_rates, pack, slowdown
from winclip.network.pretrained import (
    find_checkpoint,
    parse_config,
    read_checkpoint,
    read_config,
    tokenize,
    trained_with,
    warn_of_other_settings,
)
from winclip.pictures.images import normalise
from winclip.support.errors import InputError
from winclip.support.files import file_sha256

_log = logging.getLogger("winclip")
_SMALLER = "the device's memory does not hold %d images at once; continuing with fewer, like a smaller --batch_size"


@dataclass
class ClipBackbone:
    """A loaded CLIP; ``Backbone`` describes the other attributes.

    Attributes:
        clip: both towers, on ``device``, in evaluation mode.
        mean, std: image normalisation per channel.
        precision: one of ``PRECISIONS``; except in tf32, float32 matrices are multiplied in full float32.
        kernels: on the CPU ``packed`` or ``plain`` (``winclip.network.linear``), else ``device``.
    """

    clip: Clip
    model: str
    pretrained: str
    weights_sha256: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    device: torch.device
    precision: str
    kernels: str

    def __post_init__(self) -> None:
        config = self.clip.config
        self.image_size, self.patch_size, self.grid = config.image_size, config.patch_size, config.grid
        self.embed_dim, self.patch_width, self.context_length = config.embed_dim, config.width, config.context_length
        self.scales = self.clip.visual.scales
        self.dtype = PRECISIONS[self.precision]
        # Largest number of images that fitted into memory at once; None: no limit was met.
        self._room: int | None = None

    @property
    def fingerprint(self) -> dict[str, Any]:
        return {
            # For a config file only the name counts: the checksum and the settings cover the rest.
            "model": Path(self.model).name if self.model.endswith(".json") else self.model,
            "weights_sha256": self.weights_sha256,
            "image_size": self.image_size,
            "image_mean": list(self.mean),
            "image_std": list(self.std),
            "scales": list(self.scales),
            # The weights do not determine the activation and the heads.
            "quick_gelu": self.clip.config.quick_gelu,
            "heads": [self.clip.config.heads, self.clip.config.text_heads],
            "precision": "tf32" if self._tf32 else str(self.dtype).split(".")[-1],
        }

    @cached_property
    def batch_size(self) -> int:
        # The largest power of two that fitted into memory at the first call.
        free, config = free_memory(self.device), self.clip.config
        if free is None:
            return 8
        images = min(free // config.image_bytes(self.scales, self.dtype.itemsize), config.images_together(self.scales))
        return 1 << max(images, 1).bit_length() - 1

    def encode(self, images: torch.Tensor, *, normalised: bool = True, windows: bool = True) -> Embeddings:
        """Embed pixels, or (N, 3, S, S) float32, preprocessed.

        When memory runs out, half as many images go together from then on, which is logged the first time.

        Raises:
            RuntimeError: torch's own, if memory runs out for one image, or anything else goes wrong.
        """
        parts: list[Embeddings] = []
        start = 0
        with torch.inference_mode(), float32_products(self._tf32):
            images = to_device(images, self.device)
            while start < len(images) or not parts:
                part = images[start : start + (self._room or max(len(images), 1))]
                try:
                    parts.append(self._encode(part, normalised, windows))
                except RuntimeError as error:
                    # MPS raises a plain RuntimeError.
                    if len(part) < 2 or "out of memory" not in str(error):
                        raise
                    if self._room is None:
                        _log.warning(_SMALLER, len(part))
                    self._room = len(part) // 2
                else:
                    start += len(part)
            return parts[0] if len(parts) == 1 else Embeddings.concatenate(parts)

    def _encode(self, images: torch.Tensor, normalised: bool, windows: bool) -> Embeddings:
        if images.shape[-1] == 3:
            images = normalise(images, *((self.mean, self.std) if normalised else ((0.0,) * 3, (1.0,) * 3)))
        embeddings: Embeddings = self.clip.visual(images, windows)
        return embeddings

    @torch.inference_mode()
    def after_last_norm(self, patch: torch.Tensor) -> torch.Tensor:
        return self.clip.visual.ln_post(patch.to(self.dtype)).float()

    @torch.inference_mode()
    def embed_prompts(self, prompts: Sequence[str]) -> torch.Tensor:
        # Prompts of equal length go together, so no padding is computed.
        tokens, lengths = self._tokenize(prompts)
        embeddings = torch.empty(len(tokens), self.embed_dim, device=self.device)
        with float32_products(self._tf32):
            for length in np.unique(lengths):
                chosen = np.flatnonzero(lengths == length)
                cut = torch.from_numpy(tokens[chosen, :length]).to(self.device)
                embeddings[torch.from_numpy(chosen).to(self.device)] = self.clip.encode_text(cut)
        return embeddings

    def longest_prompt(self, prompts: Sequence[str]) -> int:
        return int(self._tokenize(prompts)[1].max())

    def plain_image_tower(self) -> ImageTower:
        """The image tower with the same weights in plain layers, because packed ones cannot be traced."""
        with torch.device("meta"):
            tower = ImageTower(self.clip.config, self.scales).requires_grad_(False)
        tower.load_state_dict(self.clip.visual.state_dict(), assign=True)
        return tower

    @property
    def _tf32(self) -> bool:
        return self.precision == "tf32"

    def _tokenize(self, prompts: Sequence[str]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Token numbers, (N, L), and the number of tokens of each prompt, (N,)."""
        tokens: npt.NDArray[np.int64] = tokenize(list(prompts), self.context_length).numpy()
        lengths = tokens.argmax(axis=-1) + 1
        if int(lengths.max()) > self.context_length:
            worst = int(lengths.argmax())
            raise InputError(
                f"prompt {prompts[worst]!r} has {int(lengths[worst])} tokens, {self.model} takes"
                f" {self.context_length}; use a shorter class name or state"
            )
        return tokens, lengths


def load_backbone(
    model: str = DEFAULT_MODEL,
    pretrained: str | None = None,
    *,
    image_size: int | None = None,
    device: str = "auto",
    precision: str = "auto",
    scales: Sequence[int] = SCALES,
    weights: bool = True,
) -> Backbone:
    """Load a CLIP.

    Args:
        model: an open_clip model name, ``demo-vit-240``, or the path of an open_clip config .json.
        pretrained: an open_clip tag or the path of a checkpoint; by default ``laion400m_e31``, and
            for the demo backbone its own weights.
        image_size: side in pixels, a multiple of the patch size; by default the model's own.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
        precision: ``auto`` (fp32), ``fp32``, ``bf16``, ``fp16``, or ``tf32`` (only on CUDA): float32 whose
            matrix products keep 10 bits of the mantissa.
        scales: sides of the windows in patches.
        weights: if false, only the backbone's properties are available, and it embeds nothing.

    Raises:
        InputError: if anything given is unknown, unreachable, or does not fit together.
    """
    torch_device = resolve_device(device)
    precision = resolve_precision(precision, torch_device)
    if pretrained is None:
        pretrained = DEMO_PRETRAINED if model == DEMO_MODEL else DEFAULT_PRETRAINED
    raw, preprocessing = read_config(model)
    scales = check_scales(scales)
    # Before any download.
    config = parse_config(raw, model, image_size, scales)
    checkpoint, tag = find_checkpoint(model, pretrained)
    expected = trained_with(raw, {**preprocessing, **tag}, pretrained)
    config = replace(config, quick_gelu=expected["quick_gelu"])
    if weights and not tag and not model.endswith(".json") and model != DEMO_MODEL:
        warn_of_other_settings(model, checkpoint, expected)
    with torch.device("meta"):
        clip = Clip(config, scales)
    # Before the checksum, which takes as long as the rest and runs in parallel to it: nothing disturbs the measurement.
    kernels = choose_kernels(config, torch_device, PRECISIONS[precision]) if weights else "none"
    with ThreadPoolExecutor(1) as beside:
        checksum = beside.submit(file_sha256, checkpoint)
        if weights:
            state = read_checkpoint(checkpoint, config.quick_gelu)
            _resize_positional_embedding(state, config)
            _check_fit(state, clip, checkpoint, model)
            clip.load_state_dict(state, assign=True)
            clip = clip.to(torch_device, PRECISIONS[precision]).eval().requires_grad_(False)
            if kernels == "packed":
                pack(clip.visual)
    return ClipBackbone(
        clip=clip,
        model=model,
        pretrained=pretrained,
        weights_sha256=checksum.result(),
        mean=expected["mean"],
        std=expected["std"],
        device=torch_device,
        precision=precision,
        kernels=kernels,
    )


def choose_kernels(config: ClipConfig, device: torch.device, dtype: torch.dtype) -> str:
    """The faster linear layers of the image tower on this machine, ``packed`` or ``plain``; off the CPU ``device``.

    Warns if a half precision is slower than fp32 here, as on processors without its instructions.
    """
    if device.type != "cpu":
        return "device"
    sizes = config.width, config.mlp_width
    times = slowdown(*sizes, dtype)
    if times > 1:
        _log.warning(
            "%s is %.1f times as slow as fp32 on this processor, and less exact: better use --precision fp32",
            str(dtype).split(".")[-1],
            times,
        )
    return linear_rates(*sizes, dtype).kernels


def _resize_positional_embedding(state: dict[str, torch.Tensor], config: ClipConfig) -> None:
    """Bicubic, antialiased, class token kept, as open_clip does when the image size differs."""
    name = "visual.positional_embedding"
    if name not in state or state[name].dim() != 2 or state[name].shape[1] != config.width:
        return
    grid = config.grid
    class_token, patches = state[name][:1], state[name][1:]
    old = math.isqrt(len(patches))
    if old == grid or old * old != len(patches) or old == 0:
        return
    square = patches.reshape(1, old, old, -1).permute(0, 3, 1, 2)
    resized = F.interpolate(square, size=(grid, grid), mode="bicubic", antialias=True, align_corners=False)
    state[name] = torch.cat([class_token, resized.flatten(2).squeeze(0).T])


def _check_fit(state: Mapping[str, torch.Tensor], clip: Clip, checkpoint: Path, model: str) -> None:
    expected, found = (
        {name: tuple(tensor.shape) for name, tensor in tensors.items()} for tensors in (clip.state_dict(), state)
    )
    others = [
        f"{name[:100]} is {found.get(name, 'missing')} in the file, {expected.get(name, 'absent')} in the model"
        for name in sorted({*expected, *found})
        if expected.get(name) != found.get(name)
    ]
    if others:
        more = f"; and {len(others) - 3} more tensors" if len(others) > 3 else ""
        raise InputError(f"checkpoint {checkpoint} does not fit model {model}: {'; '.join(others[:3])}{more}")
