"""The journal of a run: the rows as lines of JSON, in a file that only grows, and the tables that are made of it.

Its first line holds the settings that all rows were made with.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from types import TracebackType
from typing import Any

from winclip.prediction.rows import FAILURES, PREDICTIONS, Row, as_json_list, mask_name, parse
from winclip.support.errors import InputError
from winclip.support.files import is_file, write_atomically
from winclip.support.names import cell, csv_line

JOURNAL = "predictions.jsonl"
# What a machine that stops may lose, besides a batch; a process that ends loses nothing.
_SYNC_SECONDS = 5.0

_log = logging.getLogger("winclip")


def begin(save: Path, settings: dict[str, Any]) -> None:
    """Put an empty journal in the place of an earlier run's.

    Raises:
        InputError: if it cannot be written.
    """
    write_atomically(save / JOURNAL, json.dumps({"settings": settings}) + "\n")


def settings_of(save: Path) -> dict[str, Any]:
    """The settings in the journal of an earlier run.

    Raises:
        InputError: if there are none.
    """
    try:
        header = next(_lines(save))
        settings: dict[str, Any] = json.loads(header)["settings"]
        if isinstance(settings, dict):
            return settings
        raise TypeError(settings)
    except (StopIteration, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(
            f"{save / JOURNAL} cannot be read, so {save} cannot be resumed; run without --resume"
        ) from error


def take_up(save: Path, masks: bool) -> None:
    """Keep of an earlier run's journal the rows that are sound, each once and with its pictures, and nothing else.

    Args:
        save: the output folder.
        masks: whether a row's pictures are a mask besides the heat map.

    Raises:
        InputError: if the journal cannot be written; then it is as it was.
    """
    done, damaged = set(), 0

    def kept() -> Iterator[bytes]:
        nonlocal damaged
        lines = _lines(save)
        yield next(lines)
        for line in lines:
            row = parse(line)
            if row is None:
                damaged += 1
            elif (
                row.heat_map not in done
                and is_file(save / row.heat_map)
                and not (masks and not is_file(save / mask_name(row.heat_map)))
            ):
                done.add(row.heat_map)
                yield line

    write_atomically(save / JOURNAL, kept())
    if damaged:
        _log.warning(
            "%d lines of %s are damaged and not used; their pictures are scored again", damaged, save / JOURNAL
        )


def read_rows(save: Path) -> Iterator[Row]:
    """The rows of the journal in a folder, one at a time."""
    return (row for row in map(parse, islice(_lines(save), 1, None)) if row is not None)


def write_tables(save: Path, failures: Iterable[tuple[str, str]]) -> None:
    """Make predictions.csv and predictions.json of the journal, and failures.csv, each complete or as it was.

    Args:
        save: the output folder.
        failures: path and reason of pictures that could not be read; a run that goes on tries them again, so
            the journal does without.

    Raises:
        InputError: if one cannot be written.
    """
    cells: Iterable[Sequence[str]] = chain([PREDICTIONS], (row.cells() for row in read_rows(save)))
    write_atomically(save / "predictions.csv", _as_csv(cells))
    write_atomically(save / "predictions.json", as_json_list(read_rows(save)))
    # Sorted, since a run that went on met them in other batches.
    cells = chain([FAILURES], ((cell(path), cell(reason)) for path, reason in sorted(failures)))
    write_atomically(save / "failures.csv", _as_csv(cells))


def _as_csv(rows: Iterable[Sequence[str]]) -> Iterator[bytes]:
    return (csv_line(row).encode() for row in rows)


class Journal:
    """Appends to the journal in a folder, which is there already; use it in a ``with`` statement."""

    def __init__(self, save: Path) -> None:
        """Raises: InputError: if the journal cannot be written to."""
        self.path = save / JOURNAL
        try:
            # Unbuffered, so that a row that is written is out of this program's hands.
            self._file = self.path.open("ab", buffering=0)
        except OSError as error:
            raise self._failure(error) from error
        self._synced = time.monotonic()

    def append(self, row: Row) -> None:
        """Write a row; what an error leaves of it at the end of the file is not read.

        Raises:
            InputError: if it cannot be written, for example because the disk is full.
        """
        rest = memoryview(row.as_json().encode() + b"\n")
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            raise self._failure(error) from error

    def sync(self) -> None:
        """See that the rows of a batch reach the disk, if that is a while ago.

        Raises:
            InputError: if they do not.
        """
        try:
            if time.monotonic() - self._synced >= _SYNC_SECONDS:
                os.fsync(self._file.fileno())
                self._synced = time.monotonic()
        except OSError as error:
            raise self._failure(error) from error

    def _failure(self, error: OSError) -> InputError:
        return InputError(f"cannot write {self.path} ({error.strerror or error})")

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):  # what is made of the journal then finds the same fault
            os.fsync(self._file.fileno())
        self._file.close()


def _lines(save: Path) -> Iterator[bytes]:
    """The whole lines; a run that was killed may have left a part of one at the end."""
    try:
        with (save / JOURNAL).open("rb") as file:
            yield from (line for line in file if line.endswith(b"\n"))
    except OSError as error:
        raise InputError(f"cannot read {save / JOURNAL} ({error.strerror or error})") from error
