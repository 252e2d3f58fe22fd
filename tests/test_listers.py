"""The listers of datasets/, each on a small tree in its data set's layout, and on trees in other layouts."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from datasets.__main__ import main
from datasets.index import check_files, load_index, refuse_links
from datasets.registry import DATA_SETS
from datasets.samples import read_mask
from evaluation.check_data import FILE
from tests.conftest import ROOT
from winclip.support.errors import InputError

Capture = pytest.CaptureFixture[str]


@dataclass(frozen=True)
class Case:
    """A tree in the layout of a data set, and its expected listing.

    Attributes:
        files: paths; ``*`` after one marks a mask with a defect, ``0`` a black one.
        listed: split, image, defect type and mask of every item, in the order of meta.json.
        warned: the first file of each warning, except the one about missing classes.
        left_out: for each reason, how many files and the first.
    """

    files: str
    listed: str
    warned: tuple[str, ...] = ()
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
        left_out=("1 03/ground_truth/ok/1.bmp",),
    ),
    "mpdd": Case(
        """tubes/train/good/0.png tubes/test/good/0.png tubes/test/anomalous/0.png
           tubes/ground_truth/anomalous/0_mask.png*""",
        """train tubes/train/good/0.png good
           test tubes/test/anomalous/0.png anomalous tubes/ground_truth/anomalous/0_mask.png
           test tubes/test/good/0.png good""",
    ),
    "mvtec_ad_2": Case(
        """can/train/good/0_regular.png can/validation/good/1_regular.png can/test_public/good/2_regular.png
           can/test_public/bad/0_overexposed.png can/test_public/ground_truth/bad/0_overexposed_mask.png*
           can/test_private/0_regular.png can/test_private/1_regular.png can/test_private_mixed/0_mixed.png""",
        """train can/train/good/0_regular.png good
           test can/test_public/bad/0_overexposed.png bad can/test_public/ground_truth/bad/0_overexposed_mask.png
           test can/test_public/good/2_regular.png good""",
        left_out=("1 can/validation/good/1_regular.png", "3 can/test_private/0_regular.png"),
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
        ("7",),
        ("1 pushpins/ground_truth/logical_anomalies/7/000.png", "1 pushpins/validation/good/1.png"),
    ),
    "kolektor_sdd": Case(
        """kos01/Part0.jpg kos01/Part0_label.bmp0 kos01/Part1.jpg kos01/Part1_label.bmp*
           kos02/Part0.jpg kos02/Part0_label.bmp0 kos02/Part1.jpg kos02/Part1_label.bmp* kos02/Part2.jpg""",
        """train kos01/Part0.jpg good
           test kos01/Part1.jpg - kos01/Part1_label.bmp
           test kos02/Part0.jpg good
           test kos02/Part1.jpg - kos02/Part1_label.bmp""",
        ("ROOT/kos02/Part2.jpg",),
        ("3 kos01/Part0_label.bmp",),
    ),
    "kolektor_sdd2": Case(
        """train/10000.png train/10000_GT.png0 train/10001.png train/10001_GT.png*
           test/20000.png test/20000_GT.png0 test/20001.png test/20001_GT.png*""",
        """train train/10000.png good
           test test/20000.png good
           test test/20001.png - test/20001_GT.png""",
        ("train/10001.png",),
        ("4 test/20000_GT.png",),
    ),
    "dagm": Case(
        """Class1/Train/0576.PNG Class1/Train/0577.PNG Class1/Train/Label/0577_label.PNG* Class1/Train/Label/Labels.txt
           Class1/Test/0001.PNG Class1/Test/0002.PNG Class1/Test/Label/0002_label.PNG*
           Class1/Test/Label/0009_label.PNG*""",
        """train Class1/Train/0576.PNG good
           test Class1/Test/0001.PNG good
           test Class1/Test/0002.PNG - Class1/Test/Label/0002_label.PNG""",
        ("0009_label.PNG", "Class1/Train/0577.PNG"),
        ("3 Class1/Test/Label/0009_label.PNG", "1 Class1/Train/Label/Labels.txt"),
    ),
    "real_iad": Case(
        """realiad_jsons/usb.json realiad_1024/usb/OK/S1/1_C1.jpg realiad_1024/usb/NG/QS/S2/2_C1.jpg
           realiad_1024/usb/NG/QS/S2/2_C1.png* realiad_1024/usb/OK/S3/3_C1.jpg realiad_1024/usb/OK/S3/3_C2.jpg
           realiad_1024/usb/NG/HS/S4/4_C2.jpg realiad_1024/usb/NG/HS/S4/4_C2.png*""",
        """train realiad_1024/usb/OK/S1/1_C1.jpg good
           test realiad_1024/usb/NG/HS/S4/4_C2.jpg HS realiad_1024/usb/NG/HS/S4/4_C2.png
           test realiad_1024/usb/OK/S3/3_C1.jpg good
           test realiad_1024/usb/OK/S3/3_C2.jpg good""",
        ("realiad_1024/usb/NG/QS/S2/2_C1.jpg",),
        ("2 realiad_1024/usb/NG/QS/S2/2_C1.jpg", "1 realiad_jsons/usb.json"),
    ),
}


def make_tree(root: Path, files: str) -> None:
    """Write the files of a case; no two pictures are the same."""
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
    assert main([name, "--root", str(root)]) == 0
    shown = capsys.readouterr()
    assert " ".join(listed(root)) == " ".join(case.listed.split())
    warned = [line.replace(str(root), "ROOT").split() for line in shown.err.splitlines() if "the first is" in line]
    assert tuple(words[-1] for words in warned) == case.warned
    lines = shown.out.splitlines()
    assert [line for line in lines if line.startswith(f"{DATA_SETS[name].title}: licence ")]
    counted = [line.split() for line in lines if "the first is" in line]
    assert tuple(f"{words[0]} {words[-1]}" for words in counted) == case.left_out
    # Listed files can be read: masks have the size of their images, and defects where required.
    index = load_index(root)
    check_files(index, index.test)
    assert evaluate(root, tmp_path / "out", "--check_data") == 0, json.loads((tmp_path / "out" / FILE).read_text())


def test_every_data_set_is_tried_and_described() -> None:
    # dtd_synthetic has the folders of mpdd.
    assert set(CASES) == set(DATA_SETS) - {"mvtec", "visa", "elpv", "dtd_synthetic"}
    described = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
    for name in (*CASES, "dtd_synthetic"):
        entry = DATA_SETS[name]
        assert (
            f"| `{name}` |" in described
            and entry.page.removeprefix("that of the paper ") in described
            and entry.licence
        )


# A tree in the layout of another data set, and what the error says it expected and found.
WRONG = {
    "visa": ("mpdd", ("ROOT/split_csv/1cls.csv", "--root")),
    "mvtec_ad_2": ("kolektor_sdd2", ("ROOT/can with train and test_public", "test, train")),
    "mvtec_loco": ("mpdd", ("ROOT/breakfast_box", "--all_classes takes these: tubes")),
    "kolektor_sdd": ("mpdd", ("ROOT/kos01", "Part0_label.bmp", "ROOT holds tubes")),
    "kolektor_sdd2": ("dagm", ("ROOT/train", "10000_GT.png", "ROOT holds Class1")),
    "dagm": ("btad", ("ROOT/Class1 with Train and Test", "ROOT holds 01, 03")),
    "real_iad": ("btad", ("ROOT/realiad_jsons/audiojack.json", "ROOT holds 01, 03")),
}


def expect_error(name: str, root: Path, capsys: Capture, *parts: str) -> None:
    capsys.readouterr()
    assert main([name, "--root", str(root)]) == 2
    shown = capsys.readouterr()
    assert shown.out == "" and not (root / "meta.json").exists()
    for part in parts:
        assert part in shown.err.replace(str(root), "ROOT").splitlines()[-1]


def test_other_layout_than_the_name_says(tmp_path: Path, capsys: Capture) -> None:
    for name, (other, parts) in WRONG.items():
        make_tree(tmp_path / name, CASES[other].files)
        expect_error(name, tmp_path / name, capsys, *parts)


def test_parts_of_a_class_that_are_missing(tmp_path: Path, capsys: Capture) -> None:
    make_tree(tmp_path, "01/train/good/0.png 01/test/ok/0.png")
    expect_error("btad", tmp_path, capsys, "ROOT/01/train/good is not called 'ok'", "--good good")
    assert main(["btad", "--root", str(tmp_path), "--good", "good"]) == 0
    make_tree(tmp_path / "2", "01/train/bad/0.png 01/test/ok/0.png")
    expect_error("btad", tmp_path / "2", capsys, "class 01", "ROOT/01/train/ok", "ROOT/01/train holds bad")
    (tmp_path / "meta.json").unlink()
    make_tree(tmp_path, "train/0.png train/0_GT.png0")
    expect_error("kolektor_sdd2", tmp_path, capsys, "class surface has no test images")
    make_tree(tmp_path, "Class1/Train/0.PNG Class1/Test/0.PNG")
    expect_error("dagm", tmp_path, capsys, "ROOT/Class1/Train/Label", "0001_label.PNG")


def test_real_iad_lists_that_are_not_as_described(tmp_path: Path, capsys: Capture) -> None:
    make_tree(tmp_path, CASES["real_iad"].files)
    changes: list[tuple[Callable[[Any], None], str]] = [
        (lambda content: content["test"][2].update(image_path="OK/none.jpg"), "realiad_1024/usb/OK/none.jpg"),
        (lambda content: content["test"][2].update(image_path="../../../x.jpg"), "../x.jpg"),
        (lambda content: content["test"][2].update(image_path=3), "text"),
        (lambda content: content["test"][2].pop("mask_path"), "mask_path"),
        (lambda content: content["test"][2].update(mask_path=None), "--allow_missing_masks"),
        (lambda content: content["meta"].update(prefix="toy/"), "'toy/'"),
        (lambda content: content.update(meta=3), "Real-IAD"),
    ]
    for change, message in changes:
        content = json.loads(json.dumps(REAL_IAD))
        change(content)
        (tmp_path / "realiad_jsons/usb.json").write_text(json.dumps(content))
        expect_error("real_iad", tmp_path, capsys, message)


def test_a_folder_of_masks_is_joined(tmp_path: Path) -> None:
    root = tmp_path / "data"
    make_tree(root, CASES["mvtec_loco"].files)
    assert main(["mvtec_loco", "--root", str(root)]) == 0
    folder = root / "pushpins/ground_truth/logical_anomalies/0"
    one, other = (read_mask(folder / name) for name in ("000.png", "001.png"))
    assert one.any() and other.any() and not (one & other).any()
    np.testing.assert_array_equal(read_mask(folder), one | other)
    index = load_index(root)
    (folder / "001.png").rename(tmp_path / "elsewhere.png")
    (folder / "001.png").symlink_to(tmp_path / "elsewhere.png")
    with pytest.raises(InputError, match=r"logical_anomalies/0/001\.png leads by a link to .*elsewhere\.png"):
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
