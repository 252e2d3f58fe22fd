"""Writing files so that each is complete or absent, never half written; and telling files apart."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
from os import PathLike
from pathlib import Path

from winclip.errors import InputError


def write_atomically(path: str | PathLike[str], content: str | bytes) -> None:
    """Write a file in one step: its readers see the old content or the new, never a part.

    The content goes to a temporary file in the same folder, reaches the disk, and then takes the
    place of ``path``. On an error the temporary file is removed and ``path`` is as it was.

    Args:
        path: the file; folders that are missing above it are made.
        content: text is written as UTF-8, line ends as they are.

    Raises:
        InputError: if the folder cannot be made or written to, the disk is full, or ``path`` is a
            folder; the message names the file and the reason.
    """
    target = Path(path)
    data = content.encode("utf-8") if isinstance(content, str) else content
    temporary = temporary_beside(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _write_to_disk(temporary, data)
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


def _write_to_disk(path: Path, data: bytes) -> None:
    # Not tempfile.mkstemp: its files are readable by their owner alone, whatever the umask says.
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
