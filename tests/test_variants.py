"""The computations of public implementations, against their own numbers for the tiny model."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

from datasets.samples import Truth
from evaluation.views import encode_views, join_views, memory_banks
from tests.conftest import ROOT, Predict
from tests.tiny import GOLDEN, golden_images, tiny_backbone
from winclip import InputError, WinCLIP
from winclip.explanation import explain
from winclip.network.clip_backbone import ClipBackbone
from winclip.pictures.images import normalise, to_rgb
from winclip.pictures.preparing import prepare
from winclip.pictures.reading import Batch
from winclip.scoring import (
    GridScores,
    association_maps,
    compare,
    score_images,
    upsample,
    zero_shot,
)
from winclip.text import class_embeddings
from winclip.variants import NAMED, REFERENCE, parse_variant, steps
from winclip.windows import window_patches

LAFT = "reference,prepare=crop,patch_tokens=ln_post,join=mean"
SETTINGS = {"zero": [], "few1": [0], "few2": [0, 1]}


@pytest.fixture(scope="module")
def known() -> dict[str, npt.NDArray[Any]]:
    with np.load(GOLDEN / "variants" / "variants.npz") as file:
        return dict(file)


@pytest.fixture(scope="module")
def pictures() -> list[Image.Image]:
    """Three tests and two references."""
    return [to_rgb(image) for image in golden_images()]


def of_size(pictures: Sequence[Image.Image], size: tuple[int, int]) -> list[Image.Image]:
    return [picture.resize(size, Image.Resampling.BICUBIC) for picture in pictures]


def batch_of(pictures: Sequence[Image.Image], how: str) -> Batch[int, Truth]:
    straight = torch.from_numpy(np.stack([prepare(picture, 96).pixels[0] for picture in pictures]))
    truths = [Truth(None, (), {how: prepare(picture, 96, how)}) for picture in pictures]
    return Batch([*range(len(pictures))], straight, truths, [])


def scored(
    backbone: ClipBackbone, name: str, pictures: Sequence[Image.Image], size: int = 96
) -> dict[str, tuple[GridScores, list[torch.Tensor]]]:
    """By name of the references, results of the first three pictures and the association maps of each view."""
    variant = parse_variant(name)
    encoding, text = variant.encoding, class_embeddings(backbone, "metal_nut", variant.prompts)
    views = encode_views(backbone, batch_of(pictures[:3], variant.prepare), [encoding])[encoding]
    banks = memory_banks(backbone, [batch_of(pictures[3:], variant.prepare)], [encoding])[encoding]
    found = {}
    for setting, chosen in SETTINGS.items():
        parts, maps = [], []
        for (view, embeddings), bank in zip(views, banks):
            (result,) = score_images(embeddings, text, bank, [chosen], variant, size)
            parts.append((view.images, view.boxes, result))
            (compared,) = compare(embeddings, [text], bank, [variant])
            assert compared.associations is not None
            maps += [association_maps(compared.associations, chosen, variant)] if chosen else []
        found[setting] = join_views(parts), maps
    return found


def agree(known: dict[str, npt.NDArray[Any]], key: str, found: torch.Tensor, tolerance: float = 1e-5) -> None:
    worst = float(np.abs(found.numpy() - known[key]).max())
    print(f"{key}: {worst:.1e}")
    assert found.shape == known[key].shape and worst <= tolerance, key


@pytest.mark.parametrize(
    ("key", "name"),
    [("R", "reference"), ("A", "anomalib-trainer"), ("An", "anomalib"), ("C", "caoyunkang"), ("L", LAFT)],
)
def test_scores_and_maps(
    backbone: ClipBackbone, known: dict[str, npt.NDArray[Any]], pictures: list[Image.Image], key: str, name: str
) -> None:
    for setting, (result, _) in scored(backbone, name, pictures).items():
        agree(known, f"{key}_{setting}_scores", result.scores)
        if key != "L":  # of its crops, and ours lie in the pictures
            agree(known, f"{key}_{setting}_maps", upsample(result.maps, 96))
    if key == "C":
        encoding, variant = parse_variant(name).encoding, parse_variant(name)
        ((_, embeddings),) = encode_views(backbone, batch_of(pictures[:3], "via1024"), [encoding])[encoding]
        text = class_embeddings(backbone, "metal_nut", variant.prompts)
        (large,) = score_images(embeddings, text, None, [[]], variant, 400)
        agree(known, "C_zero_scores_400", large.scores)
        agree(known, "C_zero_maps_400", upsample(large.maps[:1], 400))


def test_laft_maps_are_those_of_the_crop(
    backbone: ClipBackbone, known: dict[str, npt.NDArray[Any]], pictures: list[Image.Image]
) -> None:
    squares = [Image.fromarray(prepare(picture, 96, "crop").pixels[0]) for picture in pictures]
    for setting, (result, _) in scored(backbone, LAFT, squares).items():
        agree(known, f"L_{setting}_maps", upsample(result.maps, 96))


def test_caoyunkang_in_half_precision(
    checkpoint: Path, known: dict[str, npt.NDArray[Any]], pictures: list[Image.Image]
) -> None:
    for setting, (result, _) in scored(
        tiny_backbone(checkpoint.parent, precision="fp16"), "caoyunkang", pictures
    ).items():
        agree(known, f"C16_{setting}_scores", result.scores, 5e-3)
        agree(known, f"C16_{setting}_maps", upsample(result.maps, 96), 5e-3)


@pytest.mark.parametrize(("key", "size"), [("M", (96, 96)), ("Mwide", (144, 96)), ("Mdup", (160, 96))])
def test_mala_and_its_tiles(
    backbone: ClipBackbone,
    known: dict[str, npt.NDArray[Any]],
    pictures: list[Image.Image],
    key: str,
    size: tuple[int, int],
) -> None:
    for setting, (result, maps) in scored(backbone, "mala", of_size(pictures, size)).items():
        if f"{key}_{setting}_scores" in known:
            agree(known, f"{key}_{setting}_scores", result.scores)
        if f"{key}_{setting}_maps" in known:
            agree(known, f"{key}_{setting}_maps", maps[0] if key == "M" else torch.stack(maps, dim=1))


def test_a_square_picture_scores_as_by_itself_among_tiled_ones(
    backbone: ClipBackbone, pictures: list[Image.Image]
) -> None:
    wide, square = of_size(pictures, (144, 96)), of_size(pictures, (96, 96))
    alone = scored(backbone, "mala", [square[0]] * 3 + wide[3:])["zero"][0]
    among = scored(backbone, "mala", [wide[0], square[0], *wide[1:2], *wide[3:]])["zero"][0]
    assert torch.equal(alone.text[1], among.text[1]) and torch.equal(alone.maps[1], among.maps[1])
    # Tiles cover all of a wide picture.
    assert float(among.maps[0].min()) > 0


def test_tall_pictures_have_no_tiles(
    backbone: ClipBackbone, known: dict[str, npt.NDArray[Any]], pictures: list[Image.Image]
) -> None:
    """What mala computes of them: squares of the width along x, black where the picture has ended."""
    variant = NAMED["mala"]
    text = class_embeddings(backbone, "metal_nut", variant.prompts)

    def score(picture: Image.Image) -> torch.Tensor:
        (width, height), tiles = picture.size, prepare(picture, 96).pixels
        if width < height:
            with pytest.raises(InputError, match=f"{width} x {height} is tall"):
                prepare(picture, 96, "tiles")
            starts = [min(x, height - width) for x in range(0, height, int(0.8 * width))]
            parts = [picture.crop((x, 0, x + width, width)) for x in starts]
            tiles = np.concatenate([prepare(part, 96).pixels for part in parts])
        elif width > height:
            tiles = prepare(picture, 96, "tiles").pixels
        return score_images(backbone.encode(torch.from_numpy(tiles)), text, variant=variant)[0].scores.mean()

    tall = of_size(pictures[:3], (96, 144))
    agree(known, "Mtall_zero_scores", torch.stack([*map(score, tall)]))
    agree(known, "Mnative_zero_scores", torch.stack([*map(score, pictures[:3])]))


def test_intermediate_numbers(
    backbone: ClipBackbone, known: dict[str, npt.NDArray[Any]], pictures: list[Image.Image]
) -> None:
    for key, name in zip("RACML", ("reference", "anomalib", "caoyunkang", "mala", LAFT)):
        agree(known, f"{key}_text", class_embeddings(backbone, "metal_nut", parse_variant(name).prompts))
    mean, std = backbone.mean, backbone.std
    for key, how in (("A", "float"), ("C", "via1024"), ("L", "crop")):
        pixels = torch.from_numpy(prepare(pictures[1], 96, how).pixels)
        agree(known, f"{key}_input", normalise(pixels.flip(-1) if key == "C" else pixels, mean, std))
    reference = torch.from_numpy(prepare(pictures[3], 96, "float").pixels)
    agree(known, "A_references", normalise(reference, (0.0,) * 3, (1.0,) * 3))
    agree(known, "C_references", normalise(torch.from_numpy(prepare(pictures[3], 96, "via1024").pixels), mean, std))
    for key, name in (("R", "reference"), ("A", "anomalib"), ("C", "caoyunkang")):
        variant = parse_variant(name)
        ((_, found),) = encode_views(backbone, batch_of(pictures[:3], variant.prepare), [variant.encoding])[
            variant.encoding
        ]
        unit = found.normalised()
        if key == "C":
            agree(known, "C_windows", torch.cat([unit.windows[1], unit.windows[0]], dim=1))
            (compared,) = compare(found, [class_embeddings(backbone, "metal_nut", variant.prompts)], None, [variant])
            agree(known, "C_text_map", zero_shot(compared).maps)
            continue
        agree(known, f"{key}_patch", found.patch, 1e-4 * float(np.abs(known[f"{key}_patch"]).max()))
        if key == "A":
            for part, name in ((found.cls, "cls"), (found.windows[0], "large"), (found.windows[1], "mid")):
                agree(known, f"A_{name}", part, 1e-4 * float(np.abs(known[f"A_{name}"]).max()))
    for few in (1, 2):
        _, (maps,) = scored(backbone, "caoyunkang", pictures)[f"few{few}"]
        agree(known, f"C_few{few}_visual_map", maps)


def test_attention_across_windows_is_the_fault_of_newer_open_clip(
    backbone: ClipBackbone, known: dict[str, npt.NDArray[Any]], pictures: list[Image.Image]
) -> None:
    """anomalib 2.7 with open_clip 3.3: tokens of one place attend to each other over all windows of an image."""
    variant, tower = NAMED["anomalib"], backbone.clip.visual
    views = [prepare(picture, 96, "float").pixels for picture in pictures[:3]]
    images = normalise(torch.from_numpy(np.concatenate(views)), backbone.mean, backbone.std)
    with torch.inference_mode():
        tokens, right = tower._tokens(images), backbone.encode(images)
        windows = []
        for side in (3, 2):
            patches = window_patches(6, side)
            sequences = torch.cat([patches.new_zeros(len(patches), 1), patches + 1], dim=1)
            x = tokens[:, sequences].transpose(1, 2).flatten(0, 1)
            for block in tower.blocks:
                x = block(x)
            windows.append(tower._project(x.unflatten(0, (3, -1))[:, 0]))
    text = class_embeddings(backbone, "metal_nut", variant.prompts)
    (wrong,) = score_images(type(right)(right.cls, tuple(windows), right.patch), text, variant=variant)
    agree(known, "Aoc33_zero_scores", wrong.scores)
    agree(known, "Aoc33_zero_maps", upsample(wrong.maps, 96))
    assert (
        float((upsample(score_images(right, text, variant=variant)[0].maps, 96) - upsample(wrong.maps, 96)).abs().max())
        > 0.02
    )


def test_every_golden_number_is_compared(known: dict[str, npt.NDArray[Any]]) -> None:
    text = Path(__file__).read_text()
    keys = {"R": 6, "A": 6, "An": 6, "C": 6, "C16": 6, "L": 6, "M": 5, "Mnative": 1, "Mwide": 5, "Mdup": 3}
    of_settings = {key for key in known if key.split("_")[0] in keys and key.split("_")[1] in SETTINGS}
    named = {f"C_{part}" for part in ("zero_maps_400", "zero_scores_400", "few1_visual_map", "few2_visual_map")}
    assert len(of_settings - named) == sum(keys.values())
    others = known.keys() - of_settings - named
    missing = [key for key in others if key not in text and key.split("_", 1)[1] not in text]
    assert not missing


@pytest.mark.parametrize(
    ("case", "name", "figure"),
    [
        *(("ties", "A_auroc_sp", "auroc_sp"), ("inverted", "A_auroc_sp", "auroc_sp")),
        *(("inverted", "A_auroc_px", "auroc_px"), ("inverted", "A_aupro", "aupro")),
        *(("plain", "A_f1_sp", "f1_sp"), ("strong", "A_f1_sp", "f1_sp"), ("ties", "C_aupro", "aupro")),
        *(("plain", "M_aupr_sp", "ap_sp"), ("inverted", "M_aupr_sp", "ap_sp")),
    ],
)
def test_the_page_has_the_figures_of_other_metrics(case: str, name: str, figure: str) -> None:
    page = (ROOT / "docs" / "variants.md").read_text(encoding="utf-8")
    known = json.loads((GOLDEN / "variants" / "metrics_variants.json").read_text())[case]
    ours, theirs = known["expected"][figure], known[name]
    assert any(f"{ours:.{digits}f} → {theirs:.{digits}f}" in page for digits in (3, 4))


def test_names() -> None:
    for variant in (*NAMED.values(), *(one for _, one in steps(REFERENCE, NAMED["caoyunkang"]))):
        assert parse_variant(variant.name) == variant
    assert parse_variant("caoyunkang,bgr_tests=no").name == "caoyunkang,bgr_tests=no"
    for text, message in (
        ("anomalibs", "near matches: anomalib"),
        ("paper,temprature=1", "near matches: temperature"),
        ("paper,join=average", "join takes sum or mean or product_over_sum, not 'average'"),
        ("paper,temperature=hot", "takes a number above 0, not 'hot'"),
    ):
        with pytest.raises(InputError, match=message):
            parse_variant(text)


def test_the_library_takes_a_variant(backbone: ClipBackbone, pictures: list[Image.Image], tmp_path: Path) -> None:
    with np.load(GOLDEN / "variants" / "variants.npz") as file:
        expected = file["An_few2_scores"]
    model = WinCLIP(backbone, variant=NAMED["anomalib"])
    model.set_class("metal_nut")
    model.add_references(pictures[3:])
    np.testing.assert_allclose(model.predict(pictures[:3]).scores, expected, atol=1e-5)
    model.save_memory(tmp_path / "nut.safetensors")
    model.load_memory(tmp_path / "nut.safetensors")
    other = WinCLIP(backbone)
    other.set_class("metal_nut")
    with pytest.raises(InputError, match="variant is 'anomalib', not 'reference'"):
        other.load_memory(tmp_path / "nut.safetensors")
    with pytest.raises(InputError, match="an explanation cannot follow patch_tokens=ln_post"):
        explain(model, pictures[0])
    with pytest.raises(InputError, match="no nearest patch"):
        explain(WinCLIP(backbone, variant=parse_variant("reference,patch_tokens=none")), pictures[0])
    with pytest.raises(InputError, match="reproduces; say caoyunkang,bgr_tests=no"):
        WinCLIP(backbone, variant=NAMED["caoyunkang"])
    tiled = WinCLIP(backbone, variant=NAMED["mala"])
    tiled.set_class("metal_nut")
    with pytest.raises(InputError, match="takes square images here"):
        tiled.predict(of_size(pictures, (144, 96)))
    assert len(tiled.predict(of_size(pictures, (50, 50)))) == 5


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_run_in_several_variants(evaluate: Callable[..., int], data: Path, tmp_path: Path) -> None:
    several, alone = tmp_path / "several", tmp_path / "alone"
    names = ("reference", "anomalib-trainer", "caoyunkang", "mala,prepare=crop")
    assert evaluate(data, several, "--k_shot", "0", "2", "--variant", *names, "--save_maps", "--report") == 0
    for name in names:
        assert evaluate(data, alone, "--k_shot", "0", "2", "--variant", name) == 0
        for file in ("results.csv", "scores.csv", "types.csv", "k_shot.csv"):
            # A single variant is named too, the reference is not.
            expected = [{"variant": "reference"} | row for row in rows_of(alone / file)]
            assert [row for row in rows_of(several / file) if row["variant"] == parse_variant(name).name] == expected
    assert (several / "maps" / "caoyunkang-2shot-seed10" / "bolt.npz").exists()
    tables = (several / "tables.md").read_text()
    assert "## small, reference, 0-shot" in tables and "## small, caoyunkang, 2-shot, seed 10" in tables
    # Nothing is scored again, and the reference's own files name no variant.
    assert evaluate(data, several, "--k_shot", "2", "--metrics", "histogram") == 0
    assert json.loads((several / "config.json").read_text())["scored"]["by_this_run"] == 0
    assert "variant" not in rows_of(several / "results.csv")[0]
    assert not [*(several / "maps").glob("*")]


def test_pictures_are_encoded_once(
    evaluate: Callable[..., int], data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, encode = [], ClipBackbone.encode

    def counted(self: ClipBackbone, images: torch.Tensor, **how: bool) -> Any:
        seen.append(len(images))
        return encode(self, images, **how)

    monkeypatch.setattr(ClipBackbone, "encode", counted)
    chain = "reference", "caoyunkang,prepare=straight,bgr_tests=no"
    assert evaluate(data, tmp_path / "chain", "--k_shot", "0", "1", "--variant_steps", *chain) == 0
    # Two classes of six test images and one reference.
    assert sum(seen) == 2 * (6 + 1)


def test_steps(evaluate: Callable[..., int], data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ends = "reference", "caoyunkang"
    assert evaluate(data, tmp_path / "steps", "--k_shot", "0", "1", "--variant_steps", *ends) == 0
    shown = capsys.readouterr().out
    assert shown.strip() == (tmp_path / "steps" / "steps.md").read_text().strip()
    rows = rows_of(tmp_path / "steps" / "steps.csv")
    assert [row["switch"] for row in rows[:3]] == ["reference", "templates=paper", "full_stop=no"] and len(rows) == 26
    assert evaluate(data, tmp_path / "ends", "--k_shot", "0", "1", "--variant", *ends) == 0
    means = [row for row in rows_of(tmp_path / "ends" / "results.csv") if row["objects"] == "mean"]
    for row in means:
        (step,) = (one for one in rows if (one["k_shot"], one["variant"]) == (row["k_shot"], row["variant"]))
        assert {metric: step[metric] for metric in ("auroc_px", "aupro", "f1_sp")} == {
            metric: row[metric] for metric in ("auroc_px", "aupro", "f1_sp")
        }
    # Switches of few-shot maps change no zero-shot figure, and joining both changes no order.
    for row in rows:
        if row["k_shot"] == "0" and row["switch"].split("=")[0] in ("patch_tokens", "window_mean", "bank_slip", "join"):
            assert float(row["auroc_px_difference"]) == float(row["auroc_sp_difference"]) == 0


def test_image_only_in_a_run(evaluate: Callable[..., int], data: Path, tmp_path: Path) -> None:
    for name, more in (("whole", []), ("alone", ["--image_only"])):
        assert evaluate(data, tmp_path / name, "--variant", "reference", "paper", *more) == 0
    whole, alone = (rows_of(tmp_path / name / "scores.csv") for name in ("whole", "alone"))
    assert whole == alone
    whole, alone = (rows_of(tmp_path / name / "results.csv") for name in ("whole", "alone"))
    assert [row["auroc_sp"] for row in whole] == [row["auroc_sp"] for row in alone]
    assert all(row["auroc_px"] == "" for row in alone)
    assert "| objects   | auroc_sp   | f1_sp   | ap_sp   |" in (tmp_path / "alone" / "tables.md").read_text()


def test_image_only_in_predict(run: Predict, pictures: Any, tmp_path: Path) -> None:
    good = tmp_path / "images"
    good.mkdir()
    for number, picture in enumerate(pictures):
        picture.save(good / f"{number}.png")
    for name, more in (("whole", []), ("alone", ["--image_only"])):
        assert run(good, "--save_path", tmp_path / name, *more) == 0
    whole, alone = (json.loads((tmp_path / name / "predictions.json").read_text()) for name in ("whole", "alone"))
    assert [row["score"] for row in whole] == [row["score"] for row in alone]
    assert {(row["area"], row["box"], row["heat_map"]) for row in alone} == {(None, None, "")}
    assert not (tmp_path / "alone" / "heatmaps").exists()
    assert run(good, "--save_path", tmp_path / "alone", "--image_only", "--resume") == 0
    assert run(good, "--save_path", tmp_path / "whole", "--image_only", "--resume") == 2
    assert run(good, "--variant", "anomalib", "--save_path", tmp_path / "anomalib") == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--variant", "anomalibs"], "near matches"),
        (["--variant", "paper", "paper,temperature=0.01"], "more than once"),
        (["--variant", "paper", "--temperature", "0.05"], "switches of variants"),
        (["--variant_steps", "paper", "paper"], "both are the same"),
        (["--image_only", "--k_shot", "1"], "references are compared by"),
        (["--image_only", "--save_maps"], "makes no maps"),
        (["--image_only", "--variant", "caoyunkang"], "highest value of the map"),
    ],
)
def test_bad_input(
    evaluate: Callable[..., int],
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    assert evaluate(data, tmp_path / "out", *arguments) == 2
    assert message in capsys.readouterr().err
