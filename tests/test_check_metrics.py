"""The textbook metrics, and the check of a run against them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

import evaluation.measuring
from datasets.items import Item
from evaluation.check_metrics import MetricCheck, textbook_image_metrics, textbook_pixel_metrics
from evaluation.measuring import ClassMetrics
from evaluation.options import Setting
from evaluation.parts import ClassScores
from tests.tiny import GOLDEN
from winclip.metrics.exact import image_metrics, label_defects, pixel_metrics
from winclip.metrics.formulas import METRICS, Figures

Evaluate = Callable[..., int]
EXPECTED = json.loads((GOLDEN / "metrics" / "expected.json").read_text())
CASES = np.load(GOLDEN / "metrics" / "cases.npz")


@pytest.mark.parametrize("case", sorted(EXPECTED))
def test_golden_figures(case: str) -> None:
    expected = dict(EXPECTED[case])
    masks, maps = CASES[f"{case}_masks"], CASES[f"{case}_maps"]
    figures = textbook_image_metrics(CASES[f"{case}_labels"], CASES[f"{case}_scores"])
    figures |= textbook_pixel_metrics(masks, maps)
    assert figures.pop("aupro") == pytest.approx(expected.pop("aupro"), abs=1e-6)
    figures["aupro_exact"] = textbook_pixel_metrics(masks, maps, "exact")["aupro"]
    assert {name: figures[name] for name in expected} == pytest.approx(expected, abs=1e-9)


def pixels() -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.float32]]:
    generator = np.random.RandomState(0)
    masks = generator.rand(4, 20, 17) > 0.93
    return masks, (generator.rand(*masks.shape) + 0.4 * masks).astype(np.float32)


DEGENERATE = ["none", "no defect", "only defect", "constant", "three levels", "smallest span", "small span"]


@pytest.mark.parametrize("mode", ["steps", "exact"])
@pytest.mark.parametrize("change", [*DEGENERATE, "NaN", "infinite"])
def test_both_ways_agree_on_degenerate_maps(change: str, mode: str) -> None:
    masks, maps = pixels()
    if change in ("no defect", "only defect"):
        masks[:] = change == "only defect"
    elif change == "constant":
        maps[:] = 0.5
    elif change == "smallest span":
        maps = np.where(maps > 0.9, np.float32(1e-45), np.float32(0))
    elif change == "small span":
        maps = (maps * np.float32(3e-43)).astype(np.float32)
    elif change == "three levels":
        maps = np.round(maps * 2)
    elif change != "none":
        maps[0, 3, :5] = float(change[:3])
    figures, _ = pixel_metrics(label_defects(masks), maps, mode)
    assert textbook_pixel_metrics(masks, maps, mode) == pytest.approx(figures, abs=1e-9)


def test_both_ways_agree_on_scores_of_images() -> None:
    degenerate = [([0, 0], [0.1, 0.2]), ([1, 1], [0.1, 0.2]), ([0, 1], [0.1, np.nan]), ([0, 1, 1], [0.1, 0.2, np.inf])]
    for labels, scores in degenerate:
        assert textbook_image_metrics(labels, scores) == pytest.approx(image_metrics(labels, scores)[0])
    for levels in (3, 40, 10**6):
        generator = np.random.RandomState(levels)
        defective = np.append([0, 1], generator.randint(0, 2, 300))
        values = np.round((generator.rand(302) + 0.3 * defective) * levels) / levels
        assert textbook_image_metrics(defective, values) == pytest.approx(
            image_metrics(defective, values)[0], abs=1e-12
        )


def test_check_of_a_run_adds_a_table_and_changes_no_file(
    evaluate: Evaluate, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shots = ["--k_shot", "0", "2"]
    assert evaluate(data, tmp_path / "plain", *shots) == 0
    tables = capsys.readouterr().out
    assert evaluate(data, tmp_path / "checked", *shots, "--check_metrics") == 0
    out = capsys.readouterr().out
    assert out.startswith(tables.rstrip("\n"))
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in out[len(tables) :].splitlines()]
    differences = {line[0]: line[1:] for line in lines if line[0] in METRICS}
    assert [*differences] == [*METRICS]
    assert {name for name, cells in differences.items() if cells[1] == "1e-04"} == {"aupro"}
    assert all(float(cells[0]) < 1e-9 for cells in differences.values())
    assert {path.name for path in (tmp_path / "plain").iterdir()} == {p.name for p in (tmp_path / "checked").iterdir()}
    for name in ("results.csv", "tables.md", "scores.csv", "k_shot.csv"):
        assert (tmp_path / "plain" / name).read_bytes() == (tmp_path / "checked" / name).read_bytes()


def test_wrong_figure_ends_with_status_1(
    evaluate: Evaluate,
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def wrong(labels: npt.ArrayLike, scores: npt.ArrayLike) -> Figures:
        figures, missing = image_metrics(labels, scores)
        return {**figures, "ap_sp": figures["ap_sp"] + 2e-6}, missing

    monkeypatch.setattr(evaluation.measuring, "image_metrics", wrong)
    assert evaluate(data, tmp_path / "out", "--check_metrics") == 1
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("| ap_sp"))
    assert [cell.strip() for cell in line.strip("|").split("|")] == ["ap_sp", "2.0e-06", "1e-06", "bolt, 0-shot"]


def test_figure_that_is_missing_or_not_a_number_does_not_pass() -> None:
    items = [Item(f"{label}.png", "", "bolt", "", label) for label in (0, 1)]
    setting = Setting(0, None)
    scored = ClassScores(items, [None, None], {setting: np.array([0.1, 0.2])}, {})
    figures = image_metrics(scored.labels, scored.scores[setting])[0]
    less = {name: value for name, value in figures.items() if name != "ap_sp"}
    for known, passed in ((figures, True), (less, False), ({**figures, "ap_sp": float("nan")}, False)):
        check = MetricCheck("steps")
        check.add(scored, ClassMetrics(setting, lambda images: np.empty(0, np.float32), "no masks", known, {}))
        assert check.passed is passed


def test_what_is_undefined_both_ways_passes(
    evaluate: Evaluate, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    meta = json.loads((data / "meta.json").read_text())
    for name in meta["test"]:
        for item in meta["test"][name]:
            item["mask_path"] = ""
    (data / "meta.json").write_text(json.dumps(meta))
    assert evaluate(data, tmp_path / "out", "--check_metrics") == 0
    out = capsys.readouterr().out
    (line,) = (line for line in out.splitlines() if line.startswith("| aupro "))
    assert [cell.strip() for cell in line.strip("|").split("|")] == ["aupro", "-", "1e-04", "-"]
