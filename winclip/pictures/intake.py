"""The white value of pictures of more than 8 bits, and what is unusual about the pictures of a run, reported once."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

from winclip.defaults import FULL_RANGE, check_white
from winclip.support.names import counted

_log = logging.getLogger("winclip")
# Usual bit depths of cameras and scanners.
_BITS = (8, 10, 12, 14)


@dataclass
class Intake:
    """How the pictures of a run become 8-bit RGB, and what was observed in them.

    Attributes:
        white: the white value of pictures of more than 8 bits; None for ``FULL_RANGE``.
        highest: by name, the highest value of the pictures of more than 8 bits.
        shallow: whether there were pictures of 8 bits.
        paged: names of pictures with more pages or frames than the first, which is read.
        turned: by name, EXIF orientations other than upright, from 2 to 8.
    """

    white: int | None = None
    highest: dict[str, int] = field(default_factory=dict)
    shallow: bool = False
    paged: set[str] = field(default_factory=set)
    turned: dict[str, int] = field(default_factory=dict)
    _said: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        """Raises: InputError: if white is not a 16-bit value."""
        check_white(self.white)

    def add(self, other: Intake) -> None:
        """Add the observations of another intake."""
        self.highest |= other.highest
        self.shallow |= other.shallow
        self.paged |= other.paged

    def odd(self) -> dict[str, str]:
        """By kind, a sentence on what is unusual."""
        found, deep = dict[str, str](), f"{counted(len(self.highest), 'picture')} of 16 bits"
        low = [value for value in self.highest.values() if 0 < value <= FULL_RANGE // 4]
        over = [value for value in self.highest.values() if self.white is not None and value > self.white]
        if low and self.white is None:
            bits = next(bits for bits in _BITS if max(low) < 1 << bits)
            found["depth"] = (
                f"{len(low)} of {deep} reach {max(low):,} of {FULL_RANGE:,} at most; if the camera has {bits} bits,"
                f" say --white {(1 << bits) - 1}"
            )
        if over:
            found["white"] = (
                f"{len(over)} of {deep} reach above --white {self.white}, up to {max(over):,}; they become white"
            )
        if self.highest and self.shallow and self.white is None:
            found["depths"] = (
                f"{deep} are among pictures and references of 8 bits; they compare only if white is {FULL_RANGE:,}"
                " in them, else give the white value with --white"
            )
        if self.paged:
            found["pages"] = (
                f"{counted(len(self.paged), 'picture')} with several pages or frames, such as"
                f" {min(self.paged)}: only the first is used"
            )
        return found

    def warn(self) -> None:
        """Log what is unusual, each kind once."""
        for kind, sentence in self.odd().items():
            if kind not in self._said:
                self._said.add(kind)
                _log.warning("%s", sentence)
