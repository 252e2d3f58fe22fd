"""What the listers share: the images and folders of a folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from winclip.defaults import IMAGE_ENDINGS
from winclip.errors import InputError

# Of archive programs.
ARCHIVE_FOLDER = "__MACOSX"

Warn = Callable[[str], None]


def list_images(folder: Path) -> list[Path]:
    """The image files of a folder, sorted by name; none if there is no such folder.

    Images are known by their ending, in upper or lower case. Hidden files are left out.

    Raises:
        InputError: if the folder cannot be read.
    """
    return [path for path in _list(folder) if path.suffix.lower() in IMAGE_ENDINGS and path.is_file()]


def list_folders(folder: Path) -> list[Path]:
    """The folders of a folder, sorted by name, without hidden ones and those of archive programs."""
    return [path for path in _list(folder) if path.is_dir() and path.name != ARCHIVE_FOLDER]


def _list(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    try:
        paths = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise InputError(f"folder {folder} cannot be read ({error.strerror})") from error
    for path in paths:
        if any("\ud800" <= sign <= "\udfff" for sign in path.name):
            raise InputError(f"the name of {str(path)!r} is not valid Unicode; rename it")
    return paths


def require_root(root: Path) -> None:
    """Raises: InputError: if the data set folder does not exist."""
    if not root.is_dir():
        raise InputError(f"data set folder {root} does not exist; name its place with --root")
