"""Names that a terminal, a spreadsheet, a page or a file system would misread."""

from __future__ import annotations

import csv
import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

import predict
from datasets.index import load_index, write_index
from datasets.items import DatasetIndex, Item
from tests.conftest import make_data
from tests.test_report import embedded
from tests.tiny import CONFIG
from winclip.support.errors import InputError
from winclip.support.names import NAME_LIMIT, cell, counted, csv_line, file_name, from_cell, printable

ORDINARY = [
    "000.png",
    "größe 12/ångström.png",
    "日本.png",
    "a\\b.png",
    'it\'s, "so".png',
    "a=b+c-d@e;f.png",
    "",
    "नि‍.png",
]
HOSTILE = [
    "=cmd|'/C calc'!A0.png", "+1.png", "-1.png", "@SUM(A1).png", "\t=1.png", "\r=1.png", " =1.png", "a;=1.png",
    "'quoted.png", "\uff1d1.png", "a\nb.png", "a\r\nb.png", "\x1b[2J\x1b]0;title\x07.png", "\x9b31m.png", "\x00",
    "\udcff\udc80.png", "\u202egnp.exe", "a\u2028b", "\\x0a\n", "\x7f",
]  # fmt: skip


@pytest.mark.parametrize("text", ORDINARY)
def test_ordinary_names_stay_as_they_are(text: str) -> None:
    assert cell(text) == from_cell(text) == printable(text) == text


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_names_are_tame_in_a_cell_and_come_back_and_one_line_in_a_terminal(text: str) -> None:
    line = csv_line([cell(text), "1"])
    assert line.count("\n") == 1 and line.lstrip('"')[0] == "'"
    assert line[:-1].isprintable() and line.encode().decode() == line
    assert not any(part.strip('"').startswith(("=", "+", "-", "@")) for part in line.split(";"))
    (((back, _)),) = csv.reader([line])
    assert from_cell(back) == text
    shown = printable(f"image {text} cannot be read")
    assert shown.isprintable() and shown.encode().decode() == shown


def test_one_has_the_singular() -> None:
    assert [counted(count, "class", "classes") for count in (0, 1, 2)] == ["0 classes", "1 class", "2 classes"]


def test_long_texts_lose_their_middle() -> None:
    shown = printable("error: " + "x" * 100_000 + "; rename it")
    assert len(shown) <= 2000 and shown.startswith("error: x") and shown.endswith("x; rename it")


def test_long_file_names_are_shortened_and_stay_different() -> None:
    longest = [letter * (NAME_LIMIT - 5) for letter in "ab"]
    assert [file_name(name, ".jpg") for name in longest] == [f"{name}.jpg" for name in longest]
    names = [f"{'x' * 247}.png", f"{'x' * 246}y.png", "ä" * 125 + ".png", "ä" * 127, "\udcff" * 255]
    short = [file_name(name, ".jpg") for name in names]
    assert len({*short}) == 5 and all(len(os.fsencode(name)) == NAME_LIMIT for name in short)
    assert all(name.endswith(".jpg") for name in short) and short[0].startswith("xxx") and short[2].startswith("äää")
    # A picture called like the shortened name of another is shortened, too.
    assert file_name(short[0].removesuffix(".jpg"), ".jpg") != short[0]


# Windows does not allow such file names.
posix = pytest.mark.skipif(sys.platform != "linux", reason="needs file names of any bytes")


@posix
def test_predict_with_hostile_names(tmp_path: Path, checkpoint: Path, capfd: pytest.CaptureFixture[str]) -> None:
    images, save = tmp_path / "images", tmp_path / "out"
    images.mkdir()
    names = ["a\nb.png", "\x1b[31m.png", "=1+1.png", "\udcff.png", "y" * 251 + ".png", "y" * 230 + ".png", "z.png"]
    for number, name in enumerate(names):
        Image.new("RGB", (40 + number, 40), (200, number, 0)).save(images / name, "PNG")
    (images / "\x1b]0;x\x07\udcfe.png").write_text("no image")
    command = ["--class_name", "bolt", "--save_path", str(save), "--save_masks", "--report", "--device", "cpu"]
    command += ["--model", str(CONFIG), "--pretrained", str(checkpoint)]
    (tmp_path / "here").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(images)
        assert predict.main([*command, "."]) == 0
        assert predict.main([*command, ".", "--resume"]) == 0
    out = capfd.readouterr()
    assert all(line.isprintable() for line in (out.out + out.err).splitlines()) and "\\x1b]0;x\\x07\\udcfe" in out.err
    table = (save / "predictions.csv").read_bytes().decode().splitlines()
    assert len(table) == 1 + len(names) and all(line.isprintable() for line in table)
    rows = [{key: from_cell(value) for key, value in row.items()} for row in csv.DictReader(table)]
    assert sorted(row["path"] for row in rows) == sorted(names)
    assert [item["path"] for item in json.loads((save / "predictions.json").read_text())] == [
        row["path"] for row in rows
    ]
    for row, number in ((row, names.index(row["path"])) for row in rows):
        with Image.open(save / row["heat_map"]) as heat_map:
            assert heat_map.width == 40 + number
    assert len(list((save / "masks").iterdir())) == len(names)
    (failure,) = csv.DictReader((save / "failures.csv").read_text(encoding="utf-8").splitlines())
    assert from_cell(failure["path"]) == "\x1b]0;x\x07\udcfe.png" and "cannot be read" in from_cell(failure["reason"])
    page = (save / "report.html").read_text(encoding="utf-8")
    assert {card["name"] for card in embedded(page)["cards"]} == {printable(name) for name in names}


@posix
def test_evaluation_with_hostile_names(tmp_path: Path, evaluate: Callable[..., int]) -> None:
    data, save = make_data(tmp_path / "data"), tmp_path / "out"
    meta = json.loads((data / "meta.json").read_text())
    names = ["=1\n.png", "\x1b[2J.png"]
    for entry, name in zip(meta["test"]["bolt"], names):
        shutil.copy(data / entry["img_path"], data / name)
        entry["img_path"], entry["specie_name"] = name, "good"
    for part in meta.values():
        part["-b|c"] = [{**entry, "cls_name": "-b|c"} for entry in part.pop("bolt")]
    (data / "meta.json").write_text(json.dumps(meta))
    assert evaluate(data, save, "--report", "--k_shot", "0", "1") == 0
    table = (save / "scores.csv").read_text(encoding="utf-8").splitlines()
    assert len(table) == 1 + 2 * 12 and all(line.isprintable() for line in table)
    listed = {from_cell(row["img_path"]): from_cell(row["cls_name"]) for row in csv.DictReader(table)}
    assert listed[names[0]] == listed[names[1]] == "-b|c"
    assert "| -b\\|c" in (save / "tables.md").read_text()
    assert "'-b|c" in (save / "results.csv").read_text() and "'-b|c" in (save / "k_shot.csv").read_text()
    page = (save / "report.html").read_text(encoding="utf-8")
    assert {card["class"] for card in embedded(page)["cards"]} == {"-b|c", "felt"}


@pytest.mark.parametrize("name", ["mean", "a\nb", "a\x9bb"])
def test_class_names_that_tables_cannot_hold_are_refused_on_both_ways(name: str, tmp_path: Path) -> None:
    item = Item("a.png", "", name, "good", 0)
    with pytest.raises(InputError, match="class") as written:
        write_index(DatasetIndex(tmp_path, {name: [item]}, {name: [item]}))
    assert str(written.value).isprintable() and not (tmp_path / "meta.json").exists()
    (tmp_path / "meta.json").write_text(json.dumps({"train": {}, "test": {name: [vars(item)]}}))
    with pytest.raises(InputError, match="class"):
        load_index(tmp_path)
