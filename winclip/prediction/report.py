"""report.html of predict.py, made of the files that are there at the end, so that rows of earlier runs are in it."""

from __future__ import annotations

import heapq
from array import array
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from winclip.prediction.journal import read_rows
from winclip.prediction.listing import read_picture
from winclip.prediction.options import REPORT_PICTURES
from winclip.report.content import Card, Report, Result, SettingPage, Table, Wording
from winclip.report.curves import ClassCurves
from winclip.report.page import write_report
from winclip.support.errors import InputError
from winclip.thresholds import Threshold

_WORDS = Wording(
    good="not anomalous",
    bad="anomalous",
    panels="Scores",
    outcome="Verdict",
    order="highest score first",
    tables="How many pictures there are, and where good ends.",
)


def report_predictions(save: Path, settings: Mapping[str, Any], threshold: Threshold, unreadable: int) -> None:
    """Write the page; of all rows only their scores are held, and pictures one at a time.

    Args:
        save: folder with the journal, one row or more, and the heat maps.
        settings: those of run.json.
        threshold: of all rows.
        unreadable: pictures that could not be read.

    Raises:
        InputError: if a heat map cannot be read or the page cannot be written.
    """
    scores = {True: array("d"), False: array("d")}
    for row in read_rows(save):
        scores[row.anomalous].append(row.score)
    anomalous, others = np.array(scores[True]), np.array(scores[False])
    name = settings["class_name"]
    histogram = ClassCurves(name, {}, others, anomalous, threshold.score, {}, {})
    report = Report(
        f"WinCLIP on pictures of {name}",
        [SettingPage(name, [histogram])],
        _WORDS,
        _cards(save, Path(settings["folder"]), name),
        _facts(settings),
        [_summary(len(anomalous), len(others), unreadable, threshold)],
        _notes(len(anomalous) + len(others)),
        scale=threshold.colours,
        # The heat maps hold their pictures already.
        heat_opacity=1.0,
    )
    write_report(save / "report.html", report)


def _facts(settings: Mapping[str, Any]) -> list[tuple[str, str]]:
    parts = (("region", "region"), ("side of a tile", "tile_size"))
    return [
        ("model", settings["model"]),
        ("weights", f"SHA-256 {settings['weights_sha256'][:12]}"),
        ("image size", f"{settings['image_size']} x {settings['image_size']}"),
        ("version", settings["version"]),
        *((name, str(settings[key])) for name, key in parts if settings[key] is not None),
    ]


def _summary(anomalous: int, others: int, unreadable: int, threshold: Threshold) -> Table:
    notes = [f"How the threshold was found: {threshold.rule}."]
    if threshold.caution:
        notes.append(f"Caution: {threshold.caution}.")
    cells = [str(anomalous + others), str(anomalous), str(unreadable), f"{threshold.score:.4f}"]
    return Table("Summary", ("pictures", "anomalous", "failures", "threshold"), [cells], notes=notes)


def _notes(count: int) -> list[str]:
    notes = [
        "Pictures with a score above the threshold are anomalous. Heat maps have one colour scale for the whole run;"
        " at its low end the picture is left as it is."
    ]
    if count > REPORT_PICTURES:
        notes.append(f"The {REPORT_PICTURES} highest of {count} scores are shown; table and histogram cover all.")
    return notes


def _cards(save: Path, folder: Path, class_name: str) -> Iterator[Card]:
    """Cards of the highest scores; a picture that is gone since it was scored is there as heat map only."""
    for row in heapq.nlargest(REPORT_PICTURES, read_rows(save), key=lambda row: row.score):
        heat_map = read_picture(save / row.heat_map)
        try:
            # Not row.path, which is relative to where an earlier run may have been started.
            picture = read_picture(folder / row.heat_map.removeprefix("heatmaps/").removesuffix(".jpg"))
        except InputError:
            picture = heat_map
        outcome = "anomalous" if row.anomalous else "not anomalous"
        result = Result(row.score, row.threshold, outcome, (-row.score,), heat_map)
        yield Card(row.path, picture, class_name, "", None, None, [result])
