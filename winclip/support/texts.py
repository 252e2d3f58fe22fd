"""Text and JSON files of any origin, read within bounds."""

from __future__ import annotations

import json
import math
from collections import Counter
from os import PathLike
from pathlib import Path
from typing import Any, NoReturn

from winclip.support.errors import InputError

# A list of 200,000 images stays below. With both bounds what is read stays below 1 GB of memory.
_MAX_BYTES, _MAX_VALUES = 64 << 20, 4_000_000


def read_text(path: str | PathLike[str], what: str, separators: str = "\n") -> str:
    """A text file in UTF-8, with a byte order mark or without.

    Args:
        path: the file.
        what: it is, for messages: ``prompt set``.
        separators: characters that part the values in it.

    Raises:
        InputError: if it cannot be read, is larger than 64 MB, is not UTF-8, or has more than 4 million values.
    """
    try:
        with Path(path).open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
        if len(data) > _MAX_BYTES:
            raise InputError(f"{what} {path} is larger than {_MAX_BYTES >> 20} MB, the limit")
        text = data.decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"{what} {path} cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{what} {path} is not UTF-8 text ({error.reason} at byte {error.start})") from error
    _check_values(text, separators, f"{what} {path}")
    return text


def read_json(path: str | PathLike[str], what: str) -> Any:
    """The content of a JSON file; see ``read_text`` and ``parse_json``."""
    return parse_json(read_text(path, what), f"{what} {path}")


def parse_json(text: str, name: str) -> Any:
    """The content of a JSON text.

    Args:
        text: the JSON.
        name: what it is, for messages.

    Raises:
        InputError: if it is not JSON, has more than 4 million values or too many levels, a key twice in one
            object, or a number that is none, is not finite, or has thousands of digits.
    """
    _check_values(text, "[{,", name)
    try:
        return json.loads(text, object_pairs_hook=_object, parse_float=_finite, parse_constant=_refuse_constant)
    except RecursionError as error:
        raise InputError(f"{name} is not JSON that can be read (it has too many levels)") from error
    except ValueError as error:
        raise InputError(f"{name} is not JSON ({error})") from error


def _check_values(text: str, separators: str, name: str) -> None:
    if sum(map(text.count, separators)) > _MAX_VALUES:
        raise InputError(f"{name} has more than {_MAX_VALUES:,} values, the limit")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        key, _ = Counter(key for key, _ in pairs).most_common(1)[0]
        raise ValueError(f"the key {key[:100]!r} is there more than once in an object")
    return found


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(f"the number {digits[:20]} is too large")
    return number


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")
