"""Shared parts of the command lines: options of the model and of reading, errors, the log.

Imports nothing heavy, so that ``--help`` and mistyped options answer at once.
"""

from __future__ import annotations

import contextlib
import logging
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from winclip.defaults import (
    DEFAULT_MODEL,
    DEFAULT_PRETRAINED,
    DEMO_MODEL,
    SCALES,
    TEMPERATURE,
    check_scales,
    check_temperature,
    check_white,
)
from winclip.support.errors import InputError
from winclip.support.names import printable
from winclip.support.options import option
from winclip.variants import HELP, REFERENCE, parse_variant

if TYPE_CHECKING:
    from winclip.model import WinCLIP
    from winclip.network.backbone import Backbone


@dataclass(frozen=True)
class ModelOptions:
    """Which model, and how it runs."""

    model: str = option(
        f"open_clip model name, path of an open_clip model config .json, or {DEMO_MODEL} ({DEFAULT_MODEL})",
        DEFAULT_MODEL,
        group="model",
    )
    pretrained: str | None = option(
        "open_clip tag or path of a checkpoint .pt, .bin, .safetensors"
        f" ({DEFAULT_PRETRAINED}; {DEMO_MODEL} has its own)",
        group="model",
    )
    image_size: int | None = option("side in pixels, a multiple of the patch size (the model's own)", group="model")
    scales: tuple[int, ...] = option(
        f"sides of the windows in patches ({' '.join(map(str, SCALES))})", SCALES, group="model", metavar="S"
    )
    temperature: float = option(f"of the softmax, above 0 ({TEMPERATURE})", TEMPERATURE, group="model")
    device: str = option("auto, cpu, cuda, cuda:1, mps (auto)", "auto", group="model")
    precision: str = option("auto, fp32, tf32 (CUDA), bf16, fp16 (auto: fp32)", "auto", group="model")
    white: int | None = option(
        "the white value of pictures of more than 8 bits, such as 4095 for a 12-bit camera (65535)",
        group="model",
        metavar="N",
    )

    def __post_init__(self) -> None:
        """Raises: InputError: if scales, temperature or white are not valid."""
        check_white(self.white)
        check_temperature(self.temperature)
        check_scales(self.scales)

    def load(self, weights: bool = True, **more: Any) -> WinCLIP:
        """The model, without a class; without its weights it only knows its properties, and scores nothing.

        Args:
            weights: whether they are loaded.
            more: further arguments of ``WinCLIP``.

        Raises:
            InputError: if anything given is unknown, unreachable, or does not fit together.
        """
        from winclip.model import WinCLIP
        from winclip.network.clip_backbone import load_backbone

        backbone = load_backbone(
            self.model,
            self.pretrained,
            device=self.device,
            precision=self.precision,
            image_size=self.image_size,
            scales=self.scales,
            weights=weights,
        )
        return WinCLIP(backbone, self.temperature, self.white, **more)


@dataclass(frozen=True)
class VariantOptions(ModelOptions):
    """Which model, how it runs, and in which variant."""

    variant: str = option(f"way of computing: {HELP} (reference)", REFERENCE.name, group="model", metavar="V")

    def __post_init__(self) -> None:
        """Raises: InputError: if the variant is unknown, or an option is not valid."""
        super().__post_init__()
        parse_variant(self.variant)

    def load(self, weights: bool = True, **more: Any) -> WinCLIP:
        """The model in its variant, see ``ModelOptions``."""
        return super().load(weights, variant=parse_variant(self.variant), **more)


def number_or_auto(text: str) -> int | None:
    """The number in an option's text; None for ``auto``."""
    return None if text == "auto" else int(text)


@dataclass(frozen=True)
class ReadingOptions:
    """How many pictures are read and encoded at a time."""

    batch_size: int | None = option(
        "images read and encoded together, or auto: as many as a GPU's memory holds, 8 on a CPU, which still encodes"
        " one at a time (auto)",
        group="speed",
        type=number_or_auto,
    )
    num_workers: int | None = option("threads that read images ahead, 0 for none (usable cores)", group="speed")

    def __post_init__(self) -> None:
        """Raises: InputError: if a number is too small."""
        for name, lowest in (("batch_size", 1), ("num_workers", 0)):
            value = getattr(self, name)
            if value is not None and value < lowest:
                raise InputError(f"--{name} {value} must be at least {lowest}")

    def batch(self, backbone: Backbone) -> int:
        """Images that are read and encoded together."""
        return self.batch_size or backbone.batch_size


class Terminated(KeyboardInterrupt):
    """SIGTERM came; it is handled like Ctrl-C."""


def run_command(run: Callable[[], int], how_to_go_on: str = "the same command starts again") -> int:
    """Run a command and return its exit status: its own, 2 after bad input, 130 after SIGINT or 143 after SIGTERM.

    Args:
        run: the command. A signal raises KeyboardInterrupt in it, so that it can save what is finished.
        how_to_go_on: printed after a signal, in the one line on standard error that reports the failure; the
            text of the KeyboardInterrupt, if it has one, replaces it.
    """
    try:
        with _signals_heard():
            return run()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stop:
        print(printable(f"{ending(stop)}; {str(stop) or how_to_go_on}"), file=sys.stderr)
        return 128 + _signal(stop)


def ending(error: BaseException) -> str:
    """The reason for the end of a run, for its log."""
    if isinstance(error, InputError):
        return str(error)
    if isinstance(error, KeyboardInterrupt):
        return f"stopped by {_signal(error).name}"
    return f"{type(error).__name__}: {error}"


def _signal(stop: KeyboardInterrupt) -> signal.Signals:
    return signal.SIGTERM if isinstance(stop, Terminated) else signal.SIGINT


@contextlib.contextmanager
def _signals_heard() -> Iterator[None]:
    def stop(number: int, frame: object) -> None:
        raise Terminated if number == signal.SIGTERM else KeyboardInterrupt

    # SIGINT too, because shells let their background jobs ignore it.
    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def log_to_terminal(log: logging.Logger, *more: logging.Handler) -> None:
    """Send a log to the terminal, above any progress bar, and to further handlers."""
    from tqdm import tqdm

    class ToTerminal(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            tqdm.write(f"{record.levelname.lower()}: {printable(record.getMessage())}", file=sys.stderr)

    log.handlers[:] = [ToTerminal(), *more]
    log.setLevel(logging.INFO)
