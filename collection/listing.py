"""What is in a collection: pictures below a folder, Parquet files with paths or images, or tar files (WebDataset)."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath

import pyarrow as pa
import pyarrow.parquet as pq

from collection.classes import Labels
from collection.places import Place, place
from collection.rows import Key, as_text
from prediction.listing import is_picture, list_pictures
from winclip.defaults import IMAGE_ENDINGS
from winclip.errors import InputError

PICTURES, PARQUET, TAR = "picture", ".parquet", ".tar"
# Of classes without a memory, so many are named.
_NAMED = 10


@dataclass(frozen=True)
class Source:
    """Where pictures come from, as the driver and every worker see it.

    Attributes:
        address: a folder or file, with keys and options of the file system.
        here: the folder that paths are relative to.
        path_column, image_column: what the columns of Parquet files are called.
        classes: their names.
        class_from: where a picture's class is found, see ``Labels``.
        rows: pictures that go into one file of rows.
        kind: what it holds; "" until it is listed.
        single: whether it is a file.
    """

    address: str
    here: str
    path_column: str
    image_column: str
    classes: tuple[str, ...]
    class_from: str | None
    rows: int
    kind: str = ""
    single: bool = False

    @property
    def labels(self) -> Labels:
        """Tells which class a picture is of."""
        return Labels(self.classes, self.class_from)

    @property
    def folder(self) -> Place:
        """What the files in it are relative to."""
        found = place(self.address, self.here)
        return found.parent if self.single else found

    @property
    def paths(self) -> Place:
        """What listed pictures are relative to: those below a local folder are called as that is."""
        folder = self.folder
        return place(self.here) if self.kind == PICTURES and folder.is_local else folder


@dataclass(frozen=True)
class Listed:
    """A picture whose content was not read yet.

    Attributes:
        path: as the output has it.
        names: of its classes.
        row: where its content is, in a group of rows of a Parquet file; -1 if it is a file of its own.
    """

    path: str
    names: tuple[str, ...]
    row: int = -1


@dataclass(frozen=True)
class Unit:
    """What a worker takes at a time: some pictures that are listed, a group of rows, or a tar file.

    Attributes:
        pictures: to score; none for a tar file, which says itself what is in it.
        file: that holds them; "" if they are files of their own.
        group: of rows in it.
        done: keys of a tar file's pictures that are not scored again.
    """

    pictures: tuple[Listed, ...] = ()
    file: str = ""
    group: int = 0
    done: tuple[Key, ...] = ()

    def known_keys(self) -> Iterator[Key]:
        """Of the rows that it will have, as far as they are known."""
        return ((as_text(picture.path), name) for picture in self.pictures for name in picture.names)

    def as_json(self) -> str:
        """In ASCII, whatever the names are."""
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str) -> Unit:
        """The unit that ``as_json`` made a text of."""
        values = json.loads(text)
        pictures = tuple(Listed(one["path"], tuple(one["names"]), one["row"]) for one in values["pictures"])
        return Unit(pictures, values["file"], values["group"], tuple((path, name) for path, name in values["done"]))


def list_units(source: Source, output: Place) -> tuple[Source, list[Unit]]:
    """The source with what it holds, and all the work there is; what is in the output is no part of it.

    Raises:
        InputError: if it holds no picture, pictures of no class, or Parquet files without what is needed.
    """
    found, labels = place(source.address, source.here), source.labels
    kind = found.kind()
    if not kind:
        raise InputError(
            f"--input {found.shown} does not exist; name a folder with pictures, {PARQUET} or {TAR} files, or one"
        )
    source = replace(source, single=kind == "file")
    names = [found.path.rpartition("/")[2]] if source.single else _visible(found, output)
    by_kind = {
        PICTURES: [name for name in names if is_picture(name)],
        **{kind: [name for name in names if name.endswith(kind)] for kind in (PARQUET, TAR)},
    }
    kinds = [kind for kind, files in by_kind.items() if files]
    if not kinds:
        raise InputError(
            f"no picture found in {found.shown}; looked for files ending in {' '.join(IMAGE_ENDINGS)} {PARQUET} {TAR}"
        )
    if len(kinds) > 1:
        raise InputError(f"{found.shown} holds {', '.join(kinds)} files; name a folder or file of one kind")
    source = replace(source, kind=kinds[0])
    if source.kind == TAR:
        return source, [Unit(file=name) for name in by_kind[TAR]]
    unclassed: Counter[str] = Counter()
    if source.kind == PICTURES:
        units = _of_pictures(source, labels, by_kind[PICTURES], unclassed)
    else:
        units = _of_parquet(source, labels, by_kind[PARQUET], unclassed)
    if unclassed:
        shown = ", ".join(f"'{name}' ({count})" for name, count in unclassed.most_common(_NAMED))
        raise InputError(
            f"{unclassed.total()} pictures are of no class that has a memory: {shown}; there are memories of"
            f" {', '.join(source.classes)}; give the others too, with --memory NAME=FILE"
        )
    if not units:
        raise InputError(f"no picture found in {found.shown}; its Parquet files have no rows")
    return source, units


def without_done(source: Source, units: Sequence[Unit], done: set[Key]) -> list[Unit]:
    """The work that is left, the units otherwise as they were."""
    of_tar: dict[str, list[Key]] = {}
    if source.kind == TAR:
        for key in done:
            for found in re.finditer(rf"{re.escape(TAR)}(?=/|$)", key[0]):
                of_tar.setdefault(key[0][: found.end()], []).append(key)
        folder = source.folder
        return [replace(unit, done=tuple(of_tar.get(as_text(folder.below(unit.file).shown), ()))) for unit in units]
    left = []
    for unit in units:
        pictures = (
            replace(picture, names=tuple(name for name in picture.names if (as_text(picture.path), name) not in done))
            for picture in unit.pictures
        )
        missing = replace(unit, pictures=tuple(picture for picture in pictures if picture.names))
        if missing.pictures:
            left.append(missing)
    return left


def _visible(folder: Place, output: Place) -> list[str]:
    return [
        name
        for name in folder.listed()
        if not any(part.startswith(".") for part in name.split("/"))
        and not folder.below(name).path.startswith(f"{output.path}/")
    ]


def _of_pictures(source: Source, labels: Labels, names: Sequence[str], unclassed: Counter[str]) -> list[Unit]:
    folder = source.folder
    # Of a local folder as predict.py lists it, without what an earlier run has drawn.
    shown = place(source.address, source.here).shown
    paths = list_pictures([shown]) if folder.is_local else [folder.below(name).shown for name in names]
    pictures = []
    for path in paths:
        path = Path(path).as_posix() if folder.is_local else path
        label = labels.of(path)
        if label is None:
            unclassed[PurePosixPath(path).parent.name] += 1
        else:
            pictures.append(Listed(path, (label,)))
    return _in_parts(pictures, source.rows)


def _of_parquet(source: Source, labels: Labels, names: Sequence[str], unclassed: Counter[str]) -> list[Unit]:
    """A file with images gives a unit for each group of rows; the paths of the others are listed together."""
    folder = source.folder
    units: list[Unit] = []
    seen: set[Key] = set()
    listed: dict[str, list[str]] = {}
    for name in names:
        for group, has_images, rows in _groups(source, labels.column, folder.below(name)):
            inside = []
            for row, (path, value) in enumerate(rows):
                label = labels.of(path, value)
                if label is None:
                    unclassed[value or PurePosixPath(path).parent.name] += 1
                elif not has_images:
                    found = listed.setdefault(path, [])
                    found += [] if label in found else [label]
                elif (path, label) in seen:
                    raise InputError(
                        f"{folder.below(name).shown} names '{path}' twice, and its rows are told apart by that; name a"
                        " column of other names with --path_column, or one that is not there, and rows are numbered"
                    )
                else:
                    seen.add((path, label))
                    inside.append(Listed(path, (label,), row))
            if inside:
                units.append(Unit(tuple(inside), name, group))
    return units + _in_parts([Listed(path, tuple(labels)) for path, labels in listed.items()], source.rows)


def _groups(
    source: Source, column: str | None, place: Place
) -> Iterator[tuple[int, bool, list[tuple[str, str | None]]]]:
    """The groups of rows of a Parquet file: number, whether it has images, and path and class column of each row."""
    try:
        with place.open() as opened, pq.ParquetFile(opened) as file:
            there = file.schema_arrow.names
            has_images = source.image_column in there
            if source.path_column not in there and not has_images:
                raise InputError(
                    f"{place.shown} has neither a column '{source.path_column}' nor '{source.image_column}', only"
                    f" {', '.join(there)}; say with --path_column or --image_column which it is"
                )
            if column is not None and column not in there:
                raise InputError(f"{place.shown} has no column '{column}' of --class_from, only {', '.join(there)}")
            first = 0
            for group in range(file.num_row_groups):
                count = file.metadata.row_group(group).num_rows
                wanted = [name for name in (source.path_column, column) if name in there]
                found = file.read_row_group(group, columns=wanted).to_pydict() if wanted else {}
                paths = found.get(source.path_column, [None] * count)
                rows = [f"{place.shown}#{first + row}" if path is None else str(path) for row, path in enumerate(paths)]
                values = [None if value is None else str(value) for value in found.get(column, [None] * count)]
                yield group, has_images, list(zip(rows, values))
                first += count
    except pa.ArrowInvalid as error:
        raise InputError(f"{place.shown} is no Parquet file that can be read ({error})") from error


def _in_parts(pictures: Sequence[Listed], size: int) -> list[Unit]:
    return [Unit(tuple(pictures[start : start + size])) for start in range(0, len(pictures), size)]
