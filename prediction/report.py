"""report.html of predict.py, made of the files that are there at the end, so that rows of earlier runs are in it."""

from __future__ import annotations

import heapq
from array import array
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from prediction.options import REPORT_PICTURES
from prediction.reading import read_picture
from prediction.rows import read_rows
from prediction.threshold import Thresholds
from report import Card, ClassCurves, Report, Result, SettingPage, Table, write_report
from winclip.errors import InputError


def report_predictions(save: Path, settings: Mapping[str, Any], thresholds: Thresholds, unreadable: int) -> None:
    """Write the page; of all rows only their scores are held, and pictures one at a time.

    Args:
        save: folder with predictions.csv, one row or more, and the heat maps.
        settings: those of run.json.
        thresholds: of all rows.
        unreadable: pictures that could not be read.

    Raises:
        InputError: if a heat map cannot be read or the page cannot be written.
    """
    scores = {"yes": array("d"), "no": array("d")}
    for row in read_rows(save / "predictions.csv"):
        scores[row["anomalous"]].append(float(row["score"]))
    anomalous, others = np.array(scores["yes"]), np.array(scores["no"])
    count, name = len(anomalous) + len(others), settings["class_name"]
    summary = Table(
        "Summary",
        ("pictures", "anomalous", "failures", "threshold"),
        [(str(count), str(len(anomalous)), str(unreadable), f"{thresholds.score:.4f}")],
        notes=[
            f"How the threshold was found: {thresholds.rule}.",
            *([f"Caution: {thresholds.caution}."] if thresholds.caution else []),
        ],
    )
    notes = [
        "Pictures with a score above the threshold are anomalous. Heat maps have one colour scale for the whole run;"
        " at its low end the picture is left as it is."
    ]
    if count > REPORT_PICTURES:
        notes.append(f"The {REPORT_PICTURES} highest of {count} scores are shown; table and histogram cover all.")
    facts = [
        ("model", settings["model"]),
        ("weights", f"SHA-256 {settings['weights_sha256'][:12]}"),
        ("image size", f"{settings['image_size']} x {settings['image_size']}"),
        ("version", settings["version"]),
    ]
    page = SettingPage(name, [ClassCurves(name, {}, others, anomalous, thresholds.score, {}, {})])
    report = Report(
        f"WinCLIP on pictures of {name}",
        [page],
        _cards(save, Path(settings["folder"]), name),
        facts,
        [summary],
        notes,
        labelled=False,
        drawn_scale=thresholds.colours,
    )
    write_report(save / "report.html", report)


def _cards(save: Path, folder: Path, class_name: str) -> Iterator[Card]:
    """Cards of the highest scores; a picture that is gone since it was scored is there as heat map only."""
    rows = read_rows(save / "predictions.csv")
    for row in heapq.nlargest(REPORT_PICTURES, rows, key=lambda row: float(row["score"])):
        heat_map = read_picture(str(save / row["heat_map"]))
        try:
            # Not row["path"], which is relative to where an earlier run may have been started.
            picture = read_picture(str(folder / row["heat_map"].removeprefix("heatmaps/").removesuffix(".jpg")))
        except InputError:
            picture = heat_map
        result = Result(float(row["score"]), float(row["threshold"]), heat_map, row["anomalous"] == "yes")
        yield Card(row["path"], picture, class_name, "", None, None, [result])
