"""Plots of the report as small SVG drawings with CSS variables as colours, for light and dark, and difference plots."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.figure import Figure

from winclip.metrics.formulas import PRO_LIMIT, REGISTRY
from winclip.report.content import Growth
from winclip.report.curves import ClassCurves

# matplotlib needs numeric colours; these stand for the page's CSS variables.
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
# By title, the curves of images and of pixels.
_GROWTH = {each.title: [other.name for other in reversed(REGISTRY) if other.title == each.title] for each in REGISTRY}
# Any: its type in matplotlib is a literal of every setting.
_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "report",
    "font.size": 8,
    **dict.fromkeys(("axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color", "text.color"), MUTED),
    **dict.fromkeys(("axes.linewidth", "grid.linewidth", "xtick.major.width", "ytick.major.width"), 0.6),
    **dict.fromkeys(("axes.spines.top", "axes.spines.right"), False),
    **dict.fromkeys(("axes.grid", "axes.axisbelow"), True),
    "grid.color": RULE,
}

# For a class and a metric: the difference and the ends of its interval, in per cent.
Differences = Mapping[tuple[str, str], tuple[float, float, float]]


class Panel(NamedTuple):
    """A plot with its text.

    Attributes:
        title: what is drawn.
        metric: what the figures are, such as ``AUROC``.
        figures: the kind and the figure of each line.
        drawing: SVG; empty without lines.
        reason: why lines are missing.
    """

    title: str
    metric: str
    figures: Sequence[tuple[str, str]]
    drawing: Markup
    reason: str


def class_panels(measured: ClassCurves) -> list[Panel]:
    """The four panels of a class."""
    of_pixels, every = measured.missing.get("pixel", ""), "; ".join(measured.missing.values())
    roc = _curves(measured, "roc", "false positive rate", "true positive rate", diagonal=True)
    precision_recall = _curves(measured, "pr", "recall", "precision", steps=True)
    pro = _curves(measured, "pro", "false positive rate", "per-region overlap", right=PRO_LIMIT)

    def figures(*metrics: str) -> list[tuple[str, str]]:
        return [(_kind(metric), measured.figures[metric]) for metric in metrics if metric in measured.figures]

    return [
        Panel("ROC", "AUROC", figures("auroc_sp", "auroc_px"), roc, every),
        Panel("Precision-recall", "AP", figures("ap_sp", "ap_px"), precision_recall, every),
        Panel("PRO", "AUPRO", figures("aupro"), pro, of_pixels),
        Panel("Scores", "", (), Markup(score_histogram(measured)), ""),
    ]


def growth_panels(growth: Growth) -> list[Panel]:
    """A panel for each kind of metric, with the first and the last figure in words."""
    panels = []
    for title, metrics in _GROWTH.items():
        known = {metric: [both[0] for both in growth.figures[metric] if both is not None] for metric in metrics}
        figures = [(_kind(metric), f"{means[0]:.1f} to {means[-1]:.1f}") for metric, means in known.items() if means]
        panels.append(Panel(title, "", figures, Markup(growth_plot(growth, metrics)), ""))
    return panels


def _kind(metric: str) -> str:
    return "image" if metric.endswith("_sp") else "pixel"


def score_histogram(measured: ClassCurves) -> str:
    """Numbers of good and defective images and of references by score, and the threshold, as SVG."""
    groups = [(measured.good, GOOD), (measured.defective, BAD)]
    if measured.references is not None:
        groups.append((measured.references, INK))
    scores = np.concatenate([values for values, _ in groups])
    scores = scores[np.isfinite(scores)]
    # Scores closer than float can separate into bins lie in one bin, like equal scores.
    close = scores.size > 0 and np.ptp(scores) < 1e-9
    edges = np.histogram_bin_edges(scores, _BINS, (scores.min() - 0.5, scores.max() + 0.5) if close else None)
    with rc_context(_STYLE):
        figure, axes = _axes(measured.score_name, "images")
        axes.yaxis.get_major_locator().set_params(integer=True)
        axes.grid(visible=False, axis="x")
        for values, colour in groups:
            if colour != INK:
                axes.hist(values, edges, color=colour, alpha=0.35)
            axes.hist(values, edges, histtype="step", color=colour, linewidth=1.2)
        if measured.threshold is not None:
            axes.axvline(measured.threshold, color=INK, linewidth=1, linestyle=(0, (4, 2)))
        return _svg(figure)


def growth_plot(growth: Growth, metrics: Sequence[str]) -> str:
    """Figures over the number of references, with a band of one standard deviation over seeds, as SVG.

    Args:
        growth: the figures.
        metrics: the metrics to draw; names that end in ``_sp`` are of images, others of pixels.
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


def _curves(
    measured: ClassCurves,
    kind: str,
    x_label: str,
    y_label: str,
    *,
    steps: bool = False,
    diagonal: bool = False,
    right: float = 1.0,
) -> Markup:
    """The curves of a kind, of images and pixels; empty if there are none."""
    colours = {f"{kind}_image": INK, f"{kind}_pixel": PIXEL}
    lines = [(measured.curves[name], colour) for name, colour in colours.items() if name in measured.curves]
    if not lines:
        return Markup()
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
        # Drawings are made here and hold no outside text.
        return Markup(_svg(figure))


def difference_plot(title: str, classes: Sequence[str], metrics: Sequence[str], differences: Differences) -> str:
    """A panel for every metric, a line for every class, as SVG; intervals that exclude 0 are blue."""
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "differences", "font.size": 8}):
        figure = Figure(figsize=(1.2 + 1.7 * len(metrics), 0.9 + 0.25 * len(classes)), layout="constrained")
        figure.suptitle(title, parse_math=False)
        panels = figure.subplots(1, len(metrics), sharey=True, squeeze=False)[0]
        for metric, axes in zip(metrics, panels):
            axes.set_title(metric, fontsize=8)
            axes.axvline(0, color="#59616b", linewidth=0.6)
            for row, name in enumerate(classes):
                if (name, metric) not in differences:
                    continue
                value, low, high = differences[name, metric]
                colour = "#9aa2ab" if low <= 0 <= high else "#1f6fb2"
                axes.plot([low, high], [row, row], color=colour, linewidth=1.5, solid_capstyle="butt")
                axes.plot([value], [row], color=colour, marker="o", markersize=4, linestyle="none")
        panels[0].set_yticks(range(len(classes)), classes, parse_math=False)
        panels[0].set_ylim(len(classes) - 0.5, -0.5)
        return _saved(figure)


def _axes(x_label: str, y_label: str) -> tuple[Figure, Any]:
    figure = Figure(figsize=(3, 2.3), layout="constrained")
    axes = figure.add_subplot(xlabel=x_label, ylabel=y_label)
    axes.patch.set_visible(False)
    return figure, axes


def _svg(figure: Figure) -> str:
    """The drawing without prolog, fixed size, background and ids, for use inside HTML."""
    drawing = _saved(figure, transparent=True)
    drawing = drawing[drawing.index("<svg") :]
    drawing = re.sub(r'<svg [^>]*?viewBox="([^"]*)"[^>]*>', r'<svg viewBox="\1" aria-hidden="true">', drawing, count=1)
    drawing = re.sub(r'<g id="[^"]*">', "<g>", drawing)
    drawing = re.sub(r"\s*\n\s*", "\n", drawing)
    for number, variable in _VARIABLES.items():
        drawing = drawing.replace(number, variable)
    return drawing


def _saved(figure: Figure, **how: Any) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")), **how)
    return buffer.getvalue()
