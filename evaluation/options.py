"""The command line of test.py."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from winclip.errors import InputError

DEFAULT_SEED = 10


@dataclass(frozen=True)
class Options:
    """What a run was asked to do. Names are those of the command line."""

    dataset: str
    data_path: Path
    save_path: Path
    model: str
    pretrained: str | None
    image_size: int | None
    k_shot: tuple[int, ...] | None
    seed: tuple[int, ...]
    reference_list: Path | None
    classes: tuple[str, ...] | None
    prompt_set: str
    aupro: str
    device: str
    precision: str
    batch_size: int
    num_workers: int | None
    save_maps: bool
    report: bool
    compare: bool
    skip_unreadable: bool
    no_cache: bool


def build_parser() -> argparse.ArgumentParser:
    """The parser of test.py; imports nothing heavy."""
    parser = argparse.ArgumentParser(
        prog="test.py",
        description="Evaluate WinCLIP zero-shot and few-shot on a data set with a meta.json; prints one table for every"
        " number of shots and writes results.csv, tables.md, scores.csv, k_shot.csv, config.json and log.txt.",
    )
    data = parser.add_argument_group("data")
    data.add_argument("--dataset", default="mvtec", help="mvtec, visa, or any name for your own data (mvtec)")
    data.add_argument("--data_path", type=Path, help="data set root, the folder with meta.json (data/DATASET)")
    data.add_argument("--save_path", type=Path, help="output folder (results/DATASET)")
    data.add_argument("--classes", nargs="+", metavar="C", help="only these classes")
    data.add_argument("--skip_unreadable", action="store_true", help="leave out images that cannot be read")
    model = parser.add_argument_group("model")
    model.add_argument(
        "--model",
        default="ViT-B-16-plus-240",
        help="open_clip model name, path of an open_clip model config .json, or demo-vit-240 (ViT-B-16-plus-240)",
    )
    model.add_argument(
        "--pretrained", help="open_clip tag or path of a checkpoint .pt, .bin, .safetensors (laion400m_e31)"
    )
    model.add_argument("--image_size", type=int, help="side in pixels, a multiple of the patch size (the model's own)")
    model.add_argument("--prompt_set", default="reference", help="reference, paper, or a .json file (reference)")
    model.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (auto)")
    model.add_argument("--precision", default="auto", help="auto, fp32, bf16, fp16 (auto: fp32)")
    shots = parser.add_argument_group("references")
    shots.add_argument(
        "--k_shot", type=int, nargs="+", metavar="K", help="numbers of reference images, all served by one pass (0)"
    )
    shots.add_argument(
        "--seed", type=int, nargs="+", metavar="S", help=f"seeds of the reference draws ({DEFAULT_SEED})"
    )
    shots.add_argument(
        "--reference_list", type=Path, metavar="FILE", help="reference images, one train img_path a line, not drawn"
    )
    output = parser.add_argument_group("metrics and output")
    output.add_argument("--aupro", default="steps", choices=("steps", "exact"), help="how AUPRO is taken (steps)")
    output.add_argument("--compare", action="store_true", help="add the difference to the published tables")
    output.add_argument("--save_maps", action="store_true", help="also write the upsampled float maps")
    output.add_argument("--report", action="store_true", help="also write report.html: tables, curves and pictures")
    speed = parser.add_argument_group("speed")
    speed.add_argument(
        "--batch_size",
        type=int,
        default=8,
        help="images read and encoded together (8); a CPU still encodes one at a time, at about 3 MB for each",
    )
    speed.add_argument("--num_workers", type=int, help="processes that read images (4 with a GPU, else 0)")
    speed.add_argument("--no_cache", action="store_true", help="do not keep text embeddings for later runs")
    return parser


def parse_options(arguments: Sequence[str]) -> Options:
    """Parse and check what can be checked without the data or the model.

    Raises:
        InputError: if a value makes no sense; argparse itself exits with status 2 on unknown options.
    """
    values = vars(build_parser().parse_args(arguments))
    dataset = values["dataset"]
    if not dataset or "/" in dataset or "\\" in dataset or dataset in (".", ".."):
        raise InputError(f"--dataset '{dataset}' is not a name; the folder goes to --data_path")
    values["data_path"] = values["data_path"] or Path("data") / dataset
    values["save_path"] = values["save_path"] or Path("results") / dataset
    _refuse_repeated("--k_shot", values["k_shot"])
    _refuse_repeated("--seed", values["seed"])
    for k in values["k_shot"] or ():
        if k < 0:
            raise InputError(f"--k_shot {k} is negative; use 0 for zero-shot or the number of reference images")
    if values["reference_list"] is not None and values["seed"] is not None:
        raise InputError("--seed has no meaning with --reference_list, which draws nothing; leave one of them out")
    if values["batch_size"] < 1:
        raise InputError(f"--batch_size {values['batch_size']} must be at least 1")
    if values["num_workers"] is not None and values["num_workers"] < 0:
        raise InputError(f"--num_workers {values['num_workers']} must be at least 0")
    values["seed"] = values["seed"] or [DEFAULT_SEED]
    for name in ("k_shot", "seed", "classes"):
        values[name] = None if values[name] is None else tuple(values[name])
    return Options(**values)


def _refuse_repeated(option: str, numbers: list[int] | None) -> None:
    for number in numbers or ():
        if numbers and numbers.count(number) > 1:
            raise InputError(f"{option} names {number} more than once; give each number once")
