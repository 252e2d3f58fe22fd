"""A run of test.py, step by step."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from datasets.class_names import OPTION, says_nothing, words_for_prompts
from datasets.index import check_files, load_index, refuse_links, select_classes
from datasets.items import Item
from datasets.registry import published_order
from evaluation.checkpoint import FOLDER as CHECKPOINT
from evaluation.checkpoint import Checkpoint
from evaluation.identity import check_same, identify
from evaluation.measuring import Measured, Method, measure_class
from evaluation.options import Options
from evaluation.output import Output, facts
from evaluation.published import require_published
from evaluation.ranks import Ranks, joined_ranks
from evaluation.reading import Reader
from evaluation.references import References, plan_references
from evaluation.results import Results, markdown, tables
from evaluation.scorer import Scorer, Task
from evaluation.scoring import ClassScores, join_scores
from evaluation.setting import Setting
from winclip.demo.stand_in import caution_of_stand_in
from winclip.model import WinCLIP
from winclip.network.backbone import Backbone
from winclip.pictures.reading import BatchReader
from winclip.prompts import load_prompt_set
from winclip.support.errors import InputError
from winclip.support.files import cache_folder, lock_folder

if TYPE_CHECKING:
    from evaluation.check_metrics import MetricCheck
    from evaluation.report import RunPictures

_log = logging.getLogger("winclip")


@dataclass(frozen=True)
class Outcome:
    """What a run prints, and its exit status: 0, or 1 where ``--check_metrics`` found a difference."""

    text: str
    status: int


def run(options: Options) -> Outcome:
    """Evaluate as the options say and write the files. What is finished is on disk after every class.

    A run that ended early goes on where it stopped, unless ``fresh`` says otherwise.

    Raises:
        InputError: if anything given is wrong; what was scored before is kept.
    """
    output = Output(options)
    with joined_ranks(options.model.device) as ranks, ExitStack() as held:
        task = ranks.agree(partial(_checked_task, options))
        if ranks.first:
            held.enter_context(lock_folder(options.save_path))
            held.enter_context(output.ending_logged())
        return _evaluate(options, task, output, ranks)


def _evaluate(options: Options, task: Task, output: Output, ranks: Ranks) -> Outcome:
    model = ranks.load(options.model)
    output.warn_of_changes(model.backbone)
    for name in task.classes:
        items = task.index.test[name]
        if all(item.mask_path for item in items if item.anomaly):
            _method(options).check_size(name, len(items) * model.backbone.image_size**2)
    identified = partial(identify, task.index, task.classes, task.plan, model, task.prompts, task.words)
    if ranks.count > 1:
        check_same(ranks.gather(lambda: identified(times=False).of_options(options)))
    identity = identified()
    checkpoint = Checkpoint(options.save_path / CHECKPOINT, identity, task.plan.settings)
    total = sum(len(task.index.test[name]) for name in task.classes)
    _log.info(
        "%s: %d classes, %d test images, %s", options.dataset, len(task.classes), total, _where(model.backbone, ranks)
    )
    if ranks.first:
        caution_of_stand_in(options.model.model, [task.index.root])
        known = checkpoint.open(options.fresh)
        if known:
            _log.info("going on where an earlier run stopped: %d of %d test images are scored already", known, total)
        output.begin()
        unnamed = [name for name, words in task.words.items() if says_nothing(words)]
        if unnamed:
            _log.warning(
                "prompts call class %s by its number, which says nothing of what its pictures show; give words with %s",
                ", ".join(unnamed),
                OPTION,
            )
    try:
        with ExitStack() as held:
            if ranks.first:
                held.enter_context(checkpoint)
            progress = held.enter_context(tqdm(total=total, unit="image", disable=None, dynamic_ncols=True))
            return _evaluate_classes(options, task, model, output, checkpoint, progress, ranks)
    except InputError as error:
        raise InputError(f"{error}; what was scored is kept, and the same command goes on from there") from error


class _Findings:
    """What is known of some classes, for tables and pages."""

    def __init__(self, options: Options, task: Task) -> None:
        self.results = Results(options.dataset, task.plan.settings)
        self.check = _metric_check(options)
        self.pictures = _run_pictures(options, task.index.root, task.plan.settings)

    def add(self, scored: ClassScores, measured: Measured, references: References) -> None:
        """Take in a class in a setting."""
        self.results.add(scored, measured, references)
        if self.check is not None:
            self.check.add(scored, measured)
        if self.pictures is not None:
            self.pictures.add(scored.class_name, scored, measured)

    def merge(self, later: _Findings) -> None:
        """Take in further classes."""
        self.results.merge(later.results)
        if self.check is not None and later.check is not None:
            self.check.merge(later.check)
        if self.pictures is not None and later.pictures is not None:
            self.pictures.merge(later.pictures)


def _evaluate_classes(
    options: Options,
    task: Task,
    model: WinCLIP,
    output: Output,
    checkpoint: Checkpoint,
    progress: tqdm[Any],
    ranks: Ranks,
) -> Outcome:
    found = _Findings(options, task)
    image_size = model.backbone.image_size
    cache = None if options.no_cache else cache_folder("text")
    with BatchReader(image_size, options.reading.batch_size, options.reading.num_workers) as files:
        reader = Reader(task.index.root, model.backbone, files, options.skip_unreadable)
        scorer = Scorer(task, model, reader, options.reading.batch_size, cache, checkpoint, progress, ranks)
        unscored: list[Item] = []
        for names in ranks.groups(task.classes):
            complete: list[tuple[ClassScores, References]] = []
            for name in names:
                parts, references = scorer.score(name)
                if not ranks.first:
                    continue
                scored = join_scores(parts)
                if not scored.items:
                    raise InputError(f"class {name} has no readable test image left")
                bad = scored.without_score()
                for item in bad:
                    _log.warning("%s has no score: the model makes NaN of it", task.index.root / item.img_path)
                if bad and (len(bad) == len(scored.items) or not options.skip_bad_scores):
                    unscored += bad
                else:
                    complete.append((scored.without(bad) if bad else scored, references))
            # Metrics take a while, so those of a class are taken on a rank of its own.
            own = ranks.scatter(complete)
            for findings in ranks.gather(partial(_measure, options, task, own, image_size)):
                found.merge(findings)
            if options.save_maps:
                for scored, _ in complete:
                    output.write_maps(scored, image_size)
            if complete:
                finished = names[-1] == task.classes[-1] and not unscored and not options.report
                output.write(model, task.words, found.results, reader.left_out, finished)
    if not ranks.first:
        return Outcome("", 0)
    if unscored:
        raise InputError(
            f"{len(unscored)} images have no score, the first is {task.index.root / unscored[0].img_path}; their"
            " classes are not among the results. Try --precision fp32 or other weights, or leave such images out with"
            " --skip_bad_scores"
        )
    shown = tables(found.results, options.compare)
    if found.pictures is not None:
        title = f"WinCLIP on {options.dataset}"
        output.write_report(found.pictures.report(title, shown, facts(options, model), found.results))
        output.write(model, task.words, found.results, reader.left_out, finished=True)
    if found.check is None:
        return Outcome(markdown(shown), 0)
    return Outcome(markdown([*shown, found.check.table()]), 0 if found.check.passed else 1)


def _measure(options: Options, task: Task, own: tuple[ClassScores, References] | None, image_size: int) -> _Findings:
    found = _Findings(options, task)
    if own is not None:
        scored, references = own
        for measured in measure_class(scored, image_size, _method(options)):
            found.add(scored, measured, references)
    return found


def _checked_task(options: Options) -> Task:
    """Find out what to do, and see that everything for it is there."""
    index = load_index(options.data_path)
    classes = published_order(options.dataset, select_classes(index, options.classes))
    plan = plan_references(options, index, classes)
    if options.compare:
        require_published(options.dataset)
    prompts = load_prompt_set(options.prompt_set)
    words = words_for_prompts(options.dataset, index, options.class_names)
    if not options.skip_unreadable:
        check_files(index, classes, plan.wanted())
    if not options.allow_links:
        refuse_links(index, classes, plan.possible() if options.skip_unreadable else plan.wanted())
    return Task(index, classes, plan, prompts, {name: words[name] for name in classes})


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


def _where(backbone: Backbone, ranks: Ranks) -> str:
    several = f", {ranks.count} ranks" if ranks.count > 1 else ""
    return f"{backbone.model} ({backbone.pretrained}) on {backbone.device} in {backbone.precision}{several}"
