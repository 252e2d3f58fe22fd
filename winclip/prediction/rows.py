"""The result of a picture as a row, the journal of such rows, and the tables made from it.

The journal holds the common settings of all rows and then one row a line, as JSON, in a file that only grows.
"""

from __future__ import annotations

import json
import logging
import math
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from winclip.made_with import differing
from winclip.pictures.drawing import Box, strongest_region
from winclip.prediction.pictures import RUN_FILE, Region, map_name, mask_name
from winclip.results import Prediction
from winclip.support.errors import InputError
from winclip.support.files import is_file, remove_file, write_atomically
from winclip.support.names import cell, csv_line, printable
from winclip.thresholds import Threshold

JOURNAL = "predictions.jsonl"
_FILES = ("predictions.csv", "predictions.json", "failures.csv", "report.html")
_BOX = ("box_x", "box_y", "box_w", "box_h")
_PREDICTIONS = (
    "path", "score", "threshold", "anomalous", "area", *_BOX, "heat_map", "text_score", "reference_score",
)  # fmt: skip
_FAILURES = ("path", "reason")

_log = logging.getLogger("winclip")


@dataclass(frozen=True, slots=True)
class Row:
    """The result of a picture.

    Attributes:
        path: as the picture was given, with forward slashes.
        score: with nine significant digits.
        threshold: the score above which a picture with the same parts is anomalous; None if it is not judged.
        anomalous: whether the score is above the threshold; None if it is not judged.
        area: share of its pixels above the pixel threshold, in [0, 1], with six digits; None without a map.
        box: x, y, width, height in pixels of the strongest region; None where no pixel is above.
        heat_map: file below the output folder; empty in tables where none is drawn.
        text_score, reference_score: parts of the score, with nine digits; the second is None without references.
        map_median, map_highest: median and highest of the map's values; 0 without a map.
    """

    path: str
    score: float
    threshold: float | None
    anomalous: bool | None
    area: float | None
    box: Box | None
    heat_map: str
    text_score: float
    reference_score: float | None
    map_median: float
    map_highest: float

    def cells(self) -> list[str]:
        """The cells of the row in predictions.csv."""
        box = [""] * len(_BOX) if self.box is None else [str(value) for value in self.box]
        threshold, reference = ("" if one is None else f"{one:.9g}" for one in (self.threshold, self.reference_score))
        area = "" if self.area is None else f"{self.area:.6g}"
        verdict = "" if self.anomalous is None else "yes" if self.anomalous else "no"
        figures = [f"{self.score:.9g}", threshold, verdict, area]
        return [cell(self.path), *figures, *box, cell(self.heat_map), f"{self.text_score:.9g}", reference]

    def as_json(self) -> str:
        """The row as in the journal and predictions.json."""
        return json.dumps(asdict(self))

    def as_line(self) -> str:
        """Score, its parts, verdict and path for a terminal."""
        verdict = {None: "not judged", True: "anomalous", False: "good"}[self.anomalous]
        parts = f" ({self.parts})" if self.parts else ""
        return f"{self.score:.4f}{parts}  {verdict:10}  {printable(self.path)}"

    @property
    def parts(self) -> str:
        """The parts of the score for a person, or "" where it has only one."""
        known = self.reference_score is not None
        return f"text {self.text_score:.3f}, references {self.reference_score:.3f}" if known else ""


def describe(
    path: str,
    found: Prediction,
    own_map: npt.NDArray[np.float32] | None,
    threshold: Threshold,
    region: Region | None = None,
    heat_map: str = "",
) -> Row:
    """The row of a picture.

    Args:
        path: as the picture was given.
        found: the result of this picture alone.
        own_map: (height, width) anomaly map in the picture's own size; 0 outside the region if there is one; None
            without a map.
        threshold: the decision threshold.
        region: the part of the picture that counts; the area is a share of it.
        heat_map: file below the output folder, if one is drawn.
    """
    area, box, levels = None, None, (0.0, 0.0)
    if own_map is not None:
        area, box = strongest_region(own_map, threshold.pixel)
        if region is not None:
            area *= own_map.size / int(region.inside.sum())
        area, levels = float(f"{area:.6g}"), (float(np.median(found.maps)), float(own_map.max()))
    score, text = float(found.scores[0]), float(found.text_scores[0])
    reference = None if found.reference_scores is None else float(found.reference_scores[0])
    limit = threshold.of(score, text, reference)
    return Row(
        Path(path).as_posix(),
        _rounded(score),
        None if limit is None else _rounded(limit),
        None if limit is None else score > limit,
        area,
        box,
        heat_map,
        _rounded(text),
        None if reference is None else _rounded(reference),
        *map(_rounded, levels),
    )


def _rounded(value: float) -> float:
    return float(f"{value:.9g}")


def parse(line: bytes) -> Row | None:
    """The row of a line from ``as_json``; None for any other line, or one whose heat map is not in its folder."""
    try:
        values: dict[str, Any] = json.loads(line)
        box = values.pop("box")
        row = Row(**values, box=None if box is None else tuple(box))
        numbers = [row.score, row.text_score, row.map_median, row.map_highest]
        numbers += [value for value in (row.area, row.threshold, row.reference_score) if value is not None]
        sound = (
            isinstance(row.path, str)
            and all(map(math.isfinite, numbers))
            and (row.threshold is None) == (row.anomalous is None)
            and (row.box is None or len(row.box) == 4)
            and re.fullmatch(r"heatmaps/.+\.jpg", row.heat_map, re.DOTALL)
            and ".." not in Path(row.heat_map).parts
            and row.as_json().encode() == line
        )
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
        return None
    return row if sound else None


class Journal:
    """The rows of the journal in a folder, by their heat maps; use it in a ``with`` statement."""

    def __init__(self, save: Path) -> None:
        """Raises: InputError: if the journal cannot be written to."""
        self.path, self.rows = save / JOURNAL, {row.heat_map: row for row in read_rows(save)}
        try:
            # Unbuffered, so that a written row does not depend on this program any more.
            self._file = self.path.open("ab", buffering=0)
        except OSError as error:
            raise self._failure(error) from error

    def append(self, row: Row) -> None:
        """Write a row to the disk; a partial row that an error leaves at the end of the file is not read.

        Raises:
            InputError: if it cannot be written, for example because the disk is full.
        """
        rest = memoryview(row.as_json().encode() + b"\n")
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
            os.fsync(self._file.fileno())
        except OSError as error:
            raise self._failure(error) from error
        self.rows[row.heat_map] = row

    def _failure(self, error: OSError) -> InputError:
        return InputError(f"cannot write {self.path} ({error.strerror or error})")

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()


def read_rows(save: Path) -> list[Row]:
    """The valid rows of the journal in a folder."""
    return [row for row in map(parse, _lines(save)[1:]) if row is not None]


def _lines(save: Path) -> list[bytes]:
    """The complete lines; a killed run may have left part of one at the end."""
    try:
        return (save / JOURNAL).read_bytes().split(b"\n")[:-1]
    except OSError as error:
        raise InputError(f"cannot read {save / JOURNAL} ({error.strerror or error})") from error


def prepare(
    save: Path, settings: dict[str, Any], resume: bool, colours: tuple[float, float] | None = None
) -> tuple[bool, tuple[float, float] | None]:
    """Continue the journal of an earlier run, or remove that run's files and begin a new one.

    Args:
        save: the output folder.
        settings: of this run, as JSON gives them back.
        resume: whether to continue from existing rows.
        colours: the scale of the heat maps, if it is known before they are scored.

    Returns:
        Whether rows of an earlier run are continued, and the colour scale: the one of its drawn heat maps, if any.

    Raises:
        InputError: if the earlier run had other settings, or its files cannot be replaced.
    """
    go_on = resume and (save / JOURNAL).exists()
    if go_on:
        _take_up(save, settings)
        remove_file(save / "report.html")
        colours = _colours(save) or colours
    elif resume:
        _log.info("%s holds no rows to continue from, so the run starts from the beginning", save)
    write_run(save, settings, finished=False, colours=colours)
    if not go_on:
        _remove_files(save)
        write_atomically(save / JOURNAL, json.dumps({"settings": settings}) + "\n")
    return go_on, colours


def _colours(save: Path) -> tuple[float, float] | None:
    """The scale in run.json; None if it has none, or the file is damaged."""
    try:
        low, high = map(float, json.loads((save / RUN_FILE).read_bytes())["colours"])
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None
    return (low, high) if low < high else None


def _take_up(save: Path, settings: dict[str, Any]) -> None:
    """Keep only the valid rows of a journal, each once and with its pictures."""
    header, *lines = _lines(save) or [b""]
    try:
        others = differing(dict(json.loads(header)["settings"]), settings)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(
            f"{save / JOURNAL} cannot be read, so {save} cannot be resumed; run without --resume"
        ) from error
    if others:
        raise InputError(
            f"the rows in {save} were made with another {', '.join(others)} and cannot be resumed;"
            " use the same options, or another --save_path"
        )
    kept, damaged = dict[str, bytes](), 0
    for line in lines:
        row = parse(line)
        damaged += row is None
        if row is not None and _is_whole(save, row, settings["save_masks"]):
            kept.setdefault(row.heat_map, line)
    write_atomically(save / JOURNAL, b"".join(line + b"\n" for line in (header, *kept.values())))
    if damaged:
        _log.warning(
            "%d lines of %s are damaged and not used; their pictures are scored again", damaged, save / JOURNAL
        )


def _is_whole(save: Path, row: Row, mask: bool) -> bool:
    """Whether a picture's drawn files exist, or its map, from which the heat map is yet to be drawn."""
    drawn = row.area is None or is_file(save / row.heat_map) or is_file(save / map_name(row.heat_map))
    return drawn and (not mask or is_file(save / mask_name(row.heat_map)))


def _remove_files(save: Path) -> None:
    """Remove only the files of an earlier run; its journal, which names them, is replaced later."""
    rows = read_rows(save) if (save / JOURNAL).exists() else []
    drawn = [name(row.heat_map) for row in rows for name in (str, mask_name, map_name)]
    for path in (save / name for name in (*_FILES, *drawn)):
        if is_file(path):
            remove_file(path)


def write_run(save: Path, settings: dict[str, Any], finished: bool, **more: Any) -> None:
    """Write run.json."""
    content = {"finished": finished, **more, "settings": settings}
    write_atomically(save / RUN_FILE, json.dumps(content, indent=2) + "\n")


def write_tables(save: Path, rows: Iterable[Row], failures: Iterable[tuple[str, str]]) -> None:
    """Write predictions.csv and predictions.json of the rows, and failures.csv; each is complete or unchanged.

    Args:
        save: the output folder.
        rows: rows of the journal.
        failures: path and reason of unreadable pictures; a resumed run tries them again, so
            the journal does not hold them.

    Raises:
        InputError: if a file cannot be written.
    """
    rows = [row if row.area is not None else replace(row, heat_map="") for row in rows]
    _write_csv(save / "predictions.csv", [_PREDICTIONS, *(row.cells() for row in rows)])
    listed = ",\n".join(row.as_json() for row in rows)
    write_atomically(save / "predictions.json", f"[\n{listed}\n]\n" if rows else "[]\n")
    # Sorted, since a resumed run read them in other batches.
    _write_csv(save / "failures.csv", [_FAILURES, *((cell(path), cell(reason)) for path, reason in sorted(failures))])


def _write_csv(path: Path, rows: Iterable[Sequence[str]]) -> None:
    write_atomically(path, "".join(map(csv_line, rows)))
