"""Files that predict.py skips are counted, installed packages read more formats, and a missing package is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.conftest import Predict
from tests.tiny import CONFIG
from winclip import InputError, WinCLIP, defaults
from winclip.network.backbone import Backbone
from winclip.network.clip_backbone import load_backbone
from winclip.pictures.images import read_image
from winclip.prediction.pictures import RUN_FILE, Watch, about_files, list_pictures

Capture = pytest.CaptureFixture[str]
# First bytes of files from cameras and phones.
HEIC, AVIF = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", b"\0\0\0\x1cftypavif\0\0\0\0mif1avif"


READ = [("jfif", "JPEG"), ("jpe", "JPEG"), ("JPE", "JPEG"), ("gif", "GIF")]


@pytest.mark.parametrize(("ending", "kind"), READ + [("avif", "AVIF")] * ("AVIF" in defaults.IMAGE_FORMATS))
def test_endings_of_the_formats_that_are_read_are_taken(tmp_path: Path, ending: str, kind: str) -> None:
    Image.new("RGB", (40, 30), (90, 90, 90)).save(tmp_path / f"a.{ending}", kind)
    (found,) = list_pictures([str(tmp_path)])
    assert abs(np.asarray(read_image(found)).astype(int) - 90).max() <= 4


def test_the_summary_counts_what_is_left_aside_and_names_where_nothing_is(
    run: Predict, pictures: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(defaults.MISSING, ".heic", "pillow-heif")
    images, good, empty = pictures / "images", pictures / "good", pictures / "empty"
    empty.mkdir()
    for name in ("a.HEIC", "deep/b.heic", "notes.txt", "README", ".hidden.txt", "odd.\x1b[1m"):
        (images / name).write_bytes(HEIC)
    (good / "c.pdf").write_text("")
    (images / "earlier").mkdir()
    for name in (RUN_FILE, "predictions.csv"):
        (images / "earlier" / name).write_text("{}")
    places = [images, empty, f"{pictures}/nothing/*.png", f"{images}/*.txt", "--reference", good, "--save_path"]
    assert run(*places, pictures / "out") == 0
    lines = capsys.readouterr().out.splitlines()
    aside = "skipped among the pictures: .heic 2, .txt 1, .\\x1b[1m 1, without an ending 1"
    assert sum(line.startswith("skipped among the pictures: ") for line in lines) == 1
    (line,) = [line for line in lines if line.startswith("skipped among the pictures: ")]
    assert sorted(line.split("; ")[0].split(": ")[1].split(", ")) == sorted(aside.split(": ")[1].split(", "))
    assert line.endswith("; python -m pip install pillow-heif lets .heic be read")
    assert "skipped among the references: .pdf 1" in lines
    assert f"no pictures found in {empty}, {pictures}/nothing/*.png, {images}/*.txt" in lines
    assert line in json.loads((pictures / "out" / "run.json").read_text())["notes"]
    for given in ([empty], [empty, "--reference", good]):
        assert run(*given, "--save_path", pictures / "none") == 2
    with pytest.raises(InputError, match=r"no picture found in .*; skipped among the pictures: \.txt 1"):
        list_pictures([f"{images}/*.txt"])
    # A file that is named itself is not skipped.
    notes: list[str] = []
    list_pictures([str(images / "notes.txt"), f"{images}/*.txt"], notes)
    assert notes == [f"no pictures found in {images}/*.txt"]


def test_a_watch_counts_too(pictures: Path) -> None:
    watch = Watch([str(pictures / "images")])
    (pictures / "images" / "a.heic").write_bytes(HEIC)
    watch.pictures()
    watch.pictures()
    assert about_files(watch.aside, "pictures")[0].startswith("skipped among the pictures: .heic 1")
    file = pictures / "images" / "a.png"
    with pytest.raises(InputError, match="it is a file, and --watch takes folders"):
        Watch([str(file)]).pictures()


@pytest.mark.parametrize(
    ("content", "ending", "package"), [(HEIC, ".heic", "pillow-heif"), (AVIF, ".avif", "'pillow>=11.3'")]
)
def test_the_package_that_would_read_a_picture_is_named(
    tmp_path: Path, content: bytes, ending: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By content: phones sometimes name it .jpg."""
    path = tmp_path / "photo.jpg"
    path.write_bytes(content)
    monkeypatch.setitem(defaults.MISSING, ending, package)
    monkeypatch.setattr("winclip.pictures.images.IMAGE_FORMATS", ("PNG", "JPEG"))
    with pytest.raises(InputError) as caught:
        read_image(path)
    name = ending[1:].upper()
    assert str(caught.value).endswith(f"it is {name}; python -m pip install {package} lets it be read)")
    path.write_bytes(b"\0\0\0\x18ftypisom")
    with pytest.raises(InputError, match="it is none of PNG, JPEG, or its beginning is damaged"):
        read_image(path)


def test_a_folder_in_the_place_of_a_file_and_the_reverse(
    run: Predict, pictures: Path, backbone: Backbone, capsys: Capture
) -> None:
    model, folder, image = WinCLIP(backbone), str(pictures / "good"), pictures / "images" / "a.png"
    model.set_class("bolt")
    model.add_references(image)
    with pytest.raises(InputError, match=f"image {folder} is a folder; name a file in it"):
        model.predict(folder)
    with pytest.raises(InputError, match=f"memory {folder} is a folder; name a file in it"):
        model.load_memory(folder)
    with pytest.raises(InputError, match=rf"cannot write {folder} \(.*\); name a file in it"):
        model.save_memory(folder)
    for name in ("ViT-B-32", str(CONFIG)):
        with pytest.raises(InputError, match=r"it is a folder: name the file in it"):
            load_backbone(name, folder, device="cpu")
    (pictures / "weights.pt").mkdir()
    with pytest.raises(InputError, match=r"weights.pt is not a file; it is a folder: name the file in it"):
        load_backbone(str(CONFIG), str(pictures / "weights.pt"), device="cpu")
    for given, said in (
        (["--save_path", image], f"cannot write to {image}"),
        (["--memory", folder], "is a folder"),
        (["--prompt_set", folder], "use reference, paper or a .json file"),
        (["--region", folder], "neither x,y,w,h in pixels nor a file"),
        (["--watch"], "it is a file, and --watch takes folders"),
    ):
        assert run(image, *given) == 2
        assert said in capsys.readouterr().err


@pytest.mark.parametrize("name", [None, 3, "", " "])
def test_a_class_name_is_text(backbone: Backbone, name: Any) -> None:
    with pytest.raises(InputError, match=r"class name is .*; say what the images show"):
        WinCLIP(backbone).set_class(name)
