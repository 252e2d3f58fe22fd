"""The rows of a collection: Parquet files of a few hundred each, which also say what is done."""

from __future__ import annotations

import hashlib
import io
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from collection.places import Place
from winclip.errors import InputError

_log = logging.getLogger("winclip")
# Below the output: the rows alone, so that the folder can be read as one table.
ROWS = "rows"
GOOD, ANOMALOUS = "good", "anomalous"

_BOX = pa.struct([(name, pa.int32()) for name in ("x", "y", "w", "h")])
_SCHEMA = pa.schema(
    [
        ("path", pa.string()),
        ("class", pa.string()),
        ("score", pa.float64()),
        ("threshold", pa.float64()),
        ("verdict", pa.string()),
        ("area", pa.float64()),
        ("box", _BOX),
        ("error", pa.string()),
    ]
)
_MAP = pa.field("map", pa.binary())
# Requests at once to the file system of the output.
_READERS = 16

# Path and class: what a row is known by.
Key = tuple[str, str]


@dataclass
class Done:
    """What an output holds.

    Attributes:
        keys: of the rows.
        anomalous, unreadable: how many rows say so.
    """

    keys: set[Key] = field(default_factory=set)
    anomalous: int = 0
    unreadable: int = 0


def as_text(name: str) -> str:
    """A path as a row has it: in UTF-8, other bytes escaped as in ``\\udcff``."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


def write_rows(output: Place, rows: Sequence[dict[str, Any]], with_maps: bool) -> None:
    """Write rows as a file of their own, whose name follows from their keys: written twice, they are there once.

    Raises:
        InputError: if it cannot be written.
    """
    table = pa.Table.from_pylist(rows, _SCHEMA.append(_MAP) if with_maps else _SCHEMA)
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    keys = "\0".join(f"{row['path']}\0{row['class']}" for row in rows)
    name = f"part-{hashlib.sha256(keys.encode()).hexdigest()[:24]}.parquet"
    output.below(ROWS).below(name).write(buffer.getvalue())


def read_done(output: Place) -> Done:
    """What an output holds. A file with a row that another holds too is removed: its other pictures are missing then.

    Raises:
        InputError: if a file cannot be read.
    """
    done = Done()
    folder = output.below(ROWS)
    parts = [folder.below(name) for name in folder.listed() if name.endswith(".parquet")]
    with ThreadPoolExecutor(_READERS) as pool:
        for part, (keys, verdicts, errors) in zip(parts, pool.map(_read_part, parts)):
            if done.keys.isdisjoint(keys):
                done.keys.update(keys)
                done.anomalous += verdicts.count(ANOMALOUS)
                done.unreadable += len(errors) - errors.count(None)
            else:
                _log.warning("%s is removed, because other files hold rows of it too", part.shown)
                part.remove()
    return done


def _read_part(part: Place) -> tuple[list[Key], list[str | None], list[str | None]]:
    try:
        columns = pq.read_table(pa.BufferReader(part.read()), columns=["path", "class", "verdict", "error"]).to_pydict()
    except (pa.ArrowException, KeyError) as error:
        raise InputError(
            f"{part.shown} cannot be read ({error}); remove it, and its pictures are scored again"
        ) from error
    return list(zip(columns["path"], columns["class"])), columns["verdict"], columns["error"]
