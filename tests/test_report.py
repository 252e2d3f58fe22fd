"""The report of a run: curves, order, escaping, size; the browser's side is in test_report_browser.py."""

from __future__ import annotations

import base64
import html
import io
import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from sklearn.metrics import auc, f1_score, precision_recall_curve, roc_curve

import evaluation.report
from evaluation.report import judge
from tests.conftest import ROOT, Predict
from winclip.metrics.exact import image_counts, image_metrics, label_defects, pixel_metrics
from winclip.metrics.formulas import METRICS, PRO_LIMIT, REGISTRY
from winclip.pictures.drawing import data_url
from winclip.report.content import Card, Growth, Report, Result, SettingPage, Table, Wording
from winclip.report.curves import POINTS, best_f1_threshold, measure_class
from winclip.report.page import LARGEST, LARGEST_HEAT, heat_picture, outline, render, thumbnail, write_report
from winclip.report.plots import growth_plot, score_histogram

Evaluate = Callable[..., int]


def embedded(page: str) -> dict[str, Any]:
    """The data that the page's script reads."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    data: dict[str, Any] = json.loads(found[1])
    return data


def pixels(uri: str) -> npt.NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.split(",", 1)[1]))).convert("RGB"))


WORDS = Wording("good", "defective", "Curves", "Right or wrong", "worst first", "Per cent.")
IMAGE = Image.new("RGB", (20, 20), (90, 120, 150))


def card(name: str = "a.png", label: int | None = 1, score: float = 0.5, outcome: str = "right") -> Card:
    result = Result(score, 0.4, outcome, (-score,), IMAGE)
    return Card(name, IMAGE, "nut", "bent" if label else "", label, None, [result])


def scores_with_ties(count: int = 60) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    generator = np.random.RandomState(1)
    labels = generator.randint(0, 2, count)
    return labels, (generator.randint(0, 12, count) + 3 * labels) / 16


def test_curves_are_those_of_scikit_learn() -> None:
    labels, scores = scores_with_ties()
    curves = measure_class("nut", labels, scores, "no masks", {}).curves
    x, y, _ = roc_curve(labels, scores, drop_intermediate=False)
    roc = curves["roc_image"]
    assert {(round(a, 9), round(b, 9)) for a, b in zip(x, y)} <= {
        (round(a, 9), round(b, 9)) for a, b in zip(roc.x, roc.y)
    } | {(round(a, 9), round(float(np.interp(a, roc.x, roc.y)), 9)) for a in x}
    figures = image_metrics(labels, scores)[0]
    assert auc(roc.x, roc.y) == pytest.approx(figures["auroc_sp"], abs=1e-12)
    precision, recall, _ = precision_recall_curve(labels, scores)
    mine = curves["pr_image"]
    known = {(round(float(r), 9), round(float(p), 9)) for r, p in zip(recall, precision)}
    assert {(round(r, 9), round(p, 9)) for r, p in zip(mine.x[1:], mine.y[1:])} <= known
    assert (np.diff(mine.x) * mine.y[1:]).sum() == pytest.approx(figures["ap_sp"], abs=1e-12)


def test_pixel_curves_are_thinned_without_moving() -> None:
    generator = np.random.RandomState(2)
    masks = np.zeros((3, 40, 40), bool)
    masks[0, 3:9, 4:20] = masks[1, 20:22, 1:30] = masks[1, 30:38, 30:38] = True
    maps = (generator.rand(3, 40, 40) + 0.6 * masks).astype(np.float32)
    defects = label_defects(masks)
    curves = measure_class("nut", [1, 1, 0], [0.7, 0.8, 0.1], (defects, maps), {}).curves
    assert all(len(curve.x) == len(curve.y) <= POINTS for curve in curves.values())
    assert all(curve.x[-1] == 1 for curve in curves.values())
    figures = pixel_metrics(defects, maps, "exact")[0]
    assert auc(curves["roc_pixel"].x, curves["roc_pixel"].y) == pytest.approx(figures["auroc_px"], abs=2e-3)
    rates = np.linspace(0, PRO_LIMIT, 3000)
    pro = np.interp(rates, curves["pro_pixel"].x, curves["pro_pixel"].y)
    assert auc(rates, pro) / PRO_LIMIT == pytest.approx(figures["aupro"], abs=5e-3)


def threshold(labels: npt.ArrayLike, scores: npt.ArrayLike) -> float:
    return best_f1_threshold(np.unique(scores), image_counts(labels, scores))


def test_threshold_has_the_best_f1() -> None:
    labels, scores = scores_with_ties()
    best = max(f1_score(labels, scores >= one) for one in scores)
    assert f1_score(labels, scores > threshold(labels, scores)) == pytest.approx(best, abs=1e-12)


def test_threshold_is_below_the_best_score_whatever_is_next() -> None:
    assert threshold([0, 1, 1], [0.1, 0.3, 0.5]) == pytest.approx(0.2)
    # Nothing is lower.
    assert threshold([0, 1], [0.5, 0.5]) == np.nextafter(0.5, 0)
    # The next lower score is the next number.
    below = np.nextafter(0.5, 0)
    assert below <= threshold([0, 1], [below, 0.5]) < 0.5


def test_worst_mistakes_come_first() -> None:
    labels = [0, 0, 1, 1, 0, 1, 0]
    scores = [0.9, 0.1, 0.2, 0.95, 0.55, 0.51, 0.5]
    results = [judge(label, score, 0.5, IMAGE) for label, score in zip(labels, scores)]
    assert [result.outcome for result in results] == [
        "false alarm", "right", "missed defect", "right", "false alarm", "right", "right",
    ]  # fmt: skip
    assert sorted(range(7), key=lambda number: results[number].rank) == [0, 2, 4, 6, 5, 1, 3]
    undecided = ((0.1, None), (float("nan"), 0.5), (0.3, None))
    without = [judge(1, score, threshold, IMAGE) for score, threshold in undecided]
    assert sorted(range(3), key=lambda number: without[number].rank) == [2, 0, 1]
    assert [result.outcome for result in without] == ["no threshold", "no score", "no threshold"]
    # A score at the threshold is not above it.
    assert judge(1, 0.5, 0.5, IMAGE).outcome == "missed defect"


def test_names_are_escaped_everywhere() -> None:
    bad = '<img src=x onerror="alert(1)">.png</script><script>alert(2)</script>{{ 7 * 7 }}'
    words = Wording(bad, bad, bad, bad, bad, bad)
    one = Card(bad, IMAGE, bad, bad, 1, np.ones((7, 9), bool), [Result(0.5, 0.4, bad, (0,), IMAGE)])
    curves = measure_class(bad, [0, 1], [0.1, 0.5], bad, {})
    table = Table(bad, [bad, "f1"], [[bad, bad]], [bad, bad], [bad])
    page = render(Report(bad, [SettingPage(bad, [curves])], words, [one], [(bad, bad)], [table], [bad]))
    data = embedded(page)
    assert data["cards"][0]["name"] == data["cards"][0]["class"] == data["cards"][0]["type"] == bad
    assert "<img" not in page and "<script>alert" not in page and "49" not in html.unescape(page).split("{{ 7")[0][-4:]
    assert page.count("<script") == 2 and page.count("</script") == 2
    assert html.escape(bad, quote=False).replace('"', "&#34;") in page


def test_page_points_nowhere_and_is_the_same_again(tmp_path: Path) -> None:
    labels, scores = scores_with_ties()
    setting = SettingPage("0-shot", [measure_class("nut", labels, scores, "no masks", {"auroc_sp": "50.0"})])
    report = Report("nut", [setting], WORDS, [card()])
    write_report(tmp_path / "new" / "report.html", report)
    page = (tmp_path / "new" / "report.html").read_text()
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["report.html"] and page == render(report)
    assert all(link.startswith(("#", "data:")) for link in re.findall(r'(?:src|href)="([^"]*)"', page))
    assert "@import" not in page and not re.findall(r"url\((?!#)", page) and "default-src 'none'" in page


def test_growth_has_a_line_for_what_is_known_and_a_band_over_seeds() -> None:
    figures = {metric: [(50.0, 0.0), (60.0, 2.0), None] for metric in ("auroc_sp", "f1_sp", "ap_sp", "auroc_px")}
    growth = Growth("<nut>", (0, 1, 4), {**dict.fromkeys(METRICS, [None] * 3), **figures})
    page = render(Report("nut", [SettingPage("0-shot")], WORDS, [card()], growth=[growth]))
    assert "&lt;nut&gt;" in page and "<nut>" not in page
    assert page.count(" image 50.0 to 60.0") == 3 and page.count(" pixel 50.0 to 60.0") == 1
    assert page.count("<svg") == 3 and "AUPRO" not in page
    both, image = growth_plot(growth, ("auroc_sp", "auroc_px")), growth_plot(growth, ("f1_sp",))
    assert "var(--pixel)" in both and "var(--pixel)" not in image and "var(--ink)" in image and "fill-opacity" in image
    assert growth_plot(growth, ("aupro",)) == ""


def test_thumbnails_keep_the_aspect_and_stay_small() -> None:
    noise = np.random.RandomState(0).randint(0, 256, (320, 320, 3), dtype=np.uint8)
    assert pixels(thumbnail(Image.new("RGB", (1000, 500)))).shape == (160, 320, 3)
    assert pixels(thumbnail(Image.new("RGB", (30, 50)))).shape == (50, 30, 3)
    assert pixels(thumbnail(Image.new("RGB", (5000, 2)))).shape == (1, 320, 3)
    # Even if nothing can be compressed, the page keeps its size limit.
    heat = heat_picture(np.random.RandomState(0).rand(15, 15), (320, 320))
    assert len(thumbnail(Image.fromarray(noise))) <= LARGEST and len(thumbnail(heat)) <= LARGEST_HEAT
    assert len(outline(noise[:, :, 0] > 200)) < 100 < len(outline(noise[:20, :20, 0] > 200))


def test_heat_maps_share_one_scale() -> None:
    calm, hot = np.full((15, 15), 0.3), np.full((15, 15), 0.3)
    hot[10:, 10:] = 1
    first, second = (pixels(data_url(heat_picture(heat, (300, 200)))) for heat in (calm, hot))
    assert first.shape == (107, 160, 3)
    assert np.abs(first[:60, :90].astype(int) - second[:60, :90]).max() <= 6
    above = np.where(hot == 1, 7.0, np.nan_to_num(hot))
    clipped = pixels(data_url(heat_picture(above, (300, 200))))
    assert np.abs(clipped[-20:, -20:].astype(int) - second[-20:, -20:]).max() <= 6


def test_outline_encloses_the_mask() -> None:
    mask = np.zeros((40, 80), bool)
    assert outline(mask) == ""
    mask[10:20, 40:60] = True
    mask[39, 79] = True
    square, pixel = sorted(outline(mask).removeprefix("M").split("M"), key=len, reverse=True)
    corners = np.array([[float(v) for v in pair.split(",")] for pair in square.rstrip("Z").split()])
    np.testing.assert_allclose(corners.min(axis=0), [50, 25], atol=0.7)
    np.testing.assert_allclose(corners.max(axis=0), [75, 50], atol=0.7)
    assert pixel.startswith("99.")


def test_report_of_a_run(evaluate: Evaluate, data: Path, tmp_path: Path) -> None:
    save = tmp_path / "out"
    assert evaluate(data, save, "--k_shot", "2", "0", "--seed", "3", "4", "--report") == 0
    page = (save / "report.html").read_text()
    content = embedded(page)
    assert [setting["name"] for setting in content["settings"]] == ["0-shot", "2-shot, seed 3"]
    assert "Curves and pictures are those of the first seed" in page
    # Curves of two classes in two settings, and the growth of both and of their mean.
    assert page.count("<svg") == 2 * 2 * 4 + 3 * len({metric.title for metric in REGISTRY})
    assert [card["name"] for card in content["cards"]] == [
        f"{name}/test/{kind}/{i}.png" for name in ("bolt", "felt") for kind in ("good", "scratch") for i in range(3)
    ]
    assert [bool(card["outline"]) for card in content["cards"]] == [False] * 3 + [True] * 3 + [False] * 3 + [True] * 3
    scores = [line.split(",") for line in (save / "scores.csv").read_text().splitlines()]
    wanted = [f"{float(row[-1]):.4f}" for row in scores if row[:2] == ["2", "3"]]
    assert [result["score"] for result in content["settings"][1]["results"]] == wanted
    lines = [line.split(",") for line in (save / "results.csv").read_text().splitlines()]
    results = {(k, seed, name): line for line in lines for _, k, seed, name in [line[:4]]}
    for name in ("mean", "bolt", "felt"):
        ends = [f"{float(results[k, seed, name][8]):.1f}" for k, seed in (("0", ""), ("2", "mean"))]
        assert f" image {' to '.join(ends)}," in page
    types = [line.split(",") for line in (save / "types.csv").read_text().splitlines()[1:]]
    shown = {(k, name): f"{float(auroc):.1f}" for _, k, seed, name, _, auroc, *_ in types if seed in ("", "mean")}
    rows = re.findall(r'<th scope="row">(\w+) · scratch</th><td>3</td>((?:<td.*?</td>)+)', page)
    assert {name: re.findall(r">([^<]+)<", cells)[0] for name, cells in rows} == {
        name: shown["0", name] for name in ("bolt", "felt")
    }
    hardest = sorted(("bolt", "felt"), key=lambda name: float(shown["2", name]))
    assert [name for name, _ in rows] == hardest or shown["2", "bolt"] == shown["2", "felt"]
    assert re.search(r'<tfoot><tr><th scope="row">mean<.*</tr><tr><th scope="row">chance</th><td>50.0</td>', page)
    assert all(html.escape(f"{metric.name}: {metric.meaning}") in page for metric in REGISTRY)
    for row in (save / "tables.md").read_text().splitlines():
        assert all(cell.strip() in page for cell in row.strip("|# ").split("|") if not set(cell) <= set(" :-"))
    assert evaluate(data, save) == 0
    assert not (save / "report.html").exists()


def test_report_of_many_images_shows_the_worst_of_each_class(
    evaluate: Evaluate, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert evaluate(data, tmp_path / "whole", "--k_shot", "0", "1", "--report") == 0
    monkeypatch.setattr(evaluation.report, "PAGE_BYTES", 5 * 100_000)
    assert evaluate(data, tmp_path / "part", "--k_shot", "0", "1", "--report") == 0
    whole, part = (embedded((tmp_path / name / "report.html").read_text()) for name in ("whole", "part"))
    assert "4 of 12 pictures are shown" in (tmp_path / "part" / "report.html").read_text()
    assert "pictures are shown" not in (tmp_path / "whole" / "report.html").read_text()
    in_order = [whole["cards"][number] for number in whole["settings"][-1]["order"]]
    worst = [[card for card in in_order if card["class"] == name][:2] for name in ("bolt", "felt")]
    assert sorted(card["name"] for card in part["cards"]) == sorted(card["name"] for cards in worst for card in cards)
    assert len(part["settings"][0]["results"]) == len(part["settings"][1]["results"]) == 4


def test_histogram_of_scores_that_float_cannot_part() -> None:
    for scores in ([0.5, float(np.nextafter(0.5, 1))], [0.0, 5e-324]):
        assert "<svg" in score_histogram(measure_class("nut", [0, 1], scores, "no masks", {}))


def test_references_have_a_line_in_the_histogram() -> None:
    said = "references, each against the others"
    measured = measure_class("nut", [0, 1], [0.1, 0.5], "no masks", {})
    known = replace(measured, score_name="text part of the score", references=np.array([0.9, 0.95]))
    drawn, with_references = score_histogram(measured), score_histogram(known)
    assert with_references.count("var(--ink)") > drawn.count("var(--ink)")
    assert "image score" in drawn and "text part of the score" in with_references
    # The scale includes them.
    ticks = [max(map(float, re.findall(r">(0\.\d+)<", svg))) for svg in (drawn, with_references)]
    assert ticks[0] <= 0.5 < ticks[1]
    for one, count in ((measured, 0), (known, 1)):
        page = render(Report("nut", [SettingPage("nut", [one])], WORDS, [card()]))
        assert page.count(said) == count


@pytest.mark.parametrize(
    ("references", "threshold"),
    [([], None), (["good"], None), ([], "0.4"), ([], "text=0.4"), (["good"], "text=0.4")],
)
def test_report_of_predictions_with_and_without_verdicts(
    run: Predict, pictures: Path, references: list[str], threshold: str | None
) -> None:
    save = pictures / "out"
    more = [word for name in references for word in ("--reference", pictures / name)]
    more += [] if threshold is None else ["--threshold", threshold]
    assert run(pictures / "images", "--save_path", save, "--report", *more) == 0
    page, listed = (save / "report.html").read_text(), json.loads((save / "predictions.json").read_text())
    outcomes = [result["outcome"] for result in embedded(page)["settings"][0]["results"]]
    listed.sort(key=lambda row: -row["score"])
    words = {None: "not judged", False: "not anomalous", True: "anomalous"}
    assert outcomes == [words[row["anomalous"]] for row in listed]
    # Without references the text score is the score.
    assert references or {row["threshold"] for row in listed} == {0.4 if threshold else None}
    judged = bool(references or threshold)
    assert ("not judged" in outcomes) != judged
    assert ("<td>not judged</td>" in page) != judged and ("not anomalous" in page) == judged
    assert ("references, each against the others" in page) == bool(references)
    # The histogram shows the scores that decide.
    shown = ">score<" if threshold == "0.4" else f">{'reference' if references and not threshold else 'text'} part of"
    assert shown in page
    low, high = json.loads((save / "run.json").read_text())["colours"]
    assert f"heat map {low:.3g}<" in page and f">{high:.3g}\n" in page
    # The strip below a heat map is left out.
    for one, result in zip(embedded(page)["cards"], embedded(page)["settings"][0]["results"]):
        picture, heat = pixels(one["photo"]), pixels(result["heat"])
        assert heat.shape[0] / heat.shape[1] == pytest.approx(picture.shape[0] / picture.shape[1], abs=0.01)


def test_run_without_masks_or_with_one_label_says_so(evaluate: Evaluate, data: Path, tmp_path: Path) -> None:
    meta = json.loads((data / "meta.json").read_text())
    for item in meta["test"]["bolt"]:
        item["mask_path"] = ""
    meta["test"]["felt"] = [item for item in meta["test"]["felt"] if not item["anomaly"]]
    (data / "meta.json").write_text(json.dumps(meta))
    assert evaluate(data, tmp_path / "out", "--report") == 0
    page = (tmp_path / "out" / "report.html").read_text()
    assert "3 of 6 test images are anomalous and have no mask" in page
    assert "image scores: needs normal and defective entries, has 3 and 0" in page
    content = embedded(page)
    assert not any(card["outline"] for card in content["cards"])
    outcomes = [result["outcome"] for result in content["settings"][0]["results"]]
    assert "no threshold" not in outcomes[:6] and outcomes[6:] == ["no threshold"] * 3


def test_runs_without_report_import_nothing_of_it() -> None:
    heavy = {"winclip.report.page", "jinja2", "matplotlib"}
    code = f"import sys, evaluation.run, winclip.prediction.run; sys.exit(', '.join({heavy} & set(sys.modules)) or 0)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
