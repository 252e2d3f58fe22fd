"""Images in the views that variants encode; each view is compared with the same view of the references."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from datasets.samples import Truth
from winclip.embeddings import Embeddings
from winclip.memory import MemoryBank
from winclip.model import patch_tokens_of
from winclip.network.backbone import Backbone
from winclip.pictures.preparing import WHOLE, Box
from winclip.pictures.reading import Batch
from winclip.scoring import GridScores
from winclip.support.errors import InputError
from winclip.variants import REFERENCE, Variant


class View(NamedTuple):
    """The first, second or a later view of the images of a batch that have it.

    Attributes:
        images: the numbers of the V images.
        boxes: where the view lies in each of them.
        pixels: (V, S, S, 3).
    """

    images: list[int]
    boxes: list[Box]
    pixels: torch.Tensor


def views_of(batch: Batch[Any, Truth], how: str) -> list[View]:
    """The views of the images of a batch; ``how`` is a variant's ``prepare``."""
    if how == REFERENCE.prepare:
        return [View([*range(len(batch.entries))], [WHOLE] * len(batch.entries), batch.images)]
    of_images = [truth.views[how] for truth in batch.extras]
    found = []
    for number in range(max(len(views.boxes) for views in of_images)):
        images = [image for image, views in enumerate(of_images) if number < len(views.boxes)]
        pixels = np.stack([of_images[image].pixels[number] for image in images])
        found.append(View(images, [of_images[image].boxes[number] for image in images], torch.from_numpy(pixels)))
    return found


def encode_views(
    backbone: Backbone,
    batch: Batch[Any, Truth],
    encodings: Iterable[Variant],
    references: bool = False,
    windows: bool = True,
) -> dict[Variant, list[tuple[View, Embeddings]]]:
    """By the ``encoding`` of variants, the views of a batch's images, references or tests, with their embeddings.

    Each view is encoded once for every way to prepare it.
    """
    encoded: dict[tuple[str, bool, bool], list[tuple[View, Embeddings]]] = {}
    found = {}
    for encoding in encodings:
        bgr, unscaled = encoding.bgr_tests and not references, encoding.unscaled_references and references
        how = encoding.prepare, bgr, unscaled
        if how not in encoded:
            encoded[how] = []
            for view in views_of(batch, encoding.prepare):
                pixels = view.pixels.flip(-1) if bgr else view.pixels
                encoded[how].append((view, backbone.encode(pixels, normalised=not unscaled, windows=windows)))
        found[encoding] = [(view, patch_tokens_of(backbone, part, encoding)) for view, part in encoded[how]]
    return found


def memory_banks(
    backbone: Backbone, batches: Sequence[Batch[Any, Truth]], encodings: Iterable[Variant]
) -> dict[Variant, list[MemoryBank]]:
    """By encoding, the memory bank of each view that all references have."""
    encodings = list(encodings)
    encoded = [encode_views(backbone, batch, encodings, references=True) for batch in batches]
    banks = {}
    for encoding in encodings if batches else ():
        of_views = zip(*(found[encoding] for found in encoded))
        count = sum(len(batch.entries) for batch in batches)
        joined = [Embeddings.concatenate([part for _, part in parts]) for parts in of_views]
        banks[encoding] = [MemoryBank.of(part) for part in joined if len(part) == count]
    return banks


def bank_of_view(banks: Sequence[MemoryBank], number: int) -> MemoryBank | None:
    """The bank that a view is compared with; None without references.

    Raises:
        InputError: if a reference has no such view.
    """
    if banks and number >= len(banks):
        raise InputError(
            f"prepare=tiles compares tile {number + 1} of an image with the same tile of every reference, and a"
            " reference is too narrow to have it; use pictures of one shape, or add prepare=straight to the variant"
        )
    return banks[number] if banks else None


def join_views(views: Sequence[tuple[Sequence[int], Sequence[Box], GridScores]]) -> GridScores:
    """The results of N images from the results of their views: parts of the score and overlapping maps are averaged.

    No public source says how to combine maps of tiles. Areas that no view covers are 0 in the map.

    Args:
        views: for the first view of each image, the second, and so on: the numbers of the images that have it, its
            position in each image, and its results. All images have a first view.
    """
    (_, boxes, first), *others = views
    if not others and all(box == WHOLE for box in boxes):
        return first
    grid, count = first.maps.shape[1], len(boxes)
    centres = (torch.arange(grid, dtype=torch.float64) + 0.5) / grid
    maps, covered, times = torch.zeros_like(first.maps), torch.zeros_like(first.maps), torch.zeros(count).double()
    text, reference = torch.zeros_like(first.text), torch.zeros_like(first.text)
    for images, boxes, found in views:
        times[[*images]] += 1
        text[[*images]] += found.text
        reference[[*images]] += 0 if found.reference is None else found.reference
        for image, box, own in zip(images, boxes, found.maps):
            if box == WHOLE or not grid:
                maps[image], covered[image] = own, 1
                continue
            left, upper, right, lower = box
            x, y = (centres - left) / (right - left), (centres - upper) / (lower - upper)
            places = torch.stack(torch.meshgrid(2 * x - 1, 2 * y - 1, indexing="xy"), dim=-1)
            here = (places.abs() <= 1).all(dim=-1)
            part = F.grid_sample(own[None, None], places[None], padding_mode="border", align_corners=False)[0, 0]
            maps[image] += part * here
            covered[image] += here
    return GridScores(text / times, maps / covered.clamp(min=1), None if first.reference is None else reference / times)
