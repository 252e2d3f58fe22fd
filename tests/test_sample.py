"""The sample data set and the training of the demo backbone."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from scripts import evaluate_demo, training_images
from scripts import train_demo as training
from winclip import WinCLIP
from winclip.defaults import DEMO_MODEL
from winclip.demo import sample
from winclip.demo.stand_in import CAUTION, STAMP, caution_of_stand_in


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sample of few images a class, every defect of every class among them."""
    monkeypatch.setattr(sample, "TRAIN_GOOD", 1)
    monkeypatch.setattr(sample, "TEST_GOOD", 1)
    monkeypatch.setattr(sample, "TEST_DEFECTIVE", 4)


@pytest.fixture
def two_classes(small: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """One texture and one object of the sample."""
    monkeypatch.setattr(sample, "CLASSES", {name: sample.CLASSES[name] for name in ("cowhide", "gear")})


def _digests(root: Path) -> dict[str, str]:
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _pixels(path: Path) -> npt.NDArray[np.uint8]:
    return np.asarray(Image.open(path))


def test_only_pictures_of_the_sample_pass_without_a_caution(tmp_path: Path, logged: list[str]) -> None:
    inside, photographs = tmp_path / "sample/gear/test/crack", tmp_path / "photographs"
    for folder in (inside, photographs):
        folder.mkdir(parents=True)
    (tmp_path / "sample" / STAMP).write_text("{}")
    caution_of_stand_in("demo-vit-240", [inside, tmp_path / "sample"])
    caution_of_stand_in("ViT-B-16-plus-240", [inside, photographs])
    assert logged == []
    caution_of_stand_in("demo-vit-240", [inside, photographs])
    assert logged == [CAUTION]


def test_the_caution_stands_in_what_one_forwards_and_paths_come_last(
    evaluation_main: Callable[[list[str]], int], data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [tmp_path / "out" / name for name in ("tables.md", "report.html")]
    command = ["--data_path", str(data), "--save_path", str(tmp_path / "out"), "--model", DEMO_MODEL, "--report"]
    for times in (1, 0):
        assert evaluation_main([*command, "--classes", "felt", "--device", "cpu"]) == 0
        assert [path.read_text().count(CAUTION) for path in files] == [times] * 2
        assert capsys.readouterr().err.splitlines()[-2:] == [f"info: written: {path}" for path in files]
        (data / STAMP).write_text("{}")


@pytest.mark.usefixtures("two_classes")
def test_same_seed_same_bytes_and_another_seed_other_images(tmp_path: Path) -> None:
    for name, seed in (("first", 3), ("second", 3), ("third", 4)):
        sample.make_sample(tmp_path / name, seed)
    first, second, third = (_digests(tmp_path / name) for name in ("first", "second", "third"))
    assert first == second
    assert len(first) == 1 + 2 * (1 + 1 + 2 * 4) and first.keys() == third.keys()
    assert all(first[name] != third[name] for name in first)
    # A complete sample is kept, a damaged one replaced.
    (tmp_path / "first/meta.json").write_text("{}")
    sample.make_sample(tmp_path / "first", 3)
    assert (tmp_path / "first/meta.json").exists()
    next(tmp_path.glob("first/*/train/good/000.png")).unlink()
    sample.make_sample(tmp_path / "first", 3)
    assert _digests(tmp_path / "first") == second
    assert sorted(path.name for path in tmp_path.iterdir()) == ["first", "second", "third"]


@pytest.mark.usefixtures("small")
def test_masks_hold_exactly_the_changed_pixels(tmp_path: Path) -> None:
    sample.make_sample(tmp_path / "sample", 0)
    for class_name, (_, defects) in sample.CLASSES.items():
        for defect in defects:
            photo = _pixels(tmp_path / "sample" / class_name / "test" / defect / "000.png")
            mask = _pixels(tmp_path / "sample" / class_name / "ground_truth" / defect / "000_mask.png")
            clean, damaged = sample.draw_pair(class_name, 0, f"test/{defect}", 0, defect)
            assert photo.shape == (256, 256, 3)
            assert np.array_equal(photo, damaged)
            assert np.array_equal(mask == 255, (photo != clean).any(axis=2))
            assert set(np.unique(mask)) == {0, 255}
            assert 0.0005 < (mask > 0).mean() < 0.15


def test_a_folder_with_other_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match=r"--data_path"):
        sample.make_sample(tmp_path, 0)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_training_pairs_depend_on_the_seed_and_show_a_good_and_a_defective_image(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(training_images, "FIRST_SCENES", 2)
    first, again, other = (
        next(training_images.training_batches(seed, 96, 3, torch.Generator().manual_seed(0))) for seed in (1, 1, 2)
    )
    assert all(torch.equal(*parts) for parts in zip(first, again)) and not torch.equal(first[0], other[0])
    pixels, defective = first
    assert pixels.shape == (6, 3, 96, 96) and pixels.dtype == torch.uint8
    assert defective.flatten(1).any(dim=1).tolist() == [False, True] * 3


def test_textures_and_objects_fill_the_picture() -> None:
    scene, region, ground = training_images.objects(np.random.RandomState(1))
    assert region.shape == (256, 256) and 2000 < region.sum() < 256**2
    for image in (scene, ground, *(texture(np.random.RandomState(0)) for texture in training_images.TEXTURES)):
        assert image.dtype == np.float32 and image.shape == (256, 256, 3)
        assert image.min() >= 0 and image.max() <= 1


def test_windows_are_chosen_and_wanted_by_their_defective_share() -> None:
    defective = torch.zeros(1, 240, 240, dtype=torch.uint8)
    defective[0, 24:36, 24:36] = 255  # one whole patch: row 2, column 2
    patch, mid, large = (training.shares(defective, 12, side) for side in (1, 2, 3))
    assert patch.shape == (1, 400) and mid.shape == (1, 361) and large.shape == (1, 324)
    assert patch.nonzero().tolist() == [[0, 2 * 20 + 2]]
    assert mid.unique().tolist() == [0, 0.25] and int((mid > 0).sum()) == 4
    assert large.unique().tolist() == pytest.approx([0, 1 / 9]) and int((large > 0).sum()) == 9
    wanted = training.wanted(torch.tensor([0, 0.02, 0.25, 1])).tolist()
    assert wanted == pytest.approx([0.017, 0.5, 0.992, 0.9995], abs=1e-3)
    chosen = training.choose_windows(mid, 12, torch.Generator().manual_seed(0))
    assert chosen.shape == (1, 12) and len(set(chosen[0].tolist())) == 12
    assert int((mid.gather(1, chosen) > 0).sum()) == 4


@pytest.mark.slow
def test_a_backbone_is_judged_with_and_without_references(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    few = {"TEST_GOOD": 1, "TEST_DEFECTIVE": 2, "CLASSES": {"cowhide": ()}, "SEEDS": (5,)}
    for name, value in few.items():
        monkeypatch.setattr(evaluate_demo, name, value)
    evaluate_demo.main([])
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in capsys.readouterr().out.splitlines() if line]
    tables = {row[0]: dict(zip(row[1:], map(float, means[1:]))) for row, means in zip(rows[::4], rows[3::4])}
    assert list(tables) == ["0-shot", "4-shot"]
    model = WinCLIP.from_pretrained("demo-vit-240", device="cpu")
    model.set_class("cowhide")
    parts = [("test/good", None), *((f"test/{defect}", defect) for defect, _ in sample.numbered_defects("cowhide", 2))]
    good, *bad = model.predict([sample.draw_pair("cowhide", 5, part, 0, defect)[1] for part, defect in parts]).scores
    assert tables["0-shot"]["auroc_sp"] == 50 * sum(score > good for score in bad)


def test_names_of_the_sample_are_not_trained_on() -> None:
    words = set(training.words_for_names())
    assert len(words) > 10_000
    names = "gear button basket weave steel cowhide terrazzo herringbone key knit biscuit damaged flawless"
    assert not words & {*names.split()}


def test_training_writes_a_checkpoint_that_open_clip_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_images, "FIRST_SCENES", 4)
    config = {**training.CONFIG, "vision_cfg": {**training.CONFIG["vision_cfg"], "layers": 1}}
    few = {"PAIRS_FOR_WINDOWS": 2, "PAIRS_AS_WHOLE": 1, "SAVED_EVERY": 2, "START_BATCHES": 2}
    for name, value in {"TEXT_STEPS": 3, "TEXT_BATCH": 4, "CONFIG": config, **few}.items():
        monkeypatch.setattr(training, name, value)
    for run in ("one", "two"):
        training.train(training.parse_arguments(["--save_path", str(tmp_path / run), "--steps", "2"]))
    state = load_file(tmp_path / "one.safetensors")
    model = open_clip.CLIP(**json.loads((tmp_path / "one.json").read_text()))
    model.load_state_dict({name: tensor.float() for name, tensor in state.items()})
    again = load_file(tmp_path / "two.safetensors")
    assert all(bool(torch.isfinite(tensor).all()) for tensor in state.values())
    assert all(torch.equal(tensor, again[name]) for name, tensor in state.items())
    assert (tmp_path / "one.safetensors").stat().st_size < 10_000_000
