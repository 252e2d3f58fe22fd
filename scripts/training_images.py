"""The stream of procedurally drawn images that trains the demo backbone.

Textures and objects are drawn here and only here; none of them is one of the sample's (sample.py draws its own).
Defects come from procedural.py, as the sample's do, with sizes and strengths varied more widely.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from PIL import Image as PillowImage

from winclip.demo.procedural import (
    DEFECTS,
    SHAPE,
    SIZE,
    SUBPIXEL_BITS,
    Field,
    Image,
    Region,
    filled_polygon,
    fractal_noise,
    photograph,
    random_colour,
    random_state,
    rotated,
    smooth_noise,
    subpixel,
)

VISIBLE = 0.06
"""Smallest change of a channel, as a share of full scale, at which a pixel counts as visibly defective."""

Texture = Callable[[np.random.RandomState], Image]
Colour = tuple[float, float, float]


def _tone(colour: npt.ArrayLike) -> Colour:
    red, green, blue = (float(value) * 255 for value in np.asarray(colour))
    return red, green, blue


def _two_colours(rng: np.random.RandomState) -> tuple[Field, Field]:
    """Two colours whose brightness differs, by little or by much."""
    first = random_colour(rng)
    second = random_colour(rng)
    if rng.uniform() < 0.4:
        second = np.clip(first + rng.uniform(-0.3, 0.3) + rng.uniform(-0.05, 0.05, size=3), 0, 1).astype(np.float32)
    return first, second


def _mixed(share: npt.NDArray[np.float32], first: Field, second: Field) -> Image:
    """Colours between two, by a share (H, W) clipped to [0, 1]."""
    weight = np.clip(share, 0, 1)[..., None]
    return (first * (1 - weight) + second * weight).astype(np.float32)


def _canvas(colour: Field, side: int = SIZE) -> npt.NDArray[np.uint8]:
    return np.ascontiguousarray(np.broadcast_to(np.round(colour * 255), (side, side, 3)), dtype=np.uint8)


def _tiled(tile: npt.NDArray[np.uint8], rng: np.random.RandomState, scale: float) -> Image:
    """The tile (h, w, 3), repeated in a plane that is turned, sheared a little and scaled, filling the image."""
    angle = rng.choice([0.0, rng.uniform(-np.pi, np.pi), rng.uniform(-0.3, 0.3)])
    shear = rng.choice([0.0, rng.uniform(-0.3, 0.3)])
    cosine, sine = np.cos(angle) * scale, np.sin(angle) * scale
    height, width = tile.shape[:2]
    shift_x, shift_y = rng.uniform(0, width), rng.uniform(0, height)
    rows, columns = np.mgrid[:SIZE, :SIZE].astype(np.float32)
    u = columns * np.float32(cosine) - rows * np.float32(sine) + np.float32(shift_x)
    v = columns * np.float32(sine + shear) + rows * np.float32(cosine) + np.float32(shift_y)
    if rng.uniform() < 0.3:
        bend = np.float32(rng.uniform(1, 5) * scale)
        u = u + bend * smooth_noise(rng, SHAPE, rng.uniform(40, 120))
        v = v + bend * smooth_noise(rng, SHAPE, rng.uniform(40, 120))
    if scale > 1.3:
        blurred = cv2.GaussianBlur(np.tile(tile, (3, 3, 1)), (0, 0), 0.3 * scale)
        tile = np.asarray(blurred[height : 2 * height, width : 2 * width], dtype=np.uint8)
    mapped = cv2.remap(tile, u % width, v % height, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
    return mapped.astype(np.float32) / np.float32(255)


def clouds(rng: np.random.RandomState) -> Image:
    """Two colours mixed by noise of several scales."""
    noise = fractal_noise(rng, SHAPE, rng.uniform(6, 90), int(rng.randint(1, 5)))
    return _mixed(0.5 + noise * np.float32(rng.uniform(0.2, 1.2)), *_two_colours(rng))


def marble(rng: np.random.RandomState) -> Image:
    """Soft veins: noise folded at its zero crossings."""
    noise = np.abs(fractal_noise(rng, SHAPE, rng.uniform(30, 100), 4))
    return _mixed(noise * np.float32(rng.uniform(1.5, 4)), *_two_colours(rng))


def grain(rng: np.random.RandomState) -> Image:
    """Fine or coarse random grain, drawn out along one direction."""
    share = smooth_noise(rng, (512, 512), rng.uniform(1.2, 4), aspect=rng.choice([1.0, rng.uniform(3, 40)]))
    tile = _mixed(0.5 + share * np.float32(rng.uniform(0.15, 0.6)), *_two_colours(rng))
    centre = (256.0, 256.0)
    turned = cv2.warpAffine(tile, cv2.getRotationMatrix2D(centre, rng.uniform(0, 360), 1.0), (512, 512))
    return np.ascontiguousarray(turned[128:384, 128:384])


def wood(rng: np.random.RandomState) -> Image:
    """Rings cut along the trunk."""
    rows, columns = np.mgrid[:SIZE, :SIZE].astype(np.float32)
    angle = rng.uniform(0, np.pi)
    across = columns * np.float32(np.cos(angle)) + rows * np.float32(np.sin(angle))
    along = rows * np.float32(np.cos(angle)) - columns * np.float32(np.sin(angle))
    wave = across / np.float32(rng.uniform(4, 18)) + 2 * smooth_noise(rng, SHAPE, 80) + np.sin(along / 90)
    fine = smooth_noise(rng, SHAPE, 2.5) * np.float32(0.15)
    return _mixed(0.5 + 0.35 * np.sin(wave) + fine, *_two_colours(rng))


def stripes(rng: np.random.RandomState) -> Image:
    """Straight bands of several widths, crossed by others now and then (plaid)."""
    side = 128
    tile = np.empty((side, side, 3), dtype=np.float32)
    palette = np.stack([*_two_colours(rng), random_colour(rng)])
    edges = np.sort(rng.randint(0, side, size=int(rng.choice([2, 4, 8, 16]))))
    tile[:] = palette[np.searchsorted(edges, np.arange(side)) % len(palette)][None]
    if rng.uniform() < 0.4:
        crossing = palette[np.searchsorted(np.sort(rng.randint(0, side, size=6)), np.arange(side)) % len(palette)]
        tile = (tile + crossing[:, None]) / np.float32(2)
    blur = rng.uniform(0.4, 3) if rng.uniform() < 0.5 else 0.01
    return _tiled((cv2.GaussianBlur(tile, (0, 0), blur) * 255).astype(np.uint8), rng, rng.uniform(0.5, 2.0))


def bricks(rng: np.random.RandomState) -> Image:
    """Rectangles in straight rows, each row shifted, with joints."""
    wall, joint = _two_colours(rng)
    side, rows = 256, int(rng.choice([4, 8, 16]))
    columns = int(rng.choice([2, 4, 8]))
    height, width = side // rows, side // columns
    gap = int(rng.randint(1, max(2, height // 4)))
    spread, shift = rng.uniform(0, 0.2), rng.choice([0.0, 0.5, 0.33])
    tile = _canvas(joint, side)
    for row in range(rows):
        start = int(row * shift * width) % width
        for column in range(columns):
            tone = _tone(np.clip(wall + rng.uniform(-spread, spread), 0, 1))
            for left in (column * width + start, column * width + start - side):
                corners = (left + gap, row * height + gap), (left + width - 1, row * height + height - 1)
                cv2.rectangle(tile, *corners, tone, -1)
    return _tiled(tile, rng, rng.uniform(0.7, 2.0))


def mesh(rng: np.random.RandomState) -> Image:
    """Wires in two directions over a ground."""
    ground, wire = _two_colours(rng)
    side = int(rng.randint(16, 65)) * 2
    tile = _canvas(ground, side)
    width = int(rng.randint(2, max(3, side // 4)))
    tile[:, :width] = np.round(wire * 255)
    tile[:width, :] = np.round(np.clip(wire * rng.uniform(0.7, 1.1), 0, 1) * 255)
    return _tiled(tile, rng, rng.uniform(1.0, 2.0))


def _shape_outline(rng: np.random.RandomState, x: float, y: float, radius: float) -> npt.NDArray[np.float64]:
    """A regular polygon, ellipse, bar or cross around (x, y), turned at random."""
    kind = rng.randint(4)
    if kind == 0:
        angles = 2 * np.pi * np.arange(24) / 24
        points = np.stack([np.cos(angles), np.sin(angles) * rng.uniform(0.4, 1)], axis=1)
    elif kind == 1:
        corners = int(rng.randint(3, 7))
        angles = 2 * np.pi * np.arange(corners) / corners
        points = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    elif kind == 2:
        half = rng.uniform(0.1, 0.5)
        points = np.asarray([[-1, -half], [1, -half], [1, half], [-1, half]])
    else:
        arm = rng.uniform(0.15, 0.4)
        quarter = np.asarray([[arm, -1], [arm, -arm], [1, -arm]])
        turn = np.asarray([[0.0, 1.0], [-1.0, 0.0]])
        points = np.concatenate([quarter @ np.linalg.matrix_power(turn, step) for step in range(4)])
    angle = rng.uniform(0, 2 * np.pi)
    rotation = np.asarray([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return np.asarray(points @ rotation.T * radius + np.asarray([x, y]))


def lattice(rng: np.random.RandomState) -> Image:
    """One to four small shapes, repeated on a lattice (dots, crosses, scales, printed patterns)."""
    ground, ink = _two_colours(rng)
    side = int(rng.randint(24, 129))
    tile = _canvas(ground, side)
    for _ in range(int(rng.choice([1, 1, 2, 3, 4]))):
        x, y = rng.uniform(0, side, size=2)
        outline = _shape_outline(rng, x, y, side * rng.uniform(0.12, 0.45))
        colour = ink if rng.uniform() < 0.6 else random_colour(rng)
        for dx in (-side, 0, side):
            for dy in (-side, 0, side):
                moved = subpixel(outline + np.asarray([dx, dy]))
                cv2.fillPoly(tile, [moved], _tone(colour), cv2.LINE_AA, SUBPIXEL_BITS)
    return _tiled(tile, rng, rng.uniform(0.8, 2.0))


def scales(rng: np.random.RandomState) -> Image:
    """Overlapping shaded discs in shifted rows."""
    ground, face = _two_colours(rng)
    side = int(rng.randint(16, 41)) * 2
    tile = _canvas(ground, 2 * side)
    for row in range(-1, 6):
        for column in range(-1, 4):
            centre = subpixel([[(column + 0.5 * (row % 2)) * side, row * side / 2]])[0]
            for level in (1.0, 0.8, 0.5):
                colour = np.clip(face * (1.25 - 0.5 * level), 0, 1)
                place = (int(centre[0]), int(centre[1]))
                reach = int(0.56 * side * level * (1 << SUBPIXEL_BITS))
                cv2.circle(tile, place, reach, _tone(colour), -1, cv2.LINE_AA, SUBPIXEL_BITS)
    return _tiled(tile, rng, rng.uniform(0.8, 2.0))


def relief(rng: np.random.RandomState) -> Image:
    """A pressed or ribbed surface: a repeated random height field, lit from one side, darker in the depths."""
    side = int(rng.randint(20, 97))
    height = np.zeros((3 * side, 3 * side), dtype=np.float32)
    rows, columns = np.mgrid[: 3 * side, : 3 * side].astype(np.float32)
    for _ in range(int(rng.randint(1, 5))):
        x, y = rng.uniform(0, side, size=2)
        if rng.uniform() < 0.5:
            across = columns - np.float32(x) if rng.uniform() < 0.5 else rows - np.float32(y)
            distance = np.abs((across + side / 2) % side - side / 2) / np.float32(side * rng.uniform(0.1, 0.5))
        else:
            u = ((columns - np.float32(x) + side / 2) % side - side / 2) / np.float32(side * rng.uniform(0.15, 0.5))
            v = ((rows - np.float32(y) + side / 2) % side - side / 2) / np.float32(side * rng.uniform(0.15, 0.5))
            distance = np.sqrt(u * u + v * v)
        bump = np.sqrt(np.clip(1 - distance * distance, 0, 1)) if rng.uniform() < 0.6 else np.clip(1 - distance, 0, 1)
        height = np.maximum(height, bump.astype(np.float32) * np.float32(rng.uniform(0.4, 1.0)))
    height = np.asarray(cv2.GaussianBlur(height, (0, 0), rng.uniform(0.6, 2.0)), dtype=np.float32)
    light = rng.uniform(-1, 1, size=2) * side * rng.uniform(0.01, 0.06)
    slope = np.gradient(height, axis=1) * np.float32(light[0]) + np.gradient(height, axis=0) * np.float32(light[1])
    depth = np.float32(rng.uniform(0.1, 0.8))
    shade = (1 - depth + depth * height + slope)[side : 2 * side, side : 2 * side]
    tile = np.clip(shade[..., None] * random_colour(rng, low=0.3), 0, 1)
    return _tiled((tile * 255).astype(np.uint8), rng, rng.uniform(0.6, 1.6))


def cells(rng: np.random.RandomState) -> Image:
    """Cells around scattered centres, shaded or toned one by one (pebbles, cracked mud without cracks)."""
    count = int(rng.choice([40, 100, 250, 600]))
    points = rng.randint(0, SIZE, size=(count, 2))
    seeds = np.full(SHAPE, 255, dtype=np.uint8)
    seeds[points[:, 0], points[:, 1]] = 0
    distance, labels = cv2.distanceTransformWithLabels(seeds, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    first, second = _two_colours(rng)
    tones = rng.uniform(-0.2, 0.2, size=int(labels.max()) + 1).astype(np.float32) * np.float32(rng.choice([0, 1]))
    spacing = np.float32(SIZE / np.sqrt(count))
    share = distance / spacing * np.float32(rng.uniform(0.2, 1.2))
    image = _mixed(share, first, second) + tones[labels][..., None]
    return np.clip(cv2.GaussianBlur(image, (0, 0), 0.7), 0, 1).astype(np.float32)


def confetti(rng: np.random.RandomState) -> Image:
    """Many round or long pieces strewn over each other, of a few colours."""
    pixels = _canvas(random_colour(rng))
    palette = [random_colour(rng) for _ in range(int(rng.randint(1, 6)))]
    largest = rng.uniform(3, 16)
    squeeze = rng.uniform(0.15, 1.0)
    count = int(min(1500, rng.uniform(0.6, 2.5) * SIZE**2 / (np.pi * largest**2 * squeeze)) + 40)
    for _ in range(count):
        x, y = rng.randint(0, SIZE, size=2)
        radius = largest * rng.uniform(0.4, 1.0)
        axes = (int(radius + 1), int(radius * squeeze + 1))
        tone = _tone(np.clip(palette[rng.randint(len(palette))] + rng.uniform(-0.06, 0.06), 0, 1))
        cv2.ellipse(pixels, (int(x), int(y)), axes, float(rng.uniform(0, 180)), 0, 360, tone, -1, cv2.LINE_AA)
    return pixels.astype(np.float32) / np.float32(255)


def strewn(rng: np.random.RandomState) -> Image:
    """Bars, crosses, triangles and other regular shapes of all sizes, scattered apart over a ground of fine grain."""
    ground = random_colour(rng)
    pixels = _canvas(ground)
    palette = [random_colour(rng) for _ in range(int(rng.randint(1, 5)))]
    largest = rng.uniform(4, 20)
    count = int(min(500, rng.uniform(0.1, 0.7) * SIZE**2 / (2 * largest**2)) + 5)
    for _ in range(count):
        x, y = rng.uniform(0, SIZE, size=2)
        outline = _shape_outline(rng, x, y, largest * rng.uniform(0.15, 1.0))
        tone = _tone(np.clip(palette[rng.randint(len(palette))] + rng.uniform(-0.08, 0.08), 0, 1))
        cv2.fillPoly(pixels, [subpixel(outline)], tone, cv2.LINE_AA, SUBPIXEL_BITS)
    fine = np.float32(rng.uniform(0, 0.05)) * smooth_noise(rng, SHAPE, 2.0)
    return np.clip(pixels.astype(np.float32) / np.float32(255) + fine[..., None], 0, 1)


def twill(rng: np.random.RandomState) -> Image:
    """Rounded threads that pass over two or more others and under one or more, shifted from thread to thread."""
    threads = int(rng.randint(3, 9))
    side = threads * int(rng.randint(max(3, 20 // threads), max(4, 120 // threads)))
    over, shift = int(rng.randint(1, threads)), int(rng.randint(1, 4))
    rows, columns = np.mgrid[:side, :side].astype(np.float32) * np.float32(threads / side)
    column, row = columns.astype(np.int64), rows.astype(np.int64)
    warp = (column + shift * row) % threads < over
    across = np.where(warp, columns - column, rows - row)
    shade = 1 - np.float32(rng.uniform(0.5, 2.5)) * (across - np.float32(0.5)) ** 2
    first, second = _two_colours(rng)
    tile = np.where(warp[..., None], first, second) * np.clip(shade, 0.1, 1)[..., None]
    return _tiled((np.clip(tile, 0, 1) * 255).astype(np.uint8), rng, rng.uniform(0.6, 1.8))


def plain(rng: np.random.RandomState) -> Image:
    """One colour with a slight unevenness."""
    noise = np.float32(rng.uniform(0.0, 0.08)) * smooth_noise(rng, SHAPE, rng.uniform(2, 120))
    return np.clip(random_colour(rng) + noise[..., None], 0, 1).astype(np.float32)


def mixture(rng: np.random.RandomState) -> Image:
    """Two other textures laid over each other."""
    first, second = (TEXTURES[int(rng.randint(len(TEXTURES) - 1))](rng) for _ in range(2))
    if rng.uniform() < 0.5:
        relative = second.mean(axis=2, keepdims=True) / second.mean() - 1
        return np.clip(first * (1 + np.float32(rng.uniform(0.1, 0.6)) * relative), 0, 1).astype(np.float32)
    return (first + (second - first) * np.float32(rng.uniform(0.15, 0.5))).astype(np.float32)


def patchwork(rng: np.random.RandomState) -> Image:
    """Pieces of one texture, each turned, mirrored and toned on its own, with or without a joint between them."""
    texture = TEXTURES[int(rng.randint(len(TEXTURES) - 2))](rng)
    variants = np.stack([texture, texture[::-1, ::-1], texture[::-1], np.rot90(texture), np.rot90(texture, 3)])
    rows, columns = np.mgrid[:SIZE, :SIZE].astype(np.float32)
    angle = rng.uniform(0, np.pi)
    u = columns * np.float32(np.cos(angle)) - rows * np.float32(np.sin(angle)) + np.float32(2 * SIZE)
    v = columns * np.float32(np.sin(angle)) + rows * np.float32(np.cos(angle)) + np.float32(2 * SIZE)
    height = np.float32(rng.uniform(10, 70))
    line = np.floor(v / height)
    if rng.uniform() < 0.5:
        length = height * np.float32(rng.uniform(1.5, 6))
        along = u / length + np.float32(rng.uniform(0.2, 0.8)) * line
    else:  # slanting pieces whose slant changes from line to line
        length = height * np.float32(rng.uniform(0.4, 2))
        along = (u + np.where(line % 2 == 0, v, -v) * np.float32(rng.uniform(0.5, 1.5))) / length
    number = (line * 131 + np.floor(along) * 17).astype(np.int64)
    pieces = rng.uniform(-1, 1, size=997).astype(np.float32)[number % 997] * np.float32(rng.uniform(0, 0.15))
    kind = rng.randint(0, int(rng.randint(1, 6)), size=991)[number % 991]
    image = np.take_along_axis(variants, kind[None, ..., None], axis=0)[0] + pieces[..., None]
    edge = np.minimum((v / height - line) * height, np.abs(along - np.floor(along)) * length)
    joint = (edge < rng.uniform(0.8, 3.0)) & (rng.uniform() < 0.7)
    image = np.where(joint[..., None], random_colour(rng), image)
    return np.clip(cv2.GaussianBlur(image.astype(np.float32), (0, 0), 0.6), 0, 1).astype(np.float32)


TEXTURES: tuple[Texture, ...] = (
    clouds, marble, grain, wood, plain, stripes, bricks, mesh, lattice, scales, relief, cells, confetti,
    strewn, twill, patchwork, mixture,
)  # fmt: skip
TEXTURE_SHARES = np.asarray([1, 1, 1, 1, 1, 2, 2, 2, 3, 2, 3, 2, 3, 3, 3, 5, 5]) / 40
"""Structured textures are drawn more often: a normal edge must be learned not to be a defect."""


CALM_SHARE = 0.65
"""Share of the textures whose contrast is lowered, so that most defects stand out, as they do on real surfaces."""


def _object_outline(rng: np.random.RandomState, x: float, y: float, radius: float) -> npt.NDArray[np.float64]:
    """Ellipse, rounded rectangle, polygon, smooth lobed or notched outline (N, 2); never a wheel with flat teeth."""
    angles = 2 * np.pi * np.arange(240) / 240
    kind = rng.randint(5)
    if kind == 0:
        radii = np.ones(240)
    elif kind == 1:
        power = rng.uniform(3, 10)
        radii = (np.abs(np.cos(angles)) ** power + np.abs(np.sin(angles)) ** power) ** (-1 / power)
    elif kind == 2:
        corners = int(rng.randint(3, 9))
        sector = np.pi / corners
        radii = np.cos(sector) / np.cos((angles % (2 * sector)) - sector)
    elif kind == 3:  # evenly cut notches or round crimps
        count = int(rng.randint(3, 25))
        wave = np.cos(count * angles)
        radii = 1 - rng.uniform(0.04, 0.25) * np.where(wave > rng.uniform(-0.7, 0.7), np.abs(wave), 0)
    else:
        lobes = int(rng.randint(2, 7))
        radii = 1 + rng.uniform(0.05, 0.25) * np.sin(lobes * angles) + rng.uniform(0, 0.1) * np.sin(angles)
    turn, squeeze = rng.uniform(0, 2 * np.pi), rng.choice([1.0, rng.uniform(0.35, 1.0)])
    u, v = radius * radii * np.cos(angles), radius * squeeze * radii * np.sin(angles)
    return rotated(u, v, turn) + np.asarray([x, y])


def _calmed(texture: Image, rng: np.random.RandomState) -> Image:
    """The texture with its contrast lowered."""
    mean = texture.mean(axis=(0, 1))
    return (mean + (texture - mean) * np.float32(rng.uniform(0.05, 0.5))).astype(np.float32)


def _calm(rng: np.random.RandomState) -> Image:
    """A texture of low contrast."""
    return _calmed(TEXTURES[int(rng.randint(len(TEXTURES)))](rng), rng)


def objects(rng: np.random.RandomState) -> tuple[Image, Region, Image]:
    """One to nine alike objects with bevel, decoration and openings on a calm ground: (image, region, ground)."""
    background = plain(rng) if rng.uniform() < 0.6 else _calm(rng)
    surface = plain(rng) if rng.uniform() < 0.5 else _calm(rng)
    while abs(float(surface.mean()) - float(background.mean())) < 0.12:
        surface = np.clip(surface + rng.uniform(-0.6, 0.6), 0.02, 0.98).astype(np.float32)
    side = int(rng.choice([1, 1, 1, 2, 3]))
    pitch = SIZE / side
    solid = np.zeros(SHAPE, dtype=np.float32)
    decoration = np.zeros(SHAPE, dtype=np.float32)
    fold = int(rng.choice([3, 5, 6, 8]))  # features off the centre come in symmetric sets, unlike defects
    openings, marks = int(rng.randint(0, 3)), int(rng.randint(0, 3))
    layout = rng.randint(1 << 30)
    for row in range(side):
        for column in range(side):
            x, y = (np.asarray([column, row]) + 0.5) * pitch + rng.uniform(-0.06, 0.06, size=2) * pitch
            same = np.random.RandomState(layout)
            radius = pitch * same.uniform(0.3, 0.46)
            solid = np.maximum(solid, filled_polygon(_object_outline(same, x, y, radius)))
            for number in range(openings + marks):
                ring, size, turn = same.uniform(0.3, 0.65), same.uniform(0.08, 0.2), same.uniform(0, 2 * np.pi)
                shape_seed = same.randint(1 << 30)
                if same.uniform() < 0.4:
                    ring, size = 0.0, same.uniform(0.1, 0.4)
                for step in range(fold if ring > 0 else 1):
                    angle = turn + 2 * np.pi * step / fold
                    place = x + ring * radius * np.cos(angle), y + ring * radius * np.sin(angle)
                    outline = _shape_outline(np.random.RandomState(shape_seed), *place, size * radius)
                    covered = filled_polygon(outline)
                    if number < openings:
                        solid = np.minimum(solid, 1 - covered)
                    else:
                        decoration = np.maximum(decoration, covered)
    depth = cv2.distanceTransform((solid > 0.5).astype(np.uint8), cv2.DIST_L2, 5)
    bevel = np.clip(1 - depth / np.float32(rng.uniform(2, 25)), 0, 1) * np.float32(rng.uniform(-0.4, 0.4))
    rings = np.float32(rng.choice([0.0, rng.uniform(0, 0.1)])) * np.sin(depth / np.float32(rng.uniform(1, 8)))
    surface = surface * (1 + bevel + rings)[..., None]
    surface = surface * (1 - decoration[..., None]) + random_colour(rng) * decoration[..., None]
    image = background * (1 - solid[..., None]) + np.clip(surface, 0, 1) * solid[..., None]
    return image.astype(np.float32), solid > 0.5, background


def draw_scene(rng: np.random.RandomState) -> tuple[Image, Region, Image]:
    """A normal scene: image, region for defects, background."""
    if rng.uniform() < 0.4:
        image, region, background = objects(rng)
        if int(region.sum()) > 2000:
            return image, region, background
    image = TEXTURES[int(rng.choice(len(TEXTURES), p=TEXTURE_SHARES))](rng)
    if rng.uniform() < CALM_SHARE:
        image = _calmed(image, rng)
    elsewhere = np.broadcast_to(random_colour(rng), image.shape).astype(np.float32)
    return image, np.ones(SHAPE, dtype=bool), elsewhere


def _moved(image: Image, region: Region, background: Image, rng: np.random.RandomState) -> tuple[Image, Region, Image]:
    """The scene turned by any angle, scaled and shifted a little: no two images of a class are alike in place."""
    full = bool(region.all())
    reach = 40.0 if full else 10.0
    turn = cv2.getRotationMatrix2D((SIZE / 2, SIZE / 2), rng.uniform(0, 360), rng.uniform(0.93, 1.08))
    matrix = turn + np.asarray([[0, 0, rng.uniform(-reach, reach)], [0, 0, rng.uniform(-reach, reach)]])
    border = cv2.BORDER_REFLECT_101 if full else cv2.BORDER_REPLICATE

    def warped(array: npt.NDArray[Any], flags: int) -> npt.NDArray[Any]:
        return np.asarray(cv2.warpAffine(array, matrix, (SIZE, SIZE), flags=flags, borderMode=border))

    moved = np.clip(warped(image, cv2.INTER_CUBIC), 0, 1)
    if full:
        return moved, region, background
    solid = warped(region.astype(np.uint8), cv2.INTER_NEAREST) > 0
    if int(solid.sum()) <= 2000:
        return image, region, background
    return moved, solid, warped(background, cv2.INTER_LINEAR)


def add_defects(image: Image, region: Region, background: Image, rng: np.random.RandomState) -> Image:
    """One defect, sometimes two or three, of random kind and, now and then, of lower contrast."""
    names = list(DEFECTS)
    damaged = image
    for _ in range(int(rng.choice([1, 1, 1, 1, 2, 3]))):
        damaged = DEFECTS[names[int(rng.randint(len(names)))]](damaged, region, background, rng)
    strength = np.float32(rng.uniform(0.5, 1.0) if rng.uniform() < 0.3 else 1.0)
    return (image + strength * (damaged - image)).astype(np.float32)


def _turned(array: npt.NDArray[np.uint8], quarter: int, mirrored: bool) -> npt.NDArray[np.uint8]:
    turned = np.rot90(array, quarter)
    return np.ascontiguousarray(turned[:, ::-1] if mirrored else turned)


def draw_images(rng: np.random.RandomState, size: int) -> list[tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]]:
    """Good, defective, good, defective image of a scene, each placed, lit, turned and recorded on its own.

    Returns:
        Of each, (size, size, 3) uint8 RGB and (size, size) uint8, the share of visibly defective area in each
        pixel, 0 to 255.
    """
    scene = draw_scene(rng)
    placed_alike = rng.uniform() < 0.3
    results = []
    for defective in (False, True, False, True):
        image, region, background = scene if placed_alike else _moved(*scene, rng)
        damaged = add_defects(image, region, background, rng) if defective else image
        clean_photo, photo = photograph([image, damaged], rng, rng.uniform(0.0, 0.06), rng.uniform(0.0, 0.25))
        changed = np.abs(clean_photo.astype(np.int16) - photo.astype(np.int16)).max(axis=2) > VISIBLE * 255
        if rng.uniform() < 0.2:
            photo = cv2.GaussianBlur(photo, (0, 0), rng.uniform(0.4, 0.9)).astype(np.uint8)
        small = np.asarray(PillowImage.fromarray(photo).resize((size, size), PillowImage.Resampling.BICUBIC))
        mask = cv2.resize(changed.astype(np.uint8) * 255, (size, size), interpolation=cv2.INTER_AREA)
        quarter, mirrored = int(rng.randint(4)), bool(rng.randint(2))
        results.append((_turned(small, quarter, mirrored), _turned(mask, quarter, mirrored)))
    return results


class TrainingStream:
    """Endless batches of 4 * ``scenes`` images: (B, 3, S, S) uint8 and defective area (B, S, S) uint8.

    Batch n depends on the seed and n only; one of several processes takes every ``step``-th batch from ``first`` on.
    """

    def __init__(self, seed: int, scenes: int, size: int, first: int = 0, step: int = 1) -> None:
        self.seed, self.scenes, self.size, self.first, self.step = seed, scenes, size, first, step

    def batch(self, number: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Batch ``number`` of the stream: of each scene a good, a defective, a good and a defective image."""
        images = [
            image
            for scene in range(self.scenes)
            for image in draw_images(random_state("training", self.seed, number, scene), self.size)
        ]
        pixels, defective = (torch.from_numpy(np.stack(part)) for part in zip(*images))
        return pixels.permute(0, 3, 1, 2).contiguous(), defective

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        cv2.setNumThreads(1)
        number = self.first
        while True:
            yield self.batch(number)
            number += self.step
