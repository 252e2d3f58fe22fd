"""The text side: one normal and one anomalous embedding per class (paper, section 4.1)."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections import Counter
from pathlib import Path

import safetensors
import safetensors.torch
import torch
import torch.nn.functional as F

from winclip.network.backbone import Backbone
from winclip.network.devices import float32_products
from winclip.prompts import PromptSet
from winclip.support.errors import InputError
from winclip.support.files import write_atomically

# Increased when a change of this module changes its results, so that older cache entries are not used.
_VERSION = 1


# By the distinct prompts of a state, their embeddings, for prompt sets that share them.
Known = dict[tuple[str, ...], torch.Tensor]


def class_embeddings(
    backbone: Backbone, class_name: str, prompts: PromptSet, cache: Path | None = None, known: Known | None = None
) -> torch.Tensor:
    """Embed the prompt ensemble of a class.

    Every distinct prompt is encoded once; a repeated one counts as often as it occurs.

    Args:
        backbone: its text tower is used.
        class_name: inserted into the prompts as the prompt set says.
        prompts: the prompt set.
        cache: folder of earlier embeddings, by weights, prompts, precision and version. A damaged
            entry is computed again; a folder that cannot be written is ignored.
        known: embeddings computed for other prompt sets; the ones of this set are added.

    Returns:
        (2, embed_dim) float32, L2-normalised, normal first, on the backbone's device.

    Raises:
        InputError: if a prompt is longer than the model's context.
    """
    both = (prompts.normal(class_name), prompts.anomalous(class_name))
    entry = None if cache is None else cache / f"{_key(backbone, both, prompts.normalise_each)}.safetensors"
    embeddings = None if entry is None else _read(entry, backbone.embed_dim)
    if embeddings is None:
        embeddings = torch.stack([_mean(backbone, texts, prompts.normalise_each, known) for texts in both]).cpu()
        if entry is not None:
            with contextlib.suppress(InputError):
                write_atomically(entry, safetensors.torch.save({"text": embeddings}))
    return embeddings.to(backbone.device)


def _key(backbone: Backbone, both: tuple[list[str], list[str]], normalise_each: bool) -> str:
    made_with = [_VERSION, torch.__version__, backbone.fingerprint, backbone.device.type, normalise_each, *both]
    return hashlib.sha256(json.dumps(made_with).encode()).hexdigest()


def _read(entry: Path, embed_dim: int) -> torch.Tensor | None:
    try:
        embeddings = safetensors.torch.load_file(entry)["text"]
    except (OSError, KeyError, safetensors.SafetensorError):
        return None
    return embeddings if embeddings.shape == (2, embed_dim) else None


def prompt_embeddings(
    backbone: Backbone, texts: list[str], normalise_each: bool, known: Known | None = None
) -> tuple[list[str], torch.Tensor, torch.Tensor]:
    """Embed the prompts of one state.

    Returns:
        The N distinct prompts; the count of each, (N,) float32; and their embeddings, (N, embed_dim)
        float32. The state's direction is the direction of the weighted sum.
    """
    counts = Counter(texts)
    weights = torch.tensor(list(counts.values()), dtype=torch.float32, device=backbone.device)
    known, distinct = {} if known is None else known, tuple(counts)
    embeddings = known[distinct] = known[distinct] if distinct in known else backbone.embed_prompts(distinct)
    if normalise_each:
        embeddings = F.normalize(embeddings, dim=-1)
    return list(counts), weights, embeddings


def _mean(backbone: Backbone, texts: list[str], normalise_each: bool, known: Known | None) -> torch.Tensor:
    _, weights, embeddings = prompt_embeddings(backbone, texts, normalise_each, known)
    with float32_products():
        return F.normalize(weights @ embeddings, dim=0)
