"""Noise, defects and photographic finish, shared by the sample (sample.py) and the training stream.

Images here are float32 arrays (H, W, 3) in [0, 1]; every random choice comes from the RandomState passed in.
A defect is drawn only inside a region, and weak edges are cut, so that the pixels it changes are well defined.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.float32]
"""(H, W, 3) in [0, 1]."""
Field = npt.NDArray[np.float32]
"""(H, W), one value a pixel."""
Points = npt.NDArray[np.float64]
"""(N, 2) as (x, y) in pixels, or one coordinate of them, (N,)."""
Region = npt.NDArray[np.bool_]
"""(H, W), True where the object or texture is."""
Scene = tuple[Image, Region, Image]
"""Image, region that may carry a defect, and background where the object is missing."""
Defect = Callable[[Image, Region, Image, np.random.RandomState], Image]
"""(image, region, background, random state) -> image with the defect; the input is not changed."""

SIZE = 256
SHAPE = (SIZE, SIZE)
SUBPIXEL_BITS = 4
WEAKEST_ALPHA = 0.25


def random_state(*key: object) -> np.random.RandomState:
    """A random state that depends only on the printed key and is the same on every machine."""
    digest = hashlib.sha256("/".join(str(part) for part in key).encode()).digest()
    return np.random.RandomState(np.frombuffer(digest, dtype="<u4").astype(np.uint32))


def subpixel(points: npt.ArrayLike) -> npt.NDArray[np.int32]:
    """Points (N, 2) in pixels, as (x, y), in the fixed-point format of cv2's drawing functions."""
    return np.round(np.asarray(points, dtype=np.float64) * (1 << SUBPIXEL_BITS)).astype(np.int32)


def filled_polygon(points: npt.ArrayLike) -> Field:
    """Antialiased coverage (H, W) in [0, 1] of the polygon with vertices (N, 2) as (x, y) in pixels."""
    canvas = np.zeros(SHAPE, dtype=np.uint8)
    cv2.fillPoly(canvas, [subpixel(points)], 255, lineType=cv2.LINE_AA, shift=SUBPIXEL_BITS)
    return canvas.astype(np.float32) / np.float32(255)


def rotated(x: Points, y: Points, angle: float | Points) -> Points:
    """Points (N, 2) from coordinates (N,), rotated about the origin by an angle in radians, or by one per point."""
    return np.stack([x * np.cos(angle) - y * np.sin(angle), x * np.sin(angle) + y * np.cos(angle)], axis=1)


def smooth_noise(rng: np.random.RandomState, shape: tuple[int, int], cell: float, aspect: float = 1.0) -> Field:
    """Smooth noise (H, W) in about [-1, 1] that varies over ``cell`` pixels, ``aspect`` times as slowly along x."""
    rows = max(2, int(shape[0] / cell) + 2)
    columns = max(2, int(shape[1] / (cell * aspect)) + 2)
    grid = rng.randint(0, 256, size=(rows, columns)).astype(np.float32) / np.float32(127.5) - np.float32(1)
    return np.asarray(cv2.resize(grid, (shape[1], shape[0]), interpolation=cv2.INTER_CUBIC), dtype=np.float32)


def fractal_noise(rng: np.random.RandomState, shape: tuple[int, int], cell: float, octaves: int = 3) -> Field:
    """Sum of smooth noises (H, W) in about [-1, 1], each of half the cell and half the weight."""
    total = np.zeros(shape, dtype=np.float32)
    for octave in range(octaves):
        total += smooth_noise(rng, shape, max(1.0, cell / 2**octave)) * np.float32(0.5 ** (octave + 1))
    return total


def random_colour(rng: np.random.RandomState, low: float = 0.05, high: float = 0.95) -> Field:
    """A colour (3,), between grey and saturated."""
    grey = rng.uniform(low, high)
    saturation = rng.choice([0.1, 0.35, 0.8])
    return np.clip(grey + saturation * rng.uniform(-0.5, 0.5, size=3), low, high).astype(np.float32)


def contrasting_colour(
    rng: np.random.RandomState, image: Image, region: Region, distance: float, dark_share: float = 0.5
) -> Field:
    """A colour (3,) whose brightness differs from the mean of the region by at least ``distance``."""
    mean = image[region].mean(axis=0) if region.any() else image.mean(axis=(0, 1))
    brightness = float(mean.mean())
    darker = bool(rng.uniform() < dark_share) and brightness - distance >= 0.04
    if darker or brightness + distance > 0.96:
        target = rng.uniform(0.02, max(0.03, brightness - distance))
    else:
        target = rng.uniform(min(0.97, brightness + distance), 0.98)
    tint = rng.choice([0.05, 0.3]) * rng.uniform(-1, 1, size=3)
    return np.clip(target + tint - tint.mean(), 0, 1).astype(np.float32)


def blend(image: Image, alpha: Field, colour: npt.NDArray[np.float32], region: Region) -> Image:
    """Lay a colour (3,) or image (H, W, 3) over ``image`` with weight ``alpha`` (H, W), inside the region only."""
    weight = np.where(region & (alpha >= WEAKEST_ALPHA), alpha, 0)[..., None].astype(np.float32)
    return image * (1 - weight) + colour * weight


def random_place(rng: np.random.RandomState, region: Region, margin: int = 8) -> tuple[float, float]:
    """A pixel (x, y) of the region, ``margin`` pixels off the image border where possible."""
    inner = np.zeros_like(region)
    inner[margin:-margin, margin:-margin] = region[margin:-margin, margin:-margin]
    rows, columns = np.nonzero(inner if inner.any() else region)
    index = rng.randint(len(rows))
    return float(columns[index]), float(rows[index])


def wandering_path(
    rng: np.random.RandomState, start: tuple[float, float], length: float, step: float, turn: float
) -> Points:
    """Points (N, 2) of a path that passes ``start`` half-way and turns by up to ``turn`` radians a step."""
    count = max(2, int(length / step))
    angles = rng.uniform(0, 2 * np.pi) + np.cumsum(rng.uniform(-turn, turn, size=count))
    steps = step * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    points = np.concatenate([np.zeros((1, 2)), np.cumsum(steps, axis=0)])
    return np.asarray(points - points[count // 2] + np.asarray(start))


def path_coverage(points: Points, widths: Points) -> Field:
    """Antialiased coverage (H, W) of a path (N, 2) drawn with one width in pixels for each of its N - 1 pieces."""
    canvas = np.zeros((2 * SIZE, 2 * SIZE), dtype=np.uint8)
    fixed = subpixel(2 * points)
    for first, second, width in zip(fixed[:-1], fixed[1:], widths):
        ends = (int(first[0]), int(first[1])), (int(second[0]), int(second[1]))
        cv2.line(canvas, *ends, 255, max(1, round(2 * float(width))), cv2.LINE_AA, SUBPIXEL_BITS)
    small = cv2.resize(canvas, SHAPE, interpolation=cv2.INTER_AREA)
    return small.astype(np.float32) / np.float32(255)


def ragged_blob(rng: np.random.RandomState, centre: tuple[float, float], radius: float, raggedness: float) -> Points:
    """Vertices (N, 2) of a closed outline around ``centre``, its radius varied by up to ``raggedness``."""
    count = int(rng.randint(9, 17))
    angles = 2 * np.pi * (np.arange(count) + rng.uniform(-0.3, 0.3, size=count)) / count
    radii = radius * (1 + raggedness * rng.uniform(-1, 1, size=count))
    squeeze = rng.uniform(0.6, 1.0)
    turn = rng.uniform(0, np.pi)
    return rotated(radii * np.cos(angles), squeeze * radii * np.sin(angles), turn) + np.asarray(centre)


def local_region(region: Region, alpha: Field) -> Region:
    """The part of the region around pixels with weight, where local brightness is measured."""
    near = cv2.dilate((alpha > 0).astype(np.uint8), np.ones((9, 9), np.uint8)) > 0
    return np.asarray(region & near)


def scratch(image: Image, region: Region, background: Image, rng: np.random.RandomState) -> Image:
    """One to three thin, nearly straight lines, brighter or darker than the surface."""
    alpha = np.zeros(SHAPE, dtype=np.float32)
    place = np.asarray(random_place(rng, region, margin=24))
    points = wandering_path(rng, (0, 0), rng.uniform(40, 150), 6.0, rng.uniform(0.02, 0.12))
    for _ in range(int(rng.choice([1, 1, 2, 3]))):
        widths = np.full(len(points) - 1, rng.uniform(1.2, 3.0))
        alpha = np.maximum(alpha, path_coverage(points + place, widths))
        place = place + rng.uniform(-12, 12, size=2)
    colour = contrasting_colour(rng, image, local_region(region, alpha), rng.uniform(0.25, 0.4), dark_share=0.4)
    return blend(image, alpha * np.float32(rng.uniform(0.75, 1.0)), colour, region)


def crack(image: Image, region: Region, background: Image, rng: np.random.RandomState) -> Image:
    """A jagged dark line that thins out, with branches."""
    points = wandering_path(rng, random_place(rng, region, margin=24), rng.uniform(50, 140), 7.0, 0.75)
    widths = np.linspace(rng.uniform(2.2, 4.5), 1.0, len(points) - 1)
    alpha = path_coverage(points, widths)
    for _ in range(int(rng.randint(1, 4))):
        root = points[rng.randint(len(points))]
        branch = wandering_path(rng, (0, 0), rng.uniform(15, 45), 6.0, 0.7)
        branch = branch - branch[0] + root
        alpha = np.maximum(alpha, path_coverage(branch, np.linspace(2.0, 0.8, len(branch) - 1)))
    colour = contrasting_colour(rng, image, local_region(region, alpha), rng.uniform(0.3, 0.45), dark_share=0.95)
    return blend(image, alpha * np.float32(rng.uniform(0.8, 1.0)), colour, region)


def spot(image: Image, region: Region, background: Image, rng: np.random.RandomState) -> Image:
    """One to four round, compact marks of one colour."""
    alpha = np.zeros(SHAPE, dtype=np.float32)
    place = np.asarray(random_place(rng, region, margin=16))
    count = int(rng.choice([1, 1, 2, 3, 4]))
    for _ in range(count):
        radius = rng.uniform(5, 14) / (1 + 0.15 * (count - 1))
        outline = ragged_blob(rng, (float(place[0]), float(place[1])), radius, rng.uniform(0.02, 0.2))
        alpha = np.maximum(alpha, filled_polygon(outline))
        place = place + rng.uniform(-45, 45, size=2)
    colour = contrasting_colour(rng, image, local_region(region, alpha), rng.uniform(0.25, 0.4), dark_share=0.6)
    if rng.uniform() < 0.3:
        colour = random_colour(rng)
        colour[rng.randint(3)] = rng.choice([0.0, 1.0])
    return blend(image, alpha * np.float32(rng.uniform(0.75, 1.0)), colour, region)


def stain(image: Image, region: Region, background: Image, rng: np.random.RandomState) -> Image:
    """A translucent patch of irregular outline, often with a darker rim."""
    x, y = random_place(rng, region, margin=20)
    radius = rng.uniform(13, 32)
    rows, columns = np.mgrid[:SIZE, :SIZE].astype(np.float32)
    distance = np.sqrt((columns - np.float32(x)) ** 2 + (rows - np.float32(y)) ** 2) / np.float32(radius)
    distance = distance + np.float32(rng.uniform(0.2, 0.5)) * smooth_noise(rng, SHAPE, radius * 0.7)
    inside = np.clip((1 - distance) * np.float32(rng.uniform(4, 12)), 0, 1)
    strength = rng.uniform(0.4, 0.8)
    alpha = inside * np.float32(strength)
    if rng.uniform() < 0.5:
        rim = np.clip(1 - np.abs(distance - np.float32(0.85)) * 8, 0, 1) * inside
        alpha = np.minimum(alpha + rim * np.float32(0.3), 1)
    colour = contrasting_colour(rng, image, local_region(region, alpha), rng.uniform(0.25, 0.4), dark_share=0.75)
    colour = np.clip(colour + rng.uniform(-0.15, 0.15, size=3), 0, 1).astype(np.float32)
    return blend(image, alpha.astype(np.float32), colour, region)


def fibre(image: Image, region: Region, background: Image, rng: np.random.RandomState) -> Image:
    """A curly thread of even width lying on the surface."""
    points = wandering_path(rng, (0, 0), rng.uniform(50, 140), 4.0, 0.1)
    bends = np.cumsum(np.repeat(rng.uniform(-0.35, 0.35, size=len(points)), 8)[: len(points) - 1])
    steps = np.diff(points, axis=0)
    curve = np.concatenate([np.zeros((1, 2)), np.cumsum(rotated(steps[:, 0], steps[:, 1], bends), axis=0)])
    curve = curve - curve.mean(axis=0) + np.asarray(random_place(rng, region, margin=24))
    alpha = path_coverage(curve, np.full(len(curve) - 1, rng.uniform(1.5, 3.5)))
    colour = contrasting_colour(rng, image, local_region(region, alpha), rng.uniform(0.25, 0.4))
    return blend(image, alpha, colour, region)


def hole(image: Image, region: Region, background: Image, rng: np.random.RandomState) -> Image:
    """A piece broken out of the surface: a ragged dark pit with one lit edge."""
    centre = random_place(rng, region, margin=16)
    outline = ragged_blob(rng, centre, rng.uniform(8, 20), rng.uniform(0.15, 0.4))
    light = rng.uniform(-1, 1, size=2)
    offset = light / (np.abs(light).max() + 1e-6) * rng.uniform(1.5, 3.0)
    pit = filled_polygon(outline)
    lit = np.clip(filled_polygon(outline + offset) - pit, 0, 1)
    near = local_region(region, pit)
    dark = contrasting_colour(rng, image, near, rng.uniform(0.25, 0.4), dark_share=0.9)
    grain = np.float32(rng.uniform(0.02, 0.1)) * smooth_noise(rng, SHAPE, 3.0)
    damaged = blend(image, pit, np.clip(dark + grain[..., None], 0, 1), region)
    bright = np.clip(image[near].mean(axis=0) + 0.3, 0, 1).astype(np.float32)
    return blend(damaged, lit * np.float32(0.9), bright, region)


def broken_edge(image: Image, region: Region, background: Image, rng: np.random.RandomState) -> Image:
    """A jagged piece missing from the edge of an object, with a visible fracture face; on a full texture, a hole."""
    solid = region.astype(np.uint8)
    edge = region & (cv2.erode(solid, np.ones((5, 5), np.uint8), borderValue=1) == 0)
    if int(edge.sum()) < 50:
        return hole(image, region, background, rng)
    centre = random_place(rng, np.asarray(edge), margin=8)
    outline = ragged_blob(rng, centre, rng.uniform(13, 28), rng.uniform(0.15, 0.35))
    gone = filled_polygon(outline)
    grown = np.asarray(centre) + (outline - np.asarray(centre)) * rng.uniform(1.15, 1.4)
    face = np.clip(filled_polygon(grown) - gone, 0, 1)
    near = local_region(region, gone)
    colour = contrasting_colour(rng, image, near, rng.uniform(0.2, 0.35))
    grain = np.float32(rng.uniform(0.05, 0.15)) * smooth_noise(rng, SHAPE, 2.5)
    damaged = blend(image, face, np.clip(colour + grain[..., None], 0, 1), region)
    return blend(damaged, gone, background, region)


def worn(image: Image, region: Region, background: Image, rng: np.random.RandomState) -> Image:
    """A patch rubbed until its structure is gone, with abraded streaks; meant for surfaces with structure."""
    centre = random_place(rng, region, margin=20)
    area = filled_polygon(ragged_blob(rng, centre, rng.uniform(14, 30), 0.25))
    blurred = cv2.GaussianBlur(image, (0, 0), rng.uniform(5, 10))
    streaks = smooth_noise(rng, SHAPE, 2.0, aspect=rng.uniform(3, 12))
    surface = np.clip(blurred + np.float32(rng.uniform(0.04, 0.15)) * streaks[..., None] + rng.uniform(-0.2, 0.2), 0, 1)
    return blend(image, area, surface.astype(np.float32), region)


DEFECTS: dict[str, Defect] = {
    defect.__name__: defect for defect in (scratch, crack, spot, stain, fibre, hole, broken_edge, worn)
}


def photograph(
    images: list[Image], rng: np.random.RandomState, noise: float, light: float
) -> list[npt.NDArray[np.uint8]]:
    """Light and record images of one scene with the same exposure and sensor noise.

    Args:
        images: each (H, W, 3) in [0, 1]; they differ only where the scene differs.
        noise: largest amplitude of the sensor noise, as a share of full scale.
        light: largest change of brightness across the image, as a share.

    Returns:
        Each image as (H, W, 3) uint8. Pixels equal in the scenes are equal in the results.
    """
    height, width = images[0].shape[:2]
    slope_x, slope_y = rng.uniform(-light, light, size=2)
    gain = rng.uniform(1 - light, 1 + light) * (1 + rng.uniform(-0.25 * light, 0.25 * light, size=3))
    ramp = 1 + slope_x * np.linspace(-0.5, 0.5, width)[None, :] + slope_y * np.linspace(-0.5, 0.5, height)[:, None]
    exposure = (ramp[..., None] * gain).astype(np.float32)
    grains = rng.randint(0, 256, size=(2, height, width, 3), dtype=np.uint8).astype(np.float32)
    added = (grains[0] + grains[1] - np.float32(255)) * np.float32(rng.uniform(0.2, 1.0) * noise) + np.float32(0.5)
    scaled = exposure * np.float32(255)
    return [np.clip(image * scaled + added, 0, 255).astype(np.uint8) for image in images]
