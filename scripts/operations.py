"""Matrix operations of a picture, counted: what bounds its time and what a plan of many is made of."""

from __future__ import annotations

from winclip.defaults import SCALES
from winclip.network.clip import ClipConfig

GIGA = 1e9


def linear_operations(tokens: int, config: ClipConfig, parts: int = 4) -> int:
    """Operations of a block's linear layers; ``parts`` counts the square ones: query, key, value, output."""
    return 2 * tokens * config.width * (parts * config.width + 2 * config.mlp_width)


def exact_operations(config: ClipConfig) -> int:
    """Matrix operations of one image with both exact savings: the bound's numerator."""
    grid = config.grid
    full = 1 + grid * grid
    total = 2 * (full - 1) * 3 * config.patch_size**2 * config.width
    total += config.layers * (linear_operations(full, config) + 4 * full * full * config.width)
    for side in SCALES:
        length, windows = 1 + side * side, (grid - side + 1) ** 2
        attention = 4 * length * length * config.width * windows
        first = 2 * windows * length * config.width * (config.width + 2 * config.mlp_width)
        last = 2 * windows * config.width * (4 * config.width + 2 * config.mlp_width)
        last_attention = 4 * windows * length * config.width * config.heads
        total += first + attention + last + last_attention
        total += (config.layers - 2) * (linear_operations(windows * length, config) + attention)
        total += 2 * windows * config.width * config.embed_dim
    return total


def plain_operations(config: ClipConfig) -> int:
    """Matrix operations of one image when every window is a full pass over the blocks."""
    grid = config.grid
    sequences = [(1 + grid * grid, 1)] + [(1 + side * side, (grid - side + 1) ** 2) for side in SCALES]
    return config.layers * sum(
        linear_operations(count * length, config) + 4 * count * length * length * config.width
        for length, count in sequences
    )


def association_operations(config: ClipConfig, references: int) -> int:
    """Matrix operations of comparing an image's windows and patches with those of every reference."""
    windows = sum((config.grid - side + 1) ** 4 for side in SCALES)
    return 2 * references * (windows * config.embed_dim + config.grid**4 * config.width)


def reference_bytes(config: ClipConfig) -> int:
    """Bytes of a reference in a memory bank: its embeddings in float32."""
    windows = sum((config.grid - side + 1) ** 2 for side in SCALES)
    return 4 * ((1 + windows) * config.embed_dim + config.grid**2 * config.width)
