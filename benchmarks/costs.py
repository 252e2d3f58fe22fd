"""What scoring many pictures costs, from figures of a machine: the arithmetic of ``benchmarks.plan_costs``."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Any

from benchmarks.operations import GIGA, association_operations, exact_operations, reference_bytes
from winclip.clip import ClipConfig
from winclip.errors import InputError

# NVIDIA's data sheet of the A100 says 312 TFLOP/s in bf16 and 19.5 in fp32, which the products with references
# are computed in. The share of them that is reached is an assumption.
A100 = "A100 data sheet, 0.3 of 312 TFLOP/s bf16", "A100 data sheet, 0.5 of 19.5 TFLOP/s fp32"


def _figure(default: float, what: str, source: str = "machine B of docs/performance.md, measured") -> Any:
    return field(default=default, metadata={"what": what, "source": source})


@dataclass(frozen=True)
class Figures:
    """What is known of a machine and of its pictures; see each figure's ``what`` for its unit.

    The device is a GPU, or the CPU itself if nothing is copied to it; then its rates are those of all cores.
    """

    decode: float = _figure(57, "pictures a second that a core reads, decodes and resizes")
    rest: float = _figure(3200, "pictures a second that a core scores, products with references left out")
    write: float = _figure(38, "pictures a second that a core draws and writes")
    text: float = _figure(5, "core seconds for the prompts of a class")
    encode: float = _figure(93_600, "GFLOP/s of the device in encoding", f"stated: {A100[0]}")
    score: float = _figure(9_750, "GFLOP/s of the device in products with references", f"stated: {A100[1]}")
    bandwidth: float = _figure(
        25, "GB/s from host to device; 0 if the CPU encodes", "stated: PCIe 4.0 x16, 0.8 of 31.5"
    )
    cores: float = _figure(16, "cores for a device", "stated: an assumption")
    picture_bytes: float = _figure(1_390_000, "bytes of a picture's file")
    row_bytes: float = _figure(470, "bytes of a row")
    map_bytes: float = _figure(135_000, "bytes of a heat map")


WHAT = {part.name: part.metadata["what"] for part in fields(Figures)}
# These may be 0: nothing is written, or nothing copied.
MAY_BE_ZERO = ("text", "bandwidth", "picture_bytes", "row_bytes", "map_bytes")


def check_figure(name: str, value: object) -> float:
    """The figure itself.

    Raises:
        InputError: if there is no such figure, or its value is no number above 0 (or at least 0, where that may be).
    """
    if name not in WHAT:
        raise InputError(f"figure '{name}' is unknown; there are {', '.join(WHAT)}")
    lowest = "0 or more" if name in MAY_BE_ZERO else "above 0"
    if (
        not isinstance(value, (int, float))
        or isinstance(value, bool)
        or not 0 <= value < math.inf
        or (value == 0 and name not in MAY_BE_ZERO)
    ):
        raise InputError(f"figure {name} is {value!r}; it is {WHAT[name]}, a number {lowest}")
    return float(value)


@dataclass(frozen=True)
class Work:
    """What is done with every picture.

    Attributes:
        config: sizes of the model.
        shots: references of each class.
        classes: that the pictures are of; each picture is of one of them.
    """

    config: ClipConfig
    shots: int = 0
    classes: int = 1

    @property
    def bank_bytes(self) -> int:
        """Of the memory banks of all classes."""
        return self.classes * self.shots * reference_bytes(self.config)


@dataclass(frozen=True)
class Stage:
    """What a stage takes of one picture: matrix operations, seconds of one core, seconds of the device."""

    name: str
    operations: int
    core_seconds: float
    device_seconds: float


@dataclass(frozen=True)
class Seconds:
    """Seconds of one core and of a device."""

    core: float
    device: float


def stages(work: Work, figures: Figures) -> list[Stage]:
    """The five stages of a picture."""
    side = work.config.image_size
    needed, products = exact_operations(work.config), association_operations(work.config, work.shots)
    copied = 3 * side * side / (figures.bandwidth * GIGA) if figures.bandwidth else 0.0
    encode = _computed(figures, needed / (figures.encode * GIGA))
    score = _computed(figures, products / (figures.score * GIGA))
    return [
        Stage("decode", 0, 1 / figures.decode, 0.0),
        Stage("host to device", 0, 0.0, copied),
        Stage("encode", needed, encode.core, encode.device),
        Stage("score", products, score.core + 1 / figures.rest, score.device),
        Stage("write", 0, 1 / figures.write, 0.0),
    ]


def _computed(figures: Figures, seconds: float) -> Seconds:
    """Seconds of the device, or of all cores where the CPU is the device."""
    return Seconds(0.0, seconds) if figures.bandwidth else Seconds(seconds * figures.cores, 0.0)


def each(parts: list[Stage]) -> Seconds:
    """What all stages take of a picture."""
    return Seconds(sum(part.core_seconds for part in parts), sum(part.device_seconds for part in parts))


def rate(parts: list[Stage], figures: Figures) -> float:
    """Pictures a second of a device and its cores, if every core always has a picture at hand."""
    taken = each(parts)
    return 1 / max(taken.core / figures.cores, taken.device)


def bottleneck(parts: list[Stage], figures: Figures) -> str:
    """The largest stage of what is busy all the time, cores or device."""
    taken = each(parts)
    if taken.device > taken.core / figures.cores:
        return max(parts, key=lambda part: part.device_seconds).name
    return max(parts, key=lambda part: part.core_seconds).name


def beforehand(work: Work, figures: Figures) -> Seconds:
    """What the classes take before the first picture: prompts, references, and leaving each of them out."""
    decode, copied, encode, score, _ = stages(work, figures)
    core = decode.core_seconds + encode.core_seconds + score.core_seconds
    device = copied.device_seconds + encode.device_seconds + score.device_seconds
    return Seconds(work.classes * (figures.text + work.shots * core), work.classes * work.shots * device)


def whole(work: Work, figures: Figures, count: float) -> Seconds:
    """What ``count`` pictures take."""
    taken, first = each(stages(work, figures)), beforehand(work, figures)
    return Seconds(first.core + count * taken.core, first.device + count * taken.device)


def seconds_in_one_process(work: Work, figures: Figures, workers: int) -> float:
    """Seconds a picture of one process such as predict.py.

    It encodes, scores and writes one after another, on a CPU with all cores for encoding and products. ``workers``
    threads read beside that, without any it reads as well; and nothing is faster than the cores together.
    """
    decode, copied, *_ = parts = stages(work, figures)
    products = (
        exact_operations(work.config) / figures.encode + association_operations(work.config, work.shots) / figures.score
    )
    main = copied.device_seconds + products / GIGA + 1 / figures.rest + 1 / figures.write
    if not workers:
        return main + decode.core_seconds
    return max(main, decode.core_seconds / workers, each(parts).core / figures.cores)
