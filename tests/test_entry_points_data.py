"""mvtec.py and visa.py, run as commands on hand-made trees."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from datasets.index import load_index
from datasets.mvtec import MVTEC_CLASSES
from datasets.visa import VISA_CLASSES

REPOSITORY = Path(__file__).resolve().parent.parent


def run(script: str, root: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(REPOSITORY / script), "--root", str(root), *options]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def touch(root: Path, *paths: str) -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"")


def item(img_path: str, cls_name: str, specie_name: str, anomaly: int, mask_path: str = "") -> dict[str, object]:
    return {
        "img_path": img_path,
        "mask_path": mask_path,
        "cls_name": cls_name,
        "specie_name": specie_name,
        "anomaly": anomaly,
    }


def expect_error(done: subprocess.CompletedProcess[str], root: Path, message: str) -> None:
    """One line, exit status 2, nothing written."""
    assert done.returncode == 2
    errors = [line for line in done.stderr.splitlines() if not line.startswith("warning: ")]
    assert len(errors) == 1
    assert errors[0].startswith("error: ")
    assert message in errors[0]
    assert done.stdout == ""
    assert not (root / "meta.json").exists()
    assert not list(root.glob("**/*.tmp"))


@pytest.mark.parametrize("script", ["mvtec.py", "visa.py"])
def test_help_needs_neither_torch_nor_numpy(script: str) -> None:
    blocked = "import sys; sys.modules.update(dict.fromkeys(('torch', 'numpy', 'PIL', 'open_clip')))"
    program = (
        f"{blocked}; sys.argv = ['{script}', '--help']; import runpy; runpy.run_path('{script}', run_name='__main__')"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=REPOSITORY)
    assert done.returncode == 0, done.stderr
    for option in ("--root", "--all_classes", "--allow_missing_masks", f"data/{script[:-3]}"):
        assert option in done.stdout


@pytest.mark.parametrize("script", ["mvtec.py", "visa.py"])
def test_missing_root(script: str, tmp_path: Path) -> None:
    root = tmp_path / "nowhere"
    expect_error(run(script, root), root, f"data set folder {root} does not exist; name its place with --root")


@pytest.mark.parametrize("script", ["mvtec.py", "visa.py"])
def test_unknown_option(script: str, tmp_path: Path) -> None:
    done = run(script, tmp_path, "--colour")
    assert done.returncode == 2
    assert "unrecognized arguments: --colour" in done.stderr


# --- MVTec AD ---


def mvtec_tree(root: Path) -> None:
    """Two classes; the images of bottle/broken have a gap that position matching would fall into."""
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
        "bottle": [
            item("bottle/train/good/000.png", "bottle", "good", 0),
            item("bottle/train/good/001.png", "bottle", "good", 0),
        ],
        "metal_nut": [item("metal_nut/train/good/a.JPG", "metal_nut", "good", 0)],
    },
    "test": {
        "bottle": [
            item("bottle/test/broken/000.png", "bottle", "broken", 1, "bottle/ground_truth/broken/000_mask.png"),
            item("bottle/test/broken/002.png", "bottle", "broken", 1, "bottle/ground_truth/broken/002_mask.png"),
            item("bottle/test/broken/010.png", "bottle", "broken", 1, "bottle/ground_truth/broken/010_mask.png"),
            item("bottle/test/good/000.png", "bottle", "good", 0),
        ],
        "metal_nut": [
            item("metal_nut/test/bent/a.tiff", "metal_nut", "bent", 1, "metal_nut/groundtruth/bent/a_mask.bmp"),
            item("metal_nut/test/bent/b.bmp", "metal_nut", "bent", 1, "metal_nut/groundtruth/bent/b_mask.png"),
            item("metal_nut/test/scratch/a.JPEG", "metal_nut", "scratch", 1, "metal_nut/groundtruth/scratch/a.PNG"),
        ],
    },
}


def test_mvtec_meta_json(tmp_path: Path) -> None:
    mvtec_tree(tmp_path)
    done = run("mvtec.py", tmp_path)
    assert done.returncode == 0, done.stderr
    content = (tmp_path / "meta.json").read_bytes()
    assert json.loads(content) == MVTEC_META
    assert list(json.loads(content)["test"]) == ["bottle", "metal_nut"]
    endings = "with another ending than .png .jpg .jpeg .bmp .tif .tiff .webp"
    assert done.stdout.splitlines()[5:-1] == [
        "22 files: 16 are listed as images or masks, 6 left out:",
        "  2 hidden, or of an archive program; the first is bottle/test/.DS_Store",
        "  2 masks of no anomalous image that is listed; the first is bottle/ground_truth/broken/001_mask.png",
        f"  2 {endings}; the first is bottle/train/good/Thumbs.db",
    ]
    assert [line.split() for line in [*done.stdout.splitlines()[:5], done.stdout.splitlines()[-1]]] == [
        ["class", "train", "normal", "anomalous"],
        ["bottle", "2", "1", "3"],
        ["metal_nut", "1", "0", "3"],
        ["all", "3", "1", "6"],
        ["7", "test", "images:", "1", "normal", "and", "6", "anomalous;", "3", "train", "images"],
        ["written:", str(tmp_path / "meta.json")],
    ]
    warnings = done.stderr.splitlines()
    assert len(warnings) == 2
    missing = ", ".join(name for name in MVTEC_CLASSES if name not in ("bottle", "metal_nut"))
    assert warnings[0] == f"warning: classes of MVTec AD that are not in {tmp_path}: {missing}"
    folder = tmp_path / "bottle" / "ground_truth" / "broken"
    assert warnings[1] == f"warning: 1 masks in {folder} belong to no image, the first is 001_mask.png"
    assert load_index(tmp_path).root == tmp_path
    run("mvtec.py", tmp_path)
    assert (tmp_path / "meta.json").read_bytes() == content


def test_mvtec_with_all_classes_there_warns_of_nothing(tmp_path: Path) -> None:
    for name in MVTEC_CLASSES:
        touch(tmp_path, f"{name}/train/good/0.png", f"{name}/test/good/0.png")
    done = run("mvtec.py", tmp_path)
    assert done.returncode == 0
    assert done.stderr == ""
    assert len(MVTEC_CLASSES) == len(load_index(tmp_path).test) == 15


def test_mvtec_unknown_folders(tmp_path: Path) -> None:
    mvtec_tree(tmp_path)
    touch(tmp_path, "my part/train/good/0.png", "my part/test/good/0.png", "notes/readme.txt", "__MACOSX/bottle/x.png")
    done = run("mvtec.py", tmp_path)
    assert "warning: no class of MVTec AD, left out (--all_classes takes them): my part\n" in done.stderr
    assert "warning: no train or test folder inside, left out: notes\n" in done.stderr
    assert list(load_index(tmp_path).test) == ["bottle", "metal_nut"]
    done = run("mvtec.py", tmp_path, "--all_classes")
    assert done.returncode == 0
    assert "my part" not in done.stderr
    assert "warning: no train or test folder inside, left out: notes\n" in done.stderr
    assert list(load_index(tmp_path).test) == ["bottle", "metal_nut", "my part"]


def test_mvtec_accounts_for_every_file(tmp_path: Path) -> None:
    mvtec_tree(tmp_path)
    touch(
        tmp_path,
        "bottle/train/good/002.webp",
        "bottle/train/good/old/000.png",
        "bottle/train/rest/000.png",
        "bottle/test/000.png",
        "bottle/test/broken/cam1/a\x1b[2J.png",
        "bottle/test/broken/cam2/a/b.png",
        "bottle/test/broken/003.gif",
        "bottle/notes/000.png",
        "bottle/000.png",
        "my part/train/good/0.png",
        "0.png",
    )
    (tmp_path / "bottle" / "test" / "broken" / "up").symlink_to(tmp_path / "bottle" / "test")
    (tmp_path / "bottle" / "test" / "broken" / "circle.png").symlink_to("circle.png")
    done = run("mvtec.py", tmp_path)
    assert done.returncode == 0, done.stderr
    assert [entry.img_path for entry in load_index(tmp_path).train["bottle"]][-1] == "bottle/train/good/002.webp"
    lines = done.stdout.splitlines()
    assert lines[5] == "34 files: 17 are listed as images or masks, 17 left out:"
    inside = "in folders inside the one that names good or a defect; move them up"
    assert lines[6:-1] == [
        "  1 a link to nothing; the first is bottle/test/broken/circle.png",
        "  1 directly in test, in no folder that names good or a defect; the first is bottle/test/000.png",
        "  2 hidden, or of an archive program; the first is bottle/test/.DS_Store",
        "  1 in a folder of train that is not the one of good images; the first is bottle/train/rest/000.png",
        f"  3 {inside}; the first is bottle/test/broken/cam1/a\\x1b[2J.png",
        "  2 in no class folder that is listed; the first is 0.png",
        "  2 in none of train, test and ground_truth; the first is bottle/000.png",
        "  2 masks of no anomalous image that is listed; the first is bottle/ground_truth/broken/001_mask.png",
        "  3 with another ending than .png .jpg .jpeg .bmp .tif .tiff .webp; the first is bottle/test/broken/003.gif",
    ]


@pytest.mark.parametrize("folder", ["test/Good", "train/GOOD"])
def test_mvtec_other_spelling_of_good(folder: str, tmp_path: Path) -> None:
    mvtec_tree(tmp_path)
    touch(tmp_path, f"bottle/{folder}/7.png")
    message = f"{tmp_path / 'bottle' / folder} is not called 'good', so its images would not count as good; rename it"
    expect_error(run("mvtec.py", tmp_path, "--allow_missing_masks"), tmp_path, message)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows knows no such names")
@pytest.mark.parametrize("name", ["a\nb", "a\\b", "mean"])
def test_mvtec_class_folders_that_meta_json_cannot_name(name: str, tmp_path: Path) -> None:
    touch(tmp_path, f"{name}/train/good/0.png", f"{name}/test/good/0.png")
    expect_error(run("mvtec.py", tmp_path, "--all_classes"), tmp_path, f"meta.json: train, class {name!r}: ")


def test_mvtec_own_data_alone(tmp_path: Path) -> None:
    touch(tmp_path, "part/train/good/0.png", "part/test/good/0.png")
    expect_error(run("mvtec.py", tmp_path), tmp_path, "--all_classes takes these: part")
    done = run("mvtec.py", tmp_path, "--all_classes")
    assert done.returncode == 0
    assert done.stderr == ""


def test_mvtec_without_any_class(tmp_path: Path) -> None:
    expect_error(run("mvtec.py", tmp_path), tmp_path, f"{tmp_path} holds no class of MVTec AD such as")


def test_mvtec_image_without_mask(tmp_path: Path) -> None:
    mvtec_tree(tmp_path)
    (tmp_path / "bottle/ground_truth/broken/002_mask.png").unlink()
    image = tmp_path / "bottle/test/broken/002.png"
    expected = tmp_path / "bottle/ground_truth/broken/002_mask.png"
    message = (
        f"class bottle: 1 anomalous images have no mask, the first is {image}, expected {expected}, or a"
        " folder 002 of masks; --allow_missing_masks lists them without"
    )
    expect_error(run("mvtec.py", tmp_path), tmp_path, message)
    done = run("mvtec.py", tmp_path, "--allow_missing_masks")
    assert done.returncode == 0
    assert f"warning: class bottle: 1 anomalous images have no mask, the first is {image}\n" in done.stderr
    masks = [entry.mask_path for entry in load_index(tmp_path).test["bottle"]]
    assert masks == [
        "bottle/ground_truth/broken/000_mask.png",
        "",
        "bottle/ground_truth/broken/010_mask.png",
        "",
    ]


def test_mvtec_empty_class(tmp_path: Path) -> None:
    mvtec_tree(tmp_path)
    (tmp_path / "metal_nut/train/good/a.JPG").unlink()
    message = f"class metal_nut has no images in {tmp_path / 'metal_nut/train/good'}"
    expect_error(run("mvtec.py", tmp_path), tmp_path, message)
    touch(tmp_path, "metal_nut/train/good/a.png", "carpet/train/good/0.png", "carpet/test/good/note.txt")
    message = f"class carpet has no images in the folders of {tmp_path / 'carpet/test'}"
    expect_error(run("mvtec.py", tmp_path), tmp_path, message)


@pytest.mark.parametrize(
    "twin",
    ["bottle/test/broken/000.jpg", "bottle/ground_truth/broken/000_mask.bmp", "bottle/groundtruth/broken/000_mask.png"],
)
def test_mvtec_names_that_leave_the_mask_open(twin: str, tmp_path: Path) -> None:
    mvtec_tree(tmp_path)
    touch(tmp_path, twin)
    expect_error(run("mvtec.py", tmp_path), tmp_path, "so masks cannot be matched by name")


def test_mvtec_root_that_cannot_be_written(tmp_path: Path) -> None:
    mvtec_tree(tmp_path)
    (tmp_path / "meta.json").mkdir()
    done = run("mvtec.py", tmp_path)
    assert done.returncode == 2
    assert f"error: cannot write {tmp_path / 'meta.json'} (" in done.stderr
    assert done.stdout == ""


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
    """Two classes of the three that the file lists are there."""
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


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_visa_meta_json(line_end: str, tmp_path: Path) -> None:
    visa_tree(tmp_path, CSV_ROWS, line_end)
    done = run("visa.py", tmp_path)
    assert done.returncode == 0, done.stderr
    content = json.loads((tmp_path / "meta.json").read_text())
    assert content == VISA_META
    assert list(content["test"]) == ["candle", "pcb1"]
    missing = ", ".join(name for name in VISA_CLASSES if name not in ("candle", "pcb1"))
    assert done.stderr == f"warning: classes of VisA without a folder in {tmp_path} or rows in 1cls.csv: {missing}\n"
    assert "4 test images: 2 normal and 2 anomalous; 3 train images" in done.stdout
    assert "10 files: 9 are listed as images or masks, 1 left out:\n  1 with another ending" in done.stdout
    touch(tmp_path, "pcb1/Data/Images/Normal/0004.JPG")
    left_out = (
        "  1 not in split_csv/1cls.csv, or the mask of a normal image; the first is pcb1/Data/Images/Normal/0004.JPG"
    )
    assert left_out in run("visa.py", tmp_path).stdout.splitlines()
    assert load_index(tmp_path).root == tmp_path


def test_visa_columns_in_another_order_and_windows_paths(tmp_path: Path) -> None:
    def turn(row: str) -> str:
        return ",".join(row.replace("/", "\\").split(",")[::-1])

    rows = [row for row in CSV_ROWS if '"' not in row and not row.startswith("candle")]
    visa_tree(tmp_path, ["\ufeff" + turn(rows[0]), *map(turn, rows[1:])])
    done = run("visa.py", tmp_path)
    assert done.returncode == 0, done.stderr
    content = json.loads((tmp_path / "meta.json").read_text())
    assert content == {part: {"pcb1": classes["pcb1"]} for part, classes in VISA_META.items()}


def test_visa_unknown_classes(tmp_path: Path) -> None:
    rows = [*CSV_ROWS, "mine,train,normal,mine/1.jpg,", "mine,test,normal,mine/2.jpg,", "gone,test,normal,gone/1.jpg,"]
    visa_tree(tmp_path, rows)
    touch(tmp_path, "mine/1.jpg", "mine/2.jpg")
    done = run("visa.py", tmp_path)
    assert "warning: no class of VisA, left out (--all_classes takes them): gone, mine\n" in done.stderr
    assert list(load_index(tmp_path).test) == ["candle", "pcb1"]
    done = run("visa.py", tmp_path, "--all_classes")
    assert done.returncode == 0
    assert f"warning: listed in 1cls.csv without a folder in {tmp_path}, left out: gone\n" in done.stderr
    assert list(load_index(tmp_path).test) == ["candle", "mine", "pcb1"]


def without_mask_file(root: Path) -> None:
    (root / "pcb1/Data/Masks/Anomaly/010.png").unlink()


def without_image(root: Path) -> None:
    (root / "pcb1/Data/Images/Normal/0002.JPG").unlink()


def unchanged(root: Path) -> None:
    pass


VISA_ERRORS: list[tuple[Callable[[Path], None], list[str], str]] = [
    (without_image, CSV_ROWS, "1cls.csv, line 5: image 'pcb1/Data/Images/Normal/0002.JPG' does not exist in"),
    (
        without_mask_file,
        CSV_ROWS,
        "1cls.csv, line 2: the mask of the anomalous image pcb1/Data/Images/Anomaly/010.JPG is",
    ),
    (
        unchanged,
        ["object,split,label,image", *CSV_ROWS[1:]],
        "column mask is missing; expected the columns object, split,",
    ),
    (unchanged, [""], "column object, split, label, image, mask is missing"),
    (unchanged, CSV_ROWS[:1], "holds no class folder of VisA such as"),
    (unchanged, [*CSV_ROWS, CSV_ROWS[5]], "line 10: image pcb1/Data/Images/Normal/0001.JPG is listed twice"),
    (unchanged, [*CSV_ROWS, "pcb1,val,normal,x.JPG,"], "line 10: split is 'val'; expected train or test"),
    (unchanged, [*CSV_ROWS, "pcb1,test,bad,x.JPG,"], "line 10: label is 'bad'; expected normal or anomaly"),
    (unchanged, [*CSV_ROWS, "pcb1,test"], "line 10: label is ''; expected normal or anomaly"),
    (unchanged, [*CSV_ROWS, "pcb1,test,normal"], "line 10: image '' does not exist"),
    (unchanged, [*CSV_ROWS, "pcb1,test,normal,../x.JPG,"], "line 10: image '../x.JPG' leads out of"),
    (
        unchanged,
        [*CSV_ROWS, "../pcb1,test,normal,x.JPG,"],
        "line 10: object is '../pcb1'; expected the name of a class",
    ),
    (unchanged, [*CSV_ROWS, ",test,normal,x.JPG,"], "line 10: object is ''; expected the name of a class"),
    (unchanged, [*CSV_ROWS, "pcb1,train,anomaly,x.JPG,"], "line 10: x.JPG is an anomalous image in the train split"),
    (unchanged, [row for row in CSV_ROWS if "pcb1,train" not in row], "class pcb1 has no train images in"),
    (unchanged, [row for row in CSV_ROWS if "candle,test" not in row], "class candle has no test images in"),
]


@pytest.mark.parametrize(("change", "rows", "message"), VISA_ERRORS)
def test_visa_errors(change: Callable[[Path], None], rows: list[str], message: str, tmp_path: Path) -> None:
    visa_tree(tmp_path, rows)
    change(tmp_path)
    expect_error(run("visa.py", tmp_path), tmp_path, message)


def test_visa_mask_that_is_missing_can_be_allowed(tmp_path: Path) -> None:
    visa_tree(tmp_path, CSV_ROWS)
    without_mask_file(tmp_path)
    done = run("visa.py", tmp_path, "--allow_missing_masks")
    assert done.returncode == 0
    image = tmp_path / "pcb1/Data/Images/Anomaly/010.JPG"
    assert f"warning: 1 anomalous images have no mask, the first is {image}\n" in done.stderr
    assert [entry.mask_path for entry in load_index(tmp_path).test["pcb1"]] == [
        "pcb1/Data/Masks/Anomaly/002.png",
        "",
        "",
    ]


def test_visa_without_its_csv_file(tmp_path: Path) -> None:
    message = f"{tmp_path / 'split_csv/1cls.csv'} does not exist; VisA's archive holds it"
    expect_error(run("visa.py", tmp_path), tmp_path, message)


def test_visa_csv_in_another_encoding(tmp_path: Path) -> None:
    touch(tmp_path, "split_csv/1cls.csv")
    (tmp_path / "split_csv/1cls.csv").write_bytes(b"object,split,label,image,mask\n\xff\xfe,,,,\n")
    expect_error(run("visa.py", tmp_path), tmp_path, "is not UTF-8 text")
