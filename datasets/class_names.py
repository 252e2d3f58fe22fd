"""What prompts call the classes of a data set."""

from __future__ import annotations

from pathlib import Path

from datasets.index import select_classes
from datasets.items import DatasetIndex
from datasets.registry import DATA_SETS
from winclip.support.errors import InputError
from winclip.support.files import read_json
from winclip.support.names import printable

OPTION = "--class_names"


def words_for_prompts(dataset: str, index: DatasetIndex, path: Path | None) -> dict[str, str]:
    """What prompts call every class: what a file says, else what the registry does, else its own name.

    Args:
        dataset: name of the data set.
        index: its classes.
        path: a JSON object of classes with their words, ``{"01": "metal disc"}``; classes may be missing.

    Raises:
        InputError: if the file cannot be read, is something else, names a class that the data set does not
            have, or gives one no words.
    """
    known = DATA_SETS[dataset].words if dataset in DATA_SETS else {}
    words = {name: known.get(name, name) for name in index.test}
    if path is None:
        return words
    content = read_json(path, OPTION)
    if not isinstance(content, dict):
        raise InputError(f'{OPTION} {path}: expected an object of classes with their words, such as {{"01": "nut"}}')
    for name, text in content.items():
        try:
            select_classes(index, [name])
        except InputError as error:
            raise InputError(f"{OPTION} {path}: {error}") from error
        if not isinstance(text, str) or not text.strip() or printable(text) != text:
            raise InputError(
                f"{OPTION} {path}: class {name} is called {text!r}; expected words that say what its pictures show"
            )
        words[name] = text.strip()
    return words


def says_nothing(words: str) -> bool:
    """Whether a class is called by a number, as ``01`` or ``Class1``, which prompts cannot use."""
    return not any(sign.isalpha() for sign in words.lower().replace("class", ""))
