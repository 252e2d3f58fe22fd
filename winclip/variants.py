"""How the public implementations of WinCLIP differ in their computations: one switch each, off by default.

docs/variants.md names the implementations and says what each switch can change.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace
from typing import Any

from winclip.defaults import TEMPERATURE, check_temperature
from winclip.prompts import NAMED_PROMPT_SETS, PromptSet
from winclip.support.errors import InputError

_YES_NO = {"yes": True, "no": False}


def _switch(*values: str) -> Any:
    """A field with these values, the first of which is the reference's."""
    return field(default=_YES_NO.get(values[0], values[0]), metadata={"values": values})


@dataclass(frozen=True)
class Variant:
    """A way of computing; the defaults follow the reference.

    Attributes:
        templates: templates of the prompts; ``paper`` has all 22 (caoyunkang, mala).
        full_stop: full stop at the end of a prompt; caoyunkang has none.
        spaces: spaces instead of the underscores of a class name (mala).
        unit_prompts: prompt embeddings are scaled to length 1 before their mean is taken (mala).
        temperature: temperature of the softmax, above 0; 0.01 in caoyunkang and mala.
        harmonic_of: the probability averaged harmonically in the zero-shot map; ``normal``: then 1 - map (caoyunkang).
        map_scales: the inputs of the zero-shot map; ``windows``: without the image's own score (caoyunkang).
        patch_tokens: used in the few-shot map: ``raw``, ``ln_post``: after the last layer norm (anomalib), or ``none``
            (caoyunkang).
        window_mean: over the windows that hold a patch, few-shot (``arithmetic``: caoyunkang).
        bank_slip: the first window of a larger scale meets the bank of the next smaller one (a fault of caoyunkang).
        join: of the zero-shot map z and the few-shot map f: z + f, (z + f) / 2 (anomalib), or z f / (z + f), and
            zero-shot z / 2 (caoyunkang).
        image_score: ``class_token``, or ``map_max``: the highest value of the upsampled map (caoyunkang).
        prepare: how a picture becomes square: ``straight``; ``float``: the same, neither rounded nor clipped
            (anomalib); ``via1024``: through 1024 x 1024 without antialiasing (caoyunkang); ``crop``: its centre
            (LAFT); ``tiles``: overlapping squares from left to right, whose scores are averaged (mala).
        bgr_tests: test pictures have red and blue swapped, references not (a fault of caoyunkang).
        unscaled_references: references lack the normalisation by mean and deviation (a fault of anomalib's trainer).
    """

    templates: str = _switch("reference", "paper")
    full_stop: bool = _switch("yes", "no")
    spaces: bool = _switch("no", "yes")
    unit_prompts: bool = _switch("no", "yes")
    temperature: float = field(default=TEMPERATURE, metadata={"values": ()})
    harmonic_of: str = _switch("anomalous", "normal")
    map_scales: str = _switch("image+windows", "windows")
    patch_tokens: str = _switch("raw", "ln_post", "none")
    window_mean: str = _switch("harmonic", "arithmetic")
    bank_slip: bool = _switch("no", "yes")
    join: str = _switch("sum", "mean", "product_over_sum")
    image_score: str = _switch("class_token", "map_max")
    prepare: str = _switch("straight", "float", "via1024", "crop", "tiles")
    bgr_tests: bool = _switch("no", "yes")
    unscaled_references: bool = _switch("no", "yes")

    @property
    def prompts(self) -> PromptSet:
        """The prompt set of the first four switches."""
        named = NAMED_PROMPT_SETS[self.templates]
        templates = tuple(text if self.full_stop else text.removesuffix(".") for text in named.templates)
        return replace(named, templates=templates, spaces_for_underscores=self.spaces, normalise_each=self.unit_prompts)

    @property
    def encoding(self) -> Variant:
        """The reference with this variant's switches that affect how images are encoded."""
        last_norm = "ln_post" if self.patch_tokens == "ln_post" else "raw"
        faults: dict[str, Any] = {"bgr_tests": self.bgr_tests, "unscaled_references": self.unscaled_references}
        return Variant(prepare=self.prepare, patch_tokens=last_norm, **faults)

    def changes(self, since: Variant) -> dict[str, Any]:
        """The switches that differ from another variant, with their values, in order."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        return {name: value for name, value in values.items() if value != getattr(since, name)}

    @property
    def name(self) -> str:
        """The text for ``parse_variant``: the nearest name, and the switches that differ from it."""
        nearest = min(NAMED, key=lambda name: len(self.changes(NAMED[name])))
        return ",".join([nearest, *(stated(*change) for change in self.changes(NAMED[nearest]).items())])


REFERENCE = Variant()
_ANOMALIB = Variant(patch_tokens="ln_post", join="mean", prepare="float")
# The evidence on the paper's own code comes from mala's authors, who asked the paper's authors, and from image scores
# alone.
_PAPER = Variant(templates="paper", spaces=True, unit_prompts=True, temperature=0.01)
NAMED = {
    "reference": REFERENCE,
    "paper": _PAPER,
    "anomalib": _ANOMALIB,
    "anomalib-trainer": replace(_ANOMALIB, unscaled_references=True),
    "caoyunkang": Variant(
        templates="paper",
        full_stop=False,
        temperature=0.01,
        harmonic_of="normal",
        map_scales="windows",
        patch_tokens="none",
        window_mean="arithmetic",
        bank_slip=True,
        join="product_over_sum",
        image_score="map_max",
        prepare="via1024",
        bgr_tests=True,
    ),
    "mala": replace(_PAPER, prepare="tiles"),
}
_TEXT = ("templates", "full_stop", "spaces", "unit_prompts", "temperature")
HELP = (
    "reference, paper (the best public evidence of it, not established), anomalib, anomalib-trainer, caoyunkang, mala;"
    " NAME,switch=value changes a switch, see docs/variants.md"
)


def stated(switch: str, value: Any) -> str:
    """A switch with its value as ``parse_variant`` accepts it."""
    return f"{switch}={('no', 'yes')[value] if isinstance(value, bool) else value}"


def parse_variant(text: str) -> Variant:
    """The variant of ``NAME`` or ``NAME,switch=value,...``.

    Raises:
        InputError: if a name, switch or value is unknown; the message names near matches.
    """
    name, *changes = text.split(",")
    if "=" in name:
        raise InputError(f"variant '{name}' has no name; join it with commas, such as reference,{name}")
    if name not in NAMED:
        raise InputError(f"variant '{name}' is unknown; {_near(name, NAMED)}")
    variant, switches = NAMED[name], {each.name: each.metadata["values"] for each in fields(Variant)}
    for change in changes:
        switch, _, value = change.partition("=")
        if [one.partition("=")[0] for one in changes].count(switch) > 1:
            raise InputError(f"variant '{text}' sets {switch} twice; set it once")
        if switch not in switches:
            raise InputError(f"variant '{text}': switch '{switch}' is unknown; {_near(switch, switches)}")
        parsed: Any = _YES_NO.get(value, value)
        if switch == "temperature":
            try:
                parsed = check_temperature(float(value))
            except ValueError as error:
                raise InputError(f"variant '{text}': temperature takes a number above 0, not '{value}'") from error
        elif value not in switches[switch]:
            raise InputError(f"variant '{text}': {switch} takes {' or '.join(switches[switch])}, not '{value}'")
        variant = replace(variant, **{switch: parsed})
    return variant


def check_text_alone(variant: Variant, what: str) -> None:
    """Refuse variants that differ from the reference in more than prompts and temperature; ``what`` does not allow it.

    Raises:
        InputError: naming the switches.
    """
    text = replace(REFERENCE, **{name: getattr(variant, name) for name in _TEXT})
    others = ", ".join(stated(*change) for change in variant.changes(text).items())
    if others:
        none = "; without patch tokens there is no nearest patch" if variant.patch_tokens == "none" else ""
        raise InputError(f"variant {variant.name}: {what} cannot follow {others}{none}; it can follow {text.name}")


def check_image_only(variant: Variant) -> None:
    """Raises: InputError: if a variant's score needs more than the image's own embedding."""
    if variant.image_score == "map_max":
        raise InputError(
            f"variant {variant.name}: its score is the highest value of the map, which needs windows; leave out"
            " --image_only, or add image_score=class_token"
        )


def steps(first: Variant, last: Variant) -> Iterator[tuple[str, Variant]]:
    """The chain from one variant to another in steps of one switch: what changes, and the resulting variant."""
    made: dict[str, Any] = {}
    yield first.name, first
    for switch, value in last.changes(first).items():
        made[switch] = value
        yield stated(switch, value), replace(first, **made)


def _near(name: str, known: Any) -> str:
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
    return f"near matches: {', '.join(near)}" if near else f"there are {', '.join(known)}"
