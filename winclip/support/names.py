"""Names from outside in terminals, tables and file names: escaped where they would do harm there."""

from __future__ import annotations

import csv
import hashlib
import io
import os
import re
from collections.abc import Iterable

# Control characters, line separators, direction overrides, and bytes that are not UTF-8.
_UNSAFE = "\\x00-\\x1f\\x7f-\\x9f\\u2028-\\u202e\\u2066-\\u2069\\ud800-\\udfff"
# Spreadsheets take such a cell for a formula; spreadsheets that split cells at ";" also do so after one.
_FORMULA = re.compile("(?:^|;)[ \\xa0]*[=+\\-@\\uff0b\\uff0d\\uff1d\\uff20]")
_ESCAPE = re.compile(r"\\x([0-9a-f]{2})|\\u([0-9a-f]{4})")

# Largest length of a name in common file systems, in bytes.
NAME_LIMIT = 255


def printable(text: str, limit: int = 2000) -> str:
    """Text of any origin as one line for a terminal, a log or a page; unsafe characters are escaped as in ``\\x1b``.

    Args:
        text: most text is returned unchanged.
        limit: characters; the middle of longer text is left out, since errors name the thing first and
            the way out last.
    """
    escaped = _escaped(text, _UNSAFE)
    if len(escaped) <= limit:
        return escaped
    half = (limit - 5) // 2
    return f"{escaped[:half]} ... {escaped[-half:]}"


def cell(text: str) -> str:
    """Text of any origin for a UTF-8 CSV file, so that no spreadsheet takes it for a formula.

    Most text is unchanged. Text that could be a formula, begins with ``'``, or holds control characters, line
    breaks or bytes that are not UTF-8 gets a ``'`` in front, and these characters, ``;`` and the backslash are escaped
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
    """A number with its noun: ``1 image``, ``2 images``; ``more`` is an irregular plural: ``2 classes``."""
    return f"{count} {one if count == 1 else more or one + 's'}"


def csv_line(cells: Iterable[object]) -> str:
    """A line of a table; text of any origin goes through ``cell`` first."""
    buffer = io.StringIO(newline="")
    csv.writer(buffer, lineterminator="\n").writerow(cells)
    return buffer.getvalue()


def file_name(name: str, ending: str) -> str:
    """A file name made from another: ``ending`` is appended, and a hash replaces the end of a name that is too long.

    Only shortened names have ``NAME_LIMIT`` bytes, so they never equal another name.
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
