"""predict.py as a whole, with the tiny backbone on small pictures."""

from __future__ import annotations

import csv
import json
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import predict
import winclip.prediction.references
import winclip.prediction.scoring
from tests.conftest import ROOT, Predict
from tests.test_report import embedded, pixels
from tests.tiny import CONFIG
from winclip import InputError, WinCLIP
from winclip.embeddings import Embeddings
from winclip.pictures.images import PIXEL_LIMIT
from winclip.prediction.journal import JOURNAL
from winclip.prediction.listing import common_folder, list_pictures, output_name
from winclip.prediction.options import parse_options
from winclip.scoring import GridScores, score_images
from winclip.support.files import lock_folder, write_atomically
from winclip.thresholds import FEW, prediction_bound

Capture = pytest.CaptureFixture[str]
FILES = {JOURNAL, "predictions.csv", "predictions.json", "failures.csv", "run.json", "heatmaps"}


def rows(save: Path, name: str = "predictions.csv") -> list[dict[str, str]]:
    with (save / name).open(newline="") as file:
        return list(csv.DictReader(file))


def contents(save: Path) -> dict[str, bytes]:
    return {path.relative_to(save).as_posix(): path.read_bytes() for path in sorted(save.rglob("*")) if path.is_file()}


def error_line(capsys: Capture) -> str:
    lines = [line for line in capsys.readouterr().err.splitlines() if not line.startswith(("info:", "warning:"))]
    assert len(lines) == 1 and lines[0].startswith(("error: ", "stopped by ")), lines
    return lines[0]


def test_files_of_a_run(run: Predict, pictures: Path, capsys: Capture) -> None:
    save = pictures / "out"
    one = pictures / "good" / "0.png"
    assert run("--reference", one, pictures / "images", "--save_path", save, "--save_masks") == 0
    assert {path.name for path in save.iterdir()} == FILES | {"masks"}
    table = rows(save)
    images = pictures / "images"
    names = ["a.png", "b.png", "deep/a.png", "deep/c.png"]
    assert [row["path"] for row in table] == [f"{images}/{name}" for name in names]
    listed = json.loads((save / "predictions.json").read_text())
    for row, item, name in zip(table, listed, names):
        assert item["path"] == row["path"] and item["score"] == float(row["score"])
        assert item["anomalous"] == (item["score"] > item["threshold"]) == (row["anomalous"] == "yes")
        with Image.open(images / name) as picture, Image.open(save / item["heat_map"]) as heat:
            assert heat.size == picture.size
        with Image.open(save / "masks" / f"{name}.png") as file:
            white = np.asarray(file) > 0
            assert file.size == heat.size
        assert item["area"] == pytest.approx(white.mean(), abs=1e-5)
        assert (item["box"] is None) == (item["area"] == 0)
        if item["box"] is not None:
            x, y, width, height = item["box"]
            assert white[y : y + height, x : x + width].any() and x + width <= heat.width
    assert any(item["box"] for item in listed)
    (failure,) = rows(save, "failures.csv")
    assert failure["path"].endswith("images/text.png") and "cannot be read" in failure["reason"]
    out = capsys.readouterr()
    assert "warning: passed over: image" in out.err and "text.png" in out.err
    assert "with 1 reference no spread is known" in out.err
    anomalous = [item for item in listed if item["anomalous"]]
    assert 0 < len(anomalous) < 4
    highest = sorted(listed, key=lambda item: -float(item["score"]))
    words = {True: "anomalous", False: "good"}
    assert out.out.splitlines() == [
        f"4 pictures: {4 - len(anomalous)} good, {len(anomalous)} anomalous, 1 passed over (failures.csv says why)",
        "threshold 0.25: 1 reference: zero-shot probability 0.5 and no difference to the reference",
        "  with 1 reference no spread is known; give at least 2, better 8, or a threshold of your own",
        "highest scores:",
        *(f"  {item['score']:.4f}  {words[item['anomalous']]:9}  {item['path']}" for item in highest),
        f"heat maps: {save / 'heatmaps'}",
    ]
    summary = json.loads((save / "run.json").read_text())
    assert (summary["finished"], summary["scored"], summary["unreadable"]) == (True, 4, 1)


def test_scores_and_threshold_are_those_of_the_library(
    run: Predict, pictures: Path, checkpoint: Path, capsys: Capture
) -> None:
    save = pictures / "out"
    assert run("--reference", f"{pictures}/good/*.png", pictures / "images", "--save_path", save) == 0
    model = WinCLIP.from_pretrained(str(CONFIG), str(checkpoint), device="cpu")
    model.set_class("bolt")
    model.add_references([pictures / "good" / f"{number}.png" for number in range(3)])
    scores = model.predict([row["path"] for row in rows(save)]).scores
    np.testing.assert_allclose([float(row["score"]) for row in rows(save)], scores, rtol=0, atol=1e-8)
    bound = prediction_bound(model.leave_one_out().scores.tolist(), 1.0)
    assert all(float(row["threshold"]) == pytest.approx(bound, abs=1e-8) for row in rows(save))


@pytest.mark.parametrize(
    ("options", "threshold", "pixel", "said"),
    [
        ([], 0.5, 0.5, "no reference: zero-shot probability 0.5"),
        (["--reference", "good/0.png"], 0.25, 0.5, "with 1 reference no spread is known"),
        (["--threshold", "0.125"], 0.125, 0.5, "threshold 0.125 (the score's threshold is given"),
    ],
)
def test_threshold_with_fewer_than_two_references(
    run: Predict,
    pictures: Path,
    capsys: Capture,
    monkeypatch: pytest.MonkeyPatch,
    options: list[str],
    threshold: float,
    pixel: float,
    said: str,
) -> None:
    monkeypatch.chdir(pictures)
    assert run("images/a.png", "--save_path", "out", *options) == 0
    assert rows(pictures / "out")[0]["threshold"] == str(threshold)
    assert rows(pictures / "out")[0]["path"] == "images/a.png"
    assert json.loads((pictures / "out" / "run.json").read_text())["settings"]["pixel_threshold"] == pixel
    assert said in capsys.readouterr().err


def test_memory_alone_gives_the_same_scores_and_threshold(run: Predict, pictures: Path) -> None:
    memory = pictures / "bolt.safetensors"
    states = ["--anomalous_states", "bent", "with a missing pin"]
    first, second = pictures / "first", pictures / "second"
    common = [pictures / "images", "--reference", pictures / "good", "--save_path", first, "--save_memory", memory]
    assert run(*common, *states) == 0
    assert run(pictures / "images", "--memory", memory, "--save_path", second, class_name=None) == 0
    for one, other in zip(rows(first), rows(second), strict=True):
        assert float(one["score"]) == pytest.approx(float(other["score"]), abs=1e-6)
        assert float(one["threshold"]) == pytest.approx(float(other["threshold"]), abs=1e-6)
        assert one["box_x"] == other["box_x"]
    settings = json.loads((second / "run.json").read_text())["settings"]
    assert settings["class_name"] == "bolt"
    assert settings["prompts"]["anomalous_states"] == ["bent {}", "{} with a missing pin"]


def test_memory_that_does_not_fit_is_refused(run: Predict, pictures: Path, capsys: Capture) -> None:
    memory, save = pictures / "bolt.safetensors", pictures / "out"
    assert run(pictures / "images", "--reference", pictures / "good", "--save_memory", memory, "--save_path", save) == 0
    capsys.readouterr()
    for options, message in (
        (["--normal_states", "new"], "prompts is"),
        (["--image_size", "64"], "image_size is 96, not 64"),
        (["--model", "ViT-B-32"], f"model is '{CONFIG.name}', not 'ViT-B-32'; name the memory's with --model"),
    ):
        more = [pictures / "images", "--memory", memory, "--save_path", save]
        arguments = [*map(str, more), "--class_name", "bolt", "--model", str(CONFIG), "--device", "cpu"]
        checkpoint = json.loads((save / "run.json").read_text())["settings"]["weights_sha256"]
        assert len(checkpoint) == 64
        status = predict.main([*arguments, *options]) if "--model" in options else run(*more, *options)
        assert status == 2
        assert message in error_line(capsys)
    assert run(pictures / "images", "--memory", memory, "--save_path", save, class_name="nut") == 2
    assert "class_name is 'bolt', not 'nut'" in error_line(capsys)
    memory.write_bytes(memory.read_bytes()[:-100])
    assert run(pictures / "images", "--memory", memory, "--save_path", save) == 2
    assert "bolt.safetensors cannot be read" in error_line(capsys)


def test_an_interrupted_run_goes_on_to_the_same_bytes(
    run: Predict, pictures: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, broken = pictures / "whole", pictures / "broken"
    arguments = ["--reference", pictures / "good", pictures / "images", "--save_masks", "--report", "--save_path"]
    assert run(*arguments, whole) == 0
    describe, after = winclip.prediction.scoring._describe, 3
    calls = iter(range(100))

    def stop(*given: Any) -> Any:
        if next(calls) == after:
            raise KeyboardInterrupt
        return describe(*given)

    with monkeypatch.context() as patch:
        patch.setattr(winclip.prediction.scoring, "_describe", stop)
        assert run(*arguments, broken) == 130
    assert f"stopped by SIGINT; {after} of 5 pictures are done, and the same" in error_line(capsys)
    assert len(rows(broken)) == after
    # A row that a power cut left half written.
    with (broken / JOURNAL).open("a") as file:
        file.write('{"path": "half a ro')
    assert run(*arguments, broken, "--resume") == 0
    assert contents(broken) == contents(whole)
    assert run(*arguments, broken, "--resume") == 0
    assert contents(broken) == contents(whole)
    capsys.readouterr()
    assert run(*arguments, broken, "--resume", "--threshold", "0.4") == 2
    assert "made with another threshold, threshold_rule and cannot be resumed" in error_line(capsys)
    assert run(*arguments, broken, "--resume", class_name="nut") == 2
    assert "another class_name" in error_line(capsys)
    assert contents(broken) == contents(whole)


def test_report_says_what_the_table_says(run: Predict, pictures: Path) -> None:
    save, images = pictures / "out", pictures / "images"
    # Together a path that would end the page's script.
    (images / "<").mkdir()
    (images / "b.png").rename(images / "<" / "script><img src=x>.png")
    arguments = [images, "--save_path", save, "--reference", pictures / "good" / "0.png"]
    assert run(*arguments, class_name="<i>bolt") == 0
    middle = sorted(rows(save), key=lambda row: float(row["score"]))[1]["score"]
    assert run(*arguments, "--report", "--threshold", middle, class_name="<i>bolt") == 0
    page = (save / "report.html").read_text()
    content = embedded(page)
    (setting,) = content["settings"]
    order = sorted(rows(save), key=lambda row: -float(row["score"]))
    assert len(order) == 4 and {row["anomalous"] for row in order} == {"yes", "no"}
    for number, row in zip(setting["order"], order, strict=True):
        card, result = content["cards"][number], setting["results"][number]
        assert (card["name"], result["score"]) == (row["path"], f"{float(row['score']):.4f}")
        assert result["outcome"] == ("anomalous" if row["anomalous"] == "yes" else "not anomalous")
        for uri, path in ((card["photo"], Path(row["path"])), (result["heat"], save / row["heat_map"])):
            with Image.open(path) as image:
                difference = np.abs(pixels(uri).astype(int) - np.asarray(image))
            assert difference.mean() < 10
    anomalous = sum(row["anomalous"] == "yes" for row in order)
    assert f"<td>{anomalous}</td><td>1</td><td>{float(middle):.4f}</td>" in page
    assert "How the threshold was found: the score&#39;s threshold is given" in page
    assert page.count("<svg") == 1 and "Right or wrong" not in page and "ROC" not in page
    assert "<img" not in page and "<i>bolt" not in page and page.count("</script") == 2


def test_report_of_a_resumed_run_covers_all_rows_and_shows_the_highest(
    run: Predict, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("winclip.prediction.report.REPORT_PICTURES", 3)
    monkeypatch.chdir(pictures)
    save = pictures / "out"
    assert run("images", "--save_path", save, "--reference", "good/0.png") == 0
    gone = max(rows(save), key=lambda row: float(row["score"]))["path"]
    (pictures / gone).unlink()
    Image.new("L", (30, 30)).save("images/new.png")
    monkeypatch.chdir("good")
    assert run("../images", "--save_path", save, "--reference", "0.png", "--resume", "--report") == 0
    page = (save / "report.html").read_text()
    table = sorted(rows(save), key=lambda row: -float(row["score"]))
    anomalous = sum(row["anomalous"] == "yes" for row in table)
    assert "The 3 highest of 5 scores are shown" in page
    assert f"{5 - anomalous} not anomalous, {anomalous} anomalous" in page
    assert "Caution: with 1 reference no spread is known" in page
    content = embedded(page)
    assert [card["name"] for card in content["cards"]] == [row["path"] for row in table[:3]]
    # A picture that was taken away is there as its heat map.
    for card, result in zip(content["cards"], content["settings"][0]["results"], strict=True):
        assert (card["photo"] == result["heat"]) == (card["name"] == gone)
    assert run("../images", "--save_path", save) == 0
    assert not (save / "report.html").exists()


def test_rows_reach_the_disk_one_by_one(run: Predict, pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(4):
        Image.new("L", (30, 30), 50 * number).save(pictures / "images" / f"z{number}.png")
    save, seen, score = pictures / "out", [], WinCLIP.score

    def watch(model: WinCLIP, embeddings: Any, **options: Any) -> Any:
        seen.append((len(embeddings), len((save / JOURNAL).read_text().splitlines()) - 1))
        return score(model, embeddings, **options)

    monkeypatch.setattr(WinCLIP, "score", watch)
    assert run(pictures / "images", "--save_path", save) == 0
    # Never more than a batch of 2 at once, and every batch before is on the disk already.
    assert max(size for size, _ in seen) <= 2
    written = [sum(size for size, _ in seen[:number]) for number in range(len(seen))]
    assert [lines for _, lines in seen] == written


def test_a_full_disk_leaves_whole_rows(
    run: Predict, pictures: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = pictures / "out"
    calls = iter(range(100))

    def fill(path: Path, content: str | bytes) -> None:
        if "heatmaps" in str(path) and next(calls) == 2:
            raise InputError(f"cannot write {path} (No space left on device)")
        write_atomically(path, content)

    monkeypatch.setattr("winclip.prediction.scoring.write_atomically", fill)
    assert run(pictures / "images", "--save_path", save) == 2
    message = error_line(capsys)
    assert "No space left on device" in message and "2 of 5 pictures are done" in message and "--resume" in message
    assert len(rows(save)) == 2


def test_orientation_is_honoured(run: Predict, pictures: Path) -> None:
    image = Image.open(pictures / "images" / "b.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    image.transpose(Image.Transpose.ROTATE_90).save(pictures / "images" / "turned.png", exif=exif)
    assert run(pictures / "images", "--save_path", pictures / "out", "--threshold", "0.1") == 0
    found = {Path(row["path"]).name: row for row in rows(pictures / "out")}
    for column in ("score", "area", "box_x", "box_y", "box_w", "box_h"):
        assert found["turned.png"][column] == found["b.png"][column]
    assert Image.open(pictures / "out" / found["turned.png"]["heat_map"]).size == image.size == (70, 130)


def test_equal_names_stay_apart(run: Predict, pictures: Path) -> None:
    (pictures / "good" / "a.png").write_bytes((pictures / "images" / "a.png").read_bytes())
    Image.open(pictures / "images" / "a.png").save(pictures / "images" / "a.jpg")
    save = pictures / "out"
    assert run(pictures / "images", pictures / "good", "--save_path", save) == 0
    maps = [row["heat_map"] for row in rows(save)]
    assert len(set(maps)) == len(maps) == 9
    assert {"heatmaps/images/a.png.jpg", "heatmaps/images/a.jpg.jpg", "heatmaps/good/a.png.jpg"} <= set(maps)


def test_listing(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(pictures)
    (pictures / "images" / ".hidden.png").write_text("")
    (pictures / "images" / "notes.txt").write_text("")
    everything = ["images/a.png", "images/b.png", "images/text.png", "images/deep/a.png", "images/deep/c.png"]
    assert list_pictures(["images"]) == everything
    assert list_pictures(["images/", "images/a.png", str(pictures / "images")]) == everything
    assert list_pictures(["images/*.png"]) == everything[:3]
    assert list_pictures(["images/**/a.png"]) == ["images/a.png", "images/deep/a.png"]
    assert list_pictures(["images/notes.txt"]) == ["images/notes.txt"]
    assert common_folder(["images/**/a.png", "images/deep"]) == str(pictures / "images")
    assert common_folder(["good/../images/a.png", "good"]) == str(pictures)
    assert output_name("good/../images/a.png", str(pictures), ".jpg") == "images/a.png.jpg"


def test_output_inside_the_pictures_is_not_scored(run: Predict, pictures: Path) -> None:
    for _ in range(2):
        assert run(pictures / "images", "--save_path", pictures / "images") == 0
        assert len(rows(pictures / "images")) == 4


def test_what_earlier_runs_have_drawn_is_neither_scored_nor_a_reference(run: Predict, pictures: Path) -> None:
    images = pictures / "images"
    assert run(images, "--save_path", images / "first", "--save_masks") == 0
    (images / "heatmaps").mkdir()
    (images / "heatmaps" / "own.png").write_bytes((images / "a.png").read_bytes())
    assert run(images, "--reference", images, "--save_path", pictures / "out") == 0
    assert {Path(row["path"]).name for row in rows(pictures / "out")} == {"a.png", "b.png", "c.png", "own.png"}
    assert list_pictures([f"{images}/**/*.*"]) == sorted(
        str(path) for path in images.rglob("*.png") if "first" not in path.parts
    )
    references = json.loads((pictures / "out" / "run.json").read_text())["settings"]["references"]
    assert references == []
    # What is named itself is meant.
    assert len(list_pictures([str(images / "first" / "masks")])) == 4


def test_references_among_the_pictures_are_left_out(run: Predict, pictures: Path, capsys: Capture) -> None:
    both = [pictures / "good", "--reference", pictures / "good", "--save_path", pictures / "out"]
    assert run(*both) == 0
    error = capsys.readouterr().err
    assert "3 of 3 references are among the pictures to score" in error and "the scores are zero-shot" in error
    assert run(pictures / "good" / "0.png", "--reference", pictures / "good", "--save_path", pictures / "out") == 0
    assert "1 of 3 references are among the pictures" in capsys.readouterr().err
    assert len(json.loads((pictures / "out" / "run.json").read_text())["settings"]["references"]) == 2


def test_copies_of_a_reference_count_once(run: Predict, pictures: Path, capsys: Capture) -> None:
    (pictures / "good" / "copy.png").write_bytes((pictures / "good" / "0.png").read_bytes())
    assert run(pictures / "images", "--reference", pictures / "good", "--save_path", pictures / "out") == 0
    error = capsys.readouterr().err
    assert "1 references are copies of others" in error and "(3 references, each scored" in error


def test_huge_pictures_are_named_and_the_others_go_on(run: Predict, pictures: Path, capsys: Capture) -> None:
    for name, side in (("huge", 20000), ("large", 10010)):
        # The header says the size; nothing more is read.
        header = b"IHDR" + struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
        chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
        data = b"\x00\x00\x00\x00IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))
        (pictures / "images" / f"{name}.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunk + data)
    assert run(pictures / "images", "--save_path", pictures / "out") == 0
    assert len(rows(pictures / "out")) == 4
    reasons = {Path(row["path"]).name: row["reason"] for row in rows(pictures / "out", "failures.csv")}
    assert f"huge.png has more than {PIXEL_LIMIT:,} pixels, the limit" in reasons["huge.png"]
    assert f"large.png: 10010 x 10010 is more than {PIXEL_LIMIT:,} pixels" in reasons["large.png"]


def test_nothing_readable_is_status_2(run: Predict, pictures: Path, capsys: Capture) -> None:
    assert run(pictures / "images" / "text.png", "--save_path", pictures / "out") == 2
    assert "none of the 1 pictures could be read" in error_line(capsys)
    text = pictures / "images" / "text.png"
    assert run(pictures / "images" / "a.png", "--reference", text, "--save_path", pictures / "out") == 2
    assert "none of the 1 references could be read" in error_line(capsys)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no pictures are given; name files or folders, or try --demo"),
        (["empty"], "no picture found in empty; looked for files ending in .png .jpg .jpeg"),
        (["nowhere"], "nowhere does not exist"),
        (["images/*.tiff"], "no picture found in images/*.tiff"),
        (["images", "--reference", "empty"], "no picture found in empty"),
        (["images", "--save_path", "images/text.png"], "cannot write to images/text.png (File exists)"),
        (["images", "--save_path", "images/text.png/out"], "cannot write to images/text.png/out (Not a directory)"),
        (["images", "--class_name", " "], "the class name is empty"),
        (["images", "--class_name", "nut " * 90], "is too long: a prompt has 77 tokens, of which 6"),
        (["images", "--anomalous_states", "bent " * 90], "tokens"),
        (["--anomalous_states", "bent", "images"], "--anomalous_states takes images, which is a path"),
        (["images", "--normal_states", "{} {}"], "must be words with at most one {}"),
        (["images", "--memory", "nut.safetensors"], "memory nut.safetensors cannot be read"),
        (["images", "--memory", "nut.safetensors", "--reference", "good"], "--memory holds references already"),
        (["images", "--save_memory", "nut.safetensors"], "--save_memory needs references"),
        (["images", "--threshold", "1.5"], "--threshold 1.5 must be between 0 and 1"),
        (["images", "--batch_size", "0"], "--batch_size 0 must be at least 1"),
        (["images", "--demo"], "--demo uses demo-vit-240, so --model"),
    ],
)
def test_bad_input_is_one_line_and_status_2(
    run: Predict,
    pictures: Path,
    capsys: Capture,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(pictures)
    (pictures / "empty").mkdir()
    save = [] if "--save_path" in arguments else ["--save_path", "out"]
    sizes = [] if "--batch_size" not in arguments else arguments
    status = predict.main(["--class_name", "bolt", *sizes]) if sizes else run(*arguments, *save)
    assert status == 2
    assert message in error_line(capsys)


def test_a_folder_without_write_permission_is_refused(
    run: Predict, pictures: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*given: Any) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("winclip.support.files.os.open", refuse)  # root may write anywhere
    assert run(pictures / "images", "--save_path", pictures / "out") == 2
    assert f"cannot write to {pictures / 'out'} (Permission denied)" in error_line(capsys)


def test_a_run_replaces_the_files_of_an_earlier_one_and_no_others(run: Predict, pictures: Path) -> None:
    save, images = pictures / "out", pictures / "images"
    (images / ("n" * 250 + ".png")).write_bytes((images / "a.png").read_bytes())
    assert run(images, "--save_path", save, "--save_masks", "--report") == 0
    assert len(list((save / "masks").rglob("*.png"))) == len(list((save / "heatmaps").rglob("*.jpg"))) == 5
    for name in ("heatmaps/deep/mine.jpg", "masks/mine.png", "notes.csv"):
        (save / name).write_text("mine")
    assert run(images / "b.png", "--save_path", save) == 0
    found = {path.relative_to(save).as_posix() for path in save.rglob("*") if path.is_file()}
    mine = {"heatmaps/deep/mine.jpg", "masks/mine.png", "notes.csv"}
    assert found == (FILES - {"heatmaps"}) | mine | {"heatmaps/b.png.jpg"}


def test_a_second_run_in_the_same_folder_is_refused(run: Predict, pictures: Path, capsys: Capture) -> None:
    with lock_folder(pictures / "out"):
        assert run(pictures / "images", "--save_path", pictures / "out") == 2
        assert len(list((pictures / "out").iterdir())) == 1
    assert "error: another run writes to" in error_line(capsys)


def test_class_name_is_asked_for(capsys: Capture) -> None:
    assert predict.main(["images"]) == 2
    assert "say with --class_name what the pictures show" in error_line(capsys)


def test_pictures_may_stand_anywhere_among_the_options() -> None:
    given = ["--class_name", "metal nut", "--reference", "good/", "images/", "--save_path", "out/", "more/"]
    options = parse_options([*given, "--reference", "better/"])
    assert options.inputs == ("images/", "more/")
    assert options.reference == ("good/", "better/")


def test_demo_scores_the_sample(run: Predict, pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(winclip.prediction.references, "_SAMPLE", pictures / "sample")
    options, folder = winclip.prediction.references.with_sample(parse_options(["--demo"]))
    assert options.model.model == "demo-vit-240"
    assert len(list_pictures(options.reference)) >= FEW
    assert options.class_name is not None and folder.is_relative_to(pictures / "sample" / options.class_name)
    with pytest.raises(InputError, match="the sample has no class 'nut', only"):
        winclip.prediction.references.with_sample(parse_options(["--demo", "--class_name", "nut"]))


@pytest.mark.parametrize(
    ("count", "options", "expected"),
    [
        (0, [], "  without good pictures as references it is not known how many good ones exceed it"),
        (3, [], "  the threshold rests on 3 references, which is few; give at least 8"),
        (8, [], "  it aims at 1 false alarm in 100 good pictures taken as the references were; docs/thresholds.md has"),
        (8, ["--threshold", "0.4"], "highest scores:"),
    ],
)
def test_the_summary_says_how_sure_the_threshold_is(
    run: Predict, pictures: Path, capsys: Capture, count: int, options: list[str], expected: str
) -> None:
    for number in range(3, count):
        pixels = np.random.RandomState(number).randint(90, 130, (50, 60, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(pictures / "good" / f"{number}.png")
    given = ["--reference", pictures / "good"] if count else []
    picture = pictures / "images" / "a\x1b.png"
    (pictures / "images" / "a.png").rename(picture)
    assert run(picture, "--save_path", pictures / "out", *given, *options) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].startswith(expected)
    assert lines[-2].endswith("images/a\\x1b.png")


def test_the_report_is_opened_where_there_is_a_browser(
    run: Predict, pictures: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []

    def open_page(address: str) -> bool:
        opened.append(address)
        return True

    monkeypatch.setattr("webbrowser.open", open_page)
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    page = pictures / "out" / "report.html"
    arguments = [pictures / "images" / "a.png", "--save_path", pictures / "out", "--open"]
    assert run(*arguments) == 0
    out = capsys.readouterr()
    assert not opened and page.is_file() and out.out.endswith(f"\nreport: {page}\n")
    assert f"there is no browser to open here; open {page} in one" in out.err
    monkeypatch.setenv("DISPLAY", ":0")
    assert run(*arguments) == 0
    assert opened == [page.as_uri()] and "no browser" not in capsys.readouterr().err


def test_help_is_instant_and_states_the_rule() -> None:
    code = "import sys, predict\ntry: predict.main(['--help'])\nexcept SystemExit: print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "99 % prediction interval" in done.stdout and "1 false alarm in 100 good pictures" in done.stdout
    assert done.stdout.endswith("False\n")


def test_a_picture_without_a_score_is_a_failure_and_not_good(
    run: Predict, pictures: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(pictures / "images", "--save_path", pictures / "whole") == 0
    score = score_images

    def score_badly(embeddings: Embeddings, *more: Any) -> list[GridScores]:
        (found,) = score(embeddings, *more)
        bad = (found.scores - float(rows(pictures / "whole")[1]["score"])).abs() < 1e-8  # of b.png
        return [GridScores(found.scores.masked_fill(bad, float("nan")), found.maps)]

    monkeypatch.setattr("winclip.model.score_images", score_badly)
    run(pictures / "images", "--save_path", pictures / "out")
    assert [Path(row["path"]).name for row in rows(pictures / "out")] == ["a.png", "a.png", "c.png"]
    reasons = {Path(row["path"]).name: row["reason"] for row in rows(pictures / "out", "failures.csv")}
    assert reasons["b.png"] == (
        f"image {pictures / 'images' / 'b.png'}: the model makes NaN, which is no score;"
        " try --precision fp32, or other weights"
    )
