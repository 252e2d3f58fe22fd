"""report.html of predict: the histogram of all scores, and the pictures with the highest."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from winclip.demo.stand_in import caution
from winclip.pictures.images import read_image
from winclip.pictures.intake import Intake
from winclip.prediction.options import REPORT_PICTURES
from winclip.prediction.rows import Row
from winclip.report.content import Card, Report, Result, SettingPage, Table, Wording
from winclip.report.curves import ClassCurves
from winclip.report.page import write_report
from winclip.support.errors import InputError
from winclip.thresholds import LeftOut, Threshold

_log = logging.getLogger("winclip")
_VERDICTS = {None: "not judged", False: "not anomalous", True: "anomalous"}
_WORDS = Wording(
    good=_VERDICTS[False],
    bad=_VERDICTS[True],
    panels="Scores",
    outcome="Verdict",
    order="highest score first",
    tables="The number of pictures, and the threshold.",
)


def report_predictions(
    page: Path,
    rows: Sequence[Row],
    settings: Mapping[str, Any],
    threshold: Threshold,
    left_out: LeftOut | None,
    colours: tuple[float, float],
    unreadable: int,
    notes: Sequence[str],
) -> None:
    """Write the page; pictures are held one at a time.

    Args:
        page: in the folder with the heat maps.
        rows: one or more, the highest score first; earlier runs are included.
        settings: settings of run.json.
        threshold: threshold of all rows.
        left_out: scores of the references, if they are known.
        colours: map values of the coldest and the hottest colour.
        unreadable: pictures that could not be read.
        notes: further lines on references and known defects.

    Raises:
        InputError: if a heat map cannot be read or the page cannot be written.
    """
    # The histogram shows the deciding part, so that the threshold has a place in it.
    part = "score" if threshold.score is not None else "text" if threshold.reference is None else "reference"
    field = "score" if part == "score" else f"{part}_score"
    anomalous, others = (
        np.array([getattr(row, field) for row in rows if bool(row.anomalous) == bad], np.float64)
        for bad in (True, False)
    )
    references = None if left_out is None else np.array(getattr(left_out, part))
    drawn = ClassCurves(
        settings["class_name"],
        {},
        others,
        anomalous,
        getattr(threshold, part),
        {},
        {},
        "score" if part == "score" else f"{part} part of the score",
        references,
    )
    name, side = settings["class_name"], settings["image_size"]
    facts = [
        ("model", settings["model"]),
        ("weights", f"SHA-256 {settings['weights_sha256'][:12]}"),
        ("image size", f"{side} x {side}"),
        ("version", settings["version"]),
    ]
    parts = [("variant", settings.get("variant")), ("region", settings["region"])]
    parts.append(("side of a tile", settings["tile_size"]))
    facts += [(part, str(value)) for part, value in parts if value is not None]
    verdicts = str(len(anomalous)) if threshold.judges else "not judged"
    said = [*threshold.lines, *notes, *filter(None, [caution(settings["model"], [Path(settings["folder"])])])]
    shown = ["Heat maps have one colour scale for the whole run; at its low end the picture is unchanged."]
    if len(rows) > REPORT_PICTURES:
        shown.append(f"The {REPORT_PICTURES} highest of {len(rows)} scores are shown; table and histogram cover all.")
    report = Report(
        f"WinCLIP on pictures of {name}",
        [SettingPage(name, [drawn])],
        _WORDS if threshold.judges else replace(_WORDS, good=_VERDICTS[None]),
        _cards(rows[:REPORT_PICTURES], page.parent, Path(settings["folder"]), name, Intake(settings["white"])),
        facts,
        [
            Table(
                "Summary",
                ("pictures", "anomalous", "failures"),
                [[str(len(rows)), verdicts, str(unreadable)]],
                notes=said,
            )
        ],
        shown,
        scale=colours,
        # The heat maps already include their pictures.
        heat_opacity=1.0,
    )
    write_report(page, report)


def _cards(rows: Sequence[Row], save: Path, folder: Path, class_name: str, intake: Intake) -> Iterator[Card]:
    """Cards of the rows; a picture that was removed since it was scored is shown only as heat map."""
    for row in rows:
        drawn = read_image(save / row.heat_map)
        try:
            # Not row.path, which is relative to the folder where an earlier run may have been started.
            place = folder / row.heat_map.removeprefix("heatmaps/").removesuffix(".jpg")
            picture = read_image(place, upright=True, intake=intake)
        except InputError:
            picture = drawn
        # Without the strip below it.
        heat_map = drawn.crop((0, 0, *picture.size))
        result = Result(row.score, row.threshold, _VERDICTS[row.anomalous], (-row.score,), heat_map, row.parts)
        yield Card(row.path, picture, class_name, "", None, None, [result])


def open_report(page: Path) -> None:
    """Open the page in a browser, or say where it is."""
    # Late, because few runs need it.
    import webbrowser

    # Without a display it would be a browser in the terminal, and the run would wait for it.
    shown = sys.platform in ("win32", "darwin") or any(map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER")))
    if not (shown and webbrowser.open(page.resolve().as_uri())):
        _log.info("there is no browser to open here; open %s in one", page)
