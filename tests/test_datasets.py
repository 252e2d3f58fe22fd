"""meta.json, reference draws, masks and batches, on data sets made for the test."""

from __future__ import annotations

import csv
import json
import os
import re
import stat
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import numpy.typing as npt
import pytest
from PIL import ExifTags, Image, ImageFilter
from torchvision import transforms  # type: ignore[import-untyped]

from datasets.__main__ import _files, main
from datasets.index import check_files, load_index, select_classes, write_index
from datasets.items import DatasetIndex, Item
from datasets.references import draw_references, read_reference_list
from datasets.registry import DATA_SETS, published_order, with_published_tables
from datasets.samples import EMPTY, TURNED, Truth, load_sample, read_graded, read_mask, resize_mask
from tests.conftest import ROOT
from winclip.pictures import images
from winclip.support.errors import InputError
from winclip.support.files import write_atomically


def entry(path: str, cls_name: str = "nut", anomaly: int = 0, **fields: object) -> dict[str, object]:
    specie_name = "crack" if anomaly else "good"
    item = {"img_path": path, "mask_path": "", "cls_name": cls_name, "specie_name": specie_name, "anomaly": anomaly}
    return {**item, **fields}


def write_meta(root: Path, content: object) -> Path:
    path = root / "meta.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def small_meta() -> dict[str, Any]:
    return {
        "train": {"nut": [entry("nut/a.png"), entry("nut/b.png")], "own class": [entry("own/a.png", "own class")]},
        "test": {
            "own class": [entry("own/t.png", "own class")],
            "nut": [entry("nut/t.png"), entry("nut/u.png", anomaly=1, mask_path="nut/u_mask.png")],
        },
    }


# --- writing files ---


def test_a_file_is_written_whole_or_stays_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "made" / "result.csv"
    for content, written in (("größe\n", "größe\n".encode()), (b"\x00\x01", b"\x00\x01")):
        write_atomically(path, content)
        assert path.read_bytes() == written
    (tmp_path / "plain").write_text("")
    assert stat.S_IMODE((tmp_path / "plain").stat().st_mode) == stat.S_IMODE(path.stat().st_mode)
    for place in (tmp_path / "plain" / "result.csv", path.parent):
        with pytest.raises(InputError, match=re.escape(str(place))):
            write_atomically(place, "")
    monkeypatch.setattr("os.fsync", Mock(side_effect=OSError(28, "No space left on device")))
    with pytest.raises(InputError, match=r"result\.csv \(No space left on device\)"):
        write_atomically(path, "new")
    assert path.read_bytes() == b"\x00\x01"
    assert sorted(file.name for file in tmp_path.rglob("*")) == ["made", "plain", "result.csv"]


# --- meta.json ---


def test_index_keeps_the_order_of_the_file_and_is_written_sorted(tmp_path: Path) -> None:
    content = small_meta()
    content["test"]["nut"].reverse()
    content["test"]["nut"][0]["img_path"] = "nut/..u..png"  # dots inside a name do not lead out
    del content["train"]["own class"]
    write_meta(tmp_path, "\ufeff" + json.dumps(content))
    index = load_index(tmp_path)
    assert index.root == tmp_path
    assert list(index.test) == ["own class", "nut"]
    assert index.test["nut"][0] == Item("nut/..u..png", "nut/u_mask.png", "nut", "crack", 1)
    assert [item.img_path for item in index.train["nut"]] == ["nut/a.png", "nut/b.png"]
    assert index.train["own class"] == []
    path = write_index(index)
    written = path.read_bytes()
    assert list(json.loads(written)) == ["train", "test"]
    assert list(json.loads(written)["test"]) == ["nut", "own class"]
    assert [item.img_path for item in load_index(tmp_path).test["nut"]] == ["nut/..u..png", "nut/t.png"]
    assert write_index(load_index(tmp_path)).read_bytes() == written


def test_paths_of_another_system(tmp_path: Path) -> None:
    write_meta(tmp_path, json.dumps(small_meta()).replace("/", "\\\\"))
    index = load_index(tmp_path)
    write_meta(tmp_path, small_meta())
    assert index == load_index(tmp_path)


def test_missing_data_set_or_meta_json_is_explained(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere"):
        load_index(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"meta\.json does not exist; .*mvtec\.py.*visa\.py.*python -m datasets"):
        load_index(tmp_path)


@pytest.mark.parametrize("content", [b"", b"no json", b"[" * 100_000, '{"train": "größe"}'.encode("latin-1")])
def test_meta_json_that_is_no_json(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "meta.json").write_bytes(content)
    with pytest.raises(InputError, match=r"meta\.json is not (JSON|UTF-8 text)"):
        load_index(tmp_path)


# Content, and the place that the error names.
WRONG_SHAPES: list[tuple[object, str]] = [
    ([], "expected {"),
    ({"train": {}}, "test: "),
    ({"train": [], "test": {}}, "train: "),
    ({"train": {}, "test": {}}, "test lists no class"),
    ({"train": {}, "test": {"nut": []}}, "test, class 'nut': "),
    ({"train": {}, "test": {"nut": {}}}, "test, class 'nut': "),
    ({"train": {}, "test": {"nut": ["a.png"]}}, "test, class nut, entry 0: "),
    ({"train": {}, "test": {"../nut": []}}, "test, class '../nut': "),
    ({"train": {}, "test": {"": []}}, "test, class '': "),
    ({"train": {}, "test": {"a\nb": []}}, r"test, class 'a\nb': "),
    ({"train": {}, "test": {"\ud800": []}}, r"test, class '\ud800': "),
    ({"train": {"nut": [entry("a.png", anomaly=1)]}, "test": {"nut": [entry("t.png")]}}, "train, class nut, entry 0: "),
    ({"train": {}, "test": {"nut": [entry("t.png"), entry("u.png"), entry("t.png")]}}, "test, class nut, entry 2: "),
]


@pytest.mark.parametrize(("content", "place"), WRONG_SHAPES)
def test_wrong_shape_is_named(content: object, place: str, tmp_path: Path) -> None:
    path = write_meta(tmp_path, content)
    with pytest.raises(InputError, match=re.escape(f"{path}: {place}")) as caught:
        load_index(tmp_path)
    assert "\n" not in str(caught.value)


WRONG_FIELDS: list[tuple[str, object]] = [
    ("img_path", None),
    ("img_path", ""),
    ("img_path", "/etc/passwd"),
    ("img_path", "a/../../b.png"),
    ("img_path", "..\\b.png"),
    ("img_path", "C:b.png"),
    ("img_path", "\\\\host\\share\\b.png"),
    ("mask_path", "../m.png"),
    ("specie_name", "\udc80"),
    ("cls_name", "bolt"),
    ("anomaly", 2),
    ("anomaly", True),
    ("anomaly", "1"),
]


@pytest.mark.parametrize(("field", "value"), WRONG_FIELDS)
def test_wrong_field_is_named(field: str, value: object, tmp_path: Path) -> None:
    content = small_meta()
    content["test"]["nut"][1][field] = value
    path = write_meta(tmp_path, content)
    with pytest.raises(InputError) as caught:
        load_index(tmp_path)
    assert str(caught.value).startswith(f"{path}: test, class nut, entry 1: {field}")
    assert repr(value) in str(caught.value)


def test_missing_field_is_named(tmp_path: Path) -> None:
    for field in ("img_path", "mask_path", "cls_name", "specie_name", "anomaly"):
        content = small_meta()
        del content["train"]["nut"][0][field]
        write_meta(tmp_path, content)
        with pytest.raises(InputError, match=rf"train, class nut, entry 0: {field} is missing"):
            load_index(tmp_path)


def test_select_classes(tmp_path: Path) -> None:
    write_meta(tmp_path, small_meta())
    index = load_index(tmp_path)
    assert select_classes(index, None) == ["own class", "nut"]
    assert select_classes(index, ["nut", "own class", "nut"]) == ["own class", "nut"]
    assert select_classes(index, ["nut"]) == ["nut"]
    for wrong, message in (
        (["nuts"], "nuts.*nut"),
        (["nut", "zipper"], "zipper.*own class, nut"),
        ([], "own class, nut"),
    ):
        with pytest.raises(InputError, match=message):
            select_classes(index, wrong)


def test_check_files_names_the_first_and_counts(tmp_path: Path) -> None:
    write_meta(tmp_path, small_meta())
    index = load_index(tmp_path)
    for path in ("nut/t.png", "nut/u.png", "nut/u_mask.png", "nut/a.png"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_bytes(b"")
    check_files(index, ["nut"])
    check_files(index, ["nut"], index.train["nut"][:1])
    with pytest.raises(InputError, match=r"image .*nut/b\.png does not exist \(1 of 5 files missing\)"):
        check_files(index, ["nut"], index.train["nut"])
    with pytest.raises(InputError, match=r"image .*own/t\.png does not exist \(2 of 5"):
        (tmp_path / "nut/u_mask.png").unlink()
        check_files(index, ["own class", "nut"], index.train["nut"][:1])
    with pytest.raises(InputError, match=r"mask .*nut/u_mask\.png does not exist \(1 of 3"):
        check_files(index, ["nut"])


# --- references ---


def train_items(count: int, cls_name: str = "nut") -> list[Item]:
    return [Item(f"{cls_name}/{number:03}.png", "", cls_name, "good", 0) for number in range(count)]


def test_draws_are_nested_without_replacement_and_depend_on_seed_and_class_alone() -> None:
    items = train_items(20)
    whole = draw_references(items, "nut", 20, seed=10)
    assert sorted(item.img_path for item in whole) == [item.img_path for item in items]
    for k in range(20):
        assert draw_references(items[::-1], "nut", k, seed=10) == whole[:k]
    assert draw_references(items, "nut", 8, seed=11) != whole[:8]
    assert draw_references(items, "bolt", 8, seed=10) != whole[:8]
    # The same on every machine and for any global state, which is not changed.
    np.random.seed(1)  # noqa: NPY002
    before = repr(np.random.get_state())  # noqa: NPY002
    drawn = draw_references(train_items(209, "bottle"), "bottle", 4, seed=10)
    assert [item.img_path for item in drawn] == ["bottle/124.png", "bottle/013.png", "bottle/146.png", "bottle/121.png"]
    assert repr(np.random.get_state()) == before  # noqa: NPY002
    first = [draw_references(train_items(4), "nut", 1, seed=seed)[0].img_path for seed in range(400)]
    assert min(first.count(item.img_path) for item in train_items(4)) > 60
    for k in (4, -1):
        with pytest.raises(InputError, match=f"k_shot .*{k}"):
            draw_references(train_items(3), "nut", k, seed=10)


def reference_index() -> DatasetIndex:
    test = {name: [Item(f"{name}/t.png", "", name, "good", 0)] for name in ("nut", "bolt")}
    return DatasetIndex(Path("data"), {"nut": train_items(3), "bolt": train_items(2, "bolt")}, test)


def test_reference_list_keeps_its_order(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_bytes(b'# chosen by hand\r\n\r\n nut\\002.png \r\n./bolt/001.png\r\n"nut/000.png"')
    references = read_reference_list(path, reference_index(), ["nut"])
    assert {name: [item.img_path for item in items] for name, items in references.items()} == {
        "nut": ["nut/002.png", "nut/000.png"]
    }


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"nut/000.png\nnut/t.png\n", "line 2: nut/t.png is a test image"),
        (b"\n# x\nnut/9.png\n", "line 3: nut/9.png .* such as nut/000.png"),
        (b"nut/000.png\n\nnut/000.png\n", "line 3: nut/000.png is listed before, in line 1"),
        (b"bolt/000.png\n", "class nut"),
        (b"\xff\xfe", "UTF-8"),
        (None, "No such file"),
    ],
)
def test_bad_reference_list_is_named(content: bytes | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        read_reference_list(path, reference_index(), ["nut"])
    assert str(path) in str(caught.value)


# --- masks ---

PATTERN = np.array([[0, 1, 0], [1, 0, 1]], dtype=np.uint8)


def mask_images() -> dict[str, tuple[Image.Image, str]]:
    """PATTERN in every mode, with 1 or slightly more as the defect's value."""
    grey = Image.fromarray(PATTERN)
    palette = Image.fromarray(PATTERN)
    palette.putpalette([0, 0, 0, 0, 0, 1] + [255] * 762)
    black_last = Image.fromarray(1 - PATTERN)
    black_last.putpalette([128, 0, 0, 0, 0, 0] + [255] * 762)
    blue = np.zeros((2, 3, 3), np.uint8)
    blue[:, :, 2] = PATTERN
    alpha = np.dstack([blue, 255 * (1 - PATTERN)])
    return {
        "L": (grey, "png"),
        "1": (Image.fromarray(PATTERN * 255).convert("1"), "png"),
        "P": (palette, "png"),
        "P, black not first": (black_last, "png"),
        "RGB": (Image.fromarray(blue), "png"),
        "RGBA, defect transparent": (Image.fromarray(alpha), "png"),
        "LA, defect transparent": (Image.fromarray(np.dstack([PATTERN, 255 * (1 - PATTERN)])), "png"),
        "I;16 png": (Image.fromarray(PATTERN.astype(np.uint16)), "png"),
        "I;16 tif": (Image.fromarray(PATTERN.astype(np.uint16)), "tif"),
        "I": (Image.fromarray(PATTERN.astype(np.int32)), "tif"),
        "F": (Image.fromarray(PATTERN.astype(np.float32) / 100), "tif"),
        "CMYK": (Image.fromarray(PATTERN * 255).convert("RGB").convert("CMYK"), "tif"),
        "BMP": (grey, "bmp"),
    }


def test_mask_of_any_mode(tmp_path: Path) -> None:
    for case, (image, suffix) in mask_images().items():
        path = tmp_path / f"mask.{suffix}"
        transparency: dict[str, Any] = {"transparency": bytes([255, 0])}
        for options in ({}, transparency) if case == "P" else ({},):
            image.save(path, **options)
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                mask = read_mask(path)
            assert mask.dtype == np.bool_
            np.testing.assert_array_equal(mask, PATTERN == 1, err_msg=case)


def blobs(*values: float, side: int = 60) -> npt.NDArray[np.float64]:
    """Discs and a bar that do not touch, each with a value of its own."""
    rows, columns = np.mgrid[:side, : side * len(values)]
    whole = np.zeros(rows.shape)
    for number, value in enumerate(values):
        disc = (rows - side / 2) ** 2 + (columns - side * (number + 0.5)) ** 2 < (side / 4) ** 2
        whole[disc | ((rows == side - 3) & (abs(columns - side * (number + 0.5)) < side / 4))] = value
    return whole


def written(path: Path, image: Image.Image, **how: Any) -> Path:
    image.save(path, **how)
    return path


def test_masks_of_labels_are_defects_wherever_they_are_not_black(tmp_path: Path) -> None:
    for values in ((255,), (1,), (1, 2, 3), range(1, 25), (1, 20), (236, 240, 255), (100, 255), (50, 100, 150, 250)):
        labels = blobs(*values)
        for dtype in (np.uint8, np.uint16, np.int32, np.float32):
            mask, graded = read_graded(written(tmp_path / "mask.tif", Image.fromarray(labels.astype(dtype))))
            assert not graded, (values, dtype)
            np.testing.assert_array_equal(mask, labels > 0)
    colours = np.dstack([blobs(255, 0), blobs(0, 90), blobs(0, 0)]).astype(np.uint8)
    mask, graded = read_graded(written(tmp_path / "mask.png", Image.fromarray(colours)))
    assert not graded and np.array_equal(mask, colours.any(axis=2))
    assert not read_graded(written(tmp_path / "mask.png", Image.fromarray(blobs(1, 2, 40).astype(np.uint8))))[1]
    unclear = blobs(1, 0.5).astype(np.float32)
    unclear[0, 0] = np.nan
    assert read_graded(written(tmp_path / "mask.tif", Image.fromarray(unclear)))[0].sum() == (unclear > 0).sum()


def test_graded_masks_are_cut_at_half_of_the_largest_value(tmp_path: Path) -> None:
    true = blobs(255, 255).astype(np.uint8)
    image, large = Image.fromarray(true), Image.fromarray(blobs(255, 255, side=240).astype(np.uint8))
    smooth = np.asarray(image.filter(ImageFilter.BoxBlur(1)))
    colour = Image.merge("RGB", [image, Image.new("L", image.size), Image.new("L", image.size)])
    cases: dict[str, tuple[Image.Image, str, dict[str, Any]]] = {
        **{f"jpeg {quality}": (image, "jpg", {"quality": quality}) for quality in (75, 90, 95, 100)},
        "red jpeg": (colour, "jpg", {"quality": 90}),
        **{f"webp {quality}": (colour, "webp", {"quality": quality}) for quality in (50, 80, 95)},
        **{f"smaller {way}": (large.resize(image.size, way), "png", {}) for way in (Image.Resampling.BOX, 2, 3)},
        "blurred": (image.filter(ImageFilter.GaussianBlur(2)), "png", {}),
        "16 bits": (Image.fromarray(smooth.astype(np.uint16) * 257), "tif", {}),
        "0 to 1": (Image.fromarray(smooth.astype(np.float32) / 255), "tif", {}),
    }
    for name, (stored, suffix, how) in cases.items():
        path = written(tmp_path / f"mask.{suffix}", stored, **how)
        mask, graded = read_graded(path)
        assert graded, name
        # Most of the defect, nothing far from it; all values above 0 would be more.
        assert (mask != (true > 0)).mean() < 0.03, name
        again = written(tmp_path / "again.png", Image.open(path).convert("L")) if stored.mode == "L" else path
        assert read_graded(again)[1], name


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_images_that_exif_would_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    noise = np.random.RandomState(0).randint(0, 256, (20, 30, 3)).astype(np.uint8)
    mask = np.zeros((30, 20), np.uint8)
    mask[:15] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    Image.fromarray(noise).save(tmp_path / "late.png", exif=exif)
    content = (tmp_path / "late.png").read_bytes()
    start = content.index(b"eXIf") - 4
    chunk, end = content[start : content.index(b"IDAT") - 4], content.index(b"IEND") - 4
    (tmp_path / "late.png").write_bytes(content[:start] + content[start + len(chunk) : end] + chunk + content[end:])
    for name in ("late.png", "a.png", "a.jpg", "a.webp", "grey.jpg"):
        path = tmp_path / name
        if name != "late.png":
            Image.fromarray(noise[:, :, 0] if "grey" in name else noise).save(path, exif=exif)
        # Pixels that are converted in strips lose their EXIF.
        monkeypatch.setattr(images, "_STRIP_PIXELS", 60 if name == "grey.jpg" else 1 << 22)
        item = Item(name, "mask.png", "nut", "crack", 1)
        with pytest.raises(InputError, match="have it upright as EXIF says; try --upright"):
            load_sample(item, tmp_path, 8)
        image, truth = load_sample(item, tmp_path, 8, upright=True)
        assert image.size == (20, 30) and truth.oddities == () and truth.mask is not None and truth.mask[:4].all()
        image, truth = load_sample(replace(item, anomaly=0), tmp_path, 8)
        assert image.size == (30, 20) and truth.oddities == (TURNED,), name
    Image.fromarray(mask.T).save(tmp_path / "mask.png")
    with pytest.raises(InputError, match="as they are stored, so leave out --upright"):
        load_sample(item, tmp_path, 8, upright=True)
    Image.fromarray(noise).save(tmp_path / "b.jpg", exif=b"Exif\0\0MM\0*\0\0\0\xff")
    assert load_sample(replace(item, img_path="b.jpg", anomaly=0), tmp_path, 8)[1].oddities == ()
    # Pillow turns TIFF files itself.
    Image.fromarray(noise).save(tmp_path / "a.tif", exif=exif)
    image, truth = load_sample(replace(item, img_path="a.tif", anomaly=0), tmp_path, 8)
    assert image.size == (20, 30) and truth.oddities == ()
    Image.fromarray(mask.T).save(tmp_path / "mask.jpg", exif=exif)
    assert read_mask(tmp_path / "mask.jpg", upright=True).shape == (30, 20)


def test_mask_is_resized_as_torchvision_does() -> None:
    mask = np.random.RandomState(0).rand(90, 130) > 0.5
    pipeline = transforms.Compose([transforms.Resize((40, 40)), transforms.ToTensor()])
    expected = pipeline(Image.fromarray(mask.astype(np.uint8) * 255))[0] > 0.5
    np.testing.assert_array_equal(resize_mask(mask, 40), expected.numpy())
    assert 0.3 < resize_mask(mask, 40).mean() < 0.7


# --- samples ---


def write_samples(root: Path) -> tuple[Item, Item]:
    """A normal image and an anomalous one, whose upper half is masked."""
    mask = np.zeros((20, 30), np.uint8)
    mask[:10] = 255
    Image.fromarray(mask).save(root / "001_mask.png")
    for number in range(2):
        noise = np.random.RandomState(number).randint(0, 256, (20, 30, 3)).astype(np.uint8)
        Image.fromarray(noise).save(root / f"{number:03}.png")
    return Item("000.png", "nowhere.png", "nut", "good", 0), Item("001.png", "001_mask.png", "nut", "crack", 1)


def test_sample_is_an_image_and_its_mask(tmp_path: Path) -> None:
    upper = np.arange(8)[:, None].repeat(8, axis=1) < 4
    for item in write_samples(tmp_path):  # masks of normal images are not read
        image, truth = load_sample(item, tmp_path, 8)
        np.testing.assert_array_equal(image, Image.open(tmp_path / item.img_path))
        assert truth.mask is not None and truth.oddities == ()
        np.testing.assert_array_equal(truth.mask, upper & bool(item.anomaly))
    assert load_sample(replace(item, mask_path=""), tmp_path, 8)[1] == Truth(None)
    Image.new("L", (30, 20)).save(tmp_path / item.mask_path)
    assert load_sample(item, tmp_path, 8)[1].oddities == (EMPTY,)


def test_unreadable_images_and_masks_are_named(tmp_path: Path) -> None:
    good, bad = write_samples(tmp_path)
    mask = tmp_path / bad.mask_path
    content = mask.read_bytes()
    (tmp_path / good.img_path).unlink()
    with pytest.raises(InputError, match=re.escape(str(tmp_path / good.img_path))):
        load_sample(good, tmp_path, 8)
    for damage in (lambda: mask.write_bytes(content[:50]), mask.unlink):
        damage()
        with pytest.raises(InputError, match=re.escape(str(mask))):
            load_sample(bad, tmp_path, 8)
    Image.new("L", (20, 30)).save(mask)
    with pytest.raises(InputError, match=r"001_mask\.png is 20x30 .*001\.png is 30x20"):
        load_sample(bad, tmp_path, 8)


# --- registry and layouts ---


def test_every_data_set_of_the_registry_is_complete() -> None:
    for name, entry in DATA_SETS.items():
        assert entry.name == name and entry.title
        assert (ROOT / f"{name}.py").is_file() == (entry.published is not None)
        if entry.published:
            with entry.published.open(newline="", encoding="utf-8") as file:
                listed = {row["objects"] for row in csv.DictReader(file) if row["dataset"] == name}
            assert listed == {*entry.classes, "mean"}
    assert with_published_tables() == ["mvtec", "visa"]
    assert published_order("mvtec", ["own", "wood", "bottle", "carpet"]) == ["carpet", "bottle", "wood", "own"]
    assert published_order("parts", ["b", "a"]) == ["b", "a"]


def test_names_and_unknown_names_on_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    names = subprocess.run([sys.executable, "-m", "datasets", "--names"], cwd=ROOT, capture_output=True, check=True)
    assert names.stdout.decode().split() == with_published_tables()
    for words, status in ((["--help"], 0), (["mvtek"], 2)):
        with pytest.raises(SystemExit, match=str(status)):
            main(words)
        shown = capsys.readouterr()
        assert all(name in (shown.err or shown.out) for name in DATA_SETS)
    assert shown.out == "" and "'mvtek'" in shown.err


def test_data_sets_are_named_in_the_same_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--names"]) == 0
    assert capsys.readouterr().out.split() == ["mvtec", "visa"]
    with pytest.raises(SystemExit) as ended:
        main([])
    assert ended.value.code == 2 and "name a data set" in capsys.readouterr().err
    # A folder that cannot be read counts as one file.
    (tmp_path / "closed").mkdir()
    (tmp_path / "open.png").touch()
    look = os.scandir

    def scandir(folder: str) -> object:
        if str(folder).endswith("closed"):
            raise PermissionError
        return look(folder)

    monkeypatch.setattr(os, "scandir", scandir)
    found = list(_files(str(tmp_path), frozenset()))
    assert found == [str(tmp_path / "closed"), str(tmp_path / "open.png")]
