"""What a million or a billion pictures cost, from figures that anyone can put in.

    python -m benchmarks.plan_costs                                   # machine B's figures and an A100's data sheet
    python -m benchmarks.plan_costs --measure --json here.json        # this machine's, its CPU encoding
    python -m benchmarks.plan_costs --figures here.json --bandwidth 25 --encode 93600 --score 9750   # with a GPU
    python -m benchmarks.plan_costs --measure --model demo-vit-240 --check 100 500    # against runs of predict.py

Pictures are scored and drawn as predict.py does. Matrix operations are counted; nothing is encoded without --measure.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path

from tabulate import tabulate

from benchmarks.costs import (
    Figures,
    Work,
    beforehand,
    bottleneck,
    check_figure,
    each,
    rate,
    seconds_in_one_process,
    stages,
    whole,
)
from winclip.clip import ClipConfig
from winclip.command_line import exit_status
from winclip.defaults import DEFAULT_MODEL
from winclip.errors import InputError
from winclip.files import write_atomically
from winclip.pretrained import parse_config, read_config
from winclip.texts import read_json

_HOUR = 3600
_COUNTS = (10**6, 10**9)
_SHOTS, _CLASSES, _SIDES = (0, 1, 4, 64, 512), (100, 10_000), (2, 3)
_PREFIXES = ("", "k", "M", "G", "T", "P", "E", "Z", "Y")


def quantity(value: float, unit: str = "") -> str:
    """Three digits of a number with its prefix: 1.23 TB."""
    power = 0
    while value >= 999.5 and power < len(_PREFIXES) - 1:
        value, power = value / 1000, power + 1
    digits = 0 if value >= 99.95 or value == 0 else 1 if value >= 9.995 else 2
    return f"{value:.{digits}f} {_PREFIXES[power]}{unit}".rstrip()


def hours(seconds: float) -> str:
    """Seconds as hours."""
    return quantity(seconds / _HOUR, "h")


def as_table(rows: Sequence[Sequence[str]], header: Sequence[str]) -> str:
    """A table as the docs have it."""
    return tabulate(rows, header, tablefmt="pipe", disable_numparse=True)


def figure_table(figures: Figures, sources: dict[str, str]) -> str:
    """Every figure, and where it comes from."""
    rows = [
        [part.name, quantity(getattr(figures, part.name)), part.metadata["what"], sources[part.name]]
        for part in fields(Figures)
    ]
    return as_table(rows, ["figure", "value", "what", "source"])


def stage_table(work: Work, figures: Figures) -> str:
    """The stages of one picture."""
    rows = []
    for part in stages(work, figures):
        slowest = max(part.core_seconds / figures.cores, part.device_seconds)
        rows.append(
            [
                part.name,
                quantity(part.operations, "operations") if part.operations else "",
                f"{1000 * part.core_seconds:.3f}",
                f"{1000 * part.device_seconds:.3f}",
                quantity(1 / slowest) if slowest else "",
            ]
        )
    return as_table(rows, ["stage", "work", "ms of a core", "ms of the device", "pictures a second, alone"])


def count_table(work: Work, figures: Figures, counts: Sequence[int]) -> str:
    """What numbers of pictures cost."""
    parts = stages(work, figures)
    side = work.config.image_size
    rows = []
    for count in counts:
        total = whole(work, figures, count)
        rows.append(
            [
                f"{count:,}",
                quantity(count * sum(part.operations for part in parts)),
                quantity(count * figures.picture_bytes, "B"),
                quantity(count * 3 * side * side, "B") if figures.bandwidth else "",
                quantity(count * (figures.row_bytes + figures.map_bytes), "B"),
                hours(total.core),
                hours(total.device) if figures.bandwidth else "",
                hours(max(total.core / figures.cores, total.device)),
            ]
        )
    header = [
        "pictures",
        "operations",
        "read",
        "copied",
        "written",
        "core hours",
        "device hours",
        "hours with one device",
    ]
    return as_table(rows, header)


def growth_table(work: Work, figures: Figures, count: int) -> str:
    """How the cost grows with references, classes and the image's side."""
    changed = [("as above", work)]
    changed += [(f"k = {k}", replace(work, shots=k)) for k in _SHOTS if k != work.shots]
    changed += [(f"{number:,} classes", replace(work, classes=number)) for number in _CLASSES]
    for times in _SIDES:
        size = times * work.config.image_size
        changed.append((f"image size {size}", replace(work, config=replace(work.config, image_size=size))))
    rows = []
    for name, other in changed:
        parts, total, first = stages(other, figures), whole(other, figures, count), beforehand(other, figures)
        rows.append(
            [
                name,
                quantity(sum(part.operations for part in parts)),
                f"{1000 * each(parts).core:.1f}",
                f"{1000 * each(parts).device:.2f}",
                f"{rate(parts, figures):.3g}",
                bottleneck(parts, figures),
                hours(first.core + first.device),
                hours(total.core),
                hours(total.device) if figures.bandwidth else "",
                quantity(other.bank_bytes, "B"),
            ]
        )
    header = ["", "operations a picture", "ms of a core", "ms of the device", "pictures a second", "bottleneck"]
    header += ["hours beforehand", f"core hours of {count:,}", "device hours", "memory banks"]
    return as_table(rows, header)


def parse_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line.

    Raises:
        InputError: if a value makes no sense.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, nargs="+", default=_COUNTS, help="pictures (a million, a billion)")
    parser.add_argument(
        "--model", default=DEFAULT_MODEL, help=f"as in test.py; its weights are random ({DEFAULT_MODEL})"
    )
    parser.add_argument("--image_size", type=int, help="side in pixels (the model's own)")
    parser.add_argument("--k_shot", type=int, default=0, help="references of a class (0)")
    parser.add_argument("--classes", type=int, default=1, help="classes; every picture is of one (1)")
    group = parser.add_argument_group("figures", "by default stated for a GPU, and machine B's for all else")
    group.add_argument("--figures", type=Path, metavar="FILE", help="figures that --json kept")
    group.add_argument("--measure", action="store_true", help="measure this machine's, its CPU being the device")
    for part in fields(Figures):
        group.add_argument(f"--{part.name}", type=float, metavar="X", help=part.metadata["what"])
    group.add_argument("--json", type=Path, metavar="FILE", help="keep the figures here")
    group = parser.add_argument_group("measuring")
    group.add_argument("--pictures", type=Path, metavar="DIR", help="pictures to read (noisy ones of 900 x 900, drawn)")
    group.add_argument("--turns", type=int, default=5, help="counted turns of --measure (5)")
    group.add_argument(
        "--check", type=int, nargs=2, metavar="N", help="also run predict.py over few and many pictures, 0 and 4 shots"
    )
    group.add_argument("--check_shots", type=int, nargs="+", default=(0, 4), metavar="K", help="of --check (0 4)")
    group.add_argument("--check_turns", type=int, default=3, help="counted turns of --check (3)")
    options = parser.parse_args(arguments)
    for name, lowest in (("k_shot", 0), ("classes", 1), ("turns", 1), ("check_turns", 1)):
        if getattr(options, name) < lowest:
            raise InputError(f"--{name} {getattr(options, name)} must be at least {lowest}")
    for name, values, lowest in (("count", options.count, 1), ("check_shots", options.check_shots, 0)):
        if min(values) < lowest:
            raise InputError(f"--{name} {min(values)} must be at least {lowest}")
    if options.measure and options.figures:
        raise InputError("--measure and --figures both give the figures; leave one out")
    if not options.measure and (options.check or options.pictures):
        raise InputError("--check and --pictures need figures of this machine; add --measure")
    if options.check and not 0 < options.check[0] < options.check[1]:
        raise InputError(
            f"--check {options.check[0]} {options.check[1]} must be two numbers above 0, the larger one last"
        )
    return options


def figures_of(options: argparse.Namespace, measured: Figures | None) -> tuple[Figures, dict[str, str]]:
    """The figures, those of the command line above all others, and where each comes from.

    Raises:
        InputError: if one makes no sense, or the file is none.
    """
    values = asdict(Figures())
    sources = {part.name: part.metadata["source"] for part in fields(Figures)}
    given = {name: getattr(options, name) for name in values if getattr(options, name) is not None}
    kept = asdict(measured) if measured else read_json(options.figures, "figures") if options.figures else {}
    if not isinstance(kept, dict):
        raise InputError(f"figures {options.figures} is no JSON object of numbers; write it with --json")
    for found, source in ((kept, "measured here" if measured else str(options.figures)), (given, "given")):
        values |= {name: check_figure(name, value) for name, value in found.items()}
        sources |= dict.fromkeys(found, source)
    return Figures(**values), sources


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the plan; see ``exit_status`` for what is returned.

    Raises:
        InputError: if anything given is wrong.
    """
    options = parse_options(arguments)
    config = parse_config(read_config(options.model)[0], options.model, options.image_size)
    work = Work(config, options.k_shot, options.classes)
    figures, sources = figures_of(options, None)  # wrong ones are told before minutes of measuring
    if not options.measure:
        print_plan(options, work, figures, sources)
        return 0
    from benchmarks.benchmark import machine
    from benchmarks.measured_costs import measure, pictures_for, weights_of

    print(machine())
    most = max(options.check or [1]) + max(options.check_shots)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pictures = pictures_for(options.pictures, folder / "pictures", most)
        weights = weights_of(options.model, folder)
        figures, sources = figures_of(options, measure(weights, pictures, options.turns))
        print_plan(options, work, figures, sources)
        if options.check:
            print(check_table(options, config, figures, weights, pictures))
    return 0


def print_plan(options: argparse.Namespace, work: Work, figures: Figures, sources: dict[str, str]) -> None:
    """Print all that is computed, and keep the figures if wanted."""
    if options.json:
        write_atomically(options.json, json.dumps(asdict(figures), indent=2) + "\n")
    print(figure_table(figures, sources))
    print(
        f"\n{options.model}, {work.config.image_size} pixels, {work.shots} shots, {work.classes:,} classes;"
        " one picture:\n"
    )
    print(stage_table(work, figures))
    parts = stages(work, figures)
    print(f"\n{rate(parts, figures):.3g} pictures a second; bottleneck: {bottleneck(parts, figures)}\n")
    print(count_table(work, figures, options.count))
    print(f"\n{growth_table(work, figures, options.count[0])}\n")


def check_table(
    options: argparse.Namespace, config: ClipConfig, figures: Figures, weights: Sequence[str], pictures: Sequence[str]
) -> str:
    """Seconds a picture of predict.py beside those that the figures say."""
    from benchmarks.measured_costs import timed_runs

    workers = sorted({0, int(figures.cores)})
    rows = []
    for run in timed_runs(weights, pictures, options.check, options.check_shots, workers, options.check_turns):
        planned = seconds_in_one_process(Work(config, run.shots), figures, run.workers)
        off = f"{100 * (planned / run.seconds - 1):+.0f} %"
        rows.append([options.model, str(run.shots), str(run.workers), f"{planned:.4f}", f"{run.seconds:.4f}", off])
    header = ["model", "shots", "workers", "seconds a picture, planned", "measured", "planned is off by"]
    return as_table(rows, header)


if __name__ == "__main__":
    sys.exit(exit_status(main))
