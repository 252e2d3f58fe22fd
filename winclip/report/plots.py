"""Curves as small SVG drawings whose colours are CSS variables, so that one drawing serves light and dark."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

from winclip.metrics.formulas import PRO_LIMIT
from winclip.report.content import Growth
from winclip.report.curves import ClassCurves, Curve

# matplotlib wants colours as numbers; these stand for the page's CSS variables.
_VARIABLES = {
    "#010101": "var(--ink)",
    "#020202": "var(--muted)",
    "#030303": "var(--rule)",
    "#040404": "var(--good)",
    "#050505": "var(--bad)",
    "#060606": "var(--pixel)",
}
INK, MUTED, RULE, GOOD, BAD, PIXEL = _VARIABLES
_BINS = 20
# Any: its type in matplotlib is a literal of every setting.
_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "report",
    "font.size": 8,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": MUTED,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "text.color": MUTED,
}


def roc_plot(measured: ClassCurves) -> str:
    """The ROC curves of images and pixels, as SVG; empty if there is none."""
    return _draw(_lines(measured, "roc"), "false positive rate", "true positive rate", diagonal=True)


def precision_recall_plot(measured: ClassCurves) -> str:
    """The precision-recall curves of images and pixels, as SVG; empty if there is none."""
    return _draw(_lines(measured, "pr"), "recall", "precision", steps=True)


def pro_plot(measured: ClassCurves) -> str:
    """The per-region overlap up to the false positive rate of AUPRO, as SVG; empty if there is none."""
    return _draw(_lines(measured, "pro"), "false positive rate", "per-region overlap", right=PRO_LIMIT)


def score_histogram(measured: ClassCurves) -> str:
    """Numbers of good and defective images by score, and the threshold, as SVG."""
    scores = np.concatenate((measured.good, measured.defective))
    scores = scores[np.isfinite(scores)]
    # Scores that differ by less than float can part into bins lie in one bin, as equal ones do.
    close = scores.size > 0 and np.ptp(scores) < 1e-9
    edges = np.histogram_bin_edges(scores, _BINS, (scores.min() - 0.5, scores.max() + 0.5) if close else None)
    with rc_context(_STYLE):
        figure, axes = _axes("image score", "images")
        axes.yaxis.get_major_locator().set_params(integer=True)
        axes.grid(visible=False, axis="x")
        for values, colour in ((measured.good, GOOD), (measured.defective, BAD)):
            axes.hist(values, edges, color=colour, alpha=0.35)
            axes.hist(values, edges, histtype="step", color=colour, linewidth=1.2)
        if measured.threshold is not None:
            axes.axvline(measured.threshold, color=INK, linewidth=1, linestyle=(0, (4, 2)))
        return _svg(figure)


def growth_plot(growth: Growth, metrics: Sequence[str]) -> str:
    """Figures over the number of references, with a band of one standard deviation over seeds, as SVG.

    Args:
        growth: the figures.
        metrics: which of them; those that end in ``_sp`` are drawn as of images, others as of pixels.
    """
    with rc_context(_STYLE):
        figure, axes = _axes("references", "per cent")
        ends: list[float] = []
        for metric in metrics:
            known = [(place, *both) for place, both in enumerate(growth.figures[metric]) if both is not None]
            if not known:
                continue
            places, means, deviations = np.array(known).T
            colour = INK if metric.endswith("_sp") else PIXEL
            axes.fill_between(places, means - deviations, means + deviations, color=colour, alpha=0.2, linewidth=0)
            axes.plot(places, means, color=colour, linewidth=1.5, marker="o", markersize=3)
            ends += [*(means - deviations), *(means + deviations)]
        if not ends:
            return ""
        middle, half = (max(ends) + min(ends)) / 2, max(max(ends) - min(ends), 5) * 0.55
        axes.set_ylim(middle - half, middle + half)
        axes.set_xticks(range(len(growth.shots)), [str(number) for number in growth.shots])
        return _svg(figure)


def _lines(measured: ClassCurves, kind: str) -> list[tuple[Curve, str]]:
    colours = {f"{kind}_image": INK, f"{kind}_pixel": PIXEL}
    return [(measured.curves[name], colour) for name, colour in colours.items() if name in measured.curves]


def _draw(
    lines: list[tuple[Curve, str]],
    x_label: str,
    y_label: str,
    *,
    steps: bool = False,
    diagonal: bool = False,
    right: float = 1.0,
) -> str:
    if not lines:
        return ""
    with rc_context(_STYLE):
        figure, axes = _axes(x_label, y_label)
        margin = 0.02
        axes.set_xlim(-margin * right, (1 + margin) * right)
        axes.set_ylim(-margin, 1 + margin)
        axes.set_xticks(np.linspace(0, right, 4 if right < 1 else 6).round(2).tolist())
        if diagonal:
            axes.plot([0, 1], [0, 1], color=MUTED, linewidth=0.6, linestyle=(0, (2, 2)))
        for curve, colour in lines:
            axes.plot(curve.x, curve.y, color=colour, linewidth=1.5, drawstyle="steps-pre" if steps else "default")
        return _svg(figure)


def _axes(x_label: str, y_label: str) -> tuple[Figure, Any]:
    figure = Figure(figsize=(3, 2.3), layout="constrained")
    axes = figure.add_subplot(xlabel=x_label, ylabel=y_label)
    axes.patch.set_visible(False)
    return figure, axes


def _svg(figure: Figure) -> str:
    """The drawing without prolog, fixed size, background and ids, to stand inside HTML."""
    buffer = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    drawing = buffer.getvalue()
    drawing = drawing[drawing.index("<svg") :]
    drawing = re.sub(r'<svg [^>]*?viewBox="([^"]*)"[^>]*>', r'<svg viewBox="\1" aria-hidden="true">', drawing, count=1)
    drawing = re.sub(r'<g id="[^"]*">', "<g>", drawing)
    drawing = re.sub(r"\s*\n\s*", "\n", drawing)
    for number, variable in _VARIABLES.items():
        drawing = drawing.replace(number, variable)
    return drawing
