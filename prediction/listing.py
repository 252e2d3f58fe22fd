"""Which pictures are meant by files, folders and patterns, how one is read, and what it is called in the output."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from PIL import Image

from winclip.errors import InputError
from winclip.images import read_image
from winclip.names import file_name

PIXEL_LIMIT = 100_000_000
ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")


def list_pictures(places: Sequence[str], leave_out: Sequence[Path] = ()) -> list[str]:
    """The pictures of files, folders and patterns, each once, those of a folder in sorted order.

    A file is taken whatever its ending. In folders and all below them the files with one of
    ``ENDINGS`` are taken; hidden files and folders are not.

    Args:
        places: paths and patterns; something that exists is no pattern.
        leave_out: folders to stay out of, such as those that are written to.

    Raises:
        InputError: if a place does not exist or there is no picture at all.
    """
    closed = {os.path.realpath(folder) for folder in leave_out}
    found: dict[str, str] = {}
    for place in places:
        for path in _expand(place):
            for picture in _below(path, closed) if Path(path).is_dir() else (path,):
                found.setdefault(_absolute(picture), picture)
    if not found:
        raise InputError(f"no picture found in {', '.join(places)}; looked for files ending in {' '.join(ENDINGS)}")
    return list(found.values())


def _expand(place: str) -> list[str]:
    if os.path.exists(place):  # noqa: PTH110 - Path.exists fails on long names
        return [place]
    if not _is_pattern(place):
        raise InputError(f"{place} does not exist; give a file, a folder or a quoted pattern such as 'images/*.png'")
    # Not Path.glob, which takes no absolute patterns.
    matches = sorted(glob.glob(place, recursive=True))  # noqa: PTH207
    return [path for path in matches if Path(path).is_dir() or _is_picture(path)]


def _below(folder: str, closed: set[str]) -> Iterator[str]:
    for here, folders, files in os.walk(folder):
        folders[:] = sorted(
            name for name in folders if not name.startswith(".") and os.path.realpath(Path(here) / name) not in closed
        )
        yield from (str(Path(here) / name) for name in sorted(files) if _is_picture(name))


def _is_picture(path: str) -> bool:
    return path.lower().endswith(ENDINGS) and not Path(path).name.startswith(".")


def _absolute(path: str | Path) -> str:
    # Links are not followed: two names of one file are two pictures.
    return os.path.normpath(Path(path).absolute())


def _is_pattern(place: str) -> bool:
    return any(character in place for character in "*?[")


def read_picture(path: str | Path) -> Image.Image:
    """A picture as RGB, turned as its EXIF orientation says.

    Raises:
        InputError: if it cannot be read or has more than ``PIXEL_LIMIT`` pixels; names the file.
    """
    return read_image(path, upright=True, max_pixels=PIXEL_LIMIT)


def common_folder(places: Sequence[str]) -> str:
    """The folder, absolute, that all places are in: names in the output are relative to it.

    It depends on the places alone, not on what is in them, so names stay when pictures are added.

    Raises:
        InputError: if the places are on several drives.
    """
    folders = []
    for place in places:
        folder = Path(place)
        if not folder.exists():
            parts = folder.parts
            folder = Path(*parts[: next(number for number, part in enumerate(parts) if _is_pattern(part))])
        folders.append(_absolute(folder if folder.is_dir() else folder.parent))
    try:
        return os.path.commonpath(folders)
    except ValueError as error:
        raise InputError(f"the pictures are on several drives ({', '.join(places)}); run once for each") from error


def output_name(path: str, folder: str, ending: str) -> str:
    """What a picture's file in the output is called: its path below ``folder``, with forward slashes, and ``ending``.

    A name that is too long with the ending is shortened, and stays its own.
    """
    below = Path(os.path.relpath(path, folder))
    return below.with_name(file_name(below.name, ending)).as_posix()
