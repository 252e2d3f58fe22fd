"""The compositional prompt ensemble: every state put into every template (paper, section 4.1)."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from winclip.support.errors import InputError
from winclip.support.files import read_json

_NORMAL_STATES = (
    "{}",
    "flawless {}",
    "perfect {}",
    "unblemished {}",
    "{} without flaw",
    "{} without defect",
    "{} without damage",
)
_ANOMALOUS_STATES = ("damaged {}", "{} with flaw", "{} with defect", "{} with damage")


@dataclass(frozen=True)
class PromptSet:
    """States, templates and the two conventions in which the published prompt sets differ.

    Attributes:
        normal_states: strings with one ``{}`` for the class name.
        anomalous_states: the same for the anomalous state.
        templates: strings with one ``{}`` for the state; a repeated template counts twice.
        spaces_for_underscores: write ``metal nut`` for the class name ``metal_nut``.
        normalise_each: L2-normalise every prompt embedding before the mean.
    """

    normal_states: tuple[str, ...]
    anomalous_states: tuple[str, ...]
    templates: tuple[str, ...]
    spaces_for_underscores: bool = False
    normalise_each: bool = False

    def normal(self, class_name: str) -> list[str]:
        """Prompts of the normal state, templates varying fastest."""
        return self._fill(self.normal_states, class_name)

    def anomalous(self, class_name: str) -> list[str]:
        """Prompts of the anomalous state, templates varying fastest."""
        return self._fill(self.anomalous_states, class_name)

    def _fill(self, states: tuple[str, ...], class_name: str) -> list[str]:
        name = class_name.replace("_", " ") if self.spaces_for_underscores else class_name
        return [template.replace("{}", state.replace("{}", name)) for state in states for template in self.templates]


# As in the reference reimplementation: one template twice, "a cropped photo of a" and "a jpeg
# corrupted photo of a" missing, articles not always in the same order.
REFERENCE = PromptSet(
    normal_states=_NORMAL_STATES,
    anomalous_states=_ANOMALOUS_STATES,
    templates=(
        "a cropped photo of the {}.",
        "a close-up photo of a {}.",
        "a close-up photo of the {}.",
        "a bright photo of a {}.",
        "a bright photo of the {}.",
        "a dark photo of the {}.",
        "a dark photo of a {}.",
        "a jpeg corrupted photo of the {}.",
        "a jpeg corrupted photo of the {}.",
        "a blurry photo of the {}.",
        "a blurry photo of a {}.",
        "a photo of a {}.",
        "a photo of the {}.",
        "a photo of a small {}.",
        "a photo of the small {}.",
        "a photo of a large {}.",
        "a photo of the large {}.",
        "a photo of the {} for visual inspection.",
        "a photo of a {} for visual inspection.",
        "a photo of the {} for anomaly detection.",
        "a photo of a {} for anomaly detection.",
    ),
)

PAPER = PromptSet(
    normal_states=_NORMAL_STATES,
    anomalous_states=_ANOMALOUS_STATES,
    templates=tuple(
        pattern.format(article=article)
        for pattern in (
            "a cropped photo of {article} {{}}.",
            "a close-up photo of {article} {{}}.",
            "a bright photo of {article} {{}}.",
            "a dark photo of {article} {{}}.",
            "a jpeg corrupted photo of {article} {{}}.",
            "a blurry photo of {article} {{}}.",
            "a photo of {article} {{}}.",
            "a photo of {article} small {{}}.",
            "a photo of {article} large {{}}.",
            "a photo of {article} {{}} for visual inspection.",
            "a photo of {article} {{}} for anomaly detection.",
        )
        for article in ("a", "the")
    ),
    spaces_for_underscores=True,
    normalise_each=True,
)

NAMED_PROMPT_SETS = {"reference": REFERENCE, "paper": PAPER}
_LISTS = ("normal_states", "anomalous_states", "templates")
# The published sets have 154 prompts for each state and class.
_MAX_PROMPTS, _MAX_CHARACTERS = 10_000, 1_000
_SWITCHES = ("spaces_for_underscores", "normalise_each")


def load_prompt_set(name: str) -> PromptSet:
    """A named prompt set, or one read from a JSON file.

    The file holds ``normal_states``, ``anomalous_states`` and ``templates``: lists of strings of up to
    1,000 characters, each with exactly one ``{}``, that give up to 10,000 prompts a state. It may hold
    ``spaces_for_underscores`` and ``normalise_each``, true or false; both are false where they are left
    out, as in ``reference``.

    Raises:
        InputError: if the name is unknown or the file is missing or malformed.
    """
    if name in NAMED_PROMPT_SETS:
        return NAMED_PROMPT_SETS[name]
    if not name.endswith(".json"):
        raise InputError(f"prompt set '{name}' is unknown; use {', '.join(NAMED_PROMPT_SETS)} or a .json file")
    return parse_prompt_set(read_json(name, "prompt set"), name)


def parse_prompt_set(content: Any, name: str) -> PromptSet:
    """The prompt set in a JSON object as in ``load_prompt_set``; errors mention ``name``.

    Raises:
        InputError: if it is malformed.
    """
    if not isinstance(content, dict) or not set(_LISTS) <= set(content) <= {*_LISTS, *_SWITCHES}:
        raise InputError(
            f"prompt set {name}: expected an object with exactly the keys {', '.join(_LISTS)},"
            f" and optionally {', '.join(_SWITCHES)}"
        )
    for field in _LISTS:
        entries = content[field]
        wrong = [entry for entry in entries if not _is_pattern(entry)] if isinstance(entries, list) else [entries]
        if wrong or not entries:
            raise InputError(
                f"prompt set {name}: '{field}' must be a list of at least one string, each in valid Unicode, with"
                f" exactly one {{}}, of at most {_MAX_CHARACTERS:,} characters; it has {reprlib.repr(wrong[:1])}"
            )
    prompts = max(len(content["normal_states"]), len(content["anomalous_states"])) * len(content["templates"])
    if prompts > _MAX_PROMPTS:
        raise InputError(f"prompt set {name} makes {prompts:,} prompts of a state; the limit is {_MAX_PROMPTS:,}")
    for field in _SWITCHES:
        if not isinstance(content.get(field, False), bool):
            raise InputError(f"prompt set {name}: '{field}' is {reprlib.repr(content[field])}; expected true or false")
    values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in content.items()}
    return PromptSet(**values)


def _is_pattern(entry: object) -> bool:
    fits = isinstance(entry, str) and entry.count("{}") == 1 and len(entry) <= _MAX_CHARACTERS
    return fits and not re.search(r"[\ud800-\udfff]", str(entry))


def with_states(
    prompts: PromptSet, normal_states: Sequence[str] | None = None, anomalous_states: Sequence[str] | None = None
) -> PromptSet:
    """A prompt set with its own states replaced by the given ones; the templates stay.

    Args:
        prompts: the prompt set to start from.
        normal_states, anomalous_states: at least one each, see ``state_pattern``; None keeps those
            of ``prompts``.

    Raises:
        InputError: if a list is empty or a state is empty or has more than one ``{}``.

    >>> own = with_states(PAPER, anomalous_states=["bent", "with a missing pin"])
    >>> own.anomalous_states
    ('bent {}', '{} with a missing pin')
    >>> own.anomalous("connector")[0]
    'a cropped photo of a bent connector.'
    """
    for name, states in (("normal_states", normal_states), ("anomalous_states", anomalous_states)):
        if states is not None and not states:
            raise InputError(f"{name} is empty; give at least one state, such as 'bent' or 'with a missing pin'")
        if states is not None:
            own: dict[str, Any] = {name: tuple(map(state_pattern, states))}
            prompts = replace(prompts, **own)
    return prompts


def state_pattern(state: str) -> str:
    """A state with one ``{}`` for the class name.

    A state with ``{}`` stays as it is. One that begins with ``with`` or ``without`` goes after the
    class name, any other before it.

    Raises:
        InputError: if the state is empty or has more than one ``{}``.

    >>> state_pattern("bent"), state_pattern("without a label"), state_pattern("broken {} in a box")
    ('bent {}', '{} without a label', 'broken {} in a box')
    """
    words = state.split()
    if not words or state.count("{}") > 1:
        raise InputError(f"state {state!r} must be words with at most one {{}}, the place of the class name")
    if "{}" in state:
        return state
    text = " ".join(words)
    return f"{{}} {text}" if words[0].lower() in ("with", "without") else f"{text} {{}}"
