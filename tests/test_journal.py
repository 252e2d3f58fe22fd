"""The journal of predict: which rows are read from it, and which are not."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import Predict
from tests.kills import check_kills, contents, prediction_command
from winclip import InputError
from winclip.pictures.drawing import packed_map
from winclip.prediction import run as running
from winclip.prediction.rows import JOURNAL, Journal, Row, parse, prepare, read_rows, write_tables
from winclip.support.names import from_cell

SETTINGS = {"threshold": 0.5, "save_masks": False}
ROWS = [
    Row("a.png", 0.25, 0.5, False, 0.125, (1, 2, 3, 4), "heatmaps/a.png.jpg", 0.375, 0.125, 0.5, 0.75),
    Row(
        '=1,"2"\n\udcff.png', 0.333333333, 0.123456789, True, 0.142857, None, "heatmaps/=1\udcff.png.jpg",
        0.444444444, 0.222222222, 0.5, 0.75,
    ),
]  # fmt: skip


@pytest.fixture
def save(tmp_path: Path) -> Path:
    """A folder with a journal of two rows and their heat maps."""
    assert prepare(tmp_path, SETTINGS, resume=True) == (False, None)
    with Journal(tmp_path) as journal:
        for row in ROWS:
            journal.append(row)
    (tmp_path / "heatmaps").mkdir()
    for row in ROWS:
        (tmp_path / row.heat_map).touch()
    return tmp_path


def test_tables_are_made_of_the_rows(save: Path) -> None:
    failed = ("b\r.png", "no, \x00 picture")
    write_tables(save, read_rows(save), [failed])
    lines = (save / "predictions.csv").read_text().splitlines()
    columns = "path,score,threshold,anomalous,area,box_x,box_y,box_w,box_h,heat_map,text_score,reference_score"
    assert lines[0] == columns
    assert lines[1] == "a.png,0.25,0.5,no,0.125,1,2,3,4,heatmaps/a.png.jpg,0.375,0.125"
    table = list(csv.DictReader(lines))
    assert [from_cell(row["path"]) for row in table] == [row.path for row in ROWS]
    figures = ("score", "threshold", "area", "text_score", "reference_score")
    assert [table[1][name] for name in figures] == [
        "0.333333333", "0.123456789", "0.142857", "0.444444444", "0.222222222",
    ]  # fmt: skip
    listed = json.loads((save / "predictions.json").read_text())
    assert [tuple(item.values())[:5] for item in listed] == [
        (row.path, row.score, row.threshold, row.anomalous, row.area) for row in ROWS
    ]
    assert (listed[0]["box"], listed[1]["box"], listed[1]["heat_map"]) == ([1, 2, 3, 4], None, ROWS[1].heat_map)
    (failure,) = csv.DictReader((save / "failures.csv").read_text().splitlines())
    assert (from_cell(failure["path"]), from_cell(failure["reason"])) == failed
    write_tables(save, [], [])
    assert (save / "predictions.json").read_text() == "[]\n" and (save / "predictions.csv").read_text().count("\n") == 1


def test_what_is_not_known_is_an_empty_cell(tmp_path: Path) -> None:
    row = replace(ROWS[0], threshold=None, anomalous=None, reference_score=None)
    assert parse(row.as_json().encode()) == row
    write_tables(tmp_path, [row], [])
    (cells,) = csv.DictReader((tmp_path / "predictions.csv").read_text().splitlines())
    assert [name for name, cell in cells.items() if not cell] == ["threshold", "anomalous", "reference_score"]
    (item,) = json.loads((tmp_path / "predictions.json").read_text())
    assert (item["threshold"], item["anomalous"], item["reference_score"]) == (None, None, None)
    assert "not judged" in row.as_line() and "references" not in row.as_line()


def test_a_torn_last_line_is_dropped(save: Path) -> None:
    whole = (save / JOURNAL).read_bytes()
    for end in (whole.rindex(b"{"), whole.rindex(b"{") + 1, len(whole) - 1):
        (save / JOURNAL).write_bytes(whole[:end])
        assert read_rows(save) == ROWS[:1]
        assert prepare(save, SETTINGS, resume=True) == (True, None)
        with Journal(save) as journal:
            journal.append(ROWS[1])
        assert read_rows(save) == ROWS and (save / JOURNAL).read_bytes() == whole


def test_damaged_lines_are_not_used_and_counted_and_pictures_without_files_scored_again(
    save: Path, logged: list[str]
) -> None:
    header, first, second = (save / JOURNAL).read_bytes().splitlines(keepends=True)
    damaged = [b"\x00" * 40 + b"\n", first.replace(b"0.25", b"0.25\x00"), b"a.png,0.25\n", b"[" * 100_000 + b"\n"]
    (save / JOURNAL).write_bytes(header + b"".join(damaged) + first + first + second)
    assert prepare(save, SETTINGS, resume=True) == (True, None)
    assert len(logged) == 1 and logged[0].startswith(f"4 lines of {save / JOURNAL} are damaged")
    assert (save / JOURNAL).read_bytes() == header + first + second
    (save / ROWS[0].heat_map).unlink()
    assert prepare(save, SETTINGS, resume=True) == (True, None)
    assert (save / JOURNAL).read_bytes() == header + second
    (save / JOURNAL).write_bytes(json.dumps({"settings": {**SETTINGS, "save_masks": True}}).encode() + b"\n" + second)
    assert prepare(save, {**SETTINGS, "save_masks": True}, resume=True)[0]  # the mask is not there
    assert read_rows(save) == []


def test_a_map_keeps_a_row_until_its_heat_map_is_drawn(save: Path) -> None:
    (save / ROWS[0].heat_map).unlink()
    kept = save / "maps" / "a.png.png"
    kept.parent.mkdir()
    kept.write_bytes(packed_map(np.zeros((4, 4), np.float32)))
    assert prepare(save, SETTINGS, resume=True)[0] and read_rows(save) == ROWS
    # A fresh start removes the map.
    assert not prepare(save, SETTINGS, resume=False)[0] and not kept.exists()


def test_the_scale_of_drawn_heat_maps_stays(save: Path) -> None:
    known = (0.5, 0.75)
    for colours, found in ((list(known), known), ([0.75, 0.5], None), ([0.5], None), ("", None), (None, None)):
        (save / "run.json").write_text(json.dumps({"colours": colours}))
        assert prepare(save, SETTINGS, resume=True) == (True, found)
        assert json.loads((save / "run.json").read_text())["colours"] == (list(known) if found else None)
    assert prepare(save, SETTINGS, resume=True, colours=known) == (True, known)
    assert prepare(save, SETTINGS, resume=True, colours=(0.0, 1.0)) == (True, known)


@pytest.mark.parametrize(
    "change",
    [
        {"path": 5},
        {"score": "0.25"},
        {"score": float("nan")},
        {"score": None},
        {"threshold": None},
        {"anomalous": None},
        {"reference_score": "0.125"},
        {"map_median": None},
        {"map_highest": float("inf")},
        {"box": [1, 2, 3]},
        {"heat_map": "heatmaps/../../a.jpg"},
        {"heat_map": "/a.jpg"},
        {"heat_map": None},
        {"more": 1},
    ],
)
def test_values_of_no_row_are_refused(change: dict[str, Any]) -> None:
    values = json.loads(ROWS[0].as_json())
    assert parse(json.dumps(values).encode()) == ROWS[0]
    assert parse(json.dumps({**values, **change}).encode()) is None


def test_files_outside_of_the_folder_stay(save: Path) -> None:
    outside = save.parent / "outside.jpg"
    outside.touch()
    line = ROWS[0].as_json().replace("heatmaps/a.png", "heatmaps/../../outside")
    with (save / JOURNAL).open("a") as file:
        file.write(line + "\n" + ROWS[0].as_json().replace("a.png.jpg", "\\u0000.jpg") + "\n")
    assert prepare(save, SETTINGS, resume=False) == (False, None)
    assert outside.exists() and list((save / "heatmaps").iterdir()) == [] and read_rows(save) == []


@pytest.mark.parametrize("header", [b"", b"[]\n", b'{"settings": 5}\n', b"\x00\n", b'{"settings": {'])
def test_a_journal_without_settings_is_refused(tmp_path: Path, header: bytes) -> None:
    (tmp_path / JOURNAL).write_bytes(header)
    with pytest.raises(InputError, match=r"predictions\.jsonl cannot be read, so .* cannot be resumed"):
        prepare(tmp_path, SETTINGS, resume=True)
    assert (tmp_path / JOURNAL).read_bytes() == header


@pytest.mark.parametrize("drawn", [0, 2])
def test_stopped_before_all_heat_maps_are_drawn_it_ends_with_the_same_bytes(
    run: Predict, pictures: Path, monkeypatch: pytest.MonkeyPatch, drawn: int
) -> None:
    def command(save: Path) -> int:
        options = ["--reference", pictures / "good", "--save_masks", "--report", "--resume", "--save_path", save]
        return run(pictures / "images", *options)

    draw, left = running._Output._draw, [True] * drawn

    def stopped(output: running._Output, path: str, name: str) -> bool:
        if not left:
            raise KeyboardInterrupt
        left.pop()
        return draw(output, path, name)

    assert command(pictures / "alone") == 0
    monkeypatch.setattr(running._Output, "_draw", stopped)
    save = pictures / "stopped"
    assert command(save) == 130
    assert (len(read_rows(save)), len(list(save.rglob("maps/**/*.png")))) == (4, 4 - drawn)
    assert len(list(save.rglob("heatmaps/**/*.jpg"))) == drawn
    monkeypatch.setattr(running._Output, "_draw", draw)
    monkeypatch.setattr("winclip.model.WinCLIP.score", None)  # nothing is scored again
    assert command(save) == 0
    assert contents(save) == contents(pictures / "alone") and not (save / "maps").exists()


@pytest.mark.slow
def test_killed_at_random_moments_it_ends_with_the_same_bytes(data: Path, tmp_path: Path) -> None:
    check_kills(prediction_command, data, tmp_path, 10)
