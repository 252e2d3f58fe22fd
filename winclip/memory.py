"""The memory bank of a class: what its normal reference images look like (paper, section 4.3)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from os import PathLike
from typing import Any

import safetensors
import safetensors.torch
import torch
import torch.nn.functional as F

from winclip.clip import Embeddings
from winclip.errors import InputError
from winclip.files import write_atomically

# Bounds the largest temporary array of an association, bytes.
_MAX_SIMILARITY_BYTES = 64 << 20


@dataclass(frozen=True)
class MemoryBank:
    """L2-normalised embeddings of R reference images, float32.

    Attributes:
        large: (R, large windows, embed_dim).
        mid: (R, mid windows, embed_dim).
        patch: (R, patches, width).
    """

    large: torch.Tensor
    mid: torch.Tensor
    patch: torch.Tensor

    @staticmethod
    def of(references: Embeddings) -> MemoryBank:
        """The bank of R encoded reference images."""
        return MemoryBank(*(F.normalize(part, dim=-1) for part in (references.large, references.mid, references.patch)))

    def __len__(self) -> int:
        return len(self.large)

    def extended(self, other: MemoryBank) -> MemoryBank:
        """This bank with the references of another behind its own."""
        return MemoryBank(
            *(torch.cat([getattr(self, name), getattr(other, name)]) for name in ("large", "mid", "patch"))
        )


@dataclass(frozen=True)
class Associations:
    """How far N images are from each of R references, float32 in [0, 1] (paper, equation 5).

    An entry is 0.5 * (1 - cosine) to the nearest embedding of that one reference, so the association
    with any subset of the references is the minimum over its rows, and one computation serves every
    number of shots and every draw.

    Attributes:
        large: (N, R, large windows).
        mid: (N, R, mid windows).
        patch: (N, R, patches).
    """

    large: torch.Tensor
    mid: torch.Tensor
    patch: torch.Tensor

    def nearest(self, references: list[int] | slice = slice(None)) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Association with the bank of some references: large, mid and patch, each (N, entries)."""
        large, mid, patch = (part[:, references].amin(dim=1) for part in (self.large, self.mid, self.patch))
        return large, mid, patch


def associate(embeddings: Embeddings, bank: MemoryBank) -> Associations:
    """Compare N images with every reference of a bank; see ``Associations``.

    Images are taken one at a time, and references in groups, so that the largest temporary array
    stays below 64 MB whatever the sizes and an image's result does not depend on its batch.
    """
    return Associations(
        _distances(embeddings.large, bank.large),
        _distances(embeddings.mid, bank.mid),
        _distances(embeddings.patch, bank.patch),
    )


def leave_one_out(bank: MemoryBank) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Association of every reference with the bank of the others.

    Args:
        bank: of R references, 2 or more.

    Returns:
        Large, mid and patch, (R, entries) each, float32 in [0, 1].
    """
    parts = []
    for entries in (bank.large, bank.mid, bank.patch):
        rows = []
        for own in range(len(entries)):
            to_each = _distances(entries[own : own + 1], entries)[0]
            rows.append(torch.cat([to_each[:own], to_each[own + 1 :]]).amin(dim=0))
        parts.append(torch.stack(rows))
    large, mid, patch = parts
    return large, mid, patch


def write_memory(path: str | PathLike[str], tensors: dict[str, torch.Tensor], made_with: dict[str, Any]) -> None:
    """Write tensors and what they were made with to a .safetensors file, complete or not at all.

    Raises:
        InputError: if the file cannot be written.
    """
    on_cpu = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
    write_atomically(path, safetensors.torch.save(on_cpu, {"winclip": json.dumps(made_with, sort_keys=True)}))


def read_memory(path: str | PathLike[str]) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """What ``write_memory`` wrote: the tensors, on the CPU, and what they were made with.

    Raises:
        InputError: if the file is missing, truncated, damaged, or no memory.
    """
    try:
        with safetensors.safe_open(str(path), framework="pt") as file:
            made_with = json.loads((file.metadata() or {}).get("winclip", "null"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except (OSError, ValueError, safetensors.SafetensorError) as error:
        raise InputError(f"memory {path} cannot be read ({error}); save it again from the references") from error
    if not isinstance(made_with, dict):
        raise InputError(f"memory {path} cannot be read (it does not say what it was made with); save it again")
    return tensors, made_with


def _distances(queries: torch.Tensor, references: torch.Tensor) -> torch.Tensor:
    """(N, Q, D) against normalised (R, E, D): (N, R, Q)."""
    n_references, entries, _ = references.shape
    group = max(1, _MAX_SIMILARITY_BYTES // (4 * queries.shape[1] * entries))
    rows = []
    for query in F.normalize(queries, dim=-1):
        nearest = [
            (part.flatten(0, 1) @ query.T).unflatten(0, (len(part), entries)).amax(dim=1)
            for part in references.split(group)
        ]
        rows.append(torch.cat(nearest) if nearest else query.new_empty(0, len(query)))
    cosine = torch.stack(rows) if rows else queries.new_empty(0, n_references, queries.shape[1])
    return 0.5 * (1 - cosine).clamp(min=0)
