"""The stream of procedurally drawn images that trains the demo backbone.

Textures and objects are drawn only here; none of them is one of the sample's (sample.py draws its own).
Defects come from procedural.py, as the sample's do, with sizes and strengths varied more widely.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from itertools import count
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
    Points,
    Scene,
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
SCENES_PER_STEP = 3
"""Scenes drawn anew in a step. They replace the oldest in a pool from which the step's pairs are picked at random:
images of many scenes in a step give far better gradients than many patches of few."""
POOL_SCENES = 500
FIRST_SCENES = 120

Texture = Callable[[np.random.RandomState], Image]
Batch = tuple[torch.Tensor, torch.Tensor]
"""Images (B, 3, S, S) uint8 and the visibly defective share of each pixel, (B, S, S) uint8, 255 for all of it: a good
image, then a defective one of the same scene, and so on."""


def _two_colours(rng: np.random.RandomState) -> tuple[Field, Field]:
    """Two colours whose brightness differs, by little or by much."""
    first, second = random_colour(rng), random_colour(rng)
    if rng.uniform() < 0.4:
        second = np.clip(first + rng.uniform(-0.3, 0.3) + rng.uniform(-0.05, 0.05, size=3), 0, 1).astype(np.float32)
    return first, second


def _mixed(share: Field, first: Field, second: Field) -> Image:
    """Colours between two, by a share (H, W) clipped to [0, 1]."""
    weight = np.clip(share, 0, 1)[..., None]
    return (first * (1 - weight) + second * weight).astype(np.float32)


def _tiled(tile: Image, rng: np.random.RandomState) -> Image:
    """The tile (h, w, 3), repeated in a plane that is turned, scaled and now and then bent, filling the image."""
    scale = rng.uniform(0.6, 1.6)
    rows, columns = np.mgrid[:SIZE, :SIZE].astype(np.float64)
    plane = rotated(columns.ravel(), rows.ravel(), rng.choice([0.0, rng.uniform(-np.pi, np.pi)])).reshape(*SHAPE, 2)
    plane = scale * plane + rng.uniform(0, SIZE, size=2)
    if rng.uniform() < 0.3:
        plane = plane + rng.uniform(1, 5) * scale * smooth_noise(rng, SHAPE, rng.uniform(40, 120))[..., None]
    u, v = np.moveaxis(plane % tile.shape[1::-1], 2, 0).astype(np.float32)
    return np.asarray(cv2.remap(tile, u, v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP), dtype=np.float32)


def _fill(image: Image, outline: Points, colour: Field) -> None:
    """Fill an outline (N, 2) in the image, in place."""
    cv2.fillPoly(image, [subpixel(outline)], colour.tolist(), cv2.LINE_8, SUBPIXEL_BITS)


def _outline(rng: np.random.RandomState, centre: Points, radius: float) -> Points:
    """An ellipse, rounded rectangle or bar, polygon, or notched or lobed outline (N, 2) around a centre (2,)."""
    angles = 2 * np.pi * np.arange(120) / 120
    kind = rng.randint(3)
    if kind == 0:
        power = rng.uniform(2, 12)
        radii = (np.abs(np.cos(angles)) ** power + np.abs(np.sin(angles)) ** power) ** (-1 / power)
    elif kind == 1:
        sector = np.pi / int(rng.randint(3, 9))
        radii = np.cos(sector) / np.cos(angles % (2 * sector) - sector)
    else:  # few lobes, or round notches: never a wheel with flat teeth
        lobed = rng.uniform() < 0.5
        wave = np.cos(int(rng.randint(2, 8 if lobed else 25)) * angles)
        radii = 1 - rng.uniform(0.04, 0.3) * (wave if lobed else np.maximum(wave, 0))
    squeeze = rng.choice([1.0, rng.uniform(0.2, 1.0)])
    u, v = radius * radii * np.cos(angles), radius * squeeze * radii * np.sin(angles)
    return rotated(u, v, rng.uniform(0, 2 * np.pi)) + centre


def plain(rng: np.random.RandomState) -> Image:
    """One colour with a slight unevenness."""
    noise = np.float32(rng.uniform(0.0, 0.08)) * smooth_noise(rng, SHAPE, rng.uniform(2, 120))
    return np.clip(random_colour(rng) + noise[..., None], 0, 1).astype(np.float32)


def clouds(rng: np.random.RandomState) -> Image:
    """Two colours mixed by noise: clouds of several scales, soft veins, or fine grain drawn out along one direction."""
    kind = rng.randint(3)
    if kind == 2:
        grain = smooth_noise(rng, SHAPE, rng.uniform(1.2, 4), aspect=rng.uniform(1, 40))
        return _mixed(0.5 + grain * np.float32(rng.uniform(0.15, 0.6)), *_two_colours(rng))
    noise = fractal_noise(rng, SHAPE, rng.uniform(6, 100), int(rng.randint(1, 5)))
    share = np.abs(noise) * np.float32(rng.uniform(1.5, 4)) if kind else 0.5 + noise * np.float32(rng.uniform(0.2, 1.2))
    return _mixed(share, *_two_colours(rng))


def stripes(rng: np.random.RandomState) -> Image:
    """Straight bands of several widths, sharp or soft, crossed by others now and then (plaid)."""
    palette = np.stack([*_two_colours(rng), random_colour(rng)])

    def bands(number: int) -> Image:
        edges = np.sort(rng.randint(0, 128, size=number))
        return palette[np.searchsorted(edges, np.arange(128)) % len(palette)]

    tile = np.repeat(bands(int(rng.choice([2, 4, 8, 16])))[None], 128, axis=0)
    if rng.uniform() < 0.4:
        tile = (tile + bands(6)[:, None]) / np.float32(2)
    return _tiled(np.asarray(cv2.GaussianBlur(tile, (0, 0), rng.choice([0.4, rng.uniform(0.4, 3)]))), rng)


def lattice(rng: np.random.RandomState) -> Image:
    """One to four small shapes, repeated on a lattice (dots, crosses, scales, meshes, printed patterns)."""
    ground, ink = _two_colours(rng)
    side = int(rng.randint(24, 129))
    tile = np.full((side, side, 3), ground)
    for _ in range(int(rng.choice([1, 1, 2, 3, 4]))):
        outline = _outline(rng, rng.uniform(0, side, size=2), side * rng.uniform(0.12, 0.5))
        colour = ink if rng.uniform() < 0.6 else random_colour(rng)
        for shift in np.ndindex(3, 3):
            _fill(tile, outline + side * (np.asarray(shift) - 1), colour)
    return _tiled(np.asarray(cv2.GaussianBlur(tile, (0, 0), 0.5)), rng)


def cells(rng: np.random.RandomState) -> Image:
    """Cells around scattered centres, shaded or toned one by one (pebbles, cracked mud without cracks)."""
    number = int(rng.choice([40, 100, 250, 600]))
    points = rng.randint(0, SIZE, size=(number, 2))
    seeds = np.full(SHAPE, 255, dtype=np.uint8)
    seeds[points[:, 0], points[:, 1]] = 0
    distance, labels = cv2.distanceTransformWithLabels(seeds, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    tones = rng.uniform(-0.2, 0.2, size=int(labels.max()) + 1).astype(np.float32) * np.float32(rng.choice([0, 1]))
    share = distance * np.float32(np.sqrt(number) / SIZE * rng.uniform(0.2, 1.2))
    image = _mixed(share, *_two_colours(rng)) + tones[labels][..., None]
    return np.clip(cv2.GaussianBlur(image, (0, 0), 0.7), 0, 1).astype(np.float32)


def confetti(rng: np.random.RandomState) -> Image:
    """Regular shapes of a few colours and all sizes, scattered apart over a ground or strewn over each other."""
    image = plain(rng)
    palette = [random_colour(rng) for _ in range(int(rng.randint(1, 5)))]
    largest = rng.uniform(4, 20)
    for _ in range(int(min(1200, rng.uniform(0.1, 2.5) * SIZE**2 / (2 * largest**2)) + 5)):
        outline = _outline(rng, rng.uniform(0, SIZE, size=2), largest * rng.uniform(0.15, 1.0))
        _fill(image, outline, np.clip(palette[rng.randint(len(palette))] + rng.uniform(-0.08, 0.08), 0, 1))
    return np.asarray(cv2.GaussianBlur(image, (0, 0), 0.5), dtype=np.float32)


def relief(rng: np.random.RandomState) -> Image:
    """A pressed or ribbed surface: another texture taken as heights, lit from one side, darker in the depths."""
    texture = (stripes, lattice, lattice, cells, confetti)[int(rng.randint(5))](rng)
    height = np.asarray(cv2.GaussianBlur(texture.mean(axis=2), (0, 0), rng.uniform(1, 3)), dtype=np.float32)
    slope = sum(gradient * np.float32(rng.uniform(-4, 4)) for gradient in np.gradient(height))
    depth = np.float32(rng.uniform(0.1, 0.8))
    shade = 1 - depth + depth * height + slope
    return np.clip(shade[..., None] * random_colour(rng, low=0.3), 0, 1).astype(np.float32)


def patchwork(rng: np.random.RandomState) -> Image:
    """Pieces of one texture in rows, each turned and toned on its own, with or without a joint between them."""
    texture = TEXTURES[int(rng.randint(len(TEXTURES) - 1))](rng)
    variants = np.stack([np.rot90(texture, quarter) for quarter in range(4)])
    rows, columns = np.mgrid[:SIZE, :SIZE].astype(np.float64)
    u, v = rotated(columns.ravel(), rows.ravel(), rng.uniform(0, np.pi)).T.reshape(2, *SHAPE) + 2 * SIZE
    height = rng.uniform(10, 70)
    line, length = np.floor(v / height), height * rng.uniform(0.8, 6)
    along = u / length + rng.uniform(0.2, 0.8) * line
    number = (line * 131 + np.floor(along) * 17).astype(np.int64) % 997
    tones = rng.uniform(-1, 1, size=997)[number] * rng.uniform(0, 0.15)
    kind = rng.randint(0, int(rng.randint(1, 5)), size=997)[number]
    image = np.take_along_axis(variants, kind[None, ..., None], axis=0)[0] + tones[..., None]
    if rng.uniform() < 0.7:
        edge = np.minimum((v / height - line) * height, (along - np.floor(along)) * length)
        image = np.where((edge < rng.uniform(0.8, 3.0))[..., None], random_colour(rng), image)
    return np.clip(cv2.GaussianBlur(image.astype(np.float32), (0, 0), 0.6), 0, 1).astype(np.float32)


TEXTURES: tuple[Texture, ...] = (plain, clouds, stripes, lattice, cells, confetti, relief, patchwork)
TEXTURE_SHARES = np.asarray([1, 3, 2, 4, 2, 4, 4, 6]) / 26
"""Structured textures are drawn more often: a normal edge must be learned not to be a defect."""
CALM_SHARE = 0.65
"""Share of the textures whose contrast is lowered, so that most defects stand out, as they do on real surfaces."""


def _calmed(texture: Image, rng: np.random.RandomState) -> Image:
    """The texture with its contrast lowered."""
    mean = texture.mean(axis=(0, 1))
    return (mean + (texture - mean) * np.float32(rng.uniform(0.05, 0.5))).astype(np.float32)


def _calm(rng: np.random.RandomState) -> Image:
    """A texture of low contrast, most often plain."""
    return plain(rng) if rng.uniform() < 0.55 else _calmed(TEXTURES[int(rng.randint(len(TEXTURES)))](rng), rng)


def objects(rng: np.random.RandomState) -> Scene:
    """One to nine similar objects with bevel, decoration and openings on a calm ground."""
    background, surface = _calm(rng), _calm(rng)
    while abs(float(surface.mean()) - float(background.mean())) < 0.12:
        surface = np.clip(surface + rng.uniform(-0.6, 0.6), 0.02, 0.98).astype(np.float32)
    side = int(rng.choice([1, 1, 1, 2, 3]))
    pitch = SIZE / side
    solid, decoration = np.zeros(SHAPE, dtype=np.float32), np.zeros(SHAPE, dtype=np.float32)
    openings, marks, layout = int(rng.randint(0, 3)), int(rng.randint(0, 3)), rng.randint(1 << 30)
    for place in np.ndindex(side, side):
        centre = (np.asarray(place) + 0.5 + rng.uniform(-0.06, 0.06, size=2)) * pitch
        same = np.random.RandomState(layout)
        radius, fold = pitch * same.uniform(0.3, 0.46), int(same.randint(3, 9))
        solid = np.maximum(solid, filled_polygon(_outline(same, centre, radius)))
        for number in range(openings + marks):  # features off the centre come in symmetric sets, unlike defects
            central = same.uniform() < 0.4
            ring, size = (0.0, same.uniform(0.1, 0.4)) if central else same.uniform((0.3, 0.08), (0.65, 0.2))
            shape = _outline(same, np.asarray([ring * radius, 0]), size * radius)
            covered = np.zeros(SHAPE, dtype=np.float32)
            for step in range(1 if central else fold):
                turned = rotated(shape[:, 0], shape[:, 1], 2 * np.pi * step / fold) + centre
                covered = np.maximum(covered, filled_polygon(turned))
            if number < openings:
                solid = np.minimum(solid, 1 - covered)
            else:
                decoration = np.maximum(decoration, covered)
    depth = cv2.distanceTransform((solid > 0.5).astype(np.uint8), cv2.DIST_L2, 5)
    bevel = np.clip(1 - depth / np.float32(rng.uniform(2, 25)), 0, 1) * np.float32(rng.uniform(-0.4, 0.4))
    surface = np.clip(_mixed(decoration, surface * (1 + bevel[..., None]), random_colour(rng)), 0, 1)
    share = solid[..., None]
    return (background * (1 - share) + surface * share).astype(np.float32), solid > 0.5, background


def draw_scene(rng: np.random.RandomState) -> Scene:
    """A normal scene."""
    if rng.uniform() < 0.4:
        scene = objects(rng)
        if int(scene[1].sum()) > 2000:
            return scene
    image = TEXTURES[int(rng.choice(len(TEXTURES), p=TEXTURE_SHARES))](rng)
    if rng.uniform() < CALM_SHARE:
        image = _calmed(image, rng)
    return image, np.ones(SHAPE, dtype=bool), np.broadcast_to(random_colour(rng), image.shape).astype(np.float32)


def _moved(scene: Scene, rng: np.random.RandomState) -> Scene:
    """The scene turned by any angle, scaled and shifted a little: no two images of a class have the same layout."""
    image, region, background = scene
    full = bool(region.all())
    reach = 40 if full else 10
    matrix = np.asarray(cv2.getRotationMatrix2D((SIZE / 2, SIZE / 2), rng.uniform(0, 360), rng.uniform(0.93, 1.08)))
    matrix = matrix + np.asarray([[0, 0, rng.uniform(-reach, reach)], [0, 0, rng.uniform(-reach, reach)]])
    border = cv2.BORDER_REFLECT_101 if full else cv2.BORDER_REPLICATE

    def warped(array: npt.NDArray[Any], flags: int) -> npt.NDArray[Any]:
        return np.asarray(cv2.warpAffine(array, matrix, (SIZE, SIZE), flags=flags, borderMode=border))

    moved = np.clip(warped(image, cv2.INTER_CUBIC), 0, 1)
    if full:
        return moved, region, background
    solid = warped(region.astype(np.uint8), cv2.INTER_NEAREST) > 0
    return (moved, solid, warped(background, cv2.INTER_LINEAR)) if int(solid.sum()) > 2000 else scene


def add_defects(scene: Scene, rng: np.random.RandomState) -> Image:
    """One defect, sometimes two or three, of random kind and, now and then, of lower contrast."""
    image, region, background = scene
    damaged = image
    for _ in range(int(rng.choice([1, 1, 1, 1, 2, 3]))):
        damaged = list(DEFECTS.values())[int(rng.randint(len(DEFECTS)))](damaged, region, background, rng)
    strength = np.float32(rng.uniform(0.5, 1.0) if rng.uniform() < 0.3 else 1.0)
    return (image + strength * (damaged - image)).astype(np.float32)


def draw_images(rng: np.random.RandomState, size: int) -> Batch:
    """A good and a defective image of a scene, each placed, lit and recorded on its own: a batch of two."""
    scene = draw_scene(rng)
    placed_alike = rng.uniform() < 0.3
    images, masks = [], []
    for defective in (False, True):
        placed = scene if placed_alike else _moved(scene, rng)
        damaged = add_defects(placed, rng) if defective else placed[0]
        clean, photo = photograph([placed[0], damaged], rng, rng.uniform(0.0, 0.06), rng.uniform(0.0, 0.25))
        changed = np.abs(clean.astype(np.int16) - photo.astype(np.int16)).max(axis=2) > VISIBLE * 255
        if rng.uniform() < 0.2:
            photo = cv2.GaussianBlur(photo, (0, 0), rng.uniform(0.4, 0.9)).astype(np.uint8)
        images.append(np.asarray(PillowImage.fromarray(photo).resize((size, size), PillowImage.Resampling.BICUBIC)))
        masks.append(cv2.resize(changed.astype(np.uint8) * 255, (size, size), interpolation=cv2.INTER_AREA))
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2), torch.from_numpy(np.stack(masks))


def training_batches(seed: int, size: int, pairs: int, generator: torch.Generator) -> Iterator[Batch]:
    """Endless batches of pairs of random scenes of the pool; the scenes depend on the seed and their number only.

    Each pair is turned by a random quarter, mirrored or not, and has its colours exchanged.
    """
    pool: deque[Batch] = deque(maxlen=POOL_SCENES)
    for number in count():
        pool.append(draw_images(random_state("training", seed, number), size))
        if number < FIRST_SCENES or number % SCENES_PER_STEP:
            continue
        drawn = []
        for scene in torch.randperm(len(pool), generator=generator)[:pairs].tolist():
            quarter, mirrored = torch.randint(4, (2,), generator=generator).tolist()
            images, defective = pool[scene]
            both = images[:, torch.randperm(3, generator=generator)], defective
            turned = [part.rot90(quarter, (-2, -1)) for part in both]
            drawn.append([part.flip(-1) for part in turned] if mirrored % 2 else turned)
        images, defective = (torch.cat(part) for part in zip(*drawn))
        yield images, defective
