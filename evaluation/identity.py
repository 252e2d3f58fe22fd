"""What has to be the same for scores of two runs to belong together."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from datasets.class_names import OPTION
from datasets.items import DatasetIndex, Item
from datasets.layout import mask_files
from evaluation.options import Options
from evaluation.output import environment
from evaluation.references import Plan
from winclip.model import WinCLIP
from winclip.prompts import PromptSet
from winclip.support.errors import InputError

# Options that shape how ranks divide the work, or how they measure a class; no score depends on them.
_SHARED = ("batch_size", "skip_unreadable", "aupro", "metrics", "intervals", "check_metrics", "report")

_log = logging.getLogger("winclip")


@dataclass(frozen=True)
class Identity:
    """All of it, as JSON gives it back.

    Attributes:
        made_with: options, weights and versions by name.
        machine: what may change the rounding of a score, and nothing else.
        classes: per class, a checksum of ``made_with``, of what prompts call it, and of the list of its files
            with their sizes and times.
    """

    made_with: dict[str, Any]
    machine: dict[str, Any]
    classes: dict[str, str]

    def of_options(self, options: Options) -> Identity:
        """With the options besides that all ranks of a run have to share."""
        return replace(self, made_with={**self.made_with, **{name: getattr(options, name) for name in _SHARED}})


def identify(
    index: DatasetIndex,
    classes: Iterable[str],
    plan: Plan,
    model: WinCLIP,
    prompts: PromptSet,
    words: Mapping[str, str],
    *,
    times: bool = True,
) -> Identity:
    """The identity of a run. Its classes do not count: each is scored for itself.

    Args:
        index, classes, plan, model, prompts: those of the run.
        words: what prompts call each class.
        times: whether those of the files count, which copies on several machines need not share.
    """
    surroundings = environment(model.backbone)
    made_with = {
        **model.backbone.fingerprint,
        "device": model.backbone.device.type,
        "temperature": model.temperature,
        "prompt_set": asdict(prompts),
        "k_shot": [setting.k_shot for setting in plan.settings],
        "seed": [setting.seed for setting in plan.settings],
        **{f"{package} version": version for package, version in surroundings["versions"].items()},
    }
    as_read: dict[str, Any] = json.loads(json.dumps(made_with))
    return Identity(
        as_read,
        surroundings["machine"],
        {name: _checksum([as_read, words[name], _files(index, name, plan, times)]) for name in classes},
    )


def differing(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """The names under which two say something else."""
    return [name for name in {**before, **now} if before.get(name) != now.get(name)]


def check_same(ranks: Sequence[Identity]) -> None:
    """See that all ranks of a run do the same; a warning tells of machines that may round otherwise.

    Args:
        ranks: what each sees, in order, without times; none on ranks other than 0.

    Raises:
        InputError: naming the rank, and the options or classes that differ.
    """
    for number, other in enumerate(ranks[1:], start=1):
        options = differing(ranks[0].made_with, other.made_with)
        if options:
            raise InputError(
                f"rank {number} runs with another {', '.join(options)} than rank 0; start the same command everywhere"
            )
        classes = differing(ranks[0].classes, other.classes)
        if classes:
            raise InputError(
                f"rank {number} sees other images, masks, references or class names than rank 0, in class"
                f" {', '.join(classes)}; every machine needs the same files under --data_path and {OPTION}"
            )
        machine = differing(ranks[0].machine, other.machine)
        if machine:
            _log.warning(
                "rank %d has another %s than rank 0, so figures may differ by rounding from those of one process",
                number,
                ", ".join(machine),
            )


def _files(index: DatasetIndex, class_name: str, plan: Plan, times: bool) -> list[object]:
    """What is listed of a class's test images and possible references, and the state of their files."""
    with_references = any(setting.k_shot for setting in plan.settings)
    orders = plan.orders[class_name] if with_references else {}
    references = dict.fromkeys(item for order in orders.values() for item in order)
    return [
        [[seed, [item.img_path for item in order]] for seed, order in orders.items()],
        [
            [*asdict(item).values(), *_states(index.root, item, times)]
            for item in (*index.test[class_name], *references)
        ],
    ]


def _states(root: Path, item: Item, times: bool) -> list[tuple[int, int] | None]:
    """Size and, or else 0, time of an item's image and mask; None where there is none."""
    states: list[tuple[int, int] | None] = []
    for path in (item.img_path, *mask_files(root, item.mask_path)):
        try:
            state = (root / path).stat()
            states.append((state.st_size, state.st_mtime_ns if times else 0))
        except OSError:
            states.append(None)
    return states


def _checksum(content: object) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()
