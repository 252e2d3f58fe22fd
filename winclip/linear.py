"""Linear layers on the CPU with their weights packed for oneDNN, which runs nearer the matrix rate.

torch reaches these kernels through operators that it uses itself in compiled graphs. Where a release
lacks them, or they do not agree with the plain layer, the plain layer is used.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F

Layer = Callable[[torch.Tensor], torch.Tensor]

# Rows that the packed layout is chosen for: the tokens of all 3 x 3 windows of a 15 x 15 grid.
_ROWS = 1690
_AGREEMENT = {torch.float32: 1e-4, torch.bfloat16: 3e-2, torch.float16: 5e-3}


def packed_linear(weight: torch.Tensor, bias: torch.Tensor, gelu: bool = False) -> Layer | None:
    """A linear layer with packed weights, or None where that is not to be had.

    Args:
        weight: (out, in) on the CPU; copied into the packed layout.
        bias: (out,).
        gelu: apply the exact GELU to the result, in the same pass.

    Returns:
        A function of (..., in) that gives (..., out) in the same dtype.
    """
    if weight.device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return None
    activation: tuple[str, list[float], str] = ("gelu", [], "none") if gelu else ("none", [], "")
    try:
        packed = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), _ROWS)

        def layer(x: torch.Tensor) -> torch.Tensor:
            rows: torch.Tensor = torch.ops.mkldnn._linear_pointwise(
                x.reshape(-1, x.shape[-1]), packed, bias, *activation
            )
            return rows.reshape(*x.shape[:-1], -1)

        probe = torch.linspace(-1, 1, 2 * weight.shape[1], dtype=weight.dtype).reshape(2, -1)
        expected = F.linear(probe, weight, bias)
        expected = F.gelu(expected) if gelu else expected
        difference = (layer(probe) - expected).abs().max() / expected.abs().max().clamp(min=1e-6)
    except (AttributeError, RuntimeError, TypeError):
        return None
    return layer if float(difference) <= _AGREEMENT.get(weight.dtype, 0) else None
