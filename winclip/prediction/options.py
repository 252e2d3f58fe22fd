"""The command line of predict."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from winclip.defaults import DEFAULT_MODEL, DEMO_MODEL
from winclip.support.command_line import ReadingOptions, VariantOptions
from winclip.support.errors import InputError
from winclip.support.files import exists
from winclip.support.options import add_options, option, take_options

# Largest number of pictures in report.html; it limits the size of the page.
REPORT_PICTURES = 200

STATES = """\
states:
  A state with {} is used as it is, with the class name instead of {}. Without {}, a state that begins with
  "with" or "without" goes after the class name ("with a missing pin": "{} with a missing pin") and any other
  before it ("bent": "bent {}"). The given states replace the states of the prompt set.
"""
_EPILOG = """\
threshold:
  2 or more references: every reference is scored against the memory of the others. A picture is anomalous if the
  text part of its score or the reference part is above the upper end of a prediction interval of these values. The
  target is 1 false alarm in 100 good pictures taken as the references were; docs/thresholds.md has the formula and
  what was measured. The threshold in the tables is the score above which a picture with the same parts would be
  anomalous.
  1 reference or none: pictures are ranked and not judged, unless --threshold is given.
  The pixel threshold of area, box and masks is found in the same way, from the highest value of each reference's map
  (0.5 with fewer than 2 references).

output in --save_path:
  predictions.csv, predictions.json   path, score, threshold, anomalous (empty where not judged), area (share of the
                                      pixels above the pixel threshold), box of the strongest region (x, y, w, h in
                                      pixels), heat map, text and reference part of the score
  heatmaps/                           the pictures with one scale of colours for the whole run
  failures.csv                        pictures that could not be read, and why
  predictions.jsonl                   the settings, and rows as pictures are scored; --resume continues after them
  run.json                            options, thresholds and how they were found
  report.html                         with --report, --open: a histogram of the scores, and the pictures, highest first
"""


@dataclass(frozen=True, kw_only=True)
class PartOptions:
    """The part to inspect, and the model."""

    class_name: str | None = option("what the pictures show, such as 'metal nut'; with --memory its own", group="part")
    reference: tuple[str, ...] = option(
        "good pictures: a file, folder or quoted pattern; repeat the option for more",
        (),
        group="part",
        action="append",
        metavar="PATH",
    )
    memory: Path | None = option("references that --save_memory kept", group="part", metavar="FILE")
    prompt_set: str | None = option(
        "reference, paper, or a .json file (the variant's; with --memory its own)", group="part"
    )
    normal_states: tuple[str, ...] | None = option("states of good parts, see below", group="part", metavar="S")
    anomalous_states: tuple[str, ...] | None = option("states of defective parts, see below", group="part", metavar="S")
    demo: bool = option("use demo-vit-240 and, without pictures, the drawn sample", False, group="part")
    model: VariantOptions


@dataclass(frozen=True, kw_only=True)
class Options(PartOptions):
    """The options of predict."""

    inputs: tuple[str, ...] = option(
        "files, folders (with their subfolders) and quoted patterns such as 'images/*.png'; pictures above 100"
        " million pixels are passed over",
        positional=True,
        nargs="*",
        metavar="PICTURES",
    )
    save_memory: Path | None = option("write the references to FILE (.safetensors)", group="part", metavar="FILE")
    region: str | None = option(
        "use only this part of every picture and reference: pixels from the upper left, or a picture of the"
        " same size whose white is the part",
        group="part",
        metavar="x,y,w,h|MASK",
    )
    tile: bool = option(
        "score large pictures in overlapping tiles at full resolution, for defects of few pixels; slow, and the"
        " log says how slow",
        False,
        group="part",
    )
    tile_size: int | None = option(
        "side of a tile in pixels (the model's image size); means --tile", group="part", metavar="N"
    )
    image_only: bool = option(
        "no windows and no references: the same zero-shot scores with 8 %% of the operations, and no maps",
        False,
        group="part",
    )
    save_path: Path = option("(results/predictions)", Path("results/predictions"), group="output")
    threshold: str | None = option(
        "a picture with a higher score is anomalous, or with text=T or reference=T a higher part of it (found, see"
        " below)",
        group="output",
        metavar="[PART=]T",
    )
    known_defects: tuple[str, ...] = option(
        "defective pictures, as --reference takes them: says how many of them are found",
        (),
        group="output",
        action="append",
        metavar="PATH",
    )
    find: float | None = option("propose the threshold that finds this share of --known_defects", group="output")
    save_masks: bool = option("also write masks/: white above the pixel threshold", False, group="output")
    report: bool = option(
        f"also write report.html, which shows up to {REPORT_PICTURES} pictures", False, group="output"
    )
    open: bool = option("write report.html and open it in a browser", False, group="output")
    watch: bool = option(
        "continue with pictures that are added to the folders PICTURES, until Ctrl-C", False, group="output"
    )
    resume: bool = option("continue after the rows that an earlier run wrote", False, group="output")
    reading: ReadingOptions

    @property
    def given(self) -> tuple[float | None, str]:
        """The given threshold, if any, and its kind: score, text or reference."""
        return _given(self.threshold)


def _given(threshold: str | None) -> tuple[float | None, str]:
    """The threshold of ``[PART=]T`` and its kind."""
    if threshold is None:
        return None, "score"
    found = re.fullmatch(r"(?:(text|reference)=)?(\d*\.?\d+(?:e-?\d+)?)", threshold)
    if found is None or not 0 <= float(found[2]) <= 1:
        raise InputError(
            f"--threshold {threshold} must be between 0 and 1, as scores are; text=T or reference=T applies to a part"
        )
    return float(found[2]), found[1] or "score"


def build_parser() -> argparse.ArgumentParser:
    """The parser of predict; imports nothing heavy."""
    parser = argparse.ArgumentParser(
        prog="predict.py" if Path(sys.argv[0]).name == "predict.py" else "winclip predict",
        description="Score photographs of one part and draw heat maps of them, zero-shot or with good examples."
        ' For example: %(prog)s --class_name "metal nut" --reference good/ images/ --save_path out/',
        epilog=f"{STATES}\n{_EPILOG}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_options(parser, Options)
    # So that --demo can tell whether a model was named.
    parser.set_defaults(model=None)
    return parser


def parse_options(arguments: Sequence[str]) -> Options:
    """Parse the options and check everything that does not need the pictures or the model.

    Raises:
        InputError: if a value is not valid; argparse itself exits with status 2 on unknown options.
    """
    # Intermixed, so that pictures may be named before, between and after the options.
    values = vars(build_parser().parse_intermixed_args(arguments))
    check_part_options(values, bool(values["inputs"]))
    if values["save_memory"] is not None and not values["reference"] and (values["inputs"] or not values["demo"]):
        raise InputError("--save_memory needs references; name good pictures with --reference")
    sample = values["demo"] and not values["inputs"]
    if _given(values["threshold"])[1] == "reference" and not (values["reference"] or values["memory"] or sample):
        raise InputError(f"--threshold {values['threshold']} needs references; name good pictures with --reference")
    if values["find"] is not None and not values["known_defects"]:
        raise InputError(f"--find {values['find']} is a share of known defects; name them with --known_defects")
    if values["find"] is not None and not 0 < values["find"] <= 1:
        raise InputError(f"--find {values['find']} must be above 0 and at most 1, such as 0.9")
    values["report"] = values["report"] or values["open"]
    values["tile"] = values["tile"] or values["tile_size"] is not None
    for name in ("tile", "region"):
        if values[name] and (values["memory"] is not None or values["save_memory"] is not None):
            raise InputError(f"a memory file does not hold --{name}; name the good pictures with --reference instead")
    for name in ("reference", "memory", "tile", "save_masks", "report"):
        if values["image_only"] and values[name]:
            lacks = "windows, which references are compared by" if name in ("reference", "memory") else "maps"
            raise InputError(f"--image_only makes no {lacks}, so --{name} has no meaning; leave one of them out")
    return take_options(Options, values)


def check_part_options(values: dict[str, Any], pictures: bool, both: bool = False) -> None:
    """Check the options of part and model.

    Args:
        values: the parsed values.
        pictures: whether any are named.
        both: whether references may be named beside a memory.

    Raises:
        InputError: if a value is not valid.
    """
    for name in ("normal_states", "anomalous_states"):
        for state in values[name] or ():
            if exists(state):
                raise InputError(f"--{name} takes {state}, which is a path; name the pictures before this option")
    if values["demo"] and values["model"] not in (None, DEMO_MODEL):
        raise InputError(f"--demo uses {DEMO_MODEL}, so --model {values['model']} has no meaning; leave one out")
    values["model"] = values["model"] or (DEMO_MODEL if values["demo"] else DEFAULT_MODEL)
    if not pictures and not values["demo"]:
        raise InputError("no pictures are given; name files or folders, or try --demo")
    if values["class_name"] is None and values["memory"] is None and (pictures or not values["demo"]):
        raise InputError("say with --class_name what the pictures show, such as --class_name 'metal nut'")
    if values["memory"] is not None and values["reference"] and not both:
        raise InputError("--memory holds references already, so --reference has no meaning; leave one of them out")
