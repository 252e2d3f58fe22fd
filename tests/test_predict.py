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
from tests.conftest import ROOT, Predict
from tests.test_report import embedded, pixels
from tests.tiny import CONFIG
from winclip import InputError, WinCLIP
from winclip.embeddings import Embeddings
from winclip.network.backbone import Backbone
from winclip.pictures.images import PIXEL_LIMIT
from winclip.prediction.options import parse_options
from winclip.prediction.pictures import common_folder, heat_map_name, list_pictures
from winclip.prediction.references import with_sample
from winclip.prediction.rows import JOURNAL, describe
from winclip.scoring import GridScores, score_images
from winclip.support.files import lock_folder, write_atomically

Capture = pytest.CaptureFixture[str]
FILES = {JOURNAL, "predictions.csv", "predictions.json", "failures.csv", "run.json", "heatmaps"}


def rows(save: Path, name: str = "predictions.csv") -> list[dict[str, str]]:
    with (save / name).open(newline="") as file:
        return list(csv.DictReader(file))


def settings(save: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((save / "run.json").read_text())["settings"]
    return found


def contents(save: Path) -> dict[str, bytes]:
    return {path.relative_to(save).as_posix(): path.read_bytes() for path in sorted(save.rglob("*")) if path.is_file()}


def error_line(capsys: Capture) -> str:
    lines = [line for line in capsys.readouterr().err.splitlines() if not line.startswith(("info:", "warning:"))]
    assert len(lines) == 1 and lines[0].startswith(("error: ", "stopped by ")), lines
    return lines[0]


def test_files_of_a_run(run: Predict, pictures: Path, capsys: Capture) -> None:
    save, images = pictures / "out", pictures / "images"
    reference = pictures / "good" / "0.png"
    given = ["--reference", reference, "--threshold", "0.25"]
    assert run(*given, images, "--save_path", save, "--save_masks") == 0
    assert {path.name for path in save.iterdir()} == FILES | {"masks"}
    table, listed = rows(save), json.loads((save / "predictions.json").read_text())
    names = ["a.png", "b.png", "deep/a.png", "deep/c.png"]
    assert [row["path"] for row in table] == [f"{images}/{name}" for name in names]
    for row, item, name in zip(table, listed, names):
        assert item["path"] == row["path"] and item["score"] == float(row["score"])
        assert item["anomalous"] == (item["score"] > item["threshold"]) == (row["anomalous"] == "yes")
        with Image.open(images / name) as picture, Image.open(save / item["heat_map"]) as heat:
            assert heat.width == picture.width and heat.height > picture.height  # by the strip with the colours
        with Image.open(save / "masks" / f"{name}.png") as file:
            white = np.asarray(file) > 0
            assert file.size == picture.size
        assert item["score"] == pytest.approx((item["text_score"] + item["reference_score"]) / 2, abs=1e-8)
        assert (row["text_score"], row["reference_score"]) == (
            f"{item['text_score']:.9g}",
            f"{item['reference_score']:.9g}",
        )
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
    anomalous = [item for item in listed if item["anomalous"]]
    assert 0 < len(anomalous) < 4
    lines = out.out.splitlines()
    assert lines[0].startswith(f"4 pictures: {4 - len(anomalous)} good, {len(anomalous)} anomalous; 1 passed over")
    assert lines[1].startswith("anomalous: score above 0.25 (")
    shown = [(line.split()[0], *line.split()[-2:]) for line in lines[lines.index("highest scores:") + 1 : -1]]
    highest = sorted(listed, key=lambda item: -float(item["score"]))
    assert shown == [
        (f"{item['score']:.4f}", "anomalous" if item["anomalous"] else "good", item["path"]) for item in highest
    ]
    summary = json.loads((save / "run.json").read_text())
    assert (summary["finished"], summary["scored"], summary["unreadable"]) == (True, 4, 1)
    low, high = summary["colours"]
    assert low < high <= max(item["map_highest"] for item in listed)


def test_scores_and_verdicts_are_those_of_the_library(run: Predict, pictures: Path, backbone: Backbone) -> None:
    save = pictures / "out"
    assert run("--reference", f"{pictures}/good/*.png", pictures / "images", "--save_path", save) == 0
    model = WinCLIP(backbone)
    model.set_class("bolt")
    model.add_references([pictures / "good" / f"{number}.png" for number in range(3)])
    found = model.predict([row["path"] for row in rows(save)])
    assert found.reference_scores is not None
    parts = {"score": found.scores, "text_score": found.text_scores, "reference_score": found.reference_scores}
    for column, values in parts.items():
        np.testing.assert_allclose([float(row[column]) for row in rows(save)], values, rtol=0, atol=1e-8)
    verdicts = {"yes": True, "no": False, "": None}
    assert [verdicts[row["anomalous"]] for row in rows(save)] == model.threshold().judge(found)
    for row in rows(save):
        assert (row["anomalous"] == "yes") == (float(row["score"]) > float(row["threshold"]))


@pytest.mark.parametrize(
    ("count", "options", "threshold", "said"),
    [
        (0, [], "", "no good pictures, so no verdict"),
        (0, ["--threshold", "0.125"], "0.125", "score above 0.125"),
        (1, [], "", "1 good picture does not say"),
        (1, ["--threshold", "0.125"], "0.125", "score above 0.125"),
        (3, [], None, "3 references"),
        (8, [], None, "1 false alarm in 100"),
        (8, ["--threshold", "reference=0.25"], None, "anomalous: reference part above 0.25 ("),
    ],
)
def test_threshold_and_how_sure_it_is(
    run: Predict, pictures: Path, capsys: Capture, count: int, options: list[str], threshold: str | None, said: str
) -> None:
    for number in range(3, count):
        Image.new("RGB", (50, 60), (100 + number, 100, 100)).save(pictures / "good" / f"{number}.png")
    given = [word for number in range(count) for word in ("--reference", pictures / "good" / f"{number}.png")]
    assert run(pictures / "images" / "a.png", "--save_path", pictures / "out", *given, *options) == 0
    lines = capsys.readouterr().out.splitlines()
    assert said in "".join(lines[1:3]) and lines[0].startswith("1 picture: ")
    (row,) = rows(pictures / "out")
    if threshold is not None:
        assert (row["threshold"], settings(pictures / "out")["threshold"]["pixel"]) == (threshold, 0.5)
        assert (row["anomalous"] == "") == (threshold == "") == ("1 picture: ranked, not judged" in lines)


def test_known_defects_are_judged_and_a_threshold_that_finds_them_is_proposed(
    run: Predict, pictures: Path, capsys: Capture
) -> None:
    known, save = pictures / "images" / "deep", pictures / "out"
    given = [pictures / "images" / "a.png", "--reference", pictures / "good", "--known_defects", known]
    assert run(*given, "--find", "0.5", "--save_path", save) == 0
    lines = capsys.readouterr().out.splitlines()
    place = next(number for number, line in enumerate(lines) if line.startswith("2 known defects: "))
    option, limit = lines[place + 1].split()[:2]
    assert "finds 1 of them; " in lines[place + 1] and len(rows(save)) == 1
    assert run(known, "--reference", pictures / "good", option, limit, "--save_path", save) == 0
    assert [row["anomalous"] for row in rows(save)].count("yes") == 1


def test_a_reference_that_stands_out_is_named(run: Predict, pictures: Path, capsys: Capture) -> None:
    for number in range(8):
        Image.new("RGB", (50, 60), (100 + number, 100, 100)).save(pictures / "good" / f"even{number}.png")
    noise = np.random.RandomState(0).randint(0, 255, (60, 50, 3)).astype(np.uint8)
    for path in (pictures / "good").glob("?.png"):
        path.unlink()
    Image.fromarray(noise).save(pictures / "good" / "noise.png")
    assert run(pictures / "images", "--reference", pictures / "good", "--save_path", pictures / "out") == 0
    out = capsys.readouterr().out
    assert "9 references, each against the others: reference part " in out and "even" not in out
    assert "noise.png stands out: reference part " in out and "the thresholds are taken without it" in out


def test_references_that_are_scored_too_or_copies_of_others_do_not_count(
    run: Predict, pictures: Path, capsys: Capture
) -> None:
    good, save = pictures / "good", pictures / "out"
    (good / "copy.png").write_bytes((good / "0.png").read_bytes())
    for scored, said, count in (
        (pictures / "images" / "a.png", "1 of the references count once with others", 3),
        (good / "1.png", "1 of 4 references are among the pictures", 2),
        (good, "the scores are zero-shot", 0),
    ):
        assert run(scored, "--reference", good, "--save_path", save) == 0
        assert said in capsys.readouterr().err
        assert len(settings(save)["references"]) == count


def test_memory_alone_gives_the_same_scores_and_threshold(run: Predict, pictures: Path) -> None:
    memory = pictures / "bolt.safetensors"
    states = ["--anomalous_states", "bent", "with a missing pin"]
    first, second = pictures / "first", pictures / "second"
    common = [pictures / "images", "--reference", pictures / "good", "--save_path", first, "--save_memory", memory]
    assert run(*common, *states) == 0
    assert run(pictures / "images", "--memory", memory, "--save_path", second, class_name=None) == 0
    for one, other in zip(rows(first), rows(second), strict=True):
        assert float(one["score"]) == pytest.approx(float(other["score"]), abs=1e-6)
        assert one["anomalous"] == other["anomalous"]
        assert one["threshold"] == other["threshold"] or abs(float(one["threshold"]) - float(other["threshold"])) < 1e-6
        assert one["box_x"] == other["box_x"]
    assert settings(second)["class_name"] == "bolt"
    assert settings(second)["prompts"]["anomalous_states"] == ["bent {}", "{} with a missing pin"]


def test_memory_that_does_not_fit_is_refused(run: Predict, pictures: Path, capsys: Capture) -> None:
    memory, save = pictures / "bolt.safetensors", pictures / "out"
    assert run(pictures / "images", "--reference", pictures / "good", "--save_memory", memory, "--save_path", save) == 0
    capsys.readouterr()
    given = [str(pictures / "images"), "--memory", str(memory), "--save_path", str(save)]
    for option, value, named in (
        ("--normal_states", "new", "prompts"),
        ("--image_size", "64", "image_size"),
        ("--class_name", "nut", "class_name"),
    ):
        assert run(*given, option, value) == 2
        assert f"{named} is" in error_line(capsys)
    assert predict.main([*given, "--class_name", "bolt", "--model", "ViT-B-32"]) == 2
    assert f"model is '{CONFIG.name}', not 'ViT-B-32'" in error_line(capsys)
    memory.write_bytes(memory.read_bytes()[:-100])
    assert run(*given) == 2
    assert "bolt.safetensors cannot be read" in error_line(capsys)


def test_an_interrupted_run_goes_on_to_the_same_bytes(
    run: Predict, pictures: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, broken = pictures / "whole", pictures / "broken"
    arguments = ["--reference", pictures / "good", pictures / "images", "--save_masks", "--report", "--save_path"]
    assert run(*arguments, whole) == 0
    after, calls = 3, iter(range(100))

    def stop(*given: Any) -> Any:
        if next(calls) == after:
            raise KeyboardInterrupt
        return describe(*given)

    with monkeypatch.context() as patch:
        patch.setattr("winclip.prediction.run.describe", stop)
        assert run(*arguments, broken) == 130
    assert f"stopped by SIGINT; {after} of 5 pictures are scored; the same" in error_line(capsys)
    assert len(rows(broken)) == after
    # A row left half written by a power cut.
    with (broken / JOURNAL).open("a") as file:
        file.write('{"path": "half a ro')
    for _ in range(2):
        assert run(*arguments, broken, "--resume") == 0
        assert contents(broken) == contents(whole)
    for options, other in ((["--threshold", "0.4"], "threshold"), (["--class_name", "nut"], "class_name")):
        capsys.readouterr()
        assert run(*arguments, broken, "--resume", *options) == 2
        message = error_line(capsys)
        assert "made with another " in message and other in message
    assert contents(broken) == contents(whole)


def test_report_says_what_the_table_says(run: Predict, pictures: Path) -> None:
    save, images = pictures / "out", pictures / "images"
    # Together they form a path that would end the page's script.
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
        parts = f"text {float(row['text_score']):.3f}, references {float(row['reference_score']):.3f}"
        assert (card["name"], result["score"]) == (row["path"], f"{float(row['score']):.4f} ({parts})")
        assert result["outcome"] == ("anomalous" if row["anomalous"] == "yes" else "not anomalous")
        for uri, path in ((card["photo"], Path(row["path"])), (result["heat"], save / row["heat_map"])):
            with Image.open(path) as image, Image.open(row["path"]) as picture:
                drawn = image.crop((0, 0, *picture.size))
                difference = np.abs(pixels(uri).astype(int) - np.asarray(drawn))
            assert difference.mean() < 10
    anomalous = sum(row["anomalous"] == "yes" for row in order)
    assert f"<td>{anomalous}</td><td>1</td>" in page
    assert f"anomalous: score above {float(middle):.4g} (the threshold is given" in page
    assert "<img" not in page and "<i>bolt" not in page and page.count("</script") == 2


def test_report_of_a_resumed_run_covers_all_rows_and_shows_the_highest(
    run: Predict, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("winclip.prediction.report.REPORT_PICTURES", 3)
    monkeypatch.chdir(pictures)
    save = pictures / "out"
    assert run("images", "--save_path", save, "--reference", "good/0.png", "--threshold", "0.3") == 0
    gone = max(rows(save), key=lambda row: float(row["score"]))["path"]
    (pictures / gone).unlink()
    Image.new("L", (30, 30)).save("images/new.png")
    monkeypatch.chdir("good")
    assert (
        run("../images", "--save_path", save, "--reference", "0.png", "--resume", "--report", "--threshold", "0.3") == 0
    )
    page = (save / "report.html").read_text()
    table = sorted(rows(save), key=lambda row: -float(row["score"]))
    anomalous = sum(row["anomalous"] == "yes" for row in table)
    assert "The 3 highest of 5 scores are shown" in page
    assert f"{5 - anomalous} not anomalous, {anomalous} anomalous" in page
    content = embedded(page)
    assert [card["name"] for card in content["cards"]] == [row["path"] for row in table[:3]]
    # A removed picture is shown by its heat map.
    for card, result in zip(content["cards"], content["settings"][0]["results"], strict=True):
        assert (card["photo"] == result["heat"]) == (card["name"] == gone)
    assert run("../images", "--save_path", save) == 0
    assert not (save / "report.html").exists()


def test_a_full_disk_leaves_whole_rows(
    run: Predict, pictures: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = pictures / "out"
    calls = iter(range(100))

    def fill(path: Path, content: str | bytes) -> None:
        if "heatmaps" in str(path) and next(calls) == 2:
            raise InputError(f"cannot write {path} (No space left on device)")
        write_atomically(path, content)

    monkeypatch.setattr("winclip.prediction.run.write_atomically", fill)
    assert run(pictures / "images", "--save_path", save) == 2
    message = error_line(capsys)
    assert "No space left on device" in message and "4 of 5 pictures are scored" in message and "--resume" in message
    assert len(rows(save)) == 4


def test_orientation_is_honoured(run: Predict, pictures: Path) -> None:
    image, exif = Image.open(pictures / "images" / "b.png"), Image.Exif()
    exif[0x0112] = 6
    image.transpose(Image.Transpose.ROTATE_90).save(pictures / "images" / "turned.png", exif=exif)
    assert run(pictures / "images", "--save_path", pictures / "out", "--threshold", "0.1") == 0
    found = {Path(row["path"]).name: row for row in rows(pictures / "out")}
    for column in ("score", "area", "box_x", "box_y", "box_w", "box_h"):
        assert found["turned.png"][column] == found["b.png"][column]
    assert Image.open(pictures / "out" / found["turned.png"]["heat_map"]).width == image.width == 70


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
    assert heat_map_name("good/../images/a.png", str(pictures)) == "heatmaps/images/a.png.jpg"


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
    assert settings(pictures / "out")["references"] == []
    # A file that is named itself is taken.
    assert len(list_pictures([str(images / "first" / "masks")])) == 4


def test_huge_pictures_are_named_and_the_others_go_on(run: Predict, pictures: Path) -> None:
    # The header tells the size; nothing more is read.
    header = b"IHDR" + struct.pack(">IIBBBBB", 10010, 10010, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    data = b"\x00\x00\x00\x00IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))
    (pictures / "images" / "large.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunk + data)
    assert run(pictures / "images", "--save_path", pictures / "out") == 0
    assert len(rows(pictures / "out")) == 4
    reasons = {Path(row["path"]).name: row["reason"] for row in rows(pictures / "out", "failures.csv")}
    assert f"large.png: 10010 x 10010 is more than {PIXEL_LIMIT:,} pixels" in reasons["large.png"]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ([], "no pictures"),
        (["empty"], "empty"),
        (["nowhere"], "nowhere"),
        (["images/*.tiff"], "images/*.tiff"),
        (["images/*/../a.png"], "'..'"),
        (["images", "--reference", "empty"], "empty"),
        (["images", "--save_path", "images/text.png"], "images/text.png"),
        (["images", "--class_name", " "], "class name"),
        (["images", "--class_name", "nut " * 90], "77 tokens"),
        (["images", "--anomalous_states", "bent " * 90], "tokens"),
        (["--anomalous_states", "bent", "images"], "--anomalous_states takes images"),
        (["images", "--normal_states", "{} {}"], "{}"),
        (["images", "--memory", "nut.safetensors"], "nut.safetensors"),
        (["images", "--memory", "nut.safetensors", "--reference", "good"], "--reference"),
        (["images", "--save_memory", "nut.safetensors"], "--save_memory"),
        (["images", "--threshold", "1.5"], "--threshold 1.5"),
        (["images", "--threshold", "heat=0.5"], "--threshold heat=0.5"),
        (["images", "--threshold", "reference=0.5"], "needs references"),
        (["images", "--find", "0.9"], "--known_defects"),
        (["images", "--known_defects", "images/text.png"], "--known_defects"),
        (["images", "--demo"], "--demo"),
        (["images/text.png"], "1 picture "),
        (["images/a.png", "--reference", "images/text.png"], "1 references"),
    ],
)
def test_bad_input_is_one_line_and_status_2(
    run: Predict,
    pictures: Path,
    capsys: Capture,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    named: str,
) -> None:
    monkeypatch.chdir(pictures)
    (pictures / "empty").mkdir()
    assert run("--save_path", "out", *arguments) == 2
    assert named in error_line(capsys)


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
    with lock_folder(save):
        assert run(images / "b.png", "--save_path", save) == 2


def test_options_of_the_demo_and_pictures_anywhere_among_them(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(winclip.prediction.references, "_SAMPLE", pictures / "sample")
    monkeypatch.setattr("winclip.demo.sample.make_sample", lambda folder: None)
    options, folder = with_sample(parse_options(["--demo", "--class_name", "gear"]))
    assert (options.model.model, folder) == ("demo-vit-240", pictures / "sample" / "gear" / "test")
    assert options.reference == (str(pictures / "sample" / "gear" / "train" / "good"),)
    with pytest.raises(InputError, match="'nut'"):
        with_sample(parse_options(["--demo", "--class_name", "nut"]))
    options = parse_options(["one", "--class_name", "nut", "--reference", "good", "two", "--reference", "better"])
    assert (options.inputs, options.reference) == (("one", "two"), ("good", "better"))


def test_help_and_mistakes_are_instant() -> None:
    code = "import sys, predict\ntry: predict.main(['--help'])\nexcept SystemExit: print(predict.main(['images']))"
    code += "; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "1 false alarm in" in done.stdout and done.stdout.endswith("\n2\nFalse\n") and "--class_name" in done.stderr


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


def test_a_picture_without_a_score_is_a_failure_and_not_good(
    run: Predict, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(pictures / "images", "--save_path", pictures / "whole") == 0
    score = score_images

    def score_badly(embeddings: Embeddings, *more: Any) -> list[GridScores]:
        (found,) = score(embeddings, *more)
        bad = (found.scores - float(rows(pictures / "whole")[1]["score"])).abs() < 1e-8  # of b.png
        return [found._replace(text=found.text.masked_fill(bad, float("nan")))]

    monkeypatch.setattr("winclip.model.score_images", score_badly)
    assert run(pictures / "images", "--save_path", pictures / "out") == 0
    assert [Path(row["path"]).name for row in rows(pictures / "out")] == ["a.png", "a.png", "c.png"]
    reasons = {Path(row["path"]).name: row["reason"] for row in rows(pictures / "out", "failures.csv")}
    assert reasons["b.png"].startswith(f"image {pictures / 'images' / 'b.png'}: the model makes NaN")
