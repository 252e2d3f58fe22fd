"""The journal of predict.py: what is read from it, and what is not."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scripts import kill_runs
from winclip import InputError
from winclip.prediction.journal import JOURNAL, Journal, begin, read_rows, settings_of, take_up, write_tables
from winclip.prediction.rows import Row, parse
from winclip.support.names import from_cell

ROWS = [
    Row("a.png", 0.25, 0.5, False, 0.125, (1, 2, 3, 4), "heatmaps/a.png.jpg"),
    Row('=1,"2"\n\udcff.png', 1 / 3, 0.123456789012, True, 1 / 7, None, "heatmaps/=1\udcff.png.jpg"),
]


@pytest.fixture
def save(tmp_path: Path) -> Path:
    """A folder with a journal of two rows, and the heat maps."""
    begin(tmp_path, {"threshold": 0.5})
    with Journal(tmp_path) as journal:
        for row in ROWS:
            journal.append(row)
    (tmp_path / "heatmaps").mkdir()
    for row in ROWS:
        (tmp_path / row.heat_map).touch()
    return tmp_path


def test_tables_are_made_of_the_journal(save: Path) -> None:
    failed = ("b\r.png", "no, \x00 picture")
    write_tables(save, [failed])
    lines = (save / "predictions.csv").read_text().splitlines()
    assert lines[0] == "path,score,threshold,anomalous,area,box_x,box_y,box_w,box_h,heat_map"
    assert lines[1] == "a.png,0.25,0.5,no,0.125,1,2,3,4,heatmaps/a.png.jpg"
    table = list(csv.DictReader(lines))
    assert [from_cell(row["path"]) for row in table] == [row.path for row in ROWS]
    assert (table[1]["score"], table[1]["threshold"], table[1]["area"]) == ("0.333333333", "0.123456789", "0.142857")
    listed = json.loads((save / "predictions.json").read_text())
    assert listed[1] == {
        "path": ROWS[1].path,
        "score": 0.333333333,
        "threshold": 0.123456789,
        "anomalous": True,
        "area": 0.142857,
        "box": None,
        "heat_map": ROWS[1].heat_map,
    }
    (failure,) = csv.DictReader((save / "failures.csv").read_text().splitlines())
    assert (from_cell(failure["path"]), from_cell(failure["reason"])) == failed


def test_a_torn_last_line_is_dropped(save: Path) -> None:
    whole = (save / JOURNAL).read_bytes()
    for end in range(whole.rindex(b"{"), len(whole)):
        (save / JOURNAL).write_bytes(whole[:end])
        assert [row.path for row in read_rows(save)] == [ROWS[0].path]
        take_up(save, masks=False)
        with Journal(save) as journal:
            journal.append(ROWS[1])
        assert [row.path for row in read_rows(save)] == [row.path for row in ROWS]


def test_damaged_and_foreign_lines_are_not_used_and_counted(save: Path, logged: list[str]) -> None:
    header, first, second = (save / JOURNAL).read_bytes().splitlines(keepends=True)
    foreign = [
        b"\x00" * 40 + b"\n",
        first.replace(b"0.25", b"0.25\x00"),
        b"a.png,0.25,0.5,no,0.125,1,2,3,4,heatmaps/a.png.jpg\n",
        b"[" * 100_000 + b"\n",
    ]
    (save / JOURNAL).write_bytes(header + b"".join(foreign) + first + first + second)
    take_up(save, masks=False)
    assert logged == [f"4 lines of {save / JOURNAL} are damaged and not used; their pictures are scored again"]
    assert (save / JOURNAL).read_bytes() == header + first + second
    (save / ROWS[0].heat_map).unlink()
    take_up(save, masks=False)
    assert (save / JOURNAL).read_bytes() == header + second
    take_up(save, masks=True)  # which are not there
    assert (save / JOURNAL).read_bytes() == header


@pytest.mark.parametrize(
    "change",
    [
        {"score": "0.25"},
        {"score": True},
        {"score": float("nan")},
        {"score": 10**400},
        {"threshold": float("inf")},
        {"anomalous": 0},
        {"box": [1, 2, 3]},
        {"box": "1234"},
        {"box": [1, 2, 3, 4.5]},
        {"path": 5},
        {"heat_map": "heatmaps/../../a.jpg"},
        {"heat_map": "/a.jpg"},
        {"heat_map": "heatmaps/a"},
        {"heat_map": "heatmaps/\0.jpg"},
        {"heat_map": None},
        {"heat_map": "heatmaps/\ud800.jpg"},
        {"heat_map": f"heatmaps/{'a' * 300}.jpg"},
        {"more": 1},
    ],
)
def test_values_of_no_row_are_refused(change: dict[str, Any]) -> None:
    values = json.loads(ROWS[0].as_json())
    assert parse(json.dumps(values).encode()) == ROWS[0]
    assert parse(json.dumps({**values, **change}).encode()) is None


def test_a_line_with_a_changed_byte_is_no_row_or_another() -> None:
    random = np.random.RandomState(0)
    line = ROWS[0].as_json().encode()
    for _ in range(2000):
        mutated = bytearray(line)
        mutated[random.randint(len(line))] = random.randint(256)
        row = parse(bytes(mutated))
        assert row is None or row.as_json().encode() == mutated


@pytest.mark.parametrize("header", [b"", b"{}\n", b"[]\n", b'{"settings": 5}\n', b"\x00\n", b'{"settings": {'])
def test_a_journal_without_settings_is_refused(tmp_path: Path, header: bytes) -> None:
    (tmp_path / JOURNAL).write_bytes(header)
    with pytest.raises(InputError, match=r"predictions\.jsonl cannot be read, so .* cannot be resumed"):
        settings_of(tmp_path)


def test_the_journal_reaches_the_disk_at_intervals(save: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now, synced = [0.0], []
    monkeypatch.setattr("winclip.prediction.journal.time.monotonic", lambda: now[0])
    monkeypatch.setattr("winclip.prediction.journal.os.fsync", lambda descriptor: synced.append(now[0]))
    with Journal(save) as journal:
        for second in range(12):
            now[0] = float(second)
            journal.append(ROWS[0])
            journal.sync()
    assert synced == [5.0, 10.0, 11.0]


def test_killed_at_random_moments_it_ends_with_the_same_bytes(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert kill_runs.main(["predict", "--kills", "3", "--data_path", str(data)]) == 0
    assert "predict: 3 kills in runs of " in capsys.readouterr().out
