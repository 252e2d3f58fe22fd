"""Maps in colours, and what is measured of them."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image

from winclip.pictures.drawing import COLOURS, colour, data_url, encoded, fit, heat_map, mask_image, strongest_region
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
