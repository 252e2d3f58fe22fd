"""Rows that reach the disk one by one and stay whole whatever happens, and JSON made of them."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from winclip.drawing import Box
from winclip.errors import InputError
from winclip.files import temporary_beside
from winclip.names import cell, from_cell

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

    def as_json(self) -> dict[str, object]:
        """The row as predictions.json has it."""
        return {
            "path": self.path,
            "score": self.score,
            "threshold": self.threshold,
            "anomalous": self.anomalous,
            "area": self.area,
            "box": None if self.box is None else list(self.box),
            "heat_map": self.heat_map,
        }


class RowFile:
    """A CSV file that grows by whole rows.

    Args:
        path: the file.
        header: names of the columns.
        go_on: keep the whole rows that are there and cut off a broken last one; else start empty.

    Raises:
        InputError: if the file cannot be written, or has other columns.
    """

    def __init__(self, path: Path, header: Sequence[str], go_on: bool = False) -> None:
        self.path = path
        first, end = b"", 0
        go_on = go_on and path.exists()
        try:
            if go_on:
                with path.open("rb") as file:
                    for record, record_end in _records(file):
                        first, end = first or record, record_end
            # Unbuffered, so that a row that is written is out of this program's hands.
            self._file = path.open("r+b" if go_on else "wb", buffering=0)
            self._file.truncate(end)
            self._file.seek(end)
        except OSError as error:
            raise InputError(f"cannot write {path} ({error.strerror}); choose another --save_path") from error
        if not end:
            self.append(header)
        elif first != _line(header):
            self._file.close()
            raise InputError(f"{path} has other columns than {','.join(header)}; choose another --save_path")

    def append(self, values: Sequence[object]) -> None:
        """Write one row, or nothing.

        Raises:
            InputError: if it cannot be written, for example because the disk is full.
        """
        end = self._file.tell()
        rest = memoryview(_line(values))
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
        except BaseException as error:
            self._file.truncate(end)
            self._file.seek(end)
            if isinstance(error, OSError):
                raise InputError(f"cannot write {self.path} ({error.strerror or error})") from error
            raise

    def __enter__(self) -> RowFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


def read_rows(path: Path) -> Iterator[Row]:
    """The whole rows of a predictions.csv, one at a time; none if there is no file."""
    if not path.exists():
        return
    with path.open("rb") as file:
        records = (record for record, _ in _records(file))
        next(records, None)  # the header
        for record in records:
            (cells,) = csv.reader(io.StringIO(record.decode("utf-8", "replace"), newline=""))
            picture, score, threshold, verdict, area, *corners, heat_map = cells
            x, y, width, height = (int(corner) if corner else 0 for corner in corners)
            box = (x, y, width, height) if all(corners) else None
            yield Row(
                from_cell(picture),
                float(score),
                float(threshold),
                verdict == "yes",
                float(area),
                box,
                from_cell(heat_map),
            )


def write_json(rows: Path, target: Path) -> None:
    """Write the rows of predictions.csv as a JSON list, complete or not at all, holding one row at a time.

    Raises:
        InputError: if the file cannot be written.
    """
    temporary = temporary_beside(target)
    try:
        with temporary.open("w", encoding="ascii", newline="") as file:
            separator = "[\n"
            for row in read_rows(rows):
                file.write(separator + json.dumps(row.as_json()))
                separator = ",\n"
            file.write("\n]\n" if separator == ",\n" else "[]\n")
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    except OSError as error:
        raise InputError(f"cannot write {target} ({error.strerror or error})") from error
    finally:
        temporary.unlink(missing_ok=True)


def _line(values: Sequence[object]) -> bytes:
    buffer = io.StringIO(newline="")
    csv.writer(buffer, lineterminator="\n").writerow(values)
    return buffer.getvalue().encode("utf-8")


def _records(file: io.BufferedReader) -> Iterator[tuple[bytes, int]]:
    """Whole rows and where each ends; a line break within quotes ends no row."""
    record, end = b"", 0
    for line in file:
        record += line
        if record.endswith(b"\n") and record.count(b'"') % 2 == 0:
            end += len(record)
            yield record, end
            record = b""
