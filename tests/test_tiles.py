"""``--tile``: positions of tiles, how they are joined, and what they are compared with."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

import predict
from tests.conftest import Predict
from tests.test_predict import Capture, error_line, rows
from winclip import WinCLIP
from winclip.demo.procedural import smooth_noise
from winclip.network.backbone import Backbone
from winclip.pictures.reading import BatchReader
from winclip.prediction.scoring import Tiles, tiles_of
from winclip.thresholds import LeftOut, from_leave_one_out


@pytest.fixture
def model(backbone: Backbone) -> WinCLIP:
    found = WinCLIP(backbone)
    found.set_class("bolt")
    return found


@pytest.fixture
def large(tmp_path: Path) -> list[str]:
    """Three pictures of 4, 6 and 2 tiles of 96 pixels; in the first two, all tiles differ."""
    paths = []
    for number, (width, height) in enumerate([(150, 120), (200, 160), (100, 50)]):
        pixels = np.random.RandomState(number).randint(90, 130, (height, width, 3)).astype(np.uint8)
        if number == 2:
            pixels[:] = 200
        paths.append(str(tmp_path / f"{number}.png"))
        Image.fromarray(pixels).save(paths[-1])
    return paths


@pytest.mark.parametrize(
    ("size", "side"), [((4000, 3000), 240), ((241, 240), 240), ((240, 100), 48), ((7, 5), 51), ((60, 501), 51)]
)
def test_tiles_cover_the_picture_and_overlap(size: tuple[int, int], side: int) -> None:
    tiles = tiles_of(size, side)
    covered = np.zeros(size[::-1], np.bool_)
    for left, upper, right, lower in tiles:
        assert (right - left, lower - upper) == (min(side, size[0]), min(side, size[1]))
        covered[upper:lower, left:right] = True
    assert covered.all() and len(set(tiles)) == len(tiles)
    for ends in ({(tile[0], tile[2]) for tile in tiles}, {(tile[1], tile[3]) for tile in tiles}):
        ordered = sorted(ends)
        assert all(end - start >= side // 4 for (_, end), (start, _) in pairwise(ordered))


def test_a_picture_of_one_tile_has_the_plain_result(run: Predict, pictures: Path) -> None:
    arguments = [pictures / "images" / "a.png", pictures / "images" / "deep" / "c.png", "--save_path"]
    reference = ["--reference", pictures / "good" / "0.png"]
    assert run(*arguments, pictures / "plain", *reference) == 0
    assert run(*arguments, pictures / "tiled", *reference, "--tile") == 0
    assert len(rows(pictures / "plain")) == 2
    for name in ("predictions.csv", "heatmaps/deep/c.png.jpg"):
        assert (pictures / "plain" / name).read_bytes() == (pictures / "tiled" / name).read_bytes()


def test_the_threshold_is_that_of_references_in_tiles(model: WinCLIP, large: list[str]) -> None:
    with BatchReader(96, 4, 0) as reader:
        tiles = Tiles(model, reader, None, 96)
        tiles.add_references(large)
        # The two tiles of the third picture are the same.
        assert model.reference_count() == 4 + 6 + 1
        found = tiles.left_out()
    assert found is not None and tiles.names == large
    parts = [[Image.open(path).crop(tile) for tile in tiles_of(Image.open(path).size, 96)] for path in large]
    alone = []
    for number, own in enumerate(parts):
        others = WinCLIP(model.backbone)
        others.set_class("bolt")
        for other, images in enumerate(parts):
            if other != number:
                others.add_references(images)
        out = others.predict(own)
        assert out.reference_scores is not None
        alone.append([float(part.max()) for part in (out.scores, out.text_scores, out.reference_scores)])
    score, text, reference = map(list, zip(*alone))
    expected = LeftOut(score, text, reference, found.peaks)
    for part in ("score", "text", "reference"):
        assert getattr(found, part) == pytest.approx(getattr(expected, part), abs=1e-6)
    threshold, wanted = from_leave_one_out(found), from_leave_one_out(expected)
    assert (threshold.text, threshold.reference) == pytest.approx((wanted.text, wanted.reference), abs=1e-5)


def test_parts_of_the_score_are_the_highest_of_the_tiles(model: WinCLIP, large: list[str]) -> None:
    picture = Image.open(large[0])
    for references in ([], large[1:]):
        with BatchReader(96, 4, 0) as reader:
            tiles = Tiles(model, reader, None, 96)
            if references:
                tiles.add_references(references)
            (((_, outcome),),) = tiles.outcomes(large[:1])
        out = model.predict([picture.crop(tile) for tile in tiles_of(picture.size, 96)])
        assert not isinstance(outcome, str) and outcome[1] == picture.size
        found = outcome[0]
        assert (found.scores, found.text_scores) == (out.scores.max(), out.text_scores.max())
        assert found.reference_scores == (None if out.reference_scores is None else out.reference_scores.max())


def test_the_memory_is_bounded_and_holds_tiles_of_every_reference(
    model: WinCLIP, large: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("winclip.prediction.scoring.MOST_IN_MEMORY", 6)
    with BatchReader(96, 4, 0) as reader:
        tiles = Tiles(model, reader, None, 96)
        tiles.add_references(large)
    assert [len(own) for own in tiles._in_memory.values()] == [2, 2, 1]


def test_the_cost_is_stated_before_it_starts(run: Predict, large: list[str], capsys: Capture) -> None:
    arguments = [large[0], "--reference", large[1], "--tile", "--save_path", Path(large[0]).parent / "out"]
    assert run(*arguments) == 0
    log, said = capsys.readouterr().err, "4 a picture at most, 4 in 1 picture"
    assert said in log and log.count("info: a tile takes ") == 1
    assert log.index(said) < log.index("info: not judged: ") < log.index("info: a tile takes ")
    # Only two of them are in the region that counts.
    assert run(*arguments, "--region", "0,0,150,96") == 0
    assert "2 a picture at most, 2 in 1 picture" in capsys.readouterr().err
    assert run(*arguments, "--reference", large[2]) == 0
    assert "6 a picture at most, 12 in 2 references, for the threshold, and 1 picture" in capsys.readouterr().err


def test_tiles_smaller_than_a_window_are_refused(run: Predict, large: list[str], capsys: Capture) -> None:
    save = Path(large[0]).parent / "out"
    for side in ("47", "0"):
        assert run(large[0], "--tile_size", side, "--save_path", save) == 2
        assert "--tile_size 48 or more" in error_line(capsys)
    assert run(large[0], "--tile_size", "48", "--save_path", save) == 0
    assert run(large[0], "--tile", "--memory", "m", "--save_path", save) == 2
    assert "--tile" in error_line(capsys)


@pytest.mark.slow
def test_a_small_defect_is_found_in_tiles_and_missed_without(tmp_path: Path) -> None:
    # A texture like cowhide, and a spot of 12 pixels; only some of the tiles, because all would take minutes.
    width, height, region = 4000, 3000, "1300,1600,420,420"
    generator = np.random.RandomState(0)
    relief = smooth_noise(generator, (height, width), 4.5) + np.float32(0.6) * smooth_noise(
        generator, (height, width), 2.5
    )
    slope = relief - np.roll(relief, 1, axis=(0, 1))
    light = np.float32(255 * generator.uniform(0.9, 1.1))
    grain = light * (np.float32(0.60) + np.float32(0.1) * slope + np.float32(0.035) * relief)
    pixels = np.clip(grain[..., None] * np.array([0.78, 0.5, 0.33], np.float32), 0, 255).astype(np.uint8)
    (tmp_path / "judged").mkdir()
    Image.fromarray(pixels).save(tmp_path / "judged" / "good.bmp")
    cv2.circle(pixels, (1508, 1839), 6, (30, 20, 15), cv2.FILLED, cv2.LINE_AA)
    Image.fromarray(pixels).save(tmp_path / "judged" / "spot.bmp")
    given = ["--class_name", "cowhide", str(tmp_path / "judged"), "--model", "demo-vit-240", "--device", "cpu"]
    given += ["--threshold", "0.5"]
    verdicts = []
    for way, more in (("plain", []), ("tiles", ["--tile", "--region", region])):
        assert predict.main([*given, *more, "--save_path", str(tmp_path / way)]) == 0
        verdicts.append([row["anomalous"] for row in rows(tmp_path / way)])
    assert verdicts == [["no", "no"], ["no", "yes"]]
    left, upper, wide, high = (int(rows(tmp_path / "tiles")[1][f"box_{side}"]) for side in "xywh")
    assert left <= 1508 <= left + wide and upper <= 1839 <= upper + high
