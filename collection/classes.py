"""The classes of a collection, each with its memory file, and which one a picture is of."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from collection.places import place
from prediction.references import class_of_memory
from winclip.errors import InputError
from winclip.files import file_sha256
from winclip.prompts import PromptSet

# A source of classes besides the columns.
FOLDER = "folder"
_ENDING = ".safetensors"


@dataclass(frozen=True)
class Class:
    """A class of the collection.

    Attributes:
        memory: address of its memory file.
        class_name, prompts: what the memory was made with.
        sha256: of the memory file.
    """

    memory: str
    class_name: str
    prompts: PromptSet
    sha256: str


def read_classes(memories: Sequence[str], model: str) -> dict[str, Class]:
    """The classes of memory files, by what they are called in the pictures' folders or column.

    Args:
        memories: addresses of memory files and of folders of them, which are called as the class that they were
            made for, or ``CLASS=`` and the address of a file.
        model: the option that names the model.

    Raises:
        InputError: if there is no memory, two are of one class, or one cannot be read or is of another model.
    """
    classes: dict[str, Class] = {}
    for given in memories:
        name, named, address = given.partition("=")
        if not named or "/" in name:
            name, address = "", given
        for memory in _files(address):
            with local_file(memory) as file:
                class_name, prompts = class_of_memory(file, model)
                found = Class(memory, class_name, prompts, file_sha256(file))
            label = name or class_name
            if label in classes:
                raise InputError(
                    f"memories {place(classes[label].memory).shown} and {place(memory).shown} are both of class"
                    f" '{label}'; say what each is called with --memory NAME=FILE"
                )
            classes[label] = found
    return classes


def _files(address: str) -> list[str]:
    folder = place(address)
    if folder.kind() != "folder":
        return [address]
    before, *options = re.split(r"(?=\?)", address, maxsplit=1)
    names = [name for name in folder.listed() if name.endswith(_ENDING)]
    if not names:
        raise InputError(f"--memory {folder.shown} holds no memory, no file that ends in {_ENDING}")
    return ["".join([before.rstrip("/"), "/", name, *options]) for name in names]


@contextmanager
def local_file(address: str, folder: str = "") -> Iterator[Path]:
    """A file of any address as one of this machine.

    Args:
        address: of the file.
        folder: what paths are relative to.

    Raises:
        InputError: if it cannot be read, or what is done with it raises one; it names the address.
    """
    found = place(address, folder)
    if found.is_local:
        yield Path(found.path)
        return
    with tempfile.TemporaryDirectory() as name:
        copy = Path(name, PurePosixPath(found.path).name)
        copy.write_bytes(found.read())
        try:
            yield copy
        except InputError as error:
            raise InputError(str(error).replace(str(copy), found.shown)) from error


class Labels:
    """Tells which class a picture is of."""

    def __init__(self, names: Sequence[str], source: str | None) -> None:
        """Keep the names of the classes; ``source`` is ``folder``, the name of a column, or None with one class.

        Raises:
            InputError: if there are several classes and no source.
        """
        if source is None and len(names) > 1:
            raise InputError(
                f"{len(names)} memories are given ({', '.join(names)}); say with --class_from where the class of a"
                f" picture is found: {FOLDER}, or a column"
            )
        self.column = None if source == FOLDER else source
        self._only = names[0] if source is None else None
        # In folders and tables an underscore often stands for a space.
        self._names: Mapping[str, str] = {spelt: name for name in names for spelt in (name.replace(" ", "_"), name)}

    def of(self, path: str, value: str | None = None) -> str | None:
        """The class of a picture, or None if it has no memory.

        Args:
            path: of the picture; the innermost folder that is called like a class counts.
            value: of the column.
        """
        if self._only is not None:
            return self._only
        candidates = reversed(PurePosixPath(path).parts[:-1]) if self.column is None else [str(value)]
        return next((self._names[part] for part in candidates if part in self._names), None)
