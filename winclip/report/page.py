"""Renders a report to one HTML file without external links."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import cv2
import jinja2
import numpy as np
import numpy.typing as npt
from markupsafe import Markup
from PIL import Image

from winclip.pictures.drawing import COLOURS, colour, data_url
from winclip.report.content import Card, Report, Result
from winclip.report.plots import class_panels, growth_panels
from winclip.support.files import write_atomically
from winclip.support.names import printable

_HERE = Path(__file__).parent
_LABELS = {0: "good", 1: "defective", None: ""}
SIDE = 320
# Largest number of characters of a thumbnail's data URI, and of an outline.
LARGEST, LONGEST_OUTLINE = 55_000, 20_000
# Heat maps are smooth, so they need fewer pixels and characters.
HEAT_SIDE, LARGEST_HEAT = 160, 12_000


def render(report: Report) -> str:
    """The page as text; the cards are drawn one at a time."""
    script = (_HERE / "page.js").read_text(encoding="utf-8")
    return (
        environment()
        .get_template("page.html.jinja")
        .render(
            report=report,
            gallery=_gallery(report),
            class_panels=class_panels,
            growth_panels=growth_panels,
            script=Markup(script),
            # The browser runs only this script, whatever the names on the page contain.
            script_hash=base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii"),
        )
    )


def environment() -> jinja2.Environment:
    """The environment of this folder's templates: escaped text, the colours of maps, and the style sheet."""
    found = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE),
        autoescape=True,
        finalize=lambda value: printable(value) if type(value) is str else value,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.globals["colours"] = ["#" + bytes(colour).hex() for colour in COLOURS[:: len(COLOURS) // 17]]
    found.globals["style"] = Markup((_HERE / "page.css").read_text(encoding="utf-8"))
    return found


def write_report(path: str | PathLike[str], report: Report) -> None:
    """Write the page in one step.

    Raises:
        InputError: if the file cannot be written.
    """
    write_atomically(path, render(report))


def _gallery(report: Report) -> dict[str, Any]:
    """The script's data: cards, and for every setting their results and order."""
    cards: list[dict[str, Any]] = []
    results: list[list[dict[str, str]]] = [[] for _ in report.settings]
    ranks: list[list[tuple[float, ...]]] = [[] for _ in report.settings]
    for card in report.cards:
        cards.append(_card(card))
        for number, result in enumerate(card.results):
            results[number].append(_result(result))
            ranks[number].append(result.rank)
    settings = [
        {"name": setting.name, "order": [number for _, number in sorted(zip(rank, range(len(rank))))], "results": shown}
        for setting, rank, shown in zip(report.settings, ranks, results)
    ]
    return {"cards": cards, "settings": settings}


def _result(result: Result) -> dict[str, str]:
    return {
        "score": f"{result.score:.4f} ({result.parts})" if result.parts else f"{result.score:.4f}",
        "threshold": "-" if result.threshold is None else f"{result.threshold:.4f}",
        "outcome": result.outcome,
        "heat": thumbnail(result.heat_map),
    }


def _card(card: Card) -> dict[str, Any]:
    return {
        "name": printable(card.name),
        "class": printable(card.class_name),
        "type": printable(card.defect_type) or _LABELS[card.label],
        "label": _LABELS[card.label],
        "width": card.image.width,
        "height": card.image.height,
        "photo": thumbnail(card.image),
        "outline": "" if card.mask is None else outline(card.mask),
        "masked": card.mask is not None,
    }


def thumbnail_size(size: Sequence[int], side: int) -> tuple[int, int]:
    """Width and height of a picture that fits into a square; never larger than the picture itself."""
    scale = min(1.0, side / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def thumbnail(image: Image.Image) -> str:
    """An RGB image, at most SIDE pixels a side, as a WebP data URI."""
    small = image.resize(thumbnail_size(image.size, SIDE), Image.Resampling.LANCZOS, reducing_gap=3.0)
    # Noise compresses badly; the lower quality keeps the page within its size.
    for quality in (80, 60, 40, 20):
        uri = data_url(small, quality)
        if len(uri) <= LARGEST:
            break
    return uri


def heat_picture(heat_map: npt.NDArray[np.floating], size: tuple[int, int]) -> Image.Image:
    """A small heat map in colours from 0 to 1, with the aspect ratio of its image, RGB.

    Args:
        heat_map: (h, w); values outside [0, 1] are drawn as the nearest end.
        size: width and height of the image.
    """
    return colour(cv2.resize(np.float32(heat_map), thumbnail_size(size, HEAT_SIDE), interpolation=cv2.INTER_LINEAR))


def outline(mask: npt.NDArray[np.bool_]) -> str:
    """The borders of a mask's regions as an SVG path, in a square of 100 x 100 over the whole image.

    If the borders are longer than ``LONGEST_OUTLINE``, the box around all regions instead.

    Args:
        mask: (h, w) bool.
    """
    height, width = mask.shape
    # A pixel becomes 2 x 2, so borders can enclose single pixels; the margin keeps the borders at the edge.
    enlarged = np.pad(mask.repeat(2, 0).repeat(2, 1).astype(np.uint8), 1)
    contours, _ = cv2.findContours(enlarged, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    parts = []
    for contour in contours:
        simple = cv2.approxPolyDP(contour, max(1.0, max(mask.shape) / 400), closed=True)[:, 0]
        points = (simple - 0.5) / (2 * width, 2 * height) * 100
        parts.append("M" + " ".join(f"{x:.1f},{y:.1f}" for x, y in points.clip(0, 100)) + "Z")
    path = "".join(parts)
    if len(path) <= LONGEST_OUTLINE:
        return path
    box = np.zeros_like(mask)
    rows, columns = mask.any(axis=1).nonzero()[0], mask.any(axis=0).nonzero()[0]
    box[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = True
    return outline(box)
