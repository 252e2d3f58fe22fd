"""One self-contained HTML page for one picture: the prompts, windows and good examples that make its score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from os import PathLike
from typing import Any

import numpy as np
from markupsafe import Markup
from PIL import Image

from winclip.explanation import Block, Explanation, Map, Memory, State
from winclip.pictures.drawing import colour, data_url, heat_map
from winclip.report.content import Table
from winclip.report.page import environment
from winclip.support.files import write_atomically
from winclip.thresholds import Threshold

# Colours of the chosen patch and of the scales in turn.
_COLOURS = ("#ff7f0e", "#7fd1ff", "#b8f34f", "#ff9de0")
_SHOWN_PROMPTS = 5
# Side of a map in pixels; windows become squares whose edges stay sharp.
_MAP_SIDE = 240


@dataclass(frozen=True)
class Subject:
    """What is explained.

    Attributes:
        name: name of the picture.
        picture: square, as the model gets it.
        references: names and square pictures of the good examples; None for each picture that the memory lacks.
        threshold: the decision threshold.
        facts: further lines of the header.
        temperature: temperature of the softmax.
    """

    name: str
    picture: Image.Image
    references: Sequence[tuple[str, Image.Image | None]]
    threshold: Threshold
    facts: Sequence[tuple[str, str]]
    temperature: float


@dataclass(frozen=True)
class _Panel:
    """A square picture of ``cells`` x ``cells``, some of them outlined in colours, and the two ends of its scale."""

    title: str
    alt: str
    picture: Image.Image
    cells: int
    outlines: Sequence[tuple[Block, str]] = ()
    scale: tuple[float, float] | None = None


def write_explanation(path: str | PathLike[str], explanation: Explanation, subject: Subject) -> None:
    """Write the page in one step.

    Raises:
        InputError: if the file cannot be written.
    """
    template, page = environment().get_template("explanation.html.jinja"), _page(explanation, subject)
    write_atomically(path, template.render(page=page, url=lambda picture: Markup(data_url(picture))))


def place(block: Block) -> str:
    """A block in words; rows and columns are counted from 0."""
    name = "patch" if block.side == 1 else f"{block.side} x {block.side} window"
    return f"{name} {block.row},{block.column}"


def verdict(found: Explanation, threshold: Threshold) -> str:
    """The verdict on a picture."""
    limit = threshold.of(found.score, found.probability, found.reference)
    return "not judged" if limit is None else "anomalous" if found.score > limit else "not anomalous"


def _page(found: Explanation, subject: Subject) -> dict[str, Any]:
    """The values for the template."""
    patch, grid = found.patch, len(found.zero)
    colours = subject.threshold.colours(float(np.median(found.map)), float(found.map.max()))
    at = patch.row, patch.column
    strongest = max(found.strongest, key=lambda window: _probability(found, window))
    queries = (("The whole picture", found.probability), (place(strongest), _probability(found, strongest)))
    means = ", ".join(f"{mean_map[at]:.3f} ({side} x {side})" for side, mean_map in zip(found.scales, found.mean_maps))
    mean_maps = [(f"harmonic mean, {side} x {side}", mean_map) for side, mean_map in zip(found.scales, found.mean_maps)]
    scale = _ends(found.windows)
    heated = heat_map(subject.picture, found.map, colours)
    return {
        "title": f"Why {subject.name} has its score",
        "temperature": f"{subject.temperature:g}",
        "facts": [
            ("score", f"{found.score:.4f}"),
            ("text part", f"{found.probability:.4f}"),
            *([] if found.reference is None else [("reference part", f"{found.reference:.4f}")]),
            ("verdict", verdict(found, subject.threshold)),
            ("anomalous", subject.threshold.limits or subject.threshold.unsure),
            ("looked at", place(patch)),
            *subject.facts,
        ],
        "result": [
            _picture("the picture as the model sees it", subject.picture, grid, [patch]),
            _Panel("its heat map", "the picture under its heat map", heated, grid, (), colours),
        ],
        "queries": [
            {
                "title": title,
                "probability": probability,
                "tables": [
                    _prompt_table("normal", found.normal, query),
                    _prompt_table("anomalous", found.anomalous, query),
                ],
            }
            for query, (title, probability) in enumerate(queries)
        ],
        "windows": [
            _picture(f"{grid} x {grid} patches", subject.picture, grid, [patch, *found.strongest]),
            *(
                _map(
                    f"p of the windows of {window.side} x {window.side}",
                    values,
                    scale,
                    [(replace(window, side=1), _outline(number))],
                )
                for number, (values, window) in enumerate(zip(found.windows, found.strongest), 1)
            ),
        ],
        "harmonic_text": (
            f"A patch gets the harmonic mean of the windows that hold it: {means} for {place(patch)}. Combined in the"
            f" same way with p = {found.probability:.3f} of the whole picture this is {found.zero[at]:.3f} in the"
            " zero-shot map."
        ),
        "harmonic": _maps([*mean_maps, ("zero-shot map", found.zero)], patch),
        **({"matches": []} if found.memory is None else _of_memory(found, found.memory, subject)),
    }


def _of_memory(found: Explanation, memory: Memory, subject: Subject) -> dict[str, Any]:
    """The template's values for the good examples."""
    patch, grid = found.patch, len(found.zero)
    mean, highest = memory.mean[patch.row, patch.column], memory.mean.max()
    outlined: dict[int, list[tuple[Block, str]]] = {}
    matches = []
    for number, match in enumerate(memory.matches):
        outlined.setdefault(match.reference, []).append((match.nearest, _outline(number)))
        there = f"{subject.references[match.reference][0]}, {place(match.nearest)}"
        matches.append((_outline(number), place(match.block), there, match.distance))
    pictures = [_picture("the picture", subject.picture, grid, [match.block for match in memory.matches])]
    for reference, outlines in sorted(outlined.items()):
        name, image = subject.references[reference]
        title = name if image is not None else f"{name}, whose picture is not in the memory file"
        shown = image or Image.new("RGB", (_MAP_SIDE, _MAP_SIDE), "grey")
        places = " and ".join(place(block) for block, _ in outlines)
        pictures.append(_Panel(title, f"{title}: {places}", shown, grid, outlines))
    titles = [*(f"distance, {side} x {side}" for side in found.scales), "distance, patches"]
    return {
        "memory_text": (
            f"The mean of the distance maps is {mean:.3f} at {place(patch)} and at most {highest:.3f}. It is added to"
            f" the zero-shot map, and the score is half of {found.probability:.3f} + {highest:.3f}."
        ),
        "matches": matches,
        "pictures": pictures,
        "distances": _maps([*zip(titles, memory.mean_maps), ("their mean", memory.mean)], patch),
    }


def _probability(found: Explanation, window: Block) -> float:
    return float(found.windows[found.scales.index(window.side)][window.row, window.column])


def _picture(title: str, picture: Image.Image, grid: int, blocks: Sequence[Block]) -> _Panel:
    """The picture; the first block is the patch, and the others follow the scales."""
    outlines = [(block, _outline(number)) for number, block in enumerate(blocks)]
    return _Panel(title, f"the picture, outlined: {' and '.join(map(place, blocks))}", picture, grid, outlines)


def _maps(maps: Sequence[tuple[str, Map]], patch: Block) -> list[_Panel]:
    """Maps on the patch grid with one common colour scale, the chosen patch outlined."""
    scale = _ends([values for _, values in maps])
    return [_map(title, values, scale, [(patch, _outline(0))]) for title, values in maps]


def _ends(maps: Sequence[Map]) -> tuple[float, float]:
    return min(float(values.min()) for values in maps), max(float(values.max()) for values in maps)


def _outline(number: int) -> str:
    """The colour of the patch, 0, or of a scale, from 1."""
    return _COLOURS[0] if number == 0 else _COLOURS[1 + (number - 1) % (len(_COLOURS) - 1)]


def _map(title: str, values: Map, scale: tuple[float, float], outlines: Sequence[tuple[Block, str]]) -> _Panel:
    low, high = scale
    row, column = np.unravel_index(int(values.argmax()), values.shape)
    alt = f"{title}: {values.min():.3f} to {values.max():.3f}, the highest at {row},{column}"
    # If all values are equal, they do not define a scale.
    squares = colour(values, low, max(high, low + 1e-6)).resize((_MAP_SIDE, _MAP_SIDE), Image.Resampling.NEAREST)
    return _Panel(title, alt, squares, len(values), outlines, scale)


def _prompt_table(name: str, state: State, query: int) -> Table:
    order = np.argsort(-state.part[query], kind="stable")[:_SHOWN_PROMPTS]
    rows = [[f"“{state.prompts[n]}”", f"{state.cosine[query, n]:.4f}", f"{state.part[query, n]:.5f}"] for n in order]
    total = [f"all {len(state.prompts)} different ones", "", f"{state.direction[query]:.5f}"]
    return Table(name, ("cosine", "part"), rows, total)
