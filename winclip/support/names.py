"""Names that come from outside, in terminals, tables and file names: escaped where they would do harm there."""

from __future__ import annotations

import csv
import hashlib
import io
import os
import re
from collections.abc import Iterable

# Control characters, line separators, what reverses the direction of writing, and bytes that are no UTF-8.
_UNSAFE = "\\x00-\\x1f\\x7f-\\x9f\\u2028-\\u202e\\u2066-\\u2069\\ud800-\\udfff"
# Spreadsheets take such a cell for a formula; those that part cells at ";" take it so behind one, too.
_FORMULA = re.compile("(?:^|;)[ \\xa0]*[=+\\-@\\uff0b\\uff0d\\uff1d\\uff20]")
_ESCAPE = re.compile(r"\\x([0-9a-f]{2})|\\u([0-9a-f]{4})")

# Bytes of a name in common file systems.
NAME_LIMIT = 255


def printable(text: str, limit: int = 2000) -> str:
    """Text of any origin as one line for a terminal, a log or a page: what is unsafe there as ``\\x1b`` or ``\\udcff``.

    Args:
        text: most text comes back as it is.
        limit: characters; the middle of longer text is left out, since errors name their thing first and
            the way out last.
    """
    escaped = _escaped(text, _UNSAFE)
    if len(escaped) <= limit:
        return escaped
    half = (limit - 5) // 2
    return f"{escaped[:half]} ... {escaped[-half:]}"


def cell(text: str) -> str:
    """Text of any origin for a CSV file in UTF-8, so that no spreadsheet takes it for a formula.

    Most text stays as it is. Text that could be a formula, begins with ``'``, or holds control characters, line
    breaks or what is no UTF-8 gets a ``'`` in front, and such characters, ``;`` and the backslash are escaped
    as in ``\\x0a``. ``from_cell`` gives the text back.
    """
    if text.startswith("'") or _FORMULA.search(text) or re.search(f"[{_UNSAFE}]", text):
        return "'" + _escaped(text, _UNSAFE + r";\\")
    return text


def from_cell(text: str) -> str:
    """The text that ``cell`` was given."""
    if not text.startswith("'"):
        return text
    return _ESCAPE.sub(lambda found: chr(int(found[1] or found[2], 16)), text[1:])


def counted(count: int, one: str, more: str = "") -> str:
    """A number with its noun: ``1 image``, ``2 images``; ``more`` is for what has no plain s: ``2 classes``."""
    return f"{count} {one if count == 1 else more or one + 's'}"


def csv_line(cells: Iterable[object]) -> str:
    """A line of a table; text of any origin goes through ``cell`` first."""
    buffer = io.StringIO(newline="")
    csv.writer(buffer, lineterminator="\n").writerow(cells)
    return buffer.getvalue()


def file_name(name: str, ending: str) -> str:
    """A file's name made of another's: with ``ending`` behind it, and where that is too long, a hash for its end.

    Only shortened names have ``NAME_LIMIT`` bytes, so no other name is equal to one.
    """
    whole = os.fsencode(name)
    if len(whole) + len(ending) < NAME_LIMIT:
        return name + ending
    room = NAME_LIMIT - len(ending) - 17
    head = whole[:room].decode("utf-8", "ignore")
    return head + "-" * (room + 1 - len(head.encode())) + hashlib.sha256(whole).hexdigest()[:16] + ending


def _escaped(text: str, characters: str) -> str:
    return re.sub(
        f"[{characters}]",
        lambda found: f"\\x{ord(found[0]):02x}" if found[0] < "\u0100" else f"\\u{ord(found[0]):04x}",
        text,
    )
