"""Small fixtures that many tests share: the tiny backbone's checkpoint and a matching data set."""

from __future__ import annotations

import importlib.util
import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.tiny import CONFIG, save_tiny_checkpoint, tiny_backbone
from winclip.commands import predict
from winclip.network.clip_backbone import ClipBackbone

ROOT = Path(__file__).parent.parent
Main = Callable[[list[str]], int]
Predict = Callable[..., int]


@pytest.fixture(scope="session", autouse=True)
def cache_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Keep text embeddings of the tests apart from the user's."""
    with pytest.MonkeyPatch.context() as patch:
        home = tmp_path_factory.mktemp("cache")
        patch.setenv("XDG_CACHE_HOME", str(home))
        yield home


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of the tiny model."""
    return save_tiny_checkpoint(tmp_path_factory.mktemp("checkpoint") / "tiny.safetensors")


@pytest.fixture(scope="session")
def backbone(checkpoint: Path) -> ClipBackbone:
    """The tiny model, 96 pixels, 6 x 6 patches."""
    return tiny_backbone(checkpoint.parent)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data set of two classes, ``bolt`` and ``felt``: 4 train, 3 good and 3 scratched test images each."""
    return make_data(tmp_path / "data")


@pytest.fixture(scope="session")
def evaluation_main() -> Main:
    """The main of test.py."""
    specification = importlib.util.spec_from_file_location("evaluate_test_py", ROOT / "test.py")
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    main: Main = module.main
    return main


@pytest.fixture(scope="session")
def evaluate(evaluation_main: Main, checkpoint: Path) -> Callable[..., int]:
    """Calls test.py's main with the tiny model; returns the exit status."""

    def call(data: Path, save: Path, *more: str) -> int:
        model = [] if "--model" in more else ["--model", str(CONFIG)]
        weights = [] if "--pretrained" in more else ["--pretrained", str(checkpoint)]
        places = ["--dataset", "small", "--data_path", str(data), "--save_path", str(save)]
        return evaluation_main([*places, *model, *weights, "--device", "cpu", *more])

    return call


@pytest.fixture
def run(checkpoint: Path) -> Predict:
    """Calls predict.py's main with the tiny model; returns the exit status."""

    def call(*arguments: str | Path, class_name: str | None = "bolt") -> int:
        model = ["--model", str(CONFIG), "--pretrained", str(checkpoint), "--device", "cpu", "--batch_size", "2"]
        named = [] if class_name is None else ["--class_name", class_name]
        return predict.main([*named, *map(str, arguments), *model])

    return call


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """``good`` with 3 pictures, and ``images`` with 5 of several sizes in two folders, one of them damaged."""
    generator = np.random.RandomState(0)
    sizes = {"good/0": (50, 60), "good/1": (50, 60), "good/2": (50, 60)}
    sizes |= {"images/a": (50, 60), "images/b": (130, 70), "images/deep/a": (20, 200), "images/deep/c": (96, 96)}
    for name, (height, width) in sizes.items():
        path = tmp_path / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = generator.randint(90, 130, (height, width, 3)).astype(np.uint8)
        if name == "images/b":
            pixels[20:60, 10:40] = (255, 0, 0)
        Image.fromarray(pixels).save(path)
    (tmp_path / "images" / "text.png").write_text("no picture")
    return tmp_path


@pytest.fixture
def logged() -> Iterator[list[str]]:
    """The project's log during the test, whatever an entry point did to it before."""
    messages: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            messages.append(record.getMessage())

    handler = Keep(logging.WARNING)
    log = logging.getLogger("winclip")
    log.addHandler(handler)
    yield messages
    log.removeHandler(handler)


def make_data(root: Path) -> Path:
    """Write the data set of the ``data`` fixture."""
    generator = np.random.RandomState(0)
    meta: dict[str, dict[str, list[dict[str, object]]]] = {"train": {}, "test": {}}
    for name in ("bolt", "felt"):
        meta["train"][name] = [_item(root, generator, name, "train", "good", i) for i in range(4)]
        meta["test"][name] = [
            _item(root, generator, name, "test", kind, i) for kind in ("good", "scratch") for i in range(3)
        ]
    (root / "meta.json").write_text(json.dumps(meta))
    return root


def _item(
    root: Path, generator: np.random.RandomState, name: str, part: str, kind: str, number: int
) -> dict[str, object]:
    pixels = generator.randint(90, 130, (60, 50, 3)).astype(np.uint8)
    mask = np.zeros((60, 50), np.uint8)
    if kind != "good":
        mask[10 + 5 * number : 25 + 5 * number, 20:30] = 255
        pixels[mask > 0] += 100
    image_path, mask_path = f"{name}/{part}/{kind}/{number}.png", f"{name}/masks/{kind}/{number}.png"
    for path, values in ((image_path, pixels), (mask_path, mask)):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(values).save(root / path)
    return {
        "img_path": image_path,
        "mask_path": "" if kind == "good" else mask_path,
        "cls_name": name,
        "specie_name": kind,
        "anomaly": int(kind != "good"),
    }
