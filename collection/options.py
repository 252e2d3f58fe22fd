"""The command line of score_collection.py; imports nothing heavy."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec

from winclip.command_line import (
    ModelOptions,
    add_model_options,
    add_reading_options,
    check_reading_options,
    model_options,
)
from winclip.errors import InputError

_EPILOG = """\
input:
  A folder with pictures, with Parquet files or with tar files (WebDataset), or one such file; a path, or an address
  that pyarrow knows, such as s3://bucket/folder. Parquet files name pictures in a column 'path', relative to
  --input or as addresses, or hold them in a column 'image', as bytes or as Hugging Face's data sets do.

classes:
  With one memory all pictures are of its class. With several, --class_from says where a picture's class is found:
  'folder' is the innermost folder above it that is called like a class ('_' may stand for a space), any other word a
  column of the Parquet files or, in tar files, the ending of the sample's member that holds it, such as 'cls'.

output in --output:
  rows/part-*.parquet   path, class, score, threshold, verdict (good, anomalous), area, box (x, y, w, h), error; with
                        --save_maps also map, a PNG of 64 x 64 pixels in grey, from the low end of the class's colours
                        in config.json to the high one. Rows of pictures that cannot be read have an error alone.
  config.json           what the rows are made with, and thresholds
  The same command goes on with what has no row yet. Files of rows are complete or not there; where one is removed,
  its pictures are scored again.

workers:
  Without a cluster, Ray is started on this machine. With RAY_ADDRESS, or where a cluster runs, its machines are used.
"""


@dataclass(frozen=True)
class Options:
    """What score_collection.py was asked to do. Names are those of the command line."""

    input: str
    memory: tuple[str, ...]
    class_from: str | None
    path_column: str
    image_column: str
    output: str
    save_maps: bool
    rows_per_file: int
    workers: int | None
    cpus_per_worker: int
    gpus_per_worker: float | None
    model: ModelOptions
    batch_size: int
    num_workers: int | None


def build_parser() -> argparse.ArgumentParser:
    """The parser."""
    parser = argparse.ArgumentParser(
        prog="score_collection.py",
        description="Score a collection of pictures with Ray Data, on this machine or a cluster.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--input", required=True, metavar="PLACE", help="what to score, see below")
    parser.add_argument(
        "--memory",
        required=True,
        action="append",
        metavar="[CLASS=]FILE",
        help="memory that predict.py has kept of references, or a folder of such files; repeat the option for more"
        " classes, which are called as in their memory, or CLASS",
    )
    parser.add_argument("--class_from", metavar="WHERE", help="folder, or a column, see below (with one memory: none)")
    parser.add_argument("--path_column", default="path", metavar="NAME", help="of Parquet files (path)")
    parser.add_argument("--image_column", default="image", metavar="NAME", help="of Parquet files (image)")
    parser.add_argument("--output", required=True, metavar="PLACE", help="a folder, by path or address")
    parser.add_argument("--save_maps", action="store_true", help="also write the maps, small")
    parser.add_argument(
        "--rows_per_file", type=int, default=256, metavar="N", help="pictures of a file of rows, done together (256)"
    )
    group = parser.add_argument_group("workers")
    group.add_argument("--workers", type=int, metavar="N", help="processes with the model (as many as there is room)")
    group.add_argument("--cpus_per_worker", type=int, default=1, metavar="N", help="cores, and threads, of each (1)")
    group.add_argument(
        "--gpus_per_worker", type=float, metavar="N", help="of each, such as 0.5 (1 where there are GPUs, else 0)"
    )
    add_model_options(parser)
    add_reading_options(parser)
    return parser


def parse_options(arguments: Sequence[str]) -> Options:
    """Parse and check what can be checked without the pictures or the model.

    Raises:
        InputError: if a value makes no sense; argparse itself exits with status 2 on unknown options.
    """
    values = vars(build_parser().parse_args(arguments))
    for name, lowest in (("rows_per_file", 1), ("workers", 1), ("cpus_per_worker", 1), ("gpus_per_worker", 0)):
        if values[name] is not None and values[name] < lowest:
            raise InputError(f"--{name} {values[name]} must be at least {lowest}")
    check_reading_options(values)
    values["memory"] = tuple(values["memory"])
    values["model"] = model_options(values)
    return Options(**values)


def check_installed() -> None:
    """See that Ray Data is there.

    Raises:
        InputError: if it is not; says how to install it.
    """
    for name in ("ray", "pyarrow"):
        if find_spec(name) is None:
            raise InputError(f"{name} of Ray Data is not installed; run: bash scripts/setup.sh scale")
