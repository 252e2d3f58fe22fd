"""The state dict of a CLIP in open_clip's layout, from checkpoints with wrappers, prefixes or other names."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping
from typing import Any

import torch

_log = logging.getLogger("winclip")

# A tensor of the image tower as open_clip and as transformers call it.
_OPEN_CLIP, _TRANSFORMERS = "visual.conv1.weight", "vision_model.embeddings.patch_embedding.weight"
# The deepest nesting of wrappers.
_DEEPEST = 3
# Parts of names in transformers and in open_clip.
_RENAMED = {
    "text_model.embeddings.token_embedding": "token_embedding",
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
    "text_model.encoder.layers": "transformer.resblocks",
    "text_model.final_layer_norm": "ln_final",
    "text_projection.weight": "text_projection",
    "visual_projection.weight": "visual.proj",
    "vision_model.embeddings.class_embedding": "visual.class_embedding",
    "vision_model.embeddings.patch_embedding": "visual.conv1",
    "vision_model.embeddings.position_embedding.weight": "visual.positional_embedding",
    "vision_model.encoder.layers": "visual.transformer.resblocks",
    "vision_model.pre_layrnorm": "visual.ln_pre",
    "vision_model.post_layernorm": "visual.ln_post",
    "self_attn.out_proj": "attn.out_proj",
    "layer_norm": "ln_",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
}
_JOINED = re.compile(r"\.self_attn\.([qkv])_proj\.")


def unwrapped(content: Any, name: str) -> dict[str, Any] | None:
    """The state dict in a checkpoint, with its names without a prefix; None if there is none.

    Args:
        content: the content of the checkpoint.
        name: name of the checkpoint, for the log message that says which of several CLIPs is used.
    """
    found = list(_clips(content))
    if not found:
        plain = content.get("state_dict", content) if isinstance(content, dict) else None
        if not isinstance(plain, dict) or not all(isinstance(key, str) for key in plain):
            return None
        return {key.removeprefix("module."): value for key, value in plain.items()}
    place, prefix, held = found[0]
    if len(found) > 1:
        others = ", ".join(other or "the rest" for other, _, _ in found[1:])
        _log.warning("checkpoint %s holds several CLIPs; %s is taken, not %s", name, place or "the outermost", others)
    return {key.removeprefix(prefix): value for key, value in held.items()}


def _clips(content: Any, place: str = "", depth: int = 0) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Where nested dicts hold a CLIP, the prefix of its names, and the dict."""
    if not isinstance(content, Mapping) or not all(isinstance(key, str) for key in content):
        return
    for mark in (_OPEN_CLIP, _TRANSFORMERS):
        for key, value in content.items():
            if isinstance(value, torch.Tensor) and (key == mark or key.endswith(f".{mark}")):
                yield place, key.removesuffix(mark), dict(content)
                return
    for key, value in content.items() if depth < _DEEPEST else ():
        yield from _clips(value, f"{place}.{key}".strip("."), depth + 1)


def in_open_clips_layout(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Rename a state dict in transformers' layout, transpose its projections, and join queries, keys and values."""
    if _TRANSFORMERS not in state:
        return state
    renamed: dict[str, torch.Tensor] = {}
    parts: dict[str, dict[str, torch.Tensor]] = {}
    for new, value in state.items():
        for theirs, ours in _RENAMED.items():
            new = new.replace(theirs, ours)
        if part := _JOINED.search(new):
            parts.setdefault(_JOINED.sub(".attn.in_proj_", new), {})[part[1]] = value
        else:
            turned = new in ("text_projection", "visual.proj") and value.dim() == 2
            renamed[new] = value.T.contiguous() if turned else value
    for name, three in parts.items():
        if set(three) == set("qkv") and len({part.shape for part in three.values()}) == 1 and three["q"].dim():
            renamed[name] = torch.cat([three[part] for part in "qkv"])
    return renamed
