"""Unpack a tar archive, compressed or not, into a folder, and nothing of it anywhere else.

python scripts/unpack.py ARCHIVE FOLDER

Files and folders are unpacked, with the access rights of new ones. Links, devices and paths that lead out of the
folder are refused, and so are archives of more than 200 GB or a million entries. Needs nothing but Python.
"""

from __future__ import annotations

import lzma
import shutil
import sys
import tarfile
import zlib
from pathlib import Path, PurePosixPath, PureWindowsPath

MAX_BYTES, MAX_ENTRIES = 200 * 10**9, 1_000_000


def unpack(archive: Path, folder: Path) -> None:
    """Unpack an archive into a folder that is there.

    Raises:
        ValueError: if an entry is no file or folder, leads out of the folder, or the archive is too large.
        OSError, EOFError, tarfile.TarError, lzma.LZMAError, zlib.error: if it is damaged or the disk is full.
    """
    size = 0
    with tarfile.open(archive) as tar:
        for number, entry in enumerate(tar):
            name = repr(entry.name[:200])
            path = PurePosixPath(entry.name.replace("\\", "/"))
            if path.is_absolute() or ".." in path.parts or PureWindowsPath(path).drive:
                raise ValueError(f"{name} leads out of the folder")
            if not entry.isfile() and not entry.isdir():
                raise ValueError(f"{name} is a link or device")
            size += entry.size
            if size > MAX_BYTES or number >= MAX_ENTRIES:
                raise ValueError(f"it has more than {MAX_BYTES // 10**9} GB or {MAX_ENTRIES:,} entries")
            target = folder / path
            if entry.isdir():
                target.mkdir(parents=True, exist_ok=True)
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            content = tar.extractfile(entry)
            assert content is not None  # it is a file
            with content, target.open("wb") as file:
                shutil.copyfileobj(content, file, 1 << 20)


def main(arguments: list[str]) -> int:
    """Unpack as the arguments say; returns the exit status: 0, or 2 after an error that is printed."""
    if len(arguments) != 2:
        print("usage: unpack.py ARCHIVE FOLDER", file=sys.stderr)
        return 2
    try:
        unpack(Path(arguments[0]), Path(arguments[1]))
    except (OSError, EOFError, ValueError, MemoryError, tarfile.TarError, lzma.LZMAError, zlib.error) as error:
        print(f"error: cannot unpack {arguments[0]} ({error or type(error).__name__})", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped by SIGINT; the same command starts again", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
