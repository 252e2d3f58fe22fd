"""Geometry of the windows over the patch grid: which patches a window holds, and the way back."""

from __future__ import annotations

from functools import cache

import torch

_CPU = torch.device("cpu")


@cache
def window_patches(grid: int, side: int, device: torch.device = _CPU) -> torch.Tensor:
    """Patch numbers of every ``side`` x ``side`` window, stride one patch (paper, section 4.2).

    Args:
        grid: patches along a side of the image.
        side: patches along a side of a window.
        device: where the numbers are kept, so that they are copied there once.

    Returns:
        (windows, side * side) int64; windows row-major by their top-left patch, the patches of a
        window row-major, patch numbers row-major over the grid.
    """
    patches = torch.arange(grid * grid).reshape(grid, grid)
    return patches.unfold(0, side, 1).unfold(1, side, 1).reshape(-1, side * side).to(device)


def harmonic_mean_map(values: torch.Tensor, grid: int, side: int) -> torch.Tensor:
    """Harmonic mean, per patch, of the values of all windows that hold it (paper, equation 4).

    Args:
        values: (N, windows) of any float dtype on any device, not negative. A zero makes every
            patch of its window zero.
        grid: patches along a side of the image.
        side: patches along a side of a window.

    Returns:
        (N, grid, grid) float64 on the CPU.
    """
    # In float64, only on the CPU: MPS has no float64.
    reciprocals = values.cpu().double().reciprocal().unflatten(1, (grid - side + 1, -1))
    return _sum_of_windows(torch.ones_like(reciprocals[:1]), side) / _sum_of_windows(reciprocals, side)


def arithmetic_mean_map(values: torch.Tensor, grid: int, side: int) -> torch.Tensor:
    """``harmonic_mean_map`` with the arithmetic mean instead of the harmonic one."""
    squares = values.cpu().double().unflatten(1, (grid - side + 1, -1))
    return _sum_of_windows(squares, side) / _sum_of_windows(torch.ones_like(squares[:1]), side)


def _sum_of_windows(values: torch.Tensor, side: int) -> torch.Tensor:
    """Per patch, the sum over the windows that hold it in row-major order: (N, g, g) to (N, grid, grid)."""
    corners = values.shape[1]
    grid = corners + side - 1
    total = values.new_zeros(len(values), grid, grid)
    # Each window adds only to its own patches, so that an infinite reciprocal stays there.
    for row in reversed(range(side)):
        for column in reversed(range(side)):
            total[:, row : row + corners, column : column + corners] += values
    return total
