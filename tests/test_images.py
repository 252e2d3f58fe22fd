"""Images of every kind become the same RGB pixels, and errors name files that are no images."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch
from PIL import Image

from datasets.samples import read_mask
from winclip.pictures.images import CLIP_MEAN, CLIP_STD, normalise, read_image, resize_straight, to_rgb
from winclip.support.errors import InputError

RED, GREEN, GREY = (200, 10, 30), (0, 150, 60), (90, 90, 90)


def pixels(image: Image.Image) -> list[tuple[int, ...]]:
    assert image.mode == "RGB"
    return [tuple(int(value) for value in pixel) for pixel in np.asarray(image).reshape(-1, 3)]


def palette_image() -> Image.Image:
    image = Image.new("P", (2, 1))
    image.putpalette([*RED, *GREEN] + [0] * 762)
    image.putpixel((1, 0), 1)
    return image


def row(mode: str, *values: int | tuple[int, ...]) -> Image.Image:
    image = Image.new(mode, (len(values), 1))
    for x, value in enumerate(values):
        image.putpixel((x, 0), value)
    return image


CASES: dict[str, tuple[Image.Image, str, dict[str, Any], list[tuple[int, ...]]]] = {
    "RGB": (row("RGB", RED, GREEN), "png", {}, [RED, GREEN]),
    "RGB with a transparent colour": (row("RGB", RED, GREEN), "png", {"transparency": GREEN}, [RED, (255, 255, 255)]),
    "L": (row("L", 0, 90), "png", {}, [(0, 0, 0), GREY]),
    "1": (row("1", 0, 255), "png", {}, [(0, 0, 0), (255, 255, 255)]),
    "P": (palette_image(), "png", {}, [RED, GREEN]),
    "P with one transparent colour": (palette_image(), "png", {"transparency": 1}, [RED, (255, 255, 255)]),
    "P with an alpha table": (palette_image(), "png", {"transparency": bytes([255, 0])}, [RED, (255, 255, 255)]),
    "P in a GIF": (palette_image(), "gif", {}, [RED, GREEN]),
    "L with a transparent grey": (row("L", 7, 90), "png", {"transparency": 7}, [(255, 255, 255), GREY]),
    "RGBA": (row("RGBA", (*RED, 255), (*GREEN, 0)), "png", {}, [RED, (255, 255, 255)]),
    "RGBA half transparent": (row("RGBA", (0, 0, 0, 128)), "png", {}, [(127, 127, 127)]),
    "LA": (row("LA", (90, 255), (90, 0)), "png", {}, [GREY, (255, 255, 255)]),
    "CMYK": (row("CMYK", (0, 0, 0, 0), (0, 255, 255, 0)), "tif", {}, [(255, 255, 255), (255, 0, 0)]),
    "I;16 PNG": (row("I;16", 0, 65535, 90 * 257), "png", {}, [(0, 0, 0), (255, 255, 255), GREY]),
    "I;16 TIFF": (row("I;16", 0, 65535, 90 * 257), "tif", {}, [(0, 0, 0), (255, 255, 255), GREY]),
    "I TIFF": (row("I", 0, 65535, 90 * 257), "tif", {}, [(0, 0, 0), (255, 255, 255), GREY]),
}


@pytest.mark.parametrize("case", CASES)
def test_every_mode_is_read_as_rgb(case: str, tmp_path: Path) -> None:
    image, suffix, options, expected = CASES[case]
    path = tmp_path / f"image.{suffix}"
    image.save(path, **options)
    assert pixels(read_image(path)) == expected


def test_modes_that_no_file_holds_are_converted_or_refused() -> None:
    assert pixels(to_rgb(row("RGBA", (*RED, 255)).convert("RGBa"))) == [RED]
    assert pixels(to_rgb(row("LA", (90, 255)).convert("La"))) == [GREY]
    assert pixels(to_rgb(palette_image().convert("PA"))) == [RED, GREEN]
    assert pixels(to_rgb(Image.new("YCbCr", (1, 1), (90, 128, 128)))) == [GREY]
    with pytest.raises(InputError, match=r"-1 to 70000"):
        to_rgb(row("I", -1, 70000))


def test_colour_jpeg_is_close_to_its_source(tmp_path: Path) -> None:
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(tmp_path / "image.jpg", quality=95)
    assert np.abs(np.asarray(read_image(tmp_path / "image.jpg")).astype(int) - (255, 0, 0)).max() <= 4


def test_what_is_no_image_is_named(tmp_path: Path) -> None:
    for kind in ("PPM", "ICO", "JPEG2000", "EPS"):
        Image.new("RGB", (32, 32)).save(tmp_path / f"{kind}.png", kind)
    Image.new("F", (2, 2), 0.5).save(tmp_path / "float.tif")
    Image.new("L", (2001, 2)).save(tmp_path / "wide.png")
    Image.new("L", (1, 1001)).save(tmp_path / "tall.png")
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "empty.png").write_bytes(b"")
    for path in (tmp_path / "missing.png", tmp_path, *sorted(tmp_path.iterdir())):
        with pytest.raises(InputError, match=f"image {path}") as caught:
            read_image(path)
        assert "\n" not in str(caught.value)


def test_photographs_of_phones_are_read(tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    Image.new("RGB", (32, 24), RED).save(path, "MPO", save_all=True, append_images=[Image.new("RGB", (8, 8))])
    assert read_image(path).size == (32, 24)


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "tif", "gif"])
def test_truncated_files_are_refused(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"image.{suffix}"
    noise = np.random.RandomState(0).randint(0, 256, (64, 64, 3)).astype(np.uint8)
    Image.fromarray(noise).save(path)
    content = path.read_bytes()
    read_image(path)
    path.write_bytes(content[: len(content) * 2 // 3])
    with pytest.raises(InputError, match=f"image {path} cannot be read"):
        read_image(path)


def test_an_image_that_would_fill_the_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "huge.png"
    Image.new("L", (40, 40)).save(path)
    with pytest.raises(InputError, match=r"huge\.png: 40 x 40 .*1,599 pixels"):
        read_image(path, max_pixels=1599)
    with monkeypatch.context() as patch:
        patch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
        with pytest.raises(InputError, match=r"huge\.png cannot be read \(DecompressionBomb"):
            read_image(path)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", MagicMock(side_effect=MemoryError))
    with pytest.raises(InputError, match=r"huge\.png cannot be read \(MemoryError"):
        read_image(path)


def test_normalising_a_batch_gives_the_bytes_of_one_image_alone() -> None:
    every_value = np.arange(256, dtype=np.uint8).repeat(3).reshape(1, 16, 16, 3)
    pixels = torch.from_numpy(np.concatenate([every_value, every_value[:, ::-1, ::-1]]))
    for mean, std in ((CLIP_MEAN, CLIP_STD), ((0.5, 0.4, 0.3), (0.25, 0.2, 0.1))):
        expected = pixels.float().div_(255).sub_(torch.tensor(mean)).div_(torch.tensor(std)).permute(0, 3, 1, 2)
        assert torch.equal(normalise(pixels, mean, std), expected)


# SHA-256 of the bytes from one call of Pillow 12.3, which resizes the width first for every shape.
RESIZED = {
    (97, 131): "1c962a68767b346e",
    (60, 500): "bbe0ae1fa54c97b8",
    (700, 1100): "8077ea6cfbd9ff4a",
    (240, 333): "c45265fb9a6ac172",
    (131, 97): "3a88bf5d4115162b",
}


@pytest.mark.parametrize("size", RESIZED)
def test_tall_pictures_are_resized_to_the_stored_bytes(size: tuple[int, int]) -> None:
    y, x = np.mgrid[: size[1], : size[0]]
    image = Image.fromarray(
        np.stack([(7 * x + 3 * y) % 256, (x * y) % 256, (x * x + 5 * y) % 256], axis=2).astype(np.uint8)
    )
    resized = resize_straight(image, 96, Image.Resampling.BICUBIC)
    assert hashlib.sha256(resized.tobytes()).hexdigest()[:16] == RESIZED[size]
    rows_first = image.resize((size[0], 96), Image.Resampling.BICUBIC).resize((96, 96), Image.Resampling.BICUBIC)
    assert rows_first.tobytes() != resized.tobytes()


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "LA", "PA", "CMYK", "I;16", "I"])
def test_images_converted_in_strips_are_the_same(mode: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    noise = np.random.RandomState(1).randint(0, 256, (37, 20, 4)).astype(np.uint8)
    deep = mode.startswith("I")
    image = Image.fromarray(noise[..., 0].astype(np.uint16) * 257) if deep else Image.fromarray(noise, "RGBA")
    image = image.convert(mode)
    image.save(tmp_path / "mask.tif")
    whole, mask = np.asarray(to_rgb(image)), read_mask(tmp_path / "mask.tif")
    monkeypatch.setattr("winclip.pictures.images._STRIP_PIXELS", 100)
    assert np.array_equal(np.asarray(to_rgb(image)), whole)
    assert np.array_equal(read_mask(tmp_path / "mask.tif"), mask)
    assert mask.shape == (37, 20) and mask.mean() > 0
