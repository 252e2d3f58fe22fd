"""``--region``: pixels outside change nothing, and the inside is scored like a picture of its own."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import Predict
from tests.test_predict import Capture, error_line, rows
from winclip.pictures.drawing import encoded, with_legend

X, Y, WIDTH, HEIGHT = BOX = 10, 5, 40, 14
REGION = "10,5,40,14"
FIGURES = ("score", "threshold", "anomalous", "area", "text_score", "reference_score")


@pytest.mark.parametrize(("reference", "filled"), [("good/0.png", "box_x"), ("good", "threshold")])
def test_a_box_is_scored_as_a_picture_of_its_own(run: Predict, pictures: Path, reference: str, filled: str) -> None:
    inside = (X, Y, X + WIDTH, Y + HEIGHT)
    for path in [*pictures.rglob("images/**/?.png"), *pictures.rglob("good/?.png")]:
        cut = pictures / "cut" / path.relative_to(pictures)
        cut.parent.mkdir(parents=True, exist_ok=True)
        Image.open(path).crop(inside).save(cut)
    cut = pictures / "cut"
    for folder, save, more in ((pictures, "whole", ["--region", REGION]), (cut, "parts", [])):
        places = [folder / "images", "--reference", folder / reference, "--save_path", pictures / save]
        assert run(*places, "--save_masks", *more) == 0
    assert any(row[filled] for row in rows(pictures / "parts"))
    about = json.loads((pictures / "whole" / "run.json").read_text())
    pixel = about["settings"]["threshold"]["pixel"]
    for whole, part in zip(rows(pictures / "whole"), rows(pictures / "parts"), strict=True):
        assert [whole[name] for name in FIGURES] == [part[name] for name in FIGURES]
        if part["box_x"]:
            assert (int(whole["box_x"]), int(whole["box_y"])) == (int(part["box_x"]) + X, int(part["box_y"]) + Y)
        with Image.open(whole["path"]) as picture, Image.open(pictures / "whole" / whole["heat_map"]) as heat:
            assert heat.width == picture.width and heat.height > picture.height
            outside = np.ones(picture.size[::-1], np.bool_)
            # JPEG's blocks reach a little further.
            outside[: Y + HEIGHT + 16, : X + WIDTH + 16] = False
            plain = encoded(with_legend(picture, about["colours"], pixel), "JPEG", quality=90)
            one, other = (np.asarray(drawn)[: picture.height] for drawn in (heat, Image.open(io.BytesIO(plain))))
            np.testing.assert_array_equal(one[outside], other[outside])
        name = whole["heat_map"].replace("heatmaps", "masks").replace(".jpg", ".png")
        with Image.open(pictures / "whole" / name) as white, Image.open(pictures / "parts" / name) as white_part:
            np.testing.assert_array_equal(np.asarray(white.crop(inside)), np.asarray(white_part))
            assert np.asarray(white).sum() == np.asarray(white_part).sum()


def test_what_is_outside_of_a_mask_changes_nothing(run: Predict, pictures: Path) -> None:
    mask = np.zeros((50, 60), np.uint8)
    mask[10:40, 20:50] = 255
    mask[10:20, 20:30] = 0
    Image.fromarray(mask).save(pictures / "mask.png")
    places = [pictures / "images" / "a.png", "--reference", pictures / "good", "--region", pictures / "mask.png"]
    assert run(*places, "--threshold", "0.2", "--save_path", pictures / "before") == 0
    for path in (pictures / "images" / "a.png", *pictures.glob("good/*.png")):
        changed = np.asarray(Image.open(path)).copy()
        changed[mask == 0] = (255, 0, 0)
        Image.fromarray(changed).save(path)
    assert run(*places, "--threshold", "0.2", "--save_path", pictures / "after", "--save_masks") == 0
    assert rows(pictures / "before") == rows(pictures / "after")
    white = np.asarray(Image.open(pictures / "after" / "masks" / "a.png.png"))
    assert not white[mask == 0].any()
    (row,) = rows(pictures / "after")
    assert float(row["area"]) == pytest.approx((white > 0).sum() / (mask > 0).sum(), abs=1e-6)


def test_a_picture_that_the_region_does_not_fit_is_passed_over(run: Predict, pictures: Path, capsys: Capture) -> None:
    assert run(pictures / "images", "--save_path", pictures / "out", "--region", "0,25,60,25") == 0
    reasons = {Path(row["path"]).name: row["reason"] for row in rows(pictures / "out", "failures.csv")}
    assert "deep/a.png: --region 0,25,60,25 is outside of its 200 x 20 pixels" in reasons["a.png"]
    assert [Path(row["path"]).name for row in rows(pictures / "out")] == ["a.png", "b.png", "c.png"]
    Image.new("L", (60, 51), 255).save(pictures / "mask.png")
    assert run(pictures / "images", "--save_path", pictures / "out", "--region", pictures / "mask.png") == 2
    assert "a.png: 60 x 50 is not the size of the mask of --region, 60 x 51" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--region", "1,2,3"], "--region 1,2,3"),
        (["--region", "0,0,0,5"], "--region 0,0,0,5"),
        (["--region=-1,0,5,5"], "--region -1,0,5,5"),
        (["--region", "0,0,99999,99999"], "--region 0,0,99999,99999"),
        (["--region", "images/text.png"], "images/text.png"),
        (["--region", "black.png"], "black.png"),
        (["--region", REGION, "--memory", "m"], "--region"),
        (["--region", "500,0,10,10", "--reference", "good"], "3 references"),
    ],
)
def test_bad_regions(
    run: Predict, pictures: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch, options: list[str], named: str
) -> None:
    monkeypatch.chdir(pictures)
    Image.new("L", (60, 50)).save("black.png")
    assert run("images/a.png", "--save_path", "out", *options) == 2
    assert named in error_line(capsys)


def test_rows_of_another_region_are_not_resumed(run: Predict, pictures: Path, capsys: Capture) -> None:
    arguments = [pictures / "images" / "a.png", "--save_path", pictures / "out", "--resume"]
    assert run(*arguments, "--region", REGION) == 0
    for options, other in (([], "region"), (["--region", REGION, "--tile_size", "48"], "tile_size")):
        capsys.readouterr()
        assert run(*arguments, *options) == 2
        assert f"made with another {other} and" in error_line(capsys)
