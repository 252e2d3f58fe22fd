"""Model configs, checkpoints and the tokenizer. The only module that touches open_clip.

open_clip is imported for its table of tags and its tokenizer alone, where they are asked for: the import takes
longer than torch's own. The network itself is ``winclip.clip``.
"""

from __future__ import annotations

import difflib
import importlib.util
import json
import pickle
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch

from winclip.clip import ClipConfig
from winclip.defaults import DEMO_MODEL, DEMO_PRETRAINED, SCALES
from winclip.errors import InputError
from winclip.weights import find_weights

_DEMO_FOLDER = Path(__file__).parent / "demo"
_CHECKPOINT_ENDINGS = (".pt", ".bin", ".pth", ".safetensors")
_WORKING_KINDS = (
    "plain ViT image towers with a class token and CLIP's own text tower work, for example ViT-B-32, ViT-B-16,"
    " ViT-B-16-plus-240, ViT-L-14, ViT-L-14-336, ViT-H-14 and their -quickgelu variants"
)

# The settings of an open_clip config that this project implements; any other must have no effect.
_TOP_SETTINGS = {"embed_dim", "vision_cfg", "text_cfg", "quick_gelu", "custom_text"}
_VISION_SETTINGS = {"image_size", "layers", "width", "head_width", "mlp_ratio", "patch_size", "patch_dropout"}
_TEXT_SETTINGS = {"context_length", "vocab_size", "width", "heads", "layers", "mlp_ratio"}
_WITHOUT_EFFECT = {"pool_type": ("tok", "argmax"), "pos_embed_type": ("learnable",)}

# Found in checkpoints, not needed here.
_UNUSED_TENSORS = {"logit_scale", "logit_bias", "attn_mask", "input_resolution", "context_length", "vocab_size"}


def read_config(model: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The open_clip model config and, from files of the hub's form, the preprocessing config."""
    if model == DEMO_MODEL:
        model = str(_DEMO_FOLDER / f"{DEMO_MODEL}.json")
    if not model.endswith(".json"):
        configs = _open_clip_configs()
        if model not in configs:
            near = difflib.get_close_matches(model, [*configs, DEMO_MODEL], n=3, cutoff=0.4)
            raise InputError(
                f"model '{model}' is unknown to open_clip; near matches: {', '.join(near) or 'none'};"
                " the path of an open_clip model config .json works too"
            )
        return json.loads(configs[model].read_text(encoding="utf-8")), {}
    try:
        content = json.loads(Path(model).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"model config {model} cannot be read as JSON ({error})") from error
    if not isinstance(content, dict):
        raise InputError(f"model config {model} is not a JSON object")
    return dict(content.get("model_cfg", content)), dict(content.get("preprocess_cfg", {}))


def _open_clip_configs() -> dict[str, Path]:
    """The config files of open_clip's models by name, found without importing it."""
    specification = importlib.util.find_spec("open_clip")
    assert specification is not None and specification.origin is not None  # a requirement
    files = Path(specification.origin).parent.glob("model_configs/*.json")
    return {path.stem: path for path in sorted(files)}


def parse_config(
    raw: Mapping[str, Any], model: str, image_size: int | None = None, scales: Sequence[int] = SCALES
) -> ClipConfig:
    """Read an open_clip model config.

    Args:
        raw: the config as open_clip writes it.
        model: its name, for messages.
        image_size: overrides the config's.
        scales: sides of the windows in patches, which have to fit into the image.

    Raises:
        InputError: if the towers are not plain, a setting is missing, or the image size does not fit.
    """
    vision, text = raw.get("vision_cfg"), raw.get("text_cfg")
    if not isinstance(vision, Mapping) or not isinstance(text, Mapping):
        raise InputError(f"model config {model} has no vision_cfg or no text_cfg; an open_clip config has both")
    for part, settings, known in (
        ("vision_cfg.", vision, _VISION_SETTINGS),
        ("text_cfg.", text, _TEXT_SETTINGS),
        ("", raw, _TOP_SETTINGS),
    ):
        _refuse_unknown_settings(model, part, settings, known)
    if not isinstance(vision.get("layers", 12), int):
        raise InputError(f"model '{model}' has a ResNet image tower; {_WORKING_KINDS}")
    try:
        width, text_width = int(vision.get("width", 768)), int(text.get("width", 512))
        size = vision.get("image_size", 224)
        size = size[0] if isinstance(size, (list, tuple)) and len(set(size)) == 1 else size
        config = ClipConfig(
            embed_dim=int(raw["embed_dim"]),
            image_size=int(size) if image_size is None else image_size,
            patch_size=int(vision.get("patch_size", 16)),
            width=width,
            layers=int(vision.get("layers", 12)),
            heads=width // int(vision.get("head_width", 64)),
            mlp_width=int(width * vision.get("mlp_ratio", 4.0)),
            context_length=int(text.get("context_length", 77)),
            vocab_size=int(text.get("vocab_size", 49408)),
            text_width=text_width,
            text_layers=int(text.get("layers", 12)),
            text_heads=int(text.get("heads", 8)),
            text_mlp_width=int(text_width * text.get("mlp_ratio", 4.0)),
            quick_gelu=bool(raw.get("quick_gelu", False)),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"model config {model}: {type(error).__name__} {error}; compare it with open_clip's"
        ) from error
    patch, largest = config.patch_size, max(scales)
    if config.image_size % patch or config.grid < largest:
        raise InputError(
            f"image size {config.image_size} does not work with {model}: it must be a multiple of the patch size"
            f" {patch}, at least {largest * patch} for windows of {largest} patches a side; the nearest is"
            f" {max(largest, round(config.image_size / patch)) * patch}"
        )
    return config


def _refuse_unknown_settings(model: str, part: str, settings: Mapping[str, Any], known: set[str]) -> None:
    for key, value in settings.items():
        without_effect = value in (None, False) or value in _WITHOUT_EFFECT.get(key, ())
        if key not in known and not without_effect:
            raise InputError(f"model '{model}' does not work here because of {part}{key} = {value!r}; {_WORKING_KINDS}")


def find_checkpoint(model: str, pretrained: str) -> tuple[Path, dict[str, Any]]:
    """The checkpoint file, downloaded if need be, and open_clip's entry for the tag (empty for files)."""
    if model == DEMO_MODEL and pretrained == DEMO_PRETRAINED:
        return _DEMO_FOLDER / f"{DEMO_MODEL}.safetensors", {}
    if Path(pretrained).is_file():
        return Path(pretrained), {}
    if pretrained.endswith(_CHECKPOINT_ENDINGS):
        raise InputError(f"checkpoint {pretrained} does not exist")
    if model.endswith(".json"):
        raise InputError(f"'{pretrained}' is not a file; a model config .json needs the path of its checkpoint")
    import open_clip

    tag = open_clip.get_pretrained_cfg(model, pretrained)
    if not tag:
        tags = [DEMO_PRETRAINED] if model == DEMO_MODEL else open_clip.list_pretrained_tags_by_model(model)
        near = difflib.get_close_matches(pretrained, tags, n=3, cutoff=0.4)
        raise InputError(
            f"pretrained '{pretrained}' is neither a file nor a tag of {model};"
            f" {'near matches' if near else 'its tags'}: {', '.join(near or tags) or 'none'}"
        )
    try:
        return find_weights(tag), tag
    except InputError:
        raise
    except Exception as error:  # whatever the hub's client raises, the way out is the same
        source = tag.get("hf_hub") or tag.get("url")
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(
            f"weights of {model} {pretrained} cannot be fetched from {source} ({reason}); on a machine with network,"
            f" python scripts/fetch_weights.py --model {model} --pretrained {pretrained} fetches them, and here the"
            " path of the file takes the place of the tag: --pretrained FILE"
        ) from error


def read_checkpoint(path: Path) -> dict[str, torch.Tensor]:
    """Read a state dict in float32 without executing code from the file.

    Takes .safetensors, and what ``torch.save`` wrote of tensors and plain containers; a training
    checkpoint's ``state_dict`` entry and ``module.`` prefixes are unwrapped.

    Raises:
        InputError: if the file is damaged, holds anything but tensors, or is a TorchScript archive.
    """
    try:
        if path.suffix == ".safetensors":
            content: Any = safetensors.torch.load_file(path)
        else:
            if zipfile.is_zipfile(path) and any("/code/" in name for name in zipfile.ZipFile(path).namelist()):
                raise InputError(
                    f"checkpoint {path} is a TorchScript archive, which holds code; use the weights as"
                    " .safetensors, for example open_clip_model.safetensors of the model's page on the hub"
                )
            # Mapped, so that nothing is copied; the old format, before torch 1.6, cannot be.
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError, KeyError, safetensors.SafetensorError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(
            f"checkpoint {path} cannot be read as plain tensors ({reason}); it may be damaged, or hold code,"
            " which is never executed"
        ) from error
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
        raise InputError(f"checkpoint {path} holds no state dict")
    tensors = {name.removeprefix("module."): value for name, value in content.items()}
    return {
        name: value.float()
        for name, value in tensors.items()
        if isinstance(value, torch.Tensor) and name not in _UNUSED_TENSORS
    }


def tokenize(prompts: list[str], context: int) -> torch.Tensor:
    """Token numbers, (N, L) int64 on the CPU, zero after the end-of-text token.

    open_clip cuts long prompts without a word, so they are measured in a longer context: L is 4 times
    ``context``, and a prompt that is longer than ``context`` can be told.
    """
    import open_clip

    tokens: torch.Tensor = open_clip.tokenize(prompts, context_length=4 * context)
    return tokens
