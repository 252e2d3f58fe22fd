"""Linear layers on the CPU: plain, or with weights packed for oneDNN, whichever is faster on this machine.

torch multiplies fp32 matrices with MKL or a similar library; packed weights use oneDNN, through operators that
torch uses itself in compiled graphs. Which of the two is faster differs between processors by a factor
of up to two, so it is measured. The two round differently: the outcome is kept in the cache folder,
so that results stay the same to the byte from run to run, and config.json names it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F

from winclip.network.clip import ROWS, ImageTower
from winclip.network.devices import float32_products
from winclip.support.errors import InputError
from winclip.support.files import cache_folder, write_atomically

Layer = Callable[[torch.Tensor], torch.Tensor]
_AGREEMENT = {torch.float32: 1e-4, torch.bfloat16: 3e-2, torch.float16: 5e-3}

# Packed weights take additional memory, so they have to be faster by this much. It also keeps noise
# from deciding between two similar rates.
_MARGIN = 1.05
_TURNS = 8
# Duration of one call of the measurement; a call on a few rows shows how many rows take that long.
_CALL_SECONDS, _FEW_ROWS, _MOST_ROWS = 0.005, 8, 512


@dataclass(frozen=True)
class Rates:
    """Measured rates of linear layers on this machine, operations per second.

    Attributes:
        plain: rate of torch's layers.
        packed: rate of layers with packed weights; 0 where these are not available.
    """

    plain: float
    packed: float

    @property
    def kernels(self) -> str:
        """``packed`` or ``plain``, the faster one."""
        return "packed" if self.packed > _MARGIN * self.plain else "plain"

    @property
    def best(self) -> float:
        """The rate of the faster one."""
        return self.packed if self.kernels == "packed" else self.plain


def pack(tower: ImageTower) -> None:
    """Make the linear layers of an image tower on the CPU use packed weights; its parameters do not change."""
    for block in tower.blocks:
        attention, mlp = block.attn, block.mlp
        layers: list[tuple[torch.nn.Module, str, torch.Tensor, torch.Tensor]] = [
            (layer, "forward", layer.weight, layer.bias) for layer in (attention.out_proj, mlp.c_fc, mlp.c_proj)
        ]
        layers.append((attention, "project", attention.in_proj_weight, attention.in_proj_bias))
        for module, method, weight, bias in layers:
            packed = packed_linear(weight, bias)
            if packed:
                setattr(module, method, packed)


def packed_linear(weight: torch.Tensor, bias: torch.Tensor) -> Layer | None:
    """A linear layer with packed weights, or None where they are not available.

    They are not available where a release of torch lacks the operators, or their results do not agree with
    the plain layer.

    Args:
        weight: (out, in) on the CPU; copied into the packed layout.
        bias: (out,).

    Returns:
        A function from (..., in) to (..., out) in the same dtype.
    """
    if weight.device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return None
    try:
        packed = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), ROWS)

        def layer(x: torch.Tensor) -> torch.Tensor:
            rows: torch.Tensor = torch.ops.mkldnn._linear_pointwise(
                x.reshape(-1, x.shape[-1]), packed, bias, "none", [], ""
            )
            return rows.reshape(*x.shape[:-1], -1)

        probe = torch.linspace(-1, 1, 2 * weight.shape[1], dtype=weight.dtype).reshape(2, -1)
        expected = F.linear(probe, weight, bias)
        difference = (layer(probe) - expected).abs().max() / expected.abs().max().clamp(min=1e-6)
    except (AttributeError, RuntimeError, TypeError):
        return None
    return layer if float(difference) <= _AGREEMENT.get(weight.dtype, 0) else None


@cache
def linear_rates(width: int, hidden: int, dtype: torch.dtype) -> Rates:
    """The rates of layers of ``width`` to ``hidden`` here, from the cache folder or measured, in about 0.1 s.

    They are measured once per machine, number of threads and version of torch, or once per process if the
    cache folder cannot be written.
    """
    entry = cache_folder("kernels") / f"{_machine_key()}-{width}-{hidden}-{str(dtype).split('.')[-1]}.json"
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        content = json.loads(entry.read_text(encoding="utf-8"))
        return Rates(float(content["plain"]), float(content["packed"]))
    with float32_products():  # as the encoder runs, whatever the calling program has set
        rates = _measure(width, hidden, dtype)
    with contextlib.suppress(InputError):
        write_atomically(entry, json.dumps(vars(rates)) + "\n")
    return rates


def slowdown(width: int, hidden: int, dtype: torch.dtype) -> float:
    """The time of such layers in ``dtype`` divided by their time in fp32, on this machine."""
    return linear_rates(width, hidden, torch.float32).best / linear_rates(width, hidden, dtype).best


def instruction_sets() -> str:
    """The vector instructions that torch uses here, and limits from environment variables."""
    limits = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS")
    held = [f"{name}={os.environ[name]}" for name in limits if name in os.environ]
    return " ".join([torch.backends.cpu.get_cpu_capability(), *held])


def processor() -> str:
    """The processor's name as the system reports it."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _machine_key() -> str:
    """What a measurement is valid for: many machines can share a home folder."""
    parts = [processor(), instruction_sets(), torch.get_num_threads(), torch.__version__]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


@torch.inference_mode()
def _measure(width: int, hidden: int, dtype: torch.dtype) -> Rates:
    """Measure both in turns; the shortest time of each counts, because other processes disturb it least."""
    weight, bias = torch.full((hidden, width), 0.01, dtype=dtype), torch.zeros(hidden, dtype=dtype)
    layers: list[Layer] = [lambda x: F.linear(x, weight, bias)]
    packed = packed_linear(weight, bias)
    layers += [packed] if packed else []
    pilot = min(_seconds(layers[0], weight.new_ones(_FEW_ROWS, width)) for _ in range(2))
    rows = min(max(int(_FEW_ROWS * _CALL_SECONDS / pilot), _FEW_ROWS), _MOST_ROWS)
    x = weight.new_ones(rows, width)
    shortest = [min(times) for times in zip(*([_seconds(layer, x) for layer in layers] for _ in range(_TURNS)))]
    rates = [2 * rows * width * hidden / seconds for seconds in shortest]
    return Rates(rates[0], rates[1] if packed else 0.0)


def _seconds(layer: Layer, x: torch.Tensor) -> float:
    start = time.perf_counter()
    layer(x)
    return time.perf_counter() - start
