"""Maps in colours, and measurements of them."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from winclip.pictures.drawing import (
    COLOURS,
    colour,
    data_url,
    encoded,
    fit,
    heat_map,
    mask_image,
    packed_map,
    strongest_region,
    unpacked_map,
    with_legend,
)
from winclip.support.errors import InputError


def test_colours_run_from_blue_to_red_and_stay_on_their_scale() -> None:
    values = np.array([[-1.0, 0.2, 0.4, 0.6, 9.0, np.nan]])
    pixels = np.asarray(colour(values, 0.2, 0.6))[0]
    assert [tuple(pixel) for pixel in pixels] == [tuple(COLOURS[place]) for place in (0, 0, 128, 255, 255, 0)]
    first, last = COLOURS[20].astype(int), COLOURS[235].astype(int)
    assert first[2] > first[0] and last[0] > last[2]


def test_a_heat_map_leaves_what_is_calm_and_has_one_scale() -> None:
    picture = Image.new("RGB", (16, 16), (120, 120, 120))

    def drawn(value: float) -> tuple[int, ...]:
        pixel = heat_map(picture, np.full((16, 16), value, np.float32), (0.3, 0.7)).getpixel((8, 8))
        assert isinstance(pixel, tuple)
        return pixel

    assert drawn(0.1) == drawn(0.3) == (120, 120, 120)
    assert drawn(0.7) == drawn(5.0)
    red, _, blue = drawn(0.7)
    assert red > blue
    assert len({drawn(value) for value in (0.3, 0.4, 0.5, 0.6, 0.7)}) == 5


@pytest.mark.parametrize("size", [(200, 300), (1, 1), (20, 9), (3000, 40)])
def test_the_legend_is_below_the_picture_and_marks_the_threshold(size: tuple[int, int]) -> None:
    picture = Image.new("RGB", size, (120, 120, 120))
    low, middle, above = (np.asarray(with_legend(picture, (0.3, 0.7), value)) for value in (0.3, 0.5, 0.9))
    assert low.shape[0] > size[1] and low.shape[1] == size[0]
    assert (middle[: size[1]] == 120).all()
    # A value outside the scale has no mark; one inside has it at its place.
    np.testing.assert_array_equal(low, above)
    columns = np.nonzero((middle != low).any(axis=(0, 2)))[0]
    assert (len(columns) > 0) == (size[0] >= 200)
    if len(columns):
        strip = low[size[1] :]
        coloured = np.nonzero((strip.max(axis=2) - strip.min(axis=2) > 20).any(axis=0))[0]
        assert columns.mean() == pytest.approx((coloured[0] + coloured[-1]) / 2, abs=size[0] / 50)
        first, last = (strip[len(strip) // 2, coloured[place]].astype(int) for place in (3, -4))
        assert first[2] > first[0] and last[0] > last[2]


def test_a_packed_map_is_that_map_again(tmp_path: Path) -> None:
    path, anomaly_map = tmp_path / "map.png", np.random.RandomState(0).uniform(0, 2, (30, 20)).astype(np.float32)
    anomaly_map[0, :2] = 0, 2
    path.write_bytes(packed_map(anomaly_map))
    found = unpacked_map(path)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, anomaly_map, rtol=0, atol=4e-5)
    whole = path.read_bytes()
    for damaged in (whole[:-60], whole[:20], b"", b"no picture", None):
        path.write_bytes(damaged) if damaged is not None else path.unlink()
        with pytest.raises(InputError, match=f"map {path} cannot be read .*--resume"):
            unpacked_map(path)


def test_strongest_region_is_the_one_with_the_highest_value() -> None:
    anomaly_map = np.zeros((20, 30), np.float32)
    anomaly_map[2:5, 3:7] = 0.6
    anomaly_map[10:12, 20:25] = 0.7
    anomaly_map[11, 22] = 0.9
    area, box = strongest_region(anomaly_map, 0.5)
    assert area == pytest.approx(22 / 600) and box == (20, 10, 5, 2)
    assert strongest_region(anomaly_map, 0.95) == (0.0, None)
    assert np.asarray(mask_image(anomaly_map, 0.5)).sum() == 22 * 255


def test_a_map_takes_the_size_of_its_picture() -> None:
    anomaly_map = np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)
    assert fit(anomaly_map, (30, 20)).shape == (20, 30)
    np.testing.assert_array_equal(fit(anomaly_map, (8, 8)), anomaly_map)


def test_images_become_files_or_say_why_not() -> None:
    image = Image.new("RGB", (5, 4), "red")
    assert Image.open(io.BytesIO(encoded(image, "PNG"))).size == (5, 4)
    kind, content = data_url(image).split(",")
    assert kind == "data:image/webp;base64"
    assert Image.open(io.BytesIO(base64.b64decode(content))).size == (5, 4)
    with pytest.raises(InputError, match="a JPEG of 70000 x 1 pixels cannot be made"):
        encoded(Image.new("RGB", (70000, 1)), "JPEG")
