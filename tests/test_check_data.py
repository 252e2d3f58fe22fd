"""test.py --check_data: every kind of problem is found, all at once, and without a model."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from evaluation.check_data import FILE, KINDS
from tests.conftest import ROOT

Evaluate = Callable[..., int]
Capture = pytest.CaptureFixture[str]


def problems(save: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((save / FILE).read_text())["problems"]
    return found


def test_sound_data_has_no_problems(evaluate: Evaluate, data: Path, tmp_path: Path, capsys: Capture) -> None:
    save = tmp_path / "out"
    assert evaluate(data, save, "--check_data") == 0
    assert capsys.readouterr().out.startswith("20 images and 6 masks of 2 classes: no problems; ")
    content = json.loads((save / FILE).read_text())
    assert (content["images"], content["masks"], content["problems"]) == (20, 6, [])
    assert [path.name for path in save.iterdir()] == [FILE]


def test_all_problems_are_listed_at_once(evaluate: Evaluate, data: Path, tmp_path: Path, capsys: Capture) -> None:
    bolt, save = data / "bolt", tmp_path / "out"
    meta = json.loads((data / "meta.json").read_text())
    test = meta["test"]["bolt"]
    (bolt / "train/good/0.png").write_bytes(b"no image")
    (bolt / "train/good/1.png").unlink()
    Image.new("L", (50, 61), 255).save(bolt / "masks/scratch/0.png")
    Image.new("L", (50, 60), 0).save(bolt / "masks/scratch/1.png")
    (bolt / "masks/scratch/2.png").write_bytes(b"no mask")
    black, spot = np.zeros((60, 50), np.uint8), np.zeros((60, 50), np.uint8)
    spot[3, 4:7] = 255
    for number, values in enumerate((black, spot)):
        test[number]["mask_path"] = f"bolt/good_mask_{number}.png"
        Image.fromarray(values).save(data / test[number]["mask_path"])
    # The same pixels in another file format.
    Image.open(bolt / "train/good/2.png").save(bolt / "test/good/2.bmp")
    test[2]["img_path"] = "bolt/test/good/2.bmp"
    shutil.copy(data / test[0]["img_path"], bolt / "again\n.png")
    test.append({**test[0], "img_path": "bolt/again\n.png", "mask_path": ""})
    test.append({**test[3], "img_path": "bolt/thin.png", "mask_path": ""})
    Image.new("RGB", (500, 40), (1, 2, 3)).save(bolt / "thin.png")
    test.append({**test[0], "img_path": "bolt/grey.png", "mask_path": ""})
    Image.new("L", (31, 40), 7).save(bolt / "grey.png")
    shutil.copy(bolt / "train/good/3.png", tmp_path / "elsewhere.png")
    (bolt / "train/good/3.png").unlink()
    (bolt / "train/good/3.png").symlink_to(tmp_path / "elsewhere.png")
    meta["test"]["-felt"] = [{**entry, "cls_name": "-felt"} for entry in meta["test"].pop("felt")]
    del meta["train"]["felt"]
    (data / "meta.json").write_text(json.dumps(meta))

    assert evaluate(data, save, "--check_data", "--num_workers", "3") == 1
    out = capsys.readouterr().out
    found = problems(save)
    assert {problem["kind"] for problem in found} == set(KINDS)
    assert [(problem["kind"], problem["path"]) for problem in found] == [
        ("unreadable", "bolt/masks/scratch/2.png"),
        ("unreadable", "bolt/train/good/0.png"),
        ("unreadable", "bolt/train/good/1.png"),
        ("link", "bolt/train/good/3.png"),
        ("mask size", "bolt/masks/scratch/0.png"),
        ("empty mask", "bolt/masks/scratch/1.png"),
        ("good with defect", "bolt/good_mask_1.png"),
        ("no mask", "bolt/thin.png"),
        ("train and test", "bolt/test/good/2.bmp"),
        ("twice in test", "bolt/again\n.png"),
        ("size", "bolt/grey.png"),
        ("size", "bolt/thin.png"),
        ("mode", "bolt/grey.png"),
        ("name", ""),
        ("name", "bolt/again\n.png"),
        ("name", "bolt/again\n.png"),
    ]
    lines = out.splitlines()
    assert all(line.isprintable() for line in lines)
    assert "  bolt/masks/scratch/0.png is 50 x 61, bolt/test/scratch/0.png is 50 x 60" in lines
    assert "  bolt/test/good/2.bmp has the content of bolt/train/good/2.png in train" in lines
    assert lines[-1].startswith("19 images and 8 masks of 2 classes: 16 problems; ") and str(save / FILE) in lines[-1]
    assert evaluate(data, tmp_path / "linked", "--check_data", "--allow_links") == 1
    assert len(problems(tmp_path / "linked")) == 15
    assert evaluate(data, tmp_path / "again", "--check_data", "--num_workers", "0") == 1
    assert (tmp_path / "again" / FILE).read_bytes() == (save / FILE).read_bytes()


def test_check_needs_no_model(data: Path, tmp_path: Path) -> None:
    code = (
        "import sys, runpy; sys.modules.update(dict.fromkeys(('open_clip', 'winclip.model', 'winclip.network')));"
        "sys.argv[0] = 'test.py'; runpy.run_path('test.py', run_name='__main__')"
    )
    options = ["--check_data", "--data_path", str(data), "--save_path", str(tmp_path / "out")]
    done = subprocess.run([sys.executable, "-c", code, *options], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("20 images and 6 masks of 2 classes: no problems")
