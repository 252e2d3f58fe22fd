"""Options declared once: a dataclass whose fields are options gives the parser, the values and config.json.

    @dataclass(frozen=True)
    class Reading:
        batch_size: int = option("images encoded together (8)", 8, group="speed")

A field's type says how its text is parsed: ``bool`` is a flag, ``tuple[int, ...]`` takes one or more. A field whose
type is such a dataclass adds all of its options.
"""

from __future__ import annotations

import argparse
from dataclasses import field, fields, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

Options = TypeVar("Options")


def option(help: str, default: Any = None, *, group: str | None = None, positional: bool = False, **how: Any) -> Any:
    """A field that is an option.

    Args:
        help: the text in ``--help``.
        default: the value if the option is not given.
        group: title of its group in ``--help``.
        positional: whether it is given by position, not by name.
        how: further arguments of ``argparse.ArgumentParser.add_argument``.
    """
    return field(default=default, metadata={"help": help, "group": group, "positional": positional, **how})


def add_options(parser: argparse.ArgumentParser, kind: type[Any]) -> None:
    """Add the options that the fields of a dataclass declare; other fields are ignored."""
    groups: dict[str | None, Any] = {None: parser}
    for name, hint, metadata, default in _declared(kind):
        if _holds_options(hint):
            add_options(parser, hint)
            continue
        how = dict(metadata)
        title, positional = how.pop("group"), how.pop("positional")
        if title not in groups:
            groups[title] = parser.add_argument_group(title)
        if how.get("action") == "append":
            default = list(default)
        else:
            how = {**_reading(hint), **how}
        groups[title].add_argument(name if positional else f"--{name}", default=default, **how)


def take_options(kind: type[Options], values: dict[str, Any]) -> Options:
    """Take the fields of a dataclass out of the parsed values; lists become tuples."""
    found: dict[str, Any] = {}
    for name, hint, _, _ in _declared(kind):
        if _holds_options(hint):
            found[name] = take_options(hint, values)
        else:
            value = values.pop(name)
            found[name] = tuple(value) if isinstance(value, list) else value
    return kind(**found)


def as_json(options: Any) -> dict[str, Any]:
    """Every option by its name on the command line, as JSON values."""
    found: dict[str, Any] = {}
    for name, _, _, _ in _declared(type(options)):
        value = getattr(options, name)
        if _holds_options(type(value)):
            found |= as_json(value)
        else:
            found[name] = str(value) if isinstance(value, Path) else value
    return found


def from_json(parser: argparse.ArgumentParser, name: str, value: Any) -> Any:
    """A value from ``as_json``, as the parser would return it.

    Raises:
        KeyError: if the parser has no such option.
        ValueError: if the parser would refuse the value.
    """
    action = {action.dest: action for action in parser._actions if action.default is not argparse.SUPPRESS}[name]
    if value is None and action.default is None:
        return None
    if action.nargs == 0 and isinstance(value, bool):
        return value
    if action.nargs in ("+", 2) and isinstance(value, list) and value:
        return [_one(action, part) for part in value]
    if action.nargs is None:
        return _one(action, value)
    raise ValueError


def _one(action: argparse.Action, value: Any) -> Any:
    kind: Any = action.type or str
    if isinstance(value, bool) or not isinstance(value, (str, int, float)) or "\0" in str(value):
        raise ValueError
    parsed = kind(str(value))
    if action.choices is not None and parsed not in action.choices:
        raise ValueError
    return parsed


def _declared(kind: type[Any]) -> list[tuple[str, Any, Any, Any]]:
    """Name, type, metadata and default of the fields that are options or hold options."""
    hints = get_type_hints(kind)
    return [
        (each.name, hints[each.name], each.metadata, each.default)
        for each in fields(kind)
        if each.metadata or _holds_options(hints[each.name])
    ]


def _holds_options(hint: Any) -> bool:
    return is_dataclass(hint)


def _reading(hint: Any) -> dict[str, Any]:
    """How argparse reads a type."""
    if hint is bool:
        return {"action": "store_true"}
    if get_origin(hint) in (Union, UnionType):
        (hint,) = (part for part in get_args(hint) if part is not type(None))
    if get_origin(hint) is tuple:
        return {"nargs": "+", "type": get_args(hint)[0]}
    return {"type": hint}
