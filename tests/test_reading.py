"""The one reader: order, batches, threads, unreadable entries, and its end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from winclip.pictures.images import read_image, resized_pixels
from winclip.pictures.reading import Batch, BatchReader

SIDE = 96


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


@pytest.mark.parametrize(("size", "workers"), [(1, None), (2, 0), (2, 3), (8, 1)])
def test_batch_size_and_workers_change_nothing(folder: Path, size: int, workers: int | None) -> None:
    names = [f"{number}.png" for number in range(5)] + ["nowhere.png"]
    before = torch.random.get_rng_state()
    with BatchReader(SIDE, size, workers) as reader:
        assert list(reader.batches([], partial(load, folder=folder))) == []
        for _ in range(2):  # one reader serves any number of lists
            batches = list(reader.batches(names, partial(load, folder=folder)))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert [len(batch.entries) + len(batch.unreadable) for batch in batches][:-1] == [size] * (len(batches) - 1)
    entries, images, extras, unreadable = everything(batches)
    assert entries == ["0.png", "1.png", "2.png", "4.png"] and extras == [5] * 4
    expected = [resized_pixels(read_image(folder / name), SIDE) for name in entries]
    np.testing.assert_array_equal(images.numpy(), np.stack(expected))
    assert [name for name, _ in unreadable] == ["3.png", "nowhere.png"]
    assert "3.png cannot be read" in unreadable[0][1] and "nowhere.png does not exist" in unreadable[1][1]


def grey(name: str, begun: list[str], wait: Callable[[], object]) -> tuple[Image.Image, None]:
    begun.append(name)
    wait()
    return Image.new("RGB", (4, 4), "grey"), None


def test_at_most_two_batches_are_read_ahead() -> None:
    begun: list[str] = []
    with BatchReader(SIDE, 2, 3) as reader:
        batches = reader.batches([str(number) for number in range(40)], partial(grey, begun=begun, wait=lambda: None))
        for given in range(1, 4):
            next(batches)
            time.sleep(0.05)  # for threads that would go on
            assert len(begun) <= 2 * (given + 2) + 1


def broken(name: str) -> tuple[Image.Image, None]:
    raise ZeroDivisionError(name)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_defect_of_load_is_not_taken_for_a_bad_picture(workers: int) -> None:
    with BatchReader(SIDE, num_workers=workers) as reader, pytest.raises(ZeroDivisionError):
        list(reader.batches(["x"], broken))


def test_what_is_raised_while_batches_are_used_begins_no_more_reading() -> None:
    begun: list[str] = []
    release = threading.Event()
    names = [str(number) for number in range(40)]
    threads = set(threading.enumerate())
    with pytest.raises(KeyboardInterrupt), BatchReader(SIDE, 2, 2) as reader:
        load_grey = partial(grey, begun=begun, wait=lambda: release.wait(10) if len(begun) > 2 else None)
        for _ in islice(reader.batches(names, load_grey), 1):
            threading.Timer(0.2, release.set).start()
            raise KeyboardInterrupt
    assert len(begun) <= 5
    assert not [thread for thread in set(threading.enumerate()) - threads if thread.name.startswith("reading")]


def test_formats_and_warnings_are_those_of_reading_in_line(tmp_path: Path) -> None:
    for number, ending in enumerate(["webp", "tif", "gif", "bmp", "tiff", "jpg", "png"] * 3):
        Image.new("RGB", (20, 20), (number, 2, 3)).save(tmp_path / f"{number}.{ending}")

    def limited(path: Path) -> tuple[Image.Image, None]:
        return read_image(path, max_pixels=1000), None

    paths = sorted(tmp_path.iterdir())
    with BatchReader(SIDE, 4, 4) as reader:
        batches = list(reader.batches(paths, limited))
    assert [path for batch in batches for path in batch.entries] == paths
