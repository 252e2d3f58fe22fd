"""Files and folders by their address: paths, and object stores through pyarrow's file systems."""

from __future__ import annotations

import contextlib
import os
import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO

from pyarrow import ArrowException
from pyarrow.fs import FileSelector, FileSystem, FileType, LocalFileSystem

from winclip.errors import InputError
from winclip.files import is_file, is_folder, remove_file, temporary_beside, write_atomically

# A file of these appears when it is complete; elsewhere it is written under another name first.
_OBJECT_STORES = ("s3", "gcs", "abfs")


@dataclass(frozen=True)
class Place:
    """A file or folder.

    Attributes:
        files: the file system that it is in.
        path: there.
        shown: its address in rows and messages, without keys and options of the file system.
    """

    files: FileSystem
    path: str
    shown: str

    @property
    def is_local(self) -> bool:
        """Whether it is a path."""
        return self.files.type_name == "local"

    @property
    def parent(self) -> Place:
        """The folder that it is in."""
        return Place(self.files, posixpath.dirname(self.path), posixpath.dirname(self.shown))

    def below(self, name: str) -> Place:
        """A file or folder in this folder."""
        return Place(self.files, posixpath.join(self.path, name), posixpath.join(self.shown, name))

    def locate(self, address: str) -> Place:
        """What an address means that was found in this folder: a URI, or a path, which may be relative to it."""
        scheme, is_uri, rest = address.partition("://")
        if not is_uri:
            return Place(self.files, posixpath.join(self.path, address), address)
        files = self.files if self.shown.startswith(f"{scheme}://") else _file_system(scheme, rest.split("/")[0])
        return Place(files, rest, address)

    def kind(self) -> str:
        """``file``, ``folder``, or nothing if there is none.

        Raises:
            InputError: if that cannot be told.
        """
        if self.is_local:
            return "file" if is_file(self.path) else "folder" if is_folder(self.path) else ""
        with self._reaching("reached"):
            found = self.files.get_file_info(self.path).type
        return {FileType.File: "file", FileType.Directory: "folder"}.get(found, "")

    def listed(self) -> list[str]:
        """The files in this folder and below it, relative to it, sorted; none if it does not exist.

        Raises:
            InputError: if it cannot be listed.
        """
        with self._reaching("listed"):
            # Names that are not UTF-8 are none for pyarrow.
            if self.is_local:
                below = (Path(here, name) for here, _, names in os.walk(self.path) for name in names)
                return sorted(path.relative_to(self.path).as_posix() for path in below)
            found = self.files.get_file_info(FileSelector(self.path, recursive=True, allow_not_found=True))
        return sorted(posixpath.relpath(info.path, self.path) for info in found if info.type == FileType.File)

    @contextlib.contextmanager
    def open(self, *, stream: bool = False) -> Iterator[IO[bytes]]:
        """The file, to be read anywhere, or as a stream from its beginning on, which asks less of an object store.

        Raises:
            InputError: if it cannot be opened or, while it is open, read.
        """
        with self._reaching("read"), self._opened(stream) as file:
            yield file

    def _opened(self, stream: bool) -> contextlib.AbstractContextManager[IO[bytes]]:
        if self.is_local:
            # A pipe would be waited for.
            if not is_file(self.path):
                raise InputError(f"{self.shown} does not exist, or is no file")
            return Path(self.path).open("rb")
        return self.files.open_input_stream(self.path) if stream else self.files.open_input_file(self.path)

    def read(self) -> bytes:
        """The content of the file.

        Raises:
            InputError: if it cannot be read.
        """
        with self.open(stream=True) as file:
            return file.read()

    def write(self, content: bytes) -> None:
        """Write the file, complete or not at all, and the folders above it.

        Raises:
            InputError: if it cannot be written.
        """
        if self.is_local:
            write_atomically(self.path, content)
            return
        with self._reaching("written"):
            if self.files.type_name in _OBJECT_STORES:
                self._put(self.path, content)
                return
            self.files.create_dir(posixpath.dirname(self.path), recursive=True)
            temporary = temporary_beside(Path(self.path)).as_posix()
            self._put(temporary, content)
            self.files.move(temporary, self.path)

    def remove(self) -> None:
        """Remove the file.

        Raises:
            InputError: if it cannot be removed.
        """
        if self.is_local:
            remove_file(Path(self.path))
            return
        with self._reaching("removed"):
            self.files.delete_file(self.path)

    def _put(self, path: str, content: bytes) -> None:
        with self.files.open_output_stream(path) as file:
            file.write(content)

    @contextlib.contextmanager
    def _reaching(self, done: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise InputError(f"{self.shown} cannot be {done} ({error.strerror or error})") from error


def place(address: str, folder: str = "") -> Place:
    """The place of an address.

    Args:
        address: a path, or a URI of a file system that pyarrow knows, with its options:
            ``s3://bucket/folder?endpoint_override=...``.
        folder: what paths are relative to; by default where this process is.

    Raises:
        InputError: if pyarrow does not know the file system, or it cannot be reached.
    """
    if "://" not in address:
        return Place(LocalFileSystem(), Path(folder, address).absolute().as_posix(), Path(address).as_posix())
    # Between // and @ there may be keys.
    shown = re.sub("//[^/@]*@", "//", address.partition("?")[0]).rstrip("/")
    try:
        files, path = FileSystem.from_uri(address)
    except (ArrowException, OSError) as error:
        # Its text may hold keys as well.
        reason = str(error).replace(address, shown)
        raise InputError(f"{shown} is no address that can be reached ({reason})") from error
    return Place(files, path.rstrip("/"), shown if files.type_name != "local" else path)


@cache
def _file_system(scheme: str, bucket: str) -> FileSystem:
    return place(f"{scheme}://{bucket}").files
