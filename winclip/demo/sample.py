"""Draw the sample data set: ten classes in MVTec layout, from a seed, with exact masks.

    python -m winclip.demo.sample --data_path data/sample

Layout: CLASS/train/good, CLASS/test/good, CLASS/test/DEFECT and CLASS/ground_truth/DEFECT/NNN_mask.png.
A mask marks every pixel that the defect changed in the stored image, and no other.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image as PillowImage

from winclip.demo.procedural import (
    DEFECTS,
    SHAPE,
    SIZE,
    SUBPIXEL_BITS,
    Field,
    Image,
    Scene,
    filled_polygon,
    fractal_noise,
    photograph,
    random_state,
    smooth_noise,
    subpixel,
)
from winclip.demo.stand_in import STAMP

GENERATOR_VERSION = 3
# The first images of each folder, so that tables take under half a minute; every class keeps all its defect types.
TRAIN_GOOD = 8
TEST_GOOD = 4
TEST_DEFECTIVE = 4

Floats = npt.NDArray[np.floating]


def _rotated_coordinates(rng: np.random.RandomState, size: int, largest_angle: float) -> tuple[Field, Field]:
    """Coordinates (u, v), each (size, size) in pixels, turned by up to ``largest_angle`` radians and shifted."""
    angle = rng.uniform(-largest_angle, largest_angle)
    rows, columns = np.mgrid[:size, :size].astype(np.float32)
    cosine, sine = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    shift_u, shift_v = rng.uniform(1000, 2000, size=2).astype(np.float32)
    return columns * cosine - rows * sine + shift_u, columns * sine + rows * cosine + shift_v


def _hash_levels(first: npt.NDArray[np.int64], second: npt.NDArray[np.int64]) -> Field:
    """A level in [-1, 1] for every pair of integers, by integer arithmetic only."""
    mixed = (first * 73856093) ^ (second * 19349663)
    return ((mixed % 1009).astype(np.float32) / np.float32(504) - np.float32(1)).astype(np.float32)


def _texture(image: Image) -> Scene:
    """A texture that fills the picture, from an image (2H, 2W, 3), averaged to (H, W, 3)."""
    rows = image[::2] + image[1::2]
    halved = np.asarray((rows[:, ::2] + rows[:, 1::2]) * np.float32(0.25), dtype=np.float32)
    return halved, np.ones(halved.shape[:2], dtype=bool), halved


def _coloured(rng: np.random.RandomState, value: Field, colour: list[float], spread: float, gain: float = 1) -> Scene:
    """A texture of a colour that varies by ``spread``, brighter and darker by ``value`` (2H, 2W)."""
    tint = (np.asarray(colour) + rng.uniform(-spread, spread, size=3)).astype(np.float32)
    return _texture(np.clip(value[..., None] * tint * np.float32(gain), 0, 1).astype(np.float32))


def _offsets(x: float, y: float) -> tuple[Field, Field]:
    """How far every pixel lies from (x, y), to the right and down, each (H, W)."""
    rows, columns = np.mgrid[:SIZE, :SIZE].astype(np.float32)
    return columns - np.float32(x), rows - np.float32(y)


def _distance(x: float, y: float) -> Field:
    """How far every pixel lies from (x, y), (H, W)."""
    dx, dy = _offsets(x, y)
    return np.sqrt(dx**2 + dy**2)


def _turned(x: float, y: float, turn: float, scale: float) -> tuple[Field, Field]:
    """Coordinates (u, v) of every pixel around (x, y), each (H, W), turned by ``turn`` radians, in units of scale."""
    (dx, dy), cosine, sine = _offsets(x, y), np.float32(np.cos(turn)), np.float32(np.sin(turn))
    return (dx * cosine + dy * sine) / np.float32(scale), (dy * cosine - dx * sine) / np.float32(scale)


def _laid_on(background: Floats, surface: Floats, solid: Field) -> Scene:
    """An object that covers the background as far as ``solid`` says, (H, W) in [0, 1]; colours are clipped."""
    background, surface = (np.clip(image, 0, 1).astype(np.float32) for image in (background, surface))
    share = solid[..., None]
    return (background * (1 - share) + surface * share).astype(np.float32), solid > 0.5, background


def cowhide(rng: np.random.RandomState) -> Scene:
    """Tanned hide: a shallow relief of pebbles of two sizes, lit from one side, and soft folds."""
    shape = (2 * SIZE, 2 * SIZE)
    height = smooth_noise(rng, shape, 9.0) + np.float32(0.6) * smooth_noise(rng, shape, 5.0)
    slope = np.roll(height, 1, axis=0) - np.roll(height, -1, axis=0) + np.roll(height, 1, axis=1) - height
    folds = smooth_noise(rng, shape, 2 * rng.uniform(60, 90))
    value = np.float32(0.60) + np.float32(0.09) * slope + np.float32(0.035) * height + np.float32(0.03) * folds
    return _coloured(rng, value, [0.78, 0.50, 0.33], 0.04)


def basket_weave(rng: np.random.RandomState) -> Scene:
    """Bundles of three flat strands that pass over and under each other."""
    u, v = _rotated_coordinates(rng, 2 * SIZE, 0.35)
    cell = np.float32(2 * rng.uniform(30, 34))
    column, row = np.floor(u / cell).astype(np.int64), np.floor(v / cell).astype(np.int64)
    along_u = (column + row) % 2 == 0
    across = np.where(along_u, v, u) / cell
    along = np.where(along_u, u, v) / cell
    along = along - np.floor(along)
    strand = np.floor(across * 3).astype(np.int64)
    position = across * 3 - np.floor(across * 3)
    round_shade = 1 - 2.6 * (position - np.float32(0.5)) ** 2
    bend_shade = np.float32(0.62) + np.float32(1.5) * along * (1 - along)
    tone = np.float32(0.06) * _hash_levels(strand, along_u.astype(np.int64) + 7)
    fine = np.float32(0.05) * smooth_noise(rng, (2 * SIZE, 2 * SIZE), 4.0)
    value = np.clip(round_shade * bend_shade + tone + fine, 0, 1.2)
    return _coloured(rng, value, [0.80, 0.62, 0.38], 0.04)


def brushed_steel(rng: np.random.RandomState) -> Scene:
    """Sheet metal with fine parallel brush marks along one direction and a broad sheen across it."""
    u, v = _rotated_coordinates(rng, 2 * SIZE, 0.5)
    marks = np.zeros((2 * SIZE, 2 * SIZE), dtype=np.float32)
    for width, weight in ((3, 0.020), (7, 0.016), (19, 0.012)):
        line = np.floor(v / np.float32(width)).astype(np.int64)
        piece = np.floor(u / np.float32(160 + 40 * width) + line * np.float32(0.37)).astype(np.int64)
        marks += np.float32(weight) * _hash_levels(line + int(rng.randint(1 << 20)), piece)
    sheen = np.float32(0.06) * np.sin(v / np.float32(rng.uniform(150, 220)))
    value = np.float32(0.66 + rng.uniform(-0.04, 0.04)) + marks + sheen
    return _texture(np.clip(value[..., None] * np.asarray([0.97, 0.99, 1.02], dtype=np.float32), 0, 1))


def gear(rng: np.random.RandomState) -> Scene:
    """A metal wheel with twelve teeth, a raised rim, a bore with a keyway and five round openings."""
    x, y = SIZE / 2 + rng.uniform(-12, 12, size=2)
    radius = rng.uniform(88, 98)
    turn = rng.uniform(0, 2 * np.pi)
    teeth = 12
    profile = [(-0.30, 0.84), (-0.17, 1.0), (0.17, 1.0), (0.30, 0.84)]
    outline = [
        (x + radius * level * np.cos(angle), y + radius * level * np.sin(angle))
        for tooth in range(teeth)
        for angle, level in ((turn + 2 * np.pi * (tooth + offset) / teeth, level) for offset, level in profile)
    ]
    distance = _distance(x, y)
    solid = filled_polygon(outline)
    for index in range(5):
        angle = turn + 2 * np.pi * index / 5
        opening = _distance(x + 0.46 * radius * np.cos(angle), y + 0.46 * radius * np.sin(angle))
        solid = np.minimum(solid, np.clip(opening - np.float32(0.13 * radius), 0, 1))
    solid = np.minimum(solid, np.clip(distance - np.float32(0.17 * radius), 0, 1))
    side = np.asarray([[0, -0.06], [0.24, -0.06], [0.24, 0.06], [0, 0.06]]) * radius
    cosine, sine = np.cos(turn), np.sin(turn)
    keyway = np.asarray([x, y]) + side @ np.asarray([[cosine, sine], [-sine, cosine]])
    solid = np.minimum(solid, 1 - filled_polygon(keyway))
    ground = np.asarray([0.17, 0.19, 0.23]) + rng.uniform(-0.03, 0.03)
    background = ground + 0.015 * smooth_noise(rng, SHAPE, 12.0)[..., None]
    turned = np.float32(0.03) * np.sin(distance * np.float32(2.1))
    rim = np.float32(0.10) * np.clip(3 - np.abs(distance - np.float32(0.72 * radius)), 0, 1)
    metal = np.float32(0.62 + rng.uniform(-0.04, 0.04)) + turned + rim
    return _laid_on(background, metal[..., None] * np.asarray([0.98, 1.0, 1.03]), solid)


def button(rng: np.random.RandomState) -> Scene:
    """A round plastic button with a thick rim and four holes on a pale cloth."""
    x, y = SIZE / 2 + rng.uniform(-14, 14, size=2)
    radius = rng.uniform(82, 94)
    turn = rng.uniform(0, np.pi / 2)
    dx, dy = _offsets(x, y)
    distance = _distance(x, y) / np.float32(radius)
    solid = np.clip((1 - distance) * np.float32(radius), 0, 1)
    threads = ((np.indices(SHAPE) // 2).sum(axis=0) % 2).astype(np.float32)
    cloth = np.asarray([0.86, 0.85, 0.81]) + rng.uniform(-0.03, 0.03)
    background = cloth - 0.04 * threads[..., None]
    height = np.where(distance > 0.72, 1 - ((distance - np.float32(0.86)) / np.float32(0.14)) ** 2, 0)
    slope = np.where(distance > 0.72, (distance - np.float32(0.86)) / np.float32(0.14), 0)
    facing = (dx * np.float32(-0.6) + dy * np.float32(-0.8)) / (distance * np.float32(radius) + np.float32(1e-3))
    value = np.float32(0.75) + np.float32(0.10) * height + np.float32(0.22) * slope * facing
    swirl = smooth_noise(rng, SHAPE, 26.0)
    value = value + np.float32(0.04) * swirl
    colour = np.asarray([0.24, 0.44, 0.72]) + rng.uniform(-0.06, 0.06, size=3)
    surface = value[..., None] * colour * 1.15
    for index in range(4):
        angle = turn + np.pi * index / 2
        hole_x, hole_y = np.float32(0.30 * radius * np.cos(angle)), np.float32(0.30 * radius * np.sin(angle))
        opening = np.sqrt((dx - hole_x) ** 2 + (dy - hole_y) ** 2)
        solid = np.minimum(solid, np.clip(opening - np.float32(0.10 * radius), 0, 1))
    return _laid_on(background, surface, solid)


def terrazzo(rng: np.random.RandomState) -> Scene:
    """A polished floor: angular stone chips of four tones and all sizes in pale cement."""
    side = 2 * SIZE
    cement = np.float32(0.78) + np.float32(0.02) * smooth_noise(rng, (side, side), 3.0)
    pixels = (255 * cement[..., None] * np.asarray([1.0, 0.98, 0.94])).astype(np.uint8)
    tones = np.asarray([[0.45, 0.43, 0.42], [0.62, 0.52, 0.44], [0.70, 0.67, 0.60], [0.55, 0.58, 0.56]])
    for _ in range(420):
        radius = 5 + 25 * rng.uniform() ** 3
        corners = int(rng.randint(4, 8))
        angles = np.sort(rng.uniform(0, 2 * np.pi, size=corners))
        reach = radius * rng.uniform(0.6, 1.0, size=corners)
        x, y = rng.uniform(0, side, size=2)
        outline = np.stack([x + reach * np.cos(angles), y + reach * np.sin(angles)], axis=1)
        tone = 255 * np.clip(tones[rng.randint(4)] + rng.uniform(-0.05, 0.05), 0, 1)
        cv2.fillPoly(pixels, [subpixel(outline)], tuple(tone.tolist()), cv2.LINE_AA, SUBPIXEL_BITS)
    return _texture(pixels.astype(np.float32) / np.float32(255))


def herringbone(rng: np.random.RandomState) -> Scene:
    """Oak blocks laid at right angles to each other in a zigzag, with grain along each and narrow dark joints."""
    u, v = _rotated_coordinates(rng, 2 * SIZE, 0.6)
    width, blocks = np.float32(2 * rng.uniform(15, 18)), 4
    column, row = np.floor(u / width).astype(np.int64), np.floor(v / width).astype(np.int64)
    place = (column - row) % (2 * blocks)
    flat = place < blocks
    first = np.where(flat, column - place, column)
    second = np.where(flat, row, row - (2 * blocks - 1 - place))
    along = np.where(flat, u / width - first, v / width - second)
    across = np.where(flat, v / width - row, u / width - column)
    edge = np.minimum(np.minimum(across, 1 - across), np.minimum(along, blocks - along)) * width
    tone = np.float32(0.07) * _hash_levels(first * 5 + flat, second * 3 + 1)
    fibre = np.floor(across * 14).astype(np.int64)
    grain = np.float32(0.03) * _hash_levels(fibre + first * 31, second * 17 + np.floor(along * 1.5).astype(np.int64))
    value = np.float32(0.72) + tone + grain + np.float32(0.02) * smooth_noise(rng, (2 * SIZE, 2 * SIZE), 5.0)
    value = np.where(edge < 1.6, np.float32(0.34), value)
    return _coloured(rng, value, [0.86, 0.66, 0.44], 0.03)


def knit(rng: np.random.RandomState) -> Scene:
    """A jersey of thick wool: columns of stitches, each two slanting loops that meet in a V."""
    u, v = _rotated_coordinates(rng, 2 * SIZE, 0.4)
    width = np.float32(2 * rng.uniform(17, 20))
    height = width * np.float32(0.8)
    column = np.floor(u / width)
    across = u / width - column - np.float32(0.5)
    rise = v / height - np.float32(1.3) * np.abs(across)
    stitch = np.floor(rise)
    along = rise - stitch
    yarn = np.clip(1 - 3.4 * (along - np.float32(0.5)) ** 2, 0, 1)
    gap = np.clip(np.minimum(np.abs(across), np.float32(0.5) - np.abs(across)) * 9, 0, 1)
    tone = np.float32(0.05) * _hash_levels(column.astype(np.int64), stitch.astype(np.int64))
    fibre = np.float32(0.07) * smooth_noise(rng, (2 * SIZE, 2 * SIZE), 3.0)
    value = (np.float32(0.35) + np.float32(0.6) * yarn) * (np.float32(0.6) + np.float32(0.4) * gap) + tone + fibre
    return _coloured(rng, value, [0.36, 0.52, 0.58], 0.04, 1.2)


def biscuit(rng: np.random.RandomState) -> Scene:
    """A square biscuit with a wavy edge, a pressed frame and sixteen pricked holes, on baking paper."""
    x, y = SIZE / 2 + rng.uniform(-10, 10, size=2)
    half, turn = rng.uniform(78, 86), rng.uniform(0, np.pi / 2)
    u, v = _turned(x, y, turn, half)
    wave = np.float32(0.035) * np.cos(np.pi * 9 * np.where(np.abs(u) > np.abs(v), v, u))
    inset = 1 - np.maximum(np.abs(u), np.abs(v)) + wave
    solid = np.clip(inset * np.float32(half), 0, 1)
    paper = np.asarray([0.90, 0.87, 0.80]) + rng.uniform(-0.03, 0.03)
    background = paper + 0.02 * smooth_noise(rng, SHAPE, 5.0)[..., None]
    value = np.float32(0.92) + np.float32(0.05) * fractal_noise(rng, SHAPE, 24.0, 4)
    value = value - np.float32(0.22) * np.clip(1 - inset / np.float32(0.10), 0, 1)
    value = value - np.float32(0.10) * np.clip(2 - np.abs(inset - np.float32(0.20)) * np.float32(half), 0, 1)
    for across in (-0.54, -0.18, 0.18, 0.54):
        for along in (-0.54, -0.18, 0.18, 0.54):
            apart = np.sqrt((u - np.float32(across)) ** 2 + (v - np.float32(along)) ** 2) * np.float32(half)
            value = value - np.float32(0.42) * np.clip(4 - apart, 0, 1)
    colour = np.asarray([0.86, 0.66, 0.40]) + rng.uniform(-0.04, 0.04, size=3)
    return _laid_on(background, value[..., None] * colour, solid)


def key(rng: np.random.RandomState) -> Scene:
    """A brass door key: a round bow with a hole, a blade with a groove and five cuts, on dark felt."""
    x, y = SIZE / 2 + rng.uniform(-8, 8, size=2)
    length, turn = rng.uniform(200, 212), rng.uniform(0, 2 * np.pi)
    cosine, sine = np.cos(turn), np.sin(turn)
    outline = [(-0.10, -0.075), (0.44, -0.075), (0.50, -0.02), (0.50, 0.03)]
    for number, cut in enumerate((0.030, 0.055, 0.020, 0.060, 0.035)):
        place = 0.44 - 0.09 * number
        outline += [(place, 0.09), (place - 0.02, 0.09 - cut), (place - 0.045, 0.09 - cut), (place - 0.065, 0.09)]
    outline += [(-0.04, 0.09), (-0.10, 0.12)]
    blade = np.asarray(outline) * length @ np.asarray([[cosine, sine], [-sine, cosine]]) + np.asarray([x, y])
    u, v = _turned(x, y, turn, length)
    bow = np.sqrt((u + np.float32(0.27)) ** 2 + v**2)
    solid = np.maximum(filled_polygon(blade), np.clip((np.float32(0.22) - bow) * np.float32(length), 0, 1))
    hole = np.sqrt((u + np.float32(0.36)) ** 2 + v**2)
    solid = np.minimum(solid, np.clip((hole - np.float32(0.06)) * np.float32(length), 0, 1))
    felt = np.asarray([0.16, 0.20, 0.17]) + rng.uniform(-0.03, 0.03)
    background = felt + 0.035 * smooth_noise(rng, SHAPE, 2.5)[..., None]
    rim = np.clip(2 - np.abs(bow - np.float32(0.185)) * np.float32(length), 0, 1)
    groove = np.clip(2.5 - np.abs(v + np.float32(0.02)) * np.float32(length), 0, 1) * (u > -0.04)
    value = np.float32(0.80) - np.float32(0.14) * rim - np.float32(0.26) * groove
    value = (
        value + np.float32(0.05) * np.sin(u * 9 + v * 5) + np.float32(0.03) * smooth_noise(rng, SHAPE, 2.0, aspect=9.0)
    )
    colour = np.asarray([0.94, 0.80, 0.46]) + rng.uniform(-0.03, 0.03, size=3)
    return _laid_on(background, value[..., None] * colour, solid)


Classes = dict[str, tuple[Callable[[np.random.RandomState], Scene], dict[str, str]]]
CLASSES: Classes = {
    # class: (its drawing function, folder name of a defect: the defect's drawing function)
    "cowhide": (cowhide, {"cut": "scratch", "stain": "stain", "hole": "hole", "crack": "crack"}),
    "basket_weave": (basket_weave, {"cut": "hole", "stain": "stain", "thread": "fibre", "spot": "spot"}),
    "brushed_steel": (brushed_steel, {"scratch": "scratch", "spot": "spot", "stain": "stain", "dent": "hole"}),
    "gear": (gear, {"missing_part": "broken_edge", "scratch": "scratch", "spot": "spot", "crack": "crack"}),
    "button": (button, {"missing_part": "broken_edge", "crack": "crack", "scratch": "scratch", "stain": "stain"}),
    "terrazzo": (terrazzo, {"scratch": "scratch", "crack": "crack", "stain": "stain", "hole": "hole"}),
    "herringbone": (herringbone, {"scratch": "scratch", "hole": "hole", "stain": "stain", "spot": "spot"}),
    "knit": (knit, {"hole": "hole", "stain": "stain", "thread": "fibre", "spot": "spot"}),
    "biscuit": (biscuit, {"missing_part": "broken_edge", "crack": "crack", "spot": "spot", "hair": "fibre"}),
    "key": (key, {"scratch": "scratch", "stain": "stain", "spot": "spot", "missing_part": "broken_edge"}),
}


def draw_pair(
    class_name: str, seed: int, part: str, index: int, defect: str | None = None
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Draw one photograph without and with its defect.

    Args:
        class_name: key of ``CLASSES``.
        seed: seed of the data set.
        part: folder of the image, such as ``train/good``; it also enters the image's own seed.
        index: number of the image in its folder.
        defect: folder name of the defect, or None for a normal image (both results are then equal).

    Returns:
        Two (256, 256, 3) uint8 RGB images.
    """
    draw, defects = CLASSES[class_name]
    normal, region, background = draw(random_state(seed, class_name, part, index, "scene"))
    damaged = normal
    if defect is not None:
        smallest = 60
        for attempt in range(20):
            rng = random_state(seed, class_name, part, index, "defect", attempt)
            damaged = DEFECTS[defects[defect]](normal, region, background, rng)
            if int((np.abs(damaged - normal).max(axis=2) > 0.15).sum()) >= smallest:
                break
    finish = random_state(seed, class_name, part, index, "finish")
    scenes = [normal] if defect is None else [normal, damaged]
    photos = photograph(scenes, finish, noise=0.03, light=0.12)
    return photos[0], photos[-1]


def changed_pixels(clean: npt.NDArray[np.uint8], damaged: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """The mask (H, W) uint8: 255 where any channel of the two (H, W, 3) images differs, else 0."""
    return np.where((clean != damaged).any(axis=2), 255, 0).astype(np.uint8)


def _save(pixels: npt.NDArray[np.uint8], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    PillowImage.fromarray(pixels).save(path, format="PNG", compress_level=1)


def numbered_defects(class_name: str, count: int) -> list[tuple[str, int]]:
    """Folder names and numbers of ``count`` defective images of a class, cycling through its defects."""
    defects = list(CLASSES[class_name][1])
    return [(defects[number % len(defects)], number // len(defects)) for number in range(count)]


def _write_class(root: Path, class_name: str, seed: int) -> None:
    for part, count in (("train/good", TRAIN_GOOD), ("test/good", TEST_GOOD)):
        for index in range(count):
            _save(draw_pair(class_name, seed, part, index)[0], root / class_name / part / f"{index:03d}.png")
    for defect, index in numbered_defects(class_name, TEST_DEFECTIVE):
        clean, damaged = draw_pair(class_name, seed, f"test/{defect}", index, defect)
        _save(damaged, root / class_name / "test" / defect / f"{index:03d}.png")
        mask = root / class_name / "ground_truth" / defect / f"{index:03d}_mask.png"
        _save(changed_pixels(clean, damaged), mask)


def _is_complete(root: Path, stamp: dict[str, int]) -> bool:
    """Whether ``root`` holds all files of this generator version and seed."""
    try:
        found = json.loads((root / STAMP).read_text())
    except (OSError, ValueError):
        return False
    files = len(CLASSES) * (TRAIN_GOOD + TEST_GOOD + 2 * TEST_DEFECTIVE)
    return bool(found == stamp) and sum(1 for _ in root.glob("*/*/*/*.png")) == files


def make_sample(root: Path, seed: int = 0) -> None:
    """Draw the sample data set into ``root``; a partial data set is never left there.

    Nothing is done if the same sample is already there. A sample of another seed or version, or with files
    missing, is replaced.

    Raises:
        FileExistsError: if ``root`` exists and is neither empty nor a sample.
    """
    root, stamp = Path(root), {"generator_version": GENERATOR_VERSION, "seed": seed}
    if _is_complete(root, stamp):
        return
    if root.exists() and not (root / STAMP).exists() and any(root.iterdir()):
        raise FileExistsError(f"{root} holds files that are not a sample; give another --data_path or move them away")
    root.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{root.name}-", dir=root.parent) as temporary:
        new = Path(temporary) / "new"
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(lambda class_name: _write_class(new, class_name, seed), CLASSES))
        (new / STAMP).write_text(json.dumps(stamp) + "\n")
        if _is_complete(root, stamp):  # another process was faster
            return
        if root.exists():
            root.rename(Path(temporary) / "old")
        try:
            new.rename(root)
        except OSError:
            if not _is_complete(root, stamp):
                raise


def main() -> None:
    parser = argparse.ArgumentParser(description="Draw the sample data set in MVTec layout.")
    parser.add_argument("--data_path", type=Path, default=Path("data/sample"), help="folder to write (data/sample)")
    parser.add_argument("--root", dest="data_path", type=Path, default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=0, help="seed of the data set; the same seed gives the same images")
    arguments = parser.parse_args()
    try:
        make_sample(arguments.data_path, arguments.seed)
    except OSError as error:
        parser.exit(2, f"error: {error}\n")


if __name__ == "__main__":
    main()
