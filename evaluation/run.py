"""A run of test.py, step by step."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datasets.index import check_files, load_index, refuse_links, same_pictures, select_classes
from datasets.items import DatasetIndex, Item
from datasets.registry import is_only_a_number, published_order, words_for_prompts
from datasets.samples import TURNED
from evaluation.measuring import MetricOptions, measure_class
from evaluation.oddities import doubts
from evaluation.options import Options, Setting
from evaluation.output import Output, facts, tables_text
from evaluation.parts import FOLDER, Parts
from evaluation.published import require_published
from evaluation.ranks import Ranks, joined_ranks
from evaluation.references import Plan, choose_references, plan_references
from evaluation.results import METRICS, Results, rows_of_class, tables
from evaluation.scoring import Missing, Task, listings, missing_scores, score_missing
from evaluation.steps import steps_of
from winclip.demo.stand_in import caution_of_stand_in
from winclip.made_with import made_with, versions
from winclip.metrics.formulas import PIXEL_METRICS
from winclip.model import WinCLIP
from winclip.pictures.images import read_image
from winclip.prompts import load_prompt_set
from winclip.support.errors import InputError
from winclip.support.files import lock_folder
from winclip.support.names import counted

if TYPE_CHECKING:
    from evaluation.check_metrics import MetricCheck
    from evaluation.report import RunPictures

_log = logging.getLogger("winclip")


@dataclass(frozen=True)
class Outcome:
    """What a run prints, its exit status (1 where ``--check_metrics`` found a difference), and its files to look at."""

    text: str
    status: int
    files: Sequence[Path] = ()


def run(options: Options) -> Outcome:
    """Score what is not scored yet, measure, and write the files, anew after each class.

    Raises:
        InputError: if an option or file is wrong; earlier scores are kept.
    """
    output = Output(options)
    with joined_ranks() as ranks, ExitStack() as held:
        if ranks.first:
            output.log_to_terminal()
        with ranks.together():
            task = _checked_task(options)
            if ranks.first:
                held.enter_context(lock_folder(options.save_path))
                held.enter_context(output.ending_logged())
            model = options.model.load(weights=False)
            _check_sizes(options, task, model)
            parts = Parts(options.save_path / FOLDER, _made_with(options, task, model), listings(task))
        if ranks.first:
            _log_task(options, task, model, ranks)
        with ranks.together():
            if ranks.first:
                parts.begin(options.fresh)
                output.begin()
        with ranks.together():
            if not ranks.first:
                parts.follow(ranks.number)
            missing = missing_scores(task, parts)
        try:
            return _score_and_measure(options, task, model, output, parts, missing, ranks)
        except InputError as error:
            raise type(error)(f"{error}; what was scored is kept, and the same command goes on from there") from error


def _score_and_measure(
    options: Options,
    task: Task,
    model: WinCLIP,
    output: Output,
    parts: Parts,
    missing: dict[str, Missing],
    ranks: Ranks,
) -> Outcome:
    total = sum(len(task.index.test[name]) for name in task.classes)
    left = sum(len(of_class.positions) for of_class in missing.values())
    output.scored = {"by_this_run": left, "there_before": total - left, "parts": f"{FOLDER}/{parts.folder.name}"}
    classes = iter(task.classes)
    if left:
        if left < total:
            _log.info("going on: %d of %d test images scored already", total - left, total)
        model = ranks.load(options.model)
        classes = score_missing(options, task, model, parts, missing, ranks)
    else:
        _log.info("scored already: all %s, in %s", counted(total, "test image"), parts.folder)
    results = Results(options.dataset, task.plan.settings, _metrics(options))
    check, pictures = _metric_check(options), _run_pictures(options, task.index.root, task.plan.settings)
    unscored: list[Item] = []
    turned: list[str] = []
    for name in classes:
        if not ranks.first:
            continue
        part = parts.read(name, task.plan.settings)
        references = choose_references(task.plan, name, task.plan.settings, part.unreadable_references)
        output.leave_out(task.index.test[name], part)
        for text in doubts(part):
            _log.warning("%s: %s", name, text)
        used = {item.img_path for item in (*part.scores.items, *references.items)}
        turned += [path for kind, path in part.oddities if kind == TURNED and path in used]
        scored, bad = part.scores, part.scores.without_score()
        if not scored.items:
            raise InputError(f"class {name} has no readable test image left")
        for item in bad:
            _log.warning("%s has no score: the model makes NaN of it", task.index.root / item.img_path)
        if bad and (len(bad) == len(scored.items) or not options.skip_bad_scores):
            unscored += bad
            continue
        scored = scored.without(bad) if bad else scored
        for measured in measure_class(scored, model.backbone.image_size, _method(options)):
            results.add(scored, measured, references)
            if check is not None:
                check.add(scored, measured)
            if pictures is not None:
                pictures.add(name, scored, measured)
        for line in rows_of_class(results, name):
            _log.info("%s", line)
        if options.save_maps:
            output.write_maps(scored, model.backbone.image_size)
        output.write(model, task.words, results, part.machine, finished=False)
    if not ranks.first:
        return Outcome("", 0)
    if turned:
        _log.warning(
            "EXIF would turn %s, the first is %s; they are read as they are stored, as most masks are; --upright"
            " turns them",
            counted(len(turned), "image"),
            task.index.root / min(turned),
        )
    if unscored:
        raise InputError(
            f"{counted(len(unscored), 'image has', 'images have')} no score, the first is"
            f" {task.index.root / unscored[0].img_path}; the results leave out their classes."
            " Try --precision fp32 or other weights, or leave such images out with --skip_bad_scores"
        )
    shown, files = tables(results, options.compare), [options.save_path / "tables.md"]
    if pictures is not None:
        title = f"WinCLIP on {options.dataset}"
        output.write_report(pictures.report(title, shown, facts(options, model), results))
        files.append(options.save_path / "report.html")
    output.write(model, task.words, results, part.machine, finished=True)
    if options.variant_steps is not None:
        shown, content = steps_of(results, *options.variant_steps)
        files = output.write_steps(shown, content)
    if check is None:
        return Outcome(tables_text(options, shown), 0, files)
    return Outcome(tables_text(options, [*shown, check.table()]), 0 if check.passed else 1, files)


def _made_with(options: Options, task: Task, model: WinCLIP) -> dict[str, Any]:
    """Everything that a score depends on except the files."""
    packages = {f"{package} version": version for package, version in versions().items() if package != "winclip"}
    # Scores of a variant say its name.
    prompts, device = asdict(load_prompt_set(options.prompt_set)), model.backbone.device.type
    read = {"white": model.intake.white, "--upright": options.upright}
    read |= {"--image_only": True} if options.image_only else {}
    return made_with(model.backbone, model.temperature, device=device, prompt_set=prompts, **read, **packages)


def _check_sizes(options: Options, task: Task, model: WinCLIP) -> None:
    for name in task.classes:
        items = task.index.test[name]
        if all(item.mask_path for item in items if item.anomaly):
            _method(options).check_size(name, len(items) * model.backbone.image_size**2)


def _log_task(options: Options, task: Task, model: WinCLIP, ranks: Ranks) -> None:
    total, backbone = sum(len(task.index.test[name]) for name in task.classes), model.backbone
    several = f", {ranks.count} ranks" if ranks.count > 1 else ""
    where = f"{backbone.model} ({backbone.pretrained}) on {backbone.device} in {backbone.precision}{several}"
    counts = f"{counted(len(task.classes), 'class', 'classes')}, {counted(total, 'test image')}"
    _log.info("%s: %s, %s", options.dataset, counts, where)
    if task.overlap:
        _log.warning("%s", task.overlap)
    caution_of_stand_in(options.model.model, [task.index.root])
    unnamed = [name for name, words in task.words.items() if is_only_a_number(words)]
    if unnamed:
        _log.warning(
            "prompts call class %s by its number, which does not say what its pictures show; give words with %s",
            ", ".join(unnamed),
            "--class_names",
        )


def _checked_task(options: Options) -> Task:
    """Find out what to do, and check that everything needed is there."""
    index = load_index(options.data_path)
    classes = published_order(options.dataset, select_classes(index, options.classes))
    plan = plan_references(options, index, classes)
    if options.compare:
        require_published(options.dataset)
    words = words_for_prompts(options.dataset, index, options.class_names)
    if not options.skip_unreadable:
        check_files(index, classes, plan.wanted())
    if not options.allow_links:
        drawn = [item for name in classes for item in plan.possible(name)] if options.skip_unreadable else plan.wanted()
        refuse_links(index, classes, drawn if plan.wanted() else [])
    spoken, overlap = {name: words[name] for name in classes}, _overlap(options, index, plan)
    return Task(index, classes, plan, options.variants, options.prompts, spoken, overlap)


def _overlap(options: Options, index: DatasetIndex, plan: Plan) -> str:
    """A warning if test images are among those that references are taken from, else empty."""
    names = plan.orders if plan.wanted() else ()
    pairs = [pair for name in names for pair in same_pictures(index.root, plan.possible(name), index.test[name])]
    # Unreadable files can have the same bytes, and have an error of their own.
    pairs = [pair for pair in pairs if _readable(index.root / pair[0])]
    if not pairs:
        return ""
    images = counted(len({path for path, _ in pairs}), "test image is", "test images are")
    text = (
        f"{images} among the train images, as the same file or the same bytes, so an image can be its own"
        f" reference; the first is {index.root / pairs[0][0]}, as {index.root / pairs[0][1]}"
    )
    if not options.allow_overlap:
        raise InputError(f"{text}; take them out of one split, or accept them with --allow_overlap")
    return text


def _readable(path: Path) -> bool:
    try:
        read_image(path)
    except InputError:
        return False
    return True


def _metrics(options: Options) -> tuple[str, ...]:
    return tuple(metric for metric in METRICS if not (options.image_only and metric in PIXEL_METRICS))


def _method(options: Options) -> MetricOptions:
    return MetricOptions(options.aupro, options.metrics, options.intervals, options.image_only)


# Imported late: scikit-learn and the code that draws a page take a second that most runs need not spend.
def _metric_check(options: Options) -> MetricCheck | None:
    if not options.check_metrics:
        return None
    from evaluation.check_metrics import MetricCheck

    return MetricCheck(options.aupro, options.metrics)


def _run_pictures(options: Options, root: Path, settings: list[Setting]) -> RunPictures | None:
    if not options.report:
        return None
    from evaluation.report import RunPictures

    return RunPictures(root, settings, options.upright, options.model.white)
