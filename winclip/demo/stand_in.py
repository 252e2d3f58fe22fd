"""The warning that is given when the demo backbone is used on pictures outside the sample."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path

from winclip.defaults import DEFAULT_MODEL, DEFAULT_PRETRAINED, DEMO_MODEL

STAMP = "sample.json"
"""The file that marks a sample folder."""
CAUTION = (
    "the demo backbone was trained on drawings; its scores on photographs mean little; for real pictures:"
    f" --model {DEFAULT_MODEL} --pretrained {DEFAULT_PRETRAINED}"
)


def caution(model: str, folders: Iterable[Path]) -> str:
    """``CAUTION`` if the model is the demo backbone and a picture folder is outside the sample, else empty."""
    trusted = model != DEMO_MODEL or all(map(_of_sample, {folder.resolve() for folder in folders}))
    return "" if trusted else CAUTION


def caution_of_stand_in(model: str, folders: Iterable[Path]) -> None:
    """Log ``caution`` as a warning, if there is one."""
    if said := caution(model, folders):
        logging.getLogger("winclip").warning(said)


def _of_sample(folder: Path) -> bool:
    # CLASS/test/DEFECT is three folders deep.
    return any((place / STAMP).exists() for place in (folder, *folder.parents[:3]))
