"""What a run has scored, kept beside its results until it ends, so that the same command goes on where it stopped."""

from __future__ import annotations

import hashlib
import json
import logging
import re
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch

from datasets.items import Item
from evaluation.identity import Identity, differing
from evaluation.scoring import ClassScores, join_scores
from evaluation.setting import Setting
from winclip.support.errors import InputError
from winclip.support.files import file_sha256, remove_file, write_atomically

FOLDER = ".checkpoint"
# At most this much work is lost when a run is killed, or one batch, whichever takes longer.
SECONDS = 5.0
_MADE_WITH = "made_with.json"
# Class, number, images, checksum.
_PART = re.compile(r"[0-9a-f]{16}-(\d{6})-(\d+)-([0-9a-f]{16})\.safetensors")

_log = logging.getLogger("winclip")


@dataclass(frozen=True)
class Part:
    """What is known of test images that follow each other in the list of their class.

    Attributes:
        scores: of those that could be read.
        unreadable: the others, with the reason.
        unreadable_references: of the class, likewise.
    """

    scores: ClassScores
    unreadable: dict[Item, str]
    unreadable_references: dict[Item, str]

    def __len__(self) -> int:
        return len(self.scores.items) + len(self.unreadable)


class Checkpoint:
    """The parts of a run, in files that are complete or absent.

    Used in a ``with`` statement, it saves what is scored when the run ends early, and is gone when it ends well.
    One that is not opened knows nothing, as on ranks other than 0.
    """

    def __init__(self, folder: Path, identity: Identity, settings: Sequence[Setting]) -> None:
        self._folder = folder
        self._identity = identity
        self._settings = settings
        self._sound: defaultdict[str, list[Path]] = defaultdict(list)
        self._class_name = ""
        self._unsaved: list[Part] = []
        self._saved_at = time.monotonic()

    def open(self, fresh: bool) -> int:
        """Find the parts that this run can go on from; others are removed or passed over, and the log says why.

        Args:
            fresh: remove them all.

        Returns:
            How many test images are scored already.

        Raises:
            InputError: if the folder cannot be written to.
        """
        path = self._folder / _MADE_WITH
        if fresh or not self._goes_on(path):
            self.remove()
        write_atomically(path, json.dumps(asdict(self._identity), indent=2) + "\n")
        self._sound.update({name: self._sound_parts(name) for name in self._identity.classes})
        return sum(int(path.name.split("-")[2]) for paths in self._sound.values() for path in paths)

    def restore(self, class_name: str) -> Part:
        """What earlier runs found out of a class; empty if that is nothing."""
        return _join([self._read(path) for path in self._sound[class_name]])

    def forget(self, class_name: str) -> Part:
        """Remove what earlier runs found out of a class, and return what is left: nothing."""
        for path in self._sound[class_name]:
            remove_file(path)
        self._sound[class_name] = []
        return _join([])

    def add(self, class_name: str, part: Part) -> None:
        """Take in the next images of a class, and save what came since the last time if that is a while ago.

        Raises:
            InputError: if it cannot be saved.
        """
        self._class_name = class_name
        self._unsaved.append(part)
        if time.monotonic() - self._saved_at >= SECONDS:
            self.save()

    def save(self) -> None:
        """Write what is not yet written, before another class begins.

        Raises:
            InputError: if that cannot be written.
        """
        if self._unsaved:
            part = _join(self._unsaved)
            content = _packed(part)
            saved = self._sound[self._class_name]
            checksum = hashlib.sha256(content).hexdigest()[:16]
            path = self._folder / f"{self._key(self._class_name)}-{len(saved):06}-{len(part)}-{checksum}.safetensors"
            write_atomically(path, content)
            # In this order a signal between the two loses nothing, and nothing is written twice.
            self._unsaved.clear()
            saved.append(path)
        self._saved_at = time.monotonic()

    def remove(self) -> None:
        """Remove the parts, and the folder if nothing else is in it.

        Raises:
            InputError: if one cannot be removed.
        """
        for path in self._folder.glob("*"):
            if _PART.fullmatch(path.name):
                remove_file(path)
        remove_file(self._folder / _MADE_WITH)
        with suppress(OSError):
            self._folder.rmdir()

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.remove()
            return
        try:
            self.save()
        except InputError as failure:
            _log.warning("what was scored last is lost: %s", failure)

    def _key(self, class_name: str) -> str:
        return self._identity.classes[class_name][:16]

    def _goes_on(self, path: Path) -> bool:
        """Whether a run with these options, weights and versions was here; the log says what differs."""
        try:
            before = Identity(**json.loads(path.read_text(encoding="utf-8")))
            others = differing(before.made_with, self._identity.made_with)
            elsewhere = differing(before.machine, self._identity.machine)
            changed = [name for name, key in self._identity.classes.items() if before.classes.get(name, key) != key]
        except FileNotFoundError:
            return False
        except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
            _log.warning("%s cannot be read (%s), so the run starts from the beginning", path, error)
            return False
        if others:
            _log.warning(
                "%s was made with another %s, so the run starts from the beginning", self._folder, ", ".join(others)
            )
            return False
        for name in changed:
            _log.warning(
                "%s: its images, masks, references or words for prompts are others than before, so it starts anew", name
            )
        if elsewhere:
            _log.warning(
                "the run began with another %s, so its figures may differ by rounding from those of one that was not"
                " stopped; --fresh starts over",
                ", ".join(elsewhere),
            )
        return True

    def _sound_parts(self, class_name: str) -> list[Path]:
        """Those up to the first that is missing or damaged; the others are removed."""
        paths = sorted(self._folder.glob(f"{self._key(class_name)}-*"))
        for number, path in enumerate(paths):
            if not _is_sound(path, number):
                _log.warning("%s is damaged or follows a missing one; images from there on are scored again", path)
                for other in paths[number:]:
                    remove_file(other)
                return paths[:number]
        return paths

    def _read(self, path: Path) -> Part:
        with safetensors.safe_open(str(path), framework="pt") as file:
            known = json.loads(file.metadata()["winclip"])
            items = [Item(**fields) for fields in known["items"]]
            side = known["side"]
            masks = iter(np.unpackbits(file.get_tensor("masks").numpy(), axis=1, count=side * side).astype(np.bool_))
            scores = ClassScores(
                items,
                [next(masks).reshape(side, side) if masked else None for masked in known["masked"]],
                {setting: file.get_tensor(f"scores {setting.name}").numpy() for setting in self._settings if items},
                {setting: file.get_tensor(f"maps {setting.name}") for setting in self._settings if items},
            )
        return Part(scores, _as_items(known["unreadable"]), _as_items(known["unreadable_references"]))


def _is_sound(path: Path, number: int) -> bool:
    found = _PART.fullmatch(path.name)
    try:
        return found is not None and int(found[1]) == number and file_sha256(path).startswith(found[3])
    except OSError:
        return False


def _packed(part: Part) -> bytes:
    """A part as bytes of a .safetensors file; masks take a bit a pixel."""
    scores = part.scores
    masks = [mask for mask in scores.masks if mask is not None]
    side = len(masks[0]) if masks else 0
    bits = np.packbits(np.array(masks, np.bool_).reshape(len(masks), side * side), axis=1)
    known = {
        "items": [asdict(item) for item in scores.items],
        "masked": [mask is not None for mask in scores.masks],
        "side": side,
        "unreadable": _as_lists(part.unreadable),
        "unreadable_references": _as_lists(part.unreadable_references),
    }
    tensors = {
        "masks": torch.from_numpy(bits),
        **{f"scores {setting.name}": torch.from_numpy(values) for setting, values in scores.scores.items()},
        **{f"maps {setting.name}": values for setting, values in scores.maps.items()},
    }
    return safetensors.torch.save(tensors, {"winclip": json.dumps(known)})


def _join(parts: Sequence[Part]) -> Part:
    return Part(
        join_scores([part.scores for part in parts]),
        {item: reason for part in parts for item, reason in part.unreadable.items()},
        {item: reason for part in parts for item, reason in part.unreadable_references.items()},
    )


def _as_lists(unreadable: dict[Item, str]) -> list[list[object]]:
    return [[asdict(item), reason] for item, reason in unreadable.items()]


def _as_items(lists: list[list[Any]]) -> dict[Item, str]:
    return {Item(**fields): reason for fields, reason in lists}
