"""types.csv: every type of defect against the good images of its class, beside scikit-learn and scikit-image."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from datasets.index import load_index
from datasets.samples import read_mask, resize_mask
from evaluation.check_metrics import textbook_image_metrics, textbook_pixel_metrics

Evaluate = Callable[..., int]


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def change(data: Path, name: str, **changes: dict[int, str]) -> None:
    """Change fields of the defective test images of a class, by number."""
    meta = json.loads((data / "meta.json").read_text())
    defective = [item for item in meta["test"][name] if item["anomaly"]]
    for key, values in changes.items():
        for number, value in values.items():
            defective[number][key] = value
    (data / "meta.json").write_text(json.dumps(meta))


@pytest.fixture
def typed(data: Path) -> Path:
    """``bolt`` with two types, one of a single image; ``felt`` with one."""
    change(data, "bolt", specie_name={1: "=dent"})
    return data


def test_figures_are_those_of_scikit_learn(evaluate: Evaluate, typed: Path, tmp_path: Path) -> None:
    save = tmp_path / "out"
    options = ("--k_shot", "0", "1", "--seed", "3", "4", "--save_maps")
    assert evaluate(typed, save, *options) == 0
    found = {(r["k_shot"], r["seed"], r["objects"], r["specie_name"]): r for r in rows(save / "types.csv")}
    kinds = [("bolt", "scratch", "2"), ("bolt", "'=dent", "1"), ("felt", "scratch", "3")]
    settings = [("0", ""), ("1", "3"), ("1", "4"), ("1", "mean"), ("1", "std")]
    assert list(found) == [(*setting, name, kind) for setting in settings for name, kind, _ in kinds]
    assert {(r["objects"], r["specie_name"], r["images"], r["good_images"]) for r in found.values()} == {
        (*kind, "3") for kind in kinds
    }
    test, scores = load_index(typed).test, rows(save / "scores.csv")
    for (k, seed, name, kind), row in list(found.items())[: 3 * len(kinds)]:
        chosen = [not item.anomaly or item.specie_name == kind.removeprefix("'") for item in test[name]]
        items = [item for item, one in zip(test[name], chosen) if one]
        known = {r["img_path"]: float(r["score"]) for r in scores if (r["k_shot"], r["seed"]) == (k, seed)}
        auroc = textbook_image_metrics([item.anomaly for item in items], [known[item.img_path] for item in items])
        assert float(row["auroc_sp"]) == pytest.approx(100 * auroc["auroc_sp"], abs=1e-4)
        masks = np.zeros((len(items), 96, 96), bool)
        for mask, item in zip(masks, items):
            if item.anomaly:
                mask[:] = resize_mask(read_mask(typed / item.mask_path), 96)
        with np.load(save / "maps" / (f"{k}shot" + (f"-seed{seed}" if seed else "")) / f"{name}.npz") as file:
            maps = file["maps"][chosen]
        assert float(row["aupro"]) == pytest.approx(100 * textbook_pixel_metrics(masks, maps)["aupro"], abs=1e-4)
    for name, kind, _ in kinds:
        seeds = [float(found["1", seed, name, kind]["aupro"]) for seed in ("3", "4")]
        assert float(found["1", "mean", name, kind]["aupro"]) == pytest.approx(np.mean(seeds), abs=1e-5)
        assert float(found["1", "std", name, kind]["aupro"]) == pytest.approx(np.std(seeds), abs=1e-5)
    # The only type of a class has its figures.
    whole = {(r["k_shot"], r["seed"], r["objects"]): r for r in rows(save / "results.csv")}
    for k, seed in settings:
        for metric in ("auroc_sp", "aupro"):
            assert found[k, seed, "felt", "scratch"][metric] == whole[k, seed, "felt"][metric]
    # The figures from histograms are close.
    assert evaluate(typed, tmp_path / "binned", "--metrics", "histogram", "--aupro", "exact") == 0
    assert evaluate(typed, tmp_path / "exact", "--aupro", "exact") == 0
    for one, other in zip(*(rows(tmp_path / name / "types.csv") for name in ("binned", "exact"))):
        assert float(one["aupro"]) == pytest.approx(float(other["aupro"]), abs=1e-2)


@pytest.mark.parametrize("metrics", ["exact", "histogram"])
def test_undefined_figures_are_empty(metrics: str, evaluate: Evaluate, typed: Path, tmp_path: Path) -> None:
    change(typed, "bolt", mask_path={0: ""})
    meta = json.loads((typed / "meta.json").read_text())
    meta["test"]["felt"] = [item for item in meta["test"]["felt"] if item["anomaly"]]
    (typed / "meta.json").write_text(json.dumps(meta))
    assert evaluate(typed, tmp_path / "out", "--metrics", metrics) == 0
    found = {(row["objects"], row["specie_name"]): row for row in rows(tmp_path / "out" / "types.csv")}
    assert [found["bolt", kind]["aupro"] for kind in ("scratch", "'=dent")] == ["", ""]
    assert all(found["bolt", kind]["auroc_sp"] for kind in ("scratch", "'=dent"))
    # Without good images, the normal pixels come from defective ones.
    felt = found["felt", "scratch"]
    assert (felt["auroc_sp"], felt["images"], felt["good_images"]) == ("", "3", "0") and float(felt["aupro"]) > 0


def test_a_class_of_good_images_has_no_types(evaluate: Evaluate, data: Path, tmp_path: Path) -> None:
    meta = json.loads((data / "meta.json").read_text())
    meta["test"]["felt"] = [item for item in meta["test"]["felt"] if not item["anomaly"]]
    (data / "meta.json").write_text(json.dumps(meta))
    assert evaluate(data, tmp_path / "out") == 0
    assert [row["objects"] for row in rows(tmp_path / "out" / "types.csv")] == ["bolt"]
