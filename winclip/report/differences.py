"""Differences between two runs with their intervals, as a drawing of its own."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

from matplotlib import rc_context
from matplotlib.figure import Figure

# Of a class and a metric: the difference and the ends of its interval, per cent.
Differences = Mapping[tuple[str, str], tuple[float, float, float]]


def difference_plot(title: str, classes: Sequence[str], metrics: Sequence[str], differences: Differences) -> str:
    """A panel for every metric, a line for every class, as SVG; what does not reach across 0 is drawn in full."""
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
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    return buffer.getvalue()
