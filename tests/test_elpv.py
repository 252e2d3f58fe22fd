"""`python -m datasets elpv` on the installed package, and on small ones made for the test."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import elpv_dataset
import pytest
from PIL import Image

from datasets.index import check_files, load_index
from winclip.pictures.images import read_image

REPOSITORY = Path(__file__).resolve().parent.parent


def run(root: Path, *python_path: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, [*python_path, REPOSITORY]))}
    command = [sys.executable, "-m", "datasets", "elpv", "--root", str(root)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=root.parent)


def make_package(folder: Path, labels: str, images: int = 8) -> None:
    data = folder / "elpv_dataset" / "data"
    (data / "images").mkdir(parents=True)
    (folder / "elpv_dataset" / "__init__.py").write_text("")
    (data / "labels.csv").write_text(labels)
    for number in range(1, images + 1):
        Image.new("L", (3, 3), number).save(data / "images" / f"cell{number}.png")


LABELS = """images/cell3.png 0.0 mono
images/cell1.png  0.0  mono
images/cell2.png  1.0  poly
images/cell5.png  0.3333333333333333  mono
images/cell6.png  0.6666666666666666  mono
images/cell8.png  0.0  poly
images/cell7.png  1.0  mono
"""


def test_small_package(tmp_path: Path) -> None:
    make_package(tmp_path / "site", LABELS)
    root = tmp_path / "elpv"
    done = run(root, tmp_path / "site")
    assert done.returncode == 0, done.stderr

    def item(path: str, specie_name: str, anomaly: int) -> dict[str, object]:
        common = {"mask_path": "", "cls_name": "solar_cell"}
        return {"img_path": f"solar_cell/{path}", **common, "specie_name": specie_name, "anomaly": anomaly}

    content = (root / "meta.json").read_bytes()
    assert json.loads(content) == {
        "train": {"solar_cell": [item("train/good/cell1.png", "good", 0), item("train/good/cell8.png", "good", 0)]},
        "test": {
            "solar_cell": [
                item("test/defective/cell2.png", "defective", 1),
                item("test/defective/cell7.png", "defective", 1),
                item("test/good/cell3.png", "good", 0),
            ]
        },
    }
    assert read_image(root / "solar_cell/test/defective/cell7.png").getpixel((0, 0)) == (7, 7, 7)
    assert "CC BY-NC-SA 4.0" in done.stdout
    assert done.stderr == "warning: 2 of 7 cells have a defect probability between 0 and 1 and are left out\n"
    assert "5 files: 5 are listed as images or masks, 0 left out" in done.stdout
    assert "3 test images: 1 normal and 2 anomalous; 2 train images" in done.stdout

    # A second run repairs what was damaged and writes the same list.
    (root / "solar_cell/test/good/cell3.png").write_bytes(b"")
    assert run(root, tmp_path / "site").returncode == 0
    assert read_image(root / "solar_cell/test/good/cell3.png").getpixel((0, 0)) == (3, 3, 3)
    assert (root / "meta.json").read_bytes() == content


def test_installed_package(tmp_path: Path) -> None:
    done = run(tmp_path)
    assert done.returncode == 0, done.stderr
    assert "1469 test images: 754 normal and 715 anomalous; 754 train images" in done.stdout
    index = load_index(tmp_path)
    check_files(index, ["solar_cell"], index.train["solar_cell"])
    labels = (Path(elpv_dataset.__file__).parent / "data" / "labels.csv").read_text().splitlines()
    probabilities = {Path(line.split()[0]).name: float(line.split()[1]) for line in labels}
    for entry in [*index.train["solar_cell"], *index.test["solar_cell"]]:
        assert probabilities[Path(entry.img_path).name] == entry.anomaly
    assert read_image(tmp_path / index.test["solar_cell"][0].img_path).size == (300, 300)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (
            "images/cell1.png 0.0 mono\nimages/cell2.png\n",
            "labels.csv, line 2: 'images/cell2.png' is not an image path",
        ),
        ("images/cell1.png high mono\n", "labels.csv, line 1: 'images/cell1.png high mono' is not an image path"),
        ("images/cell1.png 7 mono\n", "with a probability from 0 to 1"),
        ("../cell1.png 0 mono\n", "labels.csv, line 1: '../cell1.png 0 mono' is not an image path"),
        ("images/cell1.png 0 mono\n", "lists 1 functional cells; expected 2 or more"),
        (LABELS + "images/cell99.png 1.0 mono\n", "cell99.png does not exist; install the package elpv-dataset again"),
    ],
)
def test_damaged_package(labels: str, message: str, tmp_path: Path) -> None:
    make_package(tmp_path / "site", labels)
    done = run(tmp_path / "elpv", tmp_path / "site")
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert message in done.stderr
    assert not (tmp_path / "elpv" / "meta.json").exists()


def test_missing_package(tmp_path: Path) -> None:
    # A module of that name that is no package stands for one that is not installed.
    (tmp_path / "elpv_dataset.py").write_text("")
    done = run(tmp_path / "elpv", tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: the Python package elpv-dataset is not installed; install it with: ")
    assert "pip install elpv-dataset" in done.stderr


def test_package_without_data(tmp_path: Path) -> None:
    (tmp_path / "elpv_dataset").mkdir()
    (tmp_path / "elpv_dataset" / "__init__.py").write_text("")
    done = run(tmp_path / "elpv", tmp_path)
    assert done.returncode == 2
    assert "the package elpv-dataset has no" in done.stderr


def test_root_that_cannot_be_written(tmp_path: Path) -> None:
    make_package(tmp_path / "site", LABELS)
    (tmp_path / "elpv").write_text("a file")
    done = run(tmp_path / "elpv", tmp_path / "site")
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: cannot write {tmp_path / 'elpv'}")
    assert (tmp_path / "elpv").read_text() == "a file"
