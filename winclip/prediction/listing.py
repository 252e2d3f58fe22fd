"""Which pictures are meant by files, folders and patterns, how one is read, and what it is called in the output."""

from __future__ import annotations

import glob
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from PIL import Image

from winclip.defaults import IMAGE_ENDINGS
from winclip.pictures.images import read_image
from winclip.support.errors import InputError
from winclip.support.files import exists
from winclip.support.names import file_name

_log = logging.getLogger("winclip")
# In an output folder: what the run was, and the folders of what it has drawn.
RUN_FILE, DRAWN = "run.json", ("heatmaps", "masks")


def list_pictures(places: Sequence[str]) -> list[str]:
    """The pictures of files, folders and patterns, each once, those of a folder in sorted order.

    A file is taken whatever its ending. In folders and all below them the files with one of
    ``IMAGE_ENDINGS`` are taken; hidden files and folders are not, nor what an earlier run has drawn.

    Args:
        places: paths and patterns; something that exists is no pattern.

    Raises:
        InputError: if a place does not exist or there is no picture at all.
    """
    found: dict[str, str] = {}
    for place in places:
        for path in _expand(place):
            for picture in pictures_below(path) if Path(path).is_dir() else (path,):
                found.setdefault(_absolute(picture), picture)
    if not found:
        raise InputError(
            f"no picture found in {', '.join(places)}; looked for files ending in {' '.join(IMAGE_ENDINGS)}"
        )
    return list(found.values())


def _expand(place: str) -> list[str]:
    if exists(place):
        return [place]
    if not _is_pattern(place):
        raise InputError(f"{place} does not exist; give a file, a folder or a quoted pattern such as 'images/*.png'")
    parts = Path(place).parts
    if ".." in parts[next(number for number, part in enumerate(parts) if _is_pattern(part)) :]:
        raise InputError(f"{place} has '..' behind a wildcard; name the folder itself")
    # Not Path.glob, which takes no absolute patterns.
    matches = sorted(glob.glob(place, recursive=True))  # noqa: PTH207
    matches = [path for path in matches if not any(map(_is_drawn, (Path(path), *Path(path).parents)))]
    return [path for path in matches if Path(path).is_dir() or is_picture(path)]


def pictures_below(folder: str, quiet: bool = False) -> Iterator[str]:
    """The pictures in a folder and all below it; the log says what is left aside, unless ``quiet``."""
    for here, folders, files in os.walk(folder, onerror=None if quiet else _warn_of_folder):
        drawn = [name for name in folders if _is_drawn(Path(here) / name)]
        if drawn and not quiet:
            _log.info("left aside in %s, what an earlier run has drawn: %s", here, ", ".join(sorted(drawn)))
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name not in drawn)
        yield from (str(Path(here) / name) for name in sorted(files) if is_picture(name))


def _warn_of_folder(error: OSError) -> None:
    _log.warning("passed over: folder %s cannot be read (%s)", error.filename, error.strerror)


def _is_drawn(folder: Path) -> bool:
    """Whether a run has drawn what is in a folder: its output folder holds a run.json from the beginning."""
    return folder.name in DRAWN and (folder.parent / RUN_FILE).is_file()


def is_picture(path: str) -> bool:
    """Whether a file in a folder is taken, by its name."""
    return path.lower().endswith(IMAGE_ENDINGS) and not Path(path).name.startswith(".")


def _absolute(path: str | Path) -> str:
    # Links are not followed: two names of one file are two pictures.
    return os.path.normpath(Path(path).absolute())


def _is_pattern(place: str) -> bool:
    return any(character in place for character in "*?[")


def read_picture(path: str | Path) -> Image.Image:
    """A picture as RGB, turned as its EXIF orientation says.

    Raises:
        InputError: if it cannot be read or has more pixels than the limit; names the file.
    """
    return read_image(path, upright=True)


def common_folder(places: Sequence[str]) -> str:
    """The folder, absolute, that all places are in: names in the output are relative to it.

    It depends on the places alone, not on what is in them, so names stay when pictures are added.

    Raises:
        InputError: if the places are on several drives.
    """
    folders = []
    for place in places:
        folder = Path(place)
        if not exists(place):
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
