"""mvtec.py and visa.py on hand-made trees."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from datasets.__main__ import main
from datasets.index import load_index
from datasets.mvtec import MVTEC_CLASSES
from datasets.visa import VISA_CLASSES
from tests.conftest import ROOT


@dataclass(frozen=True)
class Done:
    """The outcome of a command."""

    status: int
    out: list[str]
    errors: list[str]


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """Calls the main of mvtec.py and visa.py on the test's folder."""

    def call(name: str, *options: str) -> Done:
        status = main([name, "--root", str(tmp_path), *options])
        shown = capsys.readouterr()
        return Done(status, shown.out.splitlines(), shown.err.splitlines())

    return call


def touch(root: Path, *paths: str) -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"")


def item(img_path: str, cls_name: str, specie_name: str, anomaly: int, mask_path: str = "") -> dict[str, object]:
    named = {"img_path": img_path, "mask_path": mask_path, "cls_name": cls_name}
    return {**named, "specie_name": specie_name, "anomaly": anomaly}


def expect_error(done: Done, root: Path, *parts: str) -> None:
    """One line, exit status 2, nothing written."""
    (error,) = (line for line in done.errors if not line.startswith("warning: "))
    assert done.status == 2 and error.startswith("error: ")
    for part in parts:
        assert part in error
    assert done.out == []
    assert not (root / "meta.json").is_file() and not list(root.glob("**/*.tmp"))


@pytest.mark.parametrize("name", ["mvtec", "visa"])
def test_script_lists_without_torch_or_numpy(
    name: str, tmp_path: Path, run: Callable[..., Done], capsys: pytest.CaptureFixture[str]
) -> None:
    mvtec_tree(tmp_path)
    visa_tree(tmp_path, CSV_ROWS)
    blocked = "import sys, runpy; sys.modules.update(dict.fromkeys(('torch', 'numpy', 'PIL', 'open_clip')))"
    program = f"{blocked}; sys.argv[0] = '{name}.py'; runpy.run_path('{name}.py', run_name='__main__')"
    subprocess.run([sys.executable, "-c", program, "--root", str(tmp_path)], check=True, cwd=ROOT)
    assert json.loads((tmp_path / "meta.json").read_text()) == {"mvtec": MVTEC_META, "visa": VISA_META}[name]
    root = tmp_path / "nowhere"
    expect_error(run(name, "--root", str(root)), root, str(root), "--root")
    with pytest.raises(SystemExit, match="0"):
        run(name, "--help")
    shown = capsys.readouterr().out
    assert all(word in shown for word in (f"{name}.py", "--root", "--allow_missing_masks", f"data/{name}"))


# --- MVTec AD ---


def mvtec_tree(root: Path) -> None:
    """Two classes; the names of bottle/broken have a gap, where matching by position would fail."""
    touch(
        root,
        "bottle/train/good/001.png",
        "bottle/train/good/000.png",
        "bottle/train/good/Thumbs.db",
        "bottle/train/good/._000.png",
        "bottle/test/good/000.png",
        "bottle/test/broken/000.png",
        "bottle/test/broken/002.png",
        "bottle/test/broken/010.png",
        "bottle/ground_truth/broken/000_mask.png",
        "bottle/ground_truth/broken/001_mask.png",
        "bottle/ground_truth/broken/002_mask.png",
        "bottle/ground_truth/broken/010_mask.png",
        "bottle/ground_truth/good/000_mask.png",
        "bottle/test/.DS_Store",
        "metal_nut/train/good/a.JPG",
        "metal_nut/test/scratch/a.JPEG",
        "metal_nut/test/bent/a.tiff",
        "metal_nut/test/bent/b.bmp",
        "metal_nut/groundtruth/scratch/a.PNG",
        "metal_nut/groundtruth/bent/a_mask.bmp",
        "metal_nut/groundtruth/bent/b_mask.png",
        "license.txt",
    )


MVTEC_META = {
    "train": {
        "bottle": [item(f"bottle/train/good/{number}.png", "bottle", "good", 0) for number in ("000", "001")],
        "metal_nut": [item("metal_nut/train/good/a.JPG", "metal_nut", "good", 0)],
    },
    "test": {
        "bottle": [
            *(
                item(f"bottle/test/broken/{n}.png", "bottle", "broken", 1, f"bottle/ground_truth/broken/{n}_mask.png")
                for n in ("000", "002", "010")
            ),
            item("bottle/test/good/000.png", "bottle", "good", 0),
        ],
        "metal_nut": [
            item("metal_nut/test/bent/a.tiff", "metal_nut", "bent", 1, "metal_nut/groundtruth/bent/a_mask.bmp"),
            item("metal_nut/test/bent/b.bmp", "metal_nut", "bent", 1, "metal_nut/groundtruth/bent/b_mask.png"),
            item("metal_nut/test/scratch/a.JPEG", "metal_nut", "scratch", 1, "metal_nut/groundtruth/scratch/a.PNG"),
        ],
    },
}


def test_mvtec_meta_json(tmp_path: Path, run: Callable[..., Done]) -> None:
    mvtec_tree(tmp_path)
    done = run("mvtec")
    assert done.status == 0
    content = (tmp_path / "meta.json").read_bytes()
    assert json.loads(content) == MVTEC_META
    assert list(json.loads(content)["test"]) == ["bottle", "metal_nut"]
    assert [line.split() for line in [*done.out[:5], done.out[-1]]] == [
        ["class", "train", "normal", "anomalous"],
        ["bottle", "2", "1", "3"],
        ["metal_nut", "1", "0", "3"],
        ["all", "3", "1", "6"],
        ["7", "test", "images:", "1", "normal", "and", "6", "anomalous;", "3", "train", "images"],
        ["written:", str(tmp_path / "meta.json")],
    ]
    missing, unused = done.errors
    assert str(tmp_path) in missing and all(
        (name in missing) == (name not in ("bottle", "metal_nut")) for name in MVTEC_CLASSES
    )
    assert "1 mask in" in unused and str(tmp_path / "bottle/ground_truth/broken") in unused and "001_mask.png" in unused
    run("mvtec")
    assert (tmp_path / "meta.json").read_bytes() == content
    # With all classes there, nothing is missing.
    for name in MVTEC_CLASSES:
        touch(tmp_path, f"{name}/train/good/0.png", f"{name}/test/good/0.png")
    assert [line for line in run("mvtec").errors if "not in" in line] == []
    assert len(MVTEC_CLASSES) == len(load_index(tmp_path).test) == 15


def test_mvtec_unknown_folders(tmp_path: Path, run: Callable[..., Done]) -> None:
    touch(tmp_path, "my part/train/good/0.png", "my part/test/good/0.png")
    expect_error(run("mvtec"), tmp_path, "--all_classes", "my part")
    mvtec_tree(tmp_path)
    touch(tmp_path, "notes/readme.txt", "__MACOSX/bottle/x.png")
    warned = " ".join(run("mvtec").errors)
    assert "--all_classes takes them): my part" in warned and "left out: notes" in warned and "MACOSX" not in warned
    assert list(load_index(tmp_path).test) == ["bottle", "metal_nut"]
    warned = " ".join(run("mvtec", "--all_classes").errors)
    assert "my part" not in warned and "left out: notes" in warned
    assert list(load_index(tmp_path).test) == ["bottle", "metal_nut", "my part"]


def test_mvtec_accounts_for_every_file(tmp_path: Path, run: Callable[..., Done]) -> None:
    mvtec_tree(tmp_path)
    touch(tmp_path, "bottle/train/good/002.webp", "bottle/train/good/old/000.png", "bottle/train/rest/000.png")
    touch(tmp_path, "bottle/test/000.png", "bottle/test/broken/cam1/a\x1b[2J.png", "bottle/test/broken/cam2/a/b.png")
    touch(tmp_path, "bottle/test/broken/003.psd", "bottle/notes/000.png", "bottle/000.png")
    touch(tmp_path, "my part/train/good/0.png", "0.png")
    (tmp_path / "bottle" / "test" / "broken" / "up").symlink_to(tmp_path / "bottle" / "test")
    (tmp_path / "bottle" / "test" / "broken" / "circle.png").symlink_to("circle.png")
    done = run("mvtec")
    assert load_index(tmp_path).train["bottle"][-1].img_path == "bottle/train/good/002.webp"
    assert done.out[5] == "34 files: 17 are listed as images or masks, 17 left out:"
    # For each reason, how many files and the first.
    assert [(line.split()[0], line.split("the first is ")[1]) for line in done.out[6:-1]] == [
        ("1", "bottle/test/broken/circle.png"),
        ("1", "bottle/test/000.png"),
        ("2", "bottle/test/.DS_Store"),
        ("1", "bottle/train/rest/000.png"),
        ("3", "bottle/test/broken/cam1/a\\x1b[2J.png"),
        ("2", "0.png"),
        ("2", "bottle/000.png"),
        ("2", "bottle/ground_truth/broken/001_mask.png"),
        ("3", "bottle/test/broken/003.psd"),
    ]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows knows no such names")
def test_mvtec_folders_of_doubtful_names(tmp_path: Path, run: Callable[..., Done]) -> None:
    root = tmp_path / "classes"
    for name in ("a\nb", "a\\b", "mean"):
        touch(root, f"{name}/train/good/0.png", f"{name}/test/good/0.png")
        expect_error(run("mvtec", "--all_classes", "--root", str(root)), root, repr(name))
        shutil.rmtree(root)
    # Another spelling of good, and two files for one mask or image.
    for path, named in (
        ("bottle/test/Good/7.png", "bottle/test/Good"),
        ("bottle/train/GOOD/7.png", "bottle/train/GOOD"),
        *((twin, twin) for twin in ("bottle/test/broken/000.jpg", "bottle/ground_truth/broken/000_mask.bmp")),
        ("bottle/groundtruth/broken/000_mask.png", "bottle/groundtruth/broken/000_mask.png"),
    ):
        mvtec_tree(tmp_path)
        touch(tmp_path, path)
        expect_error(run("mvtec", "--allow_missing_masks"), tmp_path, str(tmp_path / named))
        shutil.rmtree(tmp_path / "bottle")


def test_mvtec_image_without_mask(tmp_path: Path, run: Callable[..., Done]) -> None:
    mvtec_tree(tmp_path)
    (tmp_path / "bottle/ground_truth/broken/002_mask.png").unlink()
    image = str(tmp_path / "bottle/test/broken/002.png")
    expect_error(run("mvtec"), tmp_path, image, "ground_truth/DEFECT/NAME_mask.png", "--allow_missing_masks")
    done = run("mvtec", "--allow_missing_masks")
    assert done.status == 0 and any(image in line for line in done.errors)
    masks = [entry.mask_path for entry in load_index(tmp_path).test["bottle"]]
    assert masks == ["bottle/ground_truth/broken/000_mask.png", "", "bottle/ground_truth/broken/010_mask.png", ""]


def test_mvtec_folders_that_sound_good(tmp_path: Path, run: Callable[..., Done]) -> None:
    for number, name in enumerate(
        ("normal", "OK", "ok_images", "no_defect", "Non-Defective", "defect free", "Normals")
    ):
        root = tmp_path / str(number)
        mvtec_tree(root)
        touch(root, f"bottle/test/{name}/7.png", f"bottle/train/{name}/8.png")
        # Also if masks are not required, or exist.
        touch(root, f"bottle/ground_truth/{name}/7_mask.png")
        for options in ((), ("--allow_missing_masks",)):
            done = run("mvtec", "--root", str(root), *options)
            expect_error(done, root, f"bottle/train/{name} is not called 'good'", "--good")
        done = run("mvtec", "--root", str(root), "--good", name, "fine")
        assert done.status == 0 and "warning: --good fine: no class has such a folder" in done.errors
        index = load_index(root)
        assert f"bottle/train/{name}/8.png" in [one.img_path for one in index.train["bottle"]]
        assert {one.specie_name for one in index.test["bottle"]} == {"good", "broken"}
        assert (f"bottle/test/{name}/7.png", "", "good") in [
            (one.img_path, one.mask_path, one.specie_name) for one in index.test["bottle"]
        ]
    mvtec_tree(tmp_path)
    touch(tmp_path, "bottle/test/nok/7.png", "bottle/ground_truth/nok/7.png", "bottle/test/unclean/7.png")
    touch(tmp_path, "bottle/ground_truth/unclean/7.png")
    assert run("mvtec").status == 0


def test_mvtec_masks_under_other_names(tmp_path: Path, run: Callable[..., Done]) -> None:
    mvtec_tree(tmp_path)
    broken = tmp_path / "bottle/ground_truth/broken"
    (broken / "001_mask.png").unlink()
    for name in ("{}_gt.png", "{}_Mask.bmp", "gt_{}.png", "mask-{}_v2.tif", "{}_MASK.PNG"):
        for stem, mask in zip(("000", "002", "010"), sorted(broken.iterdir())):
            mask.rename(broken / name.format(stem))
        assert run("mvtec").status == 0
        masks = [one.mask_path for one in load_index(tmp_path).test["bottle"] if one.anomaly]
        assert masks == [f"bottle/ground_truth/broken/{name.format(stem)}" for stem in ("000", "002", "010")]
        (tmp_path / "meta.json").unlink()
    # Not one to one: one mask more, one fewer, two kinds of names, and the end of another number.
    touch(broken, "003_MASK.PNG")
    expect_error(run("mvtec"), tmp_path, "no mask", f"{broken} holds 000_MASK.PNG, 002_MASK.PNG, 003_MASK.PNG")
    (broken / "003_MASK.PNG").unlink()
    (broken / "002_MASK.PNG").rename(broken / "002_gt.PNG")
    expect_error(run("mvtec"), tmp_path, "no mask", f"{broken} holds 000_MASK.PNG, 002_gt.PNG")
    for mask in (*broken.iterdir(), *(tmp_path / "bottle/test/broken").glob("0[01]?.png")):
        mask.unlink()
    touch(tmp_path, "bottle/test/broken/1.png")
    touch(broken, "11.png")
    expect_error(run("mvtec"), tmp_path, "no mask", f"{broken} holds 11.png")
    shutil.rmtree(broken)
    expect_error(run("mvtec"), tmp_path, "no mask", "bottle/ground_truth holds good")


def test_mvtec_without_train_folder(tmp_path: Path, run: Callable[..., Done]) -> None:
    mvtec_tree(tmp_path)
    shutil.rmtree(tmp_path / "bottle/train")
    done = run("mvtec")
    assert done.status == 0 and any("zero-shot only: bottle without train images" in line for line in done.errors)
    index = load_index(tmp_path)
    assert index.train["bottle"] == [] and len(index.test["bottle"]) == 4 and len(index.train["metal_nut"]) == 1
    (tmp_path / "bottle/train/good").mkdir(parents=True)
    (tmp_path / "meta.json").unlink()
    expect_error(run("mvtec"), tmp_path, "class bottle has no images in")


def test_mvtec_empty_class(tmp_path: Path, run: Callable[..., Done]) -> None:
    mvtec_tree(tmp_path)
    (tmp_path / "metal_nut/train/good/a.JPG").unlink()
    expect_error(run("mvtec"), tmp_path, "metal_nut", str(tmp_path / "metal_nut/train/good"))
    touch(tmp_path, "metal_nut/train/good/a.png", "carpet/train/good/0.png", "carpet/test/good/note.txt")
    expect_error(run("mvtec"), tmp_path, "carpet", "test images")


# --- VisA ---

CSV_ROWS = [
    "object,split,label,image,mask",
    "pcb1,test,anomaly,pcb1/Data/Images/Anomaly/010.JPG,pcb1/Data/Masks/Anomaly/010.png",
    "pcb1,test,anomaly,pcb1/Data/Images/Anomaly/002.JPG,pcb1/Data/Masks/Anomaly/002.png",
    "pcb1,test,normal,pcb1/Data/Images/Normal/0003.JPG,",
    "pcb1,train,normal,pcb1/Data/Images/Normal/0002.JPG,",
    "pcb1,train,normal,pcb1/Data/Images/Normal/0001.JPG,",
    'candle,train,normal,"candle/Data/Images/Normal/a, b.JPG",',
    "candle,test,normal,candle/Data/Images/Normal/0001.JPG,",
    "cashew,train,normal,cashew/Data/Images/Normal/0001.JPG,",
]


def visa_tree(root: Path, rows: list[str], line_end: str = "\n") -> None:
    """Two of the three classes in the file exist."""
    touch(root, "split_csv/1cls.csv", "candle/Data/Images/Normal/a, b.JPG", "candle/Data/Images/Normal/0001.JPG")
    touch(root, *(f"pcb1/Data/Images/Normal/000{number}.JPG" for number in (1, 2, 3)))
    touch(root, *(f"pcb1/Data/Images/Anomaly/{number}.JPG" for number in ("002", "010")))
    touch(root, *(f"pcb1/Data/Masks/Anomaly/{number}.png" for number in ("002", "010")))
    (root / "split_csv" / "1cls.csv").write_bytes(line_end.join([*rows, ""]).encode())


VISA_META = {
    "train": {
        "candle": [item("candle/Data/Images/Normal/a, b.JPG", "candle", "good", 0)],
        "pcb1": [
            item("pcb1/Data/Images/Normal/0001.JPG", "pcb1", "good", 0),
            item("pcb1/Data/Images/Normal/0002.JPG", "pcb1", "good", 0),
        ],
    },
    "test": {
        "candle": [item("candle/Data/Images/Normal/0001.JPG", "candle", "good", 0)],
        "pcb1": [
            item("pcb1/Data/Images/Anomaly/002.JPG", "pcb1", "", 1, "pcb1/Data/Masks/Anomaly/002.png"),
            item("pcb1/Data/Images/Anomaly/010.JPG", "pcb1", "", 1, "pcb1/Data/Masks/Anomaly/010.png"),
            item("pcb1/Data/Images/Normal/0003.JPG", "pcb1", "good", 0),
        ],
    },
}


def test_visa_meta_json(tmp_path: Path, run: Callable[..., Done]) -> None:
    visa_tree(tmp_path, CSV_ROWS)
    done = run("visa")
    assert done.status == 0
    content = json.loads((tmp_path / "meta.json").read_text())
    assert content == VISA_META
    assert list(content["test"]) == ["candle", "pcb1"]
    (missing,) = done.errors
    assert all((name in missing.split("not in")[1]) == (name not in ("candle", "pcb1")) for name in VISA_CLASSES)
    assert "4 test images: 2 normal and 2 anomalous; 3 train images" in done.out
    assert "10 files: 9 are listed as images or masks, 1 left out:" in done.out
    touch(tmp_path, "pcb1/Data/Images/Normal/0004.JPG")
    assert any("1 not in split_csv/1cls.csv" in line and "Normal/0004.JPG" in line for line in run("visa").out)


def test_visa_columns_in_another_order_and_windows_paths(tmp_path: Path, run: Callable[..., Done]) -> None:
    def turn(row: str) -> str:
        return ",".join(row.replace("/", "\\").split(",")[::-1])

    rows = [row for row in CSV_ROWS if '"' not in row and not row.startswith("candle")]
    visa_tree(tmp_path, ["\ufeff" + turn(rows[0]), *map(turn, rows[1:])], "\r\n")
    assert run("visa").status == 0
    content = json.loads((tmp_path / "meta.json").read_text())
    assert content == {part: {"pcb1": classes["pcb1"]} for part, classes in VISA_META.items()}


@pytest.mark.parametrize(("separator", "end"), [(";", "\r\n"), ("\t", "\n"), (",", "\n")])
def test_visa_list_of_another_system(separator: str, end: str, tmp_path: Path, run: Callable[..., Done]) -> None:
    rows = [row.replace('"', "").replace("a, b", "a b").split(",") for row in CSV_ROWS]
    rows[0] = [f" {name.title()}" for name in rows[0]]
    rows[1:] = [[row[0], row[1].title(), row[2].upper(), *row[3:]] for row in rows[1:]]
    lines = [separator.join(row).replace("/", "\\") for row in rows]
    visa_tree(tmp_path, ["\ufeff" + lines[0], *lines[1:]], end)
    touch(tmp_path, "candle/Data/Images/Normal/a b.JPG")
    assert run("visa").status == 0
    expected = json.dumps(VISA_META).replace("a, b", "a b")
    assert json.loads((tmp_path / "meta.json").read_text()) == json.loads(expected)
    (tmp_path / "meta.json").unlink()
    visa_tree(tmp_path, [f"object{separator}split{separator}Path"])
    expect_error(run("visa"), tmp_path, "column label, image, mask is missing", "found object, split, path")


def test_visa_prepared_copy(tmp_path: Path, run: Callable[..., Done]) -> None:
    copy = tmp_path / "1cls"
    touch(copy, "pcb1/train/good/0.JPG", "pcb1/test/good/1.JPG", "pcb1/test/bad/2.JPG", "pcb1/ground_truth/bad/2.png")
    touch(copy, "mine/train/good/0.JPG", "mine/test/good/1.JPG")
    items = [item("pcb1/test/bad/2.JPG", "pcb1", "bad", 1, "pcb1/ground_truth/bad/2.png")]
    items.append(item("pcb1/test/good/1.JPG", "pcb1", "good", 0))
    for root in (copy, tmp_path):
        done = run("visa", "--root", str(root))
        assert done.status == 0 and any("--all_classes" in line and "mine" in line for line in done.errors)
        assert any(f"--data_path {copy}" in line for line in done.errors) == (root == tmp_path)
        content = json.loads((copy / "meta.json").read_text())
        assert content["test"] == {"pcb1": items} and len(content["train"]["pcb1"]) == 1
    assert run("visa", "--all_classes").status == 0 and list(load_index(copy).test) == ["mine", "pcb1"]


def test_visa_unknown_classes(tmp_path: Path, run: Callable[..., Done]) -> None:
    rows = [*CSV_ROWS, "mine,train,normal,mine/1.jpg,", "mine,test,normal,mine/2.jpg,", "gone,test,normal,gone/1.jpg,"]
    visa_tree(tmp_path, rows)
    touch(tmp_path, "mine/1.jpg", "mine/2.jpg")
    assert any("--all_classes" in line and "mine" in line for line in run("visa").errors)
    assert list(load_index(tmp_path).test) == ["candle", "pcb1"]
    assert any("1cls.csv" in line and "gone" in line for line in run("visa", "--all_classes").errors)
    assert list(load_index(tmp_path).test) == ["candle", "mine", "pcb1"]


# Rows of the file, and the error, with the line number if a row is wrong.
VISA_ERRORS: list[tuple[list[str], str]] = [
    (["object,split,label,image", *CSV_ROWS[1:]], "column mask is missing"),
    ([""], "column object, split, label, image, mask is missing"),
    (CSV_ROWS[:1], "no class of VisA"),
    ([*CSV_ROWS, CSV_ROWS[5]], "line 10: image pcb1/Data/Images/Normal/0001.JPG is listed twice"),
    ([*CSV_ROWS, "pcb1,val,normal,x.JPG,"], "line 10: split is 'val'"),
    ([*CSV_ROWS, "pcb1,test,bad,x.JPG,"], "line 10: label is 'bad'"),
    ([*CSV_ROWS, "pcb1,test"], "line 10: label is ''"),
    ([*CSV_ROWS, "pcb1,test,normal"], "line 10: image ''"),
    ([*CSV_ROWS, "pcb1,test,normal,../x.JPG,"], "line 10: image '../x.JPG'"),
    ([*CSV_ROWS, "../pcb1,test,normal,x.JPG,"], "line 10: object is '../pcb1'"),
    ([*CSV_ROWS, ",test,normal,x.JPG,"], "line 10: object is ''"),
    ([row for row in CSV_ROWS if "pcb1,train" not in row], "class pcb1 has no normal train images"),
    ([row for row in CSV_ROWS if "candle,test" not in row], "class candle has no test images"),
]


def test_visa_errors(tmp_path: Path, run: Callable[..., Done]) -> None:
    for rows, message in VISA_ERRORS:
        visa_tree(tmp_path, rows)
        expect_error(run("visa"), tmp_path, message)


def test_visa_files_that_are_missing(tmp_path: Path, run: Callable[..., Done]) -> None:
    expect_error(run("visa"), tmp_path, str(tmp_path / "split_csv/1cls.csv"))
    visa_tree(tmp_path, CSV_ROWS)
    (tmp_path / "pcb1/Data/Masks/Anomaly/010.png").unlink()
    image = str(tmp_path / "pcb1/Data/Images/Anomaly/010.JPG")
    expect_error(run("visa"), tmp_path, image, "--allow_missing_masks")
    done = run("visa", "--allow_missing_masks")
    assert done.status == 0 and image in done.errors[-1]
    assert [one.mask_path for one in load_index(tmp_path).test["pcb1"]] == ["pcb1/Data/Masks/Anomaly/002.png", "", ""]
    (tmp_path / "meta.json").unlink()
    (tmp_path / "pcb1/Data/Images/Normal/0002.JPG").unlink()
    expect_error(run("visa"), tmp_path, "line 5: image 'pcb1/Data/Images/Normal/0002.JPG'")
    (tmp_path / "split_csv/1cls.csv").write_bytes(b"object,split,label,image,mask\n\xff\xfe,,,,\n")
    expect_error(run("visa"), tmp_path, "1cls.csv", "UTF-8")
