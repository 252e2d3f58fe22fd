"""A plain CLIP: configuration, image tower with windows, text tower. Parameter names are open_clip's.

The forward passes are this project's own. They differ from one pass over whole images in that the
windows of WinCLIP go through the same blocks as short sequences (paper, section 4.2), with two exact
savings: the first block's normalisation and query/key/value projection of a token do not depend on
its window and are computed once, and the last block computes for a window only what its
class token needs: one query, and no keys or values of the other tokens.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from winclip.defaults import SCALES
from winclip.embeddings import Embeddings
from winclip.windows import window_patches

# Rows that go through the layers together on the CPU, for which the packed layout of weights is chosen. With more,
# malloc would return the activations to the system after every use, which causes page faults.
ROWS = 1024
# The longest sequence that counts as short: a window of 3 x 3 patches has ten tokens.
_SHORT = 16
# Largest number of sequences for CUDA's fused attention kernels: a grid's second or third dimension counts them.
_MOST_SEQUENCES = 65_535
# Largest number of elements in a tensor: MPS ends the program if a tensor takes 4 GiB.
_MOST_NUMBERS = 2**30 - 1


@dataclass(frozen=True)
class ClipConfig:
    """Sizes of both towers.

    Attributes:
        embed_dim: width of the joint embedding.
        image_size: side of the input in pixels, a multiple of ``patch_size``.
        patch_size: side of a patch in pixels.
        width, layers, heads, mlp_width: of the image tower.
        context_length: prompt length in tokens.
        vocab_size: number of token embeddings.
        text_width, text_layers, text_heads, text_mlp_width: of the text tower.
        quick_gelu: x * sigmoid(1.702 x) instead of the exact GELU, as OpenAI's weights expect.
    """

    embed_dim: int
    image_size: int
    patch_size: int
    width: int
    layers: int
    heads: int
    mlp_width: int
    context_length: int
    vocab_size: int
    text_width: int
    text_layers: int
    text_heads: int
    text_mlp_width: int
    quick_gelu: bool

    @property
    def grid(self) -> int:
        """Patches along a side of the image."""
        return self.image_size // self.patch_size

    def images_together(self, scales: Sequence[int]) -> int:
        """Images that go through the tower of a GPU together."""
        windows, tokens = max((self.grid - side + 1) ** 2 for side in scales), self._tokens_together(scales)
        widest = max(3 * self.width, self.mlp_width)
        return max(min(_MOST_SEQUENCES // windows, _MOST_NUMBERS // (tokens * widest)), 1)

    def image_bytes(self, scales: Sequence[int], number_bytes: int) -> int:
        """Upper bound of the GPU memory for one image, less than twice the need.

        The peak is in a block's MLP: for every token that goes through the blocks together, seven vectors of
        ``width`` and one of ``mlp_width``, with QuickGELU three; for every token of the image, five more of
        ``width``; and pixels and embeddings in float32, each twice.

        Args:
            scales: sides of the windows in patches.
            number_bytes: bytes of a number in the tower's precision.
        """
        tokens, windows = 1 + self.grid**2, sum((self.grid - side + 1) ** 2 for side in scales)
        in_block = 7 * self.width + (3 if self.quick_gelu else 1) * self.mlp_width
        inside = self._tokens_together(scales) * in_block + 5 * tokens * self.width
        outside = 3 * self.image_size**2 + (1 + windows) * self.embed_dim + tokens * self.width
        return number_bytes * inside + 2 * 4 * outside

    def _tokens_together(self, scales: Sequence[int]) -> int:
        """Tokens of the whole image, or of all windows of a scale if these are more."""
        return max(1 + self.grid**2, *((1 + side**2) * (self.grid - side + 1) ** 2 for side in scales))


def _quick_gelu(x: torch.Tensor) -> torch.Tensor:
    return x * torch.sigmoid(1.702 * x)


def _gelu(x: torch.Tensor) -> torch.Tensor:
    # In place, which torch.nn.functional does not offer: the hidden layer is the largest activation.
    activated: torch.Tensor = torch.ops.aten.gelu_(x)
    return activated


class Attention(nn.Module):
    """Multi-head self-attention whose query/key/value projection can be computed ahead."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.empty(3 * width))
        self.out_proj = nn.Linear(width, width)

    def project(self, x: torch.Tensor) -> torch.Tensor:
        """(..., width) to (..., 3 * width): queries, keys and values side by side."""
        return F.linear(x, self.in_proj_weight, self.in_proj_bias)

    def attend(self, queries: torch.Tensor, keys_values: torch.Tensor, causal: bool = False) -> torch.Tensor:
        """(N, Q, width) queries over (N, L, 2 * width) keys and values: (N, Q, width)."""
        keys, values = keys_values.chunk(2, dim=-1)
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (queries, keys, values))
        if q.dtype != torch.float32 and q.device.type == "cpu" and k.shape[2] <= _SHORT and not causal:
            # torch's fused kernel takes three times as long as this on windows in half precision.
            attended = (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).softmax(dim=-1) @ v
        else:
            attended = F.scaled_dot_product_attention(q, k, v, is_causal=causal)
        return self.out_proj(attended.transpose(1, 2).flatten(2))

    def attend_first(self, x: torch.Tensor) -> torch.Tensor:
        """Attention of the first token alone, (N, L, width) normalised tokens to (N, width).

        One query needs no separate key for every token: q . (K x + b) = (K^T q) . x + q . b, of which
        the last term is the same for all tokens and cancels in the softmax. In the same way, values are
        projected after they are averaged.
        """
        of_query, of_key, of_value = self.in_proj_weight.unflatten(0, (3, self.heads, -1))
        query_bias, _, value_bias = self.in_proj_bias.chunk(3)
        queries = F.linear(x[:, 0], of_query.flatten(0, 1), query_bias).unflatten(-1, (self.heads, -1))
        directions = (queries.transpose(0, 1) * queries.shape[-1] ** -0.5 @ of_key).transpose(0, 1)
        averages = (directions @ x.transpose(1, 2)).softmax(dim=-1) @ x
        values = (averages.transpose(0, 1) @ of_value.transpose(1, 2)).transpose(0, 1)
        return self.out_proj(values.flatten(1) + value_bias)


class Mlp(nn.Module):
    """Two linear layers with the activation between them."""

    def __init__(self, width: int, hidden: int, quick_gelu: bool) -> None:
        super().__init__()
        self.c_fc = nn.Linear(width, hidden)
        self.c_proj = nn.Linear(hidden, width)
        self.activate: Callable[[torch.Tensor], torch.Tensor] = _quick_gelu if quick_gelu else _gelu

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.c_proj(self.activate(self.c_fc(x)))


class Block(nn.Module):
    """Pre-normalised residual attention block."""

    def __init__(self, width: int, heads: int, mlp_width: int, quick_gelu: bool) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(width)
        self.attn = Attention(width, heads)
        self.ln_2 = nn.LayerNorm(width)
        self.mlp = Mlp(width, mlp_width, quick_gelu)

    def project(self, x: torch.Tensor) -> torch.Tensor:
        """The part of attention that depends on each token alone: (..., 3 * width)."""
        return self.attn.project(self.ln_1(x))

    def forward(self, x: torch.Tensor, projected: torch.Tensor | None = None, causal: bool = False) -> torch.Tensor:
        """(N, L, width) to the same shape; ``projected`` is ``project(x)`` if it is already known."""
        if projected is None:
            projected = self.project(x)
        width = x.shape[-1]
        x = self.attn.attend(projected[..., :width], projected[..., width:], causal).add_(x)
        return self.mlp(self.ln_2(x)).add_(x)

    def forward_first(self, x: torch.Tensor) -> torch.Tensor:
        """(N, L, width) to the output at the first token alone, (N, width)."""
        first = x[:, 0] + self.attn.attend_first(self.ln_1(x))
        return first + self.mlp(self.ln_2(first))


class Transformer(nn.Module):
    """A stack of blocks."""

    def __init__(self, width: int, layers: int, heads: int, mlp_width: int, quick_gelu: bool) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList(Block(width, heads, mlp_width, quick_gelu) for _ in range(layers))


class ImageTower(nn.Module):
    """Vision transformer that embeds an image, all its windows and its patches."""

    def __init__(self, config: ClipConfig, scales: tuple[int, ...] = SCALES) -> None:
        super().__init__()
        self.grid = config.grid
        self.scales = scales
        self._together = config.images_together(scales)
        self.conv1 = nn.Conv2d(3, config.width, config.patch_size, config.patch_size, bias=False)
        self.class_embedding = nn.Parameter(torch.empty(config.width))
        self.positional_embedding = nn.Parameter(torch.empty(1 + config.grid**2, config.width))
        self.ln_pre = nn.LayerNorm(config.width)
        self.transformer = Transformer(config.width, config.layers, config.heads, config.mlp_width, config.quick_gelu)
        self.ln_post = nn.LayerNorm(config.width)
        self.proj = nn.Parameter(torch.empty(config.width, config.embed_dim))

    def forward(self, images: torch.Tensor, windows: bool = True) -> Embeddings:
        """Embed (N, 3, S, S) normalised images, with or without windows; see ``Embeddings`` for the result.

        On the CPU images go through one at a time. Their tokens are enough to keep the matrix
        products at full rate, the activations stay near the cache, and the result of an image cannot
        depend on its batch. Elsewhere all images go together, as far as the kernels allow.
        """
        step, rows = (1, ROWS) if images.device.type == "cpu" else (self._together, None)
        parts = images.to(self.proj.dtype).split(step)
        return Embeddings.concatenate([self.embed(part, rows, self.scales if windows else ()) for part in parts])

    def embed(self, images: torch.Tensor, rows: int | None = None, scales: tuple[int, ...] | None = None) -> Embeddings:
        """Embed images in the tower's dtype, all together; this part can be traced.

        ``rows`` bounds the tokens of all windows that go through the blocks together; ``scales`` are by default all.
        """
        tokens = self._tokens(images)
        projected = self.blocks[0].project(tokens)
        x = self.blocks[0](tokens, projected)
        for block in self.blocks[1:]:
            x = block(x)
        scales = self.scales if scales is None else scales
        windows = tuple(self._embed_windows(tokens, projected, side, rows) for side in scales)
        return Embeddings(self._project(x[:, 0]), windows, x[:, 1:].float(), scales)

    def _embed_windows(
        self, tokens: torch.Tensor, projected: torch.Tensor, side: int, rows: int | None
    ) -> torch.Tensor:
        """All windows of one scale, (N, windows, embed_dim), with attention only inside each window."""
        patches = window_patches(self.grid, side, tokens.device)
        sequences = torch.cat([patches.new_zeros(len(patches), 1), patches + 1], dim=1)
        parts = 1 if rows is None else math.ceil(sequences.numel() / rows)
        if parts == 1:
            return self._embed_sequences(tokens, projected, sequences)
        embeddings = [self._embed_sequences(tokens, projected, part) for part in sequences.tensor_split(parts)]
        return torch.cat(embeddings, dim=1)

    def _embed_sequences(self, tokens: torch.Tensor, projected: torch.Tensor, sequences: torch.Tensor) -> torch.Tensor:
        """The class token's embedding for every sequence of token indices: (N, sequences, embed_dim)."""
        x = tokens[:, sequences].flatten(0, 1)
        if len(self.blocks) > 1:
            x = self.blocks[0](x, projected[:, sequences].flatten(0, 1))
            for block in self.blocks[1:-1]:
                x = block(x)
        return self._project(self.blocks[-1].forward_first(x)).unflatten(0, (len(tokens), -1))

    @property
    def blocks(self) -> list[Block]:
        """The transformer's blocks, in order."""
        return list(self.transformer.resblocks)  # type: ignore[arg-type]

    def _tokens(self, images: torch.Tensor) -> torch.Tensor:
        """Class token and patches with positional embedding, after ``ln_pre``: (N, 1 + grid * grid, width)."""
        # The convolution as a matrix product, since CUDA runs float32 convolutions in TF32 by default.
        pixels = images.unflatten(3, (self.grid, -1)).unflatten(2, (self.grid, -1)).permute(0, 2, 4, 1, 3, 5)
        patches = F.linear(pixels.flatten(1, 2).flatten(2), self.conv1.weight.flatten(1))
        class_token = self.class_embedding.expand(len(images), 1, -1)
        return self.ln_pre(torch.cat([class_token, patches], dim=1) + self.positional_embedding)

    def _project(self, class_tokens: torch.Tensor) -> torch.Tensor:
        return (self.ln_post(class_tokens) @ self.proj).float()


class Clip(nn.Module):
    """Both towers, with the parameter names of open_clip's ``CLIP``."""

    def __init__(self, config: ClipConfig, scales: tuple[int, ...] = SCALES) -> None:
        super().__init__()
        self.config = config
        self.visual = ImageTower(config, scales)
        # Not nn.Embedding, whose random weights on the meta device make torch import its compiler, which is slow.
        self.token_embedding = nn.Embedding.from_pretrained(torch.empty(config.vocab_size, config.text_width))
        self.positional_embedding = nn.Parameter(torch.empty(config.context_length, config.text_width))
        self.transformer = Transformer(
            config.text_width, config.text_layers, config.text_heads, config.text_mlp_width, config.quick_gelu
        )
        self.ln_final = nn.LayerNorm(config.text_width)
        self.text_projection = nn.Parameter(torch.empty(config.text_width, config.embed_dim))

    def encode_text(self, tokens: torch.Tensor) -> torch.Tensor:
        """Embed prompts.

        The tower is causal and the result is taken at the end-of-text token: later tokens have no effect and
        are best cut off.

        Args:
            tokens: (N, L) int64 with L up to ``context_length``; the end-of-text token is the largest
                number of its row.

        Returns:
            (N, embed_dim) float32, not normalised.
        """
        x = self.token_embedding(tokens) + self.positional_embedding[: tokens.shape[1]]
        for block in self.transformer.resblocks:
            x = block(x, causal=True)
        ends = x[torch.arange(len(x), device=x.device), tokens.argmax(dim=-1)]
        return (self.ln_final(ends) @ self.text_projection).float()
