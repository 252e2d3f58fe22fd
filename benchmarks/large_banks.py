"""How a memory bank of many references behaves: exact association against its bound and an approximate index.

    python -m benchmarks.large_banks

One picture at the model's dimensions. Embeddings are drawn in clusters, one for every place in the picture, as parts
that are photographed alike have them. The index is FAISS's inverted lists (IVF, inner product), measured where it
is installed (``python -m pip install faiss-cpu``); else those columns are empty. The things compared take turns.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import math
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from tabulate import tabulate

from benchmarks.benchmark import machine, matrix_products, matrix_rate, medians
from benchmarks.operations import GIGA, association_operations, reference_bytes
from winclip.clip import ClipConfig
from winclip.command_line import exit_status
from winclip.defaults import DEFAULT_MODEL, SCALES
from winclip.embeddings import Embeddings
from winclip.errors import InputError
from winclip.memory import Associations, MemoryBank, associate
from winclip.pretrained import parse_config, read_config
from winclip.scoring import association_maps

# Directions in which the embeddings of one place differ, how far, and how far in all other directions.
_DIRECTIONS, _SPREAD, _NOISE = 16, 0.5, 0.2
_TRAINED_WITH = 64  # entries of each list that the lists are found with


def clustered(config: ClipConfig, images: int, seed: int) -> Embeddings:
    """Embeddings of ``images`` pictures of one part, of unit length.

    The places' centres are the same for every ``seed``, which draws what is different about each picture.
    """
    own = torch.Generator().manual_seed(seed)
    same = torch.Generator().manual_seed(0)

    def part(places: int, width: int) -> torch.Tensor:
        centre = F.normalize(torch.randn(places, width, generator=same), dim=-1)
        directions = torch.randn(places, _DIRECTIONS, width, generator=same) / math.sqrt(width * _DIRECTIONS)
        position = _SPREAD * torch.randn(images, places, 1, _DIRECTIONS, generator=own)
        noise = torch.randn(images, places, width, generator=own).mul_(_NOISE / math.sqrt(width))
        return F.normalize(noise.add_((position @ directions).squeeze(2)).add_(centre), dim=-1)

    windows = tuple(part((config.grid - side + 1) ** 2, config.embed_dim) for side in SCALES)
    return Embeddings(part(1, config.embed_dim)[:, 0], windows, part(config.grid**2, config.width), SCALES)


class Index:
    """The nearest of all references, found by inverted lists: one index for each scale and one for the patches."""

    def __init__(self, bank: MemoryBank, probes: int) -> None:
        faiss: Any = importlib.import_module("faiss")
        self.indices: list[Any] = []
        for part in (*bank.embeddings.windows, bank.embeddings.patch):
            entries = part.flatten(0, 1).numpy()
            width, lists = entries.shape[1], int(4 * math.sqrt(len(entries)))
            index = faiss.IndexIVFFlat(faiss.IndexFlatIP(width), width, lists, faiss.METRIC_INNER_PRODUCT)
            index.cp.max_points_per_centroid = _TRAINED_WITH
            index.train(entries)
            index.add(entries)
            index.nprobe = probes
            self.indices.append(index)

    def associate(self, image: Embeddings) -> tuple[Associations, list[torch.Tensor]]:
        """Association with the nearest entries, as if of one reference, and the numbers of the entries."""
        distances, numbers = [], []
        for index, part in zip(self.indices, (*image.windows, image.patch)):
            cosine, entry = index.search(part[0].numpy(), 1)
            distances.append(torch.from_numpy(0.5 * (1 - cosine).clip(min=0)).T[None])
            numbers.append(torch.from_numpy(entry[:, 0]))
        return Associations(tuple(distances[:-1]), distances[-1], image.scales), numbers


def nearest_entries(image: Embeddings, bank: MemoryBank) -> list[torch.Tensor]:
    """The numbers of the nearest entries, exactly."""
    pairs = zip((*image.windows, image.patch), (*bank.embeddings.windows, bank.embeddings.patch))
    return [(known.flatten(0, 1) @ part[0].T).argmax(dim=0) for part, known in pairs]


def peak_bytes(function: Callable[[], object]) -> int:
    """How much more memory the process holds at most while the function runs; Linux alone tells."""
    Path("/proc/self/clear_refs").write_text("5")  # the highest mark is put down to what is held now
    before = _resident("VmRSS")
    function()
    return _resident("VmHWM") - before


def _resident(name: str) -> int:
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return 1024 * next(int(line.split()[1]) for line in status.splitlines() if line.startswith(name))


@torch.inference_mode()
def bank_row(config: ClipConfig, references: int, probes: int, turns: int) -> list[str]:
    """The figures of one size of bank."""
    bank, image = MemoryBank(clustered(config, references, 1)), clustered(config, 1, 2)
    functions: dict[str, Any] = {**matrix_products(torch.float32), "exact": lambda: associate(image, bank)}
    build, index = 0.0, None
    if importlib.util.find_spec("faiss"):
        start = time.perf_counter()
        index = Index(bank, probes)
        build = time.perf_counter() - start
        functions["index"] = lambda: index.associate(image)
    times = medians(functions, turns)
    operations = association_operations(config, references)
    row = [
        f"{references:,}",
        f"{references * reference_bytes(config) / 1e6:,.0f}",
        f"{peak_bytes(lambda: associate(image, bank)) / 1e6:.0f}" if sys.platform == "linux" else "",
        f"{operations / GIGA:.1f}",
        f"{1000 * times['exact']:.1f}",
        f"{1000 * operations / matrix_rate(times):.1f}",
    ]
    if index is None:
        return row
    exact, (found, numbers) = associate(image, bank), index.associate(image)
    right = torch.cat([a == b for a, b in zip(numbers, nearest_entries(image, bank))])
    maps = association_maps(exact), association_maps(found)
    return [
        *row,
        f"{1000 * times['index']:.1f}",
        f"{build:.1f}",
        f"{100 * float(right.float().mean()):.1f}",
        f"{float((maps[0] - maps[1]).abs().max()):.4f}",
        f"{abs(float(maps[0].max() - maps[1].max())) / 2:.4f}",
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print the table.

    Raises:
        InputError: if the model is unknown or a number too small.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--references", type=int, nargs="+", default=(8, 64, 512), metavar="K", help="(8 64 512)")
    parser.add_argument("--model", default=DEFAULT_MODEL, help=f"whose dimensions are taken ({DEFAULT_MODEL})")
    parser.add_argument("--probes", type=int, default=8, help="lists of the index that are searched (8)")
    parser.add_argument("--turns", type=int, default=5, help="counted turns (5)")
    options = parser.parse_args(arguments)
    for name, value in (("references", min(options.references)), ("probes", options.probes), ("turns", options.turns)):
        if value < 1:
            raise InputError(f"--{name} {value} must be at least 1")
    config = parse_config(read_config(options.model)[0], options.model)
    print(machine())
    header = ["references", "bank, MB", "peak beyond it, MB", "GFLOP a picture", "exact, ms", "bound, ms"]
    header += ["index, ms", "built in s", "same entry, %", "map off by at most", "score off by"]
    rows = [bank_row(config, references, options.probes, options.turns) for references in options.references]
    print(tabulate(rows, header, tablefmt="pipe", disable_numparse=True))
    return 0


if __name__ == "__main__":
    sys.exit(exit_status(main))
