"""The processes of a run: one, or several ranks that torchrun starts and that divide the images among them.

Ranks meet in the files below ``scores/`` and share nothing else but whether all is well. Rank 0 measures, writes the
results and speaks; another rank says only why it failed, if it was the first to fail.
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

# The longest that ranks wait for each other, as for one that downloads weights or takes the metrics of a large class.
# The death of a process is noticed at once, by the end of its connections; only a machine that falls silent takes this.
_PATIENCE = timedelta(minutes=30)
# How long a rank that has nothing to say waits for torchrun to end it, after the one that says why.
_GRACE_SECONDS = 30


class _OtherRankFailed(InputError):
    """Another rank says why."""


@dataclass(frozen=True)
class Ranks:
    """This process among those of the run.

    Attributes:
        number, count: of this rank, from 0, and of all.
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
        """This rank's part, contiguous; those of all ranks, in their order, make the whole."""
        size = len(items)
        return items[size * self.number // self.count : size * (self.number + 1) // self.count]

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Do something on every rank and wait for the others; what one raises as InputError ends all of them."""
        error = None
        try:
            yield
        except InputError as raised:
            error = raised
        failed = self._meet(error is not None)
        if error is not None and failed.index(True) == self.number:
            raise error
        if any(failed):
            raise _OtherRankFailed("another rank says why")

    def _meet(self, failed: bool) -> list[bool]:
        """Of every rank, whether it failed."""
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
        # One rank of a machine measures its linear layers before the others, which find what it found, and does so with
        # the threads of a process that is alone, which may have measured them already.
        for turn in (True, False):
            with self.together(), self.all_threads():
                if turn is (self.local_number == 0):
                    loaded.append(options.load())
        return loaded[0]

    @contextlib.contextmanager
    def all_threads(self) -> Iterator[None]:
        """With as many threads as a process that is alone, for what may round otherwise with fewer."""
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
    """The processes of this run, several only where torchrun has started them."""
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
        # Not after an error: the others learn of it by the end of this process, whatever they wait for.
        distributed.destroy_process_group()
    except _OtherRankFailed:
        # torchrun ends all ranks as soon as one has, and the one that failed may still be on its way to say why.
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        time.sleep(_GRACE_SECONDS)
        raise SystemExit(2) from None
    except KeyboardInterrupt as stop:
        terminated = isinstance(stop, Terminated)
        if not ranks.first:
            raise SystemExit(128 + (signal.SIGTERM if terminated else signal.SIGINT)) from None
        if terminated:
            raise Terminated(
                "torchrun does so when another rank has ended, which may have said why; the same command goes on where"
                " this one stopped"
            ) from None
        raise


def own_device(device: str, local_number: int, local_count: int) -> str:
    """The device of a rank for an option value: of CUDA devices each rank takes one.

    Args:
        device: ``auto``, ``cpu``, ``cuda`` and so on.
        local_number: of the rank on its machine.
        local_count: how many ranks the machine has.

    Raises:
        InputError: if there are fewer CUDA devices than ranks, or one is named.
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
