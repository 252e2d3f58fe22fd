"""A run of test.py, step by step."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from datasets.index import check_files, load_index, select_classes
from datasets.items import DatasetIndex, Item
from datasets.registry import published_order
from datasets.samples import Mask
from evaluation.measuring import measure_class
from evaluation.options import Options
from evaluation.output import Output, facts
from evaluation.published import require_published
from evaluation.reading import Reader
from evaluation.references import Plan, encode_references, plan_references
from evaluation.results import Results, markdown, tables
from evaluation.scoring import score_class
from evaluation.setting import Setting
from winclip.backbone import Backbone
from winclip.files import cache_folder, lock_folder
from winclip.prompts import PromptSet, load_prompt_set
from winclip.reading import Batch, BatchReader
from winclip.text import class_embeddings

if TYPE_CHECKING:
    from evaluation.check_metrics import MetricCheck
    from evaluation.report import RunPictures

_log = logging.getLogger("winclip")


@dataclass(frozen=True)
class Outcome:
    """What a run prints, and its exit status: 0, or 1 where ``--check_metrics`` found a difference."""

    text: str
    status: int


@dataclass(frozen=True)
class _Task:
    """What a run has to do."""

    index: DatasetIndex
    classes: list[str]
    plan: Plan
    prompts: PromptSet


def run(options: Options) -> Outcome:
    """Evaluate as the options say and write the files. What is finished is on disk after every class.

    Raises:
        InputError: if anything given is wrong; classes finished before are kept.
    """
    output = Output(options)
    task = _checked_task(options)
    with lock_folder(options.save_path), output.ending_logged():
        return _evaluate(options, task, output)


def _evaluate(options: Options, task: _Task, output: Output) -> Outcome:
    model = options.model.load()
    results = Results(options.dataset, task.plan.settings)
    check = _metric_check(options)
    pictures = _run_pictures(options, task.index.root, results.settings)
    cache = None if options.no_cache else cache_folder("text")
    total = sum(len(task.index.test[name]) for name in task.classes)
    _log.info("%s: %d classes, %d test images, %s", options.dataset, len(task.classes), total, _where(model.backbone))
    with (
        BatchReader(model.backbone.image_size, options.batch_size, options.num_workers) as files,
        tqdm(total=total, unit="image", disable=None, dynamic_ncols=True) as progress,
    ):
        reader = Reader(task.index.root, model.backbone, files, options.skip_unreadable)
        for name in task.classes:
            progress.set_description(name)
            references = encode_references(reader, task.plan, name)
            text = class_embeddings(model.backbone, name, task.prompts, cache)
            batches = _counted(reader.batches(task.index.test[name]), progress)
            scored = score_class(batches, model, text, references)
            for measured in measure_class(scored, model.backbone.image_size, options.aupro):
                results.add(scored, measured, references)
                if options.save_maps:
                    output.write_maps(scored, measured)
                if check is not None:
                    check.add(scored, measured)
                if pictures is not None:
                    pictures.add(name, measured.setting, scored, measured.pixels, measured.figures)
            output.write(model, results, reader.left_out, finished=name == task.classes[-1])
    shown = tables(results, options.compare)
    if pictures is not None:
        output.write_report(pictures.report(f"WinCLIP on {options.dataset}", shown, facts(options, model)))
    if check is None:
        return Outcome(markdown(shown), 0)
    return Outcome(markdown([*shown, check.table()]), 0 if check.passed else 1)


def _checked_task(options: Options) -> _Task:
    """Find out what to do, and see that everything for it is there."""
    index = load_index(options.data_path)
    classes = published_order(options.dataset, select_classes(index, options.classes))
    plan = plan_references(options, index, classes)
    if options.compare:
        require_published(options.dataset)
    prompts = load_prompt_set(options.prompt_set)
    if not options.skip_unreadable:
        check_files(index, classes, plan.wanted())
    return _Task(index, classes, plan, prompts)


# Imported late, because scikit-learn and what draws a page take a second that most runs can do without.
def _metric_check(options: Options) -> MetricCheck | None:
    if not options.check_metrics:
        return None
    from evaluation.check_metrics import MetricCheck

    return MetricCheck(options.aupro)


def _run_pictures(options: Options, root: Path, settings: list[Setting]) -> RunPictures | None:
    if not options.report:
        return None
    from evaluation.report import RunPictures

    return RunPictures(root, settings)


def _where(backbone: Backbone) -> str:
    return f"{backbone.model} ({backbone.pretrained}) on {backbone.device} in {backbone.precision}"


def _counted(batches: Iterable[Batch[Item, Mask | None]], progress: tqdm[Any]) -> Iterator[Batch[Item, Mask | None]]:
    for batch in batches:
        yield batch
        progress.update(len(batch.entries) + len(batch.unreadable))
