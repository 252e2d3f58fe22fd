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
from PIL import ExifTags, Image, ImageFilter

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
    Image.fromarray(np.tri(61, 50, dtype=np.uint8)).save(bolt / "masks/scratch/0.png")
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
    Image.new("I;16", (31, 40), 700).save(bolt / "grey.png")
    shutil.copy(bolt / "train/good/3.png", tmp_path / "elsewhere.png")
    (bolt / "train/good/3.png").unlink()
    (bolt / "train/good/3.png").symlink_to(tmp_path / "elsewhere.png")
    meta["test"]["-felt"] = [{**entry, "cls_name": "-felt"} for entry in meta["test"].pop("felt")]
    del meta["train"]["felt"]
    (data / "meta.json").write_text(json.dumps(meta))

    assert evaluate(data, save, "--check_data", "--num_workers", "3") == 1
    out = capsys.readouterr().out
    found = problems(save)
    of_masks_and_exif = {"turned", "graded mask", "gone", "full mask", "inverted"}
    assert {problem["kind"] for problem in found} == set(KINDS) - of_masks_and_exif
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
        ("depth", ""),
        ("depth", ""),
        ("name", ""),
        ("name", "bolt/again\n.png"),
        ("name", "bolt/again\n.png"),
    ]
    lines = out.splitlines()
    assert all(line.isprintable() for line in lines)
    assert "  bolt/masks/scratch/0.png is 50 x 61, bolt/test/scratch/0.png is 50 x 60" in lines
    assert "  bolt/test/good/2.bmp has the content of bolt/train/good/2.png in train" in lines
    assert lines[-1].startswith("19 images and 8 masks of 2 classes: 18 problems; ") and str(save / FILE) in lines[-1]
    assert evaluate(data, tmp_path / "linked", "--check_data", "--allow_links") == 1
    assert len(problems(tmp_path / "linked")) == 17
    assert evaluate(data, tmp_path / "again", "--check_data", "--num_workers", "0") == 1
    assert (tmp_path / "again" / FILE).read_bytes() == (save / FILE).read_bytes()


def test_turned_images_and_doubtful_masks_are_found(evaluate: Evaluate, data: Path, tmp_path: Path) -> None:
    bolt, felt, save = data / "bolt", data / "felt", tmp_path / "out"
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    for name in ("test/scratch/0", "train/good/0"):
        stored = Image.open(bolt / f"{name}.png").copy()
        stored.transpose(Image.Transpose.ROTATE_90).save(bolt / f"{name}.png", exif=exif)
    mask = np.asarray(Image.open(bolt / "masks/scratch/1.png"))
    Image.fromarray(mask).filter(ImageFilter.GaussianBlur(1)).save(bolt / "masks/scratch/1.png")
    Image.new("L", (50, 60), 255).save(felt / "masks/scratch/0.png")
    Image.fromarray(255 - mask).save(felt / "masks/scratch/1.png")
    large, spot = np.random.RandomState(0).randint(0, 255, (2, 400, 400, 1)).astype(np.uint8).repeat(3, 3)
    spot[:] = 0
    spot[7, 7] = 255
    Image.fromarray(large).save(felt / "test/scratch/2.png")
    Image.fromarray(spot).save(felt / "masks/scratch/2.png")

    def found(*options: str) -> list[tuple[str, str]]:
        assert evaluate(data, save, "--check_data", *options) == 1
        return [(problem["kind"], problem["path"]) for problem in problems(save)]

    of_masks = [
        ("graded mask", "bolt/masks/scratch/1.png"),
        ("gone", "felt/masks/scratch/2.png"),
        ("full mask", "felt/masks/scratch/0.png"),
        ("inverted", ""),
    ]
    assert found() == [
        ("turned", "bolt/test/scratch/0.png"),
        ("turned", "bolt/train/good/0.png"),
        ("mask size", "bolt/masks/scratch/0.png"),
        *of_masks,
    ]
    text = {problem["kind"]: problem["text"] for problem in problems(save)}
    assert text["mask size"].endswith("have it upright as EXIF says; try --upright")
    assert text["gone"] == "felt/masks/scratch/2.png of felt/test/scratch/2.png has 1 defect pixel, and none at 96 x 96"
    assert text["inverted"] == "felt: 2 of 3 masks"
    assert found("--upright") == of_masks
    # Which defects vanish depends on the input size of the model.
    cases = ((["--image_size", "1200"], 0), (["--model", "ViT-L-14-336"], 1), (["--model", "demo-vit-240"], 1))
    for model, gone in cases:
        assert [kind for kind, _ in found("--upright", *model)].count("gone") == gone


def test_check_needs_no_model(data: Path, tmp_path: Path) -> None:
    code = (
        "import sys, runpy; sys.modules.update(dict.fromkeys(('open_clip', 'winclip.model', 'winclip.network')));"
        "sys.argv[0] = 'test.py'; runpy.run_path('test.py', run_name='__main__')"
    )
    options = ["--check_data", "--data_path", str(data), "--save_path", str(tmp_path / "out")]
    done = subprocess.run([sys.executable, "-c", code, *options], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("20 images and 6 masks of 2 classes: no problems")
