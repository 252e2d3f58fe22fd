"""scripts/compare_runs.py: pairing against a plain loop, what it leaves out and notes, and bad input."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

import winclip.metrics.bootstrap
from datasets.index import load_index
from datasets.samples import read_mask, resize_mask
from evaluation.comparison import compare
from evaluation.past_run import read_run
from scripts.compare_runs import main
from tests.conftest import make_data
from winclip.metrics.bootstrap import draw
from winclip.metrics.exact import image_metrics, label_defects, pixel_metrics
from winclip.metrics.formulas import METRICS, PIXEL_METRICS

Evaluate = Callable[..., int]


@pytest.fixture(scope="module")
def runs(evaluate: Evaluate, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """A data set, a zero-shot run of it, and a run with one shot and two seeds."""
    folder = tmp_path_factory.mktemp("compared")
    data = make_data(folder / "data")
    assert evaluate(data, folder / "zero", "--save_maps", "--aupro", "exact") == 0
    shots = ("--k_shot", "1", "--seed", "3", "4")
    assert evaluate(data, folder / "one", *shots, "--save_maps", "--aupro", "exact") == 0
    return data, folder / "zero", folder / "one"


@pytest.fixture
def copies(runs: tuple[Path, Path, Path], tmp_path: Path) -> tuple[Path, Path]:
    """Copies of both runs, which tests may change."""
    for run in runs[1:]:
        shutil.copytree(run, tmp_path / run.name)
    return tmp_path / "zero", tmp_path / "one"


def rows(path: Path) -> dict[tuple[str, str], dict[str, str]]:
    with path.open(newline="") as file:
        return {(row["objects"], row["metric"]): row for row in csv.DictReader(file)}


def refused(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    assert main([*map(str, arguments)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    return error


def test_differences_are_those_of_the_runs_and_of_a_plain_loop(
    runs: tuple[Path, Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, zero, one = runs
    save = tmp_path / "out"
    assert main([str(zero), str(one), "--save_path", str(save)]) == 0
    assert capsys.readouterr().out == (save / "comparison.md").read_text() + "\n"
    found = rows(save / "comparison.csv")
    assert list(found) == [(name, metric) for name in ("bolt", "felt", "mean") for metric in METRICS]
    for run, seed, side in ((zero, "", "first"), (one, "mean", "second")):
        with (run / "results.csv").open(newline="") as file:
            for row in csv.DictReader(file):
                if row["seed"] == seed:
                    for metric in METRICS:
                        assert float(found[row["objects"], metric][side]) == pytest.approx(float(row[metric]), abs=2e-6)

    items = load_index(data).test["bolt"]
    labels = np.array([item.anomaly for item in items])
    masks = np.zeros((len(items), 96, 96), bool)
    for mask, item in zip(masks, items):
        if item.anomaly:
            mask[:] = resize_mask(read_mask(data / item.mask_path), 96)
    settings = {zero: ["0shot"], one: ["1shot-seed3", "1shot-seed4"]}
    maps = {run: [np.load(run / "maps" / name / "bolt.npz")["maps"] for name in settings[run]] for run in settings}
    scores = {
        run: [[s["bolt"][item.img_path][1] for item in items] for s in read_run(run).scores.values()]
        for run in settings
    }
    differences = []
    for row in draw(labels, "bolt")[1:121]:
        drawn = label_defects(np.repeat(masks, row, axis=0))
        figures = {
            run: [
                image_metrics(np.repeat(labels, row), np.repeat(score, row))[0]
                | pixel_metrics(drawn, np.repeat(part, row, axis=0), "exact")[0]
                for score, part in zip(scores[run], maps[run])
            ]
            for run in settings
        }
        means = {run: {m: np.mean([f[m] for f in figures[run]]) for m in METRICS} for run in settings}
        differences.append({metric: 100 * (means[one][metric] - means[zero][metric]) for metric in METRICS})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(winclip.metrics.bootstrap, "RESAMPLES", 120)
        quick = compare((read_run(zero), read_run(one)), (None, None)).intervals["bolt"]
    for metric in METRICS:
        expected = np.quantile([values[metric] for values in differences], [0.025, 0.975])
        np.testing.assert_allclose(
            100 * np.array(quick[metric]), expected, atol=0.2 if metric in PIXEL_METRICS else 1e-9
        )


def test_a_run_against_itself_and_what_is_drawn(
    runs: tuple[Path, Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(runs[2]), str(runs[2]), "--save_path", str(tmp_path / "out")]) == 0
    out = capsys.readouterr().out
    assert "*" not in out.split("\n\n")[1] and out.count("+0.0 [+0.0, +0.0]") == 3 * len(METRICS)
    for row in rows(tmp_path / "out" / "comparison.csv").values():
        assert {row["difference"], row["difference_low"], row["difference_high"]} == {"0.000000"}
    drawing = ElementTree.parse(tmp_path / "out" / "comparison.svg")
    texts = {"".join(text.itertext()).strip() for text in drawing.iter("{http://www.w3.org/2000/svg}text")}
    assert {"bolt", "felt", "mean", *METRICS} <= texts


def test_what_only_one_run_has_is_left_out_and_said(
    copies: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    zero, one = copies
    lines = (one / "scores.csv").read_text().splitlines()
    kept = [line for line in lines if ",felt," not in line and "bolt/test/good/0.png" not in line]
    (one / "scores.csv").write_text("\n".join(kept) + "\n")
    config = json.loads((one / "config.json").read_text())
    config["finished"] = False
    config["options"]["aupro"] = "steps"
    (one / "config.json").write_text(json.dumps(config))
    assert main([str(zero), str(one), "--save_path", str(tmp_path / "out")]) == 0
    out = capsys.readouterr().out
    assert set(rows(tmp_path / "out" / "comparison.csv")) == {(n, m) for n in ("bolt", "mean") for m in METRICS}
    for note in (
        f"{one} did not finish.",
        "The runs have --aupro exact and steps, exact is taken.",
        "Left out, since only the first run has them: felt.",
        "Left out, since only the first run has them: 1 image of the other classes.",
    ):
        assert note in out


def test_without_masks_there_are_image_metrics(
    evaluate: Evaluate, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = make_data(tmp_path / "data")
    text = (data / "meta.json").read_text().replace('"mask_path": "bolt', '"mask_path": "", "was": "bolt')
    (data / "meta.json").write_text(text)
    assert evaluate(data, tmp_path / "out", "--k_shot", "0", "1") == 0
    run = str(tmp_path / "out")
    assert main([run, run, "--k_shot", "0", "1", "--save_path", str(tmp_path / "compared")]) == 0
    names = {name for name, metric in rows(tmp_path / "compared" / "comparison.csv") if metric == "aupro"}
    assert names == {"felt", "mean"}
    assert "Image metrics only of bolt: 3 of 6 test images are anomalous and have no mask." in capsys.readouterr().out


def test_bad_input(copies: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    zero, one = copies
    save = ("--save_path", tmp_path / "out")
    assert f"run's config {tmp_path / 'none' / 'config.json'} cannot be read" in refused(capsys, tmp_path / "none", one)
    assert f"{zero} has numbers of shots 0, not 4; say which with --k_shot A B" in refused(
        capsys, zero, one, "--k_shot", "4", "1", *save
    )
    scores = (one / "scores.csv").read_text()
    (one / "scores.csv").write_text(scores.replace("bolt/", "nut/").replace("felt/", "cloth/"))
    assert "the runs have no image in common; give runs of the same data" in refused(capsys, zero, one, *save)
    (one / "scores.csv").write_text(scores.replace("good/1.png,0,", "good/1.png,1,"))
    assert "bolt/test/good/1.png of class bolt is good in one run and defective in the other" in refused(
        capsys, zero, one, *save
    )
    (one / "scores.csv").write_text(scores + "1,3,bolt,good\n")
    assert f"{one / 'scores.csv'}, line 26: not a score of a run; make the run again" in refused(capsys, zero, one)
    (one / "scores.csv").write_text(scores.splitlines()[0])
    assert f"{one / 'scores.csv'} holds no scores" in refused(capsys, zero, one)
    for spoilt in (scores.replace(",0,", ",2,"), scores + f'"{"x" * 200_000}"\n'):
        (one / "scores.csv").write_text(spoilt)
        assert f"{one / 'scores.csv'}" in refused(capsys, zero, one)
    (one / "scores.csv").write_text(scores)
    shutil.rmtree(one / "scores")
    assert f"{one / 'scores'}" in refused(capsys, zero, one)
    options = json.loads((one / "config.json").read_text())["options"]
    (one / "config.json").write_text(json.dumps({"options": options | {"dataset": 3}, "finished": True}))
    assert f"{one / 'config.json'} is not the config of a run; name its output folder" in refused(capsys, zero, one)
    assert not (tmp_path / "out").exists()
