"""Writing files so that each is complete or absent, by one run at a time; and telling files apart."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import platform
import re
import secrets
import sys
from collections.abc import Iterable, Iterator
from os import PathLike
from pathlib import Path

from winclip.support.errors import InputError

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

_log = logging.getLogger("winclip")
_LOCK = ".winclip.lock"
_HOLDER = re.compile(r"\d+ on \S+")
_TEMPORARY = re.compile(r"\.winclip-[0-9a-f]{16}\.tmp")


def write_atomically(path: str | PathLike[str], content: str | bytes | Iterable[bytes]) -> None:
    """Write a file in one step: its readers see the old content or the new, never a part.

    The content goes to a temporary file in the same folder, reaches the disk, and then takes the
    place of ``path``. On an error the temporary file is removed and ``path`` is as it was.

    Args:
        path: the file; folders that are missing above it are made.
        content: text is written as UTF-8, line ends as they are; parts are written as they come.

    Raises:
        InputError: if the folder cannot be made or written to, the disk is full, or ``path`` is a
            folder; the message names the file and the reason.
    """
    target = Path(path)
    data = content.encode("utf-8") if isinstance(content, str) else content
    parts = [data] if isinstance(data, bytes) else data
    temporary = temporary_beside(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _write_to_disk(temporary, parts)
        temporary.replace(target)
    except OSError as error:
        raise InputError(
            f"cannot write {target} ({error.strerror or error}); choose a folder that can be written to"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def temporary_beside(target: Path) -> Path:
    """A hidden name in a file's folder, for its content until it is complete; short, since the file's may be long."""
    return target.parent / f".winclip-{secrets.token_hex(8)}.tmp"


@contextlib.contextmanager
def lock_folder(folder: Path, option: str = "--save_path") -> Iterator[None]:
    """Let one run at a time write to an output folder, which is made where it is missing.

    The lock is the system's, on a hidden file that is removed at the end, so it is free again when its
    process is gone, however that ended. Temporary files of a run that was killed are removed first.

    Args:
        folder: the output folder.
        option: that names it.

    Raises:
        InputError: if another run holds the folder, or the folder cannot be written to.
    """
    path = folder / _LOCK
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = _open_locked(path, option)
    except OSError as error:
        raise InputError(f"cannot write to {folder} ({error.strerror or error}); choose another {option}") from error
    try:
        if os.fstat(descriptor).st_size:  # its run was killed
            _remove_temporary(folder)
        with contextlib.suppress(OSError):  # only the line that refuses a second run needs it
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"{os.getpid()} on {platform.node()}".encode())
        yield
    finally:
        if sys.platform == "win32":  # where an open file cannot be removed
            os.close(descriptor)
        with contextlib.suppress(OSError):
            path.unlink()
        if sys.platform != "win32":  # where a file that is closed first could be another run's by now
            os.close(descriptor)


def remove_file(path: Path) -> None:
    """Remove a file if it is there.

    Raises:
        InputError: if it cannot be removed.
    """
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"cannot remove {path} ({error.strerror or error}); choose another folder") from error


def is_file(path: str | PathLike[str]) -> bool:
    """Whether there is such a file. Of a name that is too long for one, pathlib's raises an error."""
    with contextlib.suppress(OSError):
        return Path(path).is_file()
    return False


def is_folder(path: str | PathLike[str]) -> bool:
    """Whether there is such a folder, likewise."""
    with contextlib.suppress(OSError):
        return Path(path).is_dir()
    return False


def exists(path: str | PathLike[str]) -> bool:
    """Whether there is such a file or folder, likewise."""
    return is_file(path) or is_folder(path)


def cache_folder(part: str) -> Path:
    """Where a part of what is kept between runs lies, by the XDG rule."""
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "winclip" / part


def file_sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _write_to_disk(path: Path, parts: Iterable[bytes]) -> None:
    # Not tempfile.mkstemp: its files are readable by their owner alone, whatever the umask says.
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
    with os.fdopen(descriptor, "wb") as file:
        file.writelines(parts)
        file.flush()
        os.fsync(file.fileno())


def _open_locked(path: Path, option: str) -> int:
    """A descriptor of the lock file, with the lock."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            _lock(descriptor)
            # The run before may have removed the file since it was opened.
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                return descriptor
        except FileNotFoundError:
            pass
        except (BlockingIOError, PermissionError) as error:
            found = _HOLDER.fullmatch(os.read(descriptor, 300).decode("utf-8", "replace"))
            holder = f" (process {found[0]})" if found else ""
            os.close(descriptor)
            raise InputError(
                f"another run{holder} writes to {path.parent}; wait for its end, or choose another {option}"
            ) from error
        except OSError as error:
            _log.warning("%s knows no locks (%s); see to it that one run at a time writes there", path.parent, error)
            return descriptor
        os.close(descriptor)


def _lock(descriptor: int) -> None:
    if sys.platform == "win32":
        # Bytes that are locked cannot be read there; this one lies behind what is written.
        os.lseek(descriptor, 1 << 20, os.SEEK_SET)
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        finally:
            os.lseek(descriptor, 0, os.SEEK_SET)
    else:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _remove_temporary(folder: Path) -> None:
    for here, folders, names in os.walk(folder):
        # Those of other runs, which may still go on.
        folders[:] = [name for name in folders if not (Path(here) / name / _LOCK).exists()]
        for name in filter(_TEMPORARY.fullmatch, names):
            with contextlib.suppress(OSError):
                (Path(here) / name).unlink()
