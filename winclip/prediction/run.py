"""A run of predict.py: list the pictures, find the threshold, then score, draw and write one by one."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from winclip.demo.stand_in import caution_of_stand_in
from winclip.pictures.reading import BatchReader
from winclip.prediction.journal import Journal, read_rows, write_tables
from winclip.prediction.listing import common_folder, list_pictures
from winclip.prediction.options import Options
from winclip.prediction.references import add_references, class_and_prompts, with_sample, without_shared
from winclip.prediction.regions import Region, read_region
from winclip.prediction.resuming import class_settings, model_settings, prepare, threshold_settings, write_run
from winclip.prediction.scoring import Counts, Outcome, Output, outcomes, score
from winclip.prediction.summary import open_report, summary
from winclip.prediction.tiles import Tiles, check_tile
from winclip.prediction.watching import Watch
from winclip.support.command_line import log_to_terminal
from winclip.support.errors import InputError
from winclip.support.files import cache_folder, lock_folder
from winclip.support.names import printable
from winclip.thresholds import Threshold

_log = logging.getLogger("winclip")
Results = Callable[[Sequence[str]], Iterator[list[tuple[str, Outcome]]]]


def run(options: Options) -> int:
    """Score the pictures and write the files.

    Returns:
        The exit status, which is 0.

    Raises:
        InputError: if anything given is wrong, no picture can be read, or the output cannot be written;
            rows that are there stay.
    """
    log_to_terminal(_log)
    if options.demo and not options.inputs:
        options, folder = with_sample(options)
        options = replace(options, inputs=(str(folder),))
    region = None if options.region is None else read_region(options.region)
    with lock_folder(options.save_path):
        return _predict(options, region)


def _predict(options: Options, region: Region | None) -> int:
    save = options.save_path
    watch = Watch(options.inputs) if options.watch else None
    pictures = list_pictures(options.inputs) if watch is None else watch.pictures()
    folder = common_folder(options.inputs)
    caution_of_stand_in(options.model.model, {Path(path).parent for path in pictures})
    references = without_shared(options.reference, pictures)
    class_name, prompts = class_and_prompts(options)
    model = options.model.load()
    side = None
    if options.tile:
        side = model.backbone.image_size if options.tile_size is None else options.tile_size
        check_tile(side, model)
    model.set_class(class_name, prompts, cache=cache_folder("text"))
    with BatchReader(model.backbone.image_size, options.reading.batch_size, options.reading.num_workers) as reader:
        tiles = None if side is None else Tiles(model, reader, side, region)
        if tiles is not None:
            tiles.announce(references, pictures)
        checksums = add_references(model, references, reader, options, region, tiles)
        threshold = (model.threshold if tiles is None else tiles.threshold)(given=options.threshold)
        _log.info("%s: %d pictures, %s on %s", class_name, len(pictures), options.model.model, model.backbone.device)
        _log.info("threshold %.4g (%s)", threshold.score, threshold.rule)
        if threshold.caution:
            _log.warning("%s", threshold.caution)
        settings = {
            **model_settings(model),
            **class_settings(class_name, prompts),
            "references": checksums,
            **threshold_settings(threshold),
            "save_masks": options.save_masks,
            "region": None if region is None else region.identity,
            "tile_size": side,
            "folder": folder,
        }
        go_on = prepare(save, _as_json(settings), options.resume)
        with Journal(save) as journal:
            output = Output(journal, [], Counts(), set(), folder, options.save_masks, region, options.watch)
            for row in read_rows(save):
                output.done.add(row.heat_map)
                output.counts.add(row)
            left = output.left(pictures)
            if go_on:
                _log.info("%d pictures are done already, %d are left", output.counts.scored, len(left))
            results = partial(outcomes, reader=reader, model=model, region=region) if tiles is None else tiles.outcomes
            stop = None
            if watch is None:
                _score_all(left, results, threshold, save, output)
            else:
                stop = _score_as_they_come(watch, results, threshold, save, output)
    status = _finish(options, settings, threshold, output)
    if stop is not None:
        raise type(stop)(_done(output.counts)) from stop
    return status


def _score_all(left: Sequence[str], results: Results, threshold: Threshold, save: Path, output: Output) -> None:
    """Score, and where that ends early, save the tables and say how to go on."""
    total = output.counts.scored + len(left)
    try:
        score(len(left), results(left), threshold, save, output)
    except (KeyboardInterrupt, InputError) as error:
        with contextlib.suppress(InputError):  # the journal has all rows
            write_tables(save, output.failures)
        done = _done(output.counts, f" of {total}")
        raise type(error)(f"{error}; {done}" if isinstance(error, InputError) else done) from error


def _score_as_they_come(
    watch: Watch, results: Results, threshold: Threshold, save: Path, output: Output
) -> KeyboardInterrupt:
    """Score pictures when they are complete, and write the tables anew after each look that found any.

    Returns:
        The signal that came while there was nothing to do.

    Raises:
        InputError: if a watched folder disappears or something cannot be written; tells how many are done.
    """
    _log.info("watching for pictures; Ctrl-C ends it")
    while True:
        try:
            complete = watch.complete()
        except InputError as error:
            raise InputError(f"{error}; {_done(output.counts)}") from error
        left = output.left(complete)
        if left:
            _score_all(left, results, threshold, save, output)
            write_tables(save, output.failures)
        try:
            watch.pause()
        except KeyboardInterrupt as stop:
            return stop


def _done(counts: Counts, of_all: str = "") -> str:
    return f"{counts.scored}{of_all} pictures are done, and the same command with --resume goes on behind them"


def _finish(options: Options, settings: dict[str, Any], threshold: Threshold, output: Output) -> int:
    save, counts = options.save_path, output.counts
    write_tables(save, output.failures)
    write_run(save, settings, finished=True, **asdict(counts))
    if not counts.scored and not options.watch:
        total = counts.unreadable
        raise InputError(f"none of the {total} pictures could be read; {save / 'failures.csv'} says why")
    report = options.report and counts.scored > 0
    if report:
        from winclip.prediction.report import report_predictions

        report_predictions(save, settings, threshold, counts.unreadable)
    last = f"report: {save / 'report.html'}" if report else f"heat maps: {save / 'heatmaps'}"
    print("\n".join(summary(save, counts, threshold, printable(last))), flush=True)
    if report and options.open:
        open_report(save / "report.html")
    return 0


def _as_json(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings as they come back from a file."""
    as_read: dict[str, Any] = json.loads(json.dumps(settings))
    return as_read
