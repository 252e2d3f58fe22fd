"""Files: atomic writes, locks on output folders, reading with size limits, checksums."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import logging
import os
import re
import secrets
from collections import Counter
from collections.abc import Iterable, Iterator
from os import PathLike
from pathlib import Path
from typing import Any

from winclip.support.errors import InputError

_log = logging.getLogger("winclip")
_LOCK = ".winclip.lock"
# Largest text or JSON file in bytes: a list of 200,000 images is smaller.
_MOST_BYTES = 64 << 20
_TEMPORARY = re.compile(r"\.winclip-[0-9a-f]{16}\.tmp")


def write_atomically(path: str | PathLike[str], content: str | bytes | Iterable[bytes]) -> None:
    """Write a file in one step: its readers see the old content or the new, never a mixture.

    The content goes to a temporary file in the same folder, reaches the disk, and then takes the
    place of ``path``. On an error the temporary file is removed and ``path`` is unchanged.

    Args:
        path: the file; folders that are missing above it are made.
        content: text is written as UTF-8 with unchanged line ends; an iterable is written part by part.

    Raises:
        InputError: if the folder cannot be made or written to, the disk is full, or ``path`` is a
            folder; the message names the file and the reason.
    """
    target = Path(path)
    data = content.encode("utf-8") if isinstance(content, str) else content
    parts = [data] if isinstance(data, bytes) else data
    # Short, since the file's own name may be long.
    temporary = target.parent / f".winclip-{secrets.token_hex(8)}.tmp"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _write_to_disk(temporary, parts)
        temporary.replace(target)
    except OSError as error:
        way_out = "name a file in it" if target.is_dir() else "choose a folder that can be written to"
        raise InputError(f"cannot write {target} ({error.strerror or error}); {way_out}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


@contextlib.contextmanager
def lock_folder(folder: Path, option: str = "--save_path") -> Iterator[None]:
    """Let only one run at a time write to an output folder, which is created if missing.

    The lock is the system's, on a hidden file that is removed at the end, so the system releases it when its process
    ends in any way. Temporary files of a killed run are removed first.

    Args:
        folder: the output folder.
        option: the option that names it.

    Raises:
        InputError: if another run holds the folder, or the folder cannot be written to.
    """
    # Late, because only writing needs it.
    from filelock import FileLock, Timeout

    path = folder / _LOCK
    lock = FileLock(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        left = path.exists()  # left by a killed run, if the lock is free
        lock.acquire(timeout=0)
    except Timeout as error:
        raise InputError(f"another run writes to {folder}; wait for its end, or choose another {option}") from error
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP):
            raise InputError(
                f"cannot write to {folder} ({error.strerror or error}); choose another {option}"
            ) from error
        _log.warning("%s does not support locks (%s); make sure that one run at a time writes there", folder, error)
    try:
        if left:
            _remove_temporary(folder)
        yield
    finally:
        with contextlib.suppress(OSError):  # while the lock is held: afterwards the file could be another run's
            path.unlink()
        lock.release()


def read_text(path: str | PathLike[str], what: str) -> str:
    """A text file in UTF-8, with a byte order mark or without.

    Args:
        path: the file.
        what: its kind, for messages, such as ``prompt set``.

    Raises:
        InputError: if it cannot be read, is larger than 64 MB, or is not UTF-8.
    """
    try:
        with Path(path).open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
        if len(data) > _MOST_BYTES:
            raise InputError(f"{what} {path} is larger than {_MOST_BYTES >> 20} MB, the limit")
        return data.decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"{what} {path} cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{what} {path} is not UTF-8 text ({error.reason} at byte {error.start})") from error


def read_json(path: str | PathLike[str], what: str) -> Any:
    """The content of a JSON file; see ``read_text`` and ``parse_json``."""
    return parse_json(read_text(path, what), f"{what} {path}")


def parse_json(text: str, name: str) -> Any:
    """The content of a JSON text; errors mention ``name``.

    Raises:
        InputError: if it is not JSON, or an object has a key twice, one of which would be lost silently.
    """
    try:
        return json.loads(text, object_pairs_hook=_object)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{name} is not JSON ({error})") from error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        key, _ = Counter(key for key, _ in pairs).most_common(1)[0]
        raise ValueError(f"the key {key[:100]!r} is there more than once in an object")
    return found


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
    """Whether there is such a file. For a name that is too long, pathlib raises an error; this does not."""
    return os.path.isfile(path)  # noqa: PTH113


def is_folder(path: str | PathLike[str]) -> bool:
    """Whether there is such a folder, also for a name that is too long."""
    return os.path.isdir(path)  # noqa: PTH112


def exists(path: str | PathLike[str]) -> bool:
    """Whether there is such a file or folder, also for a name that is too long."""
    return os.path.exists(path)  # noqa: PTH110


def cache_folder(part: str) -> Path:
    """The folder for one part of the cache, by the XDG rule."""
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
    # Not tempfile.mkstemp: only the owner could read its files, whatever the umask says.
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
    with os.fdopen(descriptor, "wb") as file:
        file.writelines(parts)
        file.flush()
        os.fsync(file.fileno())


def _remove_temporary(folder: Path) -> None:
    for here, folders, names in os.walk(folder):
        # Temporary files of other runs, which may not have ended.
        folders[:] = [name for name in folders if not (Path(here) / name / _LOCK).exists()]
        for name in filter(_TEMPORARY.fullmatch, names):
            with contextlib.suppress(OSError):
                (Path(here) / name).unlink()
