"""What is known of a picture, the journal of such rows, and the tables that are made of it.

The journal holds the settings that all rows were made with and then a row a line, as JSON, in a file that only grows.
"""

from __future__ import annotations

import json
import logging
import math
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from winclip.made_with import differing
from winclip.pictures.drawing import Box, strongest_region
from winclip.prediction.pictures import RUN_FILE, Region, mask_name
from winclip.support.errors import InputError
from winclip.support.files import is_file, remove_file, write_atomically
from winclip.support.names import cell, csv_line, printable
from winclip.thresholds import Threshold

JOURNAL = "predictions.jsonl"
_FILES = ("predictions.csv", "predictions.json", "failures.csv", "report.html")
_BOX = ("box_x", "box_y", "box_w", "box_h")
_PREDICTIONS = ("path", "score", "threshold", "anomalous", "area", *_BOX, "heat_map")
_FAILURES = ("path", "reason")

_log = logging.getLogger("winclip")


@dataclass(frozen=True, slots=True)
class Row:
    """What is known of a picture.

    Attributes:
        path: as the picture was found, with forward slashes.
        score, threshold: of nine significant digits.
        anomalous: whether the score is above the threshold.
        area: share of its pixels above the pixel threshold, in [0, 1], of six digits.
        box: x, y, width, height in pixels of the strongest region; None where no pixel is above.
        heat_map: file below the output folder; empty where none is drawn.
    """

    path: str
    score: float
    threshold: float
    anomalous: bool
    area: float
    box: Box | None
    heat_map: str = ""

    def cells(self) -> list[str]:
        """The row as predictions.csv has it."""
        box = [""] * len(_BOX) if self.box is None else [str(value) for value in self.box]
        verdict = "yes" if self.anomalous else "no"
        figures = [f"{self.score:.9g}", f"{self.threshold:.9g}", verdict, f"{self.area:.6g}"]
        return [cell(self.path), *figures, *box, cell(self.heat_map)]

    def as_json(self) -> str:
        """The row as the journal and predictions.json have it."""
        return json.dumps(asdict(self))

    def as_line(self) -> str:
        """Score, verdict and path as a person reads them in a terminal."""
        return f"{self.score:.4f}  {'anomalous' if self.anomalous else 'good':9}  {printable(self.path)}"


def describe(
    path: str,
    score: float,
    own_map: npt.NDArray[np.float32],
    threshold: Threshold,
    region: Region | None = None,
    heat_map: str = "",
) -> Row:
    """The row of a picture.

    Args:
        path: as the picture was found.
        score: in [0, 1].
        own_map: (height, width) anomaly map in the picture's own size; with a region 0 where nothing counts.
        threshold: where good ends.
        region: what counts of the picture; the area is a share of it.
        heat_map: file below the output folder, if one is drawn.
    """
    area, box = strongest_region(own_map, threshold.pixel)
    if region is not None:
        area *= own_map.size / int(region.inside.sum())
    anomalous = score > threshold.score
    figures = float(f"{score:.9g}"), float(f"{threshold.score:.9g}"), anomalous, float(f"{area:.6g}")
    return Row(Path(path).as_posix(), *figures, box, heat_map)


def parse(line: bytes) -> Row | None:
    """The row that ``as_json`` made a line of; None of any other line, or one whose heat map is not in its folder."""
    try:
        values: dict[str, Any] = json.loads(line)
        box = values.pop("box")
        row = Row(**values, box=None if box is None else tuple(box))
        sound = (
            isinstance(row.path, str)
            and all(map(math.isfinite, (row.score, row.threshold, row.area)))
            and (row.box is None or len(row.box) == 4)
            and re.fullmatch(r"heatmaps/.+\.jpg", row.heat_map, re.DOTALL)
            and ".." not in Path(row.heat_map).parts
            and row.as_json().encode() == line
        )
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
        return None
    return row if sound else None


class Journal:
    """The rows of the journal that is in a folder, by their heat maps; use it in a ``with`` statement."""

    def __init__(self, save: Path) -> None:
        """Raises: InputError: if the journal cannot be written to."""
        self.path, self.rows = save / JOURNAL, {row.heat_map: row for row in read_rows(save)}
        try:
            # Unbuffered, so that a row that is written is out of this program's hands.
            self._file = self.path.open("ab", buffering=0)
        except OSError as error:
            raise self._failure(error) from error

    def append(self, row: Row) -> None:
        """Write a row to the disk; what an error leaves of it at the end of the file is not read.

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
    """The sound rows of the journal in a folder."""
    return [row for row in map(parse, _lines(save)[1:]) if row is not None]


def _lines(save: Path) -> list[bytes]:
    """The whole lines; a run that was killed may have left a part of one at the end."""
    try:
        return (save / JOURNAL).read_bytes().split(b"\n")[:-1]
    except OSError as error:
        raise InputError(f"cannot read {save / JOURNAL} ({error.strerror or error})") from error


def prepare(save: Path, settings: dict[str, Any], resume: bool) -> bool:
    """Take up the journal of an earlier run, or remove that run's files and begin one.

    Args:
        save: the output folder.
        settings: of this run, as JSON gives them back.
        resume: whether to go on from rows that are there.

    Returns:
        Whether to go on behind rows of an earlier run.

    Raises:
        InputError: if the earlier run had other settings, or its files cannot be replaced.
    """
    go_on = resume and (save / JOURNAL).exists()
    if go_on:
        _take_up(save, settings)
        remove_file(save / "report.html")
    elif resume:
        _log.info("%s holds no rows to go on from, so the run starts from the beginning", save)
    write_run(save, settings, finished=False)
    if not go_on:
        _remove_files(save)
        write_atomically(save / JOURNAL, json.dumps({"settings": settings}) + "\n")
    return go_on


def _take_up(save: Path, settings: dict[str, Any]) -> None:
    """Keep of a journal the rows that are sound, each once and with its pictures, and nothing else."""
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
        if row is not None and all(is_file(save / name) for name in _drawn(row, settings["save_masks"])):
            kept.setdefault(row.heat_map, line)
    write_atomically(save / JOURNAL, b"".join(line + b"\n" for line in (header, *kept.values())))
    if damaged:
        _log.warning(
            "%d lines of %s are damaged and not used; their pictures are scored again", damaged, save / JOURNAL
        )


def _drawn(row: Row, masks: bool) -> list[str]:
    return [row.heat_map, mask_name(row.heat_map)] if masks else [row.heat_map]


def _remove_files(save: Path) -> None:
    """Remove the files of an earlier run, and no others; its journal, which names them, is replaced later."""
    drawn = [name for row in read_rows(save) for name in _drawn(row, masks=True)] if (save / JOURNAL).exists() else []
    for path in (save / name for name in (*_FILES, *drawn)):
        if is_file(path):
            remove_file(path)


def write_run(save: Path, settings: dict[str, Any], finished: bool, **counts: int) -> None:
    """Write run.json."""
    content = {"finished": finished, **counts, "settings": settings}
    write_atomically(save / RUN_FILE, json.dumps(content, indent=2) + "\n")


def write_tables(save: Path, rows: Iterable[Row], failures: Iterable[tuple[str, str]]) -> None:
    """Write predictions.csv and predictions.json of the rows, and failures.csv, each complete or as it was.

    Args:
        save: the output folder.
        rows: those of the journal.
        failures: path and reason of pictures that could not be read; a run that goes on tries them again, so
            the journal does without.

    Raises:
        InputError: if one cannot be written.
    """
    rows = list(rows)
    _write_csv(save / "predictions.csv", [_PREDICTIONS, *(row.cells() for row in rows)])
    listed = ",\n".join(row.as_json() for row in rows)
    write_atomically(save / "predictions.json", f"[\n{listed}\n]\n" if rows else "[]\n")
    # Sorted, since a run that went on met them in other batches.
    _write_csv(save / "failures.csv", [_FAILURES, *((cell(path), cell(reason)) for path, reason in sorted(failures))])


def _write_csv(path: Path, rows: Iterable[Sequence[str]]) -> None:
    write_atomically(path, "".join(map(csv_line, rows)))
