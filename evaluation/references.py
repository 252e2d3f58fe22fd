"""The train images that each setting of a run uses, and their memory banks."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import NoReturn, TypeVar

from datasets.items import DatasetIndex, Item
from datasets.references import draw_references, read_reference_list
from datasets.samples import Truth, load_sample
from evaluation.options import Options, Setting
from evaluation.views import memory_banks
from winclip.memory import MemoryBank
from winclip.network.backbone import Backbone
from winclip.pictures.intake import Intake
from winclip.pictures.reading import Batch, BatchReader
from winclip.support.errors import InputError
from winclip.support.names import counted
from winclip.variants import REFERENCE, Variant

Key = TypeVar("Key")

# By seed, or None where nothing is drawn: a class's train images in the order they are taken.
Orders = dict[int | None, list[Item]]


@dataclass(frozen=True)
class Plan:
    """The settings of a run, and the orders that they take each class's references from."""

    settings: list[Setting]
    orders: dict[str, Orders]
    listed: bool = False

    def wanted(self) -> list[Item]:
        """Every reference that the run uses if all can be read."""
        most = max(setting.k_shot for setting in self.settings)
        return [item for orders in self.orders.values() for order in orders.values() for item in order[:most]]

    def possible(self, class_name: str) -> list[Item]:
        """Every reference that a class may use; drawn ones in the same order for all seeds."""
        every = dict.fromkeys(item for order in self.orders[class_name].values() for item in order)
        return [*every] if self.listed else sorted(every, key=lambda item: item.img_path)


@dataclass(frozen=True)
class References:
    """The references of a class.

    Attributes:
        class_name: the class.
        items: every reference once, in the order of the bank.
        chosen: per setting, positions in ``items``; none for zero-shot.
        unreadable: path of each replaced reference, and the reason.
        oddities: as in ``evaluation.parts.Part``, once the images are read.
        banks: their memory banks, one for each view, by ``encoding`` of variants; empty before they are encoded.
    """

    class_name: str
    items: list[Item]
    chosen: dict[Setting, list[int]]
    unreadable: dict[str, str] = field(default_factory=dict)
    oddities: list[tuple[str, str]] = field(default_factory=list)
    banks: dict[Variant, list[MemoryBank]] = field(default_factory=dict)


def plan_references(options: Options, index: DatasetIndex, classes: Sequence[str]) -> Plan:
    """Draw the references of every class, or read the list that ``--reference_list`` names.

    Raises:
        InputError: if a class has fewer train images than the shots asked for, or the list is malformed
            or leaves the number of shots open.
    """
    if options.reference_list is not None:
        return _plan_listed(options, read_reference_list(options.reference_list, index, classes))
    k_shots = options.k_shot or (0,)
    orders: dict[str, Orders] = {}
    for name in classes:
        train = index.train.get(name, [])
        for seed in options.seed:
            draw_references(train, name, max(k_shots), seed)
        # All of them: later ones replace those that cannot be read.
        orders[name] = {seed: draw_references(train, name, len(train), seed) for seed in options.seed}
    return Plan(_settings(options, k_shots, options.seed), orders)


def _plan_listed(options: Options, listed: dict[str, list[Item]]) -> Plan:
    fewest = min(listed, key=lambda name: len(listed[name]))
    count = len(listed[fewest])
    images = counted(count, "image")
    if options.k_shot is None and any(len(items) > count for items in listed.values()):
        raise InputError(
            f"{options.reference_list} lists {images} of class {fewest} and more of others;"
            " say with --k_shot how many of each to use"
        )
    k_shots = options.k_shot or (count,)
    if max(k_shots) > count:
        raise InputError(
            f"--k_shot {max(k_shots)}: {options.reference_list} lists {images} of class {fewest};"
            " list more or ask for fewer"
        )
    return Plan(
        _settings(options, k_shots, (None,)), {name: {None: items} for name, items in listed.items()}, listed=True
    )


def _settings(options: Options, k_shots: Sequence[int], seeds: Sequence[int | None]) -> list[Setting]:
    return [Setting(k, seed, name) for name in options.variants for k in k_shots for seed in (seeds if k else (None,))]


class Reader:
    """Reads listed images and masks in batches."""

    def __init__(self, files: BatchReader, root: Path, size: int, options: Options, intake: Intake) -> None:
        self._files, self._skip_unreadable = files, options.skip_unreadable
        prepares = {variant.prepare for variant in options.variants.values()} - {REFERENCE.prepare}
        self._load = partial(
            load_sample,
            root=root,
            size=size,
            upright=options.upright,
            intake=intake,
            prepares=sorted(prepares),
            masks=not options.image_only,
        )

    def batches(self, items: Mapping[Key, Item]) -> Iterator[Batch[Key, Truth]]:
        """Batches of the keys of items, with their images and masks.

        Raises:
            InputError: if one cannot be read, without ``--skip_unreadable``.
        """
        for batch in self._files.batches([*items], lambda key: self._load(items[key])):
            if batch.unreadable and not self._skip_unreadable:
                refuse_unreadable(batch.unreadable[0][1])
            yield batch


def oddities(paths: Sequence[str], truths: Sequence[Truth]) -> list[tuple[str, str]]:
    """Kind and path of every oddity of some images."""
    return [(kind, path) for path, truth in zip(paths, truths) for kind in truth.oddities]


def refuse_unreadable(reason: str) -> NoReturn:
    """Raises: InputError: with the reason and the way out."""
    raise InputError(f"{reason}; repair it, or leave such images out with --skip_unreadable")


def choose_references(
    plan: Plan, class_name: str, settings: Sequence[Setting], unreadable: dict[str, str]
) -> References:
    """Take the first k images of every order, without encoding them.

    Raises:
        InputError: if too few are left without the unreadable ones.
    """
    taken = {setting: _first(plan.orders[class_name], setting, class_name, unreadable) for setting in settings}
    items = list(dict.fromkeys(item for part in taken.values() for item in part))
    position = {item: number for number, item in enumerate(items)}
    chosen = {setting: [position[item] for item in part] for setting, part in taken.items()}
    return References(class_name, items, chosen, unreadable)


def encode_references(
    reader: Reader,
    backbone: Backbone,
    plan: Plan,
    class_name: str,
    settings: Sequence[Setting],
    encodings: Sequence[Variant],
) -> References:
    """Take the first k images of every order and encode each image once for every way to prepare it.

    Raises:
        InputError: if one cannot be read; with ``--skip_unreadable`` the next of its order takes its
            place, and it is an error if none is left.
    """
    unreadable: dict[str, str] = {}
    while True:
        references = choose_references(plan, class_name, settings, unreadable)
        batches = list(reader.batches({item.img_path: item for item in references.items}))
        failed = {path: reason for batch in batches for path, reason in batch.unreadable}
        if not failed:
            banks = memory_banks(backbone, batches, encodings)
            odd = [pair for batch in batches for pair in oddities(batch.entries, batch.extras)]
            return replace(references, banks=banks, oddities=odd)
        unreadable |= failed


def _first(orders: Orders, setting: Setting, class_name: str, unreadable: Container[str]) -> list[Item]:
    if not setting.k_shot:
        return []
    order = [item for item in orders[setting.seed] if item.img_path not in unreadable]
    if setting.k_shot > len(order):
        shots = counted(setting.k_shot, "shot")
        raise InputError(f"class {class_name} has too few readable reference images for {shots}")
    return order[: setting.k_shot]
