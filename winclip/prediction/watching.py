"""Folders that are watched: which of their pictures are complete, and not given out yet."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from pathlib import Path

from winclip.prediction.listing import pictures_below
from winclip.support.errors import InputError
from winclip.support.files import is_folder

# Between two looks.
SECONDS = 2.0
# Size in bytes and time of change in nanoseconds.
_Stamp = tuple[int, int]


class Watch:
    """Looks at folders time after time; asking for files again works on network folders, too."""

    def __init__(self, folders: Sequence[str]) -> None:
        self._folders = folders
        self._seen: dict[str, _Stamp] = {}
        self._given: dict[str, _Stamp] = {}

    def pictures(self) -> list[str]:
        """All pictures that are there, complete or not, each once.

        Raises:
            InputError: if a folder is not there.
        """
        for folder in self._folders:
            if not is_folder(folder):
                raise InputError(f"there is no folder {folder} to watch (any more)")
        return list(dict.fromkeys(path for folder in self._folders for path in pictures_below(folder, quiet=True)))

    @staticmethod
    def pause() -> None:
        """Wait until it is time to look again."""
        time.sleep(SECONDS)

    def complete(self) -> list[str]:
        """The pictures whose size and time are as at the last look, and which were not given out with them before.

        Raises:
            InputError: if a folder is not there.
        """
        before, self._seen = self._seen, {}
        for path in self.pictures():
            with contextlib.suppress(OSError):  # it was taken away
                found = Path(path).stat()
                self._seen[path] = found.st_size, found.st_mtime_ns
        complete = [path for path, stamp in self._seen.items() if stamp == before.get(path) != self._given.get(path)]
        self._given |= {path: self._seen[path] for path in complete}
        return complete
