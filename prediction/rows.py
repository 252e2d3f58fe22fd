"""Rows that reach the disk one by one and stay whole whatever happens, and JSON made of them."""

from __future__ import annotations

import csv
import io
import json
import os
import secrets
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType

from winclip.errors import InputError

PREDICTIONS = (
    "path", "score", "threshold", "anomalous", "area", "box_x", "box_y", "box_w", "box_h", "heat_map",
)  # fmt: skip
FAILURES = ("path", "reason")


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


def read_rows(path: Path) -> Iterator[dict[str, str]]:
    """The whole rows of a file that ``RowFile`` wrote, one at a time; none if there is no file."""
    if not path.exists():
        return
    with path.open("rb") as file:
        header: list[str] | None = None
        for record, _ in _records(file):
            (values,) = csv.reader(io.StringIO(record.decode("utf-8", "surrogateescape"), newline=""))
            if header is None:
                header = values
            else:
                yield dict(zip(header, values))


def write_json(rows: Path, target: Path) -> None:
    """Write the rows of predictions.csv as a JSON list, complete or not at all, holding one row at a time.

    Raises:
        InputError: if the file cannot be written.
    """
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(6)}.tmp")
    try:
        with temporary.open("w", encoding="ascii", newline="") as file:
            separator = "[\n"
            for row in read_rows(rows):
                file.write(separator + json.dumps(_typed(row)))
                separator = ",\n"
            file.write("\n]\n" if separator == ",\n" else "[]\n")
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    except OSError as error:
        raise InputError(f"cannot write {target} ({error.strerror or error})") from error
    finally:
        temporary.unlink(missing_ok=True)


def _typed(row: dict[str, str]) -> dict[str, object]:
    box = [row[name] for name in ("box_x", "box_y", "box_w", "box_h")]
    return {
        "path": row["path"],
        "score": float(row["score"]),
        "threshold": float(row["threshold"]),
        "anomalous": row["anomalous"] == "yes",
        "area": float(row["area"]),
        "box": [int(value) for value in box] if all(box) else None,
        "heat_map": row["heat_map"],
    }


def _line(values: Sequence[object]) -> bytes:
    buffer = io.StringIO(newline="")
    csv.writer(buffer, lineterminator="\n").writerow(values)
    # File names are bytes on some systems; what is no UTF-8 goes back to what it was.
    return buffer.getvalue().encode("utf-8", "surrogateescape")


def _records(file: io.BufferedReader) -> Iterator[tuple[bytes, int]]:
    """Whole rows and where each ends; a line break within quotes ends no row."""
    record, end = b"", 0
    for line in file:
        record += line
        if record.endswith(b"\n") and record.count(b'"') % 2 == 0:
            end += len(record)
            yield record, end
            record = b""
