"""A run of predict: list the pictures, find the threshold, then score, draw and write one by one."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from winclip.demo.stand_in import caution_of_stand_in
from winclip.made_with import made_with
from winclip.pictures.drawing import encoded, heat_map, mask_image
from winclip.pictures.images import read_image
from winclip.pictures.reading import BatchReader
from winclip.prediction.options import Options
from winclip.prediction.pictures import (
    Region,
    Watch,
    common_folder,
    heat_map_name,
    in_own_size,
    list_pictures,
    mask_name,
    read_region,
)
from winclip.prediction.references import add_references, class_and_prompts, with_sample, without_shared
from winclip.prediction.rows import Journal, describe, prepare, write_run, write_tables
from winclip.prediction.scoring import Outcome, Tiles, Whole
from winclip.support.command_line import log_to_terminal
from winclip.support.errors import InputError
from winclip.support.files import cache_folder, lock_folder, write_atomically
from winclip.support.names import printable
from winclip.thresholds import Threshold

_log = logging.getLogger("winclip")
# Rows at the end of a run.
_HIGHEST = 5


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
    with BatchReader(model.backbone.image_size, options.reading.batch_size, options.reading.num_workers) as reader:
        scorer = Whole(model, reader, region) if side is None else Tiles(model, reader, region, side)
        model.set_class(class_name, prompts, cache=cache_folder("text"))
        scorer.announce(references, pictures)
        checksums = add_references(model, references, scorer, options)
        threshold = scorer.threshold(options.threshold)
        _log.info("%s: %d pictures, %s on %s", class_name, len(pictures), options.model.model, model.backbone.device)
        _log.info("threshold %.4g (%s)", threshold.score, threshold.rule)
        if threshold.caution:
            _log.warning("%s", threshold.caution)
        settings = made_with(
            model.backbone,
            model.temperature,
            class_name=class_name,
            prompts=asdict(prompts),
            references=checksums,
            threshold=threshold.score,
            threshold_rule=threshold.rule,
            pixel_threshold=threshold.pixel,
            colours=threshold.colours,
            save_masks=options.save_masks,
            region=None if region is None else region.identity,
            tile_size=side,
            folder=folder,
        )
        go_on = prepare(options.save_path, settings, options.resume)
        with Journal(options.save_path) as journal:
            output = _Output(options, journal, threshold, folder, region)
            left = output.left(pictures)
            if go_on:
                _log.info("%d pictures are done already, %d are left", len(journal.rows), len(left))
            stop = None
            if watch is None:
                _score_all(left, scorer, output)
            else:
                stop = _score_as_they_come(watch, scorer, output)
    _finish(options, settings, output)
    if stop is not None:
        raise type(stop)(output.how_to_go_on()) from stop
    return 0


@dataclass(frozen=True)
class _Output:
    """Where results go.

    Attributes:
        options: of the run.
        journal: of the rows.
        threshold: where good ends.
        folder: that names in the output are relative to.
        region: what counts of the pictures; None if all does.
        failures: by the path of pictures that could not be read, why.
    """

    options: Options
    journal: Journal
    threshold: Threshold
    folder: str
    region: Region | None
    failures: dict[str, str] = field(default_factory=dict)

    def left(self, paths: Iterable[str]) -> list[str]:
        """The pictures without a row; those that could not be read are no failures any more."""
        left = [path for path in paths if heat_map_name(path, self.folder) not in self.journal.rows]
        for path in left:
            self.failures.pop(Path(path).as_posix(), None)
        return left

    def add(self, path: str, outcome: Outcome) -> None:
        """Write what comes of a picture; one without a result is passed over.

        Raises:
            InputError: if something cannot be written.
        """
        name, threshold = heat_map_name(path, self.folder), self.threshold
        try:
            if isinstance(outcome, str):
                raise InputError(outcome)
            # Once more, because a batch of large ones would take gigabytes; it may have changed since.
            picture = read_image(path, upright=True)
            own_map = in_own_size(outcome.maps[0], picture, self.region)
            files = {name: encoded(heat_map(picture, own_map, threshold.colours), "JPEG", quality=90)}
            if self.options.save_masks:
                files[mask_name(name)] = encoded(mask_image(own_map, threshold.pixel), "PNG")
        except InputError as error:
            _log.warning("passed over: %s", error)
            self.failures[Path(path).as_posix()] = str(error)
            return
        row = describe(path, float(outcome.scores[0]), own_map, threshold, self.region, name)
        for drawn, content in files.items():
            write_atomically(self.options.save_path / drawn, content)
        self.journal.append(row)
        if self.options.watch:
            print(row.as_line(), flush=True)

    def write_tables(self) -> None:
        """Make the tables of what is there."""
        write_tables(self.options.save_path, self.journal.rows.values(), self.failures.items())

    def how_to_go_on(self, of_all: str = "") -> str:
        """What is said where a run ends early."""
        done = len(self.journal.rows)
        return f"{done}{of_all} pictures are done, and the same command with --resume goes on behind them"


def _score_all(left: Sequence[str], scorer: Whole, output: _Output) -> None:
    """Score, and where that ends early, save the tables and say how to go on."""
    total, hidden = len(output.journal.rows) + len(left), output.options.watch or None
    try:
        with tqdm(total=len(left), unit="picture", disable=hidden, dynamic_ncols=True) as progress:
            for batch in scorer.outcomes(left):
                for path, outcome in batch:
                    output.add(path, outcome)
                    progress.update()
    except (KeyboardInterrupt, InputError) as error:
        with contextlib.suppress(InputError):  # the journal has all rows
            output.write_tables()
        done = output.how_to_go_on(f" of {total}")
        raise type(error)(f"{error}; {done}" if isinstance(error, InputError) else done) from error


def _score_as_they_come(watch: Watch, scorer: Whole, output: _Output) -> KeyboardInterrupt:
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
            raise InputError(f"{error}; {output.how_to_go_on()}") from error
        left = output.left(complete)
        if left:
            _score_all(left, scorer, output)
            output.write_tables()
        try:
            watch.pause()
        except KeyboardInterrupt as stop:
            return stop


def _finish(options: Options, settings: dict[str, Any], output: _Output) -> None:
    """Write the tables, run.json and the report, and print what a person reads at the end of a run."""
    save, threshold, unreadable = options.save_path, output.threshold, len(output.failures)
    rows = sorted(output.journal.rows.values(), key=lambda row: row.score, reverse=True)
    output.write_tables()
    anomalous = sum(row.anomalous for row in rows)
    write_run(save, settings, finished=True, scored=len(rows), anomalous=anomalous, unreadable=unreadable)
    if not rows and not options.watch:
        raise InputError(f"none of the {unreadable} pictures could be read; {save / 'failures.csv'} says why")
    page = save / "report.html" if options.report and rows else None
    if page is not None:
        from winclip.prediction.report import report_predictions

        report_predictions(page, rows, settings, threshold, unreadable)
    passed_over = f", {unreadable} passed over (failures.csv says why)" if unreadable else ""
    lines = [
        f"{len(rows)} pictures: {len(rows) - anomalous} good, {anomalous} anomalous{passed_over}",
        f"threshold {threshold.score:.4g}: {threshold.rule}",
    ]
    if threshold.caution or threshold.expectation:
        lines.append(f"  {threshold.caution or threshold.expectation}")
    if rows:
        lines += ["highest scores:", *(f"  {row.as_line()}" for row in rows[:_HIGHEST])]
    result = f"heat maps: {save / 'heatmaps'}" if page is None else f"report: {page}"
    print("\n".join([*lines, printable(result)]), flush=True)
    if page is not None and options.open:
        from winclip.prediction.report import open_report

        open_report(page)
