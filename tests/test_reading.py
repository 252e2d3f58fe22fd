"""The one reader: order, batches, workers, and entries that cannot be read."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch
from PIL import Image

from winclip.backbone import Backbone
from winclip.images import preprocess, read_image
from winclip.reading import Batch, read_batches


def load(name: str, folder: Path) -> tuple[Image.Image, int]:
    return read_image(folder / name), len(name)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(5):
        Image.new("RGB", (20 + number, 30), (40 * number, 10, 90)).save(tmp_path / f"{number}.png")
    (tmp_path / "3.png").write_text("no image")
    return tmp_path


def everything(batches: list[Batch[str, int]]) -> tuple[list[str], torch.Tensor, list[int], list[tuple[str, str]]]:
    return (
        [entry for batch in batches for entry in batch.entries],
        torch.cat([batch.images for batch in batches]),
        [extra for batch in batches for extra in batch.extras],
        [one for batch in batches for one in batch.unreadable],
    )


@pytest.mark.parametrize("workers", [None, 0, 2])
@pytest.mark.parametrize("size", [1, 2, 8])
def test_batch_size_and_workers_change_nothing(
    backbone: Backbone, folder: Path, size: int, workers: int | None
) -> None:
    names = [f"{number}.png" for number in range(5)] + ["nowhere.png"]
    before = torch.random.get_rng_state()
    batches = list(read_batches(names, partial(load, folder=folder), backbone, size, workers))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert [len(batch.entries) + len(batch.unreadable) for batch in batches][:-1] == [size] * (len(batches) - 1)
    entries, images, extras, unreadable = everything(batches)
    assert entries == ["0.png", "1.png", "2.png", "4.png"] and extras == [5] * 4
    expected = [preprocess(read_image(folder / name), 96, backbone.mean, backbone.std) for name in entries]
    assert torch.equal(images, torch.stack(expected))
    assert [name for name, _ in unreadable] == ["3.png", "nowhere.png"]
    assert "3.png cannot be read" in unreadable[0][1] and "nowhere.png does not exist" in unreadable[1][1]


def test_nothing_to_read_gives_no_batch(backbone: Backbone, folder: Path) -> None:
    assert list(read_batches([], partial(load, folder=folder), backbone)) == []


def broken(name: str) -> tuple[Image.Image, None]:
    raise ZeroDivisionError(name)


def test_a_defect_of_load_is_not_taken_for_a_bad_picture(backbone: Backbone) -> None:
    with pytest.raises(ZeroDivisionError):
        list(read_batches(["x"], broken, backbone))
