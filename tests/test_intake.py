"""Pictures of more than 8 bits, and of several pages: scaled by their white value, and warned of once."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from scripts import score_collection
from tests.conftest import Predict
from tests.tiny import CONFIG
from winclip import InputError, WinCLIP
from winclip.commands import app
from winclip.network.backbone import Backbone
from winclip.pictures.images import as_image, read_image
from winclip.pictures.intake import Intake

Capture = pytest.CaptureFixture[str]
DEEP = np.random.RandomState(0).randint(1500, 3000, (60, 50, 3)).astype(np.uint16)
DEEP[0, 0] = 3980
EIGHT = ((DEEP.astype(int) * 255 + 2047) // 4095).astype(np.uint8)


def save(path: Path, values: npt.NDArray[np.uint16]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), values[..., ::-1] if values.ndim == 3 and values.shape[2] == 3 else values)
    return path


@pytest.mark.parametrize("name", ["grey.png", "grey.tif", "colour.png", "colour.tiff"])
def test_white_gives_the_picture_of_8_bits(tmp_path: Path, name: str) -> None:
    grey = name.startswith("grey")
    path = save(tmp_path / name, DEEP[..., 0] if grey else DEEP)
    intake = Intake(4095)
    expected = np.stack([EIGHT[..., 0]] * 3, axis=2) if grey else EIGHT
    np.testing.assert_array_equal(np.asarray(read_image(path, intake=intake)), expected)
    np.testing.assert_array_equal(np.asarray(read_image(path, upright=True, intake=intake)), expected)
    assert (intake.highest, intake.odd()) == ({str(path): 3980}, {})
    # In full range as before: grey is rounded, colours keep their upper 8 bits.
    plain = Intake()
    whole = DEEP >> 8 if not grey else (np.stack([DEEP[..., 0]] * 3, axis=2).astype(int) * 255 + 32767) // 65535
    np.testing.assert_array_equal(np.asarray(read_image(path, intake=plain)), whole)
    assert f"1 of 1 picture of 16 bits reach {'3,980' if grey else '4,095'} of 65,535 at most" in plain.odd()["depth"]
    assert "12 bits, say --white 4095" in plain.odd()["depth"]


def test_turned_and_transparent_colours_of_16_bits(tmp_path: Path) -> None:
    turned, exif = tmp_path / "turned.png", Image.Exif()
    alpha = np.full((60, 50), 65535, np.uint16)
    alpha[5:] = 0
    content = save(tmp_path / "alpha.png", np.dstack([DEEP[..., ::-1], alpha])).read_bytes()
    expected = np.where(alpha[..., None] > 0, EIGHT, 255)
    np.testing.assert_array_equal(np.asarray(read_image(tmp_path / "alpha.png", intake=Intake(4095))), expected)
    exif[0x0112] = 6
    Image.new("L", (1, 1)).save(tmp_path / "one.png", exif=exif)
    chunk = (tmp_path / "one.png").read_bytes()
    start = chunk.index(b"eXIf") - 4
    size = int.from_bytes(chunk[start : start + 4], "big") + 12
    turned.write_bytes(content[:33] + chunk[start : start + size] + content[33:])
    shown = np.asarray(read_image(turned, upright=True, intake=Intake(4095)))
    np.testing.assert_array_equal(shown, np.rot90(expected, -1))


@pytest.mark.parametrize(
    ("highest", "white"), [(255, 255), (256, 1023), (1023, 1023), (1024, 4095), (4096, 16383), (16383, 16383)]
)
def test_the_depth_is_guessed_from_the_highest_value(highest: int, white: int) -> None:
    assert Intake(highest={"a": 1, "b": highest}).odd()["depth"].endswith(f"say --white {white}")


def test_what_is_odd_is_said_once_a_kind(logged: list[str]) -> None:
    for fine in (Intake(), Intake(shallow=True), Intake(highest={"a": 16384}), Intake(4095, {"a": 4095}, True)):
        assert fine.odd() == {}
    over = Intake(1023, {"a": 1024, "b": 1023})
    assert "1 of 2 pictures of 16 bits reach above --white 1023, up to 1,024" in over.odd()["white"]
    mixed = Intake(highest={"a": 65535}, shallow=True)
    assert list(mixed.odd()) == ["depths"]
    over.warn()
    over.warn()
    assert len(logged) == 1
    for white in (0, -1, 65536):
        with pytest.raises(InputError, match=f"white {white} must be from 1 to 65535"):
            Intake(white)


def deep_data(data: Path) -> None:
    """Turn the pictures of a data set into those of a 12-bit camera."""
    for path in data.glob("*/t*/*/*.png"):
        save(path, np.asarray(Image.open(path).convert("L")).astype(np.uint16) * 16)


def test_evaluation_warns_once_and_white_is_part_of_the_run(
    evaluate: Callable[..., int], data: Path, tmp_path: Path, capsys: Capture
) -> None:
    save_path = tmp_path / "out"
    deep_data(data)
    assert evaluate(data, save_path, "--k_shot", "1", "--report") == 0
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "65,535" in line]
    assert line.startswith("warning: 14 of 14 pictures of 16 bits reach ") and line.endswith("say --white 4095")
    assert evaluate(data, tmp_path / "check", "--check_data") == 1
    (found,) = {problem["kind"] for problem in json.loads((tmp_path / "check/check_data.json").read_text())["problems"]}
    assert found == "depth" and "bolt: 10 of 10 pictures of 16 bits" in capsys.readouterr().out
    assert evaluate(data, tmp_path / "check", "--check_data", "--white", "4095") == 0
    assert evaluate(data, save_path, "--k_shot", "1", "--report", "--white", "4095") == 0
    assert "65,535" not in capsys.readouterr().err
    assert json.loads((save_path / "config.json").read_text())["options"]["white"] == 4095
    made = [json.loads(path.read_text())["made_with"]["white"] for path in (save_path / "scores").glob("*/*.json")]
    assert sorted(made, key=str) == [4095, None]


def test_predict_gives_what_pictures_of_8_bits_give(run: Predict, pictures: Path, capsys: Capture) -> None:
    memory, good = pictures / "bolt.safetensors", pictures / "good"
    for folder in ("deep", "shallow"):
        for number in range(3):
            values = DEEP[..., 0] + 50 * number
            eight = ((values.astype(int) * 255 + 2047) // 4095).astype(np.uint8)
            path = save(pictures / folder / f"{number}.png", values)
            if folder == "shallow":
                Image.fromarray(eight).save(path)
    scores = {}
    for name, folder, white in (("a", "deep", ["--white", "4095"]), ("b", "shallow", []), ("c", "deep", [])):
        given = [pictures / folder, "--reference", good, "--save_memory", memory, "--save_path", pictures / name]
        assert run(*given, *white, "--report") == 0
        scores[name] = [row["score"] for row in json.loads((pictures / name / "predictions.json").read_text())]
        err = capsys.readouterr().err
        assert err.count("3 of 3 pictures of 16 bits reach 4,080 of 65,535") == (name == "c")
        assert err.count("3 pictures of 16 bits are among pictures and references of 8 bits") == (name == "c")
        said = json.loads((pictures / name / "run.json").read_text())["settings"]["white"]
        assert said == (4095 if white else None)
    assert scores["a"] == scores["b"] != scores["c"]
    heat = [np.asarray(Image.open(pictures / name / "heatmaps/0.png.jpg")) for name in "ab"]
    np.testing.assert_array_equal(heat[0], heat[1])
    # The memory has no white value.
    given = [pictures / "deep", "--memory", memory, "--save_path", pictures / "d", "--white", "4095"]
    assert run(*given, class_name=None) == 2
    assert "white is None, not 4095" in capsys.readouterr().err
    assert run(*given, "--white", "70000", class_name=None) == 2
    assert "white 70000 must be" in capsys.readouterr().err


def test_the_library_takes_white(backbone: Backbone, tmp_path: Path, logged: list[str]) -> None:
    path = save(tmp_path / "deep.png", DEEP[..., 0])
    plain, white = WinCLIP(backbone), WinCLIP(backbone, white=4095)
    for model in (plain, white):
        model.set_class("bolt")
    expected = plain.predict(EIGHT[..., 0]).scores
    with Image.open(path) as opened:
        assert white.predict([path, opened]).scores.tolist() == [expected[0]] * 2
    assert logged == []
    plain.predict([path, path])
    plain.predict(path)
    assert [line[:20] for line in logged] == ["1 of 1 picture of 16", "1 picture of 16 bits"]


def test_the_page_says_it_beside_the_verdicts(backbone: Backbone, tmp_path: Path) -> None:
    path = str(save(tmp_path / "deep.png", DEEP[..., 0]))
    assert "say --white 4095" in app.judge(WinCLIP(backbone), [path], "bolt", None, 0.5)
    assert "--white" not in app.judge(WinCLIP(backbone, white=4095), [path], "bolt", None, 0.5)
    assert app.build_parser().parse_args(["--white", "4095"]).white == 4095


@pytest.mark.slow
def test_collections_say_it_at_the_end(
    data: Path, backbone: Backbone, checkpoint: Path, tmp_path: Path, capsys: Capture
) -> None:
    pytest.importorskip("ray")
    deep_data(data)
    for white in (None, 4095):
        model, memory = WinCLIP(backbone, white=white), tmp_path / f"{white}.safetensors"
        model.set_class("bolt")
        model.add_references(data / "bolt/train/good/0.png")
        model.save_memory(memory)
        given = ["--model", str(CONFIG), "--pretrained", str(checkpoint), "--device", "cpu", "--workers", "1"]
        given += [
            "--input",
            str(data / "bolt/test"),
            "--memory",
            str(memory),
            "--output",
            str(tmp_path / f"out{white}"),
        ]
        assert score_collection.main([*given, *([] if white is None else ["--white", str(white)])]) == 0
        err = capsys.readouterr().err
        assert err.count("6 of 6 pictures of 16 bits reach") == (white is None)


def test_pages_and_frames_beyond_the_first_are_said(
    run: Predict, evaluate: Callable[..., int], data: Path, tmp_path: Path, capsys: Capture
) -> None:
    frames = [Image.new("RGB", (60, 50), (90 + 20 * number, 100, 110)) for number in range(3)]
    for ending in ("tif", "gif", "png", "webp"):
        how: dict[str, Any] = {"lossless": True} if ending == "webp" else {}
        path = tmp_path / "paged" / f"a.{ending}"
        path.parent.mkdir(exist_ok=True)
        frames[0].save(path, save_all=True, append_images=frames[1:], **how)
        frames[0].save(path.with_name(f"b.{ending}"), **how)
        intake = Intake()
        first = np.asarray(read_image(path, intake=intake))
        np.testing.assert_array_equal(first, np.asarray(read_image(path.with_name(f"b.{ending}"), intake=intake)))
        assert intake.paged == {str(path)}
    photo = tmp_path / "photo.jpg"
    frames[0].save(photo, "MPO", save_all=True, append_images=frames[1:])
    assert as_image(photo, intake).size == (60, 50) and len(intake.paged) == 1
    assert run(tmp_path / "paged", "--save_path", tmp_path / "out") == 0
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "pages" in line]
    assert line.startswith("warning: 4 pictures with several pages or frames, such as ") and "paged/a." in line
    frames[0].save(data / "bolt/test/good/0.png", save_all=True, append_images=frames[1:])
    assert evaluate(data, tmp_path / "evaluated", "--classes", "bolt") == 0
    assert "1 picture with several pages or frames, such as " in capsys.readouterr().err
    assert logging.getLogger("winclip").level == logging.INFO
