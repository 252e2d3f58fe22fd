"""A setting of a run: how many shots, and which draw of them."""

from __future__ import annotations

import re
from dataclasses import dataclass

# The folders of all settings.
MAPS_FOLDER = re.compile(r"\d+shot(-seed-?\d+)?")


@dataclass(frozen=True)
class Setting:
    """One column of results: a number of shots and the draw; ``seed`` is None where nothing is drawn."""

    k_shot: int
    seed: int | None

    @property
    def seed_text(self) -> str:
        """The seed as the files show it."""
        return "" if self.seed is None else str(self.seed)

    @property
    def name(self) -> str:
        """The setting in words."""
        return f"{self.k_shot}-shot" + ("" if self.seed is None else f", seed {self.seed}")

    @property
    def highest(self) -> float:
        """End of the range of the maps' values, which begins at 0: few-shot maps are sums of two."""
        return 2.0 if self.k_shot else 1.0

    @property
    def folder(self) -> str:
        """Folder name of the setting's maps."""
        return f"{self.k_shot}shot" + ("" if self.seed is None else f"-seed{self.seed}")
