"""test.py as a whole, with the tiny backbone on a small data set."""

from __future__ import annotations

import csv
import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image, ImageFilter

from evaluation.measuring import measure_class
from tests.tiny import CONFIG
from winclip import WinCLIP
from winclip.embeddings import Embeddings
from winclip.metrics.formulas import METRICS, PIXEL_METRICS
from winclip.network.clip import ImageTower
from winclip.pictures.images import normalise, resized_pixels
from winclip.support.files import lock_folder

Evaluate = Callable[..., int]
FILES = {"results.csv", "types.csv", "tables.md", "scores.csv", "k_shot.csv", "config.json", "log.txt"}


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def edit_meta(data: Path, change: Callable[[dict[str, Any]], object]) -> None:
    meta = json.loads((data / "meta.json").read_text())
    change(meta)
    (data / "meta.json").write_text(json.dumps(meta))


def refused(capsys: pytest.CaptureFixture[str], status: int, save: Path) -> str:
    """The one line of a refused run, which wrote nothing."""
    error = capsys.readouterr().err
    assert status == 2
    assert not list(save.glob("*"))
    lines = [line for line in error.splitlines() if not line.startswith(("info:", "warning:"))]
    assert len(lines) == 1 and lines[0].startswith("error: "), error
    return lines[0]


def test_files_of_a_run_with_several_shots_and_seeds(
    evaluate: Evaluate, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save = tmp_path / "out"
    assert evaluate(data, save, "--k_shot", "0", "1", "2", "--seed", "3", "4", "--save_maps") == 0
    assert {path.name for path in save.iterdir()} == FILES | {"maps", "scores"}

    results = rows(save / "results.csv")
    assert list(results[0]) == ["dataset", "k_shot", "seed", "objects", *METRICS]
    # Other people's scripts read these columns by position.
    assert [*METRICS][:7] == ["auroc_px", "f1_px", "ap_px", "aupro", "auroc_sp", "f1_sp", "ap_sp"]
    assert [(row["k_shot"], row["seed"], row["objects"]) for row in results] == [
        (k, seed, name)
        for k, seeds in (("0", [""]), ("1", ["3", "4", "mean", "std"]), ("2", ["3", "4", "mean", "std"]))
        for seed in seeds
        for name in ("bolt", "felt", "mean")
    ]
    cells = {(r["k_shot"], r["seed"], r["objects"]): float(r["ap_px"]) for r in results}
    assert all(len(row["ap_px"].split(".")[1]) >= 6 for row in results)
    assert cells["1", "3", "mean"] == pytest.approx((cells["1", "3", "bolt"] + cells["1", "3", "felt"]) / 2, abs=1e-5)
    assert cells["1", "mean", "bolt"] == pytest.approx(
        (cells["1", "3", "bolt"] + cells["1", "4", "bolt"]) / 2, abs=1e-5
    )
    assert cells["1", "std", "bolt"] == pytest.approx(
        abs(cells["1", "3", "bolt"] - cells["1", "4", "bolt"]) / 2, abs=1e-5
    )

    scores = rows(save / "scores.csv")
    assert list(scores[0]) == ["k_shot", "seed", "cls_name", "specie_name", "img_path", "anomaly", "score"]
    assert len(scores) == 5 * 12
    references = rows(save / "k_shot.csv")
    assert list(references[0]) == ["k_shot", "seed", "cls_name", "img_path"]
    assert len(references) == 2 * 2 * (1 + 2)

    tables = (save / "tables.md").read_text()
    shown = capsys.readouterr()
    assert tables.strip() == shown.out.strip()
    assert shown.err.splitlines()[-1] == f"info: written: {save / 'tables.md'}"
    assert tables.count("| objects") == tables.count("\n| mean") == tables.count("\n| chance") == 3
    guessed = [cell.strip() for cell in tables.rstrip().splitlines()[-1].strip("|").split("|")]
    # Of each class half of the images are defective, and about as many pixels of each as in 60 x 50.
    assert (guessed[0], guessed[4:]) == ("chance", ["15.0", "50.0", "66.7", "50.0"]) and guessed[1] == "50.0"
    share = 3 * 15 * 10 / (6 * 60 * 50)
    assert [*map(float, guessed[2:4])] == pytest.approx([200 * share / (1 + share), 100 * share], abs=0.2)
    header = next(line for line in tables.splitlines() if line.startswith("| objects"))
    assert [cell.strip() for cell in header.strip("|").split("|")] == ["objects", *METRICS]

    with np.load(save / "maps" / "2shot-seed4" / "felt.npz") as maps:
        assert (maps["maps"].shape, maps["maps"].dtype) == ((6, 96, 96), np.float32)
        assert list(maps["img_path"]) == [row["img_path"] for row in scores if row["cls_name"] == "felt"][:6]
    assert (save / "maps" / "0shot" / "bolt.npz").exists()

    config = json.loads((save / "config.json").read_text())
    assert config["finished"] is True
    assert config["options"]["k_shot"] == [0, 1, 2]
    assert config["options"]["image_size"] == 96
    assert config["options"]["scales"] == [3, 2]
    assert config["options"]["temperature"] == 0.07
    assert config["options"]["batch_size"] == 8
    assert len(config["weights_sha256"]) == 64
    assert {"torch", "open_clip_torch", "numpy", "python", "winclip"} <= set(config["versions"])
    assert config["seconds"] > 0
    assert "2 classes, 12 test images" in (save / "log.txt").read_text()


def test_scores_are_those_of_the_library(evaluate: Evaluate, data: Path, checkpoint: Path, tmp_path: Path) -> None:
    save = tmp_path / "out"
    assert evaluate(data, save, "--k_shot", "0", "2", "--classes", "felt", "--save_maps") == 0
    model = WinCLIP.from_pretrained(str(CONFIG), str(checkpoint), device="cpu")
    model.set_class("felt")
    scores = rows(save / "scores.csv")
    for k in ("0", "2"):
        if k == "2":
            model.add_references([data / row["img_path"] for row in rows(save / "k_shot.csv")])
        mine = [row for row in scores if row["k_shot"] == k]
        prediction = model.predict([data / row["img_path"] for row in mine])
        np.testing.assert_allclose(prediction.scores, [float(row["score"]) for row in mine], rtol=0, atol=1e-8)
        folder = "0shot" if k == "0" else "2shot-seed10"
        with np.load(save / "maps" / folder / "felt.npz") as maps:
            np.testing.assert_allclose(prediction.maps, maps["maps"], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "options",
    [
        ["--batch_size", "1"],
        ["--batch_size", "5", "--num_workers", "2"],
        ["--classes", "felt", "bolt"],
        ["--k_shot", "2", "1", "0"],
        ["--seed", "4", "3"],
    ],
)
def test_ways_of_running_change_no_byte_of_a_score(
    evaluate: Evaluate, data: Path, tmp_path: Path, options: list[str]
) -> None:
    usual = {"--k_shot": ["0", "1", "2"], "--seed": ["3", "4"], "--batch_size": ["8"]}
    given = {options[0]: options[1:]} if options[0] in usual else {}
    arguments = [word for option, values in {**usual, **given}.items() for word in (option, *values)]
    assert evaluate(data, tmp_path / "usual", *[w for option, v in usual.items() for w in (option, *v)]) == 0
    assert evaluate(data, tmp_path / "other", *arguments, *([] if given else options)) == 0
    for name in ("scores.csv", "results.csv", "k_shot.csv"):
        usual_lines, other_lines = ((tmp_path / run / name).read_text().splitlines() for run in ("usual", "other"))
        assert sorted(usual_lines) == sorted(other_lines), name


def test_a_class_alone_scores_as_among_others(evaluate: Evaluate, data: Path, tmp_path: Path) -> None:
    assert evaluate(data, tmp_path / "all", "--k_shot", "0", "2") == 0
    assert evaluate(data, tmp_path / "one", "--k_shot", "2", "--classes", "felt") == 0
    wanted = [
        row for row in rows(tmp_path / "all" / "scores.csv") if row["cls_name"] == "felt" and row["k_shot"] == "2"
    ]
    assert rows(tmp_path / "one" / "scores.csv") == wanted
    assert "1 class, 6 test images" in (tmp_path / "one" / "log.txt").read_text()


def test_reference_list_replaces_the_draw(evaluate: Evaluate, data: Path, tmp_path: Path) -> None:
    listed = ["bolt/train/good/3.png", "felt/train/good/0.png", "bolt/train/good/1.png", "felt/train/good/2.png"]
    (tmp_path / "list.txt").write_text("\n".join(listed))
    save = tmp_path / "out"
    assert evaluate(data, save, "--reference_list", str(tmp_path / "list.txt")) == 0
    used = rows(save / "k_shot.csv")
    assert {(row["k_shot"], row["seed"]) for row in used} == {("2", "")}
    assert sorted(row["img_path"] for row in used) == sorted(listed)
    assert evaluate(data, save, "--reference_list", str(tmp_path / "list.txt"), "--k_shot", "1") == 0
    assert [row["img_path"] for row in rows(save / "k_shot.csv")] == listed[:2]


def test_anomalous_images_without_masks_give_image_metrics_only(
    evaluate: Evaluate, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edit_meta(data, lambda meta: [item.update(mask_path="") for item in meta["test"]["bolt"]])
    save = tmp_path / "out"
    assert evaluate(data, save) == 0
    cells = {row["objects"]: row for row in rows(save / "results.csv")}
    assert [cells["bolt"][metric] == "" for metric in METRICS] == [metric in PIXEL_METRICS for metric in METRICS]
    assert cells["mean"]["auroc_px"] == cells["felt"]["auroc_px"] != ""
    row = next(line for line in (save / "tables.md").read_text().splitlines() if line.startswith("| bolt"))
    assert [cell.strip() for cell in row.strip("|").split("|")][1:5] == ["-"] * 4
    assert "bolt: a figure is left out, 3 of 6 test images are anomalous and have no mask" in capsys.readouterr().err
    assert "3 of 6 test images are anomalous and have no mask" in (save / "log.txt").read_text()


def test_one_label_only_gives_no_image_metrics(evaluate: Evaluate, data: Path, tmp_path: Path) -> None:
    def keep_good(meta: dict[str, Any]) -> None:
        meta["test"]["felt"] = [item for item in meta["test"]["felt"] if not item["anomaly"]]

    edit_meta(data, keep_good)
    assert evaluate(data, tmp_path / "out") == 0
    felt = next(row for row in rows(tmp_path / "out" / "results.csv") if row["objects"] == "felt")
    assert all(felt[metric] == "" for metric in METRICS)


def test_compare_adds_differences_to_the_published_tables(
    evaluate: Evaluate, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    meta = (data / "meta.json").read_text().replace('"bolt"', '"screw"').replace('"felt"', '"carpet"')
    (data / "meta.json").write_text(meta)
    assert evaluate(data, tmp_path / "out", "--dataset", "mvtec", "--compare", "--k_shot", "0", "3") == 0
    zero_shot, three_shot = (tmp_path / "out" / "tables.md").read_text().split("## mvtec, 3-shot")
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in zero_shot.splitlines() if "|" in line]
    table = {line[0]: dict(zip(lines[0], line)) for line in lines}
    assert [line[0] for line in lines] == ["objects", lines[1][0], "carpet", "screw", "mean", "chance"]
    assert lines[-1][1 + len(METRICS) :] == ["-"] * len(METRICS)
    results = {row["objects"]: float(row["auroc_px"]) for row in rows(tmp_path / "out" / "results.csv")[:3]}
    assert float(table["carpet"]["auroc_px diff"]) == pytest.approx(results["carpet"] - 90.9, abs=0.051)
    # The mean over two classes is compared with the published mean over the same two.
    assert float(table["mean"]["auroc_px diff"]) == pytest.approx(results["mean"] - (90.9 + 91.1) / 2, abs=0.051)
    assert "Means stated by the paper" in zero_shot and "auroc_sp 91.8" in zero_shot
    carpet = next(line for line in three_shot.splitlines() if line.startswith("| carpet"))
    assert {cell.strip() for cell in carpet.strip("|").split("|")[1 + len(METRICS) :]} == {"-"}


def test_compare_needs_published_tables(
    evaluate: Evaluate, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    message = refused(capsys, evaluate(data, tmp_path / "out", "--compare"), tmp_path / "out")
    assert "--compare: there are published tables for mvtec and visa, none for 'small'" in message


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--k_shot", "5"], "class bolt has 4 train images and k_shot asks for 5"),
        (["--k_shot", "-1"], "--k_shot -1 is negative"),
        (["--k_shot", "1", "1"], "--k_shot names 1 more than once"),
        (["--seed", "2", "2"], "--seed names 2 more than once"),
        (["--classes", "bolts"], "class bolts is not in the data set"),
        (["--reference_list", "nowhere.txt"], "reference list nowhere.txt cannot be read"),
        (["--reference_list", "x", "--seed", "1"], "--seed has no meaning with --reference_list"),
        (["--device", "cuda:9"], "device 'cuda:9' is not present"),
        (["--precision", "int3"], "precision 'int3' is unknown"),
        (["--model", "ViT-B-99"], "model 'ViT-B-99' is unknown"),
        (["--pretrained", "nowhere.pt"], "checkpoint nowhere.pt does not exist"),
        (["--image_size", "100"], "image size 100 does not work"),
        (["--scales", "9", "2"], "at least 144 for windows of 9 patches a side"),
        (["--scales", "2", "2"], "scales 2 2 are not valid"),
        (["--compare", "--model", "demo-vit-240", "--data_path", "nowhere"], "--compare: the published figures come"),
        (["--temperature", "0"], "temperature 0.0 must be above 0"),
        (["--prompt_set", "mine"], "prompt set 'mine' is unknown"),
        (["--batch_size", "0"], "--batch_size 0 must be at least 1"),
        (["--num_workers", "-2"], "--num_workers -2 must be at least 0"),
        (["--dataset", "a/b"], "--dataset 'a/b' is not a name"),
        (["--data_path", "nowhere"], "data set folder nowhere does not exist"),
    ],
)
def test_bad_options_are_refused_in_one_line(
    evaluate: Evaluate,
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    message: str,
) -> None:
    status = evaluate(data, tmp_path / "out", *options)
    error = capsys.readouterr().err.strip()
    assert status == 2
    assert error.startswith("error: ") and message in error and "\n" not in error
    assert not (tmp_path / "out" / "results.csv").exists()


def test_folder_without_meta_json_says_which_command_makes_it(
    evaluate: Evaluate, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (data / "meta.json").unlink()
    message = refused(capsys, evaluate(data, tmp_path / "out"), tmp_path / "out")
    assert "meta.json does not exist" in message and "mvtec.py --root" in message


def test_save_path_that_cannot_be_written_is_refused(
    evaluate: Evaluate, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert evaluate(data, tmp_path / "file" / "out") == 2
    assert "cannot write" in capsys.readouterr().err


def test_missing_image_is_named_before_anything_runs(
    evaluate: Evaluate, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (data / "felt/test/good/1.png").unlink()
    message = refused(capsys, evaluate(data, tmp_path / "out"), tmp_path / "out")
    assert "felt/test/good/1.png does not exist" in message


def damage(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("workers", ["0", "2"])
def test_unreadable_image_stops_the_run_and_keeps_finished_classes(
    evaluate: Evaluate, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], workers: str
) -> None:
    damage(data / "felt/test/good/1.png")
    assert evaluate(data, tmp_path / "out", "--num_workers", workers) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: image ") and "felt/test/good/1.png cannot be read" in error
    assert "--skip_unreadable" in error
    assert {row["objects"] for row in rows(tmp_path / "out" / "results.csv")} == {"bolt", "mean"}
    assert json.loads((tmp_path / "out" / "config.json").read_text())["finished"] is False
    last = (tmp_path / "out" / "log.txt").read_text().splitlines()[-1]
    assert last.endswith(error.replace("error:", " ERROR"))


def test_an_image_without_a_score_costs_its_class_alone(
    evaluate: Evaluate, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert evaluate(data, tmp_path / "whole") == 0
    wanted = torch.tensor(resized_pixels(Image.open(data / "bolt/test/good/1.png"), 96))
    encode = ImageTower.embed

    def encode_badly(self: ImageTower, images: torch.Tensor, *how: Any) -> Embeddings:
        embeddings = encode(self, images, *how)
        bad = (images - normalise(wanted[None])).abs().flatten(1).amax(dim=1) < 1e-3
        return embeddings.map(lambda part: torch.where(bad.view(-1, *[1] * (part.dim() - 1)), torch.nan, part))

    monkeypatch.setattr(ImageTower, "embed", encode_badly)
    save = tmp_path / "out"
    assert evaluate(data, save) == 2
    name = data / "bolt/test/good/1.png"
    error = capsys.readouterr().err
    assert f"warning: {name} has no score: the model makes NaN of it" in error
    assert f"error: 1 image has no score, the first is {name}; the results leave out their classes" in error
    assert {row["objects"] for row in rows(save / "results.csv")} == {"felt", "mean"}
    assert json.loads((save / "config.json").read_text())["finished"] is False
    # The same when nothing is left to score.
    assert evaluate(data, save) == 2
    assert {row["objects"] for row in rows(save / "results.csv")} == {"felt", "mean"}
    assert evaluate(data, save, "--skip_bad_scores") == 0
    left = [row["img_path"] for row in rows(save / "scores.csv")]
    assert [row["img_path"] for row in rows(tmp_path / "whole" / "scores.csv") if row["img_path"] in left] == left
    assert len(left) == 11 and "bolt/test/good/1.png" not in left
    assert {row["objects"] for row in rows(save / "results.csv")} == {"bolt", "felt", "mean"}


def test_a_signal_keeps_finished_classes_and_is_in_the_log(
    evaluate: Evaluate, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop_at_felt(scored: Any, *more: Any) -> Any:
        if scored.class_name == "felt":
            signal.raise_signal(signal.SIGTERM)
        return measure_class(scored, *more)

    monkeypatch.setattr("evaluation.run.measure_class", stop_at_felt)
    save = tmp_path / "out"
    assert evaluate(data, save) == 143
    assert capsys.readouterr().err.splitlines()[-1].startswith("stopped by SIGTERM; ")
    assert {row["objects"] for row in rows(save / "results.csv")} == {"bolt", "mean"}
    assert (save / "log.txt").read_text().splitlines()[-1].endswith(" ERROR stopped by SIGTERM")
    assert {path.name for path in save.iterdir()} == FILES | {"scores"}


def test_a_run_that_cannot_start_leaves_its_error_or_the_earlier_log(
    evaluate: Evaluate, data: Path, tmp_path: Path
) -> None:
    save = tmp_path / "out"
    assert evaluate(data, save, "--pretrained", "nowhere.pt") == 2
    (log,) = save.iterdir()
    assert "ERROR checkpoint nowhere.pt does not exist" in log.read_text().splitlines()[-1]
    assert evaluate(data, save) == 0
    before = log.read_text()
    assert evaluate(data, save, "--pretrained", "nowhere.pt") == 2
    assert log.read_text() == before


def test_a_second_run_in_the_same_folder_is_refused(
    evaluate: Evaluate, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with lock_folder(tmp_path / "out"):
        assert evaluate(data, tmp_path / "out") == 2
        assert len(list((tmp_path / "out").iterdir())) == 1
    assert "error: another run" in capsys.readouterr().err


def test_skip_unreadable_goes_on_and_counts(
    evaluate: Evaluate, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate(data, tmp_path / "whole", "--k_shot", "3") == 0
    first_reference = rows(tmp_path / "whole" / "k_shot.csv")[0]["img_path"]
    damage(data / first_reference)
    (data / "felt/test/good/1.png").write_text("no image")
    (data / "felt/test/scratch/0.png").unlink()
    save = tmp_path / "out"
    assert evaluate(data, save, "--k_shot", "0", "3", "--skip_unreadable") == 0
    config = json.loads((save / "config.json").read_text())
    skipped = ["felt/test/good/1.png", "felt/test/scratch/0.png"]
    assert sorted(config["unreadable_images"]) == sorted([first_reference, *skipped])
    assert len(rows(save / "scores.csv")) == 2 * (6 + 4)
    used = [row["img_path"] for row in rows(save / "k_shot.csv") if row["cls_name"] == "bolt"]
    assert len(used) == 3 and first_reference not in used
    assert capsys.readouterr().err.count("warning: left out") == 3


def test_what_is_odd_about_the_data_is_said_in_every_run(
    evaluate: Evaluate, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def warnings(save: Path, *options: str) -> list[str]:
        assert evaluate(data, save, "--k_shot", "0", "1", *options) == 0
        start, lines = "warning: ", capsys.readouterr().err.splitlines()
        return [line.removeprefix(start) for line in lines if line.startswith(start)]

    assert warnings(tmp_path / "clean") == []
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 3
    for path in [*data.glob("bolt/t*/good/*.png"), data / "felt/test/scratch/0.png"]:
        Image.open(path).copy().transpose(Image.Transpose.ROTATE_180).save(path, exif=exif)
    mask = np.zeros((60, 50), np.uint8)
    for number, values in enumerate((mask, mask + 255)):
        Image.fromarray(values).save(data / f"bolt/masks/scratch/{number}.png")
    small = data / "bolt/masks/scratch/2.png"
    spot = np.zeros((600, 500), np.uint8)
    spot[300, 100] = 1
    Image.fromarray(spot).save(small)
    Image.open(data / "bolt/test/scratch/2.png").copy().resize((500, 600)).save(data / "bolt/test/scratch/2.png")
    for number in (0, 2):
        path = data / f"felt/masks/scratch/{number}.png"
        Image.open(path).copy().filter(ImageFilter.BoxBlur(1)).save(path)
    save = tmp_path / "out"
    expected = [
        "bolt: of 3 masks, 1 without a defect pixel; 1 whose defects vanish at 96 x 96 and count as good; 1 with"
        " defects in every pixel; the figures count them as they are",
        "felt: of 3 masks, 2 with intermediate values, as JPEG and smoothing leave them, so only pixels above half of"
        " the largest value are defects",
        f"EXIF would turn 5 images, the first is {data / 'bolt/test/good/0.png'}; they are read as they are stored, as"
        " most masks are; --upright turns them",
    ]
    # Three good and one reference of bolt, and one defective image; from the second time on nothing is read.
    for _ in range(2):
        assert warnings(save) == expected
    assert json.loads((save / "config.json").read_text())["options"]["upright"] is False
    figures = (save / "results.csv").read_text()
    found = warnings(save, "--upright", "--report")
    assert found[0].endswith("MB; --fresh removes it") and "made with another --upright" in found[0]
    assert found[1:] == expected[:2]
    assert json.loads((save / "config.json").read_text())["options"]["upright"] is True
    assert (save / "results.csv").read_text() != figures
    assert warnings(save) == expected
    assert (save / "results.csv").read_text() == figures


def test_a_test_image_among_the_train_images_is_refused(
    evaluate: Evaluate, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save = tmp_path / "out"
    shared, train = data / "bolt/test/good/0.png", data / "bolt/train/good/3.png"

    def same_path() -> None:
        edit_meta(data, lambda meta: meta["train"]["bolt"].append(meta["test"]["bolt"][0]))

    def copy() -> None:
        shutil.copy(shared, train)

    def link() -> None:
        train.unlink()
        train.symlink_to(shared)

    for make in (copy, link, same_path):
        make()
        assert evaluate(data, save, "--k_shot", "0", "1") == 2
        error = capsys.readouterr().err
        assert "error: 1 test image is among the train images" in error and "--allow_overlap" in error
        assert f"the first is {shared}, as {shared if make is same_path else train};" in error
        if make is not same_path:
            shutil.copy(data / "bolt/train/good/2.png", tmp_path / "other.png")
            train.unlink()
            (tmp_path / "other.png").rename(train)
    # Unreadable files have another error, and none if they may be left out.
    for path in (data / "felt/test/good/0.png", data / "felt/train/good/0.png"):
        path.rename(path.with_suffix(".kept"))
        path.write_text("no image")
    assert evaluate(data, save, "--k_shot", "1", "--skip_unreadable", "--classes", "felt") == 0
    for path in (data / "felt/test/good/0.png", data / "felt/train/good/0.png"):
        path.with_suffix(".kept").replace(path)
    # Zero-shot takes no references; a list takes only its own images.
    assert evaluate(data, save) == 0
    listed = tmp_path / "list.txt"
    listed.write_text("bolt/train/good/0.png\nfelt/train/good/0.png\n")
    assert evaluate(data, save, "--reference_list", str(listed)) == 0
    assert "among the train" not in capsys.readouterr().err
    assert evaluate(data, save, "--k_shot", "1", "--allow_overlap") == 0
    assert "warning: 1 test image is among the train images" in capsys.readouterr().err


def test_means_that_leave_classes_out_say_so(
    evaluate: Evaluate, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def keep_good(meta: dict[str, Any]) -> None:
        meta["test"]["bolt"] = meta["test"]["bolt"][:3]

    edit_meta(data, keep_good)
    save = tmp_path / "out"
    assert evaluate(data, save, "--k_shot", "0", "1", "--report") == 0
    note = f"{', '.join(METRICS)}: mean of 1 of 2 classes."
    assert (save / "tables.md").read_text().count(note) == capsys.readouterr().out.count(note) == 2
    assert (save / "report.html").read_text().count(note) == 2
    edit_meta(data, lambda meta: meta["test"]["felt"][-1].update(mask_path=""))
    assert evaluate(data, save) == 0
    assert ": mean of" in (save / "tables.md").read_text()
    edit_meta(data, lambda meta: meta["test"].pop("bolt"))
    assert evaluate(data, save) == 0
    assert "mean of" not in (save / "tables.md").read_text()


def test_zero_shot_needs_no_train_images(
    evaluate: Evaluate, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edit_meta(data, lambda meta: meta["train"].update(bolt=[]))
    assert evaluate(data, tmp_path / "out") == 0
    assert evaluate(data, tmp_path / "out", "--k_shot", "1") == 2
    error = "class bolt has 0 train images and k_shot asks for 1; without any, only zero-shot works, --k_shot 0"
    assert error in capsys.readouterr().err


def test_mask_of_another_size_is_refused(
    evaluate: Evaluate, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("L", (10, 10), 255).save(data / "bolt/masks/scratch/0.png")
    assert evaluate(data, tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert "bolt/masks/scratch/0.png is 10x10 and its image" in error and "is 50x60" in error
    assert "both need the same size; repair it, or leave such images out with --skip_unreadable" in error
    assert evaluate(data, tmp_path / "out", "--skip_unreadable") == 0
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["unreadable_images"] == ["bolt/test/scratch/0.png"]


def test_path_that_leaves_the_root_is_refused(
    evaluate: Evaluate, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edit_meta(data, lambda meta: meta["test"]["bolt"][0].update(img_path="../secret.png"))
    message = refused(capsys, evaluate(data, tmp_path / "out"), tmp_path / "out")
    assert "meta.json: test, class bolt, entry 0" in message and "'../secret.png'" in message


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("bolt/train/good/9.png\nfelt/train/good/0.png", "line 1: bolt/train/good/9.png is not in"),
        ("bolt/test/good/0.png\nfelt/train/good/0.png", "line 1: bolt/test/good/0.png is a test image"),
        ("bolt/train/good/0.png", "lists no image of class felt"),
        ("bolt/train/good/0.png\nfelt/train/good/0.png\nfelt/train/good/1.png", "say with --k_shot how many"),
    ],
)
def test_bad_reference_lists_are_refused(
    evaluate: Evaluate, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str, message: str
) -> None:
    (tmp_path / "list.txt").write_text(content)
    status = evaluate(data, tmp_path / "out", "--reference_list", str(tmp_path / "list.txt"))
    assert message in refused(capsys, status, tmp_path / "out")


def test_prompt_sets_change_the_scores(evaluate: Evaluate, data: Path, tmp_path: Path) -> None:
    custom = {"normal_states": ["{}"], "anomalous_states": ["bent {}"], "templates": ["a photo of a {}."]}
    (tmp_path / "prompts.json").write_text(json.dumps(custom))
    seen = set()
    for name in ("reference", "paper", str(tmp_path / "prompts.json")):
        assert evaluate(data, tmp_path / "out", "--prompt_set", name) == 0
        seen.add((tmp_path / "out" / "scores.csv").read_text())
    assert len(seen) == 3


def test_scales_and_temperature_change_the_scores_as_in_the_library(
    evaluate: Evaluate, data: Path, checkpoint: Path, tmp_path: Path
) -> None:
    save = tmp_path / "out"
    options = ["--scales", "2", "--temperature", "0.1"]
    assert evaluate(data, save, "--k_shot", "0", "1", "--classes", "felt", *options) == 0
    resolved = json.loads((save / "config.json").read_text())["options"]
    assert (resolved["scales"], resolved["temperature"]) == ([2], 0.1)
    model = WinCLIP.from_pretrained(str(CONFIG), str(checkpoint), device="cpu", scales=(2,), temperature=0.1)
    model.set_class("felt")
    model.add_references([data / row["img_path"] for row in rows(save / "k_shot.csv")])
    mine = [row for row in rows(save / "scores.csv") if row["k_shot"] == "1"]
    prediction = model.predict([data / row["img_path"] for row in mine])
    np.testing.assert_allclose(prediction.scores, [float(row["score"]) for row in mine], rtol=0, atol=1e-8)
