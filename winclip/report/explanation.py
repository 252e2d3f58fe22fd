"""One self-contained HTML page of one picture: which sentences, windows and good examples make its score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike

import numpy as np
import numpy.typing as npt
from markupsafe import Markup
from PIL import Image

from winclip.explanation import Block, Explanation, Memory, State
from winclip.pictures.drawing import colour, data_url, heat_map
from winclip.report.content import Table
from winclip.report.page import environment
from winclip.support.files import write_atomically
from winclip.thresholds import Threshold

# Of the chosen patch and, in turns, of the scales.
_COLOURS = ("#ff7f0e", "#7fd1ff", "#b8f34f", "#ff9de0")
_SHOWN_PROMPTS = 5
# Pixels of a map; windows become squares whose edges stay sharp.
_MAP_SIDE = 240


@dataclass(frozen=True)
class Subject:
    """What is explained.

    Attributes:
        name: of the picture.
        picture: square, as the model sees it.
        references: names and pictures of the good examples, those likewise; None for each that a memory came without.
        threshold: where good ends.
        facts: further lines of the header.
        temperature: of the softmax.
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


@dataclass(frozen=True)
class _Query:
    """What the sentences say of a part of the picture."""

    title: str
    probability: float
    tables: Sequence[Table]


def write_explanation(path: str | PathLike[str], explanation: Explanation, subject: Subject) -> None:
    """Write the page in one step.

    Raises:
        InputError: if the file cannot be written.
    """
    page = (
        environment()
        .get_template("explanation.html.jinja")
        .render(page=_Page(explanation, subject), url=lambda picture: Markup(data_url(picture)))
    )
    write_atomically(path, page)


def place(block: Block) -> str:
    """A block in words; places are counted from 0."""
    name = "patch" if block.side == 1 else f"{block.side} x {block.side} window"
    return f"{name} {block.row},{block.column}"


def verdict(score: float, threshold: Threshold) -> str:
    """What comes of a score."""
    return "anomalous" if score > threshold.score else "not anomalous"


class _Page:
    """What the template shows."""

    def __init__(self, explanation: Explanation, subject: Subject) -> None:
        self._found, self._subject = explanation, subject
        self._grid = len(explanation.zero)
        self.title = f"Why {subject.name} has its score"
        self.temperature = f"{subject.temperature:g}"
        self.facts = [
            ("score", f"{explanation.score:.4f}"),
            ("threshold", f"{subject.threshold.score:.4f}"),
            ("verdict", verdict(explanation.score, subject.threshold)),
            ("looked at", place(explanation.patch)),
            *subject.facts,
        ]
        self.result = self._result()
        self.queries = self._queries()
        self.windows = self._windows()
        self.harmonic_text, self.harmonic = self._harmonic()
        self.matches: list[tuple[str, str, str, float]] = []
        if explanation.memory is not None:
            self._add_memory(explanation.memory)

    def _result(self) -> list[_Panel]:
        low, high = self._subject.threshold.colours
        heated = heat_map(self._subject.picture, self._found.map, (low, high))
        return [
            self._picture("the picture as the model sees it", [self._found.patch]),
            _Panel("its heat map", "the picture under its heat map", heated, self._grid, (), (low, high)),
        ]

    def _queries(self) -> list[_Query]:
        probabilities = [self._found.probability, max(map(self._probability, self._found.strongest))]
        strongest = max(self._found.strongest, key=self._probability)
        states = (("normal", self._found.normal), ("anomalous", self._found.anomalous))
        return [
            _Query(title, probability, [_prompt_table(name, state, query) for name, state in states])
            for query, (title, probability) in enumerate(zip(("The whole picture", place(strongest)), probabilities))
        ]

    def _probability(self, window: Block) -> float:
        windows = self._found.windows[self._found.scales.index(window.side)]
        return float(windows[window.row, window.column])

    def _windows(self) -> list[_Panel]:
        blocks = [self._found.patch, *self._found.strongest]
        low = min(float(values.min()) for values in self._found.windows)
        high = max(float(values.max()) for values in self._found.windows)
        panels = [self._picture(f"{self._grid} x {self._grid} patches", blocks)]
        for number, (values, window) in enumerate(zip(self._found.windows, self._found.strongest), 1):
            title = f"p of the windows of {window.side} x {window.side}"
            cell = Block(window.row, window.column, 1)
            panels.append(_map(title, values, (low, high), [(cell, _outline(number))]))
        return panels

    def _harmonic(self) -> tuple[str, list[_Panel]]:
        found, patch = self._found, self._found.patch
        at = (patch.row, patch.column)
        means = ", ".join(f"{spread[at]:.3f} ({side} x {side})" for side, spread in zip(found.scales, found.spreads))
        text = (
            f"A patch takes the harmonic mean of the windows that hold it: {means} for {place(patch)}. Joined in the"
            f" same way with p = {found.probability:.3f} of the whole picture this is {found.zero[at]:.3f} in the"
            " zero-shot map."
        )
        maps = [(f"harmonic mean, {side} x {side}", spread) for side, spread in zip(found.scales, found.spreads)]
        return text, self._maps([*maps, ("zero-shot map", found.zero)])

    def _add_memory(self, memory: Memory) -> None:
        found, at = self._found, (self._found.patch.row, self._found.patch.column)
        self.memory_text = (
            f"The mean of the distance maps is {memory.mean[at]:.3f} at {place(found.patch)} and at most"
            f" {memory.mean.max():.3f}. It is added to the zero-shot map, and the score is half of"
            f" {found.probability:.3f} + {memory.mean.max():.3f}."
        )
        outlined: dict[int, list[tuple[Block, str]]] = {}
        for number, match in enumerate(memory.matches):
            outlined.setdefault(match.reference, []).append((match.nearest, _outline(number)))
            there = f"{self._subject.references[match.reference][0]}, {place(match.nearest)}"
            self.matches.append((_outline(number), place(match.block), there, match.distance))
        self.pictures = [self._picture("the picture", [match.block for match in memory.matches])]
        for reference, outlines in sorted(outlined.items()):
            name, image = self._subject.references[reference]
            title = name if image is not None else f"{name}, whose picture is not in the memory file"
            shown = image or Image.new("RGB", (_MAP_SIDE, _MAP_SIDE), "grey")
            places = " and ".join(place(block) for block, _ in outlines)
            self.pictures.append(_Panel(title, f"{title}: {places}", shown, self._grid, outlines))
        titles = [*(f"distance, {side} x {side}" for side in found.scales), "distance, patches"]
        self.distances = self._maps([*zip(titles, memory.spreads), ("their mean", memory.mean)])

    def _picture(self, title: str, blocks: Sequence[Block]) -> _Panel:
        """The picture; the first block is the patch, and the others follow the scales."""
        outlines = [(block, _outline(number)) for number, block in enumerate(blocks)]
        alt = f"the picture, outlined: {' and '.join(map(place, blocks))}"
        return _Panel(title, alt, self._subject.picture, self._grid, outlines)

    def _maps(self, maps: Sequence[tuple[str, npt.NDArray[np.float64]]]) -> list[_Panel]:
        """Maps on the patch grid in one scale of colours, the chosen patch outlined."""
        scale = min(float(values.min()) for _, values in maps), max(float(values.max()) for _, values in maps)
        return [_map(title, values, scale, [(self._found.patch, _outline(0))]) for title, values in maps]


def _outline(number: int) -> str:
    """The colour of the patch, 0, or of a scale, from 1."""
    return _COLOURS[0] if number == 0 else _COLOURS[1 + (number - 1) % (len(_COLOURS) - 1)]


def _map(
    title: str, values: npt.NDArray[np.float64], scale: tuple[float, float], outlines: Sequence[tuple[Block, str]]
) -> _Panel:
    low, high = scale
    row, column = np.unravel_index(int(values.argmax()), values.shape)
    alt = f"{title}: {values.min():.3f} to {values.max():.3f}, the highest at {row},{column}"
    # Equal values have no scale of their own.
    squares = colour(values, low, max(high, low + 1e-6)).resize((_MAP_SIDE, _MAP_SIDE), Image.Resampling.NEAREST)
    return _Panel(title, alt, squares, len(values), outlines, scale)


def _prompt_table(name: str, state: State, query: int) -> Table:
    order = np.argsort(-state.part[query], kind="stable")[:_SHOWN_PROMPTS]
    rows = [[f"“{state.prompts[n]}”", f"{state.cosine[query, n]:.4f}", f"{state.part[query, n]:.5f}"] for n in order]
    total = [f"all {len(state.prompts)} different ones", "", f"{state.direction[query]:.5f}"]
    return Table(name, ("cosine", "part"), rows, total)
