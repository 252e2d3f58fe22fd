"""The command line of predict.py."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from winclip.defaults import DEFAULT_MODEL, DEMO_MODEL
from winclip.support.command_line import (
    ModelOptions,
    add_model_options,
    add_reading_options,
    check_reading_options,
    model_options,
)
from winclip.support.errors import InputError
from winclip.support.files import exists

# Pictures in report.html; their number alone says how large it can get.
REPORT_PICTURES = 200

_EPILOG = """\
threshold:
  2 or more references: every reference is scored against the memory of the others, and the threshold is the
  upper end of a one-sided 99 % prediction interval of the logits log(score / (1 - score)),
  mean + 1.47 * t * deviation * sqrt(1 + 1 / R) with Student's t for R - 1 degrees of freedom; 1.47 because scores
  of good pictures lean to the right. The target is 1 false alarm in 100 good pictures taken as the references
  were; docs/thresholds.md has what was measured. Below 8 references t is large, the threshold cautious and the
  log says so.
  1 reference: nothing can be left out; the threshold is 0.25, that is zero-shot probability 0.5 and no difference
  to the reference, so rather false alarms than misses.
  no reference: zero-shot probability 0.5.
  The pixel threshold of area, box and masks is found alike, from the highest value of each reference's map (0.5
  with fewer than 2 references), so that 99 of 100 good pictures should have no pixel above it.

states:
  A state with {} is used as it is, the class name taking the place of {}. Without {}, a state that begins with
  "with" or "without" goes behind the class name ("with a missing pin": "{} with a missing pin") and any other in
  front of it ("bent": "bent {}"). They replace those of the prompt set.

output in --save_path:
  predictions.csv, predictions.json   path, score, threshold, anomalous, area (share of the pixels above the pixel
                                      threshold), box of the strongest region (x, y, w, h in pixels), heat map
  heatmaps/                           the pictures with one scale of colours for the whole run
  failures.csv                        pictures that could not be read, and why
  predictions.jsonl                   the settings, and rows as pictures are scored; the tables above are made of it at
                                      the end or when the run is stopped, and --resume goes on behind it
  run.json                            options, thresholds and how they were found
  report.html                         with --report, --open: a histogram of the scores, and the pictures, highest first
"""


@dataclass(frozen=True)
class PartOptions:
    """The part that is looked at, and the model. Names are those of the command line."""

    class_name: str | None
    reference: tuple[str, ...]
    memory: Path | None
    prompt_set: str | None
    normal_states: tuple[str, ...] | None
    anomalous_states: tuple[str, ...] | None
    demo: bool
    model: ModelOptions


@dataclass(frozen=True)
class Options(PartOptions):
    """What predict.py was asked to do. Names are those of the command line."""

    inputs: tuple[str, ...]
    save_memory: Path | None
    threshold: float | None
    save_path: Path
    save_masks: bool
    report: bool
    open: bool
    watch: bool
    region: str | None
    tile: bool
    tile_size: int | None
    resume: bool
    batch_size: int
    num_workers: int | None


def build_parser() -> argparse.ArgumentParser:
    """The parser of predict.py; imports nothing heavy."""
    parser = argparse.ArgumentParser(
        prog="predict.py",
        description="Score photographs of one part and draw heat maps of them, zero-shot or with good examples."
        ' For example: python predict.py --class_name "metal nut" --reference good/ images/ --save_path out/',
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "inputs",
        nargs="*",
        metavar="PICTURES",
        help="files, folders (with all below them) and quoted patterns such as 'images/*.png'; pictures above 100"
        " million pixels are passed over",
    )
    part = add_part_options(parser)
    part.add_argument("--save_memory", type=Path, metavar="FILE", help="keep the references as FILE (.safetensors)")
    part.add_argument(
        "--region",
        metavar="x,y,w,h|MASK",
        help="only this part of every picture and reference counts: pixels from the upper left, or a picture of the"
        " same size whose white is the part",
    )
    part.add_argument(
        "--tile",
        action="store_true",
        help="score large pictures in overlapping tiles at full resolution, for defects of few pixels; slow, and the"
        " log says how slow",
    )
    part.add_argument(
        "--tile_size", type=int, metavar="N", help="side of a tile in pixels (the model's image size); means --tile"
    )
    output = parser.add_argument_group("output")
    output.add_argument("--save_path", type=Path, default=Path("results/predictions"), help="(results/predictions)")
    output.add_argument("--threshold", type=float, help="score above which a picture is anomalous (found, see below)")
    output.add_argument("--save_masks", action="store_true", help="also write masks/: white above the pixel threshold")
    output.add_argument(
        "--report", action="store_true", help=f"also write report.html, which shows up to {REPORT_PICTURES} pictures"
    )
    output.add_argument("--open", action="store_true", help="write report.html and open it in a browser")
    output.add_argument(
        "--watch",
        action="store_true",
        help="go on with pictures as they are put into the folders that PICTURES are, until Ctrl-C",
    )
    output.add_argument("--resume", action="store_true", help="go on behind the rows that an earlier run wrote")
    add_model_options(parser)
    # So that --demo can tell whether a model was named.
    parser.set_defaults(model=None)
    add_reading_options(parser)
    return parser


def add_part_options(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """Add the options that ``check_part_options`` reads, but for the model's; gives their group."""
    part = parser.add_argument_group("part")
    part.add_argument("--class_name", help="what the pictures show, such as 'metal nut'; with --memory its own")
    part.add_argument(
        "--reference",
        action="append",
        default=[],
        metavar="PATH",
        help="good pictures: a file, folder or quoted pattern; repeat the option for more",
    )
    part.add_argument("--memory", type=Path, metavar="FILE", help="references that --save_memory kept")
    part.add_argument("--prompt_set", help="reference, paper, or a .json file (reference; with --memory its own)")
    part.add_argument("--normal_states", nargs="+", metavar="S", help="states of good parts, see below")
    part.add_argument("--anomalous_states", nargs="+", metavar="S", help="states of defective parts, see below")
    part.add_argument("--demo", action="store_true", help="use demo-vit-240 and, without pictures, the drawn sample")
    return part


def parse_options(arguments: Sequence[str]) -> Options:
    """Parse and check what can be checked without the pictures or the model.

    Raises:
        InputError: if a value makes no sense; argparse itself exits with status 2 on unknown options.
    """
    # Intermixed, so that pictures may stand before, between and behind the options.
    values = vars(build_parser().parse_intermixed_args(arguments))
    values["inputs"] = tuple(values["inputs"])
    check_part_options(values, bool(values["inputs"]))
    if values["save_memory"] is not None and not values["reference"] and (values["inputs"] or not values["demo"]):
        raise InputError("--save_memory needs references; name good pictures with --reference")
    if values["threshold"] is not None and not 0 <= values["threshold"] <= 1:
        raise InputError(f"--threshold {values['threshold']} must be between 0 and 1, as scores are")
    values["report"] = values["report"] or values["open"]
    values["tile"] = values["tile"] or values["tile_size"] is not None
    for option in ("tile", "region"):
        if values[option] and (values["memory"] is not None or values["save_memory"] is not None):
            raise InputError(f"a memory file does not hold --{option}; name the good pictures with --reference instead")
    check_reading_options(values)
    return Options(**values)


def check_part_options(values: dict[str, Any], pictures: bool) -> None:
    """Check the options of part and model, and give them the types of ``PartOptions``.

    Args:
        values: what was parsed.
        pictures: whether any are named.

    Raises:
        InputError: if a value makes no sense.
    """
    for option in ("normal_states", "anomalous_states"):
        for state in values[option] or ():
            if exists(state):
                raise InputError(f"--{option} takes {state}, which is a path; name the pictures before this option")
    if values["demo"] and values["model"] not in (None, DEMO_MODEL):
        raise InputError(f"--demo uses {DEMO_MODEL}, so --model {values['model']} has no meaning; leave one out")
    values["model"] = values["model"] or (DEMO_MODEL if values["demo"] else DEFAULT_MODEL)
    if not pictures and not values["demo"]:
        raise InputError("no pictures are given; name files or folders, or try --demo")
    if values["class_name"] is None and values["memory"] is None and (pictures or not values["demo"]):
        raise InputError("say with --class_name what the pictures show, such as --class_name 'metal nut'")
    if values["memory"] is not None and values["reference"]:
        raise InputError("--memory holds references already, so --reference has no meaning; leave one of them out")
    for name in ("reference", "normal_states", "anomalous_states"):
        values[name] = None if values[name] is None else tuple(values[name])
    values["model"] = model_options(values)
