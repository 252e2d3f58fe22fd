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

from winclip.commands.check import DATA, recipe_tensor
from winclip.network.clip_backbone import ClipBackbone, load_backbone

GOLDEN = Path(__file__).parent / "golden"
CONFIG = DATA / "model_config.json"
PICTURES = [DATA / f"image_{number}.png" for number in range(5)]


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
    backbone = load_backbone(str(CONFIG), str(checkpoint), device="cpu", **options)
    assert isinstance(backbone, ClipBackbone)
    return backbone


def stages() -> dict[str, npt.NDArray[Any]]:
    """Every golden stage by name."""
    with np.load(DATA / "stages.npz") as first, np.load(GOLDEN / "tiny" / "stages.npz") as more:
        return {**first, **more}


def golden_images() -> list[Image.Image]:
    """Images 0 to 2 are the test batch, 3 and 4 the references."""
    return [Image.open(path) for path in PICTURES]
