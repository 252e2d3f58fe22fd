"""The command line of test.py, and its settings: a variant, a number of shots and a draw of references each."""

from __future__ import annotations

import argparse
import os
import re
import reprlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from datasets.registry import DATA_SETS, default_root
from winclip.defaults import DEFAULT_MODEL, DEMO_MODEL, TEMPERATURE
from winclip.prompts import PromptSet, load_prompt_set
from winclip.support.command_line import ModelOptions, ReadingOptions
from winclip.support.errors import InputError
from winclip.support.files import read_json
from winclip.support.names import printable
from winclip.support.options import add_options, from_json, option, take_options
from winclip.variants import HELP, REFERENCE, Variant, check_image_only, parse_variant, steps

DEFAULT_SEED = 10
_OUTPUT = "metrics and output"


# Matches ``Setting.folder``.
MAPS_FOLDER = re.compile(r"([\w=,.+-]+-)?\d+shot(-seed-?\d+)?")


@dataclass(frozen=True)
class Setting:
    """One column of results: a number of shots, the draw, and the variant; ``seed`` is None where nothing is drawn."""

    k_shot: int
    seed: int | None
    variant: str = REFERENCE.name

    @property
    def seed_text(self) -> str:
        """The seed as the files show it."""
        return "" if self.seed is None else str(self.seed)

    @property
    def name(self) -> str:
        """The setting in words."""
        return self.shots + ("" if self.seed is None else f", seed {self.seed}")

    @property
    def shots(self) -> str:
        """The setting in words without its seed."""
        return f"{self._of_variant(', ')}{self.k_shot}-shot"

    @property
    def highest(self) -> float:
        """The largest value that maps can have; the smallest is 0. Few-shot maps are sums of two maps."""
        return 2.0 if self.k_shot else 1.0

    @property
    def folder(self) -> str:
        """Folder name of the setting's maps."""
        return f"{self._of_variant('-')}{self.k_shot}shot" + ("" if self.seed is None else f"-seed{self.seed}")

    def _of_variant(self, end: str) -> str:
        return "" if self.variant == REFERENCE.name else self.variant + end


@dataclass(frozen=True, kw_only=True)
class Options:
    """What a run was asked to do."""

    config: Path | None = option("config.json of a run to repeat; options given beside it override it", metavar="FILE")
    dataset: str = option(f"{', '.join(DATA_SETS)}, or any name for your own data (mvtec)", "mvtec", group="data")
    data_path: Path = option("data set root, the folder with meta.json (data/DATASET)", group="data")
    save_path: Path = option("output folder (results/DATASET)", group="data")
    classes: tuple[str, ...] | None = option("only these classes", group="data", metavar="C")
    check_data: bool = option(
        "only read every image and mask and list what is wrong with them; exit status 1 if anything is",
        False,
        group="data",
    )
    skip_unreadable: bool = option("leave out images that cannot be read", False, group="data")
    skip_bad_scores: bool = option("leave out images whose score is NaN", False, group="data")
    allow_links: bool = option("follow links that lead out of data_path", False, group="data")
    allow_overlap: bool = option("accept test images that are also train images", False, group="data")
    upright: bool = option("turn images and masks as their EXIF orientation says", False, group="data")
    model: ModelOptions
    prompt_set: str = option("reference, paper, or a .json file (reference)", "reference", group="prompts")
    class_names: Path | None = option(
        "JSON object that maps classes to the words for them in prompts", group="prompts", metavar="FILE"
    )
    no_cache: bool = option("do not keep text embeddings for later runs", False, group="prompts")
    k_shot: tuple[int, ...] | None = option(
        "numbers of reference images, all evaluated in one pass (0)", group="references", metavar="K"
    )
    seed: tuple[int, ...] = option(f"seeds of the reference draws ({DEFAULT_SEED})", group="references", metavar="S")
    reference_list: Path | None = option(
        "reference images instead of a draw, one train img_path per line", group="references", metavar="FILE"
    )
    variant: tuple[str, ...] | None = option(f"ways of computing: {HELP} (reference)", group="variants", metavar="V")
    variant_steps: tuple[str, ...] | None = option(
        "means along the chain of variants that changes one switch at a time, as steps.md and steps.csv",
        group="variants",
        nargs=2,
        metavar=("FIRST", "LAST"),
    )
    image_only: bool = option(
        "score images without windows: the same zero-shot scores at 8 %% of the operations, and no maps",
        False,
        group=_OUTPUT,
    )
    aupro: str = option("how AUPRO is computed (steps)", "steps", group=_OUTPUT, choices=("steps", "exact"))
    metrics: str = option(
        "pixel metrics from sorted scores, or in bounded memory to about 1e-4 (exact)",
        "exact",
        group=_OUTPUT,
        choices=("exact", "histogram"),
    )
    intervals: bool = option(
        "add 95 %% bootstrap intervals over images; also writes intervals.csv", False, group=_OUTPUT
    )
    compare: bool = option("add the difference to the published tables", False, group=_OUTPUT)
    check_metrics: bool = option(
        "compute every figure again with scikit-learn and scikit-image; exit status 1 if they differ",
        False,
        group=_OUTPUT,
    )
    save_maps: bool = option("also write the upsampled float maps", False, group=_OUTPUT)
    report: bool = option("also write report.html: tables, curves and pictures", False, group=_OUTPUT)
    fresh: bool = option("remove what earlier runs have scored, and start over", False, group=_OUTPUT)
    reading: ReadingOptions

    @property
    def variants(self) -> dict[str, Variant]:
        """The variants by name, in the order given."""
        if self.variant_steps is not None:
            return {variant.name: variant for _, variant in steps(*map(parse_variant, self.variant_steps))}
        if self.variant is not None:
            return {variant.name: variant for variant in map(parse_variant, self.variant)}
        return {REFERENCE.name: replace(REFERENCE, temperature=self.model.temperature)}

    @property
    def prompts(self) -> dict[str, PromptSet]:
        """The prompt set of each variant.

        Raises:
            InputError: if it is unknown or malformed.
        """
        if self.prompt_set != "reference":
            return dict.fromkeys(self.variants, load_prompt_set(self.prompt_set))
        return {name: variant.prompts for name, variant in self.variants.items()}


def build_parser() -> argparse.ArgumentParser:
    """The parser of test.py; imports nothing heavy."""
    parser = argparse.ArgumentParser(
        prog="test.py",
        description="Evaluate WinCLIP zero-shot and few-shot on a data set with a meta.json; prints one table for every"
        " number of shots and writes results.csv, types.csv, tables.md, scores.csv, k_shot.csv, config.json and"
        " log.txt. Scores are kept in scores/, and the same command computes the metrics from there.",
    )
    add_options(parser, Options)
    parser.add_argument(
        "--resume",
        action="store_true",
        help="reuse what earlier runs with the same options, weights, versions and data have scored (always, without"
        " --fresh)",
    )
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
    if values["compare"] and values["model"] == DEMO_MODEL:
        raise InputError(
            "--compare: the published figures come from a CLIP trained on photographs, and the demo backbone was"
            f" trained on drawings; leave it out, or use --model {DEFAULT_MODEL}"
        )
    if values.pop("resume") and values["fresh"]:
        raise InputError("--resume and --fresh contradict each other; leave one of them out")
    dataset = values["dataset"]
    if not dataset or "/" in dataset or "\\" in dataset or dataset in (".", "..") or printable(dataset) != dataset:
        raise InputError(f"--dataset '{dataset}' is not a name; give the folder with --data_path")
    values["data_path"] = values["data_path"] or default_root(dataset)
    values["save_path"] = values["save_path"] or Path("results") / dataset
    _refuse_repeated("--k_shot", values["k_shot"])
    _refuse_repeated("--seed", values["seed"])
    for k in values["k_shot"] or ():
        if k < 0:
            raise InputError(f"--k_shot {k} is negative; use 0 for zero-shot or the number of reference images")
    if values["reference_list"] is not None and values["seed"] is not None:
        raise InputError("--seed has no meaning with --reference_list, which draws nothing; leave one of them out")
    values["seed"] = values["seed"] or [DEFAULT_SEED]
    options = take_options(Options, values)
    _check_variants(options)
    return options


def _check_variants(options: Options) -> None:
    """Raises: InputError: if a variant is unknown, repeated, or incompatible with another option."""
    named = options.variant or options.variant_steps or ()
    if options.variant and options.variant_steps:
        raise InputError("--variant and --variant_steps both name variants; leave one of them out")
    variants = options.variants
    if options.variant and len(variants) < len(named):
        raise InputError(f"--variant {' '.join(named)} names a variant more than once; give each once")
    if options.variant_steps and len(variants) < 2:
        raise InputError(f"--variant_steps {' '.join(named)}: both are the same; name two that differ")
    if named and (options.prompt_set != "reference" or options.model.temperature != TEMPERATURE):
        raise InputError(
            "--prompt_set and --temperature are switches of variants, such as --variant"
            " reference,templates=paper,temperature=0.01; leave them out beside --variant"
        )
    if not options.image_only:
        return
    if any(options.k_shot or ()) or options.reference_list:
        raise InputError("--image_only has no windows, which references are compared by; leave out --k_shot above 0")
    for name in ("save_maps", "report"):
        if getattr(options, name):
            raise InputError(f"--image_only makes no maps, so --{name} has no meaning; leave one of them out")
    for variant in variants.values():
        check_image_only(variant)


def read_config(path: Path) -> dict[str, Any]:
    """The content of a run's config.json; ``options`` is an object whose content is not checked.

    Raises:
        InputError: if the file cannot be read, or holds no options.
    """
    try:
        content = read_json(path, "--config")
    except InputError as error:
        raise InputError(f"{error}; give the config.json of a run") from error
    if not isinstance(content, dict) or not isinstance(content.get("options"), dict):
        raise InputError(f"--config {path} holds no options; give the config.json of a run")
    return content


def _options_of_run(parser: argparse.ArgumentParser, path: Path) -> dict[str, Any]:
    """The options in a config.json, as the parser gives them, but for ``config``, ``save_path`` and ``fresh``."""
    found = {}
    for name, value in read_config(path)["options"].items():
        if name in ("config", "save_path", "fresh"):
            continue
        try:
            found[name] = from_json(parser, name, value)
        except (KeyError, ValueError) as error:
            raise InputError(
                f"--config {path}: option {reprlib.repr(name)} cannot be {reprlib.repr(value)};"
                " correct it, or run again without --config"
            ) from error
    return found


def _refuse_repeated(option: str, numbers: list[int] | None) -> None:
    for number in numbers or ():
        if numbers and numbers.count(number) > 1:
            raise InputError(f"{option} names {number} more than once; give each number once")
