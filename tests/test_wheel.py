"""The library as pip installs it: nothing but winclip, with its data and its command, usable from any folder."""

from __future__ import annotations

import email
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from tests.conftest import ROOT
from winclip import __version__

EXAMPLE = """
import numpy as np
from PIL import Image

import winclip

model = winclip.WinCLIP.from_pretrained("demo-vit-240")
model.set_class("metal nut")
generator = np.random.RandomState(0)
good = [Image.fromarray(generator.randint(90, 120, (64, 64, 3)).astype(np.uint8)) for _ in range(3)]
model.add_references(good)
out = model.predict([good[0], Image.new("RGB", (80, 60), "red")])
print(winclip.__file__)
print(out.scores.shape, out.maps.shape, model.threshold().judge(out))
"""


def run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run([*map(str, command)], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, so that remains of an earlier build do not count."""
    source, out = tmp_path_factory.mktemp("source") / "winclip", tmp_path_factory.mktemp("wheel")
    leave_out = shutil.ignore_patterns(".*", "__pycache__", "data", "results", "build", "*.egg-info")
    shutil.copytree(ROOT, source, ignore=leave_out)
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", out, source, cwd=out)
    (built,) = out.iterdir()
    return built


@pytest.mark.slow
def test_the_wheel_holds_the_library_alone(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    library = {path.relative_to(ROOT).as_posix() for path in (ROOT / "winclip").rglob("*") if path.is_file()}
    library = {name for name in library if "__pycache__" not in name}
    assert {"winclip/py.typed", "winclip/demo/demo-vit-240.safetensors", "winclip/check_data/stages.npz"} <= library
    assert {name for name in names if not name.startswith(f"winclip-{__version__}.dist-info/")} == library


@pytest.mark.slow
def test_requirements_are_declared_once(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        metadata = email.message_from_bytes(archive.read(f"winclip-{__version__}.dist-info/METADATA"))
    found: dict[str, set[str]] = {}
    for requirement in metadata.get_all("Requires-Dist", []):
        name, _, marker = requirement.partition(";")
        found.setdefault(marker.replace("extra ==", "").strip(" \"'"), set()).add(name.strip().lower())
    assert set(found) == {"", "app", "export", "scale", "dev"}
    for extra, requirements in found.items():
        lines = (ROOT / f"requirements{extra and '-'}{extra}.txt").read_text().splitlines()
        assert requirements == {line.lower() for line in lines if not line.startswith("#")}
    assert {name.split(">")[0] for name in found[""]} >= {
        "torch", "torchvision", "open_clip_torch", "numpy", "scikit-learn", "scikit-image", "opencv-python-headless",
        "tabulate", "tqdm",
    }  # fmt: skip


@pytest.mark.slow
def test_the_installed_library_works_from_any_folder(wheel: Path, tmp_path: Path) -> None:
    run(sys.executable, "-m", "venv", "fresh", cwd=tmp_path)
    python = tmp_path / "fresh" / "bin" / "python"
    run(python, "-m", "pip", "install", "--quiet", "--no-deps", wheel, cwd=tmp_path)
    listed = run(python, "-m", "pip", "list", "--format=freeze", cwd=tmp_path).split()
    assert {line.split("==")[0] for line in listed} - {"pip", "setuptools", "wheel"} == {"winclip"}
    (packages,) = (tmp_path / "fresh").glob("lib/python*/site-packages")
    assert {path.name for path in packages.glob("[a-z]*") if "-" not in path.name} <= {
        "winclip", "pip", "setuptools", "pkg_resources", "_distutils_hack", "distutils-precedence.pth",
    }  # fmt: skip
    # What the library needs comes from this environment, so that the test takes seconds; the environment's
    # own, editable winclip is not reached through it.
    (packages / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    file, results = run(python, "-c", EXAMPLE, cwd=elsewhere).splitlines()
    assert Path(file).is_relative_to(tmp_path / "fresh")
    assert results.startswith("(2,) (2, 240, 240) [False,")
    command = python.with_name("winclip")
    assert run(command, "--version", cwd=elsewhere) == f"winclip {__version__}\n"
    assert "few2_image_score" in run(command, "check", "--device", "cpu", "--no_speed", cwd=elsewhere)
    run(command, "predict", "--demo", "--device", "cpu", "--save_path", "out", cwd=elsewhere)
    assert (elsewhere / "out" / "predictions.csv").stat().st_size > 100


def test_nothing_patches_the_path() -> None:
    sources = [path for path in ROOT.rglob("*.py") if not path.relative_to(ROOT).parts[0].startswith(".venv")]
    assert len(sources) > 80
    patching = [str(path) for path in sources if "sys.path" in path.read_text() and path.name != "test_wheel.py"]
    assert patching == []
