"""From a report's content to one HTML file without any link to the outside."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from winclip.metrics.formulas import REGISTRY
from winclip.pictures.drawing import COLOURS
from winclip.report.content import Card, Growth, Report, Result
from winclip.report.curves import ClassCurves
from winclip.report.pictures import outline, thumbnail
from winclip.report.plots import growth_plot, precision_recall_plot, pro_plot, roc_plot, score_histogram
from winclip.support.files import write_atomically
from winclip.support.names import printable

_HERE = Path(__file__).parent
# By title, those of images and of pixels.
_GROWTH = {
    metric.title: [other.name for other in reversed(REGISTRY) if other.title == metric.title] for metric in REGISTRY
}
_LABELS = {0: "good", 1: "defective", None: ""}


def render(report: Report) -> str:
    """The page as text; every card is drawn once, one at a time."""
    script = (_HERE / "page.js").read_text(encoding="utf-8")
    return (
        environment()
        .get_template("page.html.jinja")
        .render(
            report=report,
            gallery=_gallery(report),
            plots=_plots,
            growth_plots=_growth_plots,
            script=Markup(script),
            # The browser runs this script and no other, whatever the names on the page contain.
            script_hash=base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii"),
        )
    )


def environment() -> jinja2.Environment:
    """What the templates of this folder are filled in with: escaped text, the colours of maps, and the style sheet."""
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
    """What the script shows: cards, and for every setting their results and order."""
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
        "score": f"{result.score:.4f}",
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


def _growth_plots(growth: Growth) -> list[dict[str, Any]]:
    """A panel for each kind of metric, with the first and the last figure in words."""
    panels = []
    for title, metrics in _GROWTH.items():
        figures = []
        for metric in metrics:
            known = [both[0] for both in growth.figures[metric] if both is not None]
            if known:
                figures.append((_kind(metric), f"{known[0]:.1f} to {known[-1]:.1f}"))
        drawing = Markup(growth_plot(growth, metrics))
        panels.append({"title": title, "metric": "", "figures": figures, "drawing": drawing, "reason": ""})
    return panels


def _kind(metric: str) -> str:
    return "image" if metric.endswith("_sp") else "pixel"


def _panel(
    measured: ClassCurves,
    title: str,
    name: str,
    metrics: Sequence[str],
    draw: Callable[[ClassCurves], str],
    reason: str,
) -> dict[str, Any]:
    """Title, figures of the lines, a drawing that is empty without lines, and why lines are missing."""
    figures = [(_kind(metric), measured.figures[metric]) for metric in metrics if metric in measured.figures]
    # Drawings are our own and hold no text from outside.
    drawing = Markup(draw(measured))
    return {"title": title, "metric": name, "figures": figures, "drawing": drawing, "reason": reason}
