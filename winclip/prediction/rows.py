"""What is known of a picture, as a line of JSON and as one of CSV."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from winclip.pictures.drawing import Box
from winclip.support.names import NAME_LIMIT, cell, printable

_BOX = ("box_x", "box_y", "box_w", "box_h")
PREDICTIONS = ("path", "score", "threshold", "anomalous", "area", *_BOX, "heat_map")
FAILURES = ("path", "reason")


@dataclass(frozen=True)
class Row:
    """What is known of a picture.

    Attributes:
        path: as the picture was found, with forward slashes.
        score, threshold: nine significant digits are kept.
        anomalous: whether the score is above the threshold.
        area: share of its pixels above the pixel threshold, in [0, 1]; six digits are kept.
        box: x, y, width, height in pixels of the strongest region; None where no pixel is above.
        heat_map: file below the output folder.
    """

    path: str
    score: float
    threshold: float
    anomalous: bool
    area: float
    box: Box | None
    heat_map: str

    def cells(self) -> list[str]:
        """The row in the order of ``PREDICTIONS``."""
        box = [""] * len(_BOX) if self.box is None else [str(value) for value in self.box]
        verdict = "yes" if self.anomalous else "no"
        figures = [f"{self.score:.9g}", f"{self.threshold:.9g}", verdict, f"{self.area:.6g}"]
        return [cell(self.path), *figures, *box, cell(self.heat_map)]

    def as_json(self) -> str:
        """The row as predictions.json has it."""
        return json.dumps(
            {
                "path": self.path,
                "score": float(f"{self.score:.9g}"),
                "threshold": float(f"{self.threshold:.9g}"),
                "anomalous": self.anomalous,
                "area": float(f"{self.area:.6g}"),
                "box": None if self.box is None else list(self.box),
                "heat_map": self.heat_map,
            }
        )

    def as_line(self) -> str:
        """Score, verdict and path as a person reads them in a terminal."""
        return f"{self.score:.4f}  {'anomalous' if self.anomalous else 'good':9}  {printable(self.path)}"


def parse(line: bytes) -> Row | None:
    """The row that ``as_json`` made a line of; None of any other line."""
    try:
        values: dict[str, Any] = json.loads(line)
        box = values.pop("box")
        if box is not None:
            x, y, width, height = map(int, box)
            box = (x, y, width, height)
        row = Row(**values, box=box)
        sound = (
            isinstance(row.path, str)
            and isinstance(row.anomalous, bool)
            and all(map(math.isfinite, (row.score, row.threshold, row.area)))
            and re.fullmatch(r"heatmaps/[^\0]+\.jpg", row.heat_map, re.DOTALL) is not None
            and ".." not in row.heat_map.split("/")
            and all(len(os.fsencode(part)) <= NAME_LIMIT for part in row.heat_map.split("/"))
            # No other type, spelling or order of values gives the same line.
            and row.as_json().encode() == line.rstrip(b"\n")
        )
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
        return None
    return row if sound else None


def mask_name(heat_map: str) -> str:
    """The file of a picture's mask, of that of its heat map."""
    return f"masks/{heat_map.removeprefix('heatmaps/').removesuffix('.jpg')}.png"


def as_json_list(rows: Iterable[Row]) -> Iterator[bytes]:
    """Rows as a JSON list, a line at a time."""
    separator = "[\n"
    for row in rows:
        yield (separator + row.as_json()).encode()
        separator = ",\n"
    yield b"\n]\n" if separator == ",\n" else b"[]\n"
