"""The processes of a run: one, or several ranks that torchrun starts and that divide the images among them.

Ranks exchange scores as files below ``scores/``, and otherwise only whether one has failed. Rank 0 computes the
metrics, writes the results and logs; another rank only reports its error, if it was the first to fail.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

from winclip.support.command_line import ModelOptions, Terminated
from winclip.support.errors import InputError
from winclip.support.names import counted

if TYPE_CHECKING:
    from winclip.model import WinCLIP

T = TypeVar("T")

# The longest that ranks wait for each other, for example while one downloads weights or measures a large class.
# A dead process is noticed at once, because its connections close; only an unreachable machine takes this long.
_PATIENCE = timedelta(minutes=30)
# How long a rank without an error of its own waits for torchrun to end it, while the failed one reports its error.
_GRACE_SECONDS = 30


class _OtherRankFailed(InputError):
    """Another rank reports the error."""


@dataclass(frozen=True)
class Ranks:
    """This process among those of the run.

    Attributes:
        number, count: the number of this rank, from 0, and how many ranks there are.
        local_number, local_count: the same on this machine.
    """

    number: int = 0
    count: int = 1
    local_number: int = 0
    local_count: int = 1

    @property
    def first(self) -> bool:
        """Whether this is rank 0."""
        return self.number == 0

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """This rank's contiguous share; the shares of all ranks, in order, make the whole."""
        size = len(items)
        return items[size * self.number // self.count : size * (self.number + 1) // self.count]

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Do something on every rank and wait for the others; an InputError on one rank ends all."""
        error = None
        try:
            yield
        except InputError as raised:
            error = raised
        failed = self._meet(error is not None)
        if error is not None and failed.index(True) == self.number:
            raise error
        if any(failed):
            raise _OtherRankFailed("another rank reports the error")

    def _meet(self, failed: bool) -> list[bool]:
        """Whether each rank failed."""
        if self.count == 1:
            return [failed]
        import torch
        from torch import distributed

        flags = [torch.zeros(1) for _ in range(self.count)]
        try:
            distributed.all_gather(flags, torch.full((1,), float(failed)))
        except RuntimeError as error:
            if not self.first:
                raise _OtherRankFailed("another rank ended early") from error
            reason = str(error).splitlines()[0]
            raise InputError(f"another rank ended early or cannot be reached ({reason}); see what it says") from error
        return [bool(flag) for flag in flags]

    def load(self, options: ModelOptions) -> WinCLIP:
        """The model on this rank's device.

        Raises:
            InputError: as ``ModelOptions.load``, or if there are more ranks than GPUs.
        """
        if self.count == 1:
            return options.load()
        import torch

        from winclip.pictures.reading import usable_cores

        options = replace(options, device=own_device(options.device, self.local_number, self.local_count))
        torch.set_num_threads(max(1, usable_cores() // self.local_count))
        loaded: list[WinCLIP] = []
        # One rank of a machine times its linear layers, and the others then read the result. It does so with the
        # threads of a single process, which may have timed them already.
        for turn in (True, False):
            with self.together(), self.all_threads():
                if turn is (self.local_number == 0):
                    loaded.append(options.load())
        return loaded[0]

    @contextlib.contextmanager
    def all_threads(self) -> Iterator[None]:
        """Use as many threads as a single process, because fewer may round differently."""
        import torch

        from winclip.pictures.reading import usable_cores

        own = torch.get_num_threads()
        if self.count > 1:
            torch.set_num_threads(usable_cores())
        try:
            yield
        finally:
            torch.set_num_threads(own)


@contextlib.contextmanager
def joined_ranks() -> Iterator[Ranks]:
    """The processes of this run, several only if torchrun has started them."""
    if not _under_torchrun():
        yield Ranks()
        return
    from torch import distributed

    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    ranks = Ranks(*(int(os.environ[name]) for name in names))
    if not ranks.first:
        logging.getLogger("winclip").handlers[:] = [logging.NullHandler()]
    try:
        try:
            distributed.init_process_group("gloo", timeout=_PATIENCE)
        except RuntimeError as error:
            raise InputError(f"the ranks cannot reach each other ({str(error).splitlines()[0]})") from error
        yield ranks
        # Not after an error: the end of this process tells the others, whatever they wait for.
        distributed.destroy_process_group()
    except _OtherRankFailed:
        # torchrun ends all ranks as soon as one has ended, and the failed one may not have reported its error yet.
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        time.sleep(_GRACE_SECONDS)
        raise SystemExit(2) from None
    except KeyboardInterrupt as stop:
        terminated = isinstance(stop, Terminated)
        if not ranks.first:
            raise SystemExit(128 + (signal.SIGTERM if terminated else signal.SIGINT)) from None
        if terminated:
            raise Terminated(
                "torchrun does so when another rank has ended, which may have reported why; the same command goes on"
                " where this one stopped"
            ) from None
        raise


def own_device(device: str, local_number: int, local_count: int) -> str:
    """The device of a rank for an option value; each rank takes a CUDA device of its own.

    Args:
        device: ``auto``, ``cpu``, ``cuda`` and so on.
        local_number: of the rank on its machine.
        local_count: how many ranks the machine has.

    Raises:
        InputError: if there are fewer CUDA devices than ranks, or the value names one.
    """
    import torch

    if device.startswith("cuda:"):
        raise InputError(f"--device {device} is one GPU for {local_count} ranks; --device cuda gives each its own")
    count = torch.cuda.device_count() if device in ("auto", "cuda") else 0
    if not count:
        return device
    if local_count > count:
        raise InputError(
            f"this machine has {local_count} ranks and {counted(count, 'GPU')}; start {count} with"
            f" --nproc_per_node {count}, or use --device cpu"
        )
    return f"cuda:{local_number}"


def _under_torchrun() -> bool:
    return "TORCHELASTIC_RUN_ID" in os.environ and int(os.environ.get("WORLD_SIZE", "1")) > 1
