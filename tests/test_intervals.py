"""Bootstrap intervals: how often they hold the truth, a comparison with a plain loop, and the files of a run."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

import evaluation.measuring
import winclip.metrics.bootstrap
from evaluation.options import Setting
from evaluation.results import Results, tables
from winclip.metrics.bootstrap import (
    RESAMPLES,
    draw,
    interval,
    resampled_image_metrics,
    resampled_pixel_metrics,
    resampled_values,
)
from winclip.metrics.exact import image_metrics, label_defects, pixel_metrics
from winclip.metrics.formulas import AUPRO_MODES, METRICS, PIXEL_METRICS, UndefinedMetric, chance

Evaluate = Callable[..., int]


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_intervals_hold_the_known_auroc_as_often_as_they_say() -> None:
    # For normal scores around 0 and 1 with deviation 1, the difference of two is above 0 with this probability.
    truth, labels = 0.7602499389065233, np.repeat([0, 1], 60)
    held = 0
    for number in range(100):
        scores = np.random.RandomState(number).standard_normal(120) + labels
        values = resampled_image_metrics(draw(labels, f"class {number}"), labels, scores)
        limits = interval(resampled_values(image_metrics(labels, scores)[0], values)["auroc_sp"])
        assert limits is not None
        held += limits[0] <= truth <= limits[1]
    assert 92 <= held <= 97


def test_draws_are_within_good_and_defective_images_and_always_alike() -> None:
    labels = np.array([0, 1, 0, 0, 1, 0])
    draws = draw(labels, "bolt")
    assert draws.shape == (1 + RESAMPLES, 6)
    assert (draws[0] == 1).all()
    assert (draws[:, labels == 0].sum(axis=1) == 4).all() and (draws[:, labels == 1].sum(axis=1) == 2).all()
    np.testing.assert_array_equal(draws, draw(labels, "bolt"))
    assert (draws != draw(labels, "felt")).any()
    # Each image is drawn once on average, all with equal probability.
    np.testing.assert_allclose(draws[1:].mean(axis=0), 1, atol=0.1)
    with pytest.raises(UndefinedMetric, match="1 good, 2 defective"):
        draw([0, 1, 1], "bolt")


def test_image_metrics_agree_with_a_plain_loop() -> None:
    generator = np.random.RandomState(0)
    labels = np.repeat([0, 1], 15)
    scores = np.round(generator.rand(30) + 0.3 * labels, 1)
    draws = draw(labels, "bolt")[:20]
    values = resampled_image_metrics(draws, labels, scores)
    for number, row in enumerate(draws):
        expected = image_metrics(np.repeat(labels, row), np.repeat(scores, row))[0]
        assert {name: part[number] for name, part in values.items()} == pytest.approx(expected, abs=1e-12)


def test_f1_of_images_falls_to_that_of_guessing_and_no_further() -> None:
    labels = np.repeat([0, 1], [10, 30])
    scores = np.random.RandomState(3).rand(40)
    figures = image_metrics(labels, scores)[0]
    values = resampled_values(figures, resampled_image_metrics(draw(labels, "bolt"), labels, scores))["f1_sp"]
    assert values.min() == pytest.approx(chance("image", labels)["f1_sp"], abs=1e-12)


def test_the_figure_of_guessing_is_marked_whatever_rounding_does_to_a_mean() -> None:
    setting = Setting(0, None)
    results = Results("small", [setting])
    for name, value in (("a", 0.1), ("b", 0.2), ("c", 0.3)):
        results.chance[name] = results.figures[setting][name] = {"f1_sp": value}
        results.resampled[setting][name] = {"f1_sp": np.full(RESAMPLES, value)}
    (table,) = tables(results, compare=False)
    assert table.mean is not None and table.mean[1 + METRICS.index("f1_sp")] == "20.0 [20.0, 20.0]†"


def case(seed: int, shift: float) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_], npt.NDArray[np.float32]]:
    """Labels, masks and maps of 10 good and 10 defective images, each map moved by a fraction of ``shift``."""
    generator = np.random.RandomState(seed)
    labels = np.repeat([0, 1], 10)
    masks = (generator.rand(20, 40, 40) > 0.95) & (labels == 1)[:, None, None]
    maps = 0.5 * generator.rand(*masks.shape) + 0.2 * masks + shift * generator.rand(20, 1, 1)
    return labels, masks, maps.astype(np.float32)


@pytest.mark.parametrize("mode", AUPRO_MODES)
def test_pixel_metrics_agree_with_a_plain_loop(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(winclip.metrics.bootstrap, "_BINS", 1 << 16)
    monkeypatch.setattr(winclip.metrics.bootstrap, "_ROWS", 7)
    labels, masks, maps = case(1, 0)
    draws = draw(labels, "bolt")[:20]
    values = resampled_pixel_metrics(draws, label_defects(masks), lambda images: maps[images], 1.0, mode)
    for number, row in enumerate(draws):
        expected = pixel_metrics(label_defects(np.repeat(masks, row, axis=0)), np.repeat(maps, row, axis=0), mode)[0]
        # One step of the curve more or less if the rate of a threshold is 0.3 within a bin.
        error = 0.005 if mode == "steps" else 1e-4
        assert values["aupro"][number] == pytest.approx(expected.pop("aupro"), abs=error)
        assert {name: values[name][number] for name in expected} == pytest.approx(expected, abs=1e-4)


def test_fewer_bins_move_intervals_little(monkeypatch: pytest.MonkeyPatch) -> None:
    labels, masks, maps = case(2, 0.2)
    defects, draws = label_defects(masks), draw(labels, "bolt")[:101]
    figures = pixel_metrics(defects, maps, "exact")[0]
    few = resampled_values(figures, resampled_pixel_metrics(draws, defects, lambda images: maps[images], 1.0, "exact"))
    monkeypatch.setattr(winclip.metrics.bootstrap, "_BINS", 1 << 16)
    many = resampled_values(figures, resampled_pixel_metrics(draws, defects, lambda images: maps[images], 1.0, "exact"))
    for name in figures:
        assert few[name].std() > 0.002
        assert interval(few[name]) == pytest.approx(interval(many[name]), abs=2e-3)


def test_resamples_without_a_value_are_left_out_and_most_must_have_one() -> None:
    values = np.append(np.linspace(0, 1, RESAMPLES // 2 + 1), np.full(RESAMPLES // 2 - 1, np.nan))
    assert interval(values) == pytest.approx((0.025, 0.975))
    values[0] = np.nan
    assert interval(values) is None


def test_a_run_with_intervals(
    evaluate: Evaluate, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shots = ("--k_shot", "0", "1", "--seed", "3", "4")
    save = tmp_path / "out"
    assert evaluate(data, save, *shots, "--intervals", "--report") == 0
    out = capsys.readouterr().out
    before = {path.name: path.read_bytes() for path in save.glob("*.csv")}
    assert out == (save / "tables.md").read_text() + "\n"

    figures = {(row["k_shot"], row["seed"], row["objects"]): row for row in rows(save / "results.csv")}
    intervals = {(row["k_shot"], row["seed"], row["objects"]): row for row in rows(save / "intervals.csv")}
    assert list(intervals) == [key for key in figures if key[1] != "std"]
    for key, row in intervals.items():
        assert list(row)[4:] == [f"{metric}_{end}" for metric in METRICS for end in ("low", "high")]
        for metric in METRICS:
            low, high = float(row[f"{metric}_low"]), float(row[f"{metric}_high"])
            assert 0 <= low <= high <= 100
            assert low - 5 <= float(figures[key][metric]) <= high + 5
    assert len(re.findall(r" \[\d+\.\d, \d+\.\d\]", out)) == 2 * 3 * len(METRICS)
    guessed = {"aupro": 15, "auroc_sp": 50, "f1_sp": 200 / 3, "ap_sp": 50}
    marks = []
    for text, (k_shot, seed) in zip(out.split("## ")[1:], (("0", ""), ("1", "mean"))):
        for line in text.splitlines():
            name, *cells = [cell.strip() for cell in line.strip("|").split("|")]
            if name in ("bolt", "felt", "mean"):
                limits = intervals[k_shot, seed, name]
                for metric, value in guessed.items():
                    low, high = (float(limits[f"{metric}_{end}"]) for end in ("low", "high"))
                    marks.append(cells[METRICS.index(metric)].endswith("]†"))
                    assert marks[-1] == (low <= value + 1e-5 and high >= value - 1e-5)
    assert len(marks) == 2 * 3 * 4 and len({*marks}) == 2
    assert [text.count("\n†: ") for text in out.split("## ")[1:]] == ["]†" in text for text in out.split("## ")[1:]]
    assert not any("†".encode() in content for content in before.values())

    first = intervals["0", "", "bolt"]
    ends = ", ".join(f"{float(first[name]):.1f}" for name in ("aupro_low", "aupro_high"))
    shown = f"{float(figures['0', '', 'bolt']['aupro']):.1f} [{ends}]"
    assert shown in out
    assert f"pixel {shown}" in (save / "report.html").read_text()

    # A run without them leaves none behind.
    assert evaluate(data, save, *shots) == 0
    assert not (save / "intervals.csv").exists()
    for name in ("results.csv", "scores.csv", "k_shot.csv"):
        assert before[name] == (save / name).read_bytes()


def test_no_interval_of_a_single_image(
    evaluate: Evaluate, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    meta = json.loads((data / "meta.json").read_text())
    meta["test"]["bolt"] = [
        item for item in meta["test"]["bolt"] if item["anomaly"] or item["img_path"].endswith("0.png")
    ]
    (data / "meta.json").write_text(json.dumps(meta))
    assert evaluate(data, tmp_path / "out", "--intervals") == 0
    assert "bolt: no intervals" in capsys.readouterr().err
    known = {row["objects"]: row["auroc_sp_low"] != "" for row in rows(tmp_path / "out" / "intervals.csv")}
    assert known == {"bolt": False, "felt": True, "mean": False}


def test_a_run_in_bins_is_near_the_exact_one(
    evaluate: Evaluate, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    exact, binned = tmp_path / "exact", tmp_path / "binned"
    options = ("--aupro", "exact", "--report", "--intervals", "--check_metrics")
    assert evaluate(data, exact, *options) == 0
    assert evaluate(data, binned, *options, "--metrics", "histogram") == 0
    assert re.search(r"^\| ap_px +\| [1-9]\.\de-0\d +\| 1e-04 ", capsys.readouterr().out, re.MULTILINE)
    assert (exact / "scores.csv").read_bytes() == (binned / "scores.csv").read_bytes()
    for one, other in zip(rows(exact / "results.csv"), rows(binned / "results.csv")):
        for metric in METRICS:
            tolerance = 0.01 if metric in PIXEL_METRICS else 0
            assert float(other[metric]) == pytest.approx(float(one[metric]), rel=0, abs=tolerance)
    for one, other in zip(rows(exact / "intervals.csv"), rows(binned / "intervals.csv")):
        for end in list(one)[4:]:
            assert float(other[end]) == pytest.approx(float(one[end]), abs=0.01)
    assert json.loads((binned / "config.json").read_text())["options"]["metrics"] == "histogram"


def test_too_many_pixels_for_exact_metrics_end_a_run_before_it_begins(
    evaluate: Evaluate, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluation.measuring, "EXACT_LIMIT", 6 * 96 * 96 - 1)
    assert evaluate(data, tmp_path / "out") == 2
    refused = capsys.readouterr().err
    assert all(named in refused for named in ("class bolt", "55,296", "55,295", "--metrics histogram"))
    assert evaluate(data, tmp_path / "out", "--metrics", "histogram") == 0
