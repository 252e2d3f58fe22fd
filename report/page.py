"""From a report's content to one HTML file without any link to the outside."""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup
from PIL import Image

from report.content import Card, Report, Result
from report.curves import ClassCurves
from report.pictures import COLOURS, heat_picture, outline, thumbnail
from report.plots import precision_recall_plot, pro_plot, roc_plot, score_histogram
from winclip.files import write_atomically
from winclip.images import read_image

_HERE = Path(__file__).parent
_LABELS = {0: "good", 1: "defective", None: ""}


def render(report: Report) -> str:
    """The page as text; reads every card's image once.

    Raises:
        InputError: if an image cannot be read; the message names it.
    """
    script = (_HERE / "page.js").read_text(encoding="utf-8")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html.jinja").render(
        report=report,
        gallery=_gallery(report),
        plots=_plots,
        colours=[_hex(value) for value in np.linspace(0, 1, 17)],
        style=Markup((_HERE / "page.css").read_text(encoding="utf-8")),
        script=Markup(script),
        # The browser runs this script and no other, whatever the names on the page contain.
        script_hash=base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii"),
    )


def write_report(path: str | PathLike[str], report: Report) -> None:
    """Write the page in one step.

    Raises:
        InputError: if an image cannot be read or the file cannot be written.
    """
    write_atomically(path, render(report))


def outcome(label: int | None, result: Result) -> str:
    """How a score and its threshold compare with the label, as the page says it."""
    if result.threshold is None:
        return "no threshold"
    above = result.score >= result.threshold if result.anomalous is None else result.anomalous
    if label is None:
        return "anomalous" if above else "not anomalous"
    if above == (label == 1):
        return "right"
    return "false alarm" if above else "missed defect"


def worst_first(labels: list[int | None], results: list[Result]) -> list[int]:
    """Positions in the order of the gallery.

    Wrong ones come first, those farthest from their threshold before others; then right ones, those
    nearest to it first. Without labels the highest above the threshold come first. Images without
    threshold are last, the highest scores first.
    """

    def key(position: int) -> tuple[int, float]:
        label, result = labels[position], results[position]
        if result.threshold is None or not math.isfinite(result.score):
            return 2, -result.score if math.isfinite(result.score) else math.inf
        wrong_by = (result.score - result.threshold) * (-1 if label == 1 else 1)
        return int(outcome(label, result) == "right"), -wrong_by

    return sorted(range(len(results)), key=key)


def _gallery(report: Report) -> dict[str, Any]:
    """What the script shows: cards, and for every setting their results and order."""
    cards: list[dict[str, Any]] = []
    labels: list[int | None] = []
    results: list[list[Result]] = [[] for _ in report.settings]
    pictures: list[list[str]] = [[] for _ in report.settings]
    for card in report.cards:
        image = card.image if isinstance(card.image, Image.Image) else read_image(card.image)
        cards.append(_card(card, image))
        labels.append(card.label)
        for number, result in enumerate(card.results):
            results[number].append(replace(result, heat_map=np.empty(0)))
            drawn = result.heat_map
            pictures[number].append(
                thumbnail(drawn) if isinstance(drawn, Image.Image) else heat_picture(drawn, image.size)
            )
    settings = [
        {
            "name": setting.name,
            "order": worst_first(labels, results[number]),
            "results": [
                {
                    "score": f"{result.score:.4f}",
                    "threshold": "-" if result.threshold is None else f"{result.threshold:.4f}",
                    "outcome": outcome(label, result),
                    "heat": picture,
                }
                for label, result, picture in zip(labels, results[number], pictures[number])
            ],
        }
        for number, setting in enumerate(report.settings)
    ]
    return {"cards": cards, "settings": settings}


def _card(card: Card, image: Image.Image) -> dict[str, Any]:
    return {
        "name": card.name,
        "class": card.class_name,
        "type": card.defect_type or _LABELS[card.label],
        "label": _LABELS[card.label],
        "width": image.width,
        "height": image.height,
        "photo": thumbnail(image),
        "outline": "" if card.mask is None else outline(card.mask),
        "masked": card.mask is not None,
    }


def _plots(measured: ClassCurves) -> list[dict[str, Any]]:
    """The four panels of a class."""
    missing = measured.missing
    reasons, pixel_reason = "; ".join(missing.values()), missing.get("pixel", "")
    return [
        _panel(measured, "ROC", "AUROC", ("auroc_sp", "auroc_px"), roc_plot, reasons),
        _panel(measured, "Precision-recall", "AP", ("ap_sp", "ap_px"), precision_recall_plot, reasons),
        _panel(measured, "PRO", "AUPRO", ("aupro",), pro_plot, pixel_reason),
        _panel(measured, "Scores", "", (), score_histogram, ""),
    ]


def _panel(
    measured: ClassCurves,
    title: str,
    name: str,
    metrics: Sequence[str],
    draw: Callable[[ClassCurves], str],
    reason: str,
) -> dict[str, Any]:
    """Title, figures of the lines, a drawing that is empty without lines, and why lines are missing."""
    figures = [
        ("image" if metric.endswith("_sp") else "pixel", f"{100 * measured.figures[metric]:.1f}")
        for metric in metrics
        if metric in measured.figures
    ]
    # Drawings are our own and hold no text from outside.
    drawing = Markup(draw(measured))
    return {"title": title, "metric": name, "figures": figures, "drawing": drawing, "reason": reason}


def _hex(value: float) -> str:
    red, green, blue, _ = COLOURS(value, bytes=True)
    return f"#{red:02x}{green:02x}{blue:02x}"
