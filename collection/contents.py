"""What a worker reads of its part of a collection."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

import pyarrow.parquet as pq

from collection.listing import TAR, Source, Unit
from collection.rows import as_text
from prediction.listing import is_picture

T = TypeVar("T")


@dataclass(frozen=True)
class Entry:
    """A picture to score.

    Attributes:
        path: as the output has it.
        names: of its classes.
        content: of its file; None if that is still to be read, from where ``path`` leads.
        error: why it cannot be scored, or "".
    """

    path: str
    names: tuple[str, ...]
    content: bytes | None = None
    error: str = ""


def read_unit(source: Source, unit: Unit) -> Iterator[list[Entry]]:
    """The pictures of a unit, in lists of ``source.rows`` at most, which are the same every time.

    Raises:
        InputError: if a file that holds them cannot be opened or, but for damage in a tar file, read.
    """
    if not unit.file:
        yield [Entry(picture.path, picture.names) for picture in unit.pictures]
    elif unit.file.endswith(TAR):
        entries = _of_tar(source, unit)
        while chunk := list(islice(entries, source.rows)):
            yield chunk
    else:
        yield from _of_group(source, unit)


def _of_group(source: Source, unit: Unit) -> Iterator[list[Entry]]:
    wanted = {picture.row: picture for picture in unit.pictures}
    # Not the whole group at once.
    with (
        source.folder.below(unit.file).open() as opened,
        pq.ParquetFile(opened, buffer_size=1 << 20, pre_buffer=False) as file,
    ):
        first = 0
        for batch in file.iter_batches(source.rows, [unit.group], [source.image_column]):
            entries = []
            for row in range(first, first + len(batch)):
                if row in wanted:
                    value = batch.column(0)[row - first].as_py()
                    # As Hugging Face's data sets have it.
                    content = value.get("bytes") if isinstance(value, dict) else value
                    problem = "" if isinstance(content, bytes) else f"column '{source.image_column}' holds no image"
                    entries.append(Entry(wanted[row].path, wanted[row].names, content, problem))
            if entries:
                yield entries
            first += len(batch)


def _of_tar(source: Source, unit: Unit) -> Iterator[Entry]:
    place, labels = source.folder.below(unit.file), source.labels
    done = set(unit.done)
    problem = ""
    with place.open(stream=True) as stream:
        try:
            with tarfile.open(fileobj=stream, mode="r|*") as archive:
                for pictures, value in _samples(archive, labels.column):
                    for member, content in pictures.items():
                        path = place.below(member).shown
                        label = labels.of(path, value)
                        name = value or "" if label is None else label
                        if (as_text(path), name) in done:
                            continue
                        done.add((as_text(path), name))
                        yield Entry(path, (name,), content, f"class '{name}' has no memory" if label is None else "")
        except (tarfile.TarError, EOFError) as error:
            problem = f"the tar file cannot be read to its end ({error})"
    if problem and (as_text(place.shown), "") not in done:
        yield Entry(place.shown, ("",), None, problem)


def _samples(archive: tarfile.TarFile, column: str | None) -> Iterator[tuple[dict[str, bytes], str | None]]:
    """The samples of a WebDataset: pictures by their member's name, and the text of the member that ends in ``column``.

    Members that follow each other, called alike up to their first dot, are one.
    """
    sample, pictures, value = "", dict[str, bytes](), None
    for member in archive:
        folder, _, name = member.name.rpartition("/")
        stem, _, ending = name.partition(".")
        if f"{folder}/{stem}" != sample:
            if pictures:
                yield pictures, value
            sample, pictures, value = f"{folder}/{stem}", {}, None
        is_column = column is not None and ending == column
        if not member.isfile() or not (is_column or is_picture(member.name)):
            continue
        file = archive.extractfile(member)
        content = b"" if file is None else file.read()
        if is_column:
            value = content.decode("utf-8", "replace").strip()
        else:
            pictures[member.name] = content
    if pictures:
        yield pictures, value
