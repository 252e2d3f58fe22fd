"""Scores the test images of a class that no earlier run has scored, on one rank or several."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from datasets.items import DatasetIndex, Item
from evaluation.checkpoint import Checkpoint, Part
from evaluation.ranks import Ranks
from evaluation.reading import Reader
from evaluation.references import Plan, References, choose_references, encode_references
from evaluation.scoring import ClassScores, join_scores, score_batch
from winclip.model import WinCLIP
from winclip.prompts import PromptSet
from winclip.text import class_embeddings

_log = logging.getLogger("winclip")


@dataclass(frozen=True)
class Task:
    """What a run has to do; ``words`` is what prompts call each class."""

    index: DatasetIndex
    classes: list[str]
    plan: Plan
    prompts: PromptSet
    words: dict[str, str]


@dataclass(frozen=True)
class Scorer:
    """What it takes to score classes."""

    task: Task
    model: WinCLIP
    reader: Reader
    batch_size: int
    cache: Path | None
    checkpoint: Checkpoint
    progress: tqdm[Any]
    ranks: Ranks

    def score(self, name: str) -> tuple[list[ClassScores], References]:
        """Score those images of a class that the checkpoint does not know; references that none needs are not read.

        Returns:
            On rank 0 all scores, in parts; and the references, without their memory bank.
        """
        self.progress.set_description(name)
        items, known = self.task.index.test[name], self.checkpoint.restore(name)
        count, unreadable_references = self.ranks.send((len(known), known.unreadable_references))
        if count == len(items):
            references = choose_references(self.task.plan, name, unreadable_references)
            for item, reason in references.unreadable.items():
                self.reader.leave_out(item, reason)
        else:
            references = encode_references(self.reader, self.task.plan, name, self.ranks)
            if count and list(references.unreadable) != list(unreadable_references):
                _log.warning("%s: other references can be read than before, so it starts anew", name)
                known, count = self.checkpoint.forget(name), 0
        parts = [known.scores]
        for item, reason in known.unreadable.items():
            self.reader.leave_out(item, reason)
        self.progress.update(len(known))
        for part in self._score_items(name, items[count:], references):
            for item, reason in part.unreadable.items():
                self.reader.leave_out(item, reason)
            self.checkpoint.add(name, part)
            self.progress.update(len(part))
            parts.append(part.scores)
        self.checkpoint.save()
        return parts, replace(references, bank=None)

    def _score_items(self, name: str, items: Sequence[Item], references: References) -> Iterator[Part]:
        """What becomes of images of a class, in their order, on rank 0; the others do their share."""
        if not items:
            return
        backbone = self.model.backbone
        words, prompts = self.task.words[name], self.task.prompts
        text = self.ranks.once(lambda: class_embeddings(backbone, words, prompts, self.cache).cpu())
        text = text.to(backbone.device)
        shares = self.ranks.rounds(items, self.batch_size)
        batches = self.reader.batches([item for share in shares for item in share])

        def score(share: Sequence[Item]) -> Part:
            if not share:
                return Part(join_scores([]), {}, references.unreadable)
            batch = next(batches)
            scores = score_batch(batch, self.model, text, references)
            return Part(scores, dict(batch.unreadable), references.unreadable)

        for share in shares:
            yield from filter(len, self.ranks.gather(partial(score, share)))
