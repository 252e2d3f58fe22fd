"""The processes of a run: one, or several ranks that torchrun starts and that divide the images among them.

Rank 0 alone keeps the checkpoint, writes files and speaks. What it needs of others comes to it by ``gather``,
together with their errors and their log; where rank 0 ends early, the others notice it and follow without a word.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from winclip.support.errors import InputError

if TYPE_CHECKING:
    import torch

    from winclip.embeddings import Embeddings
    from winclip.model import WinCLIP
    from winclip.support.command_line import ModelOptions

T = TypeVar("T")

# The longest that ranks wait for each other, as for one that downloads weights or takes the metrics of a large class.
# The death of a process is noticed at once, by the end of its connections; only a machine that falls silent takes this.
_PATIENCE = timedelta(minutes=30)

# How long a rank that failed waits to be ended by torchrun after rank 0, which tells the reason.
_GRACE_SECONDS = 30

_log = logging.getLogger("winclip")


class Ranks:
    """The one process of a run without torchrun.

    Attributes:
        number: of this process, from 0.
        count: how many there are.
    """

    number = 0
    count = 1

    @property
    def first(self) -> bool:
        """Whether this is rank 0."""
        return self.number == 0

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """This rank's part, contiguous; those of all ranks, in their order, make the whole."""
        size = len(items)
        return items[size * self.number // self.count : size * (self.number + 1) // self.count]

    def rounds(self, items: Sequence[T], batch_size: int) -> list[Sequence[T]]:
        """This rank's share of every round in which each rank takes at most a batch."""
        size = batch_size * self.count
        return [self.share(items[start : start + size]) for start in range(0, len(items), size)]

    def groups(self, items: Sequence[T]) -> list[Sequence[T]]:
        """As many items at a time as there are ranks."""
        return [items[start : start + self.count] for start in range(0, len(items), self.count)]

    def load(self, options: ModelOptions) -> WinCLIP:
        """The model on this rank's device.

        Raises:
            InputError: as ``ModelOptions.load``, or if there are more ranks than GPUs.
        """
        return options.load()

    def agree(self, work: Callable[[], T]) -> T:
        """Do something on every rank; gives each its own result. What one raises as InputError, all raise."""
        return work()

    def gather(self, work: Callable[[], T]) -> list[T]:
        """Do something on every rank; gives rank 0 all results in order, the others nothing.

        Rank 0 raises the first InputError, and logs what others logged.
        """
        return [work()]

    def send(self, value: T) -> T:
        """Rank 0's value, on every rank."""
        return value

    def once(self, work: Callable[[], T]) -> T:
        """Do something on rank 0 with the threads of a process that is alone; gives every rank the result."""
        return work()

    def scatter(self, values: Sequence[T]) -> T | None:
        """Give each rank one of rank 0's values, while there are any; the others' are not looked at."""
        return values[0] if values else None

    def share_out(self, outcome: T) -> list[T]:
        """What all ranks have, in order, on every rank."""
        return [outcome]

    def join_embeddings(self, mine: Embeddings | None, device: torch.device) -> Embeddings | None:
        """Those of all ranks in order, on every rank; None if none has any."""
        return mine


class _Torchrun(Ranks):
    """One of several processes, in a process group of gloo, and of NCCL for what lies on CUDA devices."""

    def __init__(self) -> None:
        self.number = int(os.environ["RANK"])
        self.count = int(os.environ["WORLD_SIZE"])
        self._local_number = int(os.environ["LOCAL_RANK"])
        self._local_count = int(os.environ["LOCAL_WORLD_SIZE"])

    def load(self, options: ModelOptions) -> WinCLIP:
        import torch

        from winclip.pictures.reading import usable_cores

        device = self.agree(lambda: own_device(options.device, self._local_number, self._local_count))
        loaded: list[WinCLIP] = []
        torch.set_num_threads(max(1, usable_cores() // self._local_count))
        # A process that is alone may have measured its linear layers already; else one rank of a machine measures them
        # before the others, which find what it found.
        with _all_threads():
            for turn in (True, False):
                if turn is (self._local_number == 0):
                    self.agree(lambda: loaded.append(replace(options, device=device).load()))
                else:
                    self.agree(lambda: None)
        return loaded[0]

    def agree(self, work: Callable[[], T]) -> T:
        results: list[T] = []
        error = _error_of(lambda: results.append(work()))
        for found in self.share_out(error):
            if found is not None:
                raise InputError(found)
        return results[0]

    def gather(self, work: Callable[[], T]) -> list[T]:
        from torch import distributed

        results: list[T] = []
        with _log_kept() as kept:
            error = _error_of(lambda: results.append(work()))
        outcomes: list[tuple[list[T], str | None, list[tuple[int, str]]]] = [([], None, [])] * self.count
        with _company():
            distributed.gather_object((results, error, kept), outcomes if self.first else None)
        gathered: list[T] = []
        for number, (found, failed, messages) in enumerate(outcomes if self.first else []):
            for level, message in messages if number else []:
                _log.log(level, "%s", message)
            if failed is not None:
                raise InputError(failed)
            gathered += found
        return gathered

    def send(self, value: T) -> T:
        from torch import distributed

        box = [value]
        with _company():
            distributed.broadcast_object_list(box)
        return box[0]

    def once(self, work: Callable[[], T]) -> T:
        results: list[T] = []
        if self.first:
            with _all_threads():
                results.append(work())
        return self.send(results)[0]

    def scatter(self, values: Sequence[T]) -> T | None:
        from torch import distributed

        box: list[T | None] = [None]
        padded = [*values, *[None] * (self.count - len(values))]
        with _company():
            distributed.scatter_object_list(box, padded if self.first else None)
        return box[0]

    def share_out(self, outcome: T) -> list[T]:
        from torch import distributed

        boxes: list[Any] = [None] * self.count
        with _company():
            distributed.all_gather_object(boxes, outcome)
        return boxes

    def join_embeddings(self, mine: Embeddings | None, device: torch.device) -> Embeddings | None:
        import torch
        from torch import distributed

        from winclip.embeddings import Embeddings

        way = device if device.type == "cuda" else torch.device("cpu")
        shapes = self.share_out(None if mine is None else mine.map(lambda part: part.to("meta")))

        def send(number: int, part: torch.Tensor) -> torch.Tensor:
            whole = part.to(way).contiguous() if number == self.number else torch.empty_like(part, device=way)
            with _company():  # as bytes, because not every backend knows every dtype
                distributed.broadcast(whole.view(torch.uint8), number)
            return whole.to(device)

        parts = [
            (mine if mine is not None and number == self.number else shape).map(partial(send, number))
            for number, shape in enumerate(shapes)
            if shape is not None
        ]
        return Embeddings.concatenate(parts) if parts else None


@contextlib.contextmanager
def joined_ranks(device: str) -> Iterator[Ranks]:
    """The processes of this run; a process group only where torchrun has started several.

    Args:
        device: the option's value.
    """
    if not _in_company():
        yield Ranks()
        return
    import torch
    from torch import distributed

    on_gpus = device != "cpu" and torch.cuda.is_available() and distributed.is_nccl_available()
    with _company():
        distributed.init_process_group("cpu:gloo,cuda:nccl" if on_gpus else "gloo", timeout=_PATIENCE)
    yield _Torchrun()
    # Not after an error: the others learn of it by the end of this process, whatever they wait for.
    distributed.destroy_process_group()


def on_this_rank(command: Callable[[], int]) -> int:
    """Run a command and return its exit status; ranks other than 0 print nothing but the traceback of an exception."""
    if not _in_company() or os.environ["RANK"] == "0":
        return command()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        try:
            status = command()
        except SystemExit as end:  # argparse's
            status = int(end.code or 0)
    if status == 2:
        # torchrun ends the others as soon as one has failed, and rank 0 may still be on its way to say why.
        time.sleep(_GRACE_SECONDS)
    return status


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
            f"this machine has {local_count} ranks and {count} GPUs; start {count} with --nproc_per_node {count}, or"
            " use --device cpu"
        )
    return f"cuda:{local_number}"


def _in_company() -> bool:
    return "TORCHELASTIC_RUN_ID" in os.environ and int(os.environ.get("WORLD_SIZE", "1")) > 1


@contextlib.contextmanager
def _company() -> Iterator[None]:
    """Say what it means where a word to the other ranks fails."""
    try:
        yield
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"another rank ended early or cannot be reached ({reason}); see what it says") from error


@contextlib.contextmanager
def _all_threads() -> Iterator[None]:
    """With as many threads as a process that is alone."""
    import torch

    from winclip.pictures.reading import usable_cores

    share = torch.get_num_threads()
    torch.set_num_threads(usable_cores())
    try:
        yield
    finally:
        torch.set_num_threads(share)


def _error_of(work: Callable[[], object]) -> str | None:
    try:
        work()
    except InputError as error:
        return str(error)
    return None


@contextlib.contextmanager
def _log_kept() -> Iterator[list[tuple[int, str]]]:
    """What the log says meanwhile, level and message."""
    kept: list[tuple[int, str]] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            kept.append((record.levelno, record.getMessage()))

    handler = Keep()
    _log.addHandler(handler)
    try:
        yield kept
    finally:
        _log.removeHandler(handler)
