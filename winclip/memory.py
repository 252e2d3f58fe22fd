"""The memory bank of a class: the embeddings of its normal reference images (paper, section 4.3)."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from os import PathLike
from typing import Any

import safetensors
import safetensors.torch
import torch
import torch.nn.functional as F

from winclip.embeddings import Embeddings
from winclip.network.devices import to_cpu, to_device
from winclip.support.errors import InputError
from winclip.support.files import is_folder, parse_json, write_atomically

# Limits the largest temporary array of an association, in bytes, so that it still is in a cache when it is read again.
_MAX_SIMILARITY_BYTES = 4 << 20
# Unit-length embeddings of one picture differ by less than this per entry, whatever the batch and the device.
_SAME = 1e-5

# Largest deviation from 1 of the length of an embedding normalised in float32.
_UNIT_LENGTH = 1e-4
_SAVE_AGAIN = "save it again from the references"


@dataclass(frozen=True)
class MemoryBank:
    """The embeddings of R reference images, each of unit length."""

    embeddings: Embeddings

    @staticmethod
    def of(references: Embeddings) -> MemoryBank:
        """The bank of R encoded reference images."""
        return MemoryBank(references.normalised())

    def __len__(self) -> int:
        return len(self.embeddings)

    def extended(self, other: MemoryBank) -> MemoryBank:
        """This bank followed by the references of another."""
        return MemoryBank(Embeddings.concatenate([self.embeddings, other.embeddings]))

    def __getitem__(self, chosen: Sequence[int]) -> MemoryBank:
        """Some of the references."""
        return MemoryBank(self.embeddings[torch.tensor(chosen)])

    def different(self, start: int = 0) -> list[int]:
        """Positions of the references that do not repeat an earlier picture.

        Args:
            start: references before this position are known to differ.
        """
        (cls,) = to_cpu([self.embeddings.cls])
        # Class tokens first, because they are small; then patches, only of references whose class tokens match.
        alike = (torch.cdist(cls[start:], cls, p=math.inf) <= _SAME).tril(start - 1)
        later, earlier = alike.nonzero(as_tuple=True)
        held = torch.cat([later + start, earlier]).unique()
        chosen = self.embeddings.patch[to_device(held, self.embeddings.patch.device)]
        patch = dict(zip(held.tolist(), *to_cpu([chosen])))
        kept = list(range(start))
        for number, row in enumerate(alike.tolist(), start):
            if not any(row[k] and (patch[number] - patch[k]).abs().max() <= _SAME for k in kept):
                kept.append(number)
        return kept


@dataclass(frozen=True)
class Associations:
    """How far N images are from each of R references, float32 in [0, 1] (paper, equation 5).

    An entry is 0.5 * (1 - cosine) to the nearest embedding of that one reference, so the association
    with any subset of the references is the minimum over its rows, and one computation serves every
    number of shots and every draw.

    Attributes:
        windows: one (N, R, windows) for each scale, in the order of ``scales``.
        patch: (N, R, patches).
        scales: sides of the windows in patches.
    """

    windows: tuple[torch.Tensor, ...]
    patch: torch.Tensor
    scales: tuple[int, ...]

    @property
    def grid(self) -> int:
        """Patches along a side of the image."""
        return math.isqrt(self.patch.shape[2])

    def of_image(self, image: int) -> Associations:
        """The associations of one image."""
        chosen = slice(image, image + 1)
        return Associations(tuple(part[chosen] for part in self.windows), self.patch[chosen], self.scales)

    def nearest(self, references: Sequence[int] | None = None) -> tuple[tuple[torch.Tensor, ...], torch.Tensor]:
        """Association with the bank of some references (all): (N, windows) for each scale, and (N, patches)."""
        chosen = slice(None) if references is None else list(references)
        windows = tuple(part[:, chosen].amin(dim=1) for part in self.windows)
        return windows, self.patch[:, chosen].amin(dim=1)


def associate(embeddings: Embeddings, bank: MemoryBank, slip: bool = False) -> Associations:
    """Compare N images with every reference of a bank; see ``Associations``.

    Images are taken one at a time, and references in groups: the largest temporary array
    stays below 4 MB whatever the sizes, and an image's result does not depend on its batch.

    Args:
        embeddings: of the images.
        bank: of the references.
        slip: ``bank_slip`` of a variant.
    """
    known = bank.embeddings
    windows = [_distances(part, entries) for part, entries in zip(embeddings.windows, known.windows)]
    if slip:
        order = sorted(range(len(windows)), key=lambda scale: embeddings.scales[scale])
        for smaller, larger in pairwise(order):
            first = embeddings.windows[larger][:, :1]
            windows[larger] = torch.cat([_distances(first, known.windows[smaller]), windows[larger][..., 1:]], dim=2)
    return Associations(tuple(windows), _distances(embeddings.patch, known.patch), embeddings.scales)


def write_memory(path: str | PathLike[str], tensors: dict[str, torch.Tensor], made_with: dict[str, Any]) -> None:
    """Write tensors and the settings that produced them to a .safetensors file; a partial file is never left.

    Raises:
        InputError: if the file cannot be written.
    """
    on_cpu = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
    write_atomically(path, safetensors.torch.save(on_cpu, {"winclip": json.dumps(made_with, sort_keys=True)}))


def read_memory(path: str | PathLike[str]) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The content of a file of ``write_memory``: the tensors, on the CPU, and the settings that produced them.

    Raises:
        InputError: if the file is missing, truncated, damaged, or not a memory.
    """
    if is_folder(path):
        raise InputError(f"memory {path} is a folder; name a file in it")
    try:
        with safetensors.safe_open(str(path), framework="pt") as file:
            made_with = parse_json((file.metadata() or {}).get("winclip", "null"), "what it was made with")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except Exception as error:  # safetensors and torch raise errors of many kinds on damaged bytes
        raise InputError(f"memory {path} cannot be read ({error}); {_SAVE_AGAIN}") from error
    if not isinstance(made_with, dict):
        raise InputError(f"memory {path} cannot be read (it does not say what it was made with); {_SAVE_AGAIN}")
    return tensors, made_with


def check_tensors(tensors: Mapping[str, torch.Tensor], sizes: Mapping[str, Sequence[int]], grid: int) -> None:
    """Check that a memory holds what ``WinCLIP.save_memory`` writes.

    Args:
        tensors: the memory's tensors.
        sizes: by name, the shape of one reference's embeddings.
        grid: patches along a side of the image.

    Raises:
        InputError: if a tensor is missing or not known, has the wrong type or shape, the parts hold different
            numbers of references, a number is NaN, infinite or out of range, or an embedding is not of unit length.
    """
    first = next(iter(sizes))
    count = len(tensors[first]) if first in tensors and tensors[first].dim() else 0
    expected = {name: (torch.float32, (count, *size)) for name, size in sizes.items()}
    if count != 1:
        expected |= {f"left_out_{part}": (torch.float64, (count,)) for part in ("text", "reference")}
        expected["left_out_maps"] = torch.float64, (count, grid, grid)
    if set(tensors) != set(expected):
        raise InputError(f"it holds {sorted(tensors)}, not {sorted(expected)}; {_SAVE_AGAIN}")
    for name, (dtype, shape) in expected.items():
        tensor = tensors[name]
        fits = tensor.dtype == dtype and tensor.shape == shape and tensor.numel() > 0
        # Comparisons with NaN are false. Scores reach 1, maps 2.
        if fits and name in sizes:
            fits = float((tensor.norm(dim=-1) - 1).abs().max()) <= _UNIT_LENGTH
        elif fits:
            fits = float(tensor.min()) >= 0 and float(tensor.max()) <= (1 if tensor.dim() == 1 else 2)
        if not fits:
            raise InputError(
                f"{name} is {tuple(tensor.shape)} of {tensor.dtype}, not {shape} of {dtype} for at least one reference"
                f" {'of unit length' if name in sizes else 'and in range'}; {_SAVE_AGAIN}"
            )


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
