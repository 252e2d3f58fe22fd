"""A run of test.py, step by step."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from datasets.index import check_files, load_index, refuse_links, select_classes
from datasets.items import DatasetIndex, Item
from datasets.registry import published_order
from evaluation.checkpoint import FOLDER as CHECKPOINT
from evaluation.checkpoint import Checkpoint, Part
from evaluation.identity import identify
from evaluation.measuring import Method, measure_class
from evaluation.options import Options
from evaluation.output import Output, facts
from evaluation.published import require_published
from evaluation.reading import Reader
from evaluation.references import Plan, References, choose_references, encode_references, plan_references
from evaluation.results import Results, markdown, tables
from evaluation.scoring import ClassScores, join_scores, score_batch
from evaluation.setting import Setting
from winclip.backbone import Backbone
from winclip.errors import InputError
from winclip.files import cache_folder, lock_folder
from winclip.model import WinCLIP
from winclip.prompts import PromptSet, load_prompt_set
from winclip.reading import BatchReader
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

    A run that ended early goes on where it stopped, unless ``fresh`` says otherwise.

    Raises:
        InputError: if anything given is wrong; what was scored before is kept.
    """
    output = Output(options)
    task = _checked_task(options)
    with lock_folder(options.save_path), output.ending_logged():
        return _evaluate(options, task, output)


def _evaluate(options: Options, task: _Task, output: Output) -> Outcome:
    model = options.model.load()
    output.warn_of_changes(model.backbone)
    for name in task.classes:
        items = task.index.test[name]
        if all(item.mask_path for item in items if item.anomaly):
            _method(options).check_size(name, len(items) * model.backbone.image_size**2)
    identity = identify(task.index, task.classes, task.plan, model, task.prompts)
    checkpoint = Checkpoint(options.save_path / CHECKPOINT, identity, task.plan.settings)
    total = sum(len(task.index.test[name]) for name in task.classes)
    _log.info("%s: %d classes, %d test images, %s", options.dataset, len(task.classes), total, _where(model.backbone))
    known = checkpoint.open(options.fresh)
    if known:
        _log.info("going on where an earlier run stopped: %d of %d test images are scored already", known, total)
    output.begin()
    try:
        with checkpoint, tqdm(total=total, unit="image", disable=None, dynamic_ncols=True) as progress:
            return _evaluate_classes(options, task, model, output, checkpoint, progress)
    except InputError as error:
        raise InputError(f"{error}; what was scored is kept, and the same command goes on from there") from error


def _evaluate_classes(
    options: Options, task: _Task, model: WinCLIP, output: Output, checkpoint: Checkpoint, progress: tqdm[Any]
) -> Outcome:
    results = Results(options.dataset, task.plan.settings)
    method = _method(options)
    check = _metric_check(options)
    pictures = _run_pictures(options, task.index.root, results.settings)
    cache = None if options.no_cache else cache_folder("text")
    with BatchReader(model.backbone.image_size, options.batch_size, options.num_workers) as files:
        reader = Reader(task.index.root, model.backbone, files, options.skip_unreadable)
        unscored: list[Item] = []
        for name in task.classes:
            progress.set_description(name)
            scored, references = _score_class(name, task, model, reader, checkpoint, cache, progress)
            bad = scored.without_score()
            for item in bad:
                _log.warning("%s has no score: the model makes NaN of it", task.index.root / item.img_path)
            if bad and (len(bad) == len(scored.items) or not options.skip_bad_scores):
                unscored += bad
                continue
            scored = scored.without(bad) if bad else scored
            for measured in measure_class(scored, model.backbone.image_size, method):
                results.add(scored, measured, references)
                if options.save_maps:
                    output.write_maps(scored, measured)
                if check is not None:
                    check.add(scored, measured)
                if pictures is not None:
                    pictures.add(name, scored, measured)
            output.write(model, results, reader.left_out, finished=name == task.classes[-1] and not unscored)
    if unscored:
        raise InputError(
            f"{len(unscored)} images have no score, the first is {task.index.root / unscored[0].img_path}; their"
            " classes are not among the results. Try --precision fp32 or other weights, or leave such images out with"
            " --skip_bad_scores"
        )
    shown = tables(results, options.compare)
    if pictures is not None:
        output.write_report(pictures.report(f"WinCLIP on {options.dataset}", shown, facts(options, model)))
    if check is None:
        return Outcome(markdown(shown), 0)
    return Outcome(markdown([*shown, check.table()]), 0 if check.passed else 1)


def _score_class(
    name: str,
    task: _Task,
    model: WinCLIP,
    reader: Reader,
    checkpoint: Checkpoint,
    cache: Path | None,
    progress: tqdm[Any],
) -> tuple[ClassScores, References]:
    """Score those images of a class that the checkpoint does not know yet; references that none needs are not read."""
    items, known = task.index.test[name], checkpoint.restore(name)
    if len(known) == len(items):
        references = choose_references(task.plan, name, known.unreadable_references)
        for item, reason in references.unreadable.items():
            reader.leave_out(item, reason)
    else:
        references = encode_references(reader, task.plan, name)
        if len(known) and list(references.unreadable) != list(known.unreadable_references):
            _log.warning("%s: other references can be read than before, so it starts anew", name)
            known = checkpoint.forget(name)
    for item, reason in known.unreadable.items():
        reader.leave_out(item, reason)
    progress.update(len(known))
    parts, left = [known.scores], items[len(known) :]
    if left:
        text = class_embeddings(model.backbone, name, task.prompts, cache)
        for batch in reader.batches(left):
            parts.append(score_batch(batch, model, text, references))
            checkpoint.add(name, Part(parts[-1], dict(batch.unreadable), references.unreadable))
            progress.update(len(batch.entries) + len(batch.unreadable))
        checkpoint.save()
    scored = join_scores(parts)
    if not scored.items:
        raise InputError(f"class {name} has no readable test image left")
    return scored, references


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
    if not options.allow_links:
        refuse_links(index, classes, plan.wanted())
    return _Task(index, classes, plan, prompts)


def _method(options: Options) -> Method:
    return Method(options.aupro, options.metrics, options.intervals)


# Imported late, because scikit-learn and what draws a page take a second that most runs can do without.
def _metric_check(options: Options) -> MetricCheck | None:
    if not options.check_metrics:
        return None
    from evaluation.check_metrics import MetricCheck

    return MetricCheck(options.aupro, options.metrics)


def _run_pictures(options: Options, root: Path, settings: list[Setting]) -> RunPictures | None:
    if not options.report:
        return None
    from evaluation.report import RunPictures

    return RunPictures(root, settings)


def _where(backbone: Backbone) -> str:
    return f"{backbone.model} ({backbone.pretrained}) on {backbone.device} in {backbone.precision}"
