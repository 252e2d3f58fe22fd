"""Differences between processors and GPUs: copies to and from them, and exact products."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from winclip.support.errors import InputError

PRECISIONS = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
# Tensor cores compute float32 products from this compute capability on.
_TF32_CAPABILITY = (8, 0)


def resolve_device(name: str) -> torch.device:
    """The torch device for an option value.

    Raises:
        InputError: if the device is unknown or not present.
    """
    present = ["cpu"]
    present += [f"cuda:{number}" for number in range(torch.cuda.device_count())]
    present += ["mps"] if torch.backends.mps.is_available() else []
    if name == "auto":
        return torch.device("cuda" if "cuda:0" in present else present[-1])
    wanted = "cuda:0" if name == "cuda" else name
    if wanted not in present:
        raise InputError(f"device '{name}' is not present; use one of: auto, {', '.join(present)}")
    return torch.device(wanted)


def resolve_precision(name: str, device: torch.device) -> str:
    """A name of ``PRECISIONS`` for an option value; ``auto`` is fp32.

    Raises:
        InputError: if the name is unknown, or tf32 is asked of a device that lacks it.
    """
    if name not in ("auto", *PRECISIONS):
        raise InputError(f"precision '{name}' is unknown; use auto, {', '.join(PRECISIONS)}")
    if name == "tf32" and (device.type != "cuda" or torch.cuda.get_device_capability(device) < _TF32_CAPABILITY):
        raise InputError(f"precision 'tf32' needs a CUDA device of compute capability 8.0, not {device}; use fp32")
    return "fp32" if name == "auto" else name


def free_memory(device: torch.device) -> int | None:
    """Free bytes of a GPU; None for the CPU, and for MPS before torch 2.5."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type == "mps" and hasattr(torch.mps, "recommended_max_memory"):
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    return None


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A tensor on a device; copies from the CPU to CUDA go through pinned memory and do not block."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def to_cpu(tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Tensors of one dtype on the CPU, moved in one transfer, with one wait for the device."""
    if all(tensor.device.type == "cpu" for tensor in tensors):
        return list(tensors)
    flat = torch.cat([tensor.flatten() for tensor in tensors]).cpu()
    parts = flat.split([tensor.numel() for tensor in tensors])
    return [part.view(tensor.shape) for part, tensor in zip(parts, tensors)]


@contextmanager
def float32_products(tf32: bool = False) -> Iterator[None]:
    """Matrix products of float32 in full float32, or in TF32 on CUDA, whatever the calling program has set.

    torch's setting applies to all threads; it is restored at the end.
    """
    before, by_backend = None, []
    try:
        before = torch.get_float32_matmul_precision()
    except RuntimeError:
        # The calling program has set it per backend, as newer releases of torch offer.
        backends = (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul)  # type: ignore[attr-defined]
        by_backend = [(backend, backend.fp32_precision) for backend in backends]
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    try:
        yield
    finally:
        if before is not None:
            torch.set_float32_matmul_precision(before)
        for backend, value in by_backend:
            backend.fp32_precision = value
