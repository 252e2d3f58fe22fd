"""`python -m datasets elpv` on the installed package, and on small ones made for the test."""

from __future__ import annotations

import importlib
import json
import shutil
import sys
from pathlib import Path

import elpv_dataset
import pytest
from PIL import Image

from datasets.__main__ import main
from datasets.elpv import read_labels
from datasets.index import check_files, load_index
from winclip.pictures.images import read_image

Capture = pytest.CaptureFixture[str]
LABELS = """images/cell3.png 0.0 mono
images/cell1.png  0.0  mono
images/cell2.png  1.0  poly
images/cell5.png  0.3333333333333333  mono
images/cell6.png  0.6666666666666666  mono
images/cell8.png  0.0  poly
images/cell7.png  1.0  mono
"""


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder where Python looks for packages first."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, "elpv_dataset")
    return folder


def make_package(site: Path, labels: str) -> None:
    data = site / "elpv_dataset" / "data"
    (data / "images").mkdir(parents=True, exist_ok=True)
    (site / "elpv_dataset" / "__init__.py").write_text("")
    (data / "labels.csv").write_text(labels)
    for number in range(1, 9):
        Image.new("L", (3, 3), number).save(data / "images" / f"cell{number}.png")


def test_small_package(site: Path, tmp_path: Path, capsys: Capture) -> None:
    make_package(site, LABELS)
    root = tmp_path / "elpv"
    assert main(["elpv", "--root", str(root)]) == 0
    shown = capsys.readouterr()

    def items(part: str, specie_name: str, *numbers: int) -> list[dict[str, object]]:
        common = {"mask_path": "", "cls_name": "solar_cell", "specie_name": specie_name}
        path, anomaly = f"solar_cell/{part}/{specie_name}/cell", int(specie_name != "good")
        return [{"img_path": f"{path}{number}.png", **common, "anomaly": anomaly} for number in numbers]

    content = (root / "meta.json").read_bytes()
    test = [*items("test", "defective", 2, 7), *items("test", "good", 3)]
    assert json.loads(content) == {"train": {"solar_cell": items("train", "good", 1, 8)}, "test": {"solar_cell": test}}
    assert read_image(root / "solar_cell/test/defective/cell7.png").getpixel((0, 0)) == (7, 7, 7)
    assert "CC BY-NC-SA 4.0" in shown.out
    assert shown.err.startswith("warning: 2 of 7 cells")
    assert "5 files: 5 are listed as images or masks, 0 left out" in shown.out
    assert "3 test images: 1 normal and 2 anomalous; 2 train images" in shown.out

    # A second run repairs what was damaged and writes the same list.
    (root / "solar_cell/test/good/cell3.png").write_bytes(b"")
    assert main(["elpv", "--root", str(root)]) == 0
    assert read_image(root / "solar_cell/test/good/cell3.png").getpixel((0, 0)) == (3, 3, 3)
    assert (root / "meta.json").read_bytes() == content


def test_labels_of_another_system(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    expected = {"images/a.png": 0.0, "images/b.png": 0.3333, "images/c d.png": 1.0}
    for sign in ("\t", ";", ","):
        for header in ("", sign.join(("Path", "Probability", "Type")) + "\r\n"):
            lines = [
                sign.join(cells) for cells in (("images\\a.png", "0.0", "mono"), ('"images/b.png"', " 0.3333", "poly"))
            ]
            path.write_text(header + "\r\n".join([*lines, sign.join(("images/c d.png", "1", "x"))]) + "\r\n")
            assert read_labels(path) == expected
    path.write_text("images/b.png;0,3333;mono\n")
    assert read_labels(path) == {"images/b.png": 0.3333}


def test_installed_package(tmp_path: Path, capsys: Capture) -> None:
    assert main(["elpv", "--root", str(tmp_path)]) == 0
    assert "1469 test images: 754 normal and 715 anomalous; 754 train images" in capsys.readouterr().out
    index = load_index(tmp_path)
    check_files(index, ["solar_cell"], index.train["solar_cell"])
    labels = (Path(elpv_dataset.__file__).parent / "data" / "labels.csv").read_text().splitlines()
    probabilities = {Path(line.split()[0]).name: float(line.split()[1]) for line in labels}
    for entry in [*index.train["solar_cell"], *index.test["solar_cell"]]:
        assert probabilities[Path(entry.img_path).name] == entry.anomaly
    assert read_image(tmp_path / index.test["solar_cell"][0].img_path).size == (300, 300)


def test_damaged_or_missing_package(site: Path, tmp_path: Path, capsys: Capture) -> None:
    root = tmp_path / "elpv"
    for labels, message in (
        ("images/cell1.png 0.0 mono\nimages/cell2.png\n", "labels.csv, line 2: 'images/cell2.png'"),
        ("images/cell1.png high mono\n", "labels.csv, line 1: 'images/cell1.png high mono'"),
        ("images/cell1.png 7 mono\n", "labels.csv, line 1: "),
        ("../cell1.png 0 mono\n", "labels.csv, line 1: '../cell1.png 0 mono'"),
        ("images/cell1.png 0 mono\n", "1 functional cell;"),
        (LABELS + "images/cell99.png 1.0 mono\n", "cell99.png"),
    ):
        make_package(site, labels)
        assert main(["elpv", "--root", str(root)]) == 2
        assert message in capsys.readouterr().err
        assert not (root / "meta.json").exists()
    shutil.rmtree(root)
    root.write_text("a file")
    (site / "elpv_dataset" / "data" / "labels.csv").write_text(LABELS)
    assert main(["elpv", "--root", str(root)]) == 2
    assert str(root) in capsys.readouterr().err and root.read_text() == "a file"
    # A module of that name stands for a package that is not installed.
    shutil.rmtree(site / "elpv_dataset")
    (site / "elpv_dataset.py").write_text("")
    importlib.invalidate_caches()
    assert main(["elpv", "--root", str(root)]) == 2
    assert "elpv-dataset" in capsys.readouterr().err
