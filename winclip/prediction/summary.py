"""What a person reads at the end of a run, and how the report is opened."""

from __future__ import annotations

import heapq
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from winclip.prediction.journal import read_rows
from winclip.prediction.scoring import Counts
from winclip.thresholds import Threshold

_log = logging.getLogger("winclip")
_HIGHEST = 5


def summary(save: Path, counts: Counts, threshold: Threshold, result: str) -> Iterator[str]:
    """The lines at the end of a run.

    Args:
        save: folder with the journal.
        counts: of the pictures in it.
        threshold: of all rows.
        result: what the last line names.
    """
    passed_over = f", {counts.unreadable} passed over (failures.csv says why)" if counts.unreadable else ""
    good = counts.scored - counts.anomalous
    yield f"{counts.scored} pictures: {good} good, {counts.anomalous} anomalous{passed_over}"
    yield f"threshold {threshold.score:.4g}: {threshold.rule}"
    if threshold.caution or threshold.expectation:
        yield f"  {threshold.caution or threshold.expectation}"
    if counts.scored:
        yield "highest scores:"
        highest = heapq.nlargest(_HIGHEST, read_rows(save), key=lambda row: row.score)
        yield from (f"  {row.as_line()}" for row in highest)
    yield result


def open_report(page: Path) -> None:
    """Open the page in a browser, or say where it is."""
    # Late, because few runs need it.
    import webbrowser

    # Without a display it would be a browser of the terminal, which the run would wait for.
    shown = sys.platform in ("win32", "darwin") or any(map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER")))
    if not (shown and webbrowser.open(page.resolve().as_uri())):
        _log.info("there is no browser to open here; open %s in one", page)
