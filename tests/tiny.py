"""The tiny CLIP of the golden numbers: weights from a recipe, images and stages from files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import open_clip
import safetensors.torch
import torch
from PIL import Image

from winclip.network.clip_backbone import ClipBackbone, load_backbone

GOLDEN = Path(__file__).parent / "golden"
CONFIG = GOLDEN / "tiny" / "model_config.json"


def recipe_tensor(name: str, shape: tuple[int, ...], number: int) -> torch.Tensor:
    """Tensor ``number`` of the sorted state dict, as the golden recipe draws it.

    Roots divide in float64, as NumPy 2 does by itself and NumPy 1 does not.
    """
    v = np.random.RandomState(1000 + number).standard_normal(shape).astype(np.float32)
    if name.endswith(("ln_pre.weight", "ln_post.weight", "ln_final.weight")) or ".ln_1.w" in name or ".ln_2.w" in name:
        v = 1 + 0.1 * v
    elif name.endswith((".bias", "in_proj_bias")):
        v = 0.1 * v
    elif name == "token_embedding.weight" or name.endswith(("positional_embedding", "class_embedding")):
        v = 0.5 * v
    elif name == "visual.conv1.weight":
        v = v.astype(np.float64) / np.sqrt(np.prod(shape[1:]))
    elif name == "logit_scale":
        v = np.float32(2.6592)
    else:
        v = (v * 1.5).astype(np.float64) / np.sqrt(shape[0] if name in ("text_projection", "visual.proj") else shape[1])
    return torch.from_numpy(np.asarray(v, dtype=np.float32))


def open_clip_model(config: dict[str, Any], seed: int | None = None) -> open_clip.CLIP:
    """An open_clip model with weights of the golden recipe, or seeded random ones."""
    if seed is not None:
        torch.manual_seed(seed)
    model = open_clip.CLIP(**config).eval()
    if seed is None:
        state = model.state_dict()
        model.load_state_dict(
            {name: recipe_tensor(name, tuple(state[name].shape), i) for i, name in enumerate(sorted(state))}
        )
    return model


def save_tiny_checkpoint(path: Path) -> Path:
    """Write the tiny model's weights as safetensors."""
    safetensors.torch.save_file(open_clip_model(json.loads(CONFIG.read_text())).state_dict(), path)
    return path


def tiny_backbone(folder: Path, **options: Any) -> ClipBackbone:
    """The tiny model, loaded as a user would load it."""
    checkpoint = folder / "tiny.safetensors"
    if not checkpoint.exists():
        save_tiny_checkpoint(checkpoint)
    return load_backbone(str(CONFIG), str(checkpoint), device="cpu", **options)


def stages() -> dict[str, npt.NDArray[Any]]:
    """Every golden stage by name."""
    with np.load(GOLDEN / "tiny" / "stages.npz") as file:
        return dict(file)


def golden_images() -> list[Image.Image]:
    """Images 0 to 2 are the test batch, 3 and 4 the references."""
    return [Image.open(GOLDEN / "tiny" / f"image_{i}.png") for i in range(5)]
