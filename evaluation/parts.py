"""The scores of runs, kept in parts below ``SAVE_PATH/scores``: files that are complete or absent.

``scores/ID/made_with.json`` says what the parts beside it were made with, ID being its checksum. The parts of a class
are ``scores/ID/CLASS/FILES-CHECKSUM.safetensors``: FILES identifies the list and the state of the class's images, masks
and references, and CHECKSUM the part itself. A part holds some of the test images in some settings; together the parts
make the whole.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.torch
import torch

from datasets.items import Item
from datasets.samples import Mask
from evaluation.options import Setting
from winclip.made_with import differing
from winclip.support.errors import InputError
from winclip.support.files import file_sha256, remove_file, write_atomically
from winclip.variants import REFERENCE

FOLDER = "scores"
# A killed run loses at most this much work, or one batch if that takes longer.
SECONDS = 5.0
_MADE_WITH = "made_with.json"

_log = logging.getLogger("winclip")


@dataclass(frozen=True)
class ClassScores:
    """Scores of N test images of one class, all of them or some.

    Attributes:
        items: the images.
        masks: (S, S) bool per image, or None where an anomalous image has no mask.
        scores: per setting, (N,) float64.
        maps: per setting, (N, grid, grid) float32; small, so that many settings fit.
    """

    items: list[Item]
    masks: list[Mask | None]
    scores: dict[Setting, npt.NDArray[np.float64]]
    maps: dict[Setting, torch.Tensor]

    @property
    def class_name(self) -> str:
        """The class."""
        return self.items[0].cls_name

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """(N,), 1 for defective images, else 0."""
        return np.array([item.anomaly for item in self.items])

    def without_score(self) -> list[Item]:
        """The images whose score is not finite in some setting."""
        good = np.logical_and.reduce([np.isfinite(scores) for scores in self.scores.values()])
        return [item for item, fine in zip(self.items, good) if not fine]

    def without(self, left_out: Sequence[Item]) -> ClassScores:
        """The scores without some images."""
        return self.at([number for number, item in enumerate(self.items) if item not in left_out], self.scores)

    def at(self, positions: Sequence[int], settings: Iterable[Setting]) -> ClassScores:
        """The images at some positions, in some settings."""
        chosen = list(positions)
        settings = list(settings)
        return ClassScores(
            [self.items[number] for number in chosen],
            [self.masks[number] for number in chosen],
            {setting: self.scores[setting][chosen] for setting in settings},
            {setting: self.maps[setting][chosen] for setting in settings},
        )


@dataclass(frozen=True)
class Part:
    """The scores of some test images of a class in some settings.

    Attributes:
        positions: of the images that could be read, in the class's list of test images.
        scores: their scores in every setting of the part, even if no image could be read.
        unreadable: position of each other image, and the reason.
        unreadable_references: path of each replaced reference, and the reason.
        machine: what may change the rounding of a score.
        oddities: kind, from ``datasets.samples``, and path of each odd test image or reference.
    """

    positions: list[int]
    scores: ClassScores
    unreadable: dict[int, str]
    unreadable_references: dict[str, str]
    machine: dict[str, Any]
    oddities: list[tuple[str, str]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.positions) + len(self.unreadable)


def join(parts: Sequence[Part], settings: Iterable[Setting]) -> Part:
    """Join parts of a class, in settings that all of them have."""
    scores = [part.scores for part in parts]
    settings = list(settings)
    return Part(
        [position for part in parts for position in part.positions],
        ClassScores(
            [item for part in scores for item in part.items],
            [mask for part in scores for mask in part.masks],
            {setting: np.concatenate([part.scores[setting] for part in scores]) for setting in settings},
            {setting: torch.cat([part.maps[setting] for part in scores]) for setting in settings},
        ),
        {position: reason for part in parts for position, reason in part.unreadable.items()},
        parts[0].unreadable_references,
        parts[0].machine,
        list(dict.fromkeys(pair for part in parts for pair in part.oddities)),
    )


@dataclass(frozen=True)
class Listing:
    """Checksums that identify the files of a class, with and without the times of the files.

    Copies of a data set on several machines need not share the times.
    """

    key: str
    shared: str


class Parts:
    """The parts of a run; the end of a ``with`` statement writes those that are not yet written."""

    def __init__(self, folder: Path, made_with: dict[str, Any], listings: Mapping[str, Listing]) -> None:
        """Set up the parts; nothing is read or written yet.

        Args:
            folder: the folder of all parts, ``SAVE_PATH/scores``.
            made_with: everything that scores depend on except the files, from ``winclip.made_with``.
            listings: the listing of each class.
        """
        self._all = folder
        self._made_with = made_with
        self._listings = dict(listings)
        self.folder = folder / hashlib.sha256(json.dumps(made_with, sort_keys=True).encode()).hexdigest()[:12]
        self._unsaved: list[Part] = []
        self._class_name = ""
        self._saved_at = time.monotonic()

    @classmethod
    def of(cls, folder: Path) -> Parts:
        """The parts that an earlier run left in ``scores/ID``.

        Raises:
            InputError: if there are none.
        """
        stated = _read_json(folder / _MADE_WITH)
        if not {"made_with", "classes"} <= stated.keys():
            raise InputError(f"{folder} holds no scores of a run; make the run again")
        return cls(
            folder.parent, stated["made_with"], {name: Listing(**known) for name, known in stated["classes"].items()}
        )

    def begin(self, fresh: bool) -> None:
        """On rank 0: log which parts were made with something else, and write what those of this run are made with.

        Args:
            fresh: remove everything that earlier runs have scored.

        Raises:
            InputError: if the folder cannot be written to.
        """
        others = [path.parent for path in self._all.glob(f"*/{_MADE_WITH}") if path.parent != self.folder]
        if fresh:
            for folder in {*others, self.folder}:
                _remove(folder)
        elif others:
            level = logging.INFO if self.folder.exists() else logging.WARNING
            _log.log(level, "%s; --fresh removes it", "; ".join(map(self._described, sorted(others))))
        known = {} if fresh else _read_json(self.folder / _MADE_WITH).get("classes", {})
        for name, listing in self._listings.items():
            if name in known and known[name] != asdict(listing):
                _log.warning(
                    "%s: its images, masks, references or words for prompts have changed, so it is scored again",
                    name,
                )
            for path in self._paths(name):
                if not file_sha256(path).startswith(path.stem.split("-")[1]):
                    _log.warning("%s is damaged; its images are scored again", path)
                    remove_file(path)
        classes = {**known, **{name: asdict(listing) for name, listing in self._listings.items()}}
        content = {"made_with": self._made_with, "classes": classes}
        write_atomically(self.folder / _MADE_WITH, json.dumps(content, indent=2) + "\n")

    def follow(self, rank: int) -> None:
        """On another rank, after rank 0 has begun: check that both do the same.

        Raises:
            InputError: naming the rank and what differs.
        """
        stated = _read_json(self.folder / _MADE_WITH).get("classes")
        if stated is None:
            newest = max(self._all.glob(f"*/{_MADE_WITH}"), key=lambda path: path.stat().st_mtime_ns)
            names = differing(_read_json(newest)["made_with"], self._made_with)
            raise InputError(
                f"rank {rank} runs with another {', '.join(names)} than rank 0; start the same command everywhere"
            )
        others = [name for name, own in self._listings.items() if stated[name]["shared"] != own.shared]
        if others:
            raise InputError(
                f"rank {rank} sees other images, masks, references or class names than rank 0, in class"
                f" {', '.join(others)}; every machine needs the same files under --data_path and --class_names"
            )
        self._listings = {name: Listing(**stated[name]) for name in self._listings}

    def scored(self, name: str) -> dict[Setting, set[int]]:
        """In every setting, the positions of a class's images that are scored or cannot be read."""
        found: dict[Setting, set[int]] = {}
        for path in self._paths(name):
            known = _header(path)
            for setting in known["settings"]:
                positions = found.setdefault(Setting(*setting), set())
                positions.update(known["positions"], (position for position, _ in known["unreadable"]))
        return found

    def unreadable_references(self, name: str) -> dict[str, str]:
        """Path of each replaced reference of a class and the reason, as far as the parts hold them."""
        return {path: reason for part in self._paths(name) for path, reason in _header(part)["unreadable_references"]}

    def add(self, name: str, part: Part) -> None:
        """Add images of a class, and save those added since the last save if it is ``SECONDS`` ago.

        Raises:
            InputError: if it cannot be saved.
        """
        self._class_name = name
        self._unsaved.append(part)
        if time.monotonic() - self._saved_at >= SECONDS:
            self.save()

    def save(self) -> None:
        """Write what is not yet written, before another class begins.

        Raises:
            InputError: if that cannot be written.
        """
        if self._unsaved:
            content = _packed(join(self._unsaved, self._unsaved[0].scores.scores))
            checksum = hashlib.sha256(content).hexdigest()[:16]
            write_atomically(self._prefix(self._class_name, f"{checksum}.safetensors"), content)
            self._unsaved.clear()
        self._saved_at = time.monotonic()

    def read(self, name: str, settings: Sequence[Setting]) -> Part:
        """The joined parts of a class, its images in the order of their list.

        Args:
            name: the class.
            settings: those in which the parts hold every image.
        """
        parts = [_unpacked(path, settings) for path in self._paths(name)]
        scores, maps = {}, {}
        for setting in settings:
            whole = join([part for part in parts if setting in part.scores.scores], [setting])
            # Parts overlap if an unfinished run scored a setting and a later run scored it again beside others.
            _, order = np.unique(whole.positions, return_index=True)
            joined = whole.scores.at(order.tolist(), [setting])
            scores[setting], maps[setting] = joined.scores[setting], joined.maps[setting]
        machine = next(part.machine for part in parts if part.scores.scores)
        elsewhere = {name for part in parts for name in differing(machine, part.machine)}
        if elsewhere:
            _log.warning(
                "%s was scored in parts with another %s, so its figures may differ by rounding from those of one run",
                name,
                ", ".join(sorted(elsewhere)),
            )
        every = ClassScores(joined.items, joined.masks, scores, maps)
        unreadable, odd = dict(sorted(whole.unreadable.items())), {pair for part in parts for pair in part.oddities}
        return Part([], every, unreadable, self.unreadable_references(name), machine, sorted(odd))

    def __enter__(self) -> Parts:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.save()
        except InputError as failure:
            if error is None:
                raise
            _log.warning("what was scored last is lost: %s", failure)

    def _prefix(self, name: str, rest: str) -> Path:
        return self.folder / name / f"{self._listings[name].key}-{rest}"

    def _paths(self, name: str) -> list[Path]:
        pattern = self._prefix(name, "*.safetensors")
        return sorted(pattern.parent.glob(pattern.name))

    def _described(self, folder: Path) -> str:
        """A folder of other scores: how it differs, and its size."""
        names = differing(_read_json(folder / _MADE_WITH).get("made_with", {}), self._made_with)
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        return f"{folder} stays, made with another {', '.join(names)}, {size / 1e6:.1f} MB"


def _remove(folder: Path) -> None:
    """Remove a folder of parts with all its content."""
    try:
        shutil.rmtree(folder, ignore_errors=not folder.exists())
    except OSError as error:
        raise InputError(f"cannot remove {folder} ({error.strerror or error}); choose another --save_path") from error


def _read_json(path: Path) -> dict[str, Any]:
    """The content of a JSON file; empty if it is missing or damaged."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        _log.warning("%s cannot be read (%s), so the files beside it are ignored", path, error)
        return {}
    return content if isinstance(content, dict) else {}


def _header(path: Path) -> dict[str, Any]:
    with safetensors.safe_open(str(path), framework="pt") as file:
        known: dict[str, Any] = json.loads(file.metadata()["winclip"])
        return known


def _packed(part: Part) -> bytes:
    """A part as bytes of a .safetensors file; masks take one bit per pixel."""
    scores = part.scores
    masks = [mask for mask in scores.masks if mask is not None]
    side = len(masks[0]) if masks else 0
    bits = np.packbits(np.array(masks, np.bool_).reshape(len(masks), side * side), axis=1)
    known = {
        "settings": [*map(_packed_setting, scores.scores)],
        "positions": part.positions,
        "items": [asdict(item) for item in scores.items],
        "masked": [mask is not None for mask in scores.masks],
        "side": side,
        "unreadable": [*part.unreadable.items()],
        "unreadable_references": [*part.unreadable_references.items()],
        "machine": part.machine,
        **({"oddities": part.oddities} if part.oddities else {}),
    }
    tensors = {"masks": torch.from_numpy(bits)}
    for setting in scores.scores:
        tensors[f"scores {setting.name}"] = torch.from_numpy(scores.scores[setting])
        tensors[f"maps {setting.name}"] = scores.maps[setting].contiguous()
    return safetensors.torch.save(tensors, {"winclip": json.dumps(known)})


def _packed_setting(setting: Setting) -> list[Any]:
    return [setting.k_shot, setting.seed, *([] if setting.variant == REFERENCE.name else [setting.variant])]


def _unpacked(path: Path, settings: Sequence[Setting]) -> Part:
    """A part, in the given settings that it has."""
    known = _header(path)
    side = known["side"]
    with safetensors.safe_open(str(path), framework="pt") as file:
        own = [setting for setting in settings if _packed_setting(setting) in known["settings"]]
        bits = np.unpackbits(file.get_tensor("masks").numpy(), axis=1, count=side * side).astype(np.bool_)
        masks = iter(bits.reshape(len(bits), side, side))
        scores = ClassScores(
            [Item(**fields) for fields in known["items"]],
            [next(masks) if masked else None for masked in known["masked"]],
            {setting: file.get_tensor(f"scores {setting.name}").numpy() for setting in own},
            {setting: file.get_tensor(f"maps {setting.name}") for setting in own},
        )
    return Part(
        known["positions"],
        scores,
        dict(known["unreadable"]),
        dict(known["unreadable_references"]),
        known["machine"],
        [(kind, path) for kind, path in known.get("oddities", ())],
    )
