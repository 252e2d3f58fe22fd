"""The listers of datasets/, each on a small tree in its data set's layout, and on trees in another."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from datasets.command import run
from datasets.index import check_files, load_index, refuse_links
from datasets.registry import DATA_SETS
from datasets.samples import read_mask
from evaluation.check_data import FILE
from scripts import private_maps
from tests.conftest import ROOT
from tests.tiny import CONFIG
from winclip.support.errors import InputError

Capture = pytest.CaptureFixture[str]


@dataclass(frozen=True)
class Case:
    """A tree in the layout of a data set, and what becomes of it.

    Attributes:
        files: paths; ``*`` behind one is a mask with a defect, ``0`` a black one.
        listed: part, image, defect type and mask of every item, in the order of meta.json.
        warnings: beginnings of the lines, but for that of missing classes.
        left_out: lines of the account.
    """

    files: str
    listed: str
    warnings: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()


REAL_IAD = {
    "meta": {"normal_class": "OK", "prefix": "usb/"},
    "train": [
        {"category": "usb", "anomaly_class": "OK", "image_path": "OK/S1/1_C1.jpg", "mask_path": None},
        {"category": "usb", "anomaly_class": "QS", "image_path": "NG/QS/S2/2_C1.jpg", "mask_path": "NG/QS/S2/2_C1.png"},
    ],
    "test": [
        {"category": "usb", "anomaly_class": "OK", "image_path": "OK/S3/3_C1.jpg", "mask_path": None},
        {"category": "usb", "anomaly_class": "OK", "image_path": "OK/S3/3_C2.jpg", "mask_path": None},
        {"category": "usb", "anomaly_class": "HS", "image_path": "NG/HS/S4/4_C2.jpg", "mask_path": "NG/HS/S4/4_C2.png"},
    ],
}

CASES = {
    "btad": Case(
        """01/train/ok/0.bmp 01/test/ok/1.bmp 01/test/ko/2.bmp 01/ground_truth/ko/2.png*
           03/train/ok/0.png 03/test/ok/1.bmp 03/test/ko/2.bmp 03/ground_truth/ko/2.bmp* 03/ground_truth/ok/1.bmp0""",
        """train 01/train/ok/0.bmp good
           train 03/train/ok/0.png good
           test 01/test/ko/2.bmp ko 01/ground_truth/ko/2.png
           test 01/test/ok/1.bmp good
           test 03/test/ko/2.bmp ko 03/ground_truth/ko/2.bmp
           test 03/test/ok/1.bmp good""",
        left_out=("  1 masks of no anomalous image that is listed; the first is 03/ground_truth/ok/1.bmp",),
    ),
    "mpdd": Case(
        """tubes/train/good/0.png tubes/test/good/0.png tubes/test/anomalous/0.png
           tubes/ground_truth/anomalous/0_mask.png*""",
        """train tubes/train/good/0.png good
           test tubes/test/anomalous/0.png anomalous tubes/ground_truth/anomalous/0_mask.png
           test tubes/test/good/0.png good""",
    ),
    "dtd_synthetic": Case(
        """Woven_001/train/good/0.png Woven_001/test/good/0.png Woven_001/test/bad/0.png
           Woven_001/ground_truth/bad/0_mask.png*""",
        """train Woven_001/train/good/0.png good
           test Woven_001/test/bad/0.png bad Woven_001/ground_truth/bad/0_mask.png
           test Woven_001/test/good/0.png good""",
    ),
    "mvtec_ad_2": Case(
        """can/train/good/0_regular.png can/validation/good/1_regular.png can/test_public/good/2_regular.png
           can/test_public/bad/0_overexposed.png can/test_public/ground_truth/bad/0_overexposed_mask.png*
           can/test_private/0_regular.png can/test_private/1_regular.png can/test_private_mixed/0_mixed.png""",
        """train can/train/good/0_regular.png good
           test can/test_public/bad/0_overexposed.png bad can/test_public/ground_truth/bad/0_overexposed_mask.png
           test can/test_public/good/2_regular.png good""",
        left_out=(
            "  1 of the validation part, which nothing here uses; the first is can/validation/good/1_regular.png",
            "  3 without labels; scripts.private_maps writes their maps; the first is can/test_private/0_regular.png",
        ),
    ),
    "mvtec_loco": Case(
        """pushpins/train/good/0.png pushpins/validation/good/1.png pushpins/test/good/2.png
           pushpins/test/logical_anomalies/0.png pushpins/test/structural_anomalies/0.png
           pushpins/ground_truth/logical_anomalies/0/000.png* pushpins/ground_truth/logical_anomalies/0/001.png*
           pushpins/ground_truth/structural_anomalies/0/000.png* pushpins/ground_truth/logical_anomalies/7/000.png*""",
        """train pushpins/train/good/0.png good
           test pushpins/test/good/2.png good
           test pushpins/test/logical_anomalies/0.png logical_anomalies pushpins/ground_truth/logical_anomalies/0
           test pushpins/test/structural_anomalies/0.png structural_anomalies
           pushpins/ground_truth/structural_anomalies/0""",
        ("1 masks in ROOT/pushpins/ground_truth/logical_anomalies belong to no image, the first is 7",),
        (
            "  1 masks of no anomalous image that is listed; the first is"
            " pushpins/ground_truth/logical_anomalies/7/000.png",
            "  1 of the validation part, which nothing here uses; the first is pushpins/validation/good/1.png",
        ),
    ),
    "kolektor_sdd": Case(
        """kos01/Part0.jpg kos01/Part0_label.bmp0 kos01/Part1.jpg kos01/Part1_label.bmp*
           kos02/Part0.jpg kos02/Part0_label.bmp0 kos02/Part1.jpg kos02/Part1_label.bmp* kos02/Part2.jpg""",
        """train kos01/Part0.jpg good
           test kos01/Part1.jpg - kos01/Part1_label.bmp
           test kos02/Part0.jpg good
           test kos02/Part1.jpg - kos02/Part1_label.bmp""",
        ("1 images have no label image NAME_label and are left out, the first is ROOT/kos02/Part2.jpg",),
        (
            "  1 images without a label, or defective ones of the train part; the first is kos02/Part2.jpg",
            "  2 labels of normal images, or of images that are left out; the first is kos01/Part0_label.bmp",
        ),
    ),
    "kolektor_sdd2": Case(
        """train/10000.png train/10000_GT.png0 train/10001.png train/10001_GT.png*
           test/20000.png test/20000_GT.png0 test/20001.png test/20001_GT.png*""",
        """train train/10000.png good
           test test/20000.png good
           test test/20001.png - test/20001_GT.png""",
        ("1 defective images of the train part are left out, the first is train/10001.png",),
        (
            "  1 images without a label, or defective ones of the train part; the first is train/10001.png",
            "  3 labels of normal images, or of images that are left out; the first is test/20000_GT.png",
        ),
    ),
    "dagm": Case(
        """Class1/Train/0576.PNG Class1/Train/0577.PNG Class1/Train/Label/0577_label.PNG* Class1/Train/Label/Labels.txt
           Class1/Test/0001.PNG Class1/Test/0002.PNG Class1/Test/Label/0002_label.PNG*
           Class1/Test/Label/0009_label.PNG*""",
        """train Class1/Train/0576.PNG good
           test Class1/Test/0001.PNG good
           test Class1/Test/0002.PNG - Class1/Test/Label/0002_label.PNG""",
        (
            "1 label images in ROOT/Class1/Test belong to no image, the first is 0009_label.PNG",
            "1 defective images of the train part are left out, the first is Class1/Train/0577.PNG",
        ),
        (
            "  2 defective images of the train part, and their labels; the first is Class1/Train/0577.PNG",
            "  1 labels of no image that is listed, or outside of Train and Test; the first is"
            " Class1/Test/Label/0009_label.PNG",
        ),
    ),
    "real_iad": Case(
        """realiad_jsons/usb.json realiad_1024/usb/OK/S1/1_C1.jpg realiad_1024/usb/NG/QS/S2/2_C1.jpg
           realiad_1024/usb/NG/QS/S2/2_C1.png* realiad_1024/usb/OK/S3/3_C1.jpg realiad_1024/usb/OK/S3/3_C2.jpg
           realiad_1024/usb/NG/HS/S4/4_C2.jpg realiad_1024/usb/NG/HS/S4/4_C2.png*""",
        """train realiad_1024/usb/OK/S1/1_C1.jpg good
           test realiad_1024/usb/NG/HS/S4/4_C2.jpg HS realiad_1024/usb/NG/HS/S4/4_C2.png
           test realiad_1024/usb/OK/S3/3_C1.jpg good
           test realiad_1024/usb/OK/S3/3_C2.jpg good""",
        ("1 defective images of the train part are left out, the first is realiad_1024/usb/NG/QS/S2/2_C1.jpg",),
        (
            "  2 in no JSON file of a listed class, or defective in the train part; the first is"
            " realiad_1024/usb/NG/QS/S2/2_C1.jpg",
        ),
    ),
}


def make_tree(root: Path, files: str) -> None:
    """Write the files of a case; every picture is another."""
    generator = np.random.RandomState(0)
    for number, word in enumerate(files.split()):
        path = root / word.rstrip("*0")
        path.parent.mkdir(parents=True, exist_ok=True)
        mask = np.zeros((40, 40), np.uint8)
        if path.suffix == ".json":
            path.write_text(json.dumps(REAL_IAD))
        elif path.suffix == ".txt":
            path.write_text("1\n")
        elif word.endswith(("*", "0")):
            mask[2 * number : 2 * number + 2, 3:8] = 255 * word.endswith("*")
            Image.fromarray(mask).save(path)
        else:
            Image.fromarray(generator.randint(0, 255, (40, 40, 3)).astype(np.uint8)).save(path)


def list_tree(name: str, root: Path, *more: str) -> int:
    return run(name, ["--root", str(root), *more])


def listed(root: Path) -> list[str]:
    index = load_index(root)
    return [
        " ".join(filter(None, (part, item.img_path, item.specie_name or "-", item.mask_path)))
        for part, classes in (("train", index.train), ("test", index.test))
        for items in classes.values()
        for item in items
    ]


@pytest.mark.parametrize("name", CASES)
def test_lister(name: str, evaluate: Callable[..., int], tmp_path: Path, capsys: Capture) -> None:
    case, root = CASES[name], tmp_path / "data"
    make_tree(root, case.files)
    assert list_tree(name, root) == 0
    shown = capsys.readouterr()
    assert " ".join(listed(root)) == " ".join(case.listed.split())
    warned = [line.replace(str(root), "ROOT").removeprefix("warning: ") for line in shown.err.splitlines()]
    assert tuple(line for line in warned if not line.startswith(("classes of", "100%", "\r"))) == case.warnings
    lines = shown.out.splitlines()
    assert [line for line in lines if line.startswith(f"{DATA_SETS[name].title}: licence ")]
    assert tuple(line for line in lines if line in case.left_out) == case.left_out
    # What is listed can be read: the masks have their images' size, and defects where there have to be some.
    index = load_index(root)
    check_files(index, index.test)
    assert evaluate(root, tmp_path / "out", "--check_data") == 0, json.loads((tmp_path / "out" / FILE).read_text())


def test_every_data_set_is_tried_and_described() -> None:
    assert set(CASES) == set(DATA_SETS) - {"mvtec", "visa", "elpv"}
    described = (ROOT / "docs" / "usage.md").read_text(encoding="utf-8")
    for name in CASES:
        entry = DATA_SETS[name]
        assert f"| `{name}` |" in described and entry.page in described and entry.licence


# A tree in the layout of another data set, and the error: what was expected, and what is there.
WRONG = {
    "btad": ("mpdd", "holds no class of BTAD such as ROOT/01 with train and test in it; --all_classes takes"),
    "mpdd": ("kolektor_sdd", "such as ROOT/bracket_black with train and test in it; ROOT holds kos01, kos02"),
    "mvtec": ("dagm", "such as ROOT/carpet with train and test in it; ROOT holds Class1"),
    "visa": ("mpdd", "ROOT/split_csv/1cls.csv does not exist; VisA's archive holds it, --root names the folder above"),
    "mvtec_ad_2": ("kolektor_sdd2", "such as ROOT/can with train and test_public in it; ROOT holds test, train"),
    "mvtec_loco": ("dtd_synthetic", "with train and test in it; --all_classes takes these: Woven_001"),
    "dtd_synthetic": ("real_iad", "train and test in it; ROOT holds realiad_1024, realiad_jsons"),
    "kolektor_sdd": (
        "mpdd",
        "expected folders such as ROOT/kos01 with Part0.jpg and Part0_label.bmp in them; ROOT holds tubes",
    ),
    "kolektor_sdd2": ("dagm", "expected ROOT/train and ROOT/test with images such as 10000.png and 10000_GT.png in"),
    "dagm": ("btad", "no class of DAGM such as ROOT/Class1 with Train and Test in it; ROOT holds 01, 03"),
    "real_iad": ("btad", "no class of Real-IAD such as ROOT/realiad_jsons/audiojack.json; ROOT holds 01, 03"),
}


def expect_error(name: str, root: Path, message: str, capsys: Capture) -> None:
    capsys.readouterr()
    assert list_tree(name, root) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert message in shown.err.replace(str(root), "ROOT").splitlines()[-1]
    assert not (root / "meta.json").exists()


@pytest.mark.parametrize("name", WRONG)
def test_other_layout_than_the_name_says(name: str, tmp_path: Path, capsys: Capture) -> None:
    other, message = WRONG[name]
    make_tree(tmp_path, CASES[other].files)
    expect_error(name, tmp_path, message, capsys)


def test_parts_of_a_class_that_are_missing(tmp_path: Path, capsys: Capture) -> None:
    make_tree(tmp_path, "01/train/good/0.png 01/test/ok/0.png")
    message = (
        "class 01 has no images in ROOT/01/train/ok, folders below it left aside; ROOT/01/train holds good; complete"
    )
    expect_error("btad", tmp_path, message, capsys)
    make_tree(tmp_path, "train/0.png train/0_GT.png0")
    expect_error("kolektor_sdd2", tmp_path, "class surface has no test images in ROOT", capsys)
    make_tree(tmp_path, "Class1/Train/0.PNG Class1/Test/0.PNG")
    expect_error("dagm", tmp_path, "ROOT/Class1/Train/Label holds no label images such as 0001_label.PNG", capsys)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda content: content["test"][2].update(image_path="OK/none.jpg"),
            "lists realiad_1024/usb/OK/none.jpg, which",
        ),
        (lambda content: content["test"][2].update(image_path="../../../x.jpg"), "x.jpg, which does not exist in ROOT"),
        (lambda content: content["test"][2].update(image_path=3), "prefix, classes and paths have to be text"),
        (lambda content: content["test"][2].pop("mask_path"), "(KeyError: 'mask_path'); expected meta with"),
        (lambda content: content["test"][2].update(mask_path=None), "--allow_missing_masks lists them without"),
        (lambda content: content["meta"].update(prefix="toy/"), "prefix 'toy/' are in none of realiad_1024, "),
        (lambda content: content.update(meta=3), "is no list of Real-IAD (TypeError"),
    ],
)
def test_real_iad_lists_that_are_not_as_described(
    change: Callable[[Any], None], message: str, tmp_path: Path, capsys: Capture
) -> None:
    make_tree(tmp_path, CASES["real_iad"].files)
    content = json.loads(json.dumps(REAL_IAD))
    change(content)
    (tmp_path / "realiad_jsons/usb.json").write_text(json.dumps(content))
    expect_error("real_iad", tmp_path, message, capsys)


def test_a_folder_of_masks_is_joined(tmp_path: Path) -> None:
    root = tmp_path / "data"
    make_tree(root, CASES["mvtec_loco"].files)
    assert list_tree("mvtec_loco", root) == 0
    folder = root / "pushpins/ground_truth/logical_anomalies/0"
    one, other = (read_mask(folder / name) for name in ("000.png", "001.png"))
    assert one.any() and other.any() and not (one & other).any()
    np.testing.assert_array_equal(read_mask(folder), one | other)
    index = load_index(root)
    (folder / "001.png").rename(tmp_path / "elsewhere.png")
    (folder / "001.png").symlink_to(tmp_path / "elsewhere.png")
    with pytest.raises(InputError, match=r"mask .*logical_anomalies/0/001\.png is .*elsewhere\.png, which a link"):
        refuse_links(index, index.test)
    (folder / "001.png").unlink()
    Image.new("L", (9, 9), 1).save(folder / "001.png")
    with pytest.raises(InputError, match="logical_anomalies/0: its images differ in size"):
        read_mask(folder)
    for path in folder.iterdir():
        path.unlink()
    with pytest.raises(InputError, match="logical_anomalies/0 holds no images"):
        read_mask(folder)
    with pytest.raises(InputError, match="logical_anomalies/0 does not exist"):
        check_files(index, index.test)


def test_maps_of_private_images(checkpoint: Path, tmp_path: Path, capsys: Capture) -> None:
    root, save = tmp_path / "data", tmp_path / "out"
    make_tree(root, CASES["mvtec_ad_2"].files)
    Image.new("RGB", (50, 30), "red").save(root / "can/test_private_mixed/0_mixed.png")
    assert list_tree("mvtec_ad_2", root) == 0
    options = ["--data_path", str(root), "--save_path", str(save), "--model", str(CONFIG), "--device", "cpu"]
    options += ["--pretrained", str(checkpoint), "--k_shot", "1"]
    assert private_maps.main(options) == 0
    shown = capsys.readouterr().out.splitlines()[-1]
    assert shown == f"written: maps of 3 images of 1 classes below {save}"
    header, *rows = [line.split(",") for line in (save / "scores.csv").read_text().splitlines()]
    assert header == ["cls_name", "img_path", "score"]
    places = ["can/test_private/0_regular", "can/test_private/1_regular", "can/test_private_mixed/0_mixed"]
    assert [row[:2] for row in rows] == [["can", f"{place}.png"] for place in places]
    for place in places:
        values = tifffile.imread(save / "anomaly_images" / f"{place}.tiff")
        above = np.asarray(Image.open(save / "anomaly_images_thresholded" / f"{place}.png"))
        assert values.dtype == np.float16 and values.shape == ((30, 50) if "mixed" in place else (40, 40))
        assert 0 < values.min() < values.max() < 2
        # Of a threshold, all that is above is higher than all that is not.
        assert set(np.unique(above)) <= {0, 255}
        assert values[above > 0].min(initial=2) >= values[above == 0].max(initial=0)
    for folder in ("test_private", "test_private_mixed"):
        for path in (root / "can" / folder).iterdir():
            path.unlink()
    assert private_maps.main(options) == 2
    assert f"error: {root / 'can'} has no images in test_private or test_private_mixed; " in capsys.readouterr().err
