"""The pictures that files, folders and patterns name, the part of them that counts, and their names in the output."""

from __future__ import annotations

import contextlib
import glob
import logging
import os
import re
import time
from collections import Counter
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from winclip.defaults import IMAGE_ENDINGS, MISSING
from winclip.pictures.drawing import Box, fit
from winclip.pictures.images import CLIP_MEAN, PIXEL_LIMIT, read_image
from winclip.pictures.intake import Intake
from winclip.support.errors import InputError
from winclip.support.files import exists, file_sha256, is_file, is_folder
from winclip.support.names import file_name, printable

_log = logging.getLogger("winclip")
# Contents of an output folder: the file of the run's settings, and the folders of drawn pictures.
RUN_FILE, DRAWN = "run.json", ("heatmaps", "masks", "maps")
# The colour that becomes about 0 in the model's input.
_GREY = (round(255 * CLIP_MEAN[0]), round(255 * CLIP_MEAN[1]), round(255 * CLIP_MEAN[2]))
# Largest number of file endings that are counted separately.
_MOST_ENDINGS = 20
# Seconds between two checks of watched folders.
_SECONDS = 2.0
# Width and height in pixels.
Size = tuple[int, int]
# Size in bytes and time of change in nanoseconds.
_Stamp = tuple[int, int]


def list_pictures(places: Sequence[str], notes: list[str] | None = None, what: str = "pictures") -> list[str]:
    """The pictures of files, folders and patterns, each once; the pictures of a folder are sorted.

    A file is taken whatever its ending. Folders are searched with their subfolders for files with one of
    ``IMAGE_ENDINGS``, without hidden files and folders and without pictures that an earlier run has drawn.

    Args:
        places: paths and patterns; an existing path is not a pattern.
        notes: receives sentences on ignored files, and on places without pictures.
        what: the word for the pictures in messages.

    Raises:
        InputError: if a place does not exist or there is no picture at all.
    """
    found: dict[str, str] = {}
    aside, empty = set[str](), list[str]()
    for place in places:
        listed = [
            picture
            for path in _expand(place, aside)
            for picture in (_pictures_below(path, aside) if Path(path).is_dir() else (path,))
        ]
        for picture in listed:
            found.setdefault(_absolute(picture), picture)
        empty += [] if listed else [place]
    said = about_files(aside - found.keys(), what)
    if not found:
        endings = f"looked for files ending in {' '.join(IMAGE_ENDINGS)}"
        raise InputError("; ".join([f"no picture found in {', '.join(places)}", endings, *said]))
    if notes is not None:
        notes += [*said, *([printable(f"no {what} found in {', '.join(empty)}")] if empty else [])]
    return list(found.values())


def about_files(aside: Set[str], what: str) -> list[str]:
    """A sentence that counts the files ignored because of their endings; none where there are none."""
    endings = Counter(Path(path).suffix.lower() or "without an ending" for path in aside)
    if not endings:
        return []
    counts = ", ".join(f"{ending} {count}" for ending, count in sorted(endings.items())[:_MOST_ENDINGS])
    more = ", and others" if len(endings) > _MOST_ENDINGS else ""
    packages = {MISSING[ending]: ending for ending in sorted(endings) if ending in MISSING}
    reads = [f"; python -m pip install {package} lets {ending} be read" for package, ending in packages.items()]
    return [printable(f"skipped among the {what}: {counts}{more}{''.join(reads)}")]


def _expand(place: str, aside: set[str]) -> list[str]:
    if exists(place):
        return [place]
    _, behind = _split_pattern(place)
    if not behind:
        raise InputError(f"{place} does not exist; give a file, a folder or a quoted pattern such as 'images/*.png'")
    if ".." in behind:
        raise InputError(f"{place} has '..' after a wildcard; name the folder itself")
    # Not Path.glob, which takes no absolute patterns.
    matches = sorted(glob.glob(place, recursive=True))  # noqa: PTH207
    matches = [path for path in matches if not any(map(_is_drawn, (Path(path), *Path(path).parents)))]
    aside |= {_absolute(path) for path in matches if _is_aside(path) and is_file(path)}
    return [path for path in matches if Path(path).is_dir() or is_picture(path)]


def _split_pattern(place: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The parts of a path before the first wildcard, and the rest."""
    parts = Path(place).parts
    first = next((number for number, part in enumerate(parts) if set(part) & set("*?[")), len(parts))
    return parts[:first], parts[first:]


def _pictures_below(folder: str, aside: set[str], quiet: bool = False) -> Iterator[str]:
    """The pictures in a folder and its subfolders; ``aside`` receives other files.

    The log names the ignored folders, unless ``quiet``.
    """
    for here, folders, files in os.walk(folder, onerror=None if quiet else _warn_of_folder):
        drawn = [name for name in folders if _is_drawn(Path(here) / name)]
        if drawn and not quiet:
            _log.info("skipped in %s, drawn by an earlier run: %s", here, ", ".join(sorted(drawn)))
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name not in drawn)
        # Files that an earlier run has written are not pictures.
        aside |= {_absolute(Path(here) / name) for name in files if _is_aside(name) and RUN_FILE not in files}
        yield from (str(Path(here) / name) for name in sorted(files) if is_picture(name))


def _warn_of_folder(error: OSError) -> None:
    _log.warning("passed over: folder %s cannot be read (%s)", error.filename, error.strerror)


def _is_drawn(folder: Path) -> bool:
    """Whether a run has drawn the contents of a folder: its output folder has a run.json from the beginning."""
    return folder.name in DRAWN and (folder.parent / RUN_FILE).is_file()


def is_picture(path: str) -> bool:
    """Whether a file in a folder counts as a picture, by its name."""
    return path.lower().endswith(IMAGE_ENDINGS) and not Path(path).name.startswith(".")


def _is_aside(path: str) -> bool:
    return not is_picture(path) and not Path(path).name.startswith(".")


def _absolute(path: str | Path) -> str:
    # Links are not followed: two names of one file are two pictures.
    return os.path.normpath(Path(path).absolute())


def common_folder(places: Sequence[str]) -> str:
    """The absolute folder that contains all places: names in the output are relative to it.

    It depends only on the places, not on their contents, so names stay when pictures are added.

    Raises:
        InputError: if the places are on several drives.
    """
    folders = [Path(place) if exists(place) else Path(*_split_pattern(place)[0]) for place in places]
    try:
        return os.path.commonpath([_absolute(path if path.is_dir() else path.parent) for path in folders])
    except ValueError as error:
        raise InputError(f"the pictures are on several drives ({', '.join(places)}); run once for each") from error


def heat_map_name(path: str, folder: str) -> str:
    """The file of a picture's heat map below the output folder: the path below ``folder``, with forward slashes.

    A name that is too long with its ending is shortened, and stays unique.
    """
    below = Path(os.path.relpath(path, folder))
    return f"heatmaps/{below.with_name(file_name(below.name, '.jpg')).as_posix()}"


def mask_name(heat_map: str) -> str:
    """The file of a picture's mask, from the file of its heat map."""
    return f"masks/{heat_map.removeprefix('heatmaps/').removesuffix('.jpg')}.png"


def map_name(heat_map: str) -> str:
    """The file of a picture's map until its heat map is drawn, from the file of its heat map."""
    return f"maps/{heat_map.removeprefix('heatmaps/').removesuffix('.jpg')}.png"


class Watch:
    """Looks at folders repeatedly; asking for files again also works on network folders."""

    def __init__(self, folders: Sequence[str]) -> None:
        self._folders = folders
        # Files that are not pictures.
        self.aside: set[str] = set()
        self._seen: dict[str, _Stamp] = {}
        self._given: dict[str, _Stamp] = {}

    def pictures(self) -> list[str]:
        """All pictures in the folders, complete or not, each once.

        Raises:
            InputError: if a folder does not exist.
        """
        for folder in self._folders:
            if not is_folder(folder):
                file = "; it is a file, and --watch takes folders" if is_file(folder) else ""
                raise InputError(f"there is no folder {folder} to watch (any more){file}")
        below = (_pictures_below(folder, self.aside, quiet=True) for folder in self._folders)
        return list(dict.fromkeys(path for paths in below for path in paths))

    @staticmethod
    def pause() -> None:
        """Wait until the next look."""
        time.sleep(_SECONDS)

    def complete(self) -> list[str]:
        """The pictures whose size and time are as at the last look, and which were not returned with these before.

        Raises:
            InputError: if a folder does not exist.
        """
        before, self._seen = self._seen, {}
        for path in self.pictures():
            with contextlib.suppress(OSError):  # it was removed
                found = Path(path).stat()
                self._seen[path] = found.st_size, found.st_mtime_ns
        complete = [path for path, stamp in self._seen.items() if stamp == before.get(path) != self._given.get(path)]
        self._given |= {path: self._seen[path] for path in complete}
        return complete


@dataclass(frozen=True)
class Region:
    """The part of every picture that counts: a rectangle, or the white of a mask.

    Attributes:
        box: x, y, width, height in pixels of the upright picture.
        inside: (height, width) bool, which pixels of the box count.
        size: width and height that the picture must have; None if the box only must lie inside it.
        identity: text that distinguishes the region from others.
    """

    box: Box
    inside: npt.NDArray[np.bool_]
    size: tuple[int, int] | None
    identity: str

    def check(self, size: tuple[int, int]) -> None:
        """Raises: InputError: if a picture of this size differs in size from the mask, or does not contain the box."""
        x, y, width, height = self.box
        shown = f"{size[0]} x {size[1]}"
        if self.size is not None and size != self.size:
            raise InputError(f"{shown} is not the size of the mask of --region, {self.size[0]} x {self.size[1]}")
        if x + width > size[0] or y + height > size[1]:
            raise InputError(f"--region {x},{y},{width},{height} is outside of its {shown} pixels")

    def cut(self, picture: Image.Image) -> Image.Image:
        """The box of a picture, with grey instead of the pixels that do not count.

        Raises:
            InputError: as in ``check``.
        """
        self.check(picture.size)
        x, y, width, height = self.box
        part = picture.crop((x, y, x + width, y + height))
        if not self.inside.all():
            part.paste(_GREY, mask=Image.fromarray(~self.inside))
        return part


def read_region(given: str) -> Region:
    """The region of ``x,y,w,h`` or of a mask file, whose pixels brighter than half count.

    Raises:
        InputError: if it is neither, or nothing counts.
    """
    if re.fullmatch(r"-?\d{1,9}(,-?\d{1,9}){3}", given):
        x, y, width, height = map(int, given.split(","))
        if min(x, y) < 0 or min(width, height) < 1 or width * height > PIXEL_LIMIT:
            raise InputError(
                f"--region {given} is outside of every picture; x and y begin at 0, w and h at 1, and the largest"
                f" pictures have {PIXEL_LIMIT:,} pixels"
            )
        return Region((x, y, width, height), np.ones((height, width), np.bool_), None, given)
    if not is_file(given):
        raise InputError(f"--region {given} is neither x,y,w,h in pixels nor a file; give one of them")
    mask = read_image(given, upright=True).convert("L")
    white = np.asarray(mask) > 127
    if not white.any():
        raise InputError(f"mask {given} of --region has no white pixel; paint the part that counts in white")
    x, y, width, height = map(int, cv2.boundingRect(white.astype(np.uint8)))
    inside = white[y : y + height, x : x + width]
    return Region((x, y, width, height), inside, mask.size, f"mask with SHA-256 {file_sha256(Path(given))}")


def read_part(path: str, region: Region | None, intake: Intake) -> tuple[Image.Image, Size]:
    """The part of a picture that counts, turned as its EXIF orientation says, and the size of the whole picture.

    Raises:
        InputError: if it cannot be read or does not fit the region; names the file.
    """
    picture = read_image(path, upright=True, intake=intake)
    try:
        return picture if region is None else region.cut(picture), picture.size
    except InputError as error:
        raise InputError(f"image {path}: {error}") from error


def in_own_size(
    anomaly_map: npt.NDArray[np.float32], size: tuple[int, int], region: Region | None = None
) -> npt.NDArray[np.float32]:
    """The (S, S) map of a picture or its region, resized to the picture's own (width, height); 0 outside the region.

    Raises:
        InputError: if the picture does not fit the region.
    """
    if region is None:
        return fit(anomaly_map, size)
    region.check(size)
    x, y, width, height = region.box
    whole = np.zeros((size[1], size[0]), np.float32)
    np.copyto(whole[y : y + height, x : x + width], fit(anomaly_map, (width, height)), where=region.inside)
    return whole
