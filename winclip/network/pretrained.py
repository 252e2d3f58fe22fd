"""Model configs, checkpoints and the tokenizer. The only module that touches open_clip.

Its configs are read as files. Its table of tags and its tokenizer are loaded without the package, because importing it
takes longer than importing torch. The network itself is ``winclip.network.clip``.
"""

from __future__ import annotations

import difflib
import importlib.util
import logging
import math
import pickle
import re
import shlex
import sys
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import safetensors.torch
import torch

from winclip.defaults import DEMO_MODEL, DEMO_PRETRAINED, SCALES
from winclip.network.clip import ClipConfig
from winclip.network.layouts import in_open_clips_layout, unwrapped
from winclip.network.weights import find_weights
from winclip.pictures.images import CLIP_MEAN, CLIP_STD
from winclip.support.errors import InputError
from winclip.support.files import read_json

_log = logging.getLogger("winclip")
_DEMO_FOLDER = Path(__file__).parent.parent / "demo"
_CHECKPOINT_ENDINGS = (".pt", ".bin", ".pth", ".safetensors")
_WORKING_KINDS = (
    "plain ViT image towers with a class token and CLIP's own text tower work, for example ViT-B-32, ViT-B-16,"
    " ViT-B-16-plus-240, ViT-L-14, ViT-L-14-336, ViT-H-14 and their -quickgelu variants"
)

# The settings of an open_clip config that this project implements, with the largest value of each; any other setting
# must have no effect. The limits exceed every published model and keep memory use bounded.
_TOP_SETTINGS = {"embed_dim": 4096, "vision_cfg": None, "text_cfg": None, "quick_gelu": None, "custom_text": None}
_VISION_SETTINGS = {
    "image_size": 4096, "layers": 128, "width": 4096, "head_width": 4096, "mlp_ratio": 8, "patch_size": 4096,
    "patch_dropout": None,
}  # fmt: skip
_TEXT_SETTINGS = {
    "context_length": 4096, "vocab_size": 1_000_000, "width": 4096, "heads": 4096, "layers": 128, "mlp_ratio": 8,
}  # fmt: skip
_WITHOUT_EFFECT = {"pool_type": ("tok", "argmax"), "pos_embed_type": ("learnable",)}
_MOST_PATCHES = 128

# Files that begin like this are not checkpoints.
_NO_WEIGHTS = {
    b"version https://git-lfs": "a pointer of Git LFS, not the weights; git lfs pull fetches them",
    b"<": "a web page, not the weights; fetch the file that the page leads to",
    b"": "empty; fetch it again",
}
# A command that the user can run on a trusted file.
_SAVE_WEIGHTS = (
    "python -c \"import sys, torch; c = torch.load(sys.argv[1], weights_only=False, map_location='cpu'); c = next((c[k]"
    " for k in ('state_dict', 'model_state_dict', 'model') if k in c), c); torch.save({k: v for k, v in c.items() if"
    " torch.is_tensor(v)}, 'weights.pt')\" "
)

# Found in checkpoints, not needed here.
_UNUSED_TENSORS = {
    "logit_scale",
    "logit_bias",
    "attn_mask",
    "input_resolution",
    "context_length",
    "vocab_size",
    "position_ids",
}


def read_config(model: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The open_clip model config and, from files in the hub's form, the preprocessing config."""
    if model == DEMO_MODEL:
        model = str(_DEMO_FOLDER / f"{DEMO_MODEL}.json")
    if not model.endswith(".json"):
        configs = {path.stem: path for path in sorted(_open_clip_folder().glob("model_configs/*.json"))}
        if model not in configs:
            near = difflib.get_close_matches(model, [*configs, DEMO_MODEL], n=3, cutoff=0.4)
            raise InputError(
                f"model '{model}' is unknown to open_clip; near matches: {', '.join(near) or 'none'};"
                " the path of an open_clip model config .json works too"
            )
        return read_json(configs[model], "model config"), {}
    content = read_json(model, "model config")
    whole = content if isinstance(content, dict) else {}
    config, preprocessing = whole.get("model_cfg", content), whole.get("preprocess_cfg", {})
    if not isinstance(config, dict) or not isinstance(preprocessing, dict):
        raise InputError(f"model config {model} does not consist of JSON objects; compare it with open_clip's")
    for name, lowest in (("mean", -math.inf), ("std", 0.0)):
        values = preprocessing.get(name)
        three = isinstance(values, list) and len(values) == 3
        if values and not (three and all(type(value) in (int, float) and value > lowest for value in values)):
            raise InputError(f"model config {model}: preprocess_cfg.{name} is {values!r:.200}; expected three numbers")
    return config, preprocessing


def _open_clip_folder() -> Path:
    """Where open_clip is installed, found without importing it."""
    specification = importlib.util.find_spec("open_clip")
    assert specification is not None and specification.origin is not None  # a requirement
    return Path(specification.origin).parent


def _open_clip(part: str) -> ModuleType:
    """One module of open_clip: importing the package would import torchvision and torch's compiler too."""
    # An empty package makes Python search its folder for modules.
    package = sys.modules.setdefault("winclip_open_clip", ModuleType("winclip_open_clip"))
    package.__path__ = [str(_open_clip_folder())]
    return importlib.import_module(f"winclip_open_clip.{part}")


def parse_config(
    raw: Mapping[str, Any], model: str, image_size: int | None = None, scales: Sequence[int] = SCALES
) -> ClipConfig:
    """Read an open_clip model config.

    Args:
        raw: the config as open_clip writes it.
        model: its name, for messages.
        image_size: overrides the config's.
        scales: sides of the windows in patches, which must fit into the image.

    Raises:
        InputError: if the towers are not plain, a setting is missing, or the image size does not fit.
    """
    vision, text = raw.get("vision_cfg"), raw.get("text_cfg")
    if not isinstance(vision, Mapping) or not isinstance(text, Mapping):
        raise InputError(f"model config {model} has no vision_cfg or no text_cfg; an open_clip config has both")
    side = vision.get("image_size")
    if isinstance(side, (list, tuple)) and len(side) == 2 and side[0] == side[1]:
        vision = {**vision, "image_size": side[0]}
    _check_settings(model, "vision_cfg.", vision, _VISION_SETTINGS)
    _check_settings(model, "text_cfg.", text, _TEXT_SETTINGS)
    _check_settings(model, "", {"embed_dim": None, **raw}, _TOP_SETTINGS)
    width, text_width = vision.get("width", 768), text.get("width", 512)
    config = ClipConfig(
        embed_dim=raw["embed_dim"],
        image_size=vision.get("image_size", 224) if image_size is None else image_size,
        patch_size=vision.get("patch_size", 16),
        width=width,
        layers=vision.get("layers", 12),
        heads=width // vision.get("head_width", 64),
        mlp_width=int(width * vision.get("mlp_ratio", 4.0)),
        context_length=text.get("context_length", 77),
        vocab_size=text.get("vocab_size", 49408),
        text_width=text_width,
        text_layers=text.get("layers", 12),
        text_heads=text.get("heads", 8),
        text_mlp_width=int(text_width * text.get("mlp_ratio", 4.0)),
        quick_gelu=bool(raw.get("quick_gelu")),
    )
    for part, parted, heads in (("vision_cfg", width, config.heads), ("text_cfg", text_width, config.text_heads)):
        if not heads or parted % heads:
            raise InputError(f"model config {model}: {part}.width {parted} is not divisible by {heads} heads")
    patch, fewest = config.patch_size, max(scales)
    if config.image_size % patch or not fewest <= config.grid <= _MOST_PATCHES:
        nearest = min(max(fewest, round(config.image_size / patch)), _MOST_PATCHES) * patch
        raise InputError(
            f"image size {config.image_size} does not work with {model}: it must be a multiple of the patch size"
            f" {patch}, at least {fewest * patch} for windows of {fewest} patches a side, at most"
            f" {_MOST_PATCHES * patch}; the nearest is {nearest}"
        )
    return config


def _check_settings(model: str, part: str, settings: Mapping[str, Any], known: Mapping[str, int | None]) -> None:
    for key, value in settings.items():
        if key in known:
            largest, kinds = known[key], (int, float) if key == "mlp_ratio" else (int,)
            works = largest is None or (type(value) in kinds and 1 <= value <= largest)
        else:
            works = value in (None, False) or value in _WITHOUT_EFFECT.get(key, ())
        if not works:
            raise InputError(f"model config {model}: {part}{key} = {value!r:.100} is not supported; {_WORKING_KINDS}")


def find_checkpoint(model: str, pretrained: str) -> tuple[Path, dict[str, Any]]:
    """The checkpoint file, downloaded if need be, and open_clip's entry for the tag (empty for files)."""
    if model == DEMO_MODEL and pretrained == DEMO_PRETRAINED:
        return _DEMO_FOLDER / f"{DEMO_MODEL}.safetensors", {}
    if Path(pretrained).is_file():
        return Path(pretrained), {}
    folder = "; it is a folder: name the file in it" if Path(pretrained).is_dir() else ""
    if pretrained.endswith(_CHECKPOINT_ENDINGS):
        raise InputError(f"checkpoint {pretrained} {'is not a file' if folder else 'does not exist'}{folder}")
    if model.endswith(".json"):
        raise InputError(f"'{pretrained}' is not a file; a model config .json needs the path of its checkpoint{folder}")
    table = _open_clip("pretrained")
    tag: dict[str, Any] = table.get_pretrained_cfg(model, pretrained)
    if not tag:
        tags = [DEMO_PRETRAINED] if model == DEMO_MODEL else table.list_pretrained_tags_by_model(model)
        near = difflib.get_close_matches(pretrained, tags, n=3, cutoff=0.4)
        raise InputError(
            f"pretrained '{pretrained}' is neither a file nor a tag of {model};"
            f" {'near matches' if near else 'its tags'}: {', '.join(near or tags) or 'none'}{folder}"
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
            f" python -m scripts.fetch_weights --model {model} --pretrained {pretrained} writes FILE and FILE.json (the"
            " environment variable HF_ENDPOINT names a mirror of the hub), and here they take the place of the tag:"
            " --model FILE.json --pretrained FILE"
        ) from error


def trained_with(raw: Mapping[str, Any], settings: Mapping[str, Any], tag: str) -> dict[str, Any]:
    """Settings that weights expect and do not record: ``quick_gelu``, and ``mean`` and ``std`` of the images.

    Args:
        raw: the model config.
        settings: settings of a tag, or the preprocessing config.
        tag: name of the tag; a file name has no meaning here.
    """
    # The OpenAI weights were trained with QuickGELU even where the model name does not say so.
    return {
        "quick_gelu": bool(raw.get("quick_gelu") or settings.get("quick_gelu") or tag == "openai"),
        "mean": tuple(settings.get("mean") or CLIP_MEAN),
        "std": tuple(settings.get("std") or CLIP_STD),
    }


def warn_of_other_settings(model: str, checkpoint: Path, used: dict[str, Any]) -> None:
    """Warn which tags of a named model expect other settings than the ones used with a file."""
    table, (raw, _) = _open_clip("pretrained"), read_config(model)
    tags = table.list_pretrained_tags_by_model(model)
    others = [tag for tag in tags if trained_with(raw, table.get_pretrained_cfg(model, tag), tag) != used]
    if others:
        _log.warning(
            "checkpoint %s does not say what it was trained with; weights of %s %s expect another activation, mean or"
            " std than is used: for them name with --model the .json that python -m scripts.fetch_weights writes"
            " beside the file",
            checkpoint,
            model,
            ", ".join(others),
        )


def read_checkpoint(path: Path, quick_gelu: bool = True) -> dict[str, torch.Tensor]:
    """Read a state dict in float32 without executing code from the file.

    Takes safetensors, and files that ``torch.save`` wrote of tensors and plain containers. Wrappers such as
    ``state_dict`` or ``model``, and a common prefix such as ``module.``, are removed; the layout of transformers'
    CLIPModel is taken too.

    Args:
        path: the file.
        quick_gelu: whether the model has it; a warning says if OpenAI's weights are used with a model without it.

    Raises:
        InputError: if the file is damaged, holds anything but tensors of finite numbers, or is a TorchScript
            archive.
    """
    try:
        with path.open("rb") as file:
            beginning = file.read(200)
    except OSError as error:
        raise InputError(f"checkpoint {path} cannot be read ({error.strerror or error})") from error
    _refuse_other_files(path, beginning)
    try:
        if path.suffix == ".safetensors" or beginning[8:9] == b"{":
            content: Any = safetensors.torch.load_file(path)
        else:
            zipped = zipfile.is_zipfile(path)
            if zipped and any("/code/" in name for name in zipfile.ZipFile(path).namelist()):
                raise InputError(
                    "it is a TorchScript archive, which holds code; use the weights as .safetensors, for example"
                    " open_clip_model.safetensors of the model's page on the hub"
                )
            # Memory-mapped, so nothing is copied; the old format, before torch 1.6, does not allow it.
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except Exception as error:  # torch and zipfile raise errors of many kinds on damaged bytes
        raise InputError(
            f"checkpoint {path} cannot be read as plain tensors: {_why_unreadable(path, error)}"
        ) from error
    entries = unwrapped(content, str(path))
    if entries is None:
        raise InputError(f"checkpoint {path} holds no state dict")
    if "input_resolution" in entries and not quick_gelu:
        _log.warning(
            "checkpoint %s holds input_resolution, as OpenAI's weights do, which need a model with QuickGELU; this"
            " model has none: name its -quickgelu variant with --model",
            path,
        )
    tensors = {
        name: _plain(path, name, value)
        for name, value in entries.items()
        if isinstance(value, torch.Tensor) and name.rpartition(".")[2] not in _UNUSED_TENSORS
    }
    return in_open_clips_layout(tensors)


def _refuse_other_files(path: Path, beginning: bytes) -> None:
    """Raises: InputError: if a file is one that is often found instead of weights."""
    text = beginning.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    for sign, what in _NO_WEIGHTS.items():
        if text.startswith(sign) if sign else not text:
            raise InputError(f"checkpoint {path} is {what}")


def _why_unreadable(path: Path, error: Exception) -> str:
    """What is wrong with a checkpoint, and the way out, in whole sentences."""
    if isinstance(error, InputError):
        return str(error)
    if found := re.search(r"GLOBAL (\S+)", str(error)):
        return (
            f"beside tensors it holds {found[1]}, which is code, and that is never executed. Where you trust the file,"
            f" this saves the weights alone: {_SAVE_WEIGHTS}{shlex.quote(str(path))}"
        )
    if isinstance(error, pickle.UnpicklingError):
        return "it is damaged, or was not written by torch.save"
    first = (re.sub(r"\x1b\[[\d;]*m", "", str(error)).strip().splitlines() or [""])[0]
    return f"it is damaged ({first or type(error).__name__})"


def _plain(path: Path, name: str, value: torch.Tensor) -> torch.Tensor:
    """A tensor of finite numbers in float32, which must not be larger than its data in the file."""
    dense = value.is_floating_point() and value.layout == torch.strided and value.device.type == "cpu"
    # One pass: an infinite or NaN entry makes the sum infinite or NaN.
    fits = dense and value.numel() * value.element_size() <= value.untyped_storage().nbytes()
    if not fits or not math.isfinite(float(value.sum(dtype=torch.float32))):
        raise InputError(
            f"checkpoint {path}: {name}, {value.dtype} of {tuple(value.shape)}, is no plain tensor of finite numbers;"
            " fetch the file again"
        )
    return value.float()


def tokenize(prompts: list[str], context: int) -> torch.Tensor:
    """Token numbers, (N, L) int64 on the CPU, zero after the end-of-text token.

    open_clip truncates long prompts silently, so they are tokenized with a longer context: L is 4 times
    ``context``, and a prompt longer than ``context`` is detected.
    """
    tokens: torch.Tensor = _open_clip("tokenizer").tokenize(prompts, context_length=4 * context)
    return tokens
