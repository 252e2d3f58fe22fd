"""The first half of a run: what no earlier run has scored is encoded once, scored in every setting, and kept."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from tqdm import tqdm

from datasets.items import DatasetIndex, Item
from datasets.layout import mask_files
from datasets.samples import Truth
from evaluation.options import Options, Setting
from evaluation.parts import ClassScores, Listing, Part, Parts
from evaluation.ranks import Ranks
from evaluation.references import Plan, Reader, References, encode_references, oddities
from evaluation.views import bank_of_view, encode_views, join_views
from winclip.made_with import machine
from winclip.model import WinCLIP
from winclip.network.backbone import Backbone
from winclip.pictures.reading import Batch, BatchReader
from winclip.prompts import PromptSet
from winclip.scoring import score_variants
from winclip.support.errors import InputError
from winclip.support.files import cache_folder
from winclip.text import Known, class_embeddings
from winclip.variants import Variant


@dataclass(frozen=True)
class Task:
    """What a run has to do.

    Attributes:
        index, classes, plan: what is scored.
        variants, prompts: by name, and the prompt set of each.
        words: what prompts call each class.
        overlap: a warning if test images are train images, else empty.
    """

    index: DatasetIndex
    classes: list[str]
    plan: Plan
    variants: dict[str, Variant]
    prompts: dict[str, PromptSet]
    words: dict[str, str]
    overlap: str


@dataclass(frozen=True)
class Missing:
    """What remains to be scored of a class.

    Attributes:
        positions: of the test images to score.
        settings: in which to score each of them.
        begun: references that an earlier run could not read; None if none has begun with any of the settings.
    """

    positions: list[int]
    settings: list[Setting]
    begun: list[str] | None


def missing_scores(task: Task, parts: Parts) -> dict[str, Missing]:
    """By class, what no earlier run has scored."""
    found = {}
    for name in task.classes:
        count, scored = len(task.index.test[name]), parts.scored(name)
        settings = [setting for setting in task.plan.settings if len(scored.get(setting, ())) < count]
        positions = [
            position for position in range(count) if any(position not in scored.get(one, ()) for one in settings)
        ]
        begun = any(one in scored for one in settings)
        found[name] = Missing(positions, settings, [*parts.unreadable_references(name)] if begun else None)
    return found


def score_missing(
    options: Options, task: Task, model: WinCLIP, parts: Parts, missing: dict[str, Missing], ranks: Ranks
) -> Iterator[str]:
    """Score this rank's share of what is missing; yields each class when all ranks are done with it.

    Raises:
        InputError: if an image cannot be read, without ``--skip_unreadable``, or a part cannot be written.
    """
    reading = options.reading
    total = sum(len(ranks.share(left.positions)) for left in missing.values())
    with (
        BatchReader(model.backbone.image_size, reading.batch(model.backbone), reading.num_workers) as files,
        tqdm(total=total, unit="image", disable=None if ranks.first else True, dynamic_ncols=True) as progress,
    ):
        reader = Reader(files, task.index.root, model.backbone.image_size, options, model.intake)
        for name, left in missing.items():
            progress.set_description(name)
            if left.positions:
                with ranks.together(), parts:
                    for part in _score_class(options, task, model, name, left, reader, ranks):
                        parts.add(name, part)
                        progress.update(len(part))
            yield name
    model.intake.warn()


def _score_class(
    options: Options, task: Task, model: WinCLIP, name: str, left: Missing, reader: Reader, ranks: Ranks
) -> Iterator[Part]:
    """This rank's share of what is missing of a class, a batch at a time."""
    variants = {setting.variant: task.variants[setting.variant] for setting in left.settings}
    encodings = list(dict.fromkeys(variant.encoding for variant in variants.values()))
    references = encode_references(reader, model.backbone, task.plan, name, left.settings, encodings)
    if left.begun is not None and left.begun != [*references.unreadable]:
        raise InputError(
            f"class {name}: other references can be read than when its scoring began; restore them, or start over"
            " with --fresh"
        )
    cache = None if options.no_cache else cache_folder("text")
    with ranks.all_threads():
        known: Known = {}
        wordings = {
            prompts: class_embeddings(model.backbone, task.words[name], prompts, cache, known)
            for prompts in dict.fromkeys(task.prompts[variant] for variant in variants)
        }
    texts = {variant: wordings[task.prompts[variant]] for variant in variants}
    items, of_machine = task.index.test[name], machine(model.backbone)
    for batch in reader.batches({position: items[position] for position in ranks.share(left.positions)}):
        scores = score_batch(batch, items, model.backbone, variants, texts, references, not options.image_only)
        odd = references.oddities + oddities([item.img_path for item in scores.items], batch.extras)
        yield Part(batch.entries, scores, dict(batch.unreadable), references.unreadable, of_machine, odd)


def score_batch(
    batch: Batch[int, Truth],
    items: list[Item],
    backbone: Backbone,
    variants: dict[str, Variant],
    texts: dict[str, torch.Tensor],
    references: References,
    windows: bool = True,
) -> ClassScores:
    """Encode images once for every way to prepare them, and score them in every setting.

    Args:
        batch: N test images of a class by position; N may be 0.
        items: all test images of the class.
        backbone: the encoder.
        variants: the settings' variants by name.
        texts: text embeddings of the class by variant, (2, embed_dim) each.
        references: of the class, with the positions that each setting uses.
        windows: whether to encode windows too, which maps need.

    Raises:
        InputError: if an image has a tile that a reference lacks.
    """
    grid = backbone.grid if windows else 0
    scores: dict[Setting, npt.NDArray[np.float64]] = {setting: np.empty(0) for setting in references.chosen}
    maps = {setting: torch.empty(0, grid, grid) for setting in references.chosen}
    groups: dict[Variant, list[str]] = {}
    for name, variant in variants.items():
        groups.setdefault(variant.encoding, []).append(name)
    subsets = [*dict.fromkeys(map(tuple, references.chosen.values()))]
    encoded = encode_views(backbone, batch, groups, windows=windows) if batch.entries else {}
    for encoding, views in encoded.items():
        names, found = groups[encoding], []
        how = [texts[name] for name in names], [variants[name] for name in names]
        for number, (view, embeddings) in enumerate(views):
            bank = bank_of_view(references.banks.get(encoding, []), number)
            found.append((view, score_variants(embeddings, how[0], bank, subsets, how[1], backbone.image_size)))
        for setting, chosen in references.chosen.items():
            if setting.variant in names:
                place = names.index(setting.variant), subsets.index(tuple(chosen))
                of_views = [(view.images, view.boxes, results[place[0]][place[1]]) for view, results in found]
                result = join_views(of_views)
                scores[setting], maps[setting] = result.scores.numpy(), result.maps.float()
    masks = [truth.mask for truth in batch.extras]
    return ClassScores([items[position] for position in batch.entries], masks, scores, maps)


def listings(task: Task) -> dict[str, Listing]:
    """By class, checksums of its words, of its lists of test images and references, and of their files."""
    return {
        name: Listing(_checksum(task, name, times=True), _checksum(task, name, times=False)) for name in task.classes
    }


def _checksum(task: Task, name: str, times: bool) -> str:
    items = [*task.index.test[name], *task.plan.possible(name)]
    states = [[*asdict(item).values(), *_states(task.index.root, item, times)] for item in items]
    content = [task.words[name], task.plan.listed, states]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:12]


def _states(root: Path, item: Item, times: bool) -> list[tuple[int, int] | None]:
    """Size and time (0 without ``times``) of an item's image and mask; None for a missing file."""
    states: list[tuple[int, int] | None] = []
    for path in (item.img_path, *mask_files(root, item.mask_path)):
        try:
            state = (root / path).stat()
            states.append((state.st_size, state.st_mtime_ns if times else 0))
        except OSError:
            states.append(None)
    return states
