"""The command line of test.py."""

from __future__ import annotations

import argparse
import os
import reprlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets.registry import DATA_SETS, default_root
from winclip.support.command_line import (
    ModelOptions,
    add_model_options,
    add_reading_options,
    check_reading_options,
    model_options,
)
from winclip.support.errors import InputError
from winclip.support.names import printable
from winclip.support.texts import read_json

DEFAULT_SEED = 10


@dataclass(frozen=True)
class Options:
    """What a run was asked to do. Names are those of the command line."""

    config: Path | None
    dataset: str
    data_path: Path
    save_path: Path
    model: ModelOptions
    k_shot: tuple[int, ...] | None
    seed: tuple[int, ...]
    reference_list: Path | None
    classes: tuple[str, ...] | None
    prompt_set: str
    class_names: Path | None
    aupro: str
    metrics: str
    intervals: bool
    batch_size: int
    num_workers: int | None
    save_maps: bool
    report: bool
    compare: bool
    check_metrics: bool
    check_data: bool
    skip_unreadable: bool
    skip_bad_scores: bool
    allow_links: bool
    no_cache: bool
    fresh: bool


def build_parser() -> argparse.ArgumentParser:
    """The parser of test.py; imports nothing heavy."""
    parser = argparse.ArgumentParser(
        prog="test.py",
        description="Evaluate WinCLIP zero-shot and few-shot on a data set with a meta.json; prints one table for every"
        " number of shots and writes results.csv, types.csv, tables.md, scores.csv, k_shot.csv, config.json and"
        " log.txt.",
    )
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="config.json of a run to repeat; options given beside it count more"
    )
    data = parser.add_argument_group("data")
    known = ", ".join(DATA_SETS)
    data.add_argument("--dataset", default="mvtec", help=f"{known}, or any name for your own data (mvtec)")
    data.add_argument("--data_path", type=Path, help="data set root, the folder with meta.json (data/DATASET)")
    data.add_argument("--save_path", type=Path, help="output folder (results/DATASET)")
    data.add_argument("--classes", nargs="+", metavar="C", help="only these classes")
    data.add_argument(
        "--check_data",
        action="store_true",
        help="only read every image and mask and list what is wrong with them; exit status 1 if anything is",
    )
    data.add_argument("--skip_unreadable", action="store_true", help="leave out images that cannot be read")
    data.add_argument("--skip_bad_scores", action="store_true", help="leave out images whose score is NaN")
    data.add_argument(
        "--allow_links", action="store_true", help="read images and masks that links lead to outside of data_path"
    )
    add_model_options(parser)
    prompts = parser.add_argument_group("prompts")
    prompts.add_argument("--prompt_set", default="reference", help="reference, paper, or a .json file (reference)")
    prompts.add_argument(
        "--class_names",
        type=Path,
        metavar="FILE",
        help="what prompts call the classes: a JSON object of classes with their words",
    )
    prompts.add_argument("--no_cache", action="store_true", help="do not keep text embeddings for later runs")
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
    output.add_argument(
        "--metrics",
        default="exact",
        choices=("exact", "histogram"),
        help="pixel metrics from sorted scores, or in bounded memory to some 1e-4 (exact)",
    )
    output.add_argument(
        "--intervals", action="store_true", help="add 95 %% bootstrap intervals over images; also writes intervals.csv"
    )
    output.add_argument("--compare", action="store_true", help="add the difference to the published tables")
    output.add_argument(
        "--check_metrics",
        action="store_true",
        help="compute every figure again with scikit-learn and scikit-image; exit status 1 if they differ",
    )
    output.add_argument("--save_maps", action="store_true", help="also write the upsampled float maps")
    output.add_argument("--report", action="store_true", help="also write report.html: tables, curves and pictures")
    again = output.add_mutually_exclusive_group()
    again.add_argument(
        "--resume",
        dest="fresh",
        action="store_false",
        default=False,
        help="go on where a run with the same options, weights, versions and data stopped (on by default)",
    )
    again.add_argument("--fresh", action="store_true", help="start over, whatever an earlier run has scored")
    add_reading_options(parser)
    return parser


def parse_options(arguments: Sequence[str]) -> Options:
    """Parse and check what can be checked without the data or the model.

    Raises:
        InputError: if a value makes no sense; argparse itself exits with status 2 on unknown options.
    """
    parser = build_parser()
    values = vars(parser.parse_args(arguments))
    if values["config"] is not None:
        parser.set_defaults(**_options_of_run(parser, values["config"]))
        values = vars(parser.parse_args(arguments))
    if values["check_data"] and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise InputError("--check_data runs in one process; call it without torchrun")
    dataset = values["dataset"]
    if not dataset or "/" in dataset or "\\" in dataset or dataset in (".", "..") or printable(dataset) != dataset:
        raise InputError(f"--dataset '{dataset}' is not a name; the folder goes to --data_path")
    values["data_path"] = values["data_path"] or default_root(dataset)
    values["save_path"] = values["save_path"] or Path("results") / dataset
    _refuse_repeated("--k_shot", values["k_shot"])
    _refuse_repeated("--seed", values["seed"])
    for k in values["k_shot"] or ():
        if k < 0:
            raise InputError(f"--k_shot {k} is negative; use 0 for zero-shot or the number of reference images")
    if values["reference_list"] is not None and values["seed"] is not None:
        raise InputError("--seed has no meaning with --reference_list, which draws nothing; leave one of them out")
    check_reading_options(values)
    values["seed"] = values["seed"] or [DEFAULT_SEED]
    for name in ("k_shot", "seed", "classes"):
        values[name] = None if values[name] is None else tuple(values[name])
    model = model_options(values)
    return Options(**values, model=model)


def read_config(path: Path) -> dict[str, Any]:
    """The content of the config.json of a run; its ``options`` are an object, what they hold is not checked.

    Raises:
        InputError: if the file cannot be read, or is something else.
    """
    try:
        content = read_json(path, "--config")
    except InputError as error:
        raise InputError(f"{error}; give the config.json of a run") from error
    if not isinstance(content, dict) or not isinstance(content.get("options"), dict):
        raise InputError(f"--config {path} holds no options; give the config.json of a run")
    return content


def _options_of_run(parser: argparse.ArgumentParser, path: Path) -> dict[str, Any]:
    """The options that a config.json names, as the parser gives them; not where the run wrote and started from."""
    actions = {action.dest: action for action in parser._actions if action.default is not argparse.SUPPRESS}
    found = {}
    for name, value in read_config(path)["options"].items():
        if name in ("config", "save_path", "fresh"):
            continue
        try:
            found[name] = _as_parsed(actions[name], value)
        except (KeyError, ValueError) as error:
            raise InputError(
                f"--config {path}: option {reprlib.repr(name)} cannot be {reprlib.repr(value)};"
                " mend it, or run again without --config"
            ) from error
    return found


def _as_parsed(action: argparse.Action, value: Any) -> Any:
    """A value from a config.json as the parser would give it; raises ValueError if it would not."""
    if value is None and action.default is None:
        return None
    if action.nargs == 0 and isinstance(value, bool):
        return value
    if action.nargs == "+" and isinstance(value, list) and value:
        return [_one_parsed(action, part) for part in value]
    if action.nargs is None:
        return _one_parsed(action, value)
    raise ValueError


def _one_parsed(action: argparse.Action, value: Any) -> Any:
    kind: Any = action.type or str
    if isinstance(value, bool) or not isinstance(value, (str, int, float)) or "\0" in str(value):
        raise ValueError
    parsed = kind(str(value))
    if action.choices is not None and parsed not in action.choices:
        raise ValueError
    return parsed


def _refuse_repeated(option: str, numbers: list[int] | None) -> None:
    for number in numbers or ():
        if numbers and numbers.count(number) > 1:
            raise InputError(f"{option} names {number} more than once; give each number once")
