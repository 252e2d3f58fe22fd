"""The settings that produced a result: recorded in one form, compared in one place."""

from __future__ import annotations

import json
import math
import os
import platform
from functools import cache
from importlib import metadata
from typing import TYPE_CHECKING, Any

import torch

import winclip
from winclip.network.linear import instruction_sets, processor

if TYPE_CHECKING:
    from winclip.network.backbone import Backbone

_PACKAGES = ("torch", "torchvision", "open_clip_torch", "numpy", "pillow", "opencv-python-headless")


def made_with(backbone: Backbone, temperature: float, **more: Any) -> dict[str, Any]:
    """Everything that must be equal for two results to be comparable, as JSON gives it back.

    Args:
        backbone: the model's backbone.
        temperature: temperature of the softmax.
        more: further settings that affect these results.
    """
    stated = {"version": winclip.__version__, **backbone.fingerprint, "temperature": temperature, **more}
    as_read: dict[str, Any] = json.loads(json.dumps(stated))
    return as_read


def differing(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """The names of settings that changed; numbers may differ by rounding."""
    return [name for name in {**now, **before} if not _same(before.get(name), now.get(name))]


def _same(before: Any, now: Any) -> bool:
    if isinstance(before, float) and isinstance(now, float):
        # Another number of threads may change the rounding.
        return math.isclose(before, now, rel_tol=1e-6)
    if isinstance(before, dict) and isinstance(now, dict):
        return before.keys() == now.keys() and all(_same(before[key], value) for key, value in now.items())
    if isinstance(before, list) and isinstance(now, list):
        return len(before) == len(now) and all(map(_same, before, now))
    return bool(before == now)


@cache
def versions() -> dict[str, str]:
    """Versions of Python, this project and the packages that can affect a score."""
    found = {"python": platform.python_version(), "winclip": winclip.__version__}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed as a package"
    return found


def machine(backbone: Backbone) -> dict[str, Any]:
    """Properties that may change only the rounding of a score."""
    return {
        "processor": processor(),
        "instruction_sets": instruction_sets(),
        "kernels": backbone.kernels,
        "cpus": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name(backbone.device) if backbone.device.type == "cuda" else None,
    }
