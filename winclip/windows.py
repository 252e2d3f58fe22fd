"""Geometry of the windows over the patch grid: which patches a window holds, and the way back."""

from __future__ import annotations

from functools import cache

import torch


@cache
def window_patches(grid: int, side: int) -> torch.Tensor:
    """Patch numbers of every ``side`` x ``side`` window, stride one patch (paper, section 4.2).

    Args:
        grid: patches along a side of the image.
        side: patches along a side of a window.

    Returns:
        (windows, side * side) int64; windows row-major by their top-left patch, the patches of a
        window row-major, patch numbers row-major over the grid.
    """
    patches = torch.arange(grid * grid).reshape(grid, grid)
    return patches.unfold(0, side, 1).unfold(1, side, 1).reshape(-1, side * side)


def harmonic_spread(values: torch.Tensor, grid: int, side: int) -> torch.Tensor:
    """Harmonic mean, per patch, of the values of all windows that hold it (paper, equation 4).

    Args:
        values: (N, windows) of any float dtype on any device, not negative. A zero makes every
            patch of its window zero.
        grid: patches along a side of the image.
        side: patches along a side of a window.

    Returns:
        (N, grid, grid) float64 on the CPU.
    """
    patches = window_patches(grid, side)
    # Each window adds to its own patches alone, so that an infinite reciprocal stays there.
    reciprocals = values.cpu().double().reciprocal().repeat_interleave(patches.shape[1], dim=1)
    total = reciprocals.new_zeros(len(values), grid * grid).index_add_(1, patches.flatten(), reciprocals)
    windows_per_patch = patches.flatten().bincount(minlength=grid * grid)
    return (windows_per_patch / total).reshape(-1, grid, grid)
