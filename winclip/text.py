"""The text side: one normal and one anomalous embedding per class (paper, section 4.1)."""

from __future__ import annotations

from collections import Counter

import torch
import torch.nn.functional as F

from winclip.backbone import Backbone
from winclip.prompts import PromptSet


def class_embeddings(backbone: Backbone, class_name: str, prompts: PromptSet) -> torch.Tensor:
    """Embed the prompt ensemble of a class.

    Every distinct prompt is encoded once; a repeated one counts as often as it occurs.

    Args:
        backbone: its text tower is used.
        class_name: put into the prompts as the prompt set says.
        prompts: the prompt set.

    Returns:
        (2, embed_dim) float32, L2-normalised, normal first, on the backbone's device.

    Raises:
        InputError: if a prompt is longer than the model's context.
    """
    return torch.stack(
        [
            _mean_embedding(backbone, texts, prompts.normalise_each)
            for texts in (prompts.normal(class_name), prompts.anomalous(class_name))
        ]
    )


def _mean_embedding(backbone: Backbone, texts: list[str], normalise_each: bool) -> torch.Tensor:
    counts = Counter(texts)
    weights = torch.tensor(list(counts.values()), dtype=torch.float32, device=backbone.device)
    embeddings = _encode(backbone, backbone.tokenize(list(counts)))
    if normalise_each:
        embeddings = F.normalize(embeddings, dim=-1)
    return F.normalize(weights @ embeddings, dim=0)


@torch.inference_mode()
def _encode(backbone: Backbone, tokens: torch.Tensor) -> torch.Tensor:
    """(N, embed_dim) of (N, context_length) tokens, prompts of one length together: no padding is computed."""
    lengths = tokens.argmax(dim=-1) + 1
    embeddings = torch.empty(len(tokens), backbone.clip.config.embed_dim, device=backbone.device)
    for length in lengths.unique():
        chosen = (lengths == length).nonzero().flatten()
        prompts = tokens[chosen, : int(length)].to(backbone.device)
        embeddings[chosen.to(backbone.device)] = backbone.clip.encode_text(prompts)
    return embeddings
