"""What the command lines of the entry points share: options of the model and of reading, errors, the log.

Imports nothing heavy, so that ``--help`` and mistyped options answer at once.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from winclip.defaults import (
    DEFAULT_MODEL,
    DEFAULT_PRETRAINED,
    DEMO_MODEL,
    SCALES,
    TEMPERATURE,
    check_scales,
    check_temperature,
)
from winclip.support.errors import InputError
from winclip.support.names import printable

if TYPE_CHECKING:
    from winclip.model import WinCLIP


@dataclass(frozen=True)
class ModelOptions:
    """Which model, and how it runs. Names are those of the command line."""

    model: str
    pretrained: str | None
    image_size: int | None
    scales: tuple[int, ...]
    temperature: float
    device: str
    precision: str

    def load(self) -> WinCLIP:
        """The model, without a class.

        Raises:
            InputError: if anything given is unknown, unreachable, or does not fit together.
        """
        from winclip.model import WinCLIP

        return WinCLIP.from_pretrained(
            self.model,
            self.pretrained,
            device=self.device,
            precision=self.precision,
            image_size=self.image_size,
            scales=self.scales,
            temperature=self.temperature,
        )


def add_model_options(
    parser: argparse.ArgumentParser, default_model: str = DEFAULT_MODEL, *, on_cpu_only: bool = False
) -> None:
    """Add the options that ``model_options`` reads; ``on_cpu_only`` leaves out device and precision."""
    group = parser.add_argument_group("model")
    group.add_argument(
        "--model",
        default=default_model,
        help=f"open_clip model name, path of an open_clip model config .json, or {DEMO_MODEL} ({default_model})",
    )
    group.add_argument(
        "--pretrained",
        help="open_clip tag or path of a checkpoint .pt, .bin, .safetensors"
        f" ({DEFAULT_PRETRAINED}; of {DEMO_MODEL} its own)",
    )
    group.add_argument("--image_size", type=int, help="side in pixels, a multiple of the patch size (the model's own)")
    group.add_argument(
        "--scales",
        type=int,
        nargs="+",
        metavar="S",
        default=SCALES,
        help=f"sides of the windows in patches ({' '.join(map(str, SCALES))})",
    )
    group.add_argument(
        "--temperature", type=float, default=TEMPERATURE, help=f"of the softmax, above 0 ({TEMPERATURE})"
    )
    if on_cpu_only:
        parser.set_defaults(device="cpu", precision="fp32")
        return
    group.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (auto)")
    group.add_argument("--precision", default="auto", help="auto, fp32, tf32 (CUDA), bf16, fp16 (auto: fp32)")


def model_options(values: dict[str, Any]) -> ModelOptions:
    """Take the model's options out of parsed values.

    Raises:
        InputError: if scales or temperature make no sense.
    """
    taken = {field.name: values.pop(field.name) for field in fields(ModelOptions)}
    check_temperature(taken["temperature"])
    return ModelOptions(**{**taken, "scales": check_scales(taken["scales"])})


def add_reading_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--batch_size`` and ``--num_workers``."""
    group = parser.add_argument_group("speed")
    group.add_argument(
        "--batch_size",
        type=int,
        default=8,
        help="images read and encoded together (8); a CPU still encodes one at a time, a GPU out of memory fewer",
    )
    group.add_argument("--num_workers", type=int, help="threads that read images ahead, 0 for none (usable cores)")


def check_reading_options(values: dict[str, Any]) -> None:
    """Check what ``add_reading_options`` added.

    Raises:
        InputError: if a number is too small.
    """
    for name, lowest in (("batch_size", 1), ("num_workers", 0)):
        if values[name] is not None and values[name] < lowest:
            raise InputError(f"--{name} {values[name]} must be at least {lowest}")


class Terminated(KeyboardInterrupt):
    """SIGTERM came, which is heard like Ctrl-C."""


def exit_status(run: Callable[[], int], how_to_go_on: str = "the same command starts again") -> int:
    """Run a command and return its exit status: its own, 2 after bad input, 130 after SIGINT or 143 after SIGTERM.

    Args:
        run: the command. A signal raises KeyboardInterrupt in it, so that it can save what is finished.
        how_to_go_on: said after a signal, in the one line on standard error that tells of a bad end; the
            text of the KeyboardInterrupt, if it has one, takes its place.
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
    """What ended a run, for its log."""
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

    # SIGINT too, which shells let their background jobs ignore.
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
    log.propagate = False
