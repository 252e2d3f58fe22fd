"""report.html of predict: the histogram of all scores, and the pictures with the highest."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from winclip.pictures.images import read_image
from winclip.prediction.options import REPORT_PICTURES
from winclip.prediction.rows import Row
from winclip.report.content import Card, Report, Result, SettingPage, Table, Wording
from winclip.report.curves import ClassCurves
from winclip.report.page import write_report
from winclip.support.errors import InputError
from winclip.thresholds import Threshold

_log = logging.getLogger("winclip")
_VERDICTS = {False: "not anomalous", True: "anomalous"}
_WORDS = Wording(
    good=_VERDICTS[False],
    bad=_VERDICTS[True],
    panels="Scores",
    outcome="Verdict",
    order="highest score first",
    tables="How many pictures there are, and where good ends.",
)


def report_predictions(
    page: Path, rows: Sequence[Row], settings: Mapping[str, Any], threshold: Threshold, unreadable: int
) -> None:
    """Write the page; pictures are held one at a time.

    Args:
        page: in the folder with the heat maps.
        rows: one or more, the highest score first; those of earlier runs too.
        settings: those of run.json.
        threshold: of all rows.
        unreadable: pictures that could not be read.

    Raises:
        InputError: if a heat map cannot be read or the page cannot be written.
    """
    others, anomalous = (np.array([row.score for row in rows if row.anomalous == bad]) for bad in (False, True))
    name, side = settings["class_name"], settings["image_size"]
    facts = [
        ("model", settings["model"]),
        ("weights", f"SHA-256 {settings['weights_sha256'][:12]}"),
        ("image size", f"{side} x {side}"),
        ("version", settings["version"]),
    ]
    parts = (("region", settings["region"]), ("side of a tile", settings["tile_size"]))
    facts += [(part, str(value)) for part, value in parts if value is not None]
    found = [f"How the threshold was found: {threshold.rule}."]
    if threshold.caution:
        found.append(f"Caution: {threshold.caution}.")
    cells = [str(len(rows)), str(len(anomalous)), str(unreadable), f"{threshold.score:.4f}"]
    notes = [
        "Pictures with a score above the threshold are anomalous. Heat maps have one colour scale for the whole run;"
        " at its low end the picture is left as it is."
    ]
    if len(rows) > REPORT_PICTURES:
        notes.append(f"The {REPORT_PICTURES} highest of {len(rows)} scores are shown; table and histogram cover all.")
    report = Report(
        f"WinCLIP on pictures of {name}",
        [SettingPage(name, [ClassCurves(name, {}, others, anomalous, threshold.score, {}, {})])],
        _WORDS,
        _cards(rows[:REPORT_PICTURES], page.parent, Path(settings["folder"]), name),
        facts,
        [Table("Summary", ("pictures", "anomalous", "failures", "threshold"), [cells], notes=found)],
        notes,
        scale=threshold.colours,
        # The heat maps hold their pictures already.
        heat_opacity=1.0,
    )
    write_report(page, report)


def _cards(rows: Sequence[Row], save: Path, folder: Path, class_name: str) -> Iterator[Card]:
    """A picture that is gone since it was scored is there as heat map only."""
    for row in rows:
        heat_map = read_image(save / row.heat_map)
        try:
            # Not row.path, which is relative to where an earlier run may have been started.
            picture = read_image(folder / row.heat_map.removeprefix("heatmaps/").removesuffix(".jpg"), upright=True)
        except InputError:
            picture = heat_map
        result = Result(row.score, row.threshold, _VERDICTS[row.anomalous], (-row.score,), heat_map)
        yield Card(row.path, picture, class_name, "", None, None, [result])


def open_report(page: Path) -> None:
    """Open the page in a browser, or say where it is."""
    # Late, because few runs need it.
    import webbrowser

    # Without a display it would be a browser of the terminal, which the run would wait for.
    shown = sys.platform in ("win32", "darwin") or any(map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER")))
    if not (shown and webbrowser.open(page.resolve().as_uri())):
        _log.info("there is no browser to open here; open %s in one", page)
