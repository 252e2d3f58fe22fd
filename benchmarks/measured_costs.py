"""A machine's own figures for ``benchmarks.plan_costs``, and runs of predict.py to compare a plan with."""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean
from unittest import mock

import numpy as np
import torch

from benchmarks.benchmark import medians, write_random_weights
from benchmarks.costs import Figures
from benchmarks.operations import GIGA, association_operations, exact_operations
from benchmarks.pipeline import noisy_pictures, stored_backbone
from prediction.journal import Journal, begin, write_tables
from prediction.listing import common_folder, list_pictures
from prediction.options import parse_options
from prediction.run import run
from prediction.scoring import Counts, Output, outcomes, read, score
from winclip.defaults import DEMO_MODEL
from winclip.errors import InputError
from winclip.memory import MemoryBank
from winclip.model import WinCLIP
from winclip.reading import BatchReader, usable_cores
from winclip.scoring import score_images

CLASS = "part"
SAMPLES, REFERENCES = 16, 8
DIFFERENT = 24  # pictures that are drawn; more than that are names of these


def weights_of(model: str, folder: Path) -> list[str]:
    """The options that name a model: the demo backbone with its own weights, any other with random ones."""
    if model == DEMO_MODEL:
        return ["--model", model]
    checkpoint = folder / "random.safetensors"
    write_random_weights(model, checkpoint)
    return ["--model", model, "--pretrained", str(checkpoint)]


def pictures_for(given: Path | None, folder: Path, count: int) -> list[str]:
    """Pictures of a folder or, if none is given, noisy ones of 900 x 900 in PNG.

    Raises:
        InputError: if the folder has fewer than ``count``.
    """
    if given is not None:
        pictures = list_pictures([str(given)])
        if len(pictures) < count:
            raise InputError(
                f"--pictures {given} has {len(pictures)} pictures and {count} are needed;"
                " name more, or fewer with --check"
            )
        return pictures[:count]
    paths = [folder / f"{number:06}.png" for number in range(count)]
    folder.mkdir()
    for picture, path in zip(noisy_pictures(np.random.RandomState(0), DIFFERENT), paths):
        picture.save(path)
    for path, drawn in zip(paths[DIFFERENT:], itertools.cycle(paths[:DIFFERENT])):
        os.link(drawn, path)
    return [str(path) for path in paths]


def measure(weights: Sequence[str], pictures: Sequence[str], turns: int) -> Figures:
    """This machine's figures, its CPU being the device, over up to 16 of the pictures.

    Args:
        weights: ``--model NAME``, and ``--pretrained PATH`` if there is more to say.
        pictures: to read.
        turns: that count.
    """
    pictures = pictures[:SAMPLES]
    model = WinCLIP.from_pretrained(*weights[1::2], device="cpu")
    backbone = model.backbone
    text = medians({"text": lambda: model.set_class(CLASS)}, 1)["text"]
    pixels = torch.zeros(1, backbone.image_size, backbone.image_size, 3, dtype=torch.uint8)
    model.backbone = stored_backbone(backbone)
    embeddings = model.backbone.encode(pixels.expand(REFERENCES, -1, -1, -1))
    bank = MemoryBank.of(embeddings)
    image, held = embeddings[:1], torch.eye(2, backbone.embed_dim)
    with tempfile.TemporaryDirectory() as name, BatchReader(backbone.image_size, num_workers=0) as reader:
        folder = Path(name)
        begin(folder, {})
        with Journal(folder) as journal:
            output = Output(journal, [], Counts(), set(), common_folder(pictures), False)
            threshold, scored = model.threshold(), list(outcomes(pictures, reader, model))
            times = medians(
                {
                    "encode": lambda: backbone.encode(pixels),
                    "decode": lambda: list(read(pictures, reader)),
                    "rest": lambda: model.score(embeddings),
                    "none": lambda: score_images(image, held),
                    "bank": lambda: score_images(image, held, bank, [range(REFERENCES)]),
                    "write": lambda: score(len(pictures), scored, threshold, folder, output),
                },
                turns,
            )
        write_tables(folder, output.failures)
        rows = sum(path.stat().st_size for path in folder.glob("predictions.*")) / output.counts.scored
        maps = fmean(path.stat().st_size for path in folder.glob("heatmaps/**/*.jpg"))
    config, cores = backbone.clip.config, usable_cores()
    return Figures(
        decode=len(pictures) / times["decode"],
        rest=REFERENCES / times["rest"],
        write=len(pictures) / times["write"],
        text=text * cores,
        encode=exact_operations(config) / times["encode"] / GIGA,
        score=association_operations(config, REFERENCES) / (times["bank"] - times["none"]) / GIGA,
        bandwidth=0,
        cores=cores,
        picture_bytes=fmean(Path(path).stat().st_size for path in pictures),
        row_bytes=rows,
        map_bytes=maps,
    )


@dataclass(frozen=True)
class Run:
    """Seconds a picture of predict.py."""

    shots: int
    workers: int
    seconds: float


def timed_runs(
    weights: Sequence[str],
    pictures: Sequence[str],
    counts: tuple[int, int],
    shots: Sequence[int],
    workers: Sequence[int],
    turns: int,
) -> list[Run]:
    """Seconds a picture of predict.py: the time over few pictures is taken off that over many.

    Args:
        weights: the options that name the model.
        pictures: those that are scored; behind them the references.
        counts: few and many.
        shots, workers: every pair of them is a run.
        turns: that count.
    """
    settings = list(itertools.product(shots, workers))
    few, many = counts
    with tempfile.TemporaryDirectory() as name:
        runs: dict[str, Callable[[], object]] = {}
        for (k, threads), count in itertools.product(settings, counts):
            references = [word for path in pictures[many : many + k] for word in ("--reference", path)]
            places = [*pictures[:count], "--class_name", CLASS, "--save_path", f"{name}/out", *references]
            arguments = [*weights, *places, "--device", "cpu", "--num_workers", str(threads)]
            runs[f"{k} {threads} {count}"] = partial(_predict, arguments)
        # Text embeddings of random weights are of no use to later runs.
        with mock.patch.dict(os.environ, XDG_CACHE_HOME=name):
            times = medians(runs, turns)
    return [
        Run(k, threads, (times[f"{k} {threads} {many}"] - times[f"{k} {threads} {few}"]) / (many - few))
        for k, threads in settings
    ]


def _predict(arguments: Sequence[str]) -> None:
    """A run of predict.py in this process, which spares its start."""
    with contextlib.redirect_stdout(io.StringIO()):
        run(parse_options(arguments))
